package nn

import (
	"math"
	"slices"

	"cyclecap/torch"
)

// TransformerOptions configures Transformer and its layers.
type TransformerOptions struct {
	DimFeedforward int64
	Dropout        float64
	Activation     string // "relu" or "gelu"
	LayerNormEps   float64
	BatchFirst     bool // inputs and outputs are [n, t, d] instead of [t, n, d]
	NormFirst      bool // norms come before attention and feed-forward instead of after
	Bias           bool
}

// TransformerDefaults returns PyTorch's defaults: 2048 features between the linear layers, dropout
// 0.1, relu, eps 1e-5, biases.
func TransformerDefaults() TransformerOptions {
	return TransformerOptions{DimFeedforward: 2048, Dropout: 0.1, Activation: "relu", LayerNormEps: 1e-5, Bias: true}
}

// attention returns a module for a layer.
func (o TransformerOptions) attention(d, heads int64) *MultiheadAttentionModule {
	return MultiheadAttention(d, heads, MultiheadAttentionOptions{Dropout: o.Dropout, Bias: o.Bias, BatchFirst: o.BatchFirst})
}

// norm returns a module for a layer.
func (o TransformerOptions) norm(d int64) *LayerNormModule {
	return LayerNormWith([]int64{d}, LayerNormOptions{Eps: o.LayerNormEps, ElementwiseAffine: true, Bias: o.Bias})
}

// activate applies the activation of a layer.
func (o TransformerOptions) activate(x torch.Tensor) torch.Tensor {
	if o.Activation == "gelu" {
		return x.Gelu()
	}
	return x.Relu()
}

func (o TransformerOptions) check(op string) {
	if o.Activation != "relu" && o.Activation != "gelu" {
		torch.Throw(op, "Activation must be relu or gelu, not %q", o.Activation)
	}
}

// EncoderMasks are the masks of an encoder; see [AttentionOptions].
type EncoderMasks struct {
	SrcMask           torch.Tensor // [t, t] or [n*heads, t, t], or none
	SrcKeyPaddingMask torch.Tensor // [n, t], or [t] without a batch, or none
	IsCausal          bool         // SrcMask is the causal one
}

// DecoderMasks are the masks of a decoder; see [AttentionOptions].
type DecoderMasks struct {
	TgtMask              torch.Tensor // [t, t] or [n*heads, t, t], or none
	MemoryMask           torch.Tensor // [t, s] or [n*heads, t, s], or none
	TgtKeyPaddingMask    torch.Tensor // [n, t], or [t] without a batch, or none
	MemoryKeyPaddingMask torch.Tensor // [n, s], or [s] without a batch, or none
	TgtIsCausal          bool         // TgtMask is the causal one
	MemoryIsCausal       bool         // MemoryMask is the causal one
}

// TransformerEncoderLayerModule is torch.nn.TransformerEncoderLayer.
type TransformerEncoderLayerModule struct {
	Hook
	SelfAttn *MultiheadAttentionModule
	Linear1  *LinearModule    `name:"linear1"`
	Dropout  *DropoutModule   `name:"dropout"`
	Linear2  *LinearModule    `name:"linear2"`
	Norm1    *LayerNormModule `name:"norm1"`
	Norm2    *LayerNormModule `name:"norm2"`
	Dropout1 *DropoutModule   `name:"dropout1"`
	Dropout2 *DropoutModule   `name:"dropout2"`
	o        TransformerOptions
}

// TransformerEncoderLayer returns a layer of an encoder of dimension d with PyTorch's
// initialization.
func TransformerEncoderLayer(d, heads int64, o TransformerOptions) *TransformerEncoderLayerModule {
	o.check("nn.TransformerEncoderLayer")
	return &TransformerEncoderLayerModule{
		SelfAttn: o.attention(d, heads),
		Linear1:  Linear(d, o.DimFeedforward, o.Bias),
		Dropout:  Dropout(o.Dropout),
		Linear2:  Linear(o.DimFeedforward, d, o.Bias),
		Norm1:    o.norm(d),
		Norm2:    o.norm(d),
		Dropout1: Dropout(o.Dropout),
		Dropout2: Dropout(o.Dropout),
		o:        o,
	}
}

