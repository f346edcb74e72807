package torch

import (
	"fmt"
	"runtime"
	"strings"

	"cyclecap/torch/internal/shim"
)

// A Function is an operator whose gradient is written in Go, as a subclass of
// torch.autograd.Function is in Python. [Apply] applies it. What is not a tensor,
// such as a factor, can be a field of the function.
//
// The tensors of both methods belong to a scope that ends when the method returns;
// results and what [FunctionContext.SaveForBackward] saves live on. A method reports an
// error as operators do, with a panic ([Throw]). It must not call runtime.Goexit, as
// t.Fatal does.
type Function interface {
	// Forward returns the outputs, at least one. Autograd does not record what it
	// computes.
	Forward(ctx *FunctionContext, inputs []Tensor) []Tensor

	// Backward returns the gradient with respect to each input, none where there is
	// none. grads has the gradient with respect to each output, zeros if the output
	// was not used. Autograd records what Backward computes if the backward pass is
	// to be differentiated in turn ([GradOf] with create), so that operators give the
	// second derivative.
	//
	// It may run on a thread of libtorch's. A panic, of whatever value, becomes the
	// *Error with which Tensor.Backward or GradOf panics.
	Backward(ctx *FunctionContext, grads []Tensor) []Tensor
}

// Apply applies f to inputs, which must not be none, and returns the outputs.
//
// A panic in Forward continues in the caller of Apply. A backward pass through f must be
// started by this package's Backward or GradOf, not by an operator of [Call].
func Apply(f Function, inputs ...Tensor) []Tensor {
	op := fmt.Sprintf("%T", f)
	some(op, inputs...)
	a := &application{f: f, op: op, inputs: len(inputs)}
	var out []uintptr
	err := lend(op, func(p []uintptr) (err error) { out, err = shim.ApplyFunction(a, p); return err }, inputs...)
	if a.panicked != nil {
		panic(a.panicked)
	}
	must(op, err)
	return adoptAll(op, out)
}

// A FunctionContext belongs to one application of a [Function] and goes from its
// Forward to its Backward. Its methods can be called while one of these runs, on its
// goroutine.
type FunctionContext struct {
	// Value is whatever else Backward needs from Forward. It must not contain tensors;
	// use SaveForBackward.
	Value any

	a        *application
	c        uintptr  // 0 outside of both methods
	forward  []Tensor // in Forward, the inputs
	saved    []Tensor // the arguments of the methods, until Forward returns
	dirty    []Tensor
	constant []Tensor
}

// during panics unless the context's function is in Forward, or in Backward.
func (c *FunctionContext) during(op, method string, ok bool) {
	if c.c == 0 || !ok {
		panic(&Error{Kind: RuntimeError, Op: op, Text: "can only be called in " + method})
	}
}

// SaveForBackward saves inputs, outputs or other tensors for Backward, where Saved
// returns them. Backward then fails if one was modified in place in the meantime.
func (c *FunctionContext) SaveForBackward(t ...Tensor) {
	c.during("save_for_backward", "Forward", c.forward != nil)
	c.saved = append(c.saved, t...)
}

// Saved returns the tensors of SaveForBackward.
func (c *FunctionContext) Saved() []Tensor {
	c.during("saved_tensors", "Backward", c.forward == nil)
	p, err := shim.ContextSaved(c.c)
	must("saved_tensors", err)
	return adoptAll("saved_tensors", p)
}

// MarkDirty says that Forward has modified inputs in place. It must return them.
func (c *FunctionContext) MarkDirty(inputs ...Tensor) {
	c.during("mark_dirty", "Forward", c.forward != nil)
	some("mark_dirty", inputs...)
	c.dirty = append(c.dirty, inputs...)
}

// MarkNonDifferentiable says that outputs of Forward have no gradient, such as
// indices. Backward gets zeros for them.
func (c *FunctionContext) MarkNonDifferentiable(outputs ...Tensor) {
	c.during("mark_non_differentiable", "Forward", c.forward != nil)
	some("mark_non_differentiable", outputs...)
	c.constant = append(c.constant, outputs...)
}

// NeedsInputGrad reports whether the gradient with respect to input i is needed. In
// Forward, that is whether the input requires a gradient.
func (c *FunctionContext) NeedsInputGrad(i int) bool {
	c.during("needs_input_grad", "Forward and Backward", true)
	if i < 0 || i >= c.a.inputs {
		panic(&Error{Kind: IndexError, Op: "needs_input_grad", Text: fmt.Sprintf("input %d does not exist: %s has %d", i, c.a.op, c.a.inputs)})
	}
	if c.forward != nil {
		return c.forward[i].RequiresGrad()
	}
	needed, err := shim.ContextNeeds(c.c, i)
	must("needs_input_grad", err)
	return needed
}

