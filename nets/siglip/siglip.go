// Package siglip implements SigLIP (Zhai et al. 2023) and those SigLIP 2 models (Tschannen et
// al. 2025) whose images have a fixed size, with the results of transformers' SiglipModel.
// Parameter names are transformers'.
package siglip

import (
	"fmt"
	"math"
	"strings"

	"cyclecap/nets/clip"
	"cyclecap/torch"
	"cyclecap/torch/nn"
)

// Model is a SigLIP with both encoders or one; the other is nil.
type Model struct {
	Config      Config       `name:"-"`
	LogitScale  torch.Tensor // [1]; these two are only in models with both encoders
	LogitBias   torch.Tensor // [1]
	TextModel   *Text
	VisionModel *Vision
}

// Text is the text encoder.
type Text struct {
	Embeddings     *TextEmbeddings
	Encoder        *Encoder
	FinalLayerNorm *nn.LayerNormModule
	Head           *nn.LinearModule
}

// TextEmbeddings are the vectors of tokens and positions.
type TextEmbeddings struct{ TokenEmbedding, PositionEmbedding *nn.EmbeddingModule }

// Vision is the image encoder.
type Vision struct {
	Embeddings    *VisionEmbeddings
	Encoder       *Encoder
	PostLayernorm *nn.LayerNormModule
	Head          *Pooling
}

// VisionEmbeddings turns an image into vectors, one for each patch.
type VisionEmbeddings struct {
	PatchEmbedding    *nn.ConvModule
	PositionEmbedding *nn.EmbeddingModule
}

// Encoder is a stack of residual attention blocks.
type Encoder struct{ Layers []*Layer }

// Layer is one pre-norm block.
type Layer struct {
	nn.Hook
	LayerNorm1 *nn.LayerNormModule
	SelfAttn   *Attention
	LayerNorm2 *nn.LayerNormModule
	Mlp        *MLP

	fused *nn.FusedLayer // set by nn.Pack, or nil
}

// Attention is multi-head self-attention with separate projections.
type Attention struct {
	nn.Hook
	KProj, VProj, QProj, OutProj *nn.LinearModule
	heads                        int64
}

// MLP is the feed-forward part: two linear layers with GELU between them.
type MLP struct {
	nn.Hook
	Fc1, Fc2 *nn.LinearModule
	exact    bool
}

// Pooling attends from a learned vector, the probe, to all patches.
type Pooling struct {
	nn.Hook
	Probe     torch.Tensor // [1, 1, width]
	Attention *PoolingAttention
	Layernorm *nn.LayerNormModule
	Mlp       *MLP
}

// PoolingAttention is torch.nn.MultiheadAttention, whose query is another tensor than key and
// value.
type PoolingAttention struct {
	nn.Hook
	InProjWeight torch.Tensor // [3 width, width]: query, key, value
	InProjBias   torch.Tensor // [3 width]
	OutProj      *nn.LinearModule
	heads        int64
}

// New returns a SigLIP, or the encoder in part, with PyTorch's initialization of each layer.
func New(c Config, part clip.Part) *Model {
	m := &Model{Config: c}
	if part == clip.Both {
		m.LogitScale, m.LogitBias = param(1), param(1)
	}
	if part != clip.Image {
		w := c.Text.Width
		m.TextModel = &Text{
			Embeddings:     &TextEmbeddings{nn.Embedding(c.Text.Vocab, w), nn.Embedding(c.Text.Context, w)},
			Encoder:        newEncoder(c.Text.Tower),
			FinalLayerNorm: nn.LayerNorm([]int64{w}, c.Text.Eps),
			Head:           nn.Linear(w, c.Text.Features, true),
		}
	}
	if part != clip.Text {
		w, grid := c.Vision.Width, c.Vision.ImageSize/c.Vision.PatchSize
		m.VisionModel = &Vision{
			Embeddings: &VisionEmbeddings{
				nn.Conv2d(3, w, []int64{c.Vision.PatchSize}, nn.ConvOptions{Stride: []int64{c.Vision.PatchSize}, Bias: true}),
				nn.Embedding(grid*grid, w),
			},
			Encoder:       newEncoder(c.Vision.Tower),
			PostLayernorm: nn.LayerNorm([]int64{w}, c.Vision.Eps),
			Head: &Pooling{
				Probe: param(1, 1, w),
				Attention: &PoolingAttention{
					InProjWeight: param(3*w, w), InProjBias: param(3 * w), OutProj: nn.Linear(w, w, true), heads: c.Vision.Heads,
				},
				Layernorm: nn.LayerNorm([]int64{w}, c.Vision.Eps),
				Mlp:       newMLP(c.Vision.Tower),
			},
		}
	}
	return m
}

