// Package compare says how two tensors differ: how many elements, by how much, and
// where.
package compare

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"cyclecap/torch"
)

// An Element is one element of two tensors, lists or slices.
type Element struct {
	Index     []int64 // one number for each dimension; empty for a scalar
	Got, Want float64
}

// A Difference says how numbers differ from those that are wanted. The zero value is
// that of equal ones.
type Difference struct {
	// Mismatch says why nothing could be compared, for example because the shapes
	// differ. It is empty if the elements were compared.
	Mismatch  string
	Shape     []int64
	DType     torch.DType
	Elements  int64
	Differing int64 // number of elements whose bits differ
	// First is the first element whose bits differ, in row-major order; Worst is
	// the first of those with the largest difference. They are nil if all bits
	// are equal.
	First, Worst *Element
	Max, Mean    float64 // of |got - want|; NaN against a number counts as infinite
	Largest      float64 // the largest finite |want|
	// Decades counts the differing elements by |got - want|: Decades[k] those of at
	// least 10^k and less than 10^(k+1). Differences of 0 (0 and -0, or NaNs with other
	// bits) and infinite ones are not in it.
	Decades map[int]int64

	sum float64
}

// Equal reports whether all bits are equal.
func (d Difference) Equal() bool { return d.Mismatch == "" && d.Differing == 0 }

// Relative returns Max divided by Largest.
func (d Difference) Relative() float64 {
	if d.Max == 0 {
		return 0
	}
	return d.Max / d.Largest
}

// add counts element i, whose bits differ.
func (d *Difference) add(i int64, got, want float64) {
	off := math.Abs(got - want)
	switch {
	case got == want, math.IsNaN(got) && math.IsNaN(want):
		off = 0
	case math.IsNaN(off):
		off = math.Inf(1)
	}
	d.Differing++
	if d.First == nil {
		d.First = &Element{index(i, d.Shape), got, want}
	}
	if d.Worst == nil || off > d.Max {
		d.Worst = &Element{index(i, d.Shape), got, want}
		d.Max = off
	}
	d.sum += off
	if off > 0 && !math.IsInf(off, 0) {
		if d.Decades == nil {
			d.Decades = map[int]int64{}
		}
		d.Decades[decade(off)]++
	}
}

func (d *Difference) finish() Difference {
	if d.Elements > 0 {
		d.Mean = d.sum / float64(d.Elements)
	}
	return *d
}

