package torch

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"cyclecap/torch/internal/shim"
)

// The defaults of torch.set_printoptions.
const (
	printPrecision = 4
	printThreshold = 1000
	printEdge      = 3
	printWidth     = 80
)

// String formats a tensor exactly as Python's repr does: with the same digits,
// columns, line breaks, suffixes and summarization of large tensors.
func (t Tensor) String() string {
	switch {
	case t.handle == nil:
		return "None"
	case t.shutAlready():
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
	size := func() { add("size=%s", tuple(i.Sizes())) }
	var body string
	switch l := Layout(i.Layout); {
	case l != Strided && l != Mkldnn:
		size()
		parts, names := t.sparse(l)
		if nnz := parts[len(parts)-2]; i.DeviceType != int(MetaDevice) {
			add("nnz=%d", nnz.Size(-1))
		}
		if !usual {
			add("dtype=torch.%v", dtype)
		}
		for k, p := range parts {
			own := names[k] + "=tensor("
			i := p.info()
			text := "..."
			if i.DeviceType != int(MetaDevice) {
				text = p.body(i, len(prefix)+len(own))
			}
			if text == "..." || i.Numel == 0 {
				text += ", size=" + tuple(i.Sizes())
			}
			if k > 0 {
				body += ",\n" + strings.Repeat(" ", len(prefix))
			}
			body += own + text + ")"
		}
	case DType(i.DType).quantized():
		size()
		add("dtype=torch.%v", dtype)
		for _, s := range t.quantization() {
			add("%s", s)
		}
		values := t.Dequantize()
		body = values.body(values.info(), len(prefix))
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
	if l := Layout(i.Layout); l != Strided {
		add("layout=torch.%v", l)
	}
	var name string
	must("grad_fn", lend("grad_fn", func(p []uintptr) (err error) { name, err = shim.GradFn(p[0]); return err }, t))
	if name != "" {
		add("grad_fn=<%s>", name)
	} else if i.RequiresGrad {
		add("requires_grad=True")
	}
	out := prefix + body
	// Whether a suffix fits on the last line depends on its width so far.
	line := len(out) - strings.LastIndex(out, "\n") + 1
	for k, s := range suffixes {
		if line+len(s)+2 > printWidth || k == 0 && Layout(i.Layout) == SparseCOO {
			out += ",\n" + strings.Repeat(" ", len(prefix)) + s
			line = len(prefix) + len(s)
		} else {
			out += ", " + s
			line += len(s) + 2
		}
	}
	return out + ")"
}

// tuple formats sizes as Python does.
func tuple(sizes []int64) string {
	dims := make([]string, len(sizes))
	for k, d := range sizes {
		dims[k] = strconv.FormatInt(d, 10)
	}
	text := strings.Join(dims, ", ")
	if len(dims) == 1 {
		text += ","
	}
	return "(" + text + ")"
}

// sparse returns what a tensor of a sparse layout consists of, and the names of these tensors in Python's
// repr. The last two are indices, as many as there are values, and the values.
func (t Tensor) sparse(l Layout) (parts []Tensor, names []string) {
	rows := []string{"crow_indices", "col_indices"}
	switch l {
	case SparseCOO:
		names = []string{"indices", "values"}
		for _, name := range names {
			parts = append(parts, Call("aten::_"+name, t)[0].(Tensor))
		}
		return parts, names
	case SparseCSC, SparseBSC:
		rows = []string{"ccol_indices", "row_indices"}
	}
	names = append(rows, "values")
	for _, name := range names {
		parts = append(parts, Call("aten::"+name, t)[0].(Tensor))
	}
	return parts, names
}

// qschemes has the names of c10::QScheme.
var qschemes = []string{"per_tensor_affine", "per_channel_affine", "per_tensor_symmetric", "per_channel_symmetric", "per_channel_affine_float_qparams"}

// pythonFloat formats a number as Python's repr of a float.
func pythonFloat(x float64) string {
	format := byte('f')
	if m := math.Abs(x); m != 0 && (m < 1e-4 || m >= 1e16) {
		format = 'e'
	}
	s := strconv.FormatFloat(x, format, -1, 64)
	if format == 'f' && !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// quantization returns the suffixes of Python's repr for the parameters of a quantized tensor.
func (t Tensor) quantization() []string {
	scheme := qschemes[Call("aten::qscheme", t)[0].(int64)]
	out := []string{"quantization_scheme=torch." + scheme}
	if strings.HasPrefix(scheme, "per_tensor") {
		return append(out, "scale="+pythonFloat(t.QScale()), fmt.Sprintf("zero_point=%d", t.QZeroPoint()))
	}
	return append(out, "scale="+t.QPerChannelScales().repr(), "zero_point="+t.QPerChannelZeroPoints().repr(),
		fmt.Sprintf("axis=%d", t.QPerChannelAxis()))
}

// A grid formats the elements of a tensor, or those at its edges.
type grid struct {
	element func(i int64) string // formats the i-th shown element in row-major order
	length  int                  // PyTorch's width of an element with its comma
	sizes   []int64              // shape of what is shown
	cut     []bool               // dimensions of which only the edges are shown
}

func (t Tensor) body(i shim.Info, indent int) string {
	if i.Numel == 0 {
		return "[]"
	}
	shown := t.Detach()
	if Layout(i.Layout) != Strided {
		shown = shown.ToDense()
	}
	g := grid{sizes: i.Sizes(), cut: make([]bool, i.Dim)}
	if i.Numel > printThreshold {
		for d, n := range i.Sizes() {
			if n > 2*printEdge {
				d := int64(d)
				shown = Cat([]Tensor{shown.Narrow(d, 0, printEdge), shown.Narrow(d, n-printEdge, printEdge)}, WithDim(int64(d)))
				g.cut[d], g.sizes[d] = true, 2*printEdge
			}
		}
	}
	one := func(c column) {
		g.element, g.length = c.padded, c.width+2
	}
	switch dtype := DType(i.DType); {
	case dtype == Bool:
		v := ToSlice[bool](shown)
		one(exact(len(v), func(i int64) string {
			if v[i] {
				return "True"
			}
			return "False"
		}))
	case dtype.IsFloat():
		one(floats(ToSlice[float64](shown)))
	case dtype == Complex64 || dtype == Complex128 || dtype == Complex32:
		v := ToSlice[complex128](shown)
		re, im := make([]float64, len(v)), make([]float64, len(v))
		for k, c := range v {
			re[k], im[k] = real(c), imag(c)
		}
		r, j := floats(re), floats(im)
		g.element = func(i int64) string {
			imag := j.text(i)
			if !strings.HasPrefix(imag, "-") {
				imag = "+" + imag
			}
			return r.padded(i) + imag + "j"
		}
		g.length = r.width + 2 + j.width + 1
	case dtype == Uint64:
		v := ToSlice[uint64](shown)
		one(exact(len(v), func(i int64) string { return strconv.FormatUint(v[i], 10) }))
	default:
		v := ToSlice[int64](shown)
		one(exact(len(v), func(i int64) string { return strconv.FormatInt(v[i], 10) }))
	}
	if len(g.sizes) == 0 {
		return g.element(0)
	}
	return g.dim(0, 0, indent)
}

// A column formats numbers with the same width.
type column struct {
	text  func(i int64) string
	width int
}

func (c column) padded(i int64) string {
	s := c.text(i)
	return strings.Repeat(" ", max(0, c.width-len(s))) + s
}

// exact returns a column of values that are not floats, as wide as the widest.
func exact(n int, text func(i int64) string) column {
	c := column{text: text, width: 1}
	for i := range n {
		c.width = max(c.width, len(text(int64(i))))
	}
	return c
}

// floats chooses PyTorch's format for floats: whole numbers with a point, fixed
// point with 4 digits, or scientific. The column is as wide as the widest finite
// nonzero number.
func floats(v []float64) column {
	ordinary := func(x float64) bool { return x != 0 && !math.IsInf(x, 0) && !math.IsNaN(x) }
	low, high, whole := math.Inf(1), 0.0, true
	for _, x := range v {
		if ordinary(x) {
			low, high = min(low, math.Abs(x)), max(high, math.Abs(x))
			whole = whole && x == math.Ceil(x)
		}
	}
	science := high > 0 && (high/low > 1000 || high > 1e8 || low < 1e-4)
	c := column{width: 1, text: func(i int64) string {
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
	}}
	for i, x := range v {
		if ordinary(x) {
			c.width = max(c.width, len(c.text(int64(i))))
		}
	}
	return c
}

// dim formats dimension d and those after it, starting at shown element base.
func (g grid) dim(d int, base int64, indent int) string {
	n, last := g.sizes[d], d == len(g.sizes)-1
	var parts []string
	for k := range n {
		if g.cut[d] && k == printEdge {
			dots := "..."
			if last {
				dots = " ..."
			}
			parts = append(parts, dots)
		}
		if last {
			parts = append(parts, g.element(base*n+k))
		} else {
			parts = append(parts, g.dim(d+1, base*n+k, indent+1))
		}
	}
	margin := strings.Repeat(" ", indent+1)
	if !last {
		return "[" + strings.Join(parts, ","+strings.Repeat("\n", len(g.sizes)-1-d)+margin) + "]"
	}
	var lines []string
	for line := range slices.Chunk(parts, max(1, (printWidth-indent)/g.length)) {
		lines = append(lines, strings.Join(line, ", "))
	}
	return "[" + strings.Join(lines, ",\n"+margin) + "]"
}