func newEncoder(c Tower) *Encoder {
	e := &Encoder{}
	linear := func() *nn.LinearModule { return nn.Linear(c.Width, c.Width, true) }
	for range c.Depth {
		e.Layers = append(e.Layers, &Layer{
			LayerNorm1: nn.LayerNorm([]int64{c.Width}, c.Eps),
			SelfAttn:   &Attention{KProj: linear(), VProj: linear(), QProj: linear(), OutProj: linear(), heads: c.Heads},
			LayerNorm2: nn.LayerNorm([]int64{c.Width}, c.Eps),
			Mlp:        newMLP(c),
		})
	}
	return e
}

func newMLP(c Tower) *MLP {
	return &MLP{Fc1: nn.Linear(c.Width, c.MLP, true), Fc2: nn.Linear(c.MLP, c.Width, true), exact: c.ExactGELU}
}

func param(shape ...int64) torch.Tensor {
	return torch.Randn(shape).Keep().SetRequiresGrad(true)
}

// Load returns a SigLIP, or one encoder of it, that uses the tensors of sd without copying them.
// sd must hold the weights of part under transformers' names; Load closes its other tensors.
func Load(sd *nn.StateDict, c Config, part clip.Part) (m *Model, err error) {
	own := nn.NewStateDict()
	for _, name := range sd.Names() {
		t, _ := sd.Get(name)
		text, image := strings.HasPrefix(name, "text_model."), strings.HasPrefix(name, "vision_model.")
		if part == clip.Both || part == clip.Text && text || part == clip.Image && image {
			own.Add(name, t)
		} else {
			t.Close()
		}
	}
	err = torch.Scope(func() error {
		torch.OnDevice(torch.Meta, func() { m = New(c, part) })
		return nn.LoadStateDict(m, own)
	})
	if err != nil {
		own.Close()
		return nil, fmt.Errorf("%s: %w", name(c), err)
	}
	return m, nil
}

func name(c Config) string {
	size := map[int64]string{768: "B", 1024: "L", 1152: "so400m"}[c.Vision.Width]
	if size == "" {
		size = fmt.Sprintf("%dx%d", c.Vision.Width, c.Vision.Depth)
	}
	s := fmt.Sprintf("SigLIP %s/%d", size, c.Vision.PatchSize)
	if c.Vision.ImageSize != 224 {
		s += fmt.Sprintf("@%dpx", c.Vision.ImageSize)
	}
	return s
}

// Name returns the kind and size of the model, such as "SigLIP B/16".
func (m *Model) Name() string { return name(m.Config) }

// FeatureWidth returns the width of the features.
func (m *Model) FeatureWidth() int64 {
	if m.VisionModel == nil {
		return m.Config.Text.Features
	}
	return m.Config.Vision.Width
}

// ImageSize returns the side of an image in pixels, or 0 without the image encoder.
func (m *Model) ImageSize() int64 {
	if m.VisionModel == nil {
		return 0
	}
	return m.Config.Vision.ImageSize
}

