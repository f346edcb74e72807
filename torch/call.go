package torch

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"cyclecap/torch/internal/shim"
)

// Scalar is a number that is passed to an operator: a Go integer, float, complex
// number or bool. Integers and floats follow different type promotion rules, as in
// Python.
type Scalar = any

// MemoryFormat is a memory format; its values are those of libtorch's
// MemoryFormat.
type MemoryFormat int8

// The memory formats.
const (
	ContiguousFormat   MemoryFormat = 0
	PreserveFormat     MemoryFormat = 1
	ChannelsLastFormat MemoryFormat = 2
)

// Option is an optional argument of an operator: a keyword argument in PyTorch.
type Option struct {
	name  string
	value any
}

// op is an operator. Its handle is looked up at the first call, so that an
// operator that this libtorch lacks fails only when it is used.
type op struct {
	name, overload string
	found          atomic.Uintptr // the handle, or 0
}

func (o *op) String() string { return strings.TrimPrefix(o.name, "aten::") }

func (o *op) handle() (shim.Op, error) {
	if h := o.found.Load(); h != 0 {
		return h, nil
	}
	h, err := shim.FindOp(o.name, o.overload)
	if err == nil {
		o.found.Store(h)
	}
	return h, err
}

// call flattens the arguments of one call, and holds the objects among them until
// the call has returned. An argument that cannot be passed is reported by run, so
// that the others are released.
type call struct {
	op         *op
	args       []int64
	n          int // number of arguments so far
	inputs     []*handle
	generators []*Generator
	opts       []Option
	used       int // number of options used so far
	rets       []int64
	scope      int64  // of this thread, after the call
	err        *Error // the first argument that cannot be passed
}

var calls = sync.Pool{New: func() any {
	return &call{args: make([]int64, 0, 64), rets: make([]int64, 64), inputs: make([]*handle, 0, 8)}
}}

func begin(o *op, opts []Option) *call {
	c := calls.Get().(*call)
	c.op, c.opts, c.n, c.used, c.err = o, opts, 0, 0, nil
	c.args = c.args[:0]
	return c
}

// fail notes that an argument cannot be passed.
func (c *call) fail(err *Error) {
	if c.err == nil {
		c.err = err
	}
}

func (c *call) head(tag, n int) {
	c.args = append(c.args, int64(tag)|int64(n)<<8)
}

func (c *call) none() { c.n++; c.head(shim.None, 0) }
func (c *call) dflt() { c.n++; c.head(shim.Default, 0) }

// address returns t's address and holds t until the call has returned.
func (c *call) address(t Tensor) int64 {
	h, err := t.borrow(c.op.String())
	if err != nil {
		c.fail(err)
		return 0
	}
	c.inputs = append(c.inputs, h)
	return int64(h.ptr)
}

func (c *call) tensor(t Tensor) {
	c.n++
	c.args = append(c.args, shim.Tensor, c.address(t))
}

// tensorOpt takes a Tensor? argument.
func (c *call) tensorOpt(t Tensor) {
	if !t.Defined() {
		c.none()
		return
	}
	c.tensor(t)
}

func (c *call) tensors(l []Tensor) {
	c.n++
	c.head(shim.Tensors, len(l))
	for _, t := range l {
		c.args = append(c.args, c.address(t))
	}
}

// tensorsOpt takes a Tensor?[] argument.
func (c *call) tensorsOpt(l []Tensor) {
	c.n++
	c.head(shim.OptTensors, len(l))
	for _, t := range l {
		var p int64
		if t.Defined() {
			p = c.address(t)
		}
		c.args = append(c.args, p)
	}
}

func (c *call) integer(v int64) {
	c.n++
	c.args = append(c.args, shim.Int, v)
}

func (c *call) unsigned(v uint64) {
	if v > math.MaxInt64 {
		c.fail(&Error{Kind: ValueError, Op: c.op.String(), Text: fmt.Sprintf("a scalar must be less than 2^63, got %d", v)})
	}
	c.integer(int64(v))
}

func (c *call) double(v float64) {
	c.n++
	c.args = append(c.args, shim.Double, int64(math.Float64bits(v)))
}

func (c *call) boolean(v bool) {
	c.n++
	var w int64
	if v {
		w = 1
	}
	c.args = append(c.args, shim.Bool, w)
}

func (c *call) complex(v complex128) {
	c.n++
	c.args = append(c.args, shim.Complex, int64(math.Float64bits(real(v))), int64(math.Float64bits(imag(v))))
}

