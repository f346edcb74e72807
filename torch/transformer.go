package torch

import "cyclecap/torch/internal/shim"

// A PackedLinear is a linear layer with the weight that [PanelsPack] or, if it has scales and
// sums, [Int8Pack] has packed, and a bias (f32 [Out]) or none.
type PackedLinear struct {
	Weight, Scales, Sums, Bias Tensor
	Out                        int64
}

// A Norm is a layer norm with weight and bias, f32 [width].
type Norm struct {
	Weight, Bias Tensor
	Epsilon      float64
}

// A TransformerLayer is a layer of a transformer with layer norms before its attention and its
// MLP, as in GPT-2 and CLIP:
//
//	x = x + AttentionOut(attention(QKV(Norm1(x))))
//	x = x + Down(activation(Up(Norm2(x))))
type TransformerLayer struct {
	Norm1, Norm2 Norm
	// QKV is one layer from width to 3 width, or up to three that have as many outputs together:
	// the query, key and value, each with its heads side by side.
	QKV          []PackedLinear
	AttentionOut PackedLinear
	Up, Down     PackedLinear
	Activation   Activation
	Heads        int64
	Scale        float64 // of the scores
}

// KeyValues are rows of a cache of keys and values, f32 [most, heads, room, width / heads].
type KeyValues struct {
	Keys, Values Tensor
	First        int64   // the row of the first sequence
	Past         []int64 // the number of positions that each sequence has there
}

// Forward maps x (f32 [n, t, width], CPU) to the same shape. If causal is set, a position attends
// to itself and those before it. With a cache, the positions follow those that it has of their
// sequence, and their keys and values are added to it. If only is not nil, the result is
// [n, 1, width]: of each sequence i, the position only[i].
//
// It is for inference only, since autograd does not support it, and [HasPanels] must be true. It
// takes the place of about 25 operators, whose calls take more time than they themselves for a
// single position. The bits of a sequence depend neither on the others nor on the number of
// threads.
func (l *TransformerLayer) Forward(x Tensor, causal bool, cache *KeyValues, only []int64) Tensor {
	const op = "transformer_layer"
	if cache == nil {
		cache = &KeyValues{}
	}
	if len(l.QKV) < 1 || len(l.QKV) > 3 {
		Throw(op, "query, key and value need 1 to 3 layers, got %d", len(l.QKV))
	}
	tensors := append(make([]Tensor, 0, 32), l.Norm1.Weight, l.Norm1.Bias, l.Norm2.Weight, l.Norm2.Bias)
	add := func(p *PackedLinear) { tensors = append(tensors, p.Weight, p.Scales, p.Sums, p.Bias) }
	var qkv [3]int64
	for i := range l.QKV {
		add(&l.QKV[i])
		qkv[i] = l.QKV[i].Out
	}
	add(&l.AttentionOut)
	add(&l.Up)
	add(&l.Down)
	tensors = append(tensors, cache.Keys, cache.Values, x)
	some(op, x)
	n := x.Size(0)
	if cache.Past != nil && int64(len(cache.Past)) != n || only != nil && int64(len(only)) != n {
		Throw(op, "%d sequences need as many numbers of positions, got %d and %d", n, len(cache.Past), len(only))
	}
	var y uintptr
	must(op, lend(op, func(p []uintptr) (err error) {
		y, err = shim.TransformerLayer(p, shim.Layer{
			Epsilon1: l.Norm1.Epsilon, Epsilon2: l.Norm2.Epsilon,
			QKV: qkv[:len(l.QKV)], AttentionOut: l.AttentionOut.Out, Up: l.Up.Out, Down: l.Down.Out,
			Activation: int(l.Activation), Heads: l.Heads, Scale: l.Scale,
			Causal: causal, First: cache.First, Past: cache.Past, Only: only,
		})
		return err
	}, tensors...))
	return adopt(op, y)
}
