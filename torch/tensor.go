package torch

import (
	"fmt"
	"math"
	"strings"
	"unsafe"

	"cyclecap/torch/internal/shim"
)

// Tensor refers to a libtorch tensor. It is small; pass it by value. The zero
// Tensor is none, Python's None.
//
// Its methods are PyTorch's operators whose first argument is `self`. Operators
// without `self` are functions of this package.
type Tensor struct{ *handle }

// KeptBytes returns the total size in bytes of the tensors that are kept outside
// scopes, which Go's garbage collector does not account for. Tensors that share
// memory each count in full.
func KeptBytes() int64 { return kept.bytes.Load() }

// Alive returns the number of references to libtorch tensors in this process. It
// returns to its initial value once all scopes have ended and all kept tensors
// are closed.
func Alive() int64 { return shim.Alive() }

// Defined reports whether t is a tensor rather than none.
func (t Tensor) Defined() bool { return t.handle != nil }

func (t Tensor) info() shim.Info {
	h, bad := t.borrow("tensor")
	if bad != nil {
		panic(bad)
	}
	i, err := h.info()
	h.release()
	must("tensor", err)
	return i
}

// Shape returns the sizes of the dimensions; []int64{} for a scalar.
func (t Tensor) Shape() []int64 {
	i := t.info()
	return i.Sizes()
}

// Size returns the size of dimension dim. A negative dim counts from the end.
func (t Tensor) Size(dim int) int64 {
	i := t.info()
	if dim < 0 {
		dim += i.Dim
	}
	if dim < 0 || dim >= i.Dim {
		panic(&Error{Kind: IndexError, Op: "size", Args: t.describe(), Text: "dimension out of range"})
	}
	return i.Size(dim)
}

// Strides returns the strides in elements. In a compressed sparse layout a tensor has none; in
// SparseCOO they are 0, as in PyTorch.
func (t Tensor) Strides() []int64 {
	i := t.info()
	if l := Layout(i.Layout); l != Strided && l != SparseCOO && l != Mkldnn {
		panic(&Error{Kind: RuntimeError, Op: "stride", Args: describe(i), Text: fmt.Sprintf("a tensor of layout %v has no strides", l)})
	}
	return i.Strides()
}

// Dim returns the number of dimensions.
func (t Tensor) Dim() int { return t.info().Dim }

// Numel returns the number of elements.
func (t Tensor) Numel() int64 { return t.info().Numel }

// NBytes returns the total size of the elements in bytes, or that of the indices and values of a
// sparse tensor, for which PyTorch has no nbytes.
func (t Tensor) NBytes() int64 { return t.info().NBytes }

// DType returns the element type.
func (t Tensor) DType() DType { return DType(t.info().DType) }

// Layout returns how the elements are stored.
func (t Tensor) Layout() Layout { return Layout(t.info().Layout) }

// Device returns the device of t.
func (t Tensor) Device() Device { return deviceOf(t.info()) }

// StorageOffset returns the offset of the first element in the storage, in
// elements.
func (t Tensor) StorageOffset() int64 { return t.info().StorageOffset }

// StorageNBytes returns the size in bytes of the whole storage that t is a view
// of.
func (t Tensor) StorageNBytes() int64 { return t.info().StorageNBytes }

// SharesStorage reports whether t and o are views of the same storage. Sparse tensors have none.
func (t Tensor) SharesStorage(o Tensor) bool {
	s := t.info().Storage
	return s != nil && s == o.info().Storage
}

// DataPtr returns the address of the first element, as data_ptr() does. Use it
// to identify aliases and to check the alignment, not to access the data.
func (t Tensor) DataPtr() uintptr { return uintptr(t.info().Data) }

// IsContiguous reports whether the elements are in row-major order without gaps; false for
// sparse tensors.
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
	h, err := t.borrow("describe")
	if err != nil {
		return "freed"
	}
	defer h.release()
	return h.describe()
}

// describe is Tensor.describe for a handle that the caller has borrowed.
func (h *handle) describe() string {
	i, err := h.info()
	if err != nil {
		return "unknown"
	}
	return describe(i)
}

