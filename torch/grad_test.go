package torch_test

import (
	"testing"

	"cyclecap/torch"
)

// TestGradOf takes y = x^2 and z = x w at x = (1, 2, 3), w = (4, 5, 6), whose derivatives are 2 x, w and x.
func TestGradOf(t *testing.T) {
	before := torch.Alive()
	run(t, func() {
		x, w := leaf(1, 2, 3), leaf(4, 5, 6)
		v, u := torch.FromSlice([]float32{1, 10, 100}), torch.FromSlice([]float32{-1, 0, 1})
		all := func(t ...torch.Tensor) []torch.Tensor { return t }

		wantGrad(t, "a vector times the Jacobian", torch.GradOf(all(x.Square()), all(x), false, torch.WithGradOutputs(v))[0], 2, 40, 600)
		// Of several outputs the gradients are summed: 2 x v + w u.
		g := torch.GradOf(all(x.Square(), x.Mul(w)), all(x, w), false, torch.WithGradOutputs(v, u))
		wantGrad(t, "two outputs", g[0], 2-4, 40, 600+6)
		wantGrad(t, "two outputs", g[1], -1, 0, 3)
		// None is the 1 of a scalar.
		wantGrad(t, "a scalar and a vector", torch.GradOf(all(x.Sum(), x.Square()), all(x), false, torch.WithGradOutputs(torch.Tensor{}, v))[0], 3, 41, 601)
		wantGrad(t, "two scalars", torch.GradOf(all(x.Sum(), x.Square().Sum()), all(x), false)[0], 3, 5, 7)

		// The gradient with respect to v of v J is J: a second derivative goes through grad_outputs too.
		r := v.Clone().SetRequiresGrad(true)
		product := torch.GradOf(all(x.Square()), all(x), true, torch.WithGradOutputs(r))[0]
		wantGrad(t, "with respect to grad_outputs", torch.GradOf(all(product), all(r), false, torch.WithGradOutputs(torch.Ones([]int64{3})))[0], 2, 4, 6)

		// The graph is kept if asked for, or with create, and otherwise freed.
		y := x.Square().Sum()
		torch.GradOf(all(y), all(x), false, torch.WithRetainGraph(true))
		wantGrad(t, "the graph that was kept", torch.GradOf(all(y), all(x), false)[0], 2, 4, 6)
		fails(t, "the graph was freed", "backward through the graph a second time", func() { torch.GradOf(all(y), all(x), false) })
		y = x.Square().Sum()
		torch.GradOf(all(y), all(x), true, torch.WithRetainGraph(false))
		fails(t, "the graph was freed with create", "backward through the graph a second time", func() { torch.GradOf(all(y), all(x), false) })

		if g := torch.GradOf(all(x.Sum()), all(x, w), false); !g[0].Defined() || g[1].Defined() {
			t.Errorf("the gradients of x alone are %v", g)
		}
		fails(t, "an unused input", "appears to not have been used in the graph", func() { torch.GradOf(all(x.Sum()), all(x, w), false, torch.WithAllowUnused(false)) })
		fails(t, "a vector", "implicitly created only for scalar outputs", func() { torch.GradOf(all(x.Square()), all(x), false) })
		fails(t, "another shape", "gradient 0 has shape [2], but output 0 has shape [3]", func() {
			torch.GradOf(all(x.Square()), all(x), false, torch.WithGradOutputs(torch.Ones([]int64{2})))
		})
		fails(t, "too few", "expected 2 grad_outputs, one for each output, got 1", func() {
			torch.GradOf(all(x.Square(), w.Square()), all(x), false, torch.WithGradOutputs(v))
		})
		fails(t, "an option of operators", "there is no option alpha", func() { torch.GradOf(all(x.Sum()), all(x), false, torch.WithAlpha(2)) })
		fails(t, "an option of another type", "the option retain_graph cannot be a int", func() { torch.GradOf(all(x.Sum()), all(x), false, torch.With("retain_graph", 1)) })
		if x.Grad().Defined() || w.Grad().Defined() {
			t.Error("GradOf has set a gradient")
		}
	})
	if now := torch.Alive(); now != before {
		t.Errorf("%d tensors are alive, %d before", now, before)
	}
}
