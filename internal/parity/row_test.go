package parity

import (
	"math"
	"testing"

	"cyclecap/torch/compare"

	"github.com/google/go-cmp/cmp"
)

// TestRow checks what the table prints of rows, and which fail it.
func TestRow(t *testing.T) {
	relative := compare.Tolerance{Why: "rounding", Relative: 1e-3}
	absolute := compare.Tolerance{Why: "Adam", Max: 0.5, Mean: 0.1}
	for _, c := range []struct {
		name       string
		difference compare.Difference
		tolerance  compare.Tolerance
		ok, other  bool // on the fixtures' kind of processor, on another
		max, note  string
	}{
		{"equal", compare.Numbers([]float64{1, 2}, []float64{1, 2}), absolute, true, true, "0", ""},
		{"an ulp", compare.Numbers([]float64{1, 2}, []float64{1, math.Nextafter(2, 3)}), compare.Bits, false, true, "4.4e-16",
			"OUT OF BOUNDS: 2.2e-16 of the largest; first at [1]: got 2, want 2.0000000000000004"},
		{"within the relative bound", compare.Numbers([]float64{1, 10.009}, []float64{1, 10}), relative, true, true, "0.009", "rounding"},
		{"beyond it", compare.Numbers([]float64{1.02, 10}, []float64{1, 10}), relative, false, false, "0.02",
			"OUT OF BOUNDS: 0.002 of the largest; first at [0]: got 1.02, want 1; expected: rounding"},
		{"within both bounds", compare.Numbers([]float64{1.25, 1, 1, 1}, []float64{1, 1, 1, 1}), absolute, true, true, "0.25 (mean 0.062)", "Adam"},
		{"the mean too large", compare.Numbers([]float64{1.25, 1.25}, []float64{1, 1}), absolute, false, false, "0.25 (mean 0.25)",
			"OUT OF BOUNDS: 0.25 of the largest; first at [0]: got 1.25, want 1; expected: Adam"},
		{"ids", compare.Lists([][]int64{{1, 2, 3}}, [][]int64{{1, 5}}), compare.Bits, false, false, "+Inf", "OUT OF BOUNDS; first at [0, 1]: got 2, want 5"},
		{"lengths", compare.Numbers([]float64{1}, nil), absolute, false, false, "+Inf (mean +Inf)", "OUT OF BOUNDS: 1 number, want 0"},
	} {
		r := Row{Difference: c.difference, Tolerance: c.tolerance}
		if r.OK(true) != c.ok || r.OK(false) != c.other {
			t.Errorf("%s: OK %v and %v, want %v and %v: %v", c.name, r.OK(true), r.OK(false), c.ok, c.other, r.Difference)
		}
		if diff := cmp.Diff([]string{c.max, c.note}, []string{r.MaxText(), r.Note()}); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}
