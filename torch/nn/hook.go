package nn

import (
	"reflect"
	"slices"
	"strconv"

	"cyclecap/torch"
	"cyclecap/torch/internal/names"
)

// Hook lets RegisterForwardHook replace the outputs of a module that embeds it, and OnOutput
// see them. Its Forward must return what Output returns.
type Hook struct {
	hooks []*func(output torch.Tensor) torch.Tensor
	seen  func(output torch.Tensor)
}

// RegisterForwardHook is register_forward_hook for the outputs of the module: f gets each, and
// returns what takes its place, or none to leave it. Of a module with several outputs, such as
// LSTM, it is the first. Hooks are called in the order in which they were registered, each with the
// result of the one before. remove ends it. Hooks must not be registered or removed while another
// goroutine uses the module.
func (h *Hook) RegisterForwardHook(f func(output torch.Tensor) torch.Tensor) (remove func()) {
	h.hooks = append(h.hooks, &f)
	return func() {
		// A copy, because Output may be going through the list.
		h.hooks = slices.DeleteFunc(slices.Clone(h.hooks), func(g *func(torch.Tensor) torch.Tensor) bool { return g == &f })
	}
}

// Output returns the output of the module, or what the functions of RegisterForwardHook put in its
// place, and shows it to the function of OnOutput.
func (h *Hook) Output(t torch.Tensor) torch.Tensor {
	for _, f := range h.hooks {
		if y := (*f)(t); y.Defined() {
			t = y
		}
	}
	if h.seen != nil {
		h.seen(t)
	}
	return t
}

// Observed reports whether somebody sees the outputs of the module, which must then be
// computed even if those of a module around it can do without.
func (h *Hook) Observed() bool { return h.seen != nil || len(h.hooks) > 0 }

// observe sets the function that Output calls.
func (h *Hook) observe(f func(torch.Tensor)) { h.seen = f }

// OnOutput makes the modules of m that embed a Hook pass their outputs to f, with their
// names, whenever they have computed one; a nil f ends it. The output may be freed after
// f has returned. m itself has the name "".
func OnOutput(m any, f func(name string, output torch.Tensor)) {
	hooks(reflect.ValueOf(m), "", func(name string, h *Hook) {
		if f == nil {
			h.observe(nil)
			return
		}
		h.observe(func(t torch.Tensor) { f(name, t) })
	}, map[place]bool{})
}

var hookType = reflect.TypeFor[Hook]()

// hooks visits the Hooks in v with the names of their modules. inside is as in walkValue.
func hooks(v reflect.Value, path string, visit func(string, *Hook), inside map[place]bool) {
	switch v.Kind() {
	case reflect.Pointer:
		p := place{v.Pointer(), v.Type()}
		if v.IsNil() || inside[p] {
			return
		}
		inside[p] = true
		hooks(v.Elem(), path, visit, inside)
		delete(inside, p)
	case reflect.Interface:
		if !v.IsNil() {
			hooks(v.Elem(), path, visit, inside)
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			hooks(v.Index(i), join(path, strconv.Itoa(i)), visit, inside)
		}
	case reflect.Struct:
		if v.Type() == hookType && v.CanAddr() {
			visit(path, v.Addr().Interface().(*Hook))
			return
		}
		if v.Type() == sequentialType {
			hooks(v.FieldByName("Hook"), path, visit, inside)
			hooks(v.FieldByName("Modules"), path, visit, inside)
			return
		}
		for i := range v.NumField() {
			f := v.Type().Field(i)
			name, tagged := f.Tag.Lookup("name")
			switch {
			case !f.IsExported() && !f.Anonymous || name == "-":
			case f.Anonymous && !tagged:
				hooks(v.Field(i), path, visit, inside)
			case tagged:
				hooks(v.Field(i), join(path, name), visit, inside)
			default:
				hooks(v.Field(i), join(path, names.Snake(f.Name)), visit, inside)
			}
		}
	}
}
