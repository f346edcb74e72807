package torch

import "fmt"

// A Slice is an index that selects a range of a dimension, as start:end:step does in Python.
// Negative numbers count from the end of the dimension.
type Slice struct {
	Start int64
	End   int64 // exclusive; EndOfDim is the end of the dimension
	Step  int64 // 0 is 1; it cannot be negative
}

// EndOfDim is the End of a Slice that goes to the end of the dimension.
const EndOfDim = 1<<63 - 1

// place is an index that is not a number, a range or a tensor.
type place string

const (
	// All is an index that selects a whole dimension, as : does in Python.
	All place = ":"
	// Ellipsis stands for as many All as are missing, as ... does in Python.
	Ellipsis place = "..."
	// NewAxis inserts a dimension of size 1, as None does in Python.
	NewAxis place = "None"
)

// At returns the part of t that Python's t[indices...] returns. An index is
//
//   - an integer, which removes the dimension and may be negative,
//   - [All], a [Slice], [Ellipsis] or [NewAxis],
//   - a bool,
//   - or a Tensor: of integers, which selects elements, or of bools, a mask of one or more
//     dimensions. Several are broadcast together.
//
// Without Tensors and bools, the result is a view of t. Masks wait for the device, to count their
// elements. At panics with an *Error if there are too many indices or one is out of range.
func (t Tensor) At(indices ...any) Tensor {
	return Tidy(func() Tensor {
		view, list := t.locate("at", indices)
		if list == nil {
			return view
		}
		return view.Index(list)
	})
}

// SetAt is Python's t[indices...] = value: value is a Tensor that can be broadcast to the shape of
// the part, or a number. With indices that are Tensors, a Tensor value must have the dtype of t. The
// indices are those of [Tensor.At]. It returns t.
func (t Tensor) SetAt(value any, indices ...any) Tensor {
	if i := t.info(); Layout(i.Layout) != Strided {
		// A part of it is a copy.
		panic(&Error{Kind: TypeError, Op: "set_at", Args: describe(i), Text: fmt.Sprintf("cannot assign to a tensor of layout %v", Layout(i.Layout))})
	}
	Tidy(func() Tensor {
		view, list := t.locate("set_at", indices)
		v, ok := value.(Tensor)
		switch {
		case !ok && list == nil:
			view.Fill_(value)
		case !ok:
			view.IndexPut_(list, Full([]int64{}, value, WithDType(t.DType()), WithDevice(t.Device())))
		default:
			// Python drops dimensions of size 1 in front that the part does not have.
			if list == nil {
				for v.Dim() > view.Dim() && v.Size(0) == 1 {
					v = v.Select(0, 0)
				}
				view.Copy_(v)
				break
			}
			if v.Dim() == 0 {
				v = v.To(WithDevice(t.Device()))
			}
			view.IndexPut_(list, v)
		}
		return Tensor{}
	})
	return t
}

// locate applies the indices that are not tensors, and returns the others, one for each dimension of
// the view, or nil if there are none.
func (t Tensor) locate(op string, indices []any) (view Tensor, list []Tensor) {
	used, ellipses := 0, 0
	for _, index := range indices {
		switch x := index.(type) {
		case place:
			switch x {
			case Ellipsis:
				ellipses++
			case All:
				used++
			}
		case bool:
		case Tensor:
			if x.DType() == Bool || x.DType() == Uint8 {
				used += x.Dim()
			} else {
				used++
			}
		default:
			used++
		}
	}
	if missing := t.Dim() - used; missing < 0 || ellipses > 1 {
		panic(&Error{Kind: IndexError, Op: op, Args: t.describe(), Text: fmt.Sprintf("%d indices for %d dimensions, and %d ellipses", used, t.Dim(), ellipses)})
	}
	view = t
	dim := int64(0)
	record := func(x Tensor) {
		for int64(len(list)) < dim {
			list = append(list, Tensor{})
		}
		list = append(list, x)
		dim++
	}
	for _, index := range indices {
		switch x := index.(type) {
		case place:
			switch x {
			case All:
				dim++
			case Ellipsis:
				dim += int64(t.Dim() - used)
			case NewAxis:
				view = view.Unsqueeze(dim)
				dim++
			}
		case Slice:
			step := x.Step
			if step == 0 {
				step = 1
			}
			view = view.Slice(WithDim(dim), WithStart(x.Start), WithEnd(x.End), WithStep(step))
			dim++
		case bool:
			view = view.Unsqueeze(dim)
			n := int64(0)
			if x {
				n = 1
			}
			record(Zeros([]int64{n}, WithDType(Int64), WithDevice(t.Device())))
		case Tensor:
			switch {
			case x.DType() == Bool || x.DType() == Uint8:
				if x.Dim() == 0 {
					view = view.Unsqueeze(dim)
					record(Zeros([]int64{int64(x.NeScalar(0).Item())}, WithDType(Int64), WithDevice(t.Device())))
					break
				}
				if got, want := x.Shape(), view.Shape()[dim:dim+int64(x.Dim())]; fmt.Sprint(got) != fmt.Sprint(want) {
					panic(&Error{Kind: IndexError, Op: op, Args: t.describe(), Text: fmt.Sprintf("a mask of shape %v for dimensions of sizes %v", got, want)})
				}
				for _, place := range x.Nonzero().Unbind(WithDim(int64(1))) {
					record(place)
				}
			case x.Dim() == 0:
				view = view.Select(dim, ItemOf[int64](x))
			default:
				record(x)
			}
		default:
			i, ok := integer(index)
			if !ok {
				panic(&Error{Kind: TypeError, Op: op, Args: t.describe(), Text: fmt.Sprintf("an index must be an integer, a bool, All, Slice, Ellipsis, NewAxis or a Tensor, not %T", index)})
			}
			view = view.Select(dim, i)
		}
	}
	if list == nil && view == t {
		view = t.Alias()
	}
	return view, list
}

// integer returns an index that is a number.
func integer(v any) (int64, bool) {
	switch v := v.(type) {
	case int:
		return int64(v), true
	case int64:
		return v, true
	case int32:
		return int64(v), true
	}
	return 0, false
}
