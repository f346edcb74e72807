package report

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"cyclecap/eval"
	"cyclecap/eval/truth"
)

func TestClaims(t *testing.T) {
	known := &Claims{Repetition: eval.Share{Mean: .25, Low: .125, High: .5},
		Truth: &truth.Scores{MainObjectColour: eval.Share{Mean: .75, Low: .5, High: 1}, Objects: truth.Subject{Precision: eval.Share{Mean: .5, Low: .5, High: .5}}}}
	e := &Experiment{Name: "x", Bridges: []Bridge{{ID: "direct", Label: "a_b", Claims: known}, {ID: "other"}}, References: &Claims{Truth: &truth.Scores{}}}
	write := func(e *Experiment) (md, js string) {
		t.Helper()
		var m, j bytes.Buffer
		if err := Markdown(&m, e); err != nil {
			t.Fatal(err)
		}
		if err := JSON(&j, e); err != nil {
			t.Fatal(err)
		}
		return m.String(), j.String()
	}
	md, js := write(e)
	for _, want := range []string{"| a\\_b | 0.500 / – |", "| a\\_b | 0.750 [0.500, 1.000] | – | 0.000 [0.000, 0.000] | 0.000 [0.000, 0.000] | 0.250 [0.125, 0.500] |", "| *reference captions* |"} {
		if !strings.Contains(md, want) {
			t.Errorf("%q is not in:\n%s", want, md)
		}
	}
	var table map[string]struct {
		Truth *struct {
			MainObjectColour eval.Share `json:"main_object_colour"`
			Objects          struct{ Precision, Recall *eval.Share }
		}
		Repetition *eval.Share
	}
	if err := json.Unmarshal([]byte(js), &table); err != nil {
		t.Fatal(err)
	}
	if d := table["direct"]; d.Truth == nil || d.Truth.MainObjectColour.Mean != .75 || d.Truth.Objects.Recall != nil || d.Repetition.High != .5 {
		t.Errorf("%s", js)
	}
	if o := table["other"]; o.Truth != nil || o.Repetition != nil {
		t.Errorf("%s", js)
	}

	// On photos of which nothing is known, captions can still repeat themselves.
	md, js = write(&Experiment{Bridges: []Bridge{{ID: "direct", Claims: &Claims{}}}})
	if !strings.Contains(md, "| captions | repeat a bigram |") || strings.Contains(md, "CHAIR") || strings.Contains(js, "truth") {
		t.Errorf("%s%s", md, js)
	}
	known.Truth.ChairI.Mean = math.NaN()
	if err := Markdown(&bytes.Buffer{}, e); err == nil || !strings.Contains(err.Error(), `bridge "direct", chair_i: must be finite`) {
		t.Errorf("%v", err)
	}
}
