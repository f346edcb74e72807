// Package nn has the building blocks of nets with PyTorch's names, shapes and
// initial weights.
//
// # A net
//
// A module is a Go struct whose exported fields are its parameters and its
// parts; there is nothing to register, and Forward has whatever arguments the
// net needs:
//
//	type Net struct {
//		CFc    *nn.LinearModule   // c_fc.weight, c_fc.bias
//		Layers []*nn.LinearModule // layers.0.weight, …
//		Scale  torch.Tensor       `name:"logit_scale"`
//		Mask   torch.Tensor       `buffer:"true"` // no parameter
//	}
//
//	func (n *Net) Forward(x torch.Tensor) torch.Tensor { … }
//
// Names equal Python's: a field CAttn is "c_attn" (each capital begins a word:
// write Mlp, not MLP), the elements of a slice are "0", "1", …, an embedded
// struct adds nothing, and a tag `name:"…"` overrides; `name:"-"` leaves a
// field out. The order is the order of the fields; a map has none, so tensors
// in maps are refused.
//
// # Who owns the parameters
//
// A constructor (Linear, Conv2d …) needs a scope and gives kept parameters
// with gradients: [Close] frees them. Under torch.OnDevice(torch.Meta, …) it
// allocates and draws nothing, for weights that [LoadStateDict] then puts in.
//
// # Initial weights
//
// After torch.ManualSeed a constructor draws what PyTorch's module draws, in
// the same order and to the last bit.
package nn

import (
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
	if v.Kind() != reflect.Pointer {
		torch.Throw("nn", "a module must be a pointer to a struct, not %T", m)
	}
	walkValue(v, "", false, visit)
}

var (
	tensorType     = reflect.TypeFor[torch.Tensor]()
	sequentialType = reflect.TypeFor[SequentialModule]()
)

func walkValue(v reflect.Value, path string, buffer bool, visit func(Named)) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			walkValue(v.Elem(), path, buffer, visit)
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			walkValue(v.Index(i), join(path, strconv.Itoa(i)), buffer, visit)
		}
	case reflect.Map:
		refuse := func(Named) {
			torch.Throw("nn", "%s is a map with tensors, which has no order; make it a slice or a struct", path)
		}
		for _, key := range v.MapKeys() {
			e := reflect.New(v.Type().Elem()).Elem() // an element of a map has no address
			e.Set(v.MapIndex(key))
			walkValue(e, path, buffer, refuse)
		}
	case reflect.Struct:
		switch v.Type() {
		case sequentialType:
			walkValue(v.FieldByName("Modules"), path, buffer, visit)
			return
		case tensorType:
			switch {
			case v.IsZero():
			case !v.CanAddr():
				torch.Throw("nn", "%s is in a module that is held by value; hold a pointer to it", path)
			default:
				visit(Named{Name: path, Tensor: v.Addr().Interface().(*torch.Tensor), Buffer: buffer})
			}
			return
		}
		for i := range v.NumField() {
			f := v.Type().Field(i)
			name, tagged := f.Tag.Lookup("name")
			switch {
			case !f.IsExported() && !f.Anonymous || name == "-":
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
// PyTorch's where the fields stand in the order of its registrations. One that
// is tied to another (two fields hold the same torch.Tensor) is listed once,
// under its first name, as PyTorch does.
func NamedParameters(m any) []Named { return named(m, false) }

// NamedBuffers lists the tensors tagged `buffer:"true"`.
func NamedBuffers(m any) []Named { return named(m, true) }

func named(m any, buffer bool) []Named {
	var out []Named
	seen := map[torch.Tensor]bool{}
	walk(m, func(n Named) {
		if n.Buffer == buffer && !seen[*n.Tensor] {
			seen[*n.Tensor] = true
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
	visit(reflect.ValueOf(m), func(part any) {
		if p, ok := part.(*Packed); ok {
			p.Close()
		}
	})
}

// To moves or converts all tensors of a module, each by t.To(opts...) as
// torch.WithDType and torch.WithDevice say; those that are no floats move but
// keep their dtype. The module's former tensors are closed, so that an
// optimizer over them has to be made anew; what was tied stays tied.
func To(m any, opts ...torch.Option) {
	moved := map[torch.Tensor]torch.Tensor{}
	walk(m, func(n Named) {
		old := *n.Tensor
		now, done := moved[old]
		if !done {
			torch.NoGrad(func() {
				now = torch.Tidy(func() torch.Tensor {
					t := old.Detach().To(opts...)
					if !old.DType().IsFloat() {
						t = old.Detach().To(torch.WithDevice(t.Device()))
					}
					return t
				}).Keep()
			})
			if old.RequiresGrad() {
				now.SetRequiresGrad(true)
			}
			moved[old] = now
		}
		*n.Tensor = now
	})
	for old := range moved {
		old.Close()
	}
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
