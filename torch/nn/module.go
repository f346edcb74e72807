// Package nn has the building blocks of nets with PyTorch's names, shapes and
// initial weights.
//
// A module is a Go struct whose exported fields are its parameters and its
// parts; there is nothing to register. Names equal Python's: a field CAttn is
// "c_attn", the elements of a slice are "0", "1", …, an embedded struct adds
// nothing, and a tag `name:"…"` overrides. The order is the order of the
// fields, never that of a map.
package nn

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode"

	"cyclecap/torch"
)

// Named is a parameter or a buffer of a module and the field that holds it.
type Named struct {
	Name   string
	Tensor *torch.Tensor
	Buffer bool
}

// walk visits the tensors of m, a pointer to a struct, in field order.
func walk(m any, visit func(Named)) {
	v := reflect.ValueOf(m)
	if v.Kind() != reflect.Pointer && v.Kind() != reflect.Interface {
		panic(fmt.Sprintf("nn: a module must be a pointer to a struct, not %T", m))
	}
	walkValue(v, "", false, visit)
}

var tensorType = reflect.TypeFor[torch.Tensor]()

func walkValue(v reflect.Value, path string, buffer bool, visit func(Named)) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			walkValue(v.Elem(), path, buffer, visit)
		}
	case reflect.Slice:
		for i := range v.Len() {
			walkValue(v.Index(i), join(path, strconv.Itoa(i)), buffer, visit)
		}
	case reflect.Struct:
		if s, ok := v.Addr().Interface().(*SequentialModule); ok {
			walkValue(reflect.ValueOf(s.Modules), path, buffer, visit)
			return
		}
		if v.Type() == tensorType {
			if t := v.Addr().Interface().(*torch.Tensor); t.Defined() {
				visit(Named{Name: path, Tensor: t, Buffer: buffer})
			}
			return
		}
		for i := range v.NumField() {
			f := v.Type().Field(i)
			name, tagged := f.Tag.Lookup("name")
			switch {
			case !f.IsExported() || name == "-":
				continue
			case f.Anonymous && !tagged:
				walkValue(v.Field(i), path, buffer, visit)
				continue
			case !tagged:
				name = snake(f.Name)
			}
			walkValue(v.Field(i), join(path, name), f.Tag.Get("buffer") == "true", visit)
		}
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// snake gives the Python name of a Go field: ToKeysValues -> to_keys_values.
func snake(s string) string {
	var b strings.Builder
	for i, r := range s {
		if unicode.IsUpper(r) {
			if i > 0 {
				b.WriteByte('_')
			}
			r = unicode.ToLower(r)
		}
		b.WriteRune(r)
	}
	return b.String()
}

// NamedParameters lists the parameters of a module in field order, which is
// PyTorch's where the fields stand in the order of its registrations.
func NamedParameters(m any) []Named {
	var out []Named
	walk(m, func(n Named) {
		if !n.Buffer {
			out = append(out, n)
		}
	})
	return out
}

// NamedBuffers lists the tensors tagged `buffer:"true"`.
func NamedBuffers(m any) []Named {
	var out []Named
	walk(m, func(n Named) {
		if n.Buffer {
			out = append(out, n)
		}
	})
	return out
}

// Parameters lists the parameters for an optimizer.
func Parameters(m any) []torch.Tensor {
	var out []torch.Tensor
	for _, n := range NamedParameters(m) {
		out = append(out, *n.Tensor)
	}
	return out
}

// Close frees all tensors of a module.
func Close(m any) {
	walk(m, func(n Named) { n.Tensor.Close() })
}

// To moves or converts all tensors of a module, each by t.To(opts...) as
// torch.WithDType and torch.WithDevice say; integer buffers keep their dtype.
// The module's former tensors are closed.
func To(m any, opts ...torch.Option) {
	walk(m, func(n Named) {
		old := *n.Tensor
		if !old.DType().IsFloat() {
			return
		}
		grad := old.RequiresGrad()
		var now torch.Tensor
		torch.NoGrad(func() {
			now = torch.Tidy(func() torch.Tensor {
				t := old.Detach().To(opts...)
				return t
			}).Keep()
		})
		if grad {
			now.SetRequiresGrad(true)
		}
		*n.Tensor = now
		old.Close()
	})
}

// SetRequiresGrad says for all parameters whether backward shall reach them:
// false freezes a module.
func SetRequiresGrad(m any, on bool) {
	for _, n := range NamedParameters(m) {
		n.Tensor.SetRequiresGrad(on)
	}
}

// parameter makes t, fresh from a factory, a parameter: kept, with gradients.
func parameter(t torch.Tensor) torch.Tensor { return t.Keep().SetRequiresGrad(true) }
