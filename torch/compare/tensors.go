package compare

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"cyclecap/torch"
)

// block is the number of elements that are compared at a time, so that large tensors
// are not copied as a whole.
const block = 1 << 18

// parts is the dtype of the real and imaginary parts of complex numbers.
var parts = map[torch.DType]torch.DType{torch.Complex32: torch.Float16, torch.Complex64: torch.Float32, torch.Complex128: torch.Float64}

// Tensors compares got with want, which may be on different devices. The shapes and
// dtypes must be equal. Complex numbers are compared as pairs of numbers, in a last
// dimension of 2. Tensors needs no scope. Two undefined tensors are equal.
func Tensors(got, want torch.Tensor) (d Difference) {
	err := torch.Scope(func() error {
		torch.NoGrad(func() { d = tensors(got, want) })
		return nil
	})
	if err != nil {
		return Difference{}.mismatch("%v", err)
	}
	return d
}

func tensors(got, want torch.Tensor) (d Difference) {
	switch {
	case !got.Defined() && !want.Defined():
		return Difference{what: "no tensor"}
	case !want.Defined():
		return d.mismatch("the tensor is %s, want none", describe(got))
	}
	d.Shape, d.DType, d.Elements = want.Shape(), want.DType(), want.Numel()
	if !got.Defined() {
		return d.mismatch("there is no tensor, want %s", describe(want))
	}
	if g := got.Shape(); !slices.Equal(g, d.Shape) {
		return d.mismatch("the shape is %s, want %s", tuple(g), tuple(d.Shape))
	}
	if g := got.DType(); g != d.DType {
		return d.mismatch("the dtype is %v, want %v", g, d.DType)
	}
	if got.Device() == torch.Meta || want.Device() == torch.Meta {
		return d.mismatch("a tensor on the meta device has no elements to compare")
	}
	for _, t := range []torch.Tensor{got, want} {
		if l := t.Layout(); l != torch.Strided {
			return d.mismatch("a tensor of layout %v has no elements to compare; call ToDense", l)
		}
	}
	if _, complex := parts[d.DType]; complex {
		d.Shape, d.Elements = append(d.Shape, 2), 2*d.Elements
	}
	a, b := flat(got), flat(want)
	var c counter
	for at := int64(0); at < d.Elements; at += block {
		torch.Tidy(func() torch.Tensor {
			n := min(block, d.Elements-at)
			c.block(at, part(a, at, n), part(b, at, n))
			return torch.Tensor{}
		})
	}
	return c.finish(d, func(i int64) *Element {
		e := &Element{Index: index(i, d.Shape)}
		e.Got, e.got = value(a, i)
		e.Want, e.want = value(b, i)
		return e
	})
}

func describe(t torch.Tensor) string {
	return t.DType().String() + strings.ReplaceAll(fmt.Sprint(t.Shape()), " ", ", ")
}

// flat returns the elements of a tensor in one dimension: a view if they are contiguous.
// Those of a complex tensor are its parts.
func flat(t torch.Tensor) torch.Tensor {
	part, complex := parts[t.DType()]
	if t = t.Detach(); complex || t.Numel() > 0 && t.DataPtr() == 0 {
		// Resolves a conjugation that is only a flag, zeros without memory, which autograd
		// makes, and the strides of a tensor with one element.
		t = torch.Empty(t.Shape(), torch.WithDType(t.DType()), torch.WithDevice(t.Device())).Copy_(t)
	}
	if t = t.Contiguous().View([]int64{-1}); complex {
		t = t.ViewDType(part)
	}
	return t
}

// part returns elements of a flat tensor, on the CPU.
func part(t torch.Tensor, at, n int64) torch.Tensor {
	return t.Narrow(0, at, n).To(torch.WithDevice(torch.CPU))
}

// block compares two flat tensors on the CPU that begin at an element.
func (c *counter) block(at int64, got, want torch.Tensor) {
	switch want.DType().Size() {
	case 1:
		sized[uint8](c, at, torch.Uint8, got, want)
	case 2:
		sized[int16](c, at, torch.Int16, got, want)
	case 4:
		sized[int32](c, at, torch.Int32, got, want)
	default:
		sized[int64](c, at, torch.Int64, got, want)
	}
}

// sized compares the bits of elements as integers of their size, and the elements that
// differ in float64.
func sized[T uint8 | int16 | int32 | int64](c *counter, at int64, bits torch.DType, got, want torch.Tensor) {
	w := torch.ToSlice[float64](want)
	for _, v := range w {
		c.see(v)
	}
	torch.Data(got.ViewDType(bits), func(gotBits []T) {
		torch.Data(want.ViewDType(bits), func(wantBits []T) {
			if slices.Equal(gotBits, wantBits) {
				return
			}
			g, dtype := torch.ToSlice[float64](got), want.DType()
			for i, b := range wantBits {
				if gotBits[i] == b {
					continue
				}
				d := 0.0
				switch dtype { // a float64 does not hold all of these
				case torch.Int64:
					d = apart(int64(gotBits[i]), int64(b))
				case torch.Uint64:
					d = apart(uint64(gotBits[i]), uint64(b))
				default:
					d = distance(g[i], w[i])
				}
				c.add(at+int64(i), d)
			}
		})
	})
}

// apart returns |a - b|, which an int64 may not hold.
func apart[T int64 | uint64](a, b T) float64 {
	if a < b {
		a, b = b, a
	}
	return float64(uint64(a) - uint64(b))
}

// index returns the index in each dimension of element i in row-major order.
func index(i int64, shape []int64) []int64 {
	at := make([]int64, len(shape))
	for d := len(shape) - 1; d >= 0; d-- {
		at[d] = i % shape[d]
		i /= shape[d]
	}
	return at
}

// value returns an element of a flat tensor, and how it is printed.
func value(t torch.Tensor, i int64) (float64, string) {
	t = part(t, i, 1)
	v := torch.ItemOf[float64](t)
	switch dtype := t.DType(); {
	case dtype == torch.Bool:
		return v, strconv.FormatBool(v != 0)
	case dtype == torch.Uint64:
		return v, strconv.FormatUint(torch.ItemOf[uint64](t), 10)
	case dtype == torch.Float64:
		return v, number(v, 64)
	case dtype.IsFloat():
		return v, number(v, 32)
	}
	return v, strconv.FormatInt(torch.ItemOf[int64](t), 10)
}
