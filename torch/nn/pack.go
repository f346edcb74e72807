package nn

import (
	"reflect"

	"cyclecap/torch"
)

// Packed is the weight of a linear layer, with its bias, in the blocked layout
// of oneDNN. It is for inference: nothing flows back through it.
//
// Products with it are two to five times as fast as those of torch.Linear on
// a CPU with AVX-512, the more so for few rows: those go through MKL's sgemm
// in f32, which on AMD processors uses half the width of the registers and
// one thread for a single row, and through oneDNN with a fresh copy of the
// weight each time in bf16. The order of the additions differs, and with it
// the last bits.
type Packed struct{ weight, bias torch.Tensor }

// NewPacked packs a weight [out, in] and a bias [out] or none.
func NewPacked(weight, bias torch.Tensor) *Packed {
	p := &Packed{weight: weight.MKLDNNReorderLinearWeight().Keep()}
	if bias.Defined() {
		p.bias = bias
	}
	return p
}

// Forward maps [..., in] to [..., out].
func (p *Packed) Forward(x torch.Tensor) torch.Tensor {
	return torch.MKLDNNLinearPointwise(x, p.weight, p.bias, "none", nil, "")
}

// Close frees the packed weight.
func (p *Packed) Close() { p.weight.Close() }

// A packer is a layer that can compute from a packed weight.
type packer interface{ Pack() }

// Pack makes the linear layers of a module compute from packed weights and
// frees the plain ones: the module is for inference on the CPU from then on,
// and its packed weights are no longer among its parameters. It needs a scope.
func Pack(m any) {
	torch.NoGrad(func() {
		visit(reflect.ValueOf(m), func(part any) {
			if p, ok := part.(packer); ok {
				p.Pack()
			}
		})
	})
}

// visit calls f with every part of a module that is a pointer.
func visit(v reflect.Value, f func(part any)) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			f(v.Interface())
			visit(v.Elem(), f)
		}
	case reflect.Interface:
		if !v.IsNil() {
			visit(v.Elem(), f)
		}
	case reflect.Slice:
		for i := range v.Len() {
			visit(v.Index(i), f)
		}
	case reflect.Struct:
		if v.Type() == tensorType {
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				visit(v.Field(i), f)
			}
		}
	}
}
