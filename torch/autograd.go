package torch

import (
	"runtime"

	"cyclecap/torch/internal/shim"
)

// SetRequiresGrad says whether backward shall reach leaf t, and returns t.
func (t Tensor) SetRequiresGrad(on bool) Tensor {
	must("requires_grad_", shim.SetRequiresGrad(t.pointer("requires_grad_"), on))
	return t
}

// Grad gives t.grad, none where backward has not reached t.
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

// SetData is t.data = o: t keeps its identity (as a parameter of an optimizer
// does) and takes over o's storage, shape, dtype and device.
func (t Tensor) SetData(o Tensor) {
	must("set_data", shim.SetData(t.pointer("set_data"), o.pointer("set_data")))
	runtime.KeepAlive(t.handle)
	runtime.KeepAlive(o.handle)
}

// Backward computes the gradients of all leaves that t, a scalar, depends on
// and adds them to their Grad.
func (t Tensor) Backward() { Backward([]Tensor{t}, nil, false) }

// Backward is torch.autograd.backward. grads gives d loss / d outputs, nil
// for scalars; retain keeps the graph for another backward.
func Backward(outputs, grads []Tensor, retain bool) {
	o, g := pointers("backward", outputs), pointers("backward", grads)
	must("backward", shim.Backward(o, g, retain, false))
	runtime.KeepAlive(outputs)
	runtime.KeepAlive(grads)
}

// GradOf is torch.autograd.grad(outputs, inputs): d sum(outputs) / d inputs,
// without touching any Grad. An input that was not used gives none. create
// records the computation, for second derivatives.
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
// approximation of GELU that GPT-2 was trained with: to the bit as its
// operators one after another, from which libtorch's fused
// gelu(approximate="tanh") differs. Backward keeps x alone and computes the
// rest anew.
func (t Tensor) GeluNew() Tensor {
	p, err := shim.GeluNew(t.pointer("gelu_new"))
	runtime.KeepAlive(t.handle)
	must("gelu_new", err)
	return adopt("gelu_new", p)
}
