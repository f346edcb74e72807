package clip

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// ParseConfig reads transformers' config.json of a CLIPModel, a
// CLIPVisionModelWithProjection or a CLIPTextModelWithProjection, or open_clip's
// open_clip_config.json, of which it also takes the model_cfg alone (the files in its
// folder model_configs). Missing keys have the default of the library. It returns an
// error for a key that changes the features of an encoder of part in a way that is not
// supported.
func ParseConfig(data []byte, part Part) (Config, error) {
	var top map[string]json.RawMessage
	if err := json.Unmarshal(data, &top); err != nil {
		return Config{}, fmt.Errorf("not a JSON object: %w", err)
	}
	if inner, ok := top["model_cfg"]; ok {
		top = nil
		if err := json.Unmarshal(inner, &top); err != nil {
			return Config{}, fmt.Errorf("model_cfg: not a JSON object: %w", err)
		}
		return openCLIP(top, part)
	}
	if _, ok := top["vision_cfg"]; ok {
		return openCLIP(top, part)
	}
	return transformersConfig(top, part)
}

// object reads the keys of a JSON object, and remembers the first error and the keys
// that it was asked for.
type object struct {
	name   string // of the object, for errors
	values map[string]json.RawMessage
	known  map[string]bool
	err    error
}

func newObject(name string, values map[string]json.RawMessage) *object {
	return &object{name: name, values: values, known: map[string]bool{}}
}

func (o *object) key(name string) string {
	if o.name == "" {
		return name
	}
	return o.name + "." + name
}

func (o *object) fail(key, format string, args ...any) {
	if o.err == nil {
		o.err = fmt.Errorf("%s: %s", o.key(key), fmt.Sprintf(format, args...))
	}
}

// get decodes a value, unless it is missing or null.
func get[T any](o *object, key string, missing T) T {
	o.known[key] = true
	raw, ok := o.values[key]
	if !ok || string(raw) == "null" {
		return missing
	}
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			o.fail(key, "must be %s, got %s", kinds[fmt.Sprintf("%T", v)], raw)
		} else {
			o.fail(key, "%v", err)
		}
		return missing
	}
	return v
}

// kinds are the words for the types of values.
var kinds = map[string]string{"int64": "a whole number", "float64": "a number", "bool": "true or false", "string": "a string"}

// size reads a number that must be positive.
func (o *object) size(key string, missing int64) int64 {
	n := get(o, key, missing)
	if n < 1 {
		o.fail(key, "must be at least 1, got %d", n)
	}
	return n
}

// side reads the side of a square, a number or a list of two equal ones.
func (o *object) side(key string, missing int64) int64 {
	var pair []int64
	if json.Unmarshal(o.values[key], &pair) == nil && len(pair) > 0 {
		o.known[key] = true
		if len(pair) != 2 || pair[0] != pair[1] || pair[0] < 1 {
			o.fail(key, "must be a number or two equal ones, since only square images and patches are supported, got %v", pair)
			return missing
		}
		return pair[0]
	}
	return o.size(key, missing)
}

// epsilon reads the epsilon of layer norms.
func (o *object) epsilon(key string, missing float64) float64 {
	v := get(o, key, missing)
	if !(v > 0) {
		o.fail(key, "must be above 0, got %v", v)
	}
	return v
}

// only returns an error unless a key is missing or has one of the values, as JSON.
func (o *object) only(key string, values ...string) {
	o.known[key] = true
	if raw, ok := o.values[key]; ok && string(raw) != "null" && !slices.Contains(values, string(raw)) {
		o.fail(key, "%s is not supported, only %s", raw, strings.Join(values, " or "))
	}
}

// unknown returns an error for a key that was not asked for.
func (o *object) unknown() {
	for _, key := range slices.Sorted(maps.Keys(o.values)) {
		if !o.known[key] {
			o.fail(key, "this key is not supported")
		}
	}
}

// member returns the object under a key, or nil.
func (o *object) member(key string) *object {
	values := get[map[string]json.RawMessage](o, key, nil)
	if values == nil {
		return nil
	}
	return newObject(o.key(key), values)
}

// transformersConfig reads a config.json of transformers.
func transformersConfig(top map[string]json.RawMessage, part Part) (c Config, err error) {
	o := newObject("", top)
	kind := get(o, "model_type", "")
	if kind == "" && (o.values["vision_config"] != nil || o.values["text_config"] != nil) {
		kind = "clip"
	}
	switch kind {
	case "clip":
		embed := o.size("projection_dim", 512)
		// The dict of either tower takes precedence, as in transformers.
		tower := func(name string) *object {
			if d := o.member(name + "_dict"); d != nil {
				return d
			}
			if d := o.member(name); d != nil {
				return d
			}
			return newObject(name, nil)
		}
		vision, text := tower("vision_config"), tower("text_config")
		c.transformersVision(vision)
		c.transformersText(text)
		c.EmbedDim = embed
		return c, firstError(part, o.err, vision.err, text.err)
	case "clip_vision_model":
		if part != Image {
			return c, fmt.Errorf("model_type clip_vision_model: a CLIP without a text encoder")
		}
		c.transformersVision(o)
		return c, o.err
	case "clip_text_model":
		if part != Text {
			return c, fmt.Errorf("model_type clip_text_model: a CLIP without an image encoder")
		}
		c.transformersText(o)
		return c, o.err
	case "":
		return c, fmt.Errorf("not the configuration of a CLIP: it has neither transformers' model_type nor open_clip's model_cfg")
	}
	return c, fmt.Errorf("model_type %q is not supported, only clip, clip_vision_model and clip_text_model", kind)
}

