// Package torchtest compares tensors in tests. A test that fails says how many elements
// differ, by how much, and which one first:
//
//	model_test.go:31: output: more than 1e-06 of the largest apart (another order of sums)
//	    2 of 6 elements of float32[2, 3] differ in their bits
//	    first:   [0, 1]: got 2.5, want 2
//	    largest: [1, 2]: got 6.25, want 7
//	    max |difference| 0.75, mean 0.208, relative to the largest wanted value 0.107
//	       1e-01 ######################################## 2
//
// [Bits] and [Close] compare two tensors, [Golden] compares one with a file that
// `go test -update` writes, and [Diff] compares structs, maps and slices that contain
// tensors. Package compare has the same comparison for programs.
package torchtest

import (
	"fmt"
	"strings"
	"testing"

	"cyclecap/torch"
	"cyclecap/torch/compare"
)

// Bits fails the test unless the tensors have the same shape, dtype and bits. The
// failure begins with what, as fmt.Sprint prints it. The tensors may be on different
// devices. The test continues.
func Bits(t testing.TB, got, want torch.Tensor, what ...any) {
	t.Helper()
	check(t, compare.Tensors(got, want), compare.Bits, what)
}

// Close fails the test unless the tensors have the same shape and dtype and differ by no
// more than tolerance. The failure begins with what, as fmt.Sprint prints it. The
// tensors may be on different devices. The test continues.
func Close(t testing.TB, got, want torch.Tensor, tolerance compare.Tolerance, what ...any) {
	t.Helper()
	check(t, compare.Tensors(got, want), tolerance, what)
}

func check(t testing.TB, d compare.Difference, tolerance compare.Tolerance, what []any) {
	t.Helper()
	if failure := explain(d, tolerance); failure != "" {
		if len(what) > 0 {
			failure = fmt.Sprint(what...) + ": " + failure
		}
		t.Error(failure)
	}
}

// explain says how a difference exceeds a tolerance, or nothing if it does not.
func explain(d compare.Difference, tolerance compare.Tolerance) string {
	switch {
	case tolerance.Within(d):
		return ""
	case d.Mismatch != "", tolerance.Relative == 0 && tolerance.Max == 0:
		return d.String()
	}
	why := ""
	if tolerance.Why != "" {
		why = " (" + tolerance.Why + ")"
	}
	return fmt.Sprintf("more than %v apart%s\n%v", tolerance, why, d)
}

// indent indents the lines of a text.
func indent(text string) string { return "\t" + strings.ReplaceAll(text, "\n", "\n\t") }
