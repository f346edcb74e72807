package clip

import (
	"fmt"
	"math"
	"strings"

	"cyclecap/torch/nn"
)

// Config describes a CLIP: everything that changes its numbers, apart from the
// weights. The zero value of a field in the second and third group is what OpenAI's
// models have.
type Config struct {
	EmbedDim    int64 // width of the features
	ImageSize   int64 // side of an image in pixels
	PatchSize   int64 // 0 for a ResNet
	VisionWidth int64 // of a ResNet: channels of its first stage
	VisionDepth int64 // number of layers; 0 for a ResNet
	Context     int64 // tokens per text, including start and end
	Vocab       int64
	TextWidth   int64
	TextHeads   int64
	TextDepth   int64 // number of layers

	ResNet      [4]int64 // number of blocks in each stage of a ResNet; zeros for a vision transformer
	VisionHeads int64    // 0 means heads of 64
	VisionMLP   int64    // hidden width of the feed-forward parts; 0 means 4 × VisionWidth
	TextMLP     int64    // 0 means 4 × TextWidth

	VisionActivation, TextActivation Activation
	VisionEpsilon, TextEpsilon       float64 // of the layer norms; 0 means 1e-5
	// Variants of open_clip's models, by the names of its configuration.
	VisionLayerScale, TextLayerScale bool    // ls_init_value
	NoPreNorm                        bool    // no_ln_pre
	AveragePool                      bool    // vision_cfg.pool_type "avg": the mean of the patches instead of the class token
	NormAfterPool                    bool    // vision_cfg.final_ln_after_pool
	NotCausal                        bool    // no_causal_mask
	TextPool                         Pooling // text_cfg.pool_type
	EndToken                         int64   // of AtEndToken
	// Tokenizer is the tokenizer that the configuration names, if it is not CLIP's.
	Tokenizer string
}

// Activation is the function between the linear layers of a feed-forward part.
type Activation int

// The activations, with transformers' names.
const (
	QuickGELU Activation = iota // quick_gelu: x sigmoid(1.702 x)
	GELU                        // gelu
	GELUTanh                    // gelu_pytorch_tanh, the approximation by tanh
)

var activations = []string{"quick_gelu", "gelu", "gelu_pytorch_tanh"}

func (a Activation) String() string { return activations[a] }

// Pooling is the position at which the text encoder takes the feature.
type Pooling int

// The positions.
const (
	AtLargest  Pooling = iota // of the largest id, which is CLIP's end token
	AtEndToken                // the first one of EndToken
	AtFirst
	AtLast
)

// ViTB32 returns the configuration of OpenAI's ViT-B/32.
func ViTB32() Config {
	c, _ := Named("ViT-B/32")
	return c
}

// headDim is the width of an attention head in every CLIP released by OpenAI.
const headDim = 64

// String returns OpenAI's name of the image encoder, such as "ViT-B/32" or "RN50x4".
func (c Config) String() string {
	if c.ResNet != [4]int64{} {
		for _, r := range resNets {
			if c.ResNet == r.blocks && c.VisionWidth == r.width {
				return r.name
			}
		}
		return fmt.Sprintf("ResNet %v, width %d", c.ResNet, c.VisionWidth)
	}
	if c.VisionWidth == 0 {
		return fmt.Sprintf("text encoder %dx%d", c.TextWidth, c.TextDepth)
	}
	size := map[int64]string{768: "B", 1024: "L", 1280: "H", 1408: "g", 1664: "bigG"}[c.VisionWidth]
	if size == "" {
		size = fmt.Sprintf("%dx%d", c.VisionWidth, c.VisionDepth)
	}
	s := fmt.Sprintf("ViT-%s/%d", size, c.PatchSize)
	if c.ImageSize != 224 {
		s += fmt.Sprintf("@%dpx", c.ImageSize)
	}
	return s
}

// tower is one transformer of a Config, with its defaults filled in.
type tower struct {
	width, depth, heads, mlp int64
	activation               Activation
	epsilon                  float64
	layerScale               bool
}

func (t tower) filled() tower {
	if t.heads == 0 {
		t.heads = t.width / headDim
	}
	if t.mlp == 0 {
		t.mlp = 4 * t.width
	}
	if t.epsilon == 0 {
		t.epsilon = 1e-5
	}
	return t
}

