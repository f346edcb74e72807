package parity

import (
	"strings"
	"testing"

	"cyclecap/internal/operators"
	"cyclecap/torch"
	"cyclecap/torch/compare"
)

// TestCompareOperators compares recorded calls of one operator, and the same calls with
// the results of another.
func TestCompareOperators(t *testing.T) {
	threads := torch.NumThreads()
	torch.SetNumThreads(1)
	defer torch.SetNumThreads(threads)
	f, err := operators.Read("../../torch/testdata/operators.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	var some []operators.Call
	for _, c := range f.Calls {
		if c.Op == "aten::mul.Tensor" {
			some = append(some, c)
		}
	}
	f.Calls = some
	processor, err := compare.Processor()
	if err != nil {
		t.Fatal(err)
	}
	row := func(what string) Row {
		for _, r := range compareOperators(f) {
			if strings.HasSuffix(r.What, what) {
				return r
			}
		}
		t.Fatalf("no row has %s", what)
		return Row{}
	}
	for _, what := range []string{": results in float32", ": results in int64", ": gradients in float64"} {
		if r := row(what); r.Elements == 0 || !r.OK(processor == f.CPU) {
			t.Errorf("%s: %v", r.What, r.Difference)
		}
	}
	if r := row(": errors"); r.OK(true) {
		t.Error("there is no call with an error, which is fine")
	}
	for i := range some {
		some[i].Op = "aten::div.Tensor"
	}
	if r := row(": results in float32"); r.OK(true) || r.Differing == 0 {
		t.Errorf("products are quotients: %v", r.Difference)
	}
}
