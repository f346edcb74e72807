package torch

import (
	"runtime"

	"cyclecap/torch/internal/shim"
)

// SetRequiresGrad sets whether autograd computes a gradient for leaf t, as
// requires_grad_ does. It returns t.
func (t Tensor) SetRequiresGrad(on bool) Tensor {
	must("requires_grad_", shim.SetRequiresGrad(t.pointer("requires_grad_"), on))
	return t
}

// Grad returns t.grad. It is none if no backward pass has reached t.
func (t Tensor) Grad() Tensor {
	g, err := shim.TensorGrad(t.pointer("grad"))
	runtime.KeepAlive(t.handle)
	must("grad", err)
	return adopt("grad", g)
}

// SetGrad sets t.grad; the zero Tensor clears it.
func (t Tensor) SetGrad(g Tensor) {
	var p uintptr
	if g.Defined() {
		p = g.pointer("grad")
	}
	must("grad", shim.SetGrad(t.pointer("grad"), p))
	runtime.KeepAlive(t.handle)
	runtime.KeepAlive(g.handle)
}

// SetData is t.data = o: t takes over o's storage, shape, dtype and device, but
// remains the same tensor, for example as a parameter of an optimizer.
func (t Tensor) SetData(o Tensor) {
	must("set_data", shim.SetData(t.pointer("set_data"), o.pointer("set_data")))
	runtime.KeepAlive(t.handle)
	runtime.KeepAlive(o.handle)
}

// Backward computes the gradients of t, a scalar, with respect to all leaves
// that it depends on, and adds them to their Grad.
func (t Tensor) Backward() { Backward([]Tensor{t}, nil, false) }

// Backward is torch.autograd.backward. grads are the gradients with respect to
// outputs; nil is allowed for scalars. If retain is set, the graph is kept for
// another backward pass.
func Backward(outputs, grads []Tensor, retain bool) {
	o, g := pointers("backward", outputs), pointers("backward", grads)
	must("backward", shim.Backward(o, g, retain, false))
	runtime.KeepAlive(outputs)
	runtime.KeepAlive(grads)
}

// GradOf is torch.autograd.grad(outputs, inputs): it returns the gradients of
// the sum of outputs with respect to inputs and leaves every Grad unchanged. The
// gradient of an unused input is none. If create is set, the computation is
// recorded, for second derivatives.
func GradOf(outputs, inputs []Tensor, create bool) []Tensor {
	g, err := shim.Grad(pointers("grad", outputs), nil, pointers("grad", inputs), create, create, true)
	runtime.KeepAlive(outputs)
	runtime.KeepAlive(inputs)
	must("grad", err)
	out := make([]Tensor, len(g))
	for i, p := range g {
		out[i] = adopt("grad", p)
	}
	return out
}

func pointers(op string, l []Tensor) []uintptr {
	if l == nil {
		return nil
	}
	p := make([]uintptr, len(l))
	for i, t := range l {
		if t.Defined() {
			p[i] = t.pointer(op)
		}
	}
	return p
}

// GeluNew is transformers' NewGELUActivation ("gelu_new"), the tanh
// approximation of GELU that GPT-2 was trained with. Results are bit-identical
// to those of its sequence of operators, which libtorch's fused
// gelu(approximate="tanh") does not match. Only the input is saved for the
// backward pass, which recomputes the intermediate results.
func (t Tensor) GeluNew() Tensor {
	p, err := shim.GeluNew(t.pointer("gelu_new"))
	runtime.KeepAlive(t.handle)
	must("gelu_new", err)
	return adopt("gelu_new", p)
}
