package verify_test

import (
	"slices"
	"strings"
	"testing"

	"cyclecap/internal/verify"
	"cyclecap/nets/clipcap"
	"cyclecap/nets/gpt2"
	"cyclecap/torch"
	"cyclecap/torch/nn"
)

// TestTies: two tokens with the same embedding are as likely as each other, and a third is not.
func TestTies(t *testing.T) {
	err := torch.Scope(func() error {
		torch.ManualSeed(1)
		m := &clipcap.Model{GPT2: gpt2.New(gpt2.Config{VocabSize: 11, NPositions: 16, NEmbd: 8, NLayer: 2, NHead: 2, LayerNormEpsilon: 1e-5})}
		defer nn.Close(m.GPT2)
		torch.InferenceMode(func() {
			wte := m.GPT2.Wte.Weight
			wte.Select(0, 4).Copy_(wte.Select(0, 3))
			ties := verify.Ties{Model: m, Relative: 1e-5}
			prefix := torch.Randn([]int64{2, 3, 8})
			for _, test := range []struct {
				what      string
				got, want [][]int64
				tie       string
			}{
				{"equal", [][]int64{{1, 3}, {2, 2}}, [][]int64{{1, 3}, {2, 2}}, ""},
				{"a tie", [][]int64{{1, 3, 9}, {2, 2}}, [][]int64{{1, 4, 5}, {2, 2}}, "at [0, 1], tokens 3 and 4"},
				{"two ties", [][]int64{{1, 3, 9}, {2, 4}}, [][]int64{{1, 4, 5}, {2, 3}}, ", and 1 more"},
				{"no tie", [][]int64{{1, 3}, {2, 2}}, [][]int64{{1, 5}, {2, 2}}, ""},
				{"a tie, and no tie", [][]int64{{1, 3}, {2, 2}}, [][]int64{{1, 4}, {2, 5}}, ""},
				{"one is longer", [][]int64{{1, 3, 2}, {2, 2}}, [][]int64{{1, 3}, {2, 2}}, ""},
			} {
				greedy := ties.Greedy(prefix, test.got, test.want)
				if !strings.Contains(greedy, test.tie) || (greedy == "") != (test.tie == "") {
					t.Errorf("%s: %q", test.what, greedy)
				}
			}
			// Whole captions are as likely as each other, or not.
			got, want := [][]int64{{3, 1}, {2, 3}}, [][]int64{{4, 1}, {2, 4}}
			if text := ties.Beams(1)(prefix, got, want); !strings.Contains(text, "at [0, 0], tokens 3 and 4") {
				t.Errorf("beams: %q", text)
			}
			got = slices.Concat(got, [][]int64{{1, 1}, {1, 1}}) // two of each prefix
			if text := ties.Beams(2)(prefix, got, slices.Concat(want, [][]int64{{1, 1}, {1, 7}})); text != "" {
				t.Errorf("beams of which one is no tie: %q", text)
			}
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