// An application is one application of a function. libtorch holds it as long as the
// backward pass may come.
type application struct {
	f        Function
	op       string
	ctx      FunctionContext
	inputs   int
	panicked any // with which Forward panicked
}

// Dropped implements shim.Held.
func (a *application) Dropped() {}

// Forward implements shim.Function.
func (a *application) Forward(c uintptr, inputs []uintptr) (failed *shim.Error) {
	defer func() {
		if p := recover(); p != nil {
			a.panicked = p
			failed = &shim.Error{Kind: byte(RuntimeError)} // Apply continues the panic
		}
	}()
	a.pass(c, inputs, func(ctx *FunctionContext, in []Tensor) []Tensor {
		ctx.forward = append([]Tensor{}, in...) // not nil, without inputs either
		defer func() { ctx.forward, ctx.saved, ctx.dirty, ctx.constant = nil, nil, nil, nil }()
		out := a.f.Forward(ctx, in)
		if len(out) == 0 {
			panic(&Error{Kind: TypeError, Op: a.op, Text: "Forward returned no tensor"})
		}
		some(a.op+": Forward", out...)
		for _, list := range []struct {
			tensors []Tensor
			pass    func(c uintptr, t []uintptr) error
		}{{ctx.saved, shim.ContextSave}, {ctx.dirty, shim.ContextMarkDirty}, {ctx.constant, shim.ContextMarkNonDifferentiable}} {
			if len(list.tensors) > 0 {
				must(a.op, lend(a.op, func(p []uintptr) error { return list.pass(c, p) }, list.tensors...))
			}
		}
		return out
	})
	return nil
}

// Backward implements shim.Function.
func (a *application) Backward(c uintptr, inputs []uintptr) (failed *shim.Error) {
	defer func() { failed = failure("the backward pass of "+a.op, recover()) }()
	a.pass(c, inputs, func(ctx *FunctionContext, grads []Tensor) []Tensor {
		out := a.f.Backward(ctx, grads)
		if len(out) != a.inputs {
			panic(&Error{Kind: TypeError, Op: a.op, Text: fmt.Sprintf("Backward returned %d gradients for %d inputs", len(out), a.inputs)})
		}
		return out
	})
	return nil
}

// failure returns the error that a panic with p in a backward pass becomes, or nil if p is.
func failure(where string, p any) *shim.Error {
	switch p := p.(type) {
	case nil:
		return nil
	case *Error:
		return &shim.Error{Kind: byte(p.Kind), Text: fmt.Sprintf("in %s: %v", where, p)}
	default:
		return &shim.Error{Kind: byte(RuntimeError), Text: fmt.Sprintf("%s panicked%s: %v", where, whence(), p)}
	}
}

// pass runs f in a scope, with inputs that become the scope's, and passes its results on.
func (a *application) pass(c uintptr, inputs []uintptr, f func(ctx *FunctionContext, in []Tensor) []Tensor) {
	a.ctx.a, a.ctx.c = a, c
	defer func() { a.ctx.c = 0 }()
	pass(a.op, c, inputs, func(in []Tensor) []Tensor { return f(&a.ctx, in) })
}

// pass calls f with the inputs of a pass, and returns its results to libtorch.
func pass(op string, c uintptr, inputs []uintptr, f func(in []Tensor) []Tensor) {
	s := func() *scope {
		defer func() {
			if p := recover(); p != nil {
				shim.Free(inputs)
				panic(p)
			}
		}()
		return enter()
	}()
	defer s.leave()
	out := f(adoptAll(op, inputs))
	must(op, lend(op, func(p []uintptr) error { return shim.ContextReturn(c, p) }, out...))
}

// whence returns where the current panic happened, for the message.
func whence() string {
	pc := make([]uintptr, 64)
	frames := runtime.CallersFrames(pc[:runtime.Callers(1, pc)])
	for inside := false; ; {
		f, more := frames.Next()
		switch {
		case f.Function == "runtime.gopanic":
			inside = true
		case inside && !strings.HasPrefix(f.Function, "runtime."):
			return fmt.Sprintf(" at %s:%d", f.File[strings.LastIndexByte(f.File, '/')+1:], f.Line)
		}
		if !more {
			return ""
		}
	}
}