// Forward maps src [t, n, d], or [n, t, d] with BatchFirst, to the same shape; n may be missing.
// PyTorch's fast path for evaluation without gradients rounds otherwise; Forward computes as
// PyTorch does in training.
func (l *TransformerEncoderLayerModule) Forward(src torch.Tensor, m EncoderMasks) torch.Tensor {
	const op = "nn.TransformerEncoderLayer"
	m.SrcKeyPaddingMask = additive(op, m.SrcKeyPaddingMask, src.DType())
	m.SrcMask = additive(op, m.SrcMask, src.DType())
	attend := func(x torch.Tensor) torch.Tensor {
		y, _ := l.SelfAttn.Forward(x, x, x, AttentionOptions{AttnMask: m.SrcMask, KeyPaddingMask: m.SrcKeyPaddingMask, IsCausal: m.IsCausal})
		return l.Dropout1.Forward(y)
	}
	feed := func(x torch.Tensor) torch.Tensor {
		return l.Dropout2.Forward(l.Linear2.Forward(l.Dropout.Forward(l.o.activate(l.Linear1.Forward(x)))))
	}
	x := src
	if l.o.NormFirst {
		x = x.Add(attend(l.Norm1.Forward(x)))
		x = x.Add(feed(l.Norm2.Forward(x)))
	} else {
		x = l.Norm1.Forward(x.Add(attend(x)))
		x = l.Norm2.Forward(x.Add(feed(x)))
	}
	return l.Output(x)
}

// TransformerDecoderLayerModule is torch.nn.TransformerDecoderLayer.
type TransformerDecoderLayerModule struct {
	Hook
	SelfAttn      *MultiheadAttentionModule
	MultiheadAttn *MultiheadAttentionModule
	Linear1       *LinearModule    `name:"linear1"`
	Dropout       *DropoutModule   `name:"dropout"`
	Linear2       *LinearModule    `name:"linear2"`
	Norm1         *LayerNormModule `name:"norm1"`
	Norm2         *LayerNormModule `name:"norm2"`
	Norm3         *LayerNormModule `name:"norm3"`
	Dropout1      *DropoutModule   `name:"dropout1"`
	Dropout2      *DropoutModule   `name:"dropout2"`
	Dropout3      *DropoutModule   `name:"dropout3"`
	o             TransformerOptions
}

// TransformerDecoderLayer returns a layer of a decoder of dimension d with PyTorch's
// initialization.
func TransformerDecoderLayer(d, heads int64, o TransformerOptions) *TransformerDecoderLayerModule {
	o.check("nn.TransformerDecoderLayer")
	return &TransformerDecoderLayerModule{
		SelfAttn:      o.attention(d, heads),
		MultiheadAttn: o.attention(d, heads),
		Linear1:       Linear(d, o.DimFeedforward, o.Bias),
		Dropout:       Dropout(o.Dropout),
		Linear2:       Linear(o.DimFeedforward, d, o.Bias),
		Norm1:         o.norm(d),
		Norm2:         o.norm(d),
		Norm3:         o.norm(d),
		Dropout1:      Dropout(o.Dropout),
		Dropout2:      Dropout(o.Dropout),
		Dropout3:      Dropout(o.Dropout),
		o:             o,
	}
}

