package siglip

import (
	"encoding/json"
	"fmt"
	"math"

	"cyclecap/torch/nn"
)

// Tower holds the sizes of one transformer. The names in the comments are those of config.json.
type Tower struct {
	Width int64   // hidden_size
	MLP   int64   // intermediate_size
	Depth int64   // num_hidden_layers
	Heads int64   // num_attention_heads
	Eps   float64 // layer_norm_eps
	// ExactGELU selects the exact GELU (hidden_act "gelu") instead of its tanh approximation
	// ("gelu_pytorch_tanh").
	ExactGELU bool
}

// VisionConfig holds the sizes of the image encoder.
type VisionConfig struct {
	Tower
	ImageSize, PatchSize int64
}

// TextConfig holds the sizes of the text encoder.
type TextConfig struct {
	Tower
	Context  int64 // max_position_embeddings
	Vocab    int64 // vocab_size
	Features int64 // projection_size
}

// Config holds the sizes of a SigLIP.
type Config struct {
	Vision VisionConfig
	Text   TextConfig
}

// Base returns the configuration of google/siglip-base-patch16-224, which is transformers'
// default.
func Base() Config {
	tower := Tower{Width: 768, MLP: 3072, Depth: 12, Heads: 12, Eps: 1e-6}
	return Config{VisionConfig{tower, 224, 16}, TextConfig{tower, 64, 32000, 768}}
}

// ParseConfig reads the config.json of transformers' SiglipModel, or of one of its encoders
// alone. A setting that would change the numbers and is not supported is an error.
func ParseConfig(data []byte) (Config, error) {
	c := Base()
	var top struct {
		ModelType    string          `json:"model_type"`
		Vision       json.RawMessage `json:"vision_config"`
		Text         json.RawMessage `json:"text_config"`
		Quantization any             `json:"quantization_config"`
	}
	if err := json.Unmarshal(data, &top); err != nil {
		return c, err
	}
	if top.Quantization != nil {
		return c, fmt.Errorf("quantization_config: quantised weights are not supported")
	}
	switch top.ModelType {
	case "siglip", "":
	case "siglip_vision_model":
		top.Vision = data
	case "siglip_text_model":
		top.Text = data
	case "siglip2", "siglip2_vision_model", "siglip2_text_model":
		return c, fmt.Errorf("model_type is %q: a SigLIP 2 whose images have no fixed size (NaFlex) is not supported; one of fixed size has model_type siglip", top.ModelType)
	default:
		return c, fmt.Errorf("model_type is %q, want siglip", top.ModelType)
	}
	if err := c.Vision.parse(top.Vision); err != nil {
		return c, fmt.Errorf("vision_config: %w", err)
	}
	if err := c.Text.parse(top.Text); err != nil {
		return c, fmt.Errorf("text_config: %w", err)
	}
	return c, c.check()
}

func (c *VisionConfig) parse(data json.RawMessage) error {
	if data == nil {
		return nil
	}
	if err := c.Tower.parse(data); err != nil {
		return err
	}
	v := struct {
		ImageSize *int64 `json:"image_size"`
		PatchSize *int64 `json:"patch_size"`
		Channels  *int64 `json:"num_channels"`
		Head      *bool  `json:"vision_use_head"`
	}{&c.ImageSize, &c.PatchSize, nil, nil}
	if err := json.Unmarshal(data, &v); err != nil {
		return err
	}
	if v.Channels != nil && *v.Channels != 3 {
		return fmt.Errorf("num_channels is %d: must be 3", *v.Channels)
	}
	if v.Head != nil && !*v.Head {
		return fmt.Errorf("vision_use_head is false: such a model has no features")
	}
	return nil
}

func (c *TextConfig) parse(data json.RawMessage) error {
	if data == nil {
		return nil
	}
	if err := c.Tower.parse(data); err != nil {
		return err
	}
	c.Features = c.Width
	return json.Unmarshal(data, &struct {
		Context  *int64 `json:"max_position_embeddings"`
		Vocab    *int64 `json:"vocab_size"`
		Features *int64 `json:"projection_size"`
	}{&c.Context, &c.Vocab, &c.Features})
}

func (c *Tower) parse(data json.RawMessage) error {
	act := "gelu_pytorch_tanh"
	err := json.Unmarshal(data, &struct {
		Width *int64   `json:"hidden_size"`
		MLP   *int64   `json:"intermediate_size"`
		Depth *int64   `json:"num_hidden_layers"`
		Heads *int64   `json:"num_attention_heads"`
		Eps   *float64 `json:"layer_norm_eps"`
		Act   *string  `json:"hidden_act"`
	}{&c.Width, &c.MLP, &c.Depth, &c.Heads, &c.Eps, &act})
	if err != nil {
		return err
	}
	switch act {
	case "gelu_pytorch_tanh":
		c.ExactGELU = false
	case "gelu":
		c.ExactGELU = true
	default:
		return fmt.Errorf("hidden_act is %q: must be gelu_pytorch_tanh or gelu", act)
	}
	return nil
}

