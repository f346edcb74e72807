package torch

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"unsafe"

	"cyclecap/torch/internal/shim"
)

// Tensor refers to a libtorch tensor. It is small; pass it by value. The zero
// Tensor is none, Python's None.
//
// Its methods are PyTorch's operators whose first argument is `self`. Operators
// without `self` are functions of this package.
type Tensor struct{ *handle }

// A handle owns one reference to a libtorch tensor. It belongs to a scope or, if
// the tensor is kept, to the program.
type handle struct {
	ptr     uintptr
	scope   *scope
	cleanup runtime.Cleanup
	bytes   int64 // counted in keptBytes while the tensor is kept
}

var keptBytes atomic.Int64

// KeptBytes returns the total size in bytes of the tensors that are kept outside
// scopes, which Go's garbage collector does not account for. Tensors that share
// memory each count in full.
func KeptBytes() int64 { return keptBytes.Load() }

// Alive returns the number of references to libtorch tensors in this process. It
// returns to its initial value once all scopes have ended and all kept tensors
// are closed.
func Alive() int64 { return shim.Alive() }

// adopt adds a new reference to the current scope.
func adopt(op string, p uintptr) Tensor {
	if p == 0 {
		return Tensor{}
	}
	s := current()
	if s == nil {
		shim.Free([]uintptr{p})
		panic(noScope(op))
	}
	h := &handle{ptr: p, scope: s}
	s.owned = append(s.owned, h)
	return Tensor{h}
}

// Defined reports whether t is a tensor rather than none.
func (t Tensor) Defined() bool { return t.handle != nil }

// pointer returns t's address for a call. It panics if t is none or freed.
func (t Tensor) pointer(op string) uintptr {
	if t.handle == nil {
		panic(&Error{Kind: TypeError, Op: op, Text: "expected a tensor, got none"})
	}
	if t.ptr == 0 {
		panic(&Error{Kind: RuntimeError, Op: op, Text: "the tensor has been freed: its scope has ended, or it was closed; call Keep on a tensor that must outlive its scope"})
	}
	return t.ptr
}

func init() {
	shim.HandleOf = func(op string, t any) uintptr { return t.(Tensor).pointer(op) }
}

// Keep removes t from its scope, so that it lives until Close. As a safety net,
// a kept tensor that is no longer reachable is freed by the garbage collector.
// Keep returns t.
func (t Tensor) Keep() Tensor {
	t.pointer("keep")
	if t.scope == nil {
		return t
	}
	t.handle.scope.forget(t.handle)
	t.handle.scope = nil
	t.bytes = t.info().NBytes
	keptBytes.Add(t.bytes)
	t.cleanup = runtime.AddCleanup(t.handle, func(k kept) {
		shim.Free([]uintptr{k.ptr})
		keptBytes.Add(-k.bytes)
	}, kept{t.ptr, t.bytes})
	return t
}

type kept struct {
	ptr   uintptr
	bytes int64
}

// forget removes h from the list if it is the last handle, so that the list stays
// short when tensors are kept one by one.
func (s *scope) forget(h *handle) {
	if n := len(s.owned); n > 0 && s.owned[n-1] == h {
		s.owned = s.owned[:n-1]
	}
}

// Return moves t from its scope to the enclosing one, so that it outlives its
// scope. In an outermost scope Return is Keep. Return returns t.
func (t Tensor) Return() Tensor {
	if t.handle == nil || t.scope == nil {
		return t
	}
	t.pointer("return")
	s := t.scope
	if s != current() {
		return t // an outer scope owns it already
	}
	if s.parent == nil {
		return t.Keep()
	}
	s.forget(t.handle)
	t.handle.scope = s.parent
	s.parent.owned = append(s.parent.owned, t.handle)
	return t
}

