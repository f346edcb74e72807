package parity

import (
	"fmt"
	"math"

	"cyclecap/torch/compare"
	"cyclecap/torch/nn"
)

// Row is one comparison with another implementation.
type Row struct {
	What      string
	Reference string // the other implementation
	compare.Difference
	Tolerance compare.Tolerance
}

// tied is the tolerance of tokens that part where rounding decides, as why says.
func tied(why string) compare.Tolerance { return compare.Tolerance{Why: why, Max: math.Inf(1)} }

// Tensors compares several tensors with those of the same names in a state dict.
func Tensors(got []nn.Named, want *nn.StateDict) (d compare.Difference) {
	for _, g := range got {
		part := compare.Difference{Mismatch: "the reference has no such tensor"}
		if w, ok := want.Get(g.Name); ok {
			part = compare.Tensors(*g.Tensor, w)
		}
		d.Add(g.Name, part)
	}
	return d
}

// OK reports whether the row is within its tolerance, which is larger where the fixtures
// were made on another kind of processor.
func (r Row) OK(sameCPU bool) bool {
	t := r.Tolerance
	if !sameCPU {
		t = t.OtherProcessor()
	}
	return t.Within(r.Difference)
}

// MaxText gives the largest difference as the table prints it.
func (r Row) MaxText() string {
	if r.Tolerance.Max > 0 && !r.Equal() {
		return fmt.Sprintf("%.2g (mean %.2g)", r.Max, r.Mean)
	}
	return fmt.Sprintf("%.2g", r.Max)
}

// Note says why a row's bits may differ, or how it is out of bounds: with the first
// element that differs.
func (r Row) Note() string {
	switch {
	case r.Equal():
		return ""
	case r.OK(true):
		return r.Tolerance.Why
	case r.Mismatch != "":
		return "OUT OF BOUNDS: " + r.Mismatch
	}
	note := "OUT OF BOUNDS"
	if relative := r.Relative(); !math.IsInf(relative, 1) {
		note += fmt.Sprintf(": %.2g of the largest", relative)
	}
	if r.First != nil {
		note += fmt.Sprintf("; first at %v", r.First)
	}
	if r.Tolerance.Why != "" {
		note += "; expected: " + r.Tolerance.Why
	}
	return note
}
