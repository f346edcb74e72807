package torch

import (
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"cyclecap/torch/internal/shim"
)

// Scalar is a number that is passed to an operator: a Go int, int64, float32,
// float64 or bool. Integers and floats follow different type promotion rules, as
// in Python.
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
	id             atomic.Int32 // handle + 1
}

func (o *op) String() string { return strings.TrimPrefix(o.name, "aten::") }

func (o *op) handle() int {
	if id := o.id.Load(); id != 0 {
		return int(id - 1)
	}
	id, err := shim.FindOp(o.name, o.overload)
	must(o.String(), err)
	o.id.Store(int32(id + 1))
	return id
}

// call flattens the arguments of one call.
type call struct {
	op     *op
	args   []int64
	n      int // number of arguments so far
	inputs []Tensor
	opts   []Option
	used   int // number of options used so far
	rets   []int64
}

var calls = sync.Pool{New: func() any {
	return &call{args: make([]int64, 0, 64), rets: make([]int64, 64), inputs: make([]Tensor, 0, 8)}
}}

func begin(o *op, opts []Option) *call {
	c := calls.Get().(*call)
	c.op, c.opts, c.n, c.used = o, opts, 0, 0
	c.args, c.inputs = c.args[:0], c.inputs[:0]
	return c
}

func (c *call) head(tag, n int) {
	c.args = append(c.args, int64(tag)|int64(n)<<8)
}

func (c *call) none() { c.n++; c.head(shim.None, 0) }
func (c *call) dflt() { c.n++; c.head(shim.Default, 0) }

func (c *call) tensor(t Tensor) {
	c.inputs = append(c.inputs, t)
	p := t.pointer(c.op.String())
	c.n++
	c.args = append(c.args, shim.Tensor, int64(p))
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
		c.inputs = append(c.inputs, t)
		c.args = append(c.args, int64(t.pointer(c.op.String())))
	}
}

// tensorsOpt takes a Tensor?[] argument.
func (c *call) tensorsOpt(l []Tensor) {
	c.n++
	c.head(shim.OptTensors, len(l))
	for _, t := range l {
		var p uintptr
		if t.Defined() {
			c.inputs = append(c.inputs, t)
			p = t.pointer(c.op.String())
		}
		c.args = append(c.args, int64(p))
	}
}

func (c *call) integer(v int64) {
	c.n++
	c.args = append(c.args, shim.Int, v)
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

func (c *call) scalar(v Scalar) {
	switch v := v.(type) {
	case int:
		c.integer(int64(v))
	case int64:
		c.integer(v)
	case float64:
		c.double(v)
	case float32:
		c.double(float64(v))
	case bool:
		c.boolean(v)
	default:
		panic(&Error{Kind: TypeError, Op: c.op.String(), Text: fmt.Sprintf("a scalar must be an int, int64, float32, float64 or bool, not %T", v)})
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
func (c *call) generator(g *Generator)       { c.n++; c.args = append(c.args, shim.Generator, int64(g.ptr)) }
func (c *call) scalarsOfDoubles(l []float64) { c.doubles(l); c.retag(len(l), shim.Scalars) }
func (c *call) retag(n, tag int)             { c.args[len(c.args)-1-n] = int64(tag) | int64(n)<<8 }
func (d Device) index() int64 {
	switch d.Type {
	case CUDADevice, PrivateUse1Device:
		return int64(d.Index)
	}
	return -1
}

// opt adds the optional argument called name: the option's value if it was
// given, otherwise the schema's default.
func (c *call) opt(name string) {
	for i := range c.opts {
		if c.opts[i].name == name {
			c.used++
			c.value(c.opts[i].value)
			return
		}
	}
	c.dflt()
}

// deviceOpt adds the device of a factory function: the option if it was given,
// otherwise the scope's device.
func (c *call) deviceOpt() {
	n := c.n
	c.opt("device")
	if s := current(); s != nil && s.device != CPU && c.args[len(c.args)-1] == shim.Default && c.n == n+1 {
		c.args = c.args[:len(c.args)-1]
		c.n--
		c.device(s.device)
	}
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

func (c *call) run(cap int) []int64 {
	if c.used != len(c.opts) {
		c.misfit()
	}
	if cap > len(c.rets) {
		c.rets = make([]int64, cap)
	}
	n, err := shim.Call(c.op.handle(), c.args, c.n, c.rets[:cap])
	runtime.KeepAlive(c.inputs)
	if err != nil {
		e := wrap(c.op.String(), err).(*Error)
		args := make([]string, len(c.inputs))
		for i, t := range c.inputs {
			args[i] = t.describe()
		}
		e.Args = strings.Join(args, ", ")
		panic(e)
	}
	return c.rets[:n]
}

// misfit reports an option that this operator does not have, or one that was
// given twice.
func (c *call) misfit() {
	names := make([]string, len(c.opts))
	for i, o := range c.opts {
		names[i] = o.name
	}
	panic(&Error{Kind: TypeError, Op: c.op.String(), Text: fmt.Sprintf(
		"only %d of the %d options (%s) apply: the operator does not have one of them, or one is given twice", c.used, len(c.opts), strings.Join(names, ", "))})
}

func (c *call) end() {
	clear(c.inputs)
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
	t := adopt(c.op.String(), uintptr(r[1]))
	c.end()
	return t
}

// several runs the call and returns its results, n tensors.
func (c *call) several(n int) []Tensor {
	r := c.run(2 * n)
	out := make([]Tensor, n)
	for i := range out {
		out[i] = adopt(c.op.String(), uintptr(r[2*i+1]))
	}
	c.end()
	return out
}

// list runs the call and returns its result, a Tensor[].
func (c *call) list() []Tensor {
	r := c.run(1 << 14)
	out := make([]Tensor, r[0]>>8)
	for i := range out {
		out[i] = adopt(c.op.String(), uintptr(r[1+i]))
	}
	c.end()
	return out
}

// word runs the call and returns its result, a bool or an int.
func (c *call) word() int64 {
	w := c.run(2)[1]
	c.end()
	return w
}
