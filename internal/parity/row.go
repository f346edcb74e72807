package parity

import "fmt"

// Row is one comparison with another implementation.
type Row struct {
	What      string
	Reference string // the other implementation
	Elements  int64
	Differing int64   // elements that are not the same bits
	MaxDiff   float64 // largest |ours - theirs|
	MeanDiff  float64 // mean |ours - theirs|
	Relative  float64 // MaxDiff over the largest |theirs|; of several tensors the largest of theirs
	Tolerance Tolerance
}

// Tolerance says why a row may differ in bits, and by how much: either by
// Relative, or by Max and Mean. A row with no tolerance must be bit-equal.
type Tolerance struct {
	Why       string
	Relative  float64 // bounds Row.Relative
	Max, Mean float64 // bound Row.MaxDiff and Row.MeanDiff together
}

// bitEqual is the tolerance of what must not differ.
var bitEqual Tolerance

// Equal reports whether all bits are equal.
func (r Row) Equal() bool { return r.Differing == 0 }

// OK reports whether the row is within its tolerance. Where the fixtures were
// made on another kind of processor, whose kernels differ, every row may
// differ by 1e-5.
func (r Row) OK(sameCPU bool) bool {
	t := r.Tolerance
	if !sameCPU {
		t.Relative = max(t.Relative, 1e-5)
	}
	return r.Equal() ||
		t.Relative > 0 && r.Relative <= t.Relative ||
		t.Max > 0 && r.MaxDiff <= t.Max && r.MeanDiff <= t.Mean
}

// Difference gives the difference as the table prints it.
func (r Row) Difference() string {
	if r.Tolerance.Max > 0 && !r.Equal() {
		return fmt.Sprintf("%.2g (mean %.2g)", r.MaxDiff, r.MeanDiff)
	}
	return fmt.Sprintf("%.2g", r.MaxDiff)
}

// String gives the bound as the table prints it.
func (t Tolerance) String() string {
	switch {
	case t.Max > 0:
		return fmt.Sprintf("%.2g (mean %.2g)", t.Max, t.Mean)
	case t.Relative > 0:
		return fmt.Sprintf("%.2g of the largest", t.Relative)
	}
	return "0"
}