// Close frees t now. A second Close does nothing.
func (t Tensor) Close() {
	if t.handle == nil || t.ptr == 0 {
		return
	}
	if t.scope == nil {
		t.cleanup.Stop()
		keptBytes.Add(-t.bytes)
	} else {
		t.scope.forget(t.handle)
	}
	shim.Free([]uintptr{t.ptr})
	t.ptr, t.handle.scope = 0, nil
}

func (t Tensor) info() shim.Info {
	i, err := shim.TensorInfo(t.pointer("tensor"))
	runtime.KeepAlive(t.handle)
	must("tensor", err)
	return i
}

// Shape returns the sizes of the dimensions; []int64{} for a scalar.
func (t Tensor) Shape() []int64 { return t.info().Sizes }

// Size returns the size of dimension dim. A negative dim counts from the end.
func (t Tensor) Size(dim int) int64 {
	s := t.Shape()
	if dim < 0 {
		dim += len(s)
	}
	if dim < 0 || dim >= len(s) {
		panic(&Error{Kind: IndexError, Op: "size", Args: t.describe(), Text: "dimension out of range"})
	}
	return s[dim]
}

// Strides returns the strides in elements.
func (t Tensor) Strides() []int64 { return t.info().Strides }

// Dim returns the number of dimensions.
func (t Tensor) Dim() int { return t.info().Dim }

// Numel returns the number of elements.
func (t Tensor) Numel() int64 { return t.info().Numel }

// NBytes returns the total size of the elements in bytes.
func (t Tensor) NBytes() int64 { return t.info().NBytes }

// DType returns the element type.
func (t Tensor) DType() DType { return DType(t.info().DType) }

// Device returns the device of t.
func (t Tensor) Device() Device { return deviceOf(t.info()) }

// StorageOffset returns the offset of the first element in the storage, in
// elements.
func (t Tensor) StorageOffset() int64 { return t.info().StorageOffset }

// StorageNBytes returns the size in bytes of the whole storage that t is a view
// of.
func (t Tensor) StorageNBytes() int64 { return t.info().StorageNBytes }

// SharesStorage reports whether t and o are views of the same storage.
func (t Tensor) SharesStorage(o Tensor) bool { return t.info().Storage == o.info().Storage }

// DataPtr returns the address of the first element, as data_ptr() does. Use it
// to identify aliases and to check the alignment, not to access the data.
func (t Tensor) DataPtr() uintptr { return uintptr(t.info().Data) }

// IsContiguous reports whether the elements are in row-major order without gaps.
func (t Tensor) IsContiguous() bool { return t.info().Contiguous }

// RequiresGrad reports whether autograd computes gradients for t.
func (t Tensor) RequiresGrad() bool { return t.info().RequiresGrad }

// IsLeaf reports whether t is a leaf: not the result of an operator that autograd
// recorded.
func (t Tensor) IsLeaf() bool { return t.info().IsLeaf }

// describe returns a description such as "float32[2,3]", with the device if it is
// not the CPU.
func (t Tensor) describe() string {
	if t.handle == nil {
		return "none"
	}
	if t.ptr == 0 {
		return "freed"
	}
	i := t.info()
	s := DType(i.DType).String() + strings.ReplaceAll(fmt.Sprint(i.Sizes), " ", ",")
	if d := deviceOf(i); d != CPU {
		s += "@" + d.String()
	}
	return s
}

// deviceOf returns the device in an Info.
func deviceOf(i shim.Info) Device {
	d := Device{Type: DeviceType(i.DeviceType), Index: i.DeviceIndex}
	if d.Index < 0 {
		d.Index = 0
	}
	return d
}

// Item returns the value of a tensor with one element as a float64.
func (t Tensor) Item() float64 {
	if t.Numel() != 1 {
		panic(&Error{Kind: RuntimeError, Op: "item", Args: t.describe(), Text: "expected a tensor with one element"})
	}
	return ToSlice[float64](t)[0]
}

// FromSlice returns a CPU tensor of the given shape with a copy of data. Without
// a shape it has one dimension.
func FromSlice[T Element](data []T, shape ...int64) Tensor {
	return fromSlice(data, shape)
}

