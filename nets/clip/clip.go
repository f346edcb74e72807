// Package clip implements CLIP (Radford et al. 2021) with a vision transformer,
// with the results of OpenAI's code and open_clip. Parameter names are OpenAI's.
package clip

import (
	"fmt"
	"math"
	"strings"

	"cyclecap/torch"
	"cyclecap/torch/nn"
)

// Config holds the sizes of a CLIP. All fields except GELU can be inferred from
// its weights.
type Config struct {
	EmbedDim    int64 // width of the features
	ImageSize   int64 // side of an image in pixels
	PatchSize   int64
	VisionWidth int64
	VisionDepth int64 // number of layers
	Context     int64 // tokens per text, including start and end
	Vocab       int64
	TextWidth   int64
	TextHeads   int64
	TextDepth   int64 // number of layers
	// GELU selects the exact GELU, as in LAION's models, instead of OpenAI's
	// QuickGELU. It cannot be inferred from the weights.
	GELU bool
}

// ViTB32 returns the configuration of OpenAI's ViT-B/32.
func ViTB32() Config {
	return Config{EmbedDim: 512, ImageSize: 224, PatchSize: 32, VisionWidth: 768, VisionDepth: 12,
		Context: 77, Vocab: 49408, TextWidth: 512, TextHeads: 8, TextDepth: 12}
}

// headDim is the width of an attention head in every CLIP released by OpenAI.
const headDim = 64

// String returns OpenAI's name of the vision transformer, such as "ViT-B/32".
func (c Config) String() string {
	size := map[int64]string{768: "B", 1024: "L", 1280: "H"}[c.VisionWidth]
	if size == "" {
		size = fmt.Sprintf("%dx%d", c.VisionWidth, c.VisionDepth)
	}
	s := fmt.Sprintf("ViT-%s/%d", size, c.PatchSize)
	if c.ImageSize != 224 {
		s += fmt.Sprintf("@%dpx", c.ImageSize)
	}
	return s
}

// A Part is one encoder of a CLIP, or both.
type Part int

// The parts of a CLIP.
const (
	Both  Part = iota
	Image      // the image encoder, for EncodeImage
	Text       // the text encoder, for EncodeText
)

// Has reports whether a tensor with one of OpenAI's names belongs to the part.
func (p Part) Has(name string) bool {
	return p == Both || strings.HasPrefix(name, "visual.") == (p == Image)
}

// Limits of what ConfigOf accepts. Released models have at most 4,096 patches in an
// image of 896 pixels, and 248 tokens.
const (
	maxImageSize = 4096
	maxGrid      = 128 // patches side by side
	maxContext   = 4096
)

// ConfigOf infers the sizes from weights with OpenAI's names.
func ConfigOf(sd *nn.StateDict) (Config, error) {
	var c Config
	var err error
	need := func(name string, dims int) []int64 {
		shape, e := sd.Sizes(name, dims)
		if e != nil {
			if err == nil {
				err = fmt.Errorf("not a CLIP with a vision transformer: %w", e)
			}
			return make([]int64, dims)
		}
		return shape
	}
	conv, pos := need("visual.conv1.weight", 4), need("visual.positional_embedding", 2)
	proj, text := need("text_projection", 2), need("positional_embedding", 2)
	words := need("token_embedding.weight", 2)
	if err != nil {
		return c, err
	}
	c.VisionWidth, c.PatchSize = conv[0], conv[3]
	c.TextWidth, c.EmbedDim = proj[0], proj[1]
	c.Context, c.Vocab = text[0], words[0]
	grid := int64(math.Round(math.Sqrt(float64(pos[0] - 1))))
	if grid < 1 || grid*grid+1 != pos[0] {
		return c, fmt.Errorf("visual.positional_embedding has %d rows, want a square number of patches plus a class token", pos[0])
	}
	c.ImageSize = grid * c.PatchSize
	if grid > maxGrid || c.ImageSize > maxImageSize {
		return c, fmt.Errorf("images of %d pixels in %d patches of %d; at most %d pixels and %d patches side by side are supported", c.ImageSize, grid, c.PatchSize, maxImageSize, maxGrid)
	}
	if c.Context < 3 || c.Context > maxContext {
		return c, fmt.Errorf("positional_embedding has %d rows, one for each token of a text: must be between 3 and %d", c.Context, maxContext)
	}
	c.VisionDepth = depth(sd, "visual.transformer.resblocks.")
	c.TextDepth = depth(sd, "transformer.resblocks.")
	c.TextHeads = c.TextWidth / headDim
	for _, w := range []int64{c.VisionWidth, c.TextWidth} {
		if w%headDim != 0 {
			return c, fmt.Errorf("the width %d is not a multiple of %d, the width of CLIP's attention heads", w, headDim)
		}
	}
	return c, nil
}

func depth(sd *nn.StateDict, prefix string) (n int64) {
	for {
		if _, ok := sd.Get(fmt.Sprintf("%s%d.ln_1.weight", prefix, n)); !ok {
			return n
		}
		n++
	}
}

