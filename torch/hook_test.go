package torch_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"cyclecap/torch"

	"github.com/google/go-cmp/cmp"
)

// leaf returns a parameter.
func leaf(v ...float32) torch.Tensor { return torch.FromSlice(v).SetRequiresGrad(true) }

func wantGrad(t *testing.T, what string, g torch.Tensor, want ...float32) {
	t.Helper()
	if diff := cmp.Diff(want, torch.ToSlice[float32](g)); diff != "" {
		t.Errorf("%s: want (-), got (+):\n%s", what, diff)
	}
}

// TestRegisterHook: hooks run in their order, each on the result of the one before; RetainGrad sees the result of
// all. PyTorch has the same numbers.
func TestRegisterHook(t *testing.T) {
	before := torch.Alive()
	run(t, func() {
		w := leaf(1, 2, 3)
		var seen []float32
		w.RegisterHook(func(g torch.Tensor) torch.Tensor { return g.MulScalar(10) })
		remove := w.RegisterHook(func(g torch.Tensor) torch.Tensor { seen = torch.ToSlice[float32](g); return torch.Tensor{} })
		w.RegisterHook(func(g torch.Tensor) torch.Tensor { return g.AddScalar(1) })
		y := w.Mul(w)
		y.RetainGrad()
		y.RegisterHook(func(g torch.Tensor) torch.Tensor { return g.MulScalar(2) })
		y.Sum().Backward()
		if diff := cmp.Diff([]float32{40, 80, 120}, seen); diff != "" {
			t.Error(diff)
		}
		wantGrad(t, "w", w.Grad(), 41, 81, 121)
		wantGrad(t, "y", y.Grad(), 2, 2, 2)

		seen = nil
		remove()
		remove()
		w.Mul(w).Sum().Backward()
		wantGrad(t, "w", w.Grad(), 41+21, 81+41, 121+61)
		if seen != nil {
			t.Error("a removed hook was called")
		}
	})
	if now := torch.Alive(); now != before {
		t.Errorf("%d tensors are alive, %d before", now, before)
	}
}

// TestHookOfFreed: the graph keeps a hook, which can still be removed, when its tensor is freed.
func TestHookOfFreed(t *testing.T) {
	run(t, func() {
		w := leaf(1, 2)
		var remove func()
		loss := func() torch.Tensor {
			return torch.Tidy(func() torch.Tensor {
				y := w.Mul(w)
				remove = y.RegisterHook(func(g torch.Tensor) torch.Tensor { return g.MulScalar(5) })
				return y.Sum()
			})
		}
		loss().Backward()
		wantGrad(t, "w", w.Grad(), 10, 20)
		w.SetGrad(torch.Tensor{})
		l := loss()
		remove()
		l.Backward()
		wantGrad(t, "w without a hook", w.Grad(), 2, 4)
	})
}

// TestHookInPlace: a hook belongs to the value that the tensor had, as in PyTorch.
func TestHookInPlace(t *testing.T) {
	run(t, func() {
		w := leaf(1, 1)
		y := w.MulScalar(2)
		y.RegisterHook(func(g torch.Tensor) torch.Tensor { return g.MulScalar(100) })
		y.MulScalar_(3)
		y.Sum().Backward()
		wantGrad(t, "w", w.Grad(), 600, 600)
	})
}

// TestHookSecondDerivative: y = x^2 whose gradient a hook multiplies by x has the gradient 2 x^2, and of this 4 x.
func TestHookSecondDerivative(t *testing.T) {
	run(t, func() {
		x := leaf(3)
		y := x.Mul(x)
		y.RegisterHook(func(g torch.Tensor) torch.Tensor { return g.Mul(x) })
		g := torch.GradOf([]torch.Tensor{y.Sum()}, []torch.Tensor{x}, true)[0]
		wantGrad(t, "first", g, 18)
		wantGrad(t, "second", torch.GradOf([]torch.Tensor{g.Sum()}, []torch.Tensor{x}, false)[0], 12)
		if x.Grad().Defined() {
			t.Error("GradOf has set a gradient")
		}
	})
}

// TestHookFailures: what goes wrong in a hook is the error of the backward pass.
func TestHookFailures(t *testing.T) {
	before := torch.Alive()
	for _, c := range []struct {
		kind torch.Kind
		text string
		f    func(g torch.Tensor) torch.Tensor
	}{
		{torch.RuntimeError, "in a tensor's hook: mm(float32[3], float32[3]): ", func(g torch.Tensor) torch.Tensor { return g.MM(g) }},
		{torch.IndexError, "in a tensor's hook: select(", func(g torch.Tensor) torch.Tensor { return g.Select(0, 7) }},
		{torch.RuntimeError, "a tensor's hook panicked at hook_test.go:", func(torch.Tensor) torch.Tensor { panic("out of order") }},
		{torch.RuntimeError, "has changed the size of value", func(g torch.Tensor) torch.Tensor { return g.Narrow(0, 0, 1) }},
		{torch.RuntimeError, "has changed the type of value", func(g torch.Tensor) torch.Tensor { return g.To(torch.WithDType(torch.Float64)) }},
		{torch.RuntimeError, "the tensor has been freed", func(g torch.Tensor) torch.Tensor { g.Close(); return g }},
	} {
		err := torch.Scope(func() error {
			w := leaf(1, 2, 3)
			w.RegisterHook(c.f)
			w.Sum().Backward()
			return nil
		})
		var e *torch.Error
		if !errors.As(err, &e) || e.Kind != c.kind || e.Op != "backward" || !strings.Contains(e.Text, c.text) {
			t.Errorf("got %v, want %s", err, c.text)
		}
	}
	err := torch.Scope(func() error {
		torch.Ones([]int64{2}).RegisterHook(func(g torch.Tensor) torch.Tensor { return g })
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "register_hook(): cannot register a hook on a variable that doesn't require gradient") {
		t.Error(err)
	}
	// An operator that runs a backward pass cannot call Go.
	err = torch.Scope(func() error {
		w := leaf(1)
		w.RegisterHook(func(g torch.Tensor) torch.Tensor { return g })
		torch.Call("aten::_backward", w.Sum(), []torch.Tensor{w}, nil, nil, false)
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "must be started by Backward or GradOf") {
		t.Error(err)
	}
	if now := torch.Alive(); now != before {
		t.Errorf("%d tensors are alive, %d before", now, before)
	}
}

// TestHookOrder: the hook of a result runs before those of what it was computed from, and a Function sees its result.
func TestHookOrder(t *testing.T) {
	run(t, func() {
		w := leaf(2)
		var order []string
		note := func(name string, x torch.Tensor) {
			x.RegisterHook(func(torch.Tensor) torch.Tensor { order = append(order, name); return torch.Tensor{} })
		}
		y := w.Square()
		z := y.Sum()
		note("w", w)
		note("z", z)
		note("y", y)
		z.Backward()
		if want := []string{"z", "y", "w"}; !slices.Equal(order, want) {
			t.Errorf("%v, want %v", order, want)
		}
	})
}
