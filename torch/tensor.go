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

// Tensor refers to a libtorch tensor. It is small: pass it by value. The zero
// Tensor is "none", what Python calls None.
//
// Methods are PyTorch's operators whose first argument is `self`; operators
// without one are functions of this package.
type Tensor struct{ *handle }

// A handle owns one reference to a libtorch tensor. It belongs to a scope, or
// to whoever kept it.
type handle struct {
	ptr     uintptr
	scope   *scope
	cleanup runtime.Cleanup
	bytes   int64 // counted in kept while the tensor is kept
}

var keptBytes atomic.Int64

// KeptBytes gives the bytes of the tensors that are kept outside of scopes,
// which Go's collector does not see. Aliases count more than once.
func KeptBytes() int64 { return keptBytes.Load() }

// Alive counts the references to libtorch tensors that this process holds. It
// returns to its start when all scopes have ended and all that was kept is
// closed.
func Alive() int64 { return shim.Alive() }

// adopt gives a new reference to the current scope.
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

// Defined tells whether t is a tensor at all (not "none").
func (t Tensor) Defined() bool { return t.handle != nil }

// pointer gives t's address for a call, or panics where t is none or freed.
func (t Tensor) pointer(op string) uintptr {
	if t.handle == nil {
		panic(&Error{Kind: TypeError, Op: op, Text: "a tensor is needed, not none"})
	}
	if t.ptr == 0 {
		panic(&Error{Kind: RuntimeError, Op: op, Text: "the tensor was freed: its scope has ended, or it was closed; Keep what must outlive its scope"})
	}
	return t.ptr
}

func init() {
	shim.HandleOf = func(op string, t any) uintptr { return t.(Tensor).pointer(op) }
}

// Keep takes t out of its scope: it lives until Close. As a safety net the
// collector frees it too, some time after the last use. Keep returns t.
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

// forget drops a handle that was made last from the list, which keeps the
// list short where tensors are kept one by one.
func (s *scope) forget(h *handle) {
	if n := len(s.owned); n > 0 && s.owned[n-1] == h {
		s.owned = s.owned[:n-1]
	}
}

// Return moves t to the scope around its own, so that it outlives its own; in
// an outermost scope it is kept. Return returns t.
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

// Shape gives the sizes; it is []int64{} for a scalar.
func (t Tensor) Shape() []int64 { return t.info().Sizes }

// Size gives the size along dim, which counts from the end where negative.
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

// Strides gives the strides in elements.
func (t Tensor) Strides() []int64 { return t.info().Strides }

// Dim gives the number of dimensions.
func (t Tensor) Dim() int { return t.info().Dim }

// Numel gives the number of elements.
func (t Tensor) Numel() int64 { return t.info().Numel }

// NBytes gives the bytes of the elements.
func (t Tensor) NBytes() int64 { return t.info().NBytes }

// DType gives the element type.
func (t Tensor) DType() DType { return DType(t.info().DType) }

// Device gives the device.
func (t Tensor) Device() Device { return deviceOf(t.info()) }

// StorageOffset gives the first element's place in the storage, in elements.
func (t Tensor) StorageOffset() int64 { return t.info().StorageOffset }

// StorageNBytes gives the bytes of the whole storage that t is a view of.
func (t Tensor) StorageNBytes() int64 { return t.info().StorageNBytes }

// SharesStorage tells whether t and o are views of one storage.
func (t Tensor) SharesStorage(o Tensor) bool { return t.info().Storage == o.info().Storage }

// DataPtr gives the address of the first element, as data_ptr() does: an
// identity for aliases and a measure of alignment, not a way to the data.
func (t Tensor) DataPtr() uintptr { return uintptr(t.info().Data) }

// IsContiguous tells whether the elements lie in row-major order.
func (t Tensor) IsContiguous() bool { return t.info().Contiguous }

// RequiresGrad tells whether backward will reach t.
func (t Tensor) RequiresGrad() bool { return t.info().RequiresGrad }

// IsLeaf tells tensors that no recorded operator has made.
func (t Tensor) IsLeaf() bool { return t.info().IsLeaf }

// describe gives "float32[2,3]", with the device where it is not the CPU.
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

// deviceOf reads the device out of an Info.
func deviceOf(i shim.Info) Device {
	d := Device{Type: DeviceType(i.DeviceType), Index: i.DeviceIndex}
	if d.Index < 0 {
		d.Index = 0
	}
	return d
}

// Item gives the value of a tensor of one element as a float64.
func (t Tensor) Item() float64 {
	if t.Numel() != 1 {
		panic(&Error{Kind: RuntimeError, Op: "item", Args: t.describe(), Text: "a tensor of one element is needed"})
	}
	return ToSlice[float64](t)[0]
}

// FromSlice makes a CPU tensor of a shape from a copy of data; no shape means
// one dimension.
func FromSlice[T Element](data []T, shape ...int64) Tensor {
	if len(shape) == 0 {
		shape = []int64{int64(len(data))}
	}
	t := Empty(shape, WithDType(dtypeOf[T]()), WithDevice(CPU))
	if n := t.Numel(); n != int64(len(data)) {
		panic(&Error{Kind: ValueError, Op: "from_slice", Args: t.describe(),
			Text: fmt.Sprintf("%d elements are given for a shape of %d", len(data), n)})
	}
	copy(Data[T](t), data)
	return t
}

// Scalar0 makes a CPU tensor without dimensions.
func Scalar0[T Element](v T) Tensor {
	t := Empty([]int64{}, WithDType(dtypeOf[T]()), WithDevice(CPU))
	Data[T](t)[0] = v
	return t
}

// Data gives the elements of a contiguous CPU tensor in place, without a
// copy: writing to the slice writes to the tensor. T must be the tensor's
// element type. The slice is good while the tensor lives.
func Data[T Element](t Tensor) []T {
	i := t.info()
	if want := dtypeOf[T](); DType(i.DType) != want || !i.Contiguous || i.DeviceType != int(CPUDevice) {
		panic(&Error{Kind: TypeError, Op: "data", Args: t.describe(),
			Text: fmt.Sprintf("a contiguous CPU tensor of %v is needed (contiguous: %v)", want, i.Contiguous)})
	}
	if i.Numel == 0 {
		return nil
	}
	return unsafe.Slice((*T)(i.Data), i.Numel)
}

// ToSlice copies the elements in row-major order, converted to T.
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

// MulScalar_ is t *= other. It goes, as Python does, to
//
//	aten::mul_.Tensor(Tensor(a!) self, Tensor other) -> Tensor(a!)
//
// with the number as a tensor: mul_.Scalar rounds it to bf16 or half first, and
// gives other bits.
func (t Tensor) MulScalar_(other Scalar) Tensor {
	c := begin(opMulScalar_, nil)
	c.tensor(t)
	c.scalar(other)
	c.drop()
	return t
}