// Model is a CLIP with both encoders or one; the fields of the other are nil or
// undefined.
type Model struct {
	Config              Config `name:"-"`
	PositionalEmbedding torch.Tensor
	TextProjection      torch.Tensor
	LogitScale          torch.Tensor
	Visual              *Vision
	Transformer         *Transformer
	TokenEmbedding      *nn.EmbeddingModule
	LnFinal             *nn.LayerNormModule
}

// Vision is the image encoder.
type Vision struct {
	ClassEmbedding      torch.Tensor
	PositionalEmbedding torch.Tensor
	Proj                torch.Tensor
	Conv1               *nn.Conv2dModule
	LnPre               *nn.LayerNormModule
	Transformer         *Transformer
	LnPost              *nn.LayerNormModule
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
}

// MLP is the feed-forward part: two linear layers with QuickGELU (or GELU)
// between them.
type MLP struct {
	CFc   *nn.LinearModule
	CProj *nn.LinearModule
	gelu  bool
}

// New returns a CLIP with random weights, initialised like OpenAI's code
// (initialize_parameters in its class CLIP), for training from scratch.
func New(c Config) *Model {
	m := &Model{
		Config:              c,
		Visual:              newVision(c),
		Transformer:         newTransformer(c.TextWidth, c.TextDepth, c.TextHeads, c.GELU),
		TokenEmbedding:      nn.Embedding(c.Vocab, c.TextWidth),
		PositionalEmbedding: param(c.Context, c.TextWidth),
		LnFinal:             nn.LayerNorm([]int64{c.TextWidth}, 1e-5),
		TextProjection:      param(c.TextWidth, c.EmbedDim),
		LogitScale:          torch.Full([]int64{}, math.Log(1/0.07)).Keep().SetRequiresGrad(true),
	}
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
	})
	return m
}

func newVision(c Config) *Vision {
	grid := c.ImageSize / c.PatchSize
	v := &Vision{
		Conv1: nn.Conv2d(3, c.VisionWidth, c.PatchSize, c.PatchSize, 0, false),
		LnPre: nn.LayerNorm([]int64{c.VisionWidth}, 1e-5),
	}
	scale := math.Pow(float64(c.VisionWidth), -0.5)
	scaled := func(shape ...int64) torch.Tensor {
		return torch.Tidy(func() torch.Tensor { return torch.Randn(shape).MulScalar(scale) }).Keep().SetRequiresGrad(true)
	}
	v.ClassEmbedding = scaled(c.VisionWidth)
	v.PositionalEmbedding = scaled(grid*grid+1, c.VisionWidth)
	v.Transformer = newTransformer(c.VisionWidth, c.VisionDepth, c.VisionWidth/headDim, c.GELU)
	v.LnPost = nn.LayerNorm([]int64{c.VisionWidth}, 1e-5)
	v.Proj = scaled(c.VisionWidth, c.EmbedDim)
	return v
}

func newTransformer(width, depth, heads int64, gelu bool) *Transformer {
	t := &Transformer{}
	for range depth {
		t.Resblocks = append(t.Resblocks, &Block{
			Attn: nn.MultiheadAttention(width, heads),
			Ln1:  nn.LayerNorm([]int64{width}, 1e-5),
			Mlp:  &MLP{CFc: nn.Linear(width, 4*width, true), CProj: nn.Linear(4*width, width, true), gelu: gelu},
			Ln2:  nn.LayerNorm([]int64{width}, 1e-5),
		})
	}
	return t
}

func param(shape ...int64) torch.Tensor {
	return torch.Empty(shape).Keep().SetRequiresGrad(true)
}

func normal(t torch.Tensor, std float64) { t.Normal_(torch.WithStd(std)) }

// Constants are the names of the constants that OpenAI's archives hold along with
// the weights.
var Constants = []string{"input_resolution", "context_length", "vocab_size"}

