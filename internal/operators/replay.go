package operators

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"cyclecap/torch"
	"cyclecap/torch/compare"
)

// A function is a typed function: its operator, itself, and the names of the operator's
// arguments, with = and the option's function if they are options.
type function struct {
	op        string
	function  any
	arguments string
}

// A Player repeats calls.
type Player struct {
	seed      uint64
	functions map[string]function
	options   map[string]reflect.Value
}

// NewPlayer returns a player for the calls of a file. Results are PyTorch's with
// one thread.
func NewPlayer(f *File) *Player {
	p := &Player{seed: f.Seed, functions: map[string]function{}, options: map[string]reflect.Value{}}
	for _, f := range functions() {
		p.functions[f.op] = f
	}
	for name, f := range options() {
		p.options[name] = reflect.ValueOf(f)
	}
	return p
}

// An Outcome compares a repeated call with that of Python.
type Outcome struct {
	Typed    bool // it was made through the typed function
	Results  compare.Difference
	Gradient compare.Difference // of all gradients, if the call has any
	// Err says what cannot be compared: an error on one side only or of another
	// kind, or values of different types.
	Err error
}

// Equal reports whether results, gradients and errors are those of Python, bit for bit.
func (o Outcome) Equal() bool {
	return o.Err == nil && o.Results.Equal() && o.Gradient.Equal()
}

// Within reports whether results and gradients are within a tolerance.
func (o Outcome) Within(t compare.Tolerance) bool {
	return o.Err == nil && t.Within(o.Results) && t.Within(o.Gradient)
}

// Play repeats a call in a scope of its own. It panics if the call does anything but
// return or panic with an *torch.Error.
func (p *Player) Play(c *Call) (o Outcome) {
	err := torch.Scope(func() error {
		args, err := decodeAll(c.Args)
		if err != nil {
			return err
		}
		var got []any
		failure := torch.Scope(func() error {
			torch.NoGrad(func() { got = p.call(c, args, &o.Typed) })
			for _, v := range got {
				outlive(v)
			}
			return nil
		})
		if c.Error != "" {
			return sameError(failure, c.Error)
		}
		if failure != nil {
			return failure
		}
		if o.Results, err = results(got, c.Results); err != nil {
			return err
		}
		o.Gradient, err = p.gradients(c)
		return err
	})
	o.Err = err
	return o
}

// outlive moves the tensors of a result to the enclosing scope.
func outlive(v any) {
	for _, t := range tensors(v) {
		t.Return()
	}
}

func decodeAll(args []argument) (map[string]any, error) {
	out := map[string]any{}
	for _, a := range args {
		v, err := a.value.decode()
		if err != nil {
			return nil, fmt.Errorf("argument %s: %w", a.name, err)
		}
		out[a.name] = v
	}
	return out, nil
}

// kinds has the kinds of errors by Python's exceptions.
var kinds = map[string]torch.Kind{"RuntimeError": torch.RuntimeError, "_LinAlgError": torch.RuntimeError, "IndexError": torch.IndexError,
	"ValueError": torch.ValueError, "TypeError": torch.TypeError, "NotImplementedError": torch.NotImplementedError}

func sameError(got error, want string) error {
	kind, ok := kinds[want]
	if !ok {
		return fmt.Errorf("unknown exception %s", want)
	}
	e := (*torch.Error)(nil)
	switch {
	case got == nil:
		return fmt.Errorf("no error, want %s", want)
	case !errors.As(got, &e):
		return fmt.Errorf("%T %w, want %s", got, got, want)
	case e.Kind != kind:
		return fmt.Errorf("%c: %w, want %s", e.Kind, got, want)
	}
	return nil
}

// gradients computes the gradients again and compares them.
func (p *Player) gradients(c *Call) (d compare.Difference, err error) {
	if c.Grads == nil {
		return d, nil
	}
	args, err := decodeAll(c.Args)
	if err != nil {
		return d, err
	}
	var inputs []torch.Tensor
	for _, a := range c.Args {
		for _, t := range tensors(args[a.name]) {
			if dtype := t.DType(); dtype.IsFloat() || isComplex(dtype) {
				inputs = append(inputs, t.SetRequiresGrad(true))
			}
		}
	}
	if len(inputs) != len(c.Grads) {
		return d, fmt.Errorf("%d tensors can have gradients, want %d", len(inputs), len(c.Grads))
	}
	got := p.call(c, args, new(bool))
	var outputs, ramps []torch.Tensor
	for _, v := range got {
		for _, t := range tensors(v) {
			if t.RequiresGrad() {
				outputs, ramps = append(outputs, t), append(ramps, ramp(t))
			}
		}
	}
	if len(outputs) == 0 {
		return d, errors.New("no result requires a gradient")
	}
	torch.Backward(outputs, ramps, false)
	for i, t := range inputs {
		want, err := c.Grads[i].decode()
		if err != nil {
			return d, err
		}
		w, _ := want.(torch.Tensor)
		d.Add(fmt.Sprintf("gradient %d", i), compare.Tensors(t.Grad(), w))
	}
	return d, nil
}

func isComplex(d torch.DType) bool {
	return d == torch.Complex32 || d == torch.Complex64 || d == torch.Complex128
}

// ramp is ramp() of make_operators.py.
func ramp(t torch.Tensor) torch.Tensor {
	r := torch.ArangeEnd(t.Numel(), torch.WithDevice(torch.CPU)).RemainderScalar(7).SubScalar(3).View(t.Shape()).DivScalar(4)
	if isComplex(t.DType()) {
		r = r.MulScalar(1 + 0.5i)
	}
	return r.To(torch.WithDType(t.DType()))
}