// firstError returns the first error that matters to part.
func firstError(part Part, both, vision, text error) error {
	switch {
	case both != nil:
		return both
	case vision != nil && part != Text:
		return vision
	case part != Image:
		return text
	}
	return nil
}

func (c *Config) transformersVision(o *object) {
	c.EmbedDim = o.size("projection_dim", 512)
	c.VisionWidth, c.VisionMLP = o.size("hidden_size", 768), o.size("intermediate_size", 3072)
	c.VisionDepth, c.VisionHeads = o.size("num_hidden_layers", 12), o.size("num_attention_heads", 12)
	c.ImageSize, c.PatchSize = o.side("image_size", 224), o.side("patch_size", 32)
	c.VisionActivation, c.VisionEpsilon = o.activation("hidden_act"), o.epsilon("layer_norm_eps", 1e-5)
	o.only("num_channels", "3")
	o.only("pruned_heads", "{}")
}

func (c *Config) transformersText(o *object) {
	c.EmbedDim = o.size("projection_dim", 512)
	c.Vocab, c.Context = o.size("vocab_size", 49408), o.size("max_position_embeddings", 77)
	c.TextWidth, c.TextMLP = o.size("hidden_size", 512), o.size("intermediate_size", 2048)
	c.TextDepth, c.TextHeads = o.size("num_hidden_layers", 12), o.size("num_attention_heads", 8)
	c.TextActivation, c.TextEpsilon = o.activation("hidden_act"), o.epsilon("layer_norm_eps", 1e-5)
	o.only("pruned_heads", "{}")
	// Configurations from before transformers 4.31 say 2, which is not CLIP's end
	// token; for them, transformers takes the largest id.
	if c.EndToken = get[int64](o, "eos_token_id", 49407); c.EndToken == 2 {
		c.EndToken, c.TextPool = 0, AtLargest
	} else {
		c.TextPool = AtEndToken
	}
}

func (o *object) activation(key string) Activation {
	var a Activation
	if err := a.UnmarshalText([]byte(get(o, key, "quick_gelu"))); err != nil {
		o.fail(key, "%v", err)
	}
	return a
}

// openCLIP reads the model_cfg of open_clip.
func openCLIP(top map[string]json.RawMessage, part Part) (c Config, err error) {
	o := newObject("", top)
	c.EmbedDim = o.size("embed_dim", 0)
	act := GELU
	if get(o, "quick_gelu", false) {
		act = QuickGELU
	}
	for _, key := range []string{"custom_text", "init_logit_scale", "init_logit_bias", "nonscalar_logit_scale", "output_dict", "cast_dtype"} {
		o.known[key] = true // change no feature
	}
	o.only("multimodal_cfg")
	vision, text := o.member("vision_cfg"), o.member("text_cfg")
	o.unknown()
	if vision == nil || text == nil {
		o.fail("vision_cfg", "the configuration must have this key and text_cfg")
		return c, o.err
	}
	c.openVision(vision, act)
	c.openText(text, act)
	return c, firstError(part, o.err, vision.err, text.err)
}

func (c *Config) openVision(o *object, act Activation) {
	o.only("timm_model_name")
	c.VisionWidth = o.size("width", 768)
	head := o.size("head_width", 64)
	var blocks []int64
	if json.Unmarshal(o.values["layers"], &blocks) == nil && blocks != nil {
		o.known["layers"] = true
		if len(blocks) != len(c.ResNet) || slices.Min(blocks) < 1 {
			o.fail("layers", "must be a number or four numbers of at least 1, got %v", blocks)
			return
		}
		copy(c.ResNet[:], blocks)
		c.ImageSize = o.side("image_size", 224)
		if c.VisionHeads = 32 * c.VisionWidth / max(1, head); c.ImageSize%reduction != 0 {
			o.fail("image_size", "must be a multiple of %d with a ResNet, got %d", reduction, c.ImageSize)
		}
		o.known["patch_size"], o.known["mlp_ratio"] = true, true
		return
	}
	c.VisionDepth, c.VisionHeads = o.size("layers", 12), c.VisionWidth/max(1, head)
	c.ImageSize, c.PatchSize = o.side("image_size", 224), o.side("patch_size", 16)
	c.AveragePool = o.oneOf("pool_type", "tok", "avg") == 1
	c.NoPreNorm, c.NormAfterPool = get(o, "no_ln_pre", false), get(o, "final_ln_after_pool", false)
	o.only("attentional_pool", "false")
	// These change no feature of a trained model.
	for _, key := range []string{"patch_dropout", "pos_embed_type", "attn_pooler_queries", "attn_pooler_heads",
		"timm_model_pretrained", "timm_pool", "timm_proj", "timm_proj_bias", "timm_drop", "timm_drop_path"} {
		o.known[key] = true
	}
	c.VisionMLP, c.VisionActivation, c.VisionEpsilon, c.VisionLayerScale = o.openBlocks(c.VisionWidth, act)
}

