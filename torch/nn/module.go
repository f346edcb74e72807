// Package nn provides the building blocks of neural networks, with PyTorch's
// names, shapes and initialization.
//
// # Modules
//
// A module is a Go struct whose exported fields are its parameters and
// submodules. Nothing needs to be registered, and Forward can have any
// arguments:
//
//	type Net struct {
//		CFc    *nn.LinearModule   // c_fc.weight, c_fc.bias
//		Layers []*nn.LinearModule // layers.0.weight, …
//		Scale  torch.Tensor       `name:"logit_scale"`
//		Mask   torch.Tensor       `buffer:"true"` // not a parameter
//		Extra  torch.Tensor       `optional:"true"` // only in some files; see LoadStateDict
//	}
//
//	func (n *Net) Forward(x torch.Tensor) torch.Tensor { … }
//
// Parameter names match Python's: the field CAttn is named "c_attn" (each capital
// letter begins a word, so write Mlp, not MLP), the elements of a slice are named
// "0", "1", …, and an embedded struct adds nothing to the name: a slice is PyTorch's
// ModuleList or ParameterList. The tag
// `name:"…"` overrides the name; `name:"-"` excludes the field. Parameters are
// listed in the order of the fields. Maps have no order, so a map must not
// contain tensors.
//
// # Ownership of parameters
//
// Constructors (Linear, Conv2d …) must be called in a scope. They create
// parameters that require gradients and are kept outside the scope; [Close]
// frees them. In torch.OnDevice(torch.Meta, …) a constructor allocates no memory
// and draws no random numbers; use it before [LoadStateDict].
//
// # Initialization
//
// With the same torch.ManualSeed, constructors draw the same random numbers in
// the same order as PyTorch's modules. The initial weights are bit-identical.
package nn

import (
	"reflect"
	"strconv"

	"cyclecap/torch"
	"cyclecap/torch/internal/names"
)

// Named is a parameter or buffer of a module: its name and the field that
// contains it.
type Named struct {
	Name     string
	Tensor   *torch.Tensor
	Buffer   bool
	optional bool
}

// walk visits the tensors of m, a pointer to a struct, in the order of the fields.
func walk(m any, visit func(Named)) {
	walkFields(m, func(n Named) {
		if n.Tensor.Defined() {
			visit(n)
		}
	})
}

// walkFields is walk that also visits fields tagged `optional:"true"` that have no tensor.
func walkFields(m any, visit func(Named)) {
	v := reflect.ValueOf(m)
	if v.Kind() != reflect.Pointer {
		torch.Throw("nn", "a module must be a pointer to a struct, got %T", m)
	}
	walkValue(v, "", "", visit, map[place]bool{})
}

var (
	tensorType     = reflect.TypeFor[torch.Tensor]()
	sequentialType = reflect.TypeFor[SequentialModule]()
	namedType      = reflect.TypeFor[NamedTensors]()
)

// place identifies what a pointer points to: a struct and its first field have the
// same address.
type place struct {
	address uintptr
	typ     reflect.Type
}

