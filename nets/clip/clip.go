// Package clip implements CLIP (Radford et al. 2021) with a vision transformer or a
// ResNet, with the results of OpenAI's code, open_clip and transformers. Parameter
// names are OpenAI's.
package clip

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"cyclecap/torch"
	"cyclecap/torch/nn"
)

// Model is a CLIP with both encoders or one; the fields of the other are nil or
// undefined. The image encoder is either Visual or ResNet.
type Model struct {
	Config              Config `name:"-"`
	PositionalEmbedding torch.Tensor
	TextProjection      torch.Tensor
	LogitScale          torch.Tensor // undefined if the file has none; encoders don't need it
	Visual              *Vision
	ResNet              *ResNet `name:"visual"`
	Transformer         *Transformer
	TokenEmbedding      *nn.EmbeddingModule
	LnFinal             *nn.LayerNormModule
	Packed              *nn.Packed `name:"-"` // TextProjection, set by nn.Pack
}

// Vision is a vision transformer as image encoder.
type Vision struct {
	ClassEmbedding      torch.Tensor
	PositionalEmbedding torch.Tensor
	Proj                torch.Tensor
	Conv1               *nn.ConvModule
	LnPre               *nn.LayerNormModule // nil with Config.NoPreNorm
	Transformer         *Transformer
	LnPost              *nn.LayerNormModule
	Packed              *nn.Packed `name:"-"` // Proj, set by nn.Pack
}

// Transformer is a stack of residual attention blocks.
type Transformer struct{ Resblocks []*Block }

// Block is one pre-norm layer.
type Block struct {
	nn.Hook
	Attn *nn.MultiheadAttentionModule
	Ln1  *nn.LayerNormModule `name:"ln_1"`
	Mlp  *MLP
	Ln2  *nn.LayerNormModule `name:"ln_2"`
	Ls1  *LayerScale         `name:"ls_1"` // nil without layer scales
	Ls2  *LayerScale         `name:"ls_2"`

	fused *nn.FusedLayer // set by nn.Pack, or nil
}

// LayerScale multiplies each channel by a number.
type LayerScale struct {
	nn.Hook
	Gamma torch.Tensor
}

// Forward scales the last dimension of x. A nil LayerScale returns x.
func (l *LayerScale) Forward(x torch.Tensor) torch.Tensor {
	if l == nil {
		return x
	}
	return l.Output(x.Mul(l.Gamma))
}

// MLP is the feed-forward part: two linear layers with an activation between them.
type MLP struct {
	CFc        *nn.LinearModule
	CProj      *nn.LinearModule
	activation Activation
}

// New returns a CLIP with random weights, initialised like OpenAI's code
// (initialize_parameters in its class CLIP), for training from scratch.
func New(c Config) *Model {
	m := build(c, Both)
	m.LogitScale = torch.Full([]int64{}, math.Log(1/0.07)).Keep().SetRequiresGrad(true)
	torch.NoGrad(func() {
		normal(m.TokenEmbedding.Weight, 0.02)
		normal(m.PositionalEmbedding, 0.01)
		w := float64(c.TextWidth)
		attn, fc := math.Pow(w, -0.5), math.Pow(2*w, -0.5)
		proj := attn * math.Pow(float64(2*c.TextDepth), -0.5)
		for _, b := range m.Transformer.Resblocks {
			normal(b.Attn.InProjWeight, attn)
			normal(b.Attn.OutProj.Weight, proj)
			normal(b.Mlp.CFc.Weight, fc)
			normal(b.Mlp.CProj.Weight, proj)
		}
		normal(m.TextProjection, attn)
		if m.ResNet != nil {
			m.ResNet.initialize()
		}
	})
	return m
}

// Train sets whether m is being trained, which only concerns a ResNet: it normalizes
// each batch with its own statistics then, and updates the running ones. A new or loaded
// model is not being trained.
func (m *Model) Train(on bool) {
	if m.ResNet != nil {
		m.ResNet.train(on)
	}
}