// Limits of what check accepts; released models are far below them.
const (
	maxWidth     = 1 << 14
	maxDepth     = 256
	maxContext   = 4096
	maxVocab     = 1 << 21
	maxImageSize = 4096
	maxGrid      = 128 // patches side by side
)

func (c *Config) check() error {
	for _, v := range []struct {
		name string
		v    int64
		most int64
	}{
		{"vision_config: hidden_size", c.Vision.Width, maxWidth}, {"text_config: hidden_size", c.Text.Width, maxWidth},
		{"vision_config: intermediate_size", c.Vision.MLP, 8 * maxWidth}, {"text_config: intermediate_size", c.Text.MLP, 8 * maxWidth},
		{"vision_config: num_hidden_layers", c.Vision.Depth, maxDepth}, {"text_config: num_hidden_layers", c.Text.Depth, maxDepth},
		{"vision_config: num_attention_heads", c.Vision.Heads, c.Vision.Width}, {"text_config: num_attention_heads", c.Text.Heads, c.Text.Width},
		{"image_size", c.Vision.ImageSize, maxImageSize}, {"patch_size", c.Vision.PatchSize, c.Vision.ImageSize},
		{"max_position_embeddings", c.Text.Context, maxContext}, {"vocab_size", c.Text.Vocab, maxVocab}, {"projection_size", c.Text.Features, maxWidth},
	} {
		if v.v < 1 || v.v > v.most {
			return fmt.Errorf("%s is %d: must be between 1 and %d", v.name, v.v, v.most)
		}
	}
	for _, t := range []struct {
		name string
		Tower
	}{{"vision_config", c.Vision.Tower}, {"text_config", c.Text.Tower}} {
		if t.Width%t.Heads != 0 {
			return fmt.Errorf("%s: hidden_size %d is not a multiple of num_attention_heads %d", t.name, t.Width, t.Heads)
		}
		if !(t.Eps >= 0 && t.Eps < 1) {
			return fmt.Errorf("%s: layer_norm_eps is %v: must be between 0 and 1", t.name, t.Eps)
		}
	}
	if grid := c.Vision.ImageSize / c.Vision.PatchSize; grid > maxGrid {
		return fmt.Errorf("images of %d pixels in patches of %d: at most %d patches side by side are supported", c.Vision.ImageSize, c.Vision.PatchSize, maxGrid)
	}
	return nil
}

// ConfigOf infers the sizes from weights with transformers' names. The weights do not tell the
// number of heads, the epsilon and the activation, which are those of the released models, nor
// whether the image has pixels beyond the last whole patch; an encoder that is missing has
// Base's sizes.
func ConfigOf(sd *nn.StateDict) (Config, error) {
	c := Base()
	var err error
	sizes := func(name string, dims int) []int64 {
		shape, e := sd.Sizes(name, dims)
		if e != nil && err == nil {
			err = e
		}
		if e != nil {
			return make([]int64, dims)
		}
		return shape
	}
	tower := func(t *Tower, prefix string) {
		fc := sizes(prefix+"encoder.layers.0.mlp.fc1.weight", 2)
		t.MLP, t.Width, t.Heads = fc[0], fc[1], max(fc[1]/64, 1)
		if t.Width == 1152 { // so400m
			t.Heads = 16
		}
		for t.Depth = 0; ; t.Depth++ {
			if _, ok := sd.Get(fmt.Sprintf("%sencoder.layers.%d.layer_norm1.weight", prefix, t.Depth)); !ok {
				return
			}
		}
	}
	if _, ok := sd.Get("vision_model.embeddings.patch_embedding.weight"); ok {
		tower(&c.Vision.Tower, "vision_model.")
		c.Vision.PatchSize = sizes("vision_model.embeddings.patch_embedding.weight", 4)[3]
		rows := sizes("vision_model.embeddings.position_embedding.weight", 2)[0]
		grid := int64(math.Round(math.Sqrt(float64(rows))))
		if grid*grid != rows && err == nil {
			err = fmt.Errorf("vision_model.embeddings.position_embedding.weight has %d rows, want a square number of patches", rows)
		}
		if grid > maxGrid && err == nil {
			err = fmt.Errorf("%d patches side by side: at most %d are supported", grid, maxGrid)
		}
		c.Vision.ImageSize = grid * c.Vision.PatchSize
	}
	if _, ok := sd.Get("text_model.embeddings.token_embedding.weight"); ok {
		tower(&c.Text.Tower, "text_model.")
		c.Text.Vocab = sizes("text_model.embeddings.token_embedding.weight", 2)[0]
		c.Text.Context = sizes("text_model.embeddings.position_embedding.weight", 2)[0]
		c.Text.Features = sizes("text_model.head.weight", 2)[0]
	}
	if err == nil {
		err = c.check()
	}
	return c, err
}
