package optim

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"cyclecap/torch/internal/names"
)

// A setting is a field of an options struct under PyTorch's name. Fields of a tuple, such as betas,
// share a name and have a place in it; at is -1 for others.
type setting struct {
	name      string
	at, field int
}

// settings returns the fields of an options struct, without those tagged `torch:"-"`.
func settings(t reflect.Type) (out []setting) {
	for i := range t.NumField() {
		f := t.Field(i)
		tag, tagged := f.Tag.Lookup("torch")
		if tag == "-" {
			continue
		}
		if !tagged {
			tag = names.Snake(f.Name)
		}
		s := setting{name: tag, at: -1, field: i}
		if name, at, ok := strings.Cut(tag, "."); ok {
			s.name = name
			s.at, _ = strconv.Atoi(at)
		}
		out = append(out, s)
	}
	return out
}

// export returns the options in o, a pointer to a struct, by PyTorch's names. Tuples are []any. A
// field tagged `none:"true"` is None if it is zero.
func export(o any) map[string]any {
	v := reflect.ValueOf(o).Elem()
	out := map[string]any{}
	for _, s := range settings(v.Type()) {
		value := v.Field(s.field).Interface()
		if v.Type().Field(s.field).Tag.Get("none") == "true" && v.Field(s.field).IsZero() {
			value = nil
		}
		if s.at < 0 {
			out[s.name] = value
			continue
		}
		tuple, _ := out[s.name].([]any)
		out[s.name] = append(tuple, value)
	}
	return out
}

// restore sets the options in o, a pointer to a struct, from PyTorch's names. Options that are not
// in from stay as they are.
func restore(o any, from map[string]any) error {
	v := reflect.ValueOf(o).Elem()
	for _, s := range settings(v.Type()) {
		value, ok := from[s.name]
		if !ok {
			continue
		}
		if s.at >= 0 {
			tuple, ok := value.([]any)
			if !ok || s.at >= len(tuple) {
				return fmt.Errorf("optim: the option %s is %v, not a tuple of %d or more", s.name, value, s.at+1)
			}
			value = tuple[s.at]
		}
		f := v.Field(s.field)
		if value == nil {
			f.SetZero()
			continue
		}
		switch x := value.(type) {
		case int64:
			if f.Kind() == reflect.Float64 {
				value = float64(x)
			}
		case float64:
			if f.Kind() == reflect.Int64 && x == float64(int64(x)) {
				value = int64(x)
			}
		}
		if reflect.TypeOf(value) != f.Type() {
			return fmt.Errorf("optim: the option %s is %v, a %T, not a %v", s.name, value, value, f.Type())
		}
		f.Set(reflect.ValueOf(value))
	}
	return nil
}

// field returns the float option of a name, or nil. at is its place in a tuple, or -1.
func field(o any, name string, at int) *float64 {
	v := reflect.ValueOf(o).Elem()
	all := settings(v.Type())
	i := slices.IndexFunc(all, func(s setting) bool { return s.name == name && s.at == at })
	if i < 0 {
		return nil
	}
	p, _ := v.Field(all[i].field).Addr().Interface().(*float64)
	return p
}