// Forward maps tgt [t, n, d] and memory [s, n, d], or [n, t, d] and [n, s, d] with BatchFirst, to the
// shape of tgt; n may be missing.
func (l *TransformerDecoderLayerModule) Forward(tgt, memory torch.Tensor, m DecoderMasks) torch.Tensor {
	attend := func(x torch.Tensor) torch.Tensor {
		y, _ := l.SelfAttn.Forward(x, x, x, AttentionOptions{AttnMask: m.TgtMask, KeyPaddingMask: m.TgtKeyPaddingMask, IsCausal: m.TgtIsCausal})
		return l.Dropout1.Forward(y)
	}
	cross := func(x torch.Tensor) torch.Tensor {
		y, _ := l.MultiheadAttn.Forward(x, memory, memory, AttentionOptions{AttnMask: m.MemoryMask, KeyPaddingMask: m.MemoryKeyPaddingMask, IsCausal: m.MemoryIsCausal})
		return l.Dropout2.Forward(y)
	}
	feed := func(x torch.Tensor) torch.Tensor {
		return l.Dropout3.Forward(l.Linear2.Forward(l.Dropout.Forward(l.o.activate(l.Linear1.Forward(x)))))
	}
	x := tgt
	if l.o.NormFirst {
		x = x.Add(attend(l.Norm1.Forward(x)))
		x = x.Add(cross(l.Norm2.Forward(x)))
		x = x.Add(feed(l.Norm3.Forward(x)))
	} else {
		x = l.Norm1.Forward(x.Add(attend(x)))
		x = l.Norm2.Forward(x.Add(cross(x)))
		x = l.Norm3.Forward(x.Add(feed(x)))
	}
	return l.Output(x)
}

// TransformerEncoderModule is torch.nn.TransformerEncoder.
type TransformerEncoderModule struct {
	Hook
	Layers []*TransformerEncoderLayerModule
	Norm   *LayerNormModule // or nil
}

// TransformerEncoder returns an encoder of n layers, which layer creates, with a final norm, or nil
// for none. As in PyTorch, all layers have the initial weights of the first.
func TransformerEncoder(layer func() *TransformerEncoderLayerModule, n int, norm *LayerNormModule) *TransformerEncoderModule {
	return &TransformerEncoderModule{Layers: copies(layer, n), Norm: norm}
}

// copies returns n modules that f creates, with the tensors of the first.
func copies[M any](f func() *M, n int) []*M {
	if n < 1 {
		torch.Throw("nn.Transformer", "the number of layers must be at least 1, got %d", n)
	}
	first := f()
	out := []*M{first}
	weights := StateDictOf(first)
	for range n - 1 {
		var m *M
		torch.OnDevice(torch.Meta, func() { m = f() }) // draws no random numbers
		own := NewStateDict()
		for _, name := range weights.Names() {
			t, _ := weights.Get(name)
			c := t.Detach().Clone()
			own.Add(name, c.SetRequiresGrad(t.RequiresGrad()))
		}
		if err := LoadStateDict(m, own); err != nil {
			torch.Throw("nn.Transformer", "the layers differ: %v", err)
		}
		out = append(out, m)
	}
	return out
}

// Forward maps src [t, n, d], or [n, t, d] with BatchFirst, to the same shape; n may be missing. It
// finds out whether SrcMask is the causal one if IsCausal is not set, for which it waits for the
// device.
func (e *TransformerEncoderModule) Forward(src torch.Tensor, m EncoderMasks) torch.Tensor {
	m.SrcKeyPaddingMask = additive("nn.TransformerEncoder", m.SrcKeyPaddingMask, src.DType())
	m.SrcMask = additive("nn.TransformerEncoder", m.SrcMask, src.DType())
	m.IsCausal = m.IsCausal || isCausal(m.SrcMask, src, len(e.Layers) > 0 && e.Layers[0].o.BatchFirst)
	x := src
	for _, l := range e.Layers {
		x = l.Forward(x, m)
	}
	if e.Norm != nil {
		x = e.Norm.Forward(x)
	}
	return e.Output(x)
}

// TransformerDecoderModule is torch.nn.TransformerDecoder.
type TransformerDecoderModule struct {
	Hook
	Layers []*TransformerDecoderLayerModule
	Norm   *LayerNormModule // or nil
}

