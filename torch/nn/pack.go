package nn

import (
	"reflect"
	"slices"

	"cyclecap/torch"
)

// A Packing is a form of packed weights.
type Packing int

const (
	// Blocked is the order in which AVX-512 reads f32 weights (see torch.PanelsLinear), and
	// oneDNN's blocked layout for bf16 and on a CPU without AVX-512.
	//
	// Matrix products with it are up to five times as fast as torch.Linear, and most of all
	// for few rows and in small layers. For f32, torch.Linear calls MKL's sgemm, which on AMD
	// processors uses half the width of the registers and only one thread for a single row.
	// For bf16 it calls oneDNN, which copies the weight each time. The order of the additions
	// differs, and therefore the low-order bits of the results. Those of panels do not depend
	// on the other rows of a batch.
	Blocked Packing = iota
	// Int8 is integers of 8 bits with a scale for each output, which multiply inputs of
	// 8 bits with a scale for each row (see torch.Int8Linear). The results are f32, and
	// differ from those of f32 by about 1 % of their size. They do not depend on the
	// other rows of a batch.
	//
	// Layers of every size gain time. Ones with more than 65,536 inputs, whose sums do
	// not fit into 32 bits, are Blocked.
	Int8
)

// Packed is the packed weight of a linear layer with the layer's bias. It is for
// inference only: autograd does not support it.
type Packed struct {
	weight, bias torch.Tensor
	scales, sums torch.Tensor // of Int8
	panels       bool
	out          int64
}

// NewPacked packs a weight [out, in] with a bias [out] or none. Int8 requires f32, or int8 with
// the scale of each output, f32 with out elements; such a weight is packed as it is, and
// cannot be Blocked. scale is none for other weights.
func NewPacked(weight, scale, bias torch.Tensor, as Packing) *Packed {
	p := &Packed{out: weight.Size(0)}
	switch {
	case weight.DType() == torch.Int8:
		if as != Int8 || !scale.Defined() || scale.Numel() != p.out {
			torch.Throw("nn.NewPacked", "a weight of 8 bits and shape %v needs %d scales, and can only be packed as Int8", weight.Shape(), p.out)
		}
		p.weight, p.scales, p.sums = torch.Int8Pack(weight)
		p.scales.Mul_(scale.Reshape([]int64{-1})) // they were 1
		p.scales.Keep()
		p.sums.Keep()
	case as == Int8 && weight.Size(1) <= torch.Int8MaxInputs:
		p.weight, p.scales, p.sums = torch.Int8Pack(weight)
		p.scales.Keep()
		p.sums.Keep()
	case weight.DType() == torch.Float32 && torch.HasPanels():
		p.weight, p.panels = torch.PanelsPack(weight), true
	default:
		p.weight = weight.Contiguous().MKLDNNReorderLinearWeight()
	}
	p.weight.Keep()
	if bias.Defined() {
		p.bias = bias
	}
	torch.DropPages(weight)
	return p
}

// Forward maps [..., in] to [..., out].
func (p *Packed) Forward(x torch.Tensor) torch.Tensor {
	return p.ForwardFused(x, torch.NoActivation)
}

// ForwardFused is Forward with f applied to the result, while it is in the cache.
func (p *Packed) ForwardFused(x torch.Tensor, f torch.Activation) torch.Tensor {
	switch {
	case p.scales.Defined():
		return torch.Int8Linear(x, p.weight, p.scales, p.sums, p.bias, f)
	case p.panels:
		return torch.PanelsLinear(x, p.weight, p.out, p.bias, f)
	}
	name, approximate := "none", "" // oneDNN's
	switch f {
	case torch.ReLU:
		name = "relu"
	case torch.SiLU:
		name = "swish"
	case torch.GELU:
		name, approximate = "gelu", "none"
	case torch.GELUTanh:
		name, approximate = "gelu", "tanh"
	case torch.QuickGELU: // oneDNN has none
		return p.Forward(x).QuickGelu()
	}
	return torch.MKLDNNLinearPointwise(x, p.weight, p.bias, name, nil, approximate)
}

// linear returns the layer for torch.TransformerLayer, and whether it has a form for it.
func (p *Packed) linear() (torch.PackedLinear, bool) {
	if p == nil {
		return torch.PackedLinear{}, false
	}
	return torch.PackedLinear{Weight: p.weight, Scales: p.scales, Sums: p.sums, Bias: p.bias, Out: p.out},
		p.panels || p.scales.Defined()
}

