// Package torch is a Go binding of libtorch: PyTorch's tensors, operators and
// autograd under PyTorch's names. With the same libtorch, results are
// bit-identical to PyTorch's. docs/torch.md is a guide.
//
// # Operators
//
// Operators whose first argument is `self` in PyTorch are methods of [Tensor];
// the others are functions. In-place operators end in an underscore. Arguments
// that have a default in PyTorch are options of the same name:
//
//	y := x.Add(z, torch.WithAlpha(2)) // torch.add(x, z, alpha=2)
//	m := x.SumDim([]int64{-1}, torch.WithKeepdim(true))
//
// Shapes are []int64, a Scalar is a Go number or bool (with Python's type
// promotion), and the zero Tensor is none. An argument of type any is a value that
// may be None without having a default: nil is none. The typed functions are
// generated from libtorch's own schemas, for the operators listed in ops.txt:
// every public one whose types have a Go type. [Call] calls every operator, also
// those of other libraries.
//
// # Freeing tensors
//
// Tensors are created inside a [Scope] and freed when it ends. To keep a tensor
// longer, call [Tensor.Keep], and later [Tensor.Close] to free it.
// [Tensor.Return] moves a result from an inner scope to the enclosing one.
// Freeing does not depend on Go's garbage collector, so with one scope per
// training step memory use stays constant over any number of steps. A tensor is
// never freed while an operator uses it: closing it in another goroutine, or the
// end of its scope, takes effect afterwards.
//
// # Errors
//
// An operator that fails panics with an [*Error], which the enclosing [Scope]
// returns as its error. Networks therefore read like formulas, and callers get a
// Go error with the operator and the shapes and dtypes of its arguments. Other
// panics are not recovered.
//
// # Threads
//
// A Scope locks its goroutine to an OS thread, because grad mode, autocast and
// the thread pool of libtorch are per OS thread. Tensors that are not written to
// may be read from several scopes concurrently, and any goroutine may keep or
// close a tensor. Do heavy work on one thread per
// device: in an [Executor] or the main goroutine.
package torch

//go:generate go run ./internal/gen -ops ops.txt -options options.txt -out . -table ../internal/operators/table_gen.go -doc ../docs/operators.md -differ ../internal/operators/differ.txt
