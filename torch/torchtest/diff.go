package torchtest

import (
	"fmt"
	"strings"

	"cyclecap/torch"
	"cyclecap/torch/compare"

	"github.com/google/go-cmp/cmp"
)

// Diff compares two values that may contain tensors: structs, maps, slices. It returns
// "" if they are equal, with tensors within the tolerance, and otherwise what cmp.Diff
// prints of everything else (- want, + got), followed by each tensor that differs: its
// place, how many elements, by how much and where. opts are passed to cmp; it needs one
// for structs with unexported fields, such as cmp.AllowUnexported.
func Diff(got, want any, tolerance compare.Tolerance, opts ...cmp.Option) string {
	r := &reporter{tolerance: tolerance}
	// All tensors are equal to cmp, so that the elements of slices keep their places,
	// and the reporter compares them.
	same := cmp.Comparer(func(torch.Tensor, torch.Tensor) bool { return true })
	text := cmp.Diff(want, got, append(opts[:len(opts):len(opts)], same, cmp.Reporter(r))...)
	return text + strings.Join(r.failures, "\n")
}

// reporter compares the tensors that cmp comes to.
type reporter struct {
	tolerance compare.Tolerance
	path      cmp.Path
	failures  []string
}

func (r *reporter) PushStep(s cmp.PathStep) { r.path = append(r.path, s) }

func (r *reporter) PopStep() { r.path = r.path[:len(r.path)-1] }

func (r *reporter) Report(result cmp.Result) {
	x, y := r.path.Last().Values()
	if result.ByIgnore() || !x.IsValid() || !y.IsValid() || !x.CanInterface() || !y.CanInterface() {
		return
	}
	want, ok := x.Interface().(torch.Tensor)
	if !ok {
		return
	}
	got, ok := y.Interface().(torch.Tensor)
	if !ok {
		return
	}
	if failure := explain(compare.Tensors(got, want), r.tolerance); failure != "" {
		r.failures = append(r.failures, fmt.Sprintf("%#v:\n%s", r.path, indent(failure)))
	}
}