// decade returns the largest k with 10^k <= x.
func decade(x float64) int {
	k := int(math.Floor(float64(math.Ilogb(x)) * math.Log10(2)))
	if x >= math.Pow10(k+1) {
		k++
	}
	return k
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

// block is the number of elements that are compared at a time, so that large tensors
// are not copied as a whole.
const block = 1 << 20

// bits is the integer dtype with which the bits of a dtype are compared.
var bits = map[int64]torch.DType{1: torch.Uint8, 2: torch.Int16, 4: torch.Int32, 8: torch.Int64}

// parts is the dtype of the real and imaginary parts of complex numbers.
var parts = map[torch.DType]torch.DType{torch.Complex64: torch.Float32, torch.Complex128: torch.Float64}

// Tensors compares got with want, which may be on different devices. The shapes and
// dtypes must be equal. Complex numbers are compared as pairs of numbers, in a last
// dimension of 2.
func Tensors(got, want torch.Tensor) (d Difference) {
	d.Shape, d.DType = want.Shape(), want.DType()
	if g, w := got.Shape(), want.Shape(); !slices.Equal(g, w) {
		d.Mismatch = fmt.Sprintf("the shape is %s, want %s", tuple(g), tuple(w))
		return d
	}
	if g, w := got.DType(), want.DType(); g != w {
		d.Mismatch = fmt.Sprintf("the dtype is %v, want %v", g, w)
		return d
	}
	d.Elements = want.Numel()
	torch.NoGrad(func() {
		torch.Tidy(func() torch.Tensor {
			a, b := got.Detach().Reshape([]int64{-1}), want.Detach().Reshape([]int64{-1})
			if part, ok := parts[d.DType]; ok {
				a, b = a.ViewDType(part), b.ViewDType(part)
				d.Shape = append(d.Shape, 2)
				d.Elements *= 2
			}
			for at := int64(0); at < d.Elements; at += block {
				torch.Tidy(func() torch.Tensor {
					n := min(block, d.Elements-at)
					d.block(at, a.Narrow(0, at, n).To(torch.WithDevice(torch.CPU)), b.Narrow(0, at, n).To(torch.WithDevice(torch.CPU)))
					return torch.Tensor{}
				})
			}
			return torch.Tensor{}
		})
	})
	return d.finish()
}

// block compares a part of the elements, which begins at element at.
func (d *Difference) block(at int64, got, want torch.Tensor) {
	if want.DType() == torch.Bool {
		got, want = got.To(torch.WithDType(torch.Uint8)), want.To(torch.WithDType(torch.Uint8))
	}
	values := torch.ToSlice[float64](want)
	for _, v := range values {
		if v = math.Abs(v); v > d.Largest && !math.IsInf(v, 0) {
			d.Largest = v
		}
	}
	as := bits[want.DType().Size()]
	gotBits, wantBits := got.ViewDType(as), want.ViewDType(as)
	if gotBits.Equal(wantBits) {
		return
	}
	other := torch.ToSlice[float64](got)
	g, w := torch.ToSlice[int64](gotBits), torch.ToSlice[int64](wantBits)
	for i := range g {
		if g[i] != w[i] {
			d.add(at+int64(i), other[i], values[i])
		}
	}
}

// Numbers compares numbers, such as losses.
func Numbers(got, want []float64) Difference {
	d := Difference{Shape: []int64{int64(len(want))}, DType: torch.Float64, Elements: int64(len(want))}
	if len(got) != len(want) {
		d.Mismatch = fmt.Sprintf("there are %d numbers, want %d", len(got), len(want))
		return d
	}
	for i, w := range want {
		if v := math.Abs(w); v > d.Largest && !math.IsInf(v, 0) {
			d.Largest = v
		}
		if math.Float64bits(got[i]) != math.Float64bits(w) {
			d.add(int64(i), got[i], w)
		}
	}
	return d.finish()
}

// Lists compares lists of elements that are equal or not, such as token ids: every
// difference counts as infinite. A list that is too short or too long differs in the
// places where one of the two has no element. The index of an element is the list and
// the place in it; Got and Want are NaN unless the elements are integers.
func Lists[T comparable](got, want [][]T) Difference {
	d := Difference{DType: torch.Int64}
	if len(got) != len(want) {
		d.Mismatch = fmt.Sprintf("there are %d lists, want %d", len(got), len(want))
		return d
	}
	d.Shape = []int64{int64(len(want))}
	number := func(list []T, j int) float64 {
		if j < len(list) {
			switch v := any(list[j]).(type) {
			case int64:
				return float64(v)
			case int:
				return float64(v)
			}
		}
		return math.NaN()
	}
	for i := range want {
		n := max(len(got[i]), len(want[i]))
		d.Elements += int64(n)
		for j := range n {
			if j < len(got[i]) && j < len(want[i]) && got[i][j] == want[i][j] {
				continue
			}
			e := &Element{[]int64{int64(i), int64(j)}, number(got[i], j), number(want[i], j)}
			if d.First == nil {
				d.First, d.Worst = e, e
			}
			d.Differing++
			d.Max, d.Mean, d.Largest = math.Inf(1), math.Inf(1), 1
		}
	}
	return d
}

// String describes the difference in one or more lines without an end of line.
func (d Difference) String() string {
	switch {
	case d.Mismatch != "":
		return d.Mismatch
	case d.Differing == 0:
		return fmt.Sprintf("all %s have the same bits", count(d.Elements, "element"))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %s of %v%s differ in their bits\n", d.Differing, count(d.Elements, "element"), d.DType, tuple(d.Shape))
	fmt.Fprintf(&b, "first:   %s\n", d.First)
	fmt.Fprintf(&b, "largest: %s\n", d.Worst)
	fmt.Fprintf(&b, "max |difference| %.3g, mean %.3g, relative to the largest wanted value %.3g", d.Max, d.Mean, d.Relative())
	keys := make([]int, 0, len(d.Decades))
	var most int64
	for k, n := range d.Decades {
		keys, most = append(keys, k), max(most, n)
	}
	slices.Sort(keys)
	for _, k := range keys {
		n := d.Decades[k]
		fmt.Fprintf(&b, "\n%8s %s %d", fmt.Sprintf("1e%+03d", k), strings.Repeat("#", int(1+39*n/most)), n)
	}
	return b.String()
}

// String returns the place and both values, such as "[0, 3]: got 1.5, want 2".
func (e *Element) String() string {
	return fmt.Sprintf("%s: got %s, want %s", tuple(e.Index), value(e.Got), value(e.Want))
}

func value(v float64) string { return strconv.FormatFloat(v, 'g', 9, 64) }

func tuple(n []int64) string { return strings.ReplaceAll(fmt.Sprint(n), " ", ", ") }

func count(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