func describe(i shim.Info) string {
	s := DType(i.DType).String() + strings.ReplaceAll(fmt.Sprint(i.Sizes()), " ", ",")
	if l := Layout(i.Layout); l != Strided {
		s = l.String() + " " + s
	}
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

// readable panics with an *Error unless the elements of a tensor are numbers at their places in memory.
func readable(op string, i shim.Info) {
	var text string
	if l := Layout(i.Layout); l != Strided {
		text = fmt.Sprintf("a tensor of layout %v has no elements to read; call ToDense", l)
	} else if DType(i.DType).quantized() {
		text = "the elements are quantized; call Dequantize for their values, or IntRepr for their integers"
	} else {
		return
	}
	panic(&Error{Kind: TypeError, Op: op, Args: describe(i), Text: text})
}

// Item returns the value of a tensor with one element as a float64. It panics with
// an *Error if the value is not a float64: complex, or an integer above 2^53. Use
// [ItemOf] for those.
func (t Tensor) Item() float64 {
	var v uint64
	switch d := t.item(shim.Own, unsafe.Pointer(&v)); d {
	case Int64:
		if n := int64(v); int64(float64(n)) != n || n == math.MaxInt64 {
			panic(t.inexact(n, d))
		}
		return float64(int64(v))
	case Uint64:
		if uint64(float64(v)) != v || v == math.MaxUint64 {
			panic(t.inexact(v, d))
		}
		return float64(v)
	}
	return math.Float64frombits(v)
}

func (t Tensor) inexact(v any, d DType) *Error {
	return &Error{Kind: ValueError, Op: "item", Args: t.describe(), Text: fmt.Sprintf("%d has no float64 of the same value; call ItemOf[%v]", v, d)}
}

// ItemOf returns the value of a tensor with one element, converted to T as
// Tensor.To does.
func ItemOf[T Element](t Tensor) T {
	var v T
	t.item(int(dtypeOf[T]()), unsafe.Pointer(&v))
	return v
}

// item copies the only element, converted to dtype, to value, and returns t's dtype.
func (t Tensor) item(dtype int, value unsafe.Pointer) DType {
	h, bad := t.borrow("item")
	if bad != nil {
		panic(bad)
	}
	own, err := h.item(dtype, value)
	h.release()
	if err != nil {
		e := wrap("item", err).(*Error)
		e.Args = t.describe()
		panic(e)
	}
	return DType(own)
}

// read copies the elements, converted to d, to the n bytes at dst.
func (t Tensor) read(op string, d DType, dst unsafe.Pointer, n int64) {
	err := lend(op, func(p []uintptr) error { return shim.Read(p[0], int(d), dst, n) }, t)
	if err != nil {
		e := wrap(op, err).(*Error)
		e.Args = t.describe()
		panic(e)
	}
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
	write(t, data)
	return t
}

// FromSliceOn returns a tensor of the given shape on device d with a copy of data.
// Without a shape it has one dimension. If d is an accelerator such as a CUDA device,
// FromSliceOn does not wait for the copy: later operators on d see the data.
func FromSliceOn[T Element](d Device, data []T, shape ...int64) Tensor {
	if !d.pins() {
		return FromSlice(data, shape...).To(WithDevice(d))
	}
	return upload(fromSlice(data, shape, WithPinMemory(true)), d)
}

// Upload copies a CPU tensor to device d. If d is an accelerator such as a CUDA device,
// Upload does not wait for the copy.
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
	write(t, []T{v})
	return t
}

// write copies data to t, a new tensor of the same size.
func write[T Element](t Tensor, data []T) {
	bytes := int64(len(data)) * dtypeOf[T]().Size()
	must("from_slice", lend("from_slice", func(p []uintptr) error {
		return shim.Write(p[0], unsafe.Pointer(unsafe.SliceData(data)), bytes)
	}, t))
}

// Data calls f with the elements of a contiguous CPU tensor, without copying:
// writing to the slice writes to the tensor. T must be the element type of the
// tensor. The slice is valid until f returns, whatever happens to the tensor in
// the meantime, unless f resizes it in place.
func Data[T Element](t Tensor, f func(data []T)) {
	// An alias, which holds the memory even if t is closed or gets other data.
	c := begin(opDetach, nil)
	c.tensor(t)
	alias := uintptr(c.run(2)[1])
	c.end()
	defer shim.Free([]uintptr{alias})
	i, err := shim.TensorInfo(alias)
	must("data", err)
	readable("data", i)
	// The zeros that autograd makes where there is no gradient have no memory.
	lazy := i.Lazy || i.Numel > 0 && i.Data == nil
	if want := dtypeOf[T](); DType(i.DType) != want || !i.Contiguous || i.DeviceType != int(CPUDevice) || lazy {
		panic(&Error{Kind: TypeError, Op: "data", Args: describe(i),
			Text: fmt.Sprintf("expected a contiguous CPU tensor of %v (contiguous: %v, conjugated, negated or zero by a flag: %v)", want, i.Contiguous, lazy)})
	}
	if i.Numel == 0 {
		f(nil)
		return
	}
	f(unsafe.Slice((*T)(i.Data), i.Numel))
}

// ToSlice returns a copy of the elements in row-major order, converted to T as
// Tensor.To does.
func ToSlice[T Element](t Tensor) []T {
	i := t.info()
	readable("to_slice", i)
	out := make([]T, i.Numel)
	d := dtypeOf[T]()
	t.read("to_slice", d, unsafe.Pointer(unsafe.SliceData(out)), int64(len(out))*d.Size())
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