func (c *call) scalar(v Scalar) {
	switch v := v.(type) {
	case int:
		c.integer(int64(v))
	case int64:
		c.integer(v)
	case int32:
		c.integer(int64(v))
	case int16:
		c.integer(int64(v))
	case int8:
		c.integer(int64(v))
	case uint8:
		c.integer(int64(v))
	case uint16:
		c.integer(int64(v))
	case uint32:
		c.integer(int64(v))
	case uint64:
		c.unsigned(v)
	case uint:
		c.unsigned(uint64(v))
	case float64:
		c.double(v)
	case float32:
		c.double(float64(v))
	case bool:
		c.boolean(v)
	case complex128:
		c.complex(v)
	case complex64:
		c.complex(complex128(v))
	default:
		c.fail(&Error{Kind: TypeError, Op: c.op.String(), Text: fmt.Sprintf("an argument must be a number, a bool or of another type that an operator takes, not %T", v)})
		c.none()
	}
}

func (c *call) ints(l []int64) {
	c.n++
	c.head(shim.Ints, len(l))
	c.args = append(c.args, l...)
}

// intsOpt takes an int[]? argument; nil means none.
func (c *call) intsOpt(l []int64) {
	if l == nil {
		c.none()
		return
	}
	c.ints(l)
}

func (c *call) doubles(l []float64) {
	c.n++
	c.head(shim.Doubles, len(l))
	for _, v := range l {
		c.args = append(c.args, int64(math.Float64bits(v)))
	}
}

// doublesOpt takes a float[]? argument; nil means none.
func (c *call) doublesOpt(l []float64) {
	if l == nil {
		c.none()
		return
	}
	c.doubles(l)
}

func (c *call) bools(l []bool) {
	c.n++
	c.head(shim.Bools, len(l))
	for _, v := range l {
		var w int64
		if v {
			w = 1
		}
		c.args = append(c.args, w)
	}
}

func (c *call) text(s string) {
	c.n++
	c.head(shim.String, len(s))
	words := make([]int64, (len(s)+7)/8)
	if len(s) > 0 {
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), len(words)*8), s)
	}
	c.args = append(c.args, words...)
}

func (c *call) dtype(d DType)               { c.integer(int64(d)) }
func (c *call) memoryFormat(f MemoryFormat) { c.integer(int64(f)) }
func (c *call) device(d Device) {
	c.n++
	c.args = append(c.args, shim.Device, int64(d.Type), d.index())
}
func (c *call) scalarsOfDoubles(l []float64) { c.doubles(l); c.retag(len(l), shim.Scalars) }
func (c *call) retag(n, tag int)             { c.args[len(c.args)-1-n] = int64(tag) | int64(n)<<8 }
func (d Device) index() int64 {
	switch d.Type {
	case CUDADevice, PrivateUse1Device:
		return int64(d.Index)
	}
	return -1
}

// generator takes a Generator? argument; nil is the default generator.
func (c *call) generator(g *Generator) {
	if g == nil {
		c.none()
		return
	}
	p, err := g.pointer(c.op.String())
	if err != nil {
		c.fail(err)
	}
	c.generators = append(c.generators, g)
	c.n++
	c.args = append(c.args, shim.Generator, int64(p))
}

// opt adds the optional argument called name: the option's value if it was
// given, otherwise the schema's default.
func (c *call) opt(name string) {
	if !c.given(name, "") {
		c.dflt()
	}
}

// given adds the value of option name, an argument of a type of the schema, and returns
// true if it was given.
func (c *call) given(name, typ string) bool {
	for i := range c.opts {
		if c.opts[i].name == name {
			c.used++
			c.typed(typ, c.opts[i].value)
			return true
		}
	}
	return false
}

// deviceOpt adds the device of a factory function: the option if it was given,
// otherwise the scope's device.
func (c *call) deviceOpt() {
	if c.given("device", "Device?") {
		return
	}
	if onDevice.Load() > 0 {
		if s := current(); s != nil && s.device != CPU {
			c.device(s.device)
			return
		}
	}
	c.dflt()
}

// typed adds a value for an argument of a type of the schema, where the Go type alone
// does not decide how it is passed.
func (c *call) typed(typ string, v any) {
	switch typ = strings.TrimSuffix(typ, "?"); v := v.(type) {
	case []Tensor:
		if typ == "Tensor?[]" {
			c.tensorsOpt(v)
			return
		}
	case []float64:
		if typ == "Scalar[]" || typ == "Scalar?[]" {
			c.scalarsOfDoubles(v)
			return
		}
	}
	c.value(v)
}

func (c *call) value(v any) {
	switch v := v.(type) {
	case nil:
		c.none()
	case Tensor:
		c.tensorOpt(v)
	case DType:
		c.dtype(v)
	case Device:
		c.device(v)
	case MemoryFormat:
		c.memoryFormat(v)
	case *Generator:
		c.generator(v)
	case string:
		c.text(v)
	case []int64:
		c.ints(v)
	case []float64:
		c.doubles(v)
	case []bool:
		c.bools(v)
	case []Tensor:
		c.tensors(v)
	default:
		c.scalar(v)
	}
}

