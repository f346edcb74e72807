package torch

import (
	"math"
	"runtime"
	"unsafe"

	"cyclecap/torch/internal/shim"
)

// FromBlob returns a CPU tensor over the memory of data, without a copy: a write to one is
// seen in the other. The memory can be Go's, which is pinned, or other memory that the
// caller keeps (unsafe.Slice), both until no tensor refers to it any more: t, its
// views, and what autograd saved. Then a goroutine calls release, unless it is nil.
//
// strides are in elements, not negative, and nil for rows without gaps. The shape must not reach
// beyond data; FromBlob then panics with a ValueError and does not call release. For
// a dtype without a Go type, pass its bits and call ViewDType:
// []uint16 for bfloat16, for example. Operators that resize the tensor in place fail.
func FromBlob[T Element](data []T, shape, strides []int64, release func()) Tensor {
	const op = "from_blob"
	bad := func(format string, args ...any) { Throw(op, format, args...) }
	if strides == nil {
		strides = make([]int64, len(shape))
		n := int64(1)
		for i := len(shape) - 1; i >= 0; i-- {
			strides[i] = n
			n *= max(shape[i], 1) // an overflow is found below
		}
	}
	if len(strides) != len(shape) {
		bad("expected a stride for each of the %d dimensions, got %d", len(shape), len(strides))
	}
	last, empty := uint64(0), false // the highest index of an element
	for i, n := range shape {
		if n < 0 {
			bad("size %d of dimension %d is negative", n, i)
		}
		if strides[i] < 0 {
			bad("stride %d of dimension %d is negative, or the shape %v is too large", strides[i], i, shape)
		}
		empty = empty || n == 0
	}
	for i, n := range shape {
		if empty {
			break
		}
		if n > 1 && uint64(strides[i]) > (math.MaxInt64-last)/uint64(n-1) {
			bad("shape %v with strides %v is too large", shape, strides)
		}
		last += uint64(n-1) * uint64(strides[i])
	}
	if !empty && last >= uint64(len(data)) {
		bad("shape %v with strides %v needs %d elements, but there are %d", shape, strides, last+1, len(data))
	}
	if current() == nil {
		panic(noScope(op)) // before anything is pinned
	}
	b := &blob{release: release}
	var p unsafe.Pointer
	if len(data) > 0 {
		p = unsafe.Pointer(unsafe.SliceData(data))
		b.pin.Pin(unsafe.SliceData(data))
	}
	t, err := shim.FromBlob(p, shape, strides, int(dtypeOf[T]()), b)
	if err != nil {
		b.pin.Unpin()
		panic(wrap(op, err))
	}
	return adopt(op, t)
}

// blob is the memory of a tensor of FromBlob.
type blob struct {
	pin     runtime.Pinner
	release func()
}

// Dropped implements shim.Held.
func (b *blob) Dropped() {
	b.pin.Unpin()
	if b.release != nil {
		go b.release() // the caller is freeing tensors, perhaps with a lock
	}
}