func (c Config) vision() tower {
	return tower{c.VisionWidth, c.VisionDepth, c.VisionHeads, c.VisionMLP, c.VisionActivation, c.VisionEpsilon, c.VisionLayerScale}.filled()
}

func (c Config) text() tower {
	return tower{c.TextWidth, c.TextDepth, c.TextHeads, c.TextMLP, c.TextActivation, c.TextEpsilon, c.TextLayerScale}.filled()
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

// ConfigOf infers from weights with OpenAI's names what they tell: the sizes. The
// rest has the values of OpenAI's models, with heads of 64. The encoders of part must
// be there; the other one's fields are zero if it is missing.
func ConfigOf(sd *nn.StateDict, part Part) (Config, error) {
	var c Config
	image, text := c, c
	errImage, errText := image.visionSizes(sd), text.textSizes(sd)
	switch {
	case errImage != nil && part != Text:
		return c, errImage
	case errText != nil && part != Image:
		return c, errText
	}
	if errText == nil {
		c = text
	}
	if errImage == nil {
		if errText == nil && part == Both && image.EmbedDim != text.EmbedDim {
			return c, fmt.Errorf("its image features have width %d and its text features %d: the encoders of different models?", image.EmbedDim, text.EmbedDim)
		}
		if part != Text || errText != nil {
			c.EmbedDim = image.EmbedDim
		}
		c.ImageSize, c.PatchSize, c.VisionWidth, c.VisionDepth = image.ImageSize, image.PatchSize, image.VisionWidth, image.VisionDepth
		c.ResNet, c.VisionHeads, c.VisionMLP, c.VisionLayerScale = image.ResNet, image.VisionHeads, image.VisionMLP, image.VisionLayerScale
	}
	return c, nil
}

// visionSizes infers the fields of the image encoder.
func (c *Config) visionSizes(sd *nn.StateDict) error {
	n := needed{sd: sd, what: "image"}
	if _, ok := sd.Get("visual.layer1.0.conv1.weight"); ok {
		return c.resNetSizes(&n)
	}
	conv, pos, proj := n.sizes("visual.conv1.weight", 4), n.sizes("visual.positional_embedding", 2), n.sizes("visual.proj", 2)
	if n.err != nil {
		return n.err
	}
	c.VisionWidth, c.PatchSize, c.EmbedDim = conv[0], conv[3], proj[1]
	grid, err := square(pos[0], "visual.positional_embedding")
	if err != nil {
		return err
	}
	c.ImageSize = grid * c.PatchSize
	if grid > maxGrid || c.ImageSize > maxImageSize {
		return fmt.Errorf("images of %d pixels in %d patches of %d; at most %d pixels and %d patches side by side are supported", c.ImageSize, grid, c.PatchSize, maxImageSize, maxGrid)
	}
	c.VisionDepth, c.VisionMLP, c.VisionLayerScale, err = layers(sd, "visual.transformer.resblocks.")
	c.VisionHeads = c.VisionWidth / headDim
	return err
}

// square returns the number of patches side by side, by the rows of a positional
// embedding: one for each patch and one more.
func square(rows int64, name string) (int64, error) {
	grid := int64(math.Round(math.Sqrt(float64(rows - 1))))
	if grid < 1 || grid*grid+1 != rows {
		return 0, fmt.Errorf("%s has %d rows, want a square number of patches plus a class token", name, rows)
	}
	return grid, nil
}

// textSizes infers the fields of the text encoder.
func (c *Config) textSizes(sd *nn.StateDict) error {
	n := needed{sd: sd, what: "text"}
	proj, pos, words := n.sizes("text_projection", 2), n.sizes("positional_embedding", 2), n.sizes("token_embedding.weight", 2)
	if n.err != nil {
		return n.err
	}
	c.TextWidth, c.EmbedDim = proj[0], proj[1]
	c.Context, c.Vocab = pos[0], words[0]
	if c.Context < 3 || c.Context > maxContext {
		return fmt.Errorf("positional_embedding has %d rows, one for each token of a text: must be between 3 and %d", c.Context, maxContext)
	}
	var err error
	c.TextDepth, c.TextMLP, c.TextLayerScale, err = layers(sd, "transformer.resblocks.")
	c.TextHeads = c.TextWidth / headDim
	return err
}

// needed collects the shapes of tensors, and the first error.
type needed struct {
	sd   *nn.StateDict
	what string
	err  error
}

func (n *needed) sizes(name string, dims int) []int64 {
	shape, err := n.sd.Sizes(name, dims)
	if err != nil {
		if n.err == nil {
			n.err = fmt.Errorf("no %s encoder of a CLIP: %w", n.what, err)
		}
		return make([]int64, dims)
	}
	return shape
}

// layers returns the number of layers under a prefix, their hidden width, and whether
// they have layer scales.
func layers(sd *nn.StateDict, prefix string) (n, mlp int64, scaled bool, err error) {
	n = count(sd, prefix, ".ln_1.weight")
	if n == 0 {
		return 0, 0, false, nil
	}
	shape, err := sd.Sizes(prefix+"0.mlp.c_fc.weight", 2)
	if err != nil {
		return 0, 0, false, err
	}
	_, scaled = sd.Get(prefix + "0.ls_1.gamma")
	return n, shape[0], scaled, nil
}

// count returns the number of elements of a list of modules.
func count(sd *nn.StateDict, prefix, suffix string) (n int64) {
	for {
		if _, ok := sd.Get(fmt.Sprintf("%s%d%s", prefix, n, suffix)); !ok {
			return n
		}
		n++
	}
}

// Check returns an error if a configuration contradicts the weights, of which sizes
// has what ConfigOf inferred, in an encoder of part.
func (c Config) Check(sizes Config, part Part) error {
	type size struct {
		what          string
		says, weights any
	}
	list := []size{{"features of width", c.EmbedDim, sizes.EmbedDim}}
	add := func(s ...size) { list = append(list, s...) }
	if part != Text {
		side, grid := "patches side by side:", func(c Config) int64 { return c.ImageSize / max(1, c.PatchSize) }
		if c.PatchSize == 0 {
			side = "images of"
		}
		add(size{"a vision width of", c.VisionWidth, sizes.VisionWidth}, size{"patches of", c.PatchSize, sizes.PatchSize},
			size{"a number of vision layers of", c.VisionDepth, sizes.VisionDepth}, size{"ResNet blocks of", c.ResNet, sizes.ResNet},
			size{side, grid(c), grid(sizes)}, size{"a vision MLP width of", c.vision().mlp, sizes.vision().mlp},
			size{"layer scales in the image encoder:", c.VisionLayerScale, sizes.VisionLayerScale})
	}
	if part != Image {
		add(size{"a text width of", c.TextWidth, sizes.TextWidth}, size{"a number of text layers of", c.TextDepth, sizes.TextDepth},
			size{"a context of", c.Context, sizes.Context}, size{"a vocabulary of", c.Vocab, sizes.Vocab},
			size{"a text MLP width of", c.text().mlp, sizes.text().mlp},
			size{"layer scales in the text encoder:", c.TextLayerScale, sizes.TextLayerScale})
	}
	for _, s := range list {
		if s.says != s.weights {
			return fmt.Errorf("the configuration says %s %v, but the weights have %v", s.what, s.says, s.weights)
		}
	}
	for _, h := range []struct {
		part  Part
		what  string
		width int64
		heads int64
	}{{Image, "image", c.attended(), c.visionHeads()}, {Text, "text", c.TextWidth, c.text().heads}} {
		if part != Both && part != h.part {
			continue
		}
		if h.heads < 1 || h.width%h.heads != 0 {
			return fmt.Errorf("the width %d of the %s encoder cannot be divided into %d attention heads", h.width, h.what, h.heads)
		}
	}
	return nil
}

// attended is the width of the image encoder's attention, and visionHeads the number
// of its heads.
func (c Config) attended() int64 {
	if c.ResNet != [4]int64{} {
		return 32 * c.VisionWidth
	}
	return c.VisionWidth
}

func (c Config) visionHeads() int64 {
	if c.VisionHeads != 0 {
		return c.VisionHeads
	}
	return c.attended() / headDim
}