// TransformerDecoder returns a decoder of n layers, which layer creates, with a final norm, or nil
// for none. As in PyTorch, all layers have the initial weights of the first.
func TransformerDecoder(layer func() *TransformerDecoderLayerModule, n int, norm *LayerNormModule) *TransformerDecoderModule {
	return &TransformerDecoderModule{Layers: copies(layer, n), Norm: norm}
}

// Forward maps tgt [t, n, d] and memory [s, n, d], or [n, t, d] and [n, s, d] with BatchFirst, to the
// shape of tgt; n may be missing. It finds out whether TgtMask is the causal one if TgtIsCausal is
// not set, for which it waits for the device.
func (d *TransformerDecoderModule) Forward(tgt, memory torch.Tensor, m DecoderMasks) torch.Tensor {
	m.TgtIsCausal = m.TgtIsCausal || isCausal(m.TgtMask, tgt, len(d.Layers) > 0 && d.Layers[0].o.BatchFirst)
	x := tgt
	for _, l := range d.Layers {
		x = l.Forward(x, memory, m)
	}
	if d.Norm != nil {
		x = d.Norm.Forward(x)
	}
	return d.Output(x)
}

// isCausal reports whether mask is the causal mask for the sequence x.
func isCausal(mask, x torch.Tensor, batchFirst bool) bool {
	if !mask.Defined() || mask.Device() == torch.Meta {
		return false
	}
	t := x.Size(0)
	if x.Dim() == 3 && batchFirst {
		t = x.Size(1)
	}
	if !slices.Equal(mask.Shape(), []int64{t, t}) {
		return false
	}
	causal := false
	torch.Tidy(func() torch.Tensor {
		causal = mask.Equal(causalMask(t, mask.DType(), mask.Device()))
		return torch.Tensor{}
	})
	return causal
}

func causalMask(t int64, dtype torch.DType, device torch.Device) torch.Tensor {
	return torch.Full([]int64{t, t}, math.Inf(-1), torch.WithDType(dtype), torch.WithDevice(device)).Triu(torch.WithDiagonal(1))
}

// CausalMask is torch.nn.Transformer.generate_square_subsequent_mask: an f32 mask [t, t] on device d
// with -Inf where a position would attend to a later one, and 0 elsewhere.
func CausalMask(t int64, d torch.Device) torch.Tensor { return causalMask(t, torch.Float32, d) }

// TransformerModule is torch.nn.Transformer.
type TransformerModule struct {
	Hook
	Encoder *TransformerEncoderModule
	Decoder *TransformerDecoderModule
}

// Transformer returns an encoder and a decoder of dimension d with PyTorch's initialization.
// PyTorch's defaults are d 512, 8 heads, and 6 layers each.
func Transformer(d, heads int64, encoderLayers, decoderLayers int, o TransformerOptions) *TransformerModule {
	m := &TransformerModule{}
	m.Encoder = TransformerEncoder(func() *TransformerEncoderLayerModule { return TransformerEncoderLayer(d, heads, o) }, encoderLayers, o.norm(d))
	m.Decoder = TransformerDecoder(func() *TransformerDecoderLayerModule { return TransformerDecoderLayer(d, heads, o) }, decoderLayers, o.norm(d))
	for _, p := range Parameters(m) {
		if p.Dim() > 1 {
			XavierUniform_(p)
		}
	}
	return m
}

// Forward maps src [s, n, d] and tgt [t, n, d], or [n, s, d] and [n, t, d] with BatchFirst, to the
// shape of tgt; n may be missing.
func (m *TransformerModule) Forward(src, tgt torch.Tensor, enc EncoderMasks, dec DecoderMasks) torch.Tensor {
	return m.Output(m.Decoder.Forward(tgt, m.Encoder.Forward(src, enc), dec))
}
