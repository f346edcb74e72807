// Package torch is libtorch for Go: PyTorch's tensors, operators and autograd
// with PyTorch's names and, on the same libtorch, PyTorch's bits.
//
// # Operators
//
// An operator whose first argument is `self` in PyTorch is a method of
// [Tensor]; the others are functions. In-place operators end in an
// underscore. Arguments with a default in PyTorch are options, named after
// them:
//
//	y := x.Add(z, torch.WithAlpha(2)) // torch.add(x, z, alpha=2)
//	m := x.SumDim([]int64{-1}, torch.WithKeepdim(true))
//
// Shapes are []int64, a Scalar is a Go int or float64 (which promote as in
// Python), and "none" is the zero value. The typed functions in ops_gen.go are
// generated from libtorch's own schemas, for the operators that ops.txt lists.
//
// # Who frees a tensor
//
// Tensors are made inside of a [Scope] and freed when it ends. What must
// outlive it is kept with [Tensor.Keep] and freed with [Tensor.Close]; a
// result of an inner scope moves out with [Tensor.Return]. Nothing waits for
// Go's collector, so memory stays flat over any number of steps: one scope a
// step.
//
// # Errors
//
// Inside of a scope an operator that fails panics with an [*Error], which
// [Scope] returns as its error: nets read like formulas, and callers get a Go
// error with the operator, the shapes and the dtypes. No other panic is
// caught.
//
// # Threads
//
// A Scope locks its goroutine to one OS thread, since libtorch keeps grad
// mode, autocast and its pool of threads per OS thread. Tensors that are not
// written to may be read from several scopes at once. Heavy work belongs on
// one thread per device: an [Executor], or the main goroutine.
package torch

//go:generate go run ./internal/gen -ops ops.txt -out ops_gen.go
