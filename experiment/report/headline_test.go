package report

import (
	"strings"
	"testing"

	"cyclecap/data/world"
	"cyclecap/eval"

	"github.com/google/go-cmp/cmp"
)

// TestHeadline checks that the sentence claims no more than the intervals allow.
func TestHeadline(t *testing.T) {
	at := func(id string, v float64) Bridge {
		b := Bridge{ID: id, Scores: map[string]Score{"CIDEr": {Seeds: []float64{v}}}}
		switch id {
		case "direct", "textualised":
			b.Paper = id
		case "ClipCap":
			b.Supervised = true
		}
		return b
	}
	minus := func(a, b string, low, high, holm float64) Difference {
		return Difference{a, b, eval.Difference{Score: "CIDEr", Difference: (low + high) / 2, Low: low, High: high}, holm}
	}
	three := func(d, x, s float64) []Bridge {
		return []Bridge{at("direct", d), at("textualised", x), at("ClipCap", s)}
	}
	gain := minus("textualised", "direct", .1, .3, .01)
	ceiling := minus("ClipCap", "direct", .2, .5, 0)
	for name, c := range map[string]struct {
		e    Experiment
		want string
	}{
		"closes": {Experiment{Bridges: three(.41, .62, .77), Differences: []Difference{gain, ceiling}},
			"Textualised captions score CIDEr 0.620, direct ones 0.410: the translation closes 58% of the distance to the supervised decoder (0.770)."},
		"either way round": {Experiment{Bridges: three(.41, .62, .77), Differences: []Difference{minus("direct", "textualised", -.3, -.1, 0), minus("direct", "ClipCap", -.5, -.2, 0)}},
			"Textualised captions score CIDEr 0.620, direct ones 0.410: the translation closes 58% of the distance to the supervised decoder (0.770)."},
		"chance": {Experiment{Bridges: three(.41, .42, .77), Differences: []Difference{minus("textualised", "direct", -.1, .12, 0), ceiling}},
			"Textualised captions score CIDEr 0.420 and direct ones 0.410, a difference that may be chance; the supervised decoder scores 0.770."},
		"not corrected": {Experiment{Bridges: three(.41, .62, .77), Differences: []Difference{minus("textualised", "direct", .001, .3, .2), ceiling}},
			"Textualised captions score CIDEr 0.620, direct ones 0.410: the translation closes 58% of the distance to the supervised decoder (0.770)."},
		"a rival after correction": {Experiment{Bridges: append(three(.41, .62, .77), at("DeCap", .7)), Differences: []Difference{gain, ceiling, minus("DeCap", "textualised", .01, .2, .2)}},
			"Textualised captions score CIDEr 0.620, direct ones 0.410: the translation closes 58% of the distance to the supervised decoder (0.770); DeCap scores 0.700, which is not clearly more than textualised."},
		"worse": {Experiment{Bridges: three(.41, .3, .77), Differences: []Difference{minus("textualised", "direct", -.2, -.1, 0), ceiling}},
			"Textualised captions score CIDEr 0.300, less than direct ones (0.410); the supervised decoder scores 0.770."},
		"no ceiling": {Experiment{Bridges: three(.41, .62, .43), Differences: []Difference{gain, minus("ClipCap", "direct", -.01, .05, 0)}},
			"Textualised captions score CIDEr 0.620, direct ones 0.410; the supervised decoder (0.430) is not clearly better than direct captions, so there is no distance to close."},
		"beyond": {Experiment{Bridges: three(.41, .8, .77), Differences: []Difference{gain, ceiling, minus("textualised", "ClipCap", .01, .05, 0)}},
			"Textualised captions score CIDEr 0.800, direct ones 0.410: the translation goes beyond the supervised decoder (0.770), which is no ceiling here."},
		"all of it": {Experiment{Bridges: three(.41, .8, .77), Differences: []Difference{gain, ceiling, minus("textualised", "ClipCap", -.01, .05, 0)}},
			"Textualised captions score CIDEr 0.800, direct ones 0.410: the translation closes the whole distance to the supervised decoder (0.770)."},
		"a better bridge": {Experiment{Bridges: append(three(.41, .62, .77), at("DeCap", .7)), Differences: []Difference{gain, ceiling, minus("DeCap", "textualised", .01, .2, 0)}},
			"Textualised captions score CIDEr 0.620, direct ones 0.410: the translation closes 58% of the distance to the supervised decoder (0.770); DeCap is better (0.700)."},
		"perhaps a better bridge": {Experiment{Bridges: append(three(.41, .62, .77), at("DeCap", .63)), Differences: []Difference{gain, ceiling, minus("DeCap", "textualised", -.01, .2, 0)}},
			"Textualised captions score CIDEr 0.620, direct ones 0.410: the translation closes 58% of the distance to the supervised decoder (0.770); DeCap scores 0.630, which is not clearly more than textualised."},
		"without the paper's bridges": {Experiment{Bridges: []Bridge{at("a", .4), at("b", .5), at("ClipCap", .6)}}, "b scores highest of the bridges trained without pairs: CIDEr 0.500."},
		"nothing":                     {Experiment{}, ""},
	} {
		if got, _ := c.e.headline(); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, c.want)
		}
	}
}

func TestMatrix(t *testing.T) {
	e := &Experiment{Bridges: []Bridge{{ID: "a"}, {ID: "b"}, {ID: "c"}}, Differences: []Difference{
		{"a", "b", eval.Difference{Score: "CIDEr", Difference: .2, Low: .1, High: .3}, .01},
		{"c", "a", eval.Difference{Score: "CIDEr", Difference: .2, Low: .1, High: .3}, .06},
	}}
	list := e.matrices()
	if len(list) != 1 {
		t.Fatalf("%d matrices", len(list))
	}
	var got []string
	for _, r := range list[0].Rows {
		var s []string
		for _, c := range r.Cells {
			s = append(s, strings.TrimSpace(c.Verdict+" "+c.Value))
		}
		got = append(got, strings.Join(s, ", "))
	}
	if diff := cmp.Diff([]string{"self, better +0.200, unclear −0.200", "worse −0.200, self, none", "unclear +0.200, none, self"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestSpans(t *testing.T) {
	text := "A red cup on a box"
	claims := []world.Claim{{Start: 2, End: 5, Right: true}, {Start: 6, End: 9, Right: true}, {Start: 10, End: 12}, {Start: 11, End: 12}, {Start: 15, End: 18}}
	want := []span{{"A ", ""}, {"red cup", "right"}, {" ", ""}, {"on", "invented"}, {" a ", ""}, {"box", "invented"}}
	if diff := cmp.Diff(want, spans(text, claims)); diff != "" {
		t.Error(diff)
	}
	if checkClaims(Caption{Text: "ab", Claims: []world.Claim{{Start: 1, End: 3}}}) == nil {
		t.Error("no error for a claim beyond the caption")
	}
}