// A FusedLayer is a layer of a transformer with packed weights that is computed at once.
type FusedLayer struct {
	torch.TransformerLayer
	hooks []*Hook // of the modules whose place it takes
}

// NewFusedLayer returns a layer that takes the place of m, or nil if there is none for the form
// of the weights or for the processor ([torch.HasPanels]). qkv is as in
// [torch.TransformerLayer]. m still owns its tensors.
func NewFusedLayer(m any, norm1, norm2 *LayerNormModule, qkv []*Packed, out, up, down *Packed, f torch.Activation, heads int64, scale float64) *FusedLayer {
	able := torch.HasPanels() && norm1.Weight.DType() == torch.Float32
	linear := func(p *Packed) torch.PackedLinear {
		l, ok := p.linear()
		able = able && ok
		return l
	}
	l := &FusedLayer{TransformerLayer: torch.TransformerLayer{
		Norm1:        torch.Norm{Weight: norm1.Weight, Bias: norm1.Bias, Epsilon: norm1.eps},
		Norm2:        torch.Norm{Weight: norm2.Weight, Bias: norm2.Bias, Epsilon: norm2.eps},
		AttentionOut: linear(out), Up: linear(up), Down: linear(down),
		Activation: f, Heads: heads, Scale: scale,
	}}
	for _, p := range qkv {
		l.QKV = append(l.QKV, linear(p))
	}
	if !able {
		return nil
	}
	hooks(reflect.ValueOf(m), "", func(_ string, h *Hook) { l.hooks = append(l.hooks, h) }, map[place]bool{})
	return l
}

// Ready reports whether the layer can be used: it is not nil, and nobody sees the outputs of the
// modules whose place it takes.
func (l *FusedLayer) Ready() bool {
	return l != nil && !slices.ContainsFunc(l.hooks, (*Hook).Observed)
}

// Close frees the packed weight.
func (p *Packed) Close() {
	for _, t := range []torch.Tensor{p.weight, p.scales, p.sums} {
		if t.Defined() {
			t.Close()
		}
	}
}

// A packer is a layer that can compute from a packed weight.
type packer interface{ Pack(as Packing) }

// Pack replaces the weights of the linear layers of a module with packed ones
// ([Blocked]) and frees the original weights. The module can then be used only for
// inference on the CPU, and the packed weights are no longer among its parameters.
// Pack must be called in a scope. Options convert the weights first, as To does, a
// layer at a time: a module that would be in memory three times otherwise is there
// once.
func Pack(m any, opts ...torch.Option) { PackAs(m, Blocked, opts...) }

// PackAs is [Pack] with another form of the weights.
func PackAs(m any, as Packing, opts ...torch.Option) {
	var parts []any
	visit(reflect.ValueOf(m), func(part any) {
		if _, ok := part.(packer); ok {
			parts = append(parts, part)
		}
	})
	torch.NoGrad(func() {
		var bytes int64
		for _, part := range slices.Backward(parts) { // layers before the module around them
			To(part, opts...)
			for _, t := range Parameters(part) {
				bytes += t.NBytes()
			}
			part.(packer).Pack(as)
			if bytes > 64<<20 {
				torch.ReleaseMemory()
				bytes = 0
			}
		}
	})
	To(m, opts...)
}

// visit calls f for every submodule that is a pointer.
func visit(v reflect.Value, f func(part any)) { visitValue(v, f, map[place]bool{}) }

// visitValue is visit; inside is as in walkValue.
func visitValue(v reflect.Value, f func(part any), inside map[place]bool) {
	switch v.Kind() {
	case reflect.Pointer:
		p := place{v.Pointer(), v.Type()}
		if v.IsNil() || inside[p] {
			return
		}
		inside[p] = true
		f(v.Interface())
		visitValue(v.Elem(), f, inside)
		delete(inside, p)
	case reflect.Interface:
		if !v.IsNil() {
			visitValue(v.Elem(), f, inside)
		}
	case reflect.Slice:
		for i := range v.Len() {
			visitValue(v.Index(i), f, inside)
		}
	case reflect.Struct:
		if v.Type() == tensorType {
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				visitValue(v.Field(i), f, inside)
			}
		}
	}
}