// ContextLength returns the number of tokens per text, or 0 without the text encoder.
func (m *Model) ContextLength() int64 {
	if m.TextModel == nil {
		return 0
	}
	return m.Config.Text.Context
}

// VocabSize returns the number of different tokens, or 0 without the text encoder.
func (m *Model) VocabSize() int64 {
	if m.TextModel == nil {
		return 0
	}
	return m.Config.Text.Vocab
}

// EncodeImage returns the features [n, width] of photos [n, 3, size, size] that were normalised
// for SigLIP (package photo), like get_image_features. The features are not L2-normalised.
func (m *Model) EncodeImage(pixels torch.Tensor) torch.Tensor {
	if m.VisionModel == nil {
		torch.Throw("siglip.encode_image", "this SigLIP was loaded without its image encoder")
	}
	size := m.Config.Vision.ImageSize
	if s := pixels.Shape(); len(s) != 4 || s[1] != 3 || s[2] != size || s[3] != size {
		torch.Throw("siglip.encode_image", "want photos of shape [n, 3, %d, %d], got %s", size, size, strings.ReplaceAll(fmt.Sprint(s), " ", ", "))
	}
	v := m.VisionModel
	x := v.Embeddings.PatchEmbedding.Forward(pixels) // [n, width, grid, grid]
	x = x.Flatten(torch.WithStartDim(2)).Transpose(1, 2)
	x = x.Add(v.Embeddings.PositionEmbedding.Weight.Unsqueeze(0)) // [n, grid², width]
	x = v.Encoder.Forward(x)
	return v.Head.Forward(v.PostLayernorm.Forward(x))
}

// EncodeText returns the features [n, width] of texts, given as token ids [n, context] (int64),
// like get_text_features without a mask: the padding is attended to, as in training, and the
// feature is taken at the last position.
func (m *Model) EncodeText(ids torch.Tensor) torch.Tensor {
	if m.TextModel == nil {
		torch.Throw("siglip.encode_text", "this SigLIP was loaded without its text encoder")
	}
	if s := ids.Shape(); len(s) != 2 || s[1] != m.Config.Text.Context {
		torch.Throw("siglip.encode_text", "want token ids of shape [n, %d], got %s", m.Config.Text.Context, strings.ReplaceAll(fmt.Sprint(s), " ", ", "))
	}
	t := m.TextModel
	x := t.Embeddings.TokenEmbedding.Forward(ids).Add(t.Embeddings.PositionEmbedding.Weight.Unsqueeze(0))
	x = t.FinalLayerNorm.Forward(t.Encoder.Forward(x))
	return t.Head.Forward(x.Select(1, -1))
}

// Forward maps [n, t, width] to the same shape; every position attends to all.
func (e *Encoder) Forward(x torch.Tensor) torch.Tensor {
	for _, l := range e.Layers {
		// Keep only the result of the layer, and what autograd needs.
		x = torch.Tidy(func() torch.Tensor {
			if l.fused.Ready() {
				return l.fused.Forward(x, false, nil, nil)
			}
			y := x.Add(l.SelfAttn.Forward(l.LayerNorm1.Forward(x)))
			return l.Output(y.Add(l.Mlp.Forward(l.LayerNorm2.Forward(y))))
		})
	}
	return x
}

// Pack prepares the layer to be computed at once; nn.Pack calls it.
func (l *Layer) Pack(nn.Packing) {
	a, activation := l.SelfAttn, torch.GELUTanh
	if l.Mlp.exact {
		activation = torch.GELU
	}
	l.fused = nn.NewFusedLayer(l, l.LayerNorm1, l.LayerNorm2, []*nn.Packed{a.QProj.Packed, a.KProj.Packed, a.VProj.Packed},
		a.OutProj.Packed, l.Mlp.Fc1.Packed, l.Mlp.Fc2.Packed, activation, a.heads, a.scale())
}

