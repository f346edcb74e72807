// Package compare says how two tensors differ: how many elements, by how much, and
// where.
//
//	d := compare.Tensors(got, want)
//	if t := (compare.Tolerance{Why: "another order of sums", Relative: 1e-5}); !t.Within(d) {
//		fmt.Println(d)
//	}
//
// [Numbers] compares lists of numbers, such as losses, and [Lists] lists of token ids or
// names. Package torchtest has functions for tests.
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
	Name      string  // of the tensor, if several were compared
	Index     []int64 // one number for each dimension; empty for a scalar
	Got, Want float64 // NaN for what is no number

	got, want string // as String prints them
}

// A Difference says how numbers differ from those that are wanted. The zero value is
// that of equal ones.
type Difference struct {
	// Mismatch says why nothing could be compared, for example because the shapes
	// differ. It is empty if the elements were compared. Otherwise all elements count
	// as differing, and Max and Mean are infinite.
	Mismatch  string
	Shape     []int64 // nil if several tensors were compared
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

	what     string  // dtype and shape, or what else was compared
	relative float64 // the largest Relative of what was added
}

// Equal reports whether all bits are equal.
func (d Difference) Equal() bool { return d.Mismatch == "" && d.Differing == 0 }

// Relative returns Max divided by Largest; of several tensors, the largest of these
// quotients.
func (d Difference) Relative() float64 {
	if d.Max == 0 {
		return 0
	}
	return max(d.relative, d.Max/d.Largest)
}

// Numbers compares numbers, such as losses.
func Numbers(got, want []float64) Difference {
	d := Difference{Shape: []int64{int64(len(want))}, DType: torch.Float64, Elements: int64(len(want))}
	if len(got) != len(want) {
		return d.mismatch("%s, want %d", count(int64(len(got)), "number"), len(want))
	}
	var c counter
	for i, w := range want {
		c.see(w)
		if math.Float64bits(got[i]) != math.Float64bits(w) {
			c.add(int64(i), distance(got[i], w))
		}
	}
	return c.finish(d, func(i int64) *Element {
		return &Element{Index: []int64{i}, Got: got[i], Want: want[i], got: number(got[i], 64), want: number(want[i], 64)}
	})
}

// Lists compares lists of elements that are equal or not, such as token ids: every
// difference counts as infinite. A list that is too short or too long differs in the
// places where one of the two has no element. The index of an element is the list and
// the place in it; Got and Want are NaN unless the elements are integers.
func Lists[T comparable](got, want [][]T) Difference {
	d := Difference{DType: torch.Int64, Shape: []int64{int64(len(want))}, what: count(int64(len(want)), "list")}
	for _, l := range want {
		d.Elements += int64(len(l))
	}
	if len(got) != len(want) {
		return d.mismatch("%s, want %d", count(int64(len(got)), "list"), len(want))
	}
	element := func(l []T, j int) (float64, string) {
		if j >= len(l) {
			return math.NaN(), "nothing"
		}
		switch v := any(l[j]).(type) {
		case int64:
			return float64(v), fmt.Sprint(v)
		case int:
			return float64(v), fmt.Sprint(v)
		case string:
			return math.NaN(), strconv.Quote(v)
		}
		return math.NaN(), fmt.Sprint(l[j])
	}
	d.Elements = 0
	for i := range want {
		n := max(len(got[i]), len(want[i]))
		d.Elements += int64(n)
		for j := range n {
			if j < len(got[i]) && j < len(want[i]) && got[i][j] == want[i][j] {
				continue
			}
			if d.First == nil {
				e := &Element{Index: []int64{int64(i), int64(j)}}
				e.Got, e.got = element(got[i], j)
				e.Want, e.want = element(want[i], j)
				d.First, d.Worst = e, e
				d.Max, d.Mean, d.Largest = math.Inf(1), math.Inf(1), 1
			}
			d.Differing++
		}
	}
	return d
}

// Add adds the difference of one of several tensors, which has a name: a zero Difference
// to which those of all are added is the difference of all.
func (d *Difference) Add(name string, part Difference) {
	if part.Mismatch != "" && d.Mismatch == "" {
		d.Mismatch = name + ": " + part.Mismatch
	}
	named := func(e *Element) *Element {
		n := *e
		n.Name = strings.TrimSuffix(name+"."+e.Name, ".")
		return &n
	}
	if d.First == nil && part.First != nil {
		d.First = named(part.First)
	}
	if part.Worst != nil && (d.Worst == nil || part.Max > d.Max) {
		d.Worst = named(part.Worst)
	}
	if n := d.Elements + part.Elements; n > 0 {
		d.Mean = d.Mean*(float64(d.Elements)/float64(n)) + part.Mean*(float64(part.Elements)/float64(n))
	}
	if d.Elements == 0 {
		d.DType = part.DType
	}
	d.Shape, d.what = nil, "several tensors"
	d.Elements += part.Elements
	d.Differing += part.Differing
	d.Max, d.Largest, d.relative = max(d.Max, part.Max), max(d.Largest, part.Largest), max(d.relative, part.Relative())
	decades := map[int]int64{} // not d's own, which another Difference may share
	for _, m := range []map[int]int64{d.Decades, part.Decades} {
		for k, n := range m {
			decades[k] += n
		}
	}
	if len(decades) > 0 {
		d.Decades = decades
	}
}

// mismatch is the difference of what cannot be compared.
func (d Difference) mismatch(format string, args ...any) Difference {
	d.Mismatch = fmt.Sprintf(format, args...)
	d.Differing = max(1, d.Elements)
	d.Max, d.Mean = math.Inf(1), math.Inf(1)
	return d
}

// String describes the difference in one or more lines without an end of line.
func (d Difference) String() string {
	what := d.what
	if what == "" {
		what = d.DType.String() + tuple(d.Shape)
	}
	switch {
	case d.Mismatch != "":
		return d.Mismatch
	case d.Differing == 0 && d.Elements == 1:
		return fmt.Sprintf("the only element of %s has the same bits", what)
	case d.Differing == 0:
		return fmt.Sprintf("all %d elements of %s have the same bits", d.Elements, what)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d elements of %s differ in their bits\n", d.Differing, d.Elements, what)
	fmt.Fprintf(&b, "first:   %s", d.First)
	if d.Worst == d.First { // of lists, whose elements are equal or not
		return b.String()
	}
	fmt.Fprintf(&b, "\nlargest: %s\n", d.Worst)
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
	name := ""
	if e.Name != "" {
		name = e.Name + " "
	}
	got, want := e.got, e.want
	if got == "" && want == "" {
		got, want = number(e.Got, 64), number(e.Want, 64)
	}
	return fmt.Sprintf("%s%s: got %s, want %s", name, tuple(e.Index), got, want)
}

// number formats a number with the digits that tell it from its neighbours of as many
// bits.
func number(v float64, bits int) string { return strconv.FormatFloat(v, 'g', -1, bits) }

func tuple(n []int64) string { return strings.ReplaceAll(fmt.Sprint(n), " ", ", ") }

func count(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