// Load returns a CLIP, or one encoder of it, that uses the tensors of sd without
// copying them. sd must hold the weights of both encoders under OpenAI's names.
// For the other encoder, only names and shapes are checked: its tensors may be on
// the meta device, and Load closes them. gelu sets Config.GELU.
func Load(sd *nn.StateDict, gelu bool, part Part) (m *Model, err error) {
	c, err := ConfigOf(sd)
	if err != nil {
		return nil, err
	}
	c.GELU = gelu
	err = torch.Scope(func() error {
		torch.OnDevice(torch.Meta, func() { m = New(c) })
		if err := nn.LoadStateDict(m, sd, Constants...); err != nil {
			return err
		}
		m.only(part)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("CLIP %v: %w", c, err)
	}
	return m, nil
}

// SetGELU chooses the activation, GELU or QuickGELU, as Config.GELU does.
func (m *Model) SetGELU(gelu bool) {
	m.Config.GELU = gelu
	for _, t := range []*Transformer{m.Transformer, m.visualTransformer()} {
		if t != nil {
			for _, b := range t.Resblocks {
				b.Mlp.gelu = gelu
			}
		}
	}
}

func (m *Model) visualTransformer() *Transformer {
	if m.Visual == nil {
		return nil
	}
	return m.Visual.Transformer
}

// only frees the encoder that is not in part.
func (m *Model) only(part Part) {
	switch part {
	case Image:
		for _, t := range []*torch.Tensor{&m.PositionalEmbedding, &m.TextProjection, &m.LogitScale} {
			t.Close()
			*t = torch.Tensor{}
		}
		nn.Close(m.Transformer)
		nn.Close(m.TokenEmbedding)
		nn.Close(m.LnFinal)
		m.Transformer, m.TokenEmbedding, m.LnFinal = nil, nil, nil
	case Text:
		nn.Close(m.Visual)
		m.Visual = nil
	}
}

// Normalize scales features [n, width] to unit length, like CLIP's forward and
// ClipCap's normalize_prefix.
func Normalize(x torch.Tensor) torch.Tensor {
	return x.Div(x.LinalgVectorNorm(torch.WithDim([]int64{-1}), torch.WithKeepdim(true)))
}

// FeatureWidth returns the width of the features.
func (m *Model) FeatureWidth() int64 { return m.Config.EmbedDim }

// ImageSize returns the side of an image in pixels.
func (m *Model) ImageSize() int64 { return m.Config.ImageSize }

// ContextLength returns the number of tokens per text, including start and end.
func (m *Model) ContextLength() int64 { return m.Config.Context }

// VocabSize returns the number of different tokens.
func (m *Model) VocabSize() int64 { return m.Config.Vocab }

// Name returns the kind and size of the model, such as "CLIP ViT-B/32".
func (m *Model) Name() string { return "CLIP " + m.Config.String() }

// EncodeImage returns the features [n, embed] of photos [n, 3, size, size] that
// were normalised for CLIP (package photo). The features are not L2-normalised.
func (m *Model) EncodeImage(pixels torch.Tensor) torch.Tensor {
	if m.Visual == nil {
		torch.Throw("clip.encode_image", "this CLIP was loaded without its image encoder")
	}
	if s := pixels.Shape(); len(s) != 4 || s[1] != 3 || s[2] != m.Config.ImageSize || s[3] != m.Config.ImageSize {
		torch.Throw("clip.encode_image", "want photos of shape [n, 3, %d, %d], got %s", m.Config.ImageSize, m.Config.ImageSize,
			strings.ReplaceAll(fmt.Sprint(s), " ", ", "))
	}
	v := m.Visual
	x := v.Conv1.Forward(pixels) // [n, width, grid, grid]
	n, width := x.Size(0), x.Size(1)
	x = x.Reshape([]int64{n, width, -1}).Permute([]int64{0, 2, 1}) // [n, grid², width]
	class := v.ClassEmbedding.Add(torch.Zeros([]int64{n, 1, width}, torch.WithDType(x.DType()), torch.WithDevice(x.Device())))
	x = torch.Cat([]torch.Tensor{class, x}, torch.WithDim(1)) // [n, grid²+1, width]
	x = v.LnPre.Forward(x.Add(v.PositionalEmbedding))
	x = v.Transformer.Forward(x, false)
	return v.LnPost.Forward(x.Select(1, 0)).Matmul(v.Proj) // [n, embed]
}

// EncodeText returns the features [n, embed] of texts, given as token ids
// [n, context] (int64: start token, text, end token, zeros). The feature is taken
// at the end token, which has the largest id.
func (m *Model) EncodeText(ids torch.Tensor) torch.Tensor {
	if m.TokenEmbedding == nil {
		torch.Throw("clip.encode_text", "this CLIP was loaded without its text encoder")
	}
	if s := ids.Shape(); len(s) != 2 || s[1] != m.Config.Context {
		torch.Throw("clip.encode_text", "want token ids of shape [n, %d], got %s", m.Config.Context, strings.ReplaceAll(fmt.Sprint(s), " ", ", "))
	}
	x := m.TokenEmbedding.Forward(ids).Add(m.PositionalEmbedding) // [n, context, width]
	x = m.Transformer.Forward(x, true)
	x = m.LnFinal.Forward(x)
	row := torch.Arange(0, x.Size(0), torch.WithDType(torch.Int64), torch.WithDevice(x.Device()))
	end := ids.Argmax(torch.WithDim(-1))
	return x.Index([]torch.Tensor{row, end}).Matmul(m.TextProjection)
}

// Forward maps [n, t, width] to the same shape. If causal is true, a position
// attends only to itself and the positions before it.
func (t *Transformer) Forward(x torch.Tensor, causal bool) torch.Tensor {
	for _, b := range t.Resblocks {
		// Keep only the result of the block, and what autograd needs.
		x = torch.Tidy(func() torch.Tensor {
			y := x.Add(b.Attn.Forward(b.Ln1.Forward(x), causal))
			return b.Output(y.Add(b.Mlp.Forward(b.Ln2.Forward(y))))
		})
	}
	return x
}

// Forward applies a linear layer, QuickGELU or GELU, and a linear layer.
func (m *MLP) Forward(x torch.Tensor) torch.Tensor {
	x = m.CFc.Forward(x)
	if m.gelu {
		return m.CProj.Forward(x.Gelu())
	}
	return m.CProj.Forward(x.Mul(x.MulScalar(1.702).Sigmoid()))
}