func (c *Config) openText(o *object, act Activation) {
	o.only("hf_model_name")
	c.Context, c.Vocab = o.size("context_length", 77), o.size("vocab_size", 49408)
	c.TextWidth, c.TextHeads, c.TextDepth = o.size("width", 512), o.size("heads", 8), o.size("layers", 12)
	c.TextPool = []Pooling{AtLargest, AtEndToken, AtFirst, AtLast}[o.oneOf("pool_type", "argmax", "eos", "first", "last")]
	if end := get[int64](o, "eos_id", 2); c.TextPool == AtEndToken {
		c.EndToken = end
	}
	c.NotCausal = get(o, "no_causal_mask", false)
	o.only("embed_cls", "false")
	o.only("proj_bias", "false")
	o.only("proj_type", `"linear"`)
	// open_clip does not use the first of these for text.
	for _, key := range []string{"final_ln_after_pool", "pad_id", "hf_model_pretrained", "hf_proj_type", "hf_pooler_type"} {
		o.known[key] = true
	}
	for _, key := range []string{"hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs"} {
		o.known[key] = true
		if raw := string(o.values[key]); raw != "" && raw != "null" && raw != `""` && raw != "{}" && c.Tokenizer == "" {
			c.Tokenizer = key + " " + raw
		}
	}
	c.TextMLP, c.TextActivation, c.TextEpsilon, c.TextLayerScale = o.openBlocks(c.TextWidth, act)
}

// openBlocks reads the keys that are the same for both towers.
func (o *object) openBlocks(width int64, act Activation) (mlp int64, activation Activation, epsilon float64, scale bool) {
	mlp = int64(float64(width) * get(o, "mlp_ratio", 4.))
	if mlp < 1 {
		o.fail("mlp_ratio", "must be above 0, got %s", o.values["mlp_ratio"])
	}
	scale = get[*float64](o, "ls_init_value", nil) != nil
	epsilon = 1e-5
	if norm := o.member("norm_kwargs"); norm != nil {
		epsilon = norm.epsilon("eps", epsilon)
		norm.unknown()
		o.err = errors.Join(o.err, norm.err)
	}
	if kwargs := o.member("act_kwargs"); kwargs != nil && act == GELU {
		if kwargs.oneOf("approximate", "none", "tanh") == 1 {
			act = GELUTanh
		}
		kwargs.unknown()
		o.err = errors.Join(o.err, kwargs.err)
	} else if kwargs != nil && len(kwargs.values) > 0 {
		o.fail("act_kwargs", "not supported with quick_gelu")
	}
	o.known["output_tokens"] = true
	o.only("block_type", `"default"`)
	for _, key := range []string{"qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"} {
		o.only(key, "false")
	}
	o.unknown()
	return mlp, act, epsilon, scale
}

// oneOf returns the index of a string in values, of which the first is the default.
func (o *object) oneOf(key string, values ...string) int {
	s := get(o, key, values[0])
	i := slices.Index(values, s)
	if i < 0 {
		o.fail(key, "%q is not supported, only %s", s, strings.Join(values, ", "))
		return 0
	}
	return i
}

// Metadata returns the configuration as text for the metadata of a weights file.
func (c Config) Metadata() string {
	text, err := json.Marshal(c)
	if err != nil {
		panic(err) // a Config contains nothing that cannot be encoded
	}
	return string(text)
}

// FromMetadata reads what Metadata returned.
func FromMetadata(text string) (c Config, err error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, err
	}
	if c.TextPool < AtLargest || c.TextPool > AtLast || c.VisionEpsilon < 0 || c.TextEpsilon < 0 {
		return c, fmt.Errorf("TextPool %d, VisionEpsilon %g, TextEpsilon %g: out of range", c.TextPool, c.VisionEpsilon, c.TextEpsilon)
	}
	return c, nil
}

// MarshalText returns transformers' name.
func (a Activation) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads transformers' name.
func (a *Activation) UnmarshalText(name []byte) error {
	i := slices.Index(activations, string(name))
	if i < 0 {
		return fmt.Errorf("the activation %q is not supported, only %s", name, strings.Join(activations, ", "))
	}
	*a = Activation(i)
	return nil
}