func fromSlice[T Element](data []T, shape []int64, opts ...Option) Tensor {
	if len(shape) == 0 {
		shape = []int64{int64(len(data))}
	}
	t := Empty(shape, append(opts, WithDType(dtypeOf[T]()), WithDevice(CPU))...)
	if n := t.Numel(); n != int64(len(data)) {
		panic(&Error{Kind: ValueError, Op: "from_slice", Args: t.describe(),
			Text: fmt.Sprintf("the shape has %d elements, but the slice has %d", n, len(data))})
	}
	copy(Data[T](t), data)
	return t
}

// FromSliceOn returns a tensor of the given shape on device d with a copy of data.
// Without a shape it has one dimension. If d is a CUDA device, FromSliceOn does not
// wait for the copy: later operators on d see the data.
func FromSliceOn[T Element](d Device, data []T, shape ...int64) Tensor {
	if !d.pins() {
		return FromSlice(data, shape...).To(WithDevice(d))
	}
	return upload(fromSlice(data, shape, WithPinMemory(true)), d)
}

// Upload copies a CPU tensor to device d. If d is a CUDA device, Upload does not wait
// for the copy.
func (t Tensor) Upload(d Device) Tensor {
	if !d.pins() {
		return t.To(WithDevice(d))
	}
	return upload(t.PinMemory(), d)
}

// pins reports whether copies from pinned memory to d can run while the program
// continues.
func (d Device) pins() bool { return d.Type == CUDADevice || d.Type == PrivateUse1Device }

// upload copies a tensor in pinned memory, from which CUDA copies while the program
// continues. The tensor may be freed at once: the copy records an event in the allocator
// of pinned memory, which does not reuse a block before its event has occurred
// (ATen/cuda/CachingHostAllocator.h). It must not be written to.
func upload(pinned Tensor, d Device) Tensor {
	return pinned.To(WithDevice(d), WithNonBlocking(true))
}

// Scalar0 returns a CPU tensor without dimensions.
func Scalar0[T Element](v T) Tensor {
	t := Empty([]int64{}, WithDType(dtypeOf[T]()), WithDevice(CPU))
	Data[T](t)[0] = v
	return t
}

// Data returns the elements of a contiguous CPU tensor without copying: writing
// to the slice writes to the tensor. T must be the element type of the tensor.
// The slice is valid until the tensor is freed.
func Data[T Element](t Tensor) []T {
	i := t.info()
	if want := dtypeOf[T](); DType(i.DType) != want || !i.Contiguous || i.DeviceType != int(CPUDevice) {
		panic(&Error{Kind: TypeError, Op: "data", Args: t.describe(),
			Text: fmt.Sprintf("expected a contiguous CPU tensor of %v (contiguous: %v)", want, i.Contiguous)})
	}
	if i.Numel == 0 {
		return nil
	}
	return unsafe.Slice((*T)(i.Data), i.Numel)
}

// ToSlice returns a copy of the elements in row-major order, converted to T.
func ToSlice[T Element](t Tensor) []T {
	var out []T
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	s := enter()
	defer s.leave()
	NoGrad(func() {
		c := t.Detach().To(WithDevice(CPU), WithDType(dtypeOf[T]())).Contiguous()
		out = slices.Clone(Data[T](c))
	})
	return out
}

var opMulScalar_ = &op{name: "aten::mul_", overload: "Tensor"}

// MulScalar_ is t *= other. Like Python, it passes the number as a tensor to
//
//	aten::mul_.Tensor(Tensor(a!) self, Tensor other) -> Tensor(a!)
//
// because mul_.Scalar first rounds it to bf16 or half and so returns different
// bits.
func (t Tensor) MulScalar_(other Scalar) Tensor {
	c := begin(opMulScalar_, nil)
	c.tensor(t)
	c.scalar(other)
	c.drop()
	return t
}