// build returns the encoders of part, without logit_scale, with the initial weights
// of PyTorch's modules.
func build(c Config, part Part) *Model {
	m := &Model{Config: c}
	switch {
	case part == Text:
	case c.ResNet != [4]int64{}:
		m.ResNet = newResNet(c)
	default:
		m.Visual = newVision(c)
	}
	if part == Image {
		return m
	}
	t := c.text()
	m.Transformer = newTransformer(t)
	m.TokenEmbedding = nn.Embedding(c.Vocab, t.width)
	m.PositionalEmbedding = param(c.Context, t.width)
	m.LnFinal = t.norm()
	m.TextProjection = param(t.width, c.EmbedDim)
	return m
}

func newVision(c Config) *Vision {
	grid, t := c.ImageSize/c.PatchSize, c.vision()
	v := &Vision{Conv1: nn.Conv2d(3, t.width, []int64{c.PatchSize}, nn.ConvOptions{Stride: []int64{c.PatchSize}})}
	if !c.NoPreNorm {
		v.LnPre = t.norm()
	}
	scale := math.Pow(float64(t.width), -0.5)
	scaled := func(shape ...int64) torch.Tensor {
		return torch.Tidy(func() torch.Tensor { return torch.Randn(shape).MulScalar(scale) }).Keep().SetRequiresGrad(true)
	}
	v.ClassEmbedding = scaled(t.width)
	v.PositionalEmbedding = scaled(grid*grid+1, t.width)
	v.Transformer = newTransformer(t)
	v.LnPost = t.norm()
	v.Proj = scaled(t.width, c.EmbedDim)
	return v
}

func (t tower) norm() *nn.LayerNormModule { return nn.LayerNorm([]int64{t.width}, t.epsilon) }

func newTransformer(t tower) *Transformer {
	out := &Transformer{}
	for range t.depth {
		b := &Block{
			Attn: nn.MultiheadAttention(t.width, t.heads, nn.MultiheadAttentionDefaults()),
			Ln1:  t.norm(),
			Mlp:  newMLP(t.width, t.mlp, t.activation),
			Ln2:  t.norm(),
		}
		if t.layerScale {
			b.Ls1, b.Ls2 = &LayerScale{Gamma: param(t.width)}, &LayerScale{Gamma: param(t.width)}
		}
		out.Resblocks = append(out.Resblocks, b)
	}
	return out
}

func param(shape ...int64) torch.Tensor {
	return torch.Empty(shape).Keep().SetRequiresGrad(true)
}

func normal(t torch.Tensor, std float64) { t.Normal_(torch.WithStd(std)) }

// Constants are the names of the constants that OpenAI's archives hold along with
// the weights, and that no other files hold.
var Constants = []string{"input_resolution", "context_length", "vocab_size"}

// FromOpenAI reports whether weights come from one of OpenAI's archives, by the
// constants that only those hold. All their models have QuickGELU and heads of 64.
func FromOpenAI(sd *nn.StateDict) bool {
	return !slices.ContainsFunc(Constants, func(name string) bool {
		_, ok := sd.Get(name)
		return !ok
	})
}

