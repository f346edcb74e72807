package torch

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"cyclecap/torch/internal/shim"
)

// PyTorch's defaults of torch.set_printoptions.
const (
	printPrecision = 4
	printThreshold = 1000
	printEdge      = 3
	printWidth     = 80
)

// String prints a tensor as Python's repr does: the same digits, columns,
// line breaks, summary of large tensors and suffixes.
func (t Tensor) String() string {
	switch {
	case t.handle == nil:
		return "None"
	case t.ptr == 0:
		return "tensor(<freed>)"
	}
	var s string
	if err := Scope(func() error { s = t.repr(); return nil }); err != nil {
		return "tensor(<" + err.Error() + ">)"
	}
	return s
}

func (t Tensor) repr() string {
	const prefix = "tensor("
	i := t.info()
	dtype := DType(i.DType)
	var suffixes []string
	add := func(format string, args ...any) { suffixes = append(suffixes, fmt.Sprintf(format, args...)) }
	if d := deviceOf(i); d != CPU {
		add("device='%v'", d)
	}
	usual := dtype == Float32 || dtype == Int64 || dtype == Bool || dtype == Complex64
	size := func() {
		dims := make([]string, len(i.Sizes))
		for k, d := range i.Sizes {
			dims[k] = strconv.FormatInt(d, 10)
		}
		text := strings.Join(dims, ", ")
		if len(dims) == 1 {
			text += ","
		}
		add("size=(%s)", text)
	}
	var body string
	switch {
	case i.DeviceType == int(MetaDevice):
		size()
		if dtype != Float32 {
			add("dtype=torch.%v", dtype)
		}
		body = "..."
	case i.Numel == 0:
		if i.Dim != 1 {
			size()
		}
		if dtype != Float32 {
			add("dtype=torch.%v", dtype)
		}
		body = "[]"
	default:
		if !usual {
			add("dtype=torch.%v", dtype)
		}
		body = t.body(i, len(prefix))
	}
	if name, err := shim.GradFn(t.ptr); err == nil && name != "" {
		add("grad_fn=<%s>", name)
	} else if i.RequiresGrad {
		add("requires_grad=True")
	}
	out := prefix + body
	// As wide as the last line is so far, suffixes follow on it or below.
	line := len(out) - strings.LastIndex(out, "\n") + 1
	for _, s := range suffixes {
		if line+len(s)+2 > printWidth {
			out += ",\n" + strings.Repeat(" ", len(prefix)) + s
			line = len(prefix) + len(s)
		} else {
			out += ", " + s
			line += len(s) + 2
		}
	}
	return out + ")"
}

// printed has the values that are printed, those of the edges where a tensor
// is summarised.
type printed struct {
	values    func(i int64) string // i-th element in row-major order
	width     int
	summarise bool
}

func (t Tensor) body(i shim.Info, indent int) string {
	p := printed{summarise: i.Numel > printThreshold}
	dtype := DType(i.DType)
	shown := shownIndices(i.Sizes, p.summarise)
	switch {
	case dtype == Bool:
		v := ToSlice[bool](t)
		p.values = func(i int64) string {
			if v[i] {
				return "True"
			}
			return "False"
		}
	case dtype.IsFloat():
		v := ToSlice[float64](t)
		p.values = floatFormat(v, shown)
		// Columns are as wide as the widest finite number that is not 0.
		shown = slices.DeleteFunc(shown, func(k int64) bool { return v[k] == 0 || math.IsInf(v[k], 0) || math.IsNaN(v[k]) })
	case dtype == Complex64 || dtype == Complex128 || dtype == Complex32:
		v := ToSlice[complex128](t)
		re, im := make([]float64, len(v)), make([]float64, len(v))
		for k, c := range v {
			re[k], im[k] = real(c), imag(c)
		}
		r, j := floatFormat(re, shown), floatFormat(im, shown)
		p.values = func(i int64) string {
			imag := strings.TrimSpace(j(i))
			if !strings.HasPrefix(imag, "-") {
				imag = "+" + imag
			}
			return r(i) + imag + "j"
		}
	case dtype == Uint64:
		v := ToSlice[uint64](t)
		p.values = func(i int64) string { return strconv.FormatUint(v[i], 10) }
	default:
		v := ToSlice[int64](t)
		p.values = func(i int64) string { return strconv.FormatInt(v[i], 10) }
	}
	for _, k := range shown {
		p.width = max(p.width, len(p.values(k)))
	}
	if len(i.Sizes) == 0 {
		return p.values(0)
	}
	return p.dims(i.Sizes, 0, indent)
}

// shownIndices lists the elements that are printed.
func shownIndices(sizes []int64, summarise bool) []int64 {
	out := []int64{0}
	for _, d := range sizes {
		var next []int64
		for _, base := range out {
			for k := range d {
				if summarise && d > 2*printEdge && k >= printEdge && k < d-printEdge {
					continue
				}
				next = append(next, base*d+k)
			}
		}
		out = next
	}
	return out
}

// floatFormat picks PyTorch's way of printing floats: whole numbers with a
// point, fixed with 4 digits, or scientific.
func floatFormat(v []float64, shown []int64) func(int64) string {
	low, high, whole, found := math.Inf(1), 0.0, true, false
	for _, i := range shown {
		x := v[i]
		if math.IsNaN(x) || math.IsInf(x, 0) || x == 0 {
			continue
		}
		found = true
		low, high = min(low, math.Abs(x)), max(high, math.Abs(x))
		whole = whole && x == math.Ceil(x)
	}
	science := found && (high/low > 1000 || high > 1e8 || !whole && low < 1e-4)
	return func(i int64) string {
		x := v[i]
		switch {
		case math.IsNaN(x):
			return "nan"
		case math.IsInf(x, 1):
			return "inf"
		case math.IsInf(x, -1):
			return "-inf"
		case science:
			return strconv.FormatFloat(x, 'e', printPrecision, 64)
		case whole:
			return strconv.FormatFloat(x, 'f', 0, 64) + "."
		}
		return strconv.FormatFloat(x, 'f', printPrecision, 64)
	}
}

// dims prints the elements from base on, of the sizes that are left.
func (p printed) dims(sizes []int64, base int64, indent int) string {
	n := sizes[0]
	cut := p.summarise && n > 2*printEdge
	var parts []string
	each := func(f func(k int64) string, dots string) {
		for k := int64(0); k < n; k++ {
			if cut && k == printEdge {
				parts = append(parts, dots)
				k = n - printEdge
			}
			parts = append(parts, f(k))
		}
	}
	if len(sizes) == 1 {
		each(func(k int64) string {
			s := p.values(base*n + k)
			return strings.Repeat(" ", max(0, p.width-len(s))) + s
		}, " ...")
		perLine := max(1, (printWidth-indent)/(p.width+2))
		var lines []string
		for len(parts) > 0 {
			m := min(perLine, len(parts))
			lines = append(lines, strings.Join(parts[:m], ", "))
			parts = parts[m:]
		}
		return "[" + strings.Join(lines, ",\n"+strings.Repeat(" ", indent+1)) + "]"
	}
	each(func(k int64) string { return p.dims(sizes[1:], base*n+k, indent+1) }, "...")
	return "[" + strings.Join(parts, ","+strings.Repeat("\n", len(sizes)-1)+strings.Repeat(" ", indent+1)) + "]"
}
