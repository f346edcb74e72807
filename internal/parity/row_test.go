package parity

import (
	"math"
	"testing"
)

func TestRow(t *testing.T) {
	relative := Tolerance{Why: "rounding", Relative: 1e-3}
	absolute := Tolerance{Why: "Adam", Max: 0.5, Mean: 0.1}
	nan, negative := math.NaN(), math.Copysign(0, -1)
	for _, c := range []struct {
		name      string
		got, want []float64
		tolerance Tolerance
		differing int64
		ok, other bool // on the fixtures' kind of processor, on another
	}{
		{"equal", []float64{1, 2}, []float64{1, 2}, bitEqual, 0, true, true},
		{"an ulp", []float64{1, 2}, []float64{1, math.Nextafter(2, 3)}, bitEqual, 1, false, true},
		{"the sign of zero", []float64{0, 1}, []float64{negative, 1}, bitEqual, 1, false, true},
		{"NaN here", []float64{nan, 1}, []float64{1, 1}, relative, 1, false, false},
		{"NaN there", []float64{1, 1}, []float64{1, nan}, relative, 1, false, false},
		{"NaN there, absolute", []float64{1, 1}, []float64{1, nan}, absolute, 1, false, false},
		{"something for nothing", []float64{1e-9}, []float64{0}, relative, 1, false, false},
		{"within the relative bound", []float64{1, 10.009}, []float64{1, 10}, relative, 1, true, true},
		{"beyond it", []float64{1.02, 10}, []float64{1, 10}, relative, 1, false, false},
		{"within both absolute bounds", []float64{1.3, 1, 1, 1}, []float64{1, 1, 1, 1}, absolute, 1, true, true},
		{"the mean too large", []float64{1.2, 1.2}, []float64{1, 1}, absolute, 2, false, false},
		{"one too large", []float64{1.6, 1, 1, 1, 1, 1, 1, 1}, []float64{1, 1, 1, 1, 1, 1, 1, 1}, absolute, 1, false, false},
	} {
		var k checker
		k.numbers(c.name, "", c.got, c.want, c.tolerance)
		if r := k.rows[0]; r.Differing != c.differing || r.OK(true) != c.ok || r.OK(false) != c.other {
			t.Errorf("%s: %+v, OK %v and %v; want %d to differ, OK %v and %v", c.name, r, r.OK(true), r.OK(false), c.differing, c.ok, c.other)
		}
	}
	var k checker
	lists(&k, "ids", "", [][]int64{{1, 2, 3}, {4}}, [][]int64{{1, 5}, {4}})
	if r := k.rows[0]; r.Elements != 4 || r.Differing != 2 || r.OK(true) || r.OK(false) {
		t.Errorf("%+v, want 2 of 4 elements to differ", r)
	}
}
