package report

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestCost checks the columns with the cost of each bridge, in all three files.
func TestCost(t *testing.T) {
	e := &Experiment{Name: "costs", Bridges: []Bridge{
		{ID: "direct", Cost: &Cost{Seconds: []float64{1e-6, 3e-6}, Decoder: "texts", SharedWith: []string{"cyclegan"}, DecoderSeconds: []float64{80, 90}}},
		{ID: "cyclegan", Cost: &Cost{Parameters: 1_050_624, Seconds: []float64{100, 150}, Decoder: "texts", SharedWith: []string{"direct"}, DecoderSeconds: []float64{80, 90}}},
		{ID: "whitening", Cost: &Cost{Parameters: 262_656, Seconds: []float64{.25}, Decoder: "texts"}},
		{ID: "old"},
	}}
	var md, js bytes.Buffer
	if err := Markdown(&md, e); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| CIDEr | parameters | time to fit |\n", " 0 | < 0.1 s |\n", " 1.1 M | 2 min 05 s |\n", " 262,656 | 0.2 s |\n", "| old | – | – | – | – | – | – | – | – | – |\n", costLegend} {
		if !strings.Contains(md.String(), want) {
			t.Errorf("table.md lacks %q:\n%s", want, md.String())
		}
	}
	page := html(t, e)
	for _, want := range []string{`scope="col">time to fit</th>`, `data-metric="parameters">1.1 M</td>`, `data-metric="time to fit">2 min 05 s</td>`} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if err := JSON(&js, e); err != nil {
		t.Fatal(err)
	}
	var table map[string]map[string]json.RawMessage
	if err := json.Unmarshal(js.Bytes(), &table); err != nil {
		t.Fatal(err)
	}
	compact := func(raw json.RawMessage) string {
		var b bytes.Buffer
		if err := json.Compact(&b, raw); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	got := []string{compact(table["cyclegan"]["parameters"]), compact(table["cyclegan"]["fit_seconds"]), compact(table["cyclegan"]["decoder"])}
	want := []string{`{"value":1050624,"low":null,"high":null,"std":null,"seeds":[]}`,
		`{"value":125,"low":null,"high":null,"std":35.35533905932738,"seeds":[100,150]}`,
		`{"name":"texts","seconds":[80,90],"shared_with":["direct"]}`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if table["old"]["parameters"] != nil {
		t.Error("table.json has a cost that is not known")
	}
	e.Bridges[0].Cost.Seconds[0] = -1
	if err := JSON(&js, e); err == nil || !strings.Contains(err.Error(), `bridge "direct": invalid duration of -1 seconds`) {
		t.Error(err)
	}
}
