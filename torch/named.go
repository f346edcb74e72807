package torch

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"cyclecap/torch/internal/schema"
	"cyclecap/torch/internal/shim"
)

// LoadLibrary opens a shared library that registers operators with libtorch, as
// torch.ops.load_library does. [Call] calls them. The library must have been built
// for the same version of libtorch. It remains loaded.
func LoadLibrary(path string) error {
	// Without a slash, the dynamic loader would search its own folders.
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	if err := shim.LoadLibrary(path); err != nil {
		return fmt.Errorf("torch.LoadLibrary: %w", err)
	}
	return nil
}

// With sets the argument of any name, for operators that [Call] calls.
func With(name string, value any) Option { return Option{name, value} }

// named has the operators that Call has called, by name.
var named sync.Map // string -> *namedOp

type namedOp struct {
	op
	args []schema.Argument
}

// Call calls an operator by the name in its schema, such as "aten::add.Tensor" or
// "mylib::scale": those without a typed function, and those of other libraries
// ([LoadLibrary]).
//
// args are its arguments in the order of the schema, those that follow the * too.
// The last ones may be left out if they have defaults; options set arguments by name
// ([With]). An argument is of the type that the typed functions have for it: Tensor,
// []Tensor, a [Scalar], []int64, []float64, []bool, string, DType, Device, MemoryFormat,
// *Generator, or nil for None. The results are of type Tensor, []Tensor, int64
// (also for a dtype), float64, complex128, bool or []int64, or nil for None. An operator
// that writes to an argument returns it as another Tensor.
//
// Call panics with an *Error if the operator does not exist or fails.
func Call(name string, args ...any) []any {
	o := lookup(name)
	var given []any
	var opts []Option
	for _, a := range args {
		if opt, ok := a.(Option); ok {
			opts = append(opts, opt)
		} else {
			given = append(given, a)
		}
	}
	c := begin(&o.op, opts)
	if len(given) > len(o.args) {
		c.fail(&Error{Kind: TypeError, Op: o.String(), Text: fmt.Sprintf("expected at most %d arguments, got %d", len(o.args), len(given))})
	}
	for i, a := range o.args {
		switch {
		case i < len(given):
			c.typed(a.Type, given[i])
		case c.given(a.Name, a.Type):
		case a.Default:
			c.dflt()
		default:
			c.fail(&Error{Kind: TypeError, Op: o.String(), Text: fmt.Sprintf("argument '%s' (%s) is missing", a.Name, a.Type)})
		}
	}
	return c.results()
}

// lookup returns an operator by its full name.
func lookup(name string) *namedOp {
	if o, ok := named.Load(name); ok {
		return o.(*namedOp)
	}
	o := &namedOp{}
	o.name, o.overload, _ = strings.Cut(name, ".")
	_, err := o.handle()
	must(o.String(), err)
	text, err := shim.Schema(o.name, o.overload)
	must(o.String(), err)
	s, err := schema.Parse(text)
	must(o.String(), err)
	o.args = s.Args
	named.Store(name, o)
	return o
}
