package selftest

import (
	"context"
	"errors"
	"strings"
	"testing"

	"cyclecap/torch"
	"cyclecap/torch/nn"
)

func resultsOf(t *testing.T, ctx context.Context, checks []Check) (list []Result) {
	t.Helper()
	if err := Run(ctx, torch.CPU, checks, func(r Result) { list = append(list, r) }); err != nil {
		t.Error(err)
	}
	return list
}

func TestCPU(t *testing.T) {
	checks := Checks()
	before := torch.Alive()
	list := resultsOf(t, t.Context(), checks)
	if len(list) != len(checks) {
		t.Errorf("%d results of %d checks", len(list), len(checks))
	}
	if n := torch.Alive() - before; n != 0 {
		t.Errorf("%d tensors are left", n)
	}
	for i, r := range list {
		t.Logf("%-42s %8.1e of %8.1e, %.2f s", r.Name, r.Difference, r.Bound, r.Seconds)
		if !r.OK || r.Error != "" || r.Name != checks[i].Name {
			t.Errorf("%+v", r)
		}
		// No check compares a thing with itself.
		if r.Difference == 0 {
			t.Errorf("%s: f32 or bf16 has every bit of f64", r.Name)
		}
	}
}

// TestLowerPrecision runs the f32 checks with the factors of each matrix product rounded
// to 10 bits, as TF32 does: all but the optimizers' must fail.
func TestLowerPrecision(t *testing.T) {
	for _, c := range Checks() {
		if !strings.HasSuffix(c.Name, ", f32") || strings.HasPrefix(c.Name, "optimizer") {
			continue
		}
		torch.Autocast(torch.CPUDevice, torch.Float16, func() {
			r := c.result(t.Context(), torch.CPU)
			t.Logf("%-42s %8.1e of %8.1e %s", r.Name, r.Difference, r.Bound, r.Error)
			if r.OK {
				t.Errorf("%s passes in half precision: %+v", c.Name, r)
			}
		})
	}
}

// TestFailures: what goes wrong in a check is its result, and the others still run.
func TestFailures(t *testing.T) {
	forward := func(f func(x torch.Tensor) torch.Tensor) Check {
		return net("a net", func() *nn.LinearModule { return nn.Linear(featureWidth, 3, true) },
			func() torch.Tensor { return features(1, 2) },
			func(m *nn.LinearModule, x torch.Tensor) torch.Tensor { return f(m.Forward(x)) })[0]
	}
	only32 := func(f func(x torch.Tensor) torch.Tensor) Check {
		return forward(func(x torch.Tensor) torch.Tensor {
			if x.DType() == torch.Float32 {
				return f(x)
			}
			return x
		})
	}
	checks := []Check{
		only32(func(x torch.Tensor) torch.Tensor { return x.MulScalar(1.001) }),
		only32(func(x torch.Tensor) torch.Tensor { return x.DivScalar(0) }),
		only32(func(x torch.Tensor) torch.Tensor { return x.Narrow(0, 0, 1) }),
		only32(func(x torch.Tensor) torch.Tensor { return x.MM(x) }),
		only32(func(x torch.Tensor) torch.Tensor { panic("a bug") }),
		only32(func(x torch.Tensor) torch.Tensor { return x }),
	}
	list := resultsOf(t, t.Context(), checks)
	if len(list) != len(checks) {
		t.Fatalf("%d results of %d checks", len(list), len(checks))
	}
	for i, want := range []string{"", "NaN or infinite", "shape [1 3], want [2 3]", "mm(", "a bug", ""} {
		r := list[i]
		if ok := i == len(checks)-1; r.OK != ok {
			t.Errorf("check %d: %+v", i, r)
		}
		if (want == "") != (r.Error == "") || !strings.Contains(r.Error, want) || strings.Contains(r.Error, "\n") {
			t.Errorf("check %d: the error is %q, want %q", i, r.Error, want)
		}
		if r.Error != "" && r.Difference != 0 {
			t.Errorf("check %d: both an error and a difference: %+v", i, r)
		}
	}
	if d := list[0].Difference; d < 0.0005 || d > 0.002 {
		t.Errorf("a result that is 0.1 %% too large differs by %g", d)
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var n int
	err := Run(ctx, torch.CPU, Checks(), func(Result) {
		if n++; n == 2 {
			cancel()
		}
	})
	if n != 2 || !errors.Is(err, context.Canceled) {
		t.Errorf("%d results and error %v", n, err)
	}
}
