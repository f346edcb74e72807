package torch

import (
	"slices"

	"cyclecap/torch/internal/shim"
)

// SetRequiresGrad sets whether autograd computes a gradient for leaf t, as
// requires_grad_ does. It returns t.
func (t Tensor) SetRequiresGrad(on bool) Tensor {
	some("requires_grad_", t)
	must("requires_grad_", lend("requires_grad_", func(p []uintptr) error { return shim.SetRequiresGrad(p[0], on) }, t))
	return t
}

// Grad returns t.grad. It is none if no backward pass has reached t.
func (t Tensor) Grad() Tensor {
	return t.derive("grad", shim.TensorGrad)
}

// derive returns the result of f, a function of the shim, as a new tensor.
func (t Tensor) derive(op string, f func(p uintptr) (uintptr, error)) Tensor {
	some(op, t)
	var y uintptr
	must(op, lend(op, func(p []uintptr) (err error) { y, err = f(p[0]); return err }, t))
	return adopt(op, y)
}

// SetGrad sets t.grad; the zero Tensor clears it. g must have the shape, dtype and
// device of t.
func (t Tensor) SetGrad(g Tensor) {
	some("grad", t)
	must("grad", lend("grad", func(p []uintptr) error { return shim.SetGrad(p[0], p[1]) }, t, g))
}

// SetData is t.data = o: t takes over o's storage, shape, dtype and device, but
// remains the same tensor, for example as a parameter of an optimizer.
func (t Tensor) SetData(o Tensor) {
	some("set_data", t, o)
	must("set_data", lend("set_data", func(p []uintptr) error { return shim.SetData(p[0], p[1]) }, t, o))
}

// Backward computes the gradients of t, a scalar, with respect to all leaves
// that it depends on, and adds them to their Grad.
func (t Tensor) Backward() { Backward([]Tensor{t}, nil, false) }

// Backward is torch.autograd.backward. grads are the gradients with respect to
// outputs, one for each; nil is allowed if the outputs are scalars, and so is none
// for one that is. If retain is set, the graph is kept for another backward pass.
func Backward(outputs, grads []Tensor, retain bool) {
	some("backward", outputs...)
	if len(grads) != 0 && len(grads) != len(outputs) {
		Throw("backward", "expected %d gradients, one for each output, got %d", len(outputs), len(grads))
	}
	n := len(outputs)
	must("backward", lend("backward", func(p []uintptr) error {
		return shim.Backward(p[:n], p[n:], retain, false)
	}, slices.Concat(outputs, grads)...))
}

// GradOf is torch.autograd.grad(outputs, inputs): it returns the gradients with
// respect to inputs, summed over the outputs, and leaves every Grad unchanged. The
// outputs must be scalars, unless [WithGradOutputs] gives their gradients. If create
// is set, the computation is recorded, for second derivatives, and the graph is kept.
//
// Further options are [WithRetainGraph] and [WithAllowUnused]. Other than in PyTorch,
// an input on which the outputs do not depend is no error by default; its gradient is
// none.
func GradOf(outputs, inputs []Tensor, create bool, opts ...Option) []Tensor {
	const op = "grad"
	some(op, outputs...)
	some(op, inputs...)
	var grads []Tensor
	retain, unused := create, true
	for _, o := range opts {
		ok := true
		switch o.name {
		case "grad_outputs":
			if grads, ok = o.value.([]Tensor); ok && len(grads) != len(outputs) {
				Throw(op, "expected %d grad_outputs, one for each output, got %d", len(outputs), len(grads))
			}
		case "retain_graph":
			retain, ok = o.value.(bool)
		case "allow_unused":
			unused, ok = o.value.(bool)
		default:
			Throw(op, "there is no option %s", o.name)
		}
		if !ok { // of With
			Throw(op, "the option %s cannot be a %T", o.name, o.value)
		}
	}
	n, m := len(outputs), len(outputs)+len(grads)
	var g []uintptr
	must(op, lend(op, func(p []uintptr) (err error) {
		g, err = shim.Grad(p[:n], p[n:m], p[m:], retain, create, unused)
		return err
	}, slices.Concat(outputs, grads, inputs)...))
	return adoptAll(op, g)
}

// WithGradOutputs sets the gradients with respect to the outputs of [GradOf], one for
// each, of its shape; none stands for the 1 of a scalar.
func WithGradOutputs(grads ...Tensor) Option { return Option{"grad_outputs", grads} }

// WithRetainGraph sets whether [GradOf] keeps the graph for another backward pass;
// the default is its argument create.
func WithRetainGraph(on bool) Option { return Option{"retain_graph", on} }

// WithAllowUnused sets whether the outputs of [GradOf] need not depend on all inputs;
// false makes it an error.
func WithAllowUnused(on bool) Option { return Option{"allow_unused", on} }

// GeluNew is transformers' NewGELUActivation ("gelu_new"), the tanh
// approximation of GELU that GPT-2 was trained with. Results are bit-identical
// to those of its sequence of operators, which libtorch's fused
// gelu(approximate="tanh") does not match. Only the input is saved for the
// backward pass, which recomputes the intermediate results.
func (t Tensor) GeluNew() Tensor { return t.derive("gelu_new", shim.GeluNew) }

// QuickGelu is OpenAI's QuickGELU, x sigmoid(1.702 x). Results are bit-identical to those of its
// three operators; on the CPU, without gradients, the intermediate ones stay in the cache.
func (t Tensor) QuickGelu() Tensor { return t.derive("quick_gelu", shim.QuickGelu) }