// scale returns the factor of the scores.
func (a *Attention) scale() float64 {
	return 1 / math.Sqrt(float64(a.OutProj.Bias.Size(0)/a.heads))
}

// Forward returns the self-attention of x [n, t, width].
func (a *Attention) Forward(x torch.Tensor) torch.Tensor {
	n, t, width := x.Size(0), x.Size(1), x.Size(2)
	head := width / a.heads
	split := func(l *nn.LinearModule) torch.Tensor {
		return l.Forward(x).View([]int64{n, t, a.heads, head}).Transpose(1, 2)
	}
	q, k, v := split(a.QProj), split(a.KProj), split(a.VProj)
	y := torch.ScaledDotProductAttention(q, k, v, torch.WithScale(a.scale()))
	return a.Output(a.OutProj.Forward(y.Transpose(1, 2).Reshape([]int64{n, t, width})))
}

// Forward applies a linear layer, GELU and a linear layer.
func (m *MLP) Forward(x torch.Tensor) torch.Tensor {
	if m.exact {
		return m.Output(m.Fc2.Forward(m.Fc1.Forward(x).Gelu()))
	}
	return m.Output(m.Fc2.Forward(m.Fc1.Forward(x).Gelu(torch.WithApproximate("tanh"))))
}

// Forward pools x [n, t, width] into [n, width].
func (p *Pooling) Forward(x torch.Tensor) torch.Tensor {
	y := p.Attention.Forward(p.Probe.Repeat([]int64{x.Size(0), 1, 1}), x)
	y = y.Add(p.Mlp.Forward(p.Layernorm.Forward(y)))
	return p.Output(y.Select(1, 0))
}

// Forward returns the attention of query [n, 1, width] to x [n, t, width]. The operators are
// those of torch.nn.functional.multi_head_attention_forward with need_weights, in its order.
func (a *PoolingAttention) Forward(query, x torch.Tensor) torch.Tensor {
	n, width := x.Size(0), x.Size(2)
	head := width / a.heads
	query, x = query.Transpose(1, 0), x.Transpose(1, 0) // [1, n, width], [t, n, width]
	weight := a.InProjWeight.SplitWithSizes([]int64{width, 2 * width})
	bias := a.InProjBias.SplitWithSizes([]int64{width, 2 * width})
	q := torch.Linear(query, weight[0], torch.WithBias(bias[0]))
	both := unfrozenLinear(x, weight[1], bias[1]).
		Unflatten(-1, []int64{2, width}).Unsqueeze(0).Transpose(0, -2).SqueezeDim(-2).Contiguous() // [2, t, n, width]
	split := func(x torch.Tensor) torch.Tensor { // [n heads, ?, head]
		return x.View([]int64{x.Size(0), n * a.heads, head}).Transpose(0, 1)
	}
	q, k, v := split(q), split(both.Select(0, 0)), split(both.Select(0, 1))
	weights := q.MulScalar(math.Sqrt(1 / float64(head))).BMM(k.Transpose(-2, -1)).Softmax(-1)
	y := weights.BMM(v).Transpose(0, 1).Contiguous().View([]int64{n, width})
	return a.Output(a.OutProj.Forward(y).View([]int64{1, n, width}).Transpose(1, 0))
}

// unfrozenLinear is torch.Linear with a weight that requires gradients, as those of a model in
// Python do unless it has been frozen: for an input [t, n, width] that is not contiguous, it is
// one matrix product, and for a frozen weight t of them, with other low-order bits.
func unfrozenLinear(x, weight, bias torch.Tensor) torch.Tensor {
	t, n, width := x.Size(0), x.Size(1), x.Size(2)
	if t == 1 || n == 1 {
		return torch.Linear(x, weight, torch.WithBias(bias)) // x is contiguous
	}
	return x.Reshape([]int64{t * n, width}).MM(weight.Transpose(0, 1)).View([]int64{t, n, -1}).Add(bias)
}