// tensors returns the tensors in a value.
func tensors(v any) []torch.Tensor {
	var out []torch.Tensor
	switch v := v.(type) {
	case torch.Tensor:
		if v.Defined() {
			out = append(out, v)
		}
	case []torch.Tensor:
		for _, t := range v {
			out = append(out, tensors(t)...)
		}
	case []any:
		for _, e := range v {
			out = append(out, tensors(e)...)
		}
	}
	return out
}

// call calls the typed function, or torch.Call if there is none or an argument has a
// type that Python takes too: a number in the place of a tensor.
func (p *Player) call(c *Call, args map[string]any, typed *bool) (got []any) {
	torch.ManualSeed(p.seed)
	if in, f, ok := p.arguments(c.Op, args); ok {
		*typed = true
		for _, v := range f.Call(in) {
			got = append(got, v.Interface())
		}
		return got
	}
	named := make([]any, 0, len(args))
	for _, a := range c.Args {
		if v := args[a.name]; v != (layout{}) {
			named = append(named, torch.With(a.name, plain(v)))
		}
	}
	return torch.Call(c.Op, named...)
}

// arguments returns the typed function of an operator and what to call it with, if the
// function takes the arguments.
func (p *Player) arguments(op string, args map[string]any) (in []reflect.Value, f reflect.Value, ok bool) {
	entry, ok := p.functions[op]
	if !ok {
		return nil, f, false
	}
	f = reflect.ValueOf(entry.function)
	var options []reflect.Value
	used := 0
	for _, a := range strings.Fields(entry.arguments) {
		name, option, optional := strings.Cut(a, "=")
		v, given := args[name]
		if given {
			used++
		}
		switch {
		case !optional:
			to := f.Type().In(len(in))
			x, ok := convert(v, to)
			if !given || !ok {
				return nil, f, false
			}
			in = append(in, x)
		case !given || v == any(layout{}):
		default:
			with := p.options[option]
			if x, ok := convert(v, with.Type().In(0)); ok && v != nil {
				options = append(options, with.Call([]reflect.Value{x})[0])
			} else {
				options = append(options, reflect.ValueOf(torch.With(name, plain(v))))
			}
		}
	}
	return append(in, options...), f, used == len(args)
}

// plain turns a list into one of a type that package torch takes.
func plain(v any) any {
	l, ok := v.([]any)
	if !ok {
		return v
	}
	for _, to := range []any{[]int64{}, []torch.Tensor{}, []bool{}, []float64{}} {
		if x, ok := convert(l, reflect.TypeOf(to)); ok {
			return x.Interface()
		}
	}
	return v
}

// convert returns a value as one of a Go type, if it can be one.
func convert(v any, to reflect.Type) (reflect.Value, bool) {
	switch v := v.(type) {
	case nil:
		switch to.Kind() {
		case reflect.Interface, reflect.Slice, reflect.Pointer:
			return reflect.Zero(to), true
		}
		return reflect.Zero(to), to == reflect.TypeFor[torch.Tensor]()
	case int64:
		if to.Kind() == reflect.Float64 {
			return reflect.ValueOf(float64(v)), true
		}
	case []any:
		if to.Kind() == reflect.Interface {
			return reflect.ValueOf(plain(v)), true
		}
		if to.Kind() != reflect.Slice {
			return reflect.Value{}, false
		}
		out := reflect.MakeSlice(to, len(v), len(v))
		for i, e := range v {
			x, ok := convert(e, to.Elem())
			if !ok {
				return reflect.Value{}, false
			}
			out.Index(i).Set(x)
		}
		return out, true
	}
	x := reflect.ValueOf(v)
	return x, x.Type().AssignableTo(to)
}

// results compares the results of a call.
func results(got []any, want []value) (d compare.Difference, err error) {
	if len(got) != len(want) {
		return d, fmt.Errorf("%d results, want %d", len(got), len(want))
	}
	for i, g := range got {
		w, err := want[i].decode()
		if err != nil {
			return d, err
		}
		if err := add(&d, fmt.Sprintf("result %d", i), g, w); err != nil {
			return d, err
		}
	}
	return d, nil
}

// add adds the comparison of a result.
func add(d *compare.Difference, name string, got, want any) error {
	switch g := got.(type) {
	case torch.Tensor:
		w, ok := want.(torch.Tensor)
		if !ok && want != nil {
			break
		}
		d.Add(name, compare.Tensors(g, w))
		return nil
	case []torch.Tensor:
		w, ok := want.([]any)
		if !ok || len(w) != len(g) {
			break
		}
		for i, t := range g {
			if err := add(d, fmt.Sprintf("%s.%d", name, i), t, w[i]); err != nil {
				return err
			}
		}
		return nil
	case []int64:
		w, ok := convert(want, reflect.TypeFor[[]int64]())
		if !ok || !reflect.DeepEqual(g, w.Interface()) {
			break
		}
		return nil
	case float64:
		w, ok := want.(float64)
		if !ok {
			break
		}
		d.Add(name, compare.Numbers([]float64{g}, []float64{w}))
		return nil
	case int64:
		if g == want {
			return nil
		}
	case torch.DType: // operators that are called without a function return its number
		if g == want || int64(g) == want {
			return nil
		}
	case complex128:
		w, ok := want.(complex128)
		if !ok {
			break
		}
		d.Add(name, compare.Numbers([]float64{real(g), imag(g)}, []float64{real(w), imag(w)}))
		return nil
	default:
		if got == want {
			return nil
		}
	}
	return fmt.Errorf("%s: %T %v, want %T %v", name, got, got, want, want)
}
