package nn

import (
	"reflect"
	"strconv"

	"cyclecap/torch"
	"cyclecap/torch/internal/names"
)

// Hook lets OnOutput see the outputs of a module that embeds it. Its Forward must
// return what Output returns.
type Hook struct{ seen func(output torch.Tensor) }

// Output returns the output of the module, and shows it to the function of OnOutput.
func (h *Hook) Output(t torch.Tensor) torch.Tensor {
	if h.seen != nil {
		h.seen(t)
	}
	return t
}

// Observed reports whether somebody sees the outputs of the module, which must then be
// computed even if those of a module around it can do without.
func (h *Hook) Observed() bool { return h.seen != nil }

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