// run makes the call and returns its results, flattened. n is the number of words
// that are expected; 0 drops the results. c must not be used afterwards, except for
// end.
func (c *call) run(n int) []int64 {
	if c.used != len(c.opts) {
		c.misfit()
	}
	var rets []int64
	var err error
	if c.err == nil {
		var h shim.Op
		if h, err = c.op.handle(); err == nil {
			rets, c.scope, err = shim.Call(h, c.args, c.n, c.rets[:min(n, len(c.rets))])
		}
	}
	c.release(err)
	return rets
}

// release frees the inputs of a call that has returned err. It panics if an argument cannot
// be passed, or the call has failed.
func (c *call) release(err error) {
	if err != nil {
		c.err = wrap(c.op.String(), err).(*Error)
		args := make([]string, len(c.inputs))
		for i, h := range c.inputs {
			args[i] = h.describe()
		}
		c.err.Args = strings.Join(args, ", ")
	}
	for _, h := range c.inputs {
		h.release()
	}
	runtime.KeepAlive(c.generators)
	clear(c.inputs)
	clear(c.generators)
	c.inputs, c.generators = c.inputs[:0], c.generators[:0]
	if err := c.err; err != nil {
		c.end()
		panic(err)
	}
}

// misfit reports an option that this operator does not have, or one that was
// given twice.
func (c *call) misfit() {
	names := make([]string, len(c.opts))
	for i, o := range c.opts {
		names[i] = o.name
	}
	c.fail(&Error{Kind: TypeError, Op: c.op.String(), Text: fmt.Sprintf(
		"only %d of the %d options (%s) apply: the operator does not have one of them, or one is given twice", c.used, len(c.opts), strings.Join(names, ", "))})
}

func (c *call) end() {
	c.op, c.opts = nil, nil
	calls.Put(c)
}

// drop runs the call and drops its results.
func (c *call) drop() {
	c.run(0)
	c.end()
}

// one runs the call and returns its result, a single tensor.
func (c *call) one() Tensor {
	r := c.run(2)
	t := adoptIn(scopeOf(c.scope), c.op.String(), uintptr(r[1]))
	c.end()
	return t
}

// several runs the call and returns its results, n tensors.
func (c *call) several(n int) []Tensor {
	r := c.run(2 * n)
	p := make([]uintptr, n)
	for i := range p {
		p[i] = uintptr(r[2*i+1])
	}
	out := adoptAllIn(scopeOf(c.scope), c.op.String(), p)
	c.end()
	return out
}

// list runs the call and returns its result, a Tensor[].
func (c *call) list() []Tensor {
	r := c.run(len(c.rets))
	p := make([]uintptr, r[0]>>8)
	for i := range p {
		p[i] = uintptr(r[1+i])
	}
	out := adoptAllIn(scopeOf(c.scope), c.op.String(), p)
	c.end()
	return out
}

// word runs the call and returns its result, a bool or an int.
func (c *call) word() int64 {
	w := c.run(2)[1]
	c.end()
	return w
}

// results runs the call and returns its results: tensors, lists, numbers, bools, or
// nil for none.
func (c *call) results() []any {
	var out []any
	var p []uintptr
	put := []func([]Tensor){} // what becomes of the tensors, which are adopted at once
	for r := c.run(len(c.rets)); len(r) > 0; {
		tag, n := int(r[0]&0xff), int(r[0]>>8)
		at := len(out)
		out = append(out, nil)
		r = r[1:]
		switch tag {
		case shim.None:
			n = 0
		case shim.Tensor:
			first := len(p)
			p, n = append(p, uintptr(r[0])), 1
			put = append(put, func(t []Tensor) { out[at] = t[first] })
		case shim.Tensors:
			first := len(p)
			for _, w := range r[:n] {
				p = append(p, uintptr(w))
			}
			put = append(put, func(t []Tensor) { out[at] = t[first : first+n : first+n] })
		case shim.Int:
			out[at], n = r[0], 1
		case shim.Bool:
			out[at], n = r[0] != 0, 1
		case shim.Double:
			out[at], n = math.Float64frombits(uint64(r[0])), 1
		case shim.Complex:
			out[at], n = complex(math.Float64frombits(uint64(r[0])), math.Float64frombits(uint64(r[1]))), 2
		case shim.Ints:
			out[at] = slices.Clone(r[:n])
		}
		r = r[n:]
	}
	defer c.end()
	t := adoptAllIn(scopeOf(c.scope), c.op.String(), p)
	for _, f := range put {
		f(t)
	}
	return out
}
