package compare

import "fmt"

// A Tolerance bounds a difference: by Relative, or by Max and Mean together. The zero
// value, Bits, allows none.
type Tolerance struct {
	Why       string  // why the bits need not be equal
	Relative  float64 // bounds Difference.Relative
	Max, Mean float64 // bound Difference.Max and Difference.Mean; if Mean is 0, only Max is bounded
}

// Bits is the tolerance of what must have the same bits.
var Bits Tolerance

// OtherProcessor returns the tolerance for a reference from another kind of processor.
// libtorch and MKL have other kernels there, so every result may differ by 1e-5 of the
// largest.
func (t Tolerance) OtherProcessor() Tolerance {
	t.Relative = max(t.Relative, 1e-5)
	return t
}

// Within reports whether d is within the tolerance.
func (t Tolerance) Within(d Difference) bool {
	switch {
	case d.Mismatch != "":
		return false
	case d.Differing == 0:
		return true
	}
	return t.Relative > 0 && d.Relative() <= t.Relative ||
		t.Max > 0 && d.Max <= t.Max && (t.Mean == 0 || d.Mean <= t.Mean)
}

// String returns the bound: "0", "1e-05 of the largest" or "0.05 (mean 0.01)".
func (t Tolerance) String() string {
	switch {
	case t.Max > 0 && t.Mean > 0:
		return fmt.Sprintf("%.2g (mean %.2g)", t.Max, t.Mean)
	case t.Max > 0:
		return fmt.Sprintf("%.2g", t.Max)
	case t.Relative > 0:
		return fmt.Sprintf("%.2g of the largest", t.Relative)
	}
	return "0"
}
