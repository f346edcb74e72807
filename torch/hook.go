package torch

import (
	"sync/atomic"

	"cyclecap/torch/internal/shim"
)

// RegisterHook is t.register_hook: whenever a backward pass has computed the gradient with respect to t,
// f is called with it, and returns the gradient that takes its place, of the same shape and dtype, or none
// to leave it. f must not change grad in place. Hooks are called in the order in which they were
// registered, before the gradient is added to Grad or goes on to what t was computed from. t must require
// a gradient. remove ends it.
//
// The tensors of f belong to a scope that ends when it returns; what it returns lives on. Autograd records
// what f computes if the backward pass is to be differentiated in turn ([GradOf] with create). It may run
// on a thread of libtorch's. A panic in f becomes the *Error with which Tensor.Backward or GradOf panics.
// The pass must be started by this package's Backward or GradOf, not by an operator of [Call].
func (t Tensor) RegisterHook(f func(grad Tensor) Tensor) (remove func()) {
	const op = "register_hook"
	some(op, t)
	h := &tensorHook{f: f}
	var at uint
	must(op, lend(op, func(p []uintptr) (err error) { at, err = shim.RegisterHook(p[0], h); return err }, t))
	return func() {
		if h.removed.Swap(true) {
			return
		}
		// The graph may live on without t.
		if b, freed := t.borrow(op); freed == nil {
			defer b.release()
			must(op, b.removeHook(at))
		}
	}
}

type tensorHook struct {
	f       func(grad Tensor) Tensor
	removed atomic.Bool
}

// Dropped implements shim.Held.
func (h *tensorHook) Dropped() {}

// Backward implements shim.Hook.
func (h *tensorHook) Backward(c uintptr, inputs []uintptr) (failed *shim.Error) {
	defer func() { failed = failure("a tensor's hook", recover()) }()
	pass("register_hook", c, inputs, func(in []Tensor) []Tensor {
		if h.removed.Load() {
			return []Tensor{{}}
		}
		return []Tensor{h.f(in[0])}
	})
	return nil
}