// walkValue visits the tensors of v. inside contains the pointers that lead to v:
// one that leads back to a module around it is not followed.
func walkValue(v reflect.Value, path string, tag reflect.StructTag, visit func(Named), inside map[place]bool) {
	switch v.Kind() {
	case reflect.Pointer:
		p := place{v.Pointer(), v.Type()}
		if v.IsNil() || inside[p] {
			return
		}
		inside[p] = true
		walkValue(v.Elem(), path, tag, visit, inside)
		delete(inside, p)
	case reflect.Interface:
		if !v.IsNil() {
			walkValue(v.Elem(), path, tag, visit, inside)
		}
	case reflect.Slice, reflect.Array:
		if v.Type() == namedType {
			for i := range v.Len() {
				n := v.Index(i).Addr().Interface().(*NamedTensor)
				visit(Named{Name: join(path, n.Name), Tensor: &n.Tensor})
			}
			return
		}
		for i := range v.Len() {
			walkValue(v.Index(i), join(path, strconv.Itoa(i)), tag, visit, inside)
		}
	case reflect.Map:
		refuse := func(Named) {
			torch.Throw("nn", "%s is a map that contains tensors, but maps have no order; use a slice or a struct", path)
		}
		for _, key := range v.MapKeys() {
			e := reflect.New(v.Type().Elem()).Elem() // an element of a map has no address
			e.Set(v.MapIndex(key))
			walkValue(e, path, tag, refuse, inside)
		}
	case reflect.Struct:
		switch v.Type() {
		case sequentialType:
			walkValue(v.FieldByName("Modules"), path, tag, visit, inside)
			return
		case tensorType:
			switch {
			case v.IsZero() && tag.Get("optional") != "true":
			case !v.CanAddr():
				torch.Throw("nn", "%s is in a module that is stored by value; store a pointer to the module", path)
			default:
				visit(Named{Name: path, Tensor: v.Addr().Interface().(*torch.Tensor), Buffer: tag.Get("buffer") == "true", optional: tag.Get("optional") == "true"})
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
				walkValue(v.Field(i), path, tag, visit, inside)
				continue
			case !tagged:
				name = names.Snake(f.Name)
			}
			walkValue(v.Field(i), join(path, name), f.Tag, visit, inside)
		}
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// NamedParameters returns the parameters of a module in the order of the fields.
// This is PyTorch's order if the fields are in the order in which the PyTorch
// module registers them. Like PyTorch, it lists tied parameters (fields that
// contain the same torch.Tensor) once, under the first name.
func NamedParameters(m any) []Named { return named(m, false) }

// NamedBuffers returns the tensors tagged `buffer:"true"`.
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

// Parameters returns the parameters of a module, for an optimizer.
func Parameters(m any) []torch.Tensor {
	var out []torch.Tensor
	for _, n := range NamedParameters(m) {
		out = append(out, *n.Tensor)
	}
	return out
}

// Close frees the tensors of a module.
func Close(m any) {
	walk(m, func(n Named) { n.Tensor.Close() })
	visit(reflect.ValueOf(m), func(part any) {
		switch p := part.(type) {
		case *Packed:
			p.Close()
		case *PackedConv:
			p.Close()
		case *ExactLinear:
			p.Close()
		}
	})
}

// To moves or converts the tensors of a module, like module.to: options are
// torch.WithDType and torch.WithDevice. Tensors that are not floating point are
// moved but keep their dtype. Tensors that are where and what they should be stay;
// the others are closed once they are replaced, so an optimizer must be created
// again. Tied tensors remain tied.
func To(m any, opts ...torch.Option) {
	moved := map[torch.Tensor]torch.Tensor{}
	left := map[torch.Tensor]int{} // the number of places that still hold a tensor
	var places []*torch.Tensor
	seen := map[*torch.Tensor]bool{}
	walk(m, func(n Named) {
		if !seen[n.Tensor] {
			seen[n.Tensor] = true
			places = append(places, n.Tensor)
			left[*n.Tensor]++
		}
	})
	var freed released
	for _, at := range places {
		old := *at
		now, done := moved[old]
		if !done {
			torch.NoGrad(func() {
				now = torch.Tidy(func() torch.Tensor {
					t := old.Detach().To(opts...)
					if !old.DType().IsFloat() {
						t = old.Detach().To(torch.WithDevice(t.Device()))
					}
					if t.DType() == old.DType() && t.Device() == old.Device() && t.DataPtr() == old.DataPtr() {
						return torch.Tensor{}
					}
					return t
				})
			})
			if !now.Defined() {
				now = old
			} else if now.Keep(); old.RequiresGrad() {
				now.SetRequiresGrad(true)
			}
			moved[old] = now
		}
		*at = now
		// Freed at once, so that the module is not in memory twice.
		if left[old]--; left[old] == 0 && now != old {
			freed.close(old)
		}
	}
}

// released counts the memory of closed tensors, to return it to the system from time
// to time: the allocator cannot use all of it for new tensors of other sizes.
type released int64

func (r *released) close(t torch.Tensor) {
	if t.Device() == torch.CPU {
		*r += released(t.NBytes())
	}
	torch.DropPages(t)
	t.Close()
	if *r > 64<<20 {
		torch.ReleaseMemory()
		*r = 0
	}
}

// SetRequiresGrad sets whether autograd computes gradients for the parameters of
// a module, like module.requires_grad_. false freezes the module.
func SetRequiresGrad(m any, on bool) {
	for _, n := range NamedParameters(m) {
		n.Tensor.SetRequiresGrad(on)
	}
}

// parameter turns a new tensor into a parameter: kept and requiring gradients.
func parameter(t torch.Tensor) torch.Tensor { return t.Keep().SetRequiresGrad(true) }