// Load returns a CLIP, or one encoder of it, that uses the tensors of sd without
// copying them. sd must hold the weights of the encoders of part under OpenAI's names;
// it may hold others, on any device, and Load closes those. c must describe these
// weights (see Config.Check): ConfigOf infers the sizes, but not the activation.
func Load(sd *nn.StateDict, c Config, part Part) (m *Model, err error) {
	sizes, err := ConfigOf(sd, part)
	if err == nil {
		err = c.Check(sizes, part)
	}
	if err != nil {
		return nil, err
	}
	own, rest := nn.NewStateDict(), nn.NewStateDict()
	var scale torch.Tensor
	for _, name := range sd.Names() {
		t, _ := sd.Get(name)
		switch {
		case name == "logit_scale" && part != Image:
			scale = t
		case part.Has(name) && !unused(name):
			own.Add(name, t)
		default:
			rest.Add(name, t)
		}
	}
	err = torch.Scope(func() error {
		torch.OnDevice(torch.Meta, func() { m = build(c, part) })
		if scale.Defined() && scale.Numel() != 1 {
			return fmt.Errorf("logit_scale has shape %v, want a single number", scale.Shape())
		}
		if err := nn.LoadStateDict(m, own); err != nil {
			return err
		}
		if m.LogitScale = scale; scale.Defined() && scale.Dim() != 0 { // [1], as other training programs save it
			torch.NoGrad(func() { m.LogitScale = scale.Reshape([]int64{}).Keep() })
			scale.Close()
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("CLIP %v: %w", c, err)
	}
	rest.Close()
	return m, nil
}

// SetActivation replaces the activation of both encoders' layers. A ResNet has none.
func (m *Model) SetActivation(a Activation) {
	m.Config.VisionActivation, m.Config.TextActivation = a, a
	transformers := []*Transformer{m.Transformer}
	if m.Visual != nil {
		transformers = append(transformers, m.Visual.Transformer)
	}
	for _, t := range transformers {
		if t != nil {
			for _, b := range t.Resblocks {
				b.Mlp.activation = a
				if b.fused != nil {
					b.fused.Activation = a.fused()
				}
			}
		}
	}
}

// unused reports whether a tensor of an encoder does not change its features.
func unused(name string) bool {
	return slices.Contains(Constants, name) || name == "logit_bias" || strings.HasSuffix(name, ".num_batches_tracked")
}

// Normalize scales features [n, width] to unit length, like CLIP's forward and
// ClipCap's normalize_prefix.
func Normalize(x torch.Tensor) torch.Tensor {
	return x.Div(x.LinalgVectorNorm(torch.WithDimList([]int64{-1}), torch.WithKeepdim(true)))
}

// FeatureWidth returns the width of the features.
func (m *Model) FeatureWidth() int64 { return m.Config.EmbedDim }

// ImageSize returns the side of an image in pixels, or 0 without the image encoder.
func (m *Model) ImageSize() int64 {
	if m.Visual == nil && m.ResNet == nil {
		return 0
	}
	return m.Config.ImageSize
}

// ContextLength returns the number of tokens per text, including start and end, or 0 without the
// text encoder.
func (m *Model) ContextLength() int64 {
	if m.Transformer == nil {
		return 0
	}
	return m.Config.Context
}

// VocabSize returns the number of different tokens, or 0 without the text encoder.
func (m *Model) VocabSize() int64 {
	if m.Transformer == nil {
		return 0
	}
	return m.Config.Vocab
}

// Name returns the kind and size of the model, such as "CLIP ViT-B/32".
func (m *Model) Name() string { return "CLIP " + m.Config.String() }

// EncodeImage returns the features [n, embed] of photos [n, 3, size, size] that
// were normalised for CLIP (package photo). The features are not L2-normalised.
func (m *Model) EncodeImage(pixels torch.Tensor) torch.Tensor {
	if m.Visual == nil && m.ResNet == nil {
		torch.Throw("clip.encode_image", "this CLIP was loaded without its image encoder")
	}
	if s := pixels.Shape(); len(s) != 4 || s[1] != 3 || s[2] != m.Config.ImageSize || s[3] != m.Config.ImageSize {
		torch.Throw("clip.encode_image", "want photos of shape [n, 3, %d, %d], got %s", m.Config.ImageSize, m.Config.ImageSize,
			strings.ReplaceAll(fmt.Sprint(s), " ", ", "))
	}
	if m.ResNet != nil {
		return m.ResNet.Forward(pixels)
	}
	v := m.Visual
	x := v.Conv1.Forward(pixels) // [n, width, grid, grid]
	n, width := x.Size(0), x.Size(1)
	x = x.Reshape([]int64{n, width, -1}).Permute([]int64{0, 2, 1}) // [n, grid², width]
	class := v.ClassEmbedding.Add(torch.Zeros([]int64{n, 1, width}, torch.WithDType(x.DType()), torch.WithDevice(x.Device())))
	x = torch.Cat([]torch.Tensor{class, x}, torch.WithDim(1)) // [n, grid²+1, width]
	x = x.Add(v.PositionalEmbedding)
	if v.LnPre != nil {
		x = v.LnPre.Forward(x)
	}
	var only []int64
	if !m.Config.AveragePool {
		only = make([]int64, n) // the class token
	}
	x = v.Transformer.forward(x, false, only)
	return project(v.pool(x, m.Config), v.Proj, v.Packed) // [n, embed]
}

// pool returns the last layer norm of the class token or of the mean of the patches.
func (v *Vision) pool(x torch.Tensor, c Config) torch.Tensor {
	mean := func(x torch.Tensor) torch.Tensor {
		return x.Slice(torch.WithDim(1), torch.WithStart(1)).MeanDim([]int64{1})
	}
	switch {
	case !c.AveragePool:
		return v.LnPost.Forward(x.Select(1, 0))
	case c.NormAfterPool:
		return v.LnPost.Forward(mean(x))
	}
	return mean(v.LnPost.Forward(x))
}

// ShortTexts reports whether EncodeText also takes ids [n, t] with t below the context, up to the
// end token of the longest text: what follows has no influence on it. The features are the same
// but for low-order bits.
func (m *Model) ShortTexts() bool {
	return !m.Config.NotCausal && m.Config.TextPool != AtFirst && m.Config.TextPool != AtLast
}

// EncodeText returns the features [n, embed] of texts, given as token ids
// [n, context] (int64: start token, text, end token, zeros). The feature is taken
// at the end token, which has the largest id (see Pooling).
func (m *Model) EncodeText(ids torch.Tensor) torch.Tensor {
	if m.TokenEmbedding == nil {
		torch.Throw("clip.encode_text", "this CLIP was loaded without its text encoder")
	}
	if s := ids.Shape(); len(s) != 2 || s[1] != m.Config.Context && !(m.ShortTexts() && s[1] < m.Config.Context) {
		torch.Throw("clip.encode_text", "want token ids of shape [n, %d], got %s", m.Config.Context, strings.ReplaceAll(fmt.Sprint(s), " ", ", "))
	}
	position := m.PositionalEmbedding
	if t := ids.Size(1); t < m.Config.Context {
		position = position.Narrow(0, 0, t)
	}
	x := m.TokenEmbedding.Forward(ids).Add(position) // [n, context, width]
	if m.Transformer.fused() {
		x = m.Transformer.forward(x, !m.Config.NotCausal, m.ends(ids)).Select(1, 0)
		return m.projectText(m.LnFinal.Forward(x))
	}
	x = m.LnFinal.Forward(m.Transformer.Forward(x, !m.Config.NotCausal))
	switch m.Config.TextPool {
	case AtFirst:
		return m.projectText(x.Select(1, 0))
	case AtLast:
		return m.projectText(x.Select(1, -1))
	}
	row := torch.Arange(0, x.Size(0), torch.WithDType(torch.Int64), torch.WithDevice(x.Device()))
	return m.projectText(x.Index([]torch.Tensor{row, m.endToken(ids)}))
}

func (m *Model) projectText(x torch.Tensor) torch.Tensor {
	return project(x, m.TextProjection, m.Packed)
}

// project returns x times weight, which may be packed.
func project(x, weight torch.Tensor, packed *nn.Packed) torch.Tensor {
	if packed != nil {
		return packed.Forward(x)
	}
	return x.Matmul(weight)
}

// packProjection packs a projection [width, embed] if the processor has the instructions for it
// ([torch.HasPanels]): with them, a feature has the same bits in any batch. It stays f32, since it
// is small and its results are the features.
func packProjection(weight *torch.Tensor) *nn.Packed {
	if !weight.Defined() || !torch.HasPanels() || weight.DType() != torch.Float32 {
		return nil
	}
	var packed *nn.Packed
	torch.Tidy(func() torch.Tensor {
		packed = nn.NewPacked(weight.T(), torch.Tensor{}, torch.Tensor{}, nn.Blocked)
		return torch.Tensor{}
	})
	weight.Close()
	*weight = torch.Tensor{}
	return packed
}

// Pack packs the projection; nn.Pack calls it.
func (m *Model) Pack(nn.Packing) {
	if m.Packed == nil {
		m.Packed = packProjection(&m.TextProjection)
	}
}

// Pack packs the projection; nn.Pack calls it.
func (v *Vision) Pack(nn.Packing) {
	if v.Packed == nil {
		v.Packed = packProjection(&v.Proj)
	}
}

// endToken returns the position of the end token of each text, int64 [n].
func (m *Model) endToken(ids torch.Tensor) torch.Tensor {
	if m.Config.TextPool == AtEndToken {
		return ids.EqScalar(m.Config.EndToken).To(torch.WithDType(torch.Int32)).Argmax(torch.WithDim(-1))
	}
	return ids.Argmax(torch.WithDim(-1))
}

// ends returns the position of the token that gives the feature of each text.
func (m *Model) ends(ids torch.Tensor) []int64 {
	n := int(ids.Size(0))
	switch m.Config.TextPool {
	case AtFirst:
		return make([]int64, n)
	case AtLast:
		return slices.Repeat([]int64{ids.Size(1) - 1}, n)
	}
	return torch.ToSlice[int64](m.endToken(ids))
}

// Pack prepares the block to be computed at once; nn.Pack calls it.
func (b *Block) Pack(nn.Packing) {
	if b.Ls1 == nil && b.Ls2 == nil {
		b.fused = nn.NewFusedLayer(b, b.Ln1, b.Ln2, []*nn.Packed{b.Attn.Packed}, b.Attn.OutProj.Packed,
			b.Mlp.CFc.Packed, b.Mlp.CProj.Packed, b.Mlp.activation.fused(), b.Attn.Heads(), b.Attn.Scale())
	}
}

// fused reports whether the blocks are computed at once: see nn.FusedLayer.
func (t *Transformer) fused() bool {
	return !slices.ContainsFunc(t.Resblocks, func(b *Block) bool { return !b.fused.Ready() })
}

// Forward maps [n, t, width] to the same shape. If causal is true, a position
// attends only to itself and the positions before it.
func (t *Transformer) Forward(x torch.Tensor, causal bool) torch.Tensor {
	return t.forward(x, causal, nil)
}

// forward is Forward. If only is not nil and the blocks are computed at once, it returns
// [n, 1, width], the position only[i] of each sequence.
func (t *Transformer) forward(x torch.Tensor, causal bool, only []int64) torch.Tensor {
	fused := t.fused()
	for i, b := range t.Resblocks {
		// Keep only the result of the block, and what autograd needs.
		x = torch.Tidy(func() torch.Tensor {
			if fused && i == len(t.Resblocks)-1 {
				return b.fused.Forward(x, causal, nil, only)
			} else if fused {
				return b.fused.Forward(x, causal, nil, nil)
			}
			y := x.Add(b.Ls1.Forward(b.Attn.SelfAttention(b.Ln1.Forward(x), causal)))
			return b.Output(y.Add(b.Ls2.Forward(b.Mlp.Forward(b.Ln2.Forward(y)))))
		})
	}
	return x
}

func newMLP(width, wide int64, a Activation) *MLP {
	return &MLP{CFc: nn.Linear(width, wide, true), CProj: nn.Linear(wide, width, true), activation: a}
}

// Forward applies a linear layer, the activation, and a linear layer.
func (m *MLP) Forward(x torch.Tensor) torch.Tensor {
	if m.CFc.Packed != nil && !m.CFc.Observed() {
		return m.CProj.Forward(m.CFc.Packed.ForwardFused(x, m.activation.fused()))
	}
	x = m.CFc.Forward(x)
	switch m.activation {
	case GELU:
		x = x.Gelu()
	case GELUTanh:
		x = x.Gelu(torch.WithApproximate("tanh"))
	default:
		x = x.QuickGelu()
	}
	return m.CProj.Forward(x)
}

// fused is the activation as a packed layer applies it.
func (a Activation) fused() torch.Activation {
	switch a {
	case GELU:
		return torch.GELU
	case GELUTanh:
		return torch.GELUTanh
	default:
		return torch.QuickGELU
	}
}
