package gpt2

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"cyclecap/torch"
	"cyclecap/torch/nn"
)

// Config holds the settings of a GPT-2 that change its numbers, under the names of
// transformers' GPT2Config. Settings that GPT2Config has by default are the zero
// values, apart from sizes and LayerNormEpsilon.
type Config struct {
	VocabSize  int64
	NPositions int64
	NEmbd      int64
	NLayer     int64
	NHead      int64
	NInner     int64 // width inside the MLP; 0: 4 NEmbd
	// LayerNormEpsilon is 1e-5 in every released GPT-2.
	LayerNormEpsilon float64
	Activation       string // activation_function; empty: gelu_new
	// UnscaledAttn is scale_attn_weights=False: attention scores are not divided by
	// the square root of the width of a head.
	UnscaledAttn bool
	// InverseLayerScale is scale_attn_by_inverse_layer_idx: the attention scores of
	// layer i, counted from 1, are divided by i.
	InverseLayerScale bool
	// Untied is tie_word_embeddings=False: the head has a matrix of its own,
	// lm_head.weight, instead of wte.weight.
	Untied bool
}

// Small returns the configuration of the released "gpt2", with 124 million parameters.
func Small() Config {
	return Config{VocabSize: 50257, NPositions: 1024, NEmbd: 768, NLayer: 12, NHead: 12, LayerNormEpsilon: 1e-5}
}

// activations are the values of activation_function, with the operators of
// transformers' ACT2FN in the same order.
var activations = map[string]func(torch.Tensor) torch.Tensor{
	"gelu_new":          torch.Tensor.GeluNew,
	"gelu":              func(x torch.Tensor) torch.Tensor { return x.Gelu() },
	"gelu_pytorch_tanh": func(x torch.Tensor) torch.Tensor { return x.Gelu(torch.WithApproximate("tanh")) },
	"gelu_python": func(x torch.Tensor) torch.Tensor {
		return x.MulScalar(0.5).Mul(x.DivScalar(math.Sqrt2).Erf().AddScalar(1))
	},
	"gelu_fast": func(x torch.Tensor) torch.Tensor {
		inner := x.MulScalar(0.7978845608).Mul(x.MulScalar(0.044715).Mul(x).AddScalar(1))
		return x.MulScalar(0.5).Mul(inner.Tanh().AddScalar(1))
	},
	"quick_gelu": torch.Tensor.QuickGelu,
	"relu":       torch.Tensor.Relu,
	"silu":       torch.Tensor.Silu,
	"swish":      torch.Tensor.Silu,
	"tanh":       torch.Tensor.Tanh,
}

// fused are those of the activations that a packed layer applies itself. They are the
// same functions with other rounding.
var fused = map[string]torch.Activation{
	"gelu_new": torch.GELUTanh, "gelu_pytorch_tanh": torch.GELUTanh, "gelu_fast": torch.GELUTanh,
	"gelu": torch.GELU, "gelu_python": torch.GELU, "relu": torch.ReLU, "silu": torch.SiLU, "swish": torch.SiLU,
	"quick_gelu": torch.QuickGELU,
}

func (c Config) activation() string {
	if c.Activation == "" {
		return "gelu_new"
	}
	return c.Activation
}

func (c Config) inner() int64 {
	if c.NInner == 0 {
		return 4 * c.NEmbd
	}
	return c.NInner
}

// scale returns the factor of the attention scores of a layer, counted from 0.
func (c Config) scale(layer int) float64 {
	s := 1.0
	if !c.UnscaledAttn {
		s = 1 / math.Sqrt(float64(c.NEmbd/c.NHead))
	}
	if c.InverseLayerScale {
		s /= float64(layer + 1)
	}
	return s
}

// check returns an error for settings that no model can have, under transformers' names.
func (c Config) check() error {
	for _, size := range []struct {
		name  string
		value int64
	}{{"vocab_size", c.VocabSize}, {"n_positions", c.NPositions}, {"n_embd", c.NEmbd}, {"n_layer", c.NLayer}, {"n_head", c.NHead}, {"n_inner", c.inner()}} {
		if size.value < 1 {
			return fmt.Errorf("%s must be at least 1, got %d", size.name, size.value)
		}
	}
	if c.NEmbd%c.NHead != 0 {
		return fmt.Errorf("n_embd = %d is not a multiple of n_head = %d", c.NEmbd, c.NHead)
	}
	if e := c.LayerNormEpsilon; !(e >= 0) || math.IsInf(e, 0) {
		return fmt.Errorf("layer_norm_epsilon must be a finite number of at least 0, got %g", e)
	}
	if _, ok := activations[c.activation()]; !ok {
		return fmt.Errorf("activation_function %q is not supported: must be one of %s", c.Activation, strings.Join(slices.Sorted(maps.Keys(activations)), ", "))
	}
	return nil
}

// names are further names that GPT2Config accepts for its keys.
var names = map[string]string{"n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads", "n_positions": "max_position_embeddings"}

// ParseConfig reads the config.json of a GPT-2. Like GPT2Config, it uses the defaults
// of "gpt2" for keys that are missing; but sizes that the weights tell are then 0, and
// Config.Of takes them from the weights. A key that changes numbers in a way that is
// not supported is an error that names it.
//
// reorder_and_upcast_attn is accepted and has no effect, as with transformers' default
// attention (SDPA): it concerns only half precision with attn_implementation="eager".
func ParseConfig(data []byte) (Config, error) {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(data, &keys); err != nil || keys == nil {
		return Config{}, fmt.Errorf("not a JSON object")
	}
	c := Config{NHead: 12, LayerNormEpsilon: 1e-5}
	p := parser{keys: keys}
	if kind := "gpt2"; p.get("model_type", &kind, "a string") && kind != "gpt2" {
		return Config{}, &OtherModelError{kind}
	}
	sizes := map[string]*int64{"vocab_size": &c.VocabSize, "n_positions": &c.NPositions, "n_embd": &c.NEmbd, "n_layer": &c.NLayer, "n_head": &c.NHead}
	for _, key := range slices.Sorted(maps.Keys(sizes)) {
		var other int64
		given := p.get(key, sizes[key], "a whole number")
		if given && p.err == nil && *sizes[key] < 1 {
			p.fail("%s must be at least 1, got %d", key, *sizes[key])
		}
		if alias := names[key]; alias != "" && p.get(alias, &other, "a whole number") {
			if given && other != *sizes[key] {
				p.fail("%s = %d contradicts %s = %d", alias, other, key, *sizes[key])
			}
			*sizes[key] = other
		}
	}
	p.null = true
	if p.get("n_inner", &c.NInner, "a whole number or null") && p.err == nil && c.NInner < 1 {
		p.fail("n_inner must be at least 1, got %d", c.NInner)
	}
	p.null = false
	p.get("layer_norm_epsilon", &c.LayerNormEpsilon, "a number")
	p.get("activation_function", &c.Activation, "a string")
	scaled, tied, upcast, cross := true, true, false, false
	p.get("scale_attn_weights", &scaled, "true or false")
	p.get("scale_attn_by_inverse_layer_idx", &c.InverseLayerScale, "true or false")
	p.get("reorder_and_upcast_attn", &upcast, "true or false")
	p.get("tie_word_embeddings", &tied, "true or false")
	p.get("add_cross_attention", &cross, "true or false")
	c.UnscaledAttn, c.Untied = !scaled, !tied
	if cross {
		p.fail("add_cross_attention is not supported: this GPT-2 attends to the output of an encoder")
	}
	p.refuse("quantization_config", "the weights are quantised; save the model without quantisation")
	p.refuse("per_layer_config", "every layer must have the same settings")
	p.refuse("pruned_heads", "save the model without pruned heads")
	var code map[string]json.RawMessage
	if p.get("auto_map", &code, "an object") {
		for _, class := range []string{"AutoModel", "AutoModelForCausalLM"} {
			if code[class] != nil {
				p.fail("auto_map is not supported: the model is computed by Python code of its own (%s)", class)
			}
		}
	}
	if p.err != nil {
		return Config{}, p.err
	}
	filled := c // sizes that are not given do not matter here
	for _, size := range []*int64{&filled.VocabSize, &filled.NPositions, &filled.NLayer} {
		*size = max(*size, 1)
	}
	if filled.NEmbd == 0 {
		filled.NEmbd = c.NHead
	}
	return c, filled.check()
}

// OtherModelError reports a config.json of another kind of model.
type OtherModelError struct {
	Type string // its model_type
}

func (e *OtherModelError) Error() string {
	return fmt.Sprintf("model_type is %q, not \"gpt2\"", e.Type)
}

// parser reads keys of a JSON object, up to the first error.
type parser struct {
	keys map[string]json.RawMessage
	null bool // null counts as a missing key
	err  error
}

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf(format, args...)
	}
}

// get stores the value of a key, and reports whether it is there.
func (p *parser) get(key string, value any, want string) bool {
	raw, ok := p.keys[key]
	if !ok || p.err != nil {
		return false
	}
	if string(raw) == "null" {
		if !p.null {
			p.fail("%s must be %s, got null", key, want)
		}
		return false
	}
	if err := json.Unmarshal(raw, value); err != nil {
		p.fail("%s must be %s, got %.60s", key, want, raw)
	}
	return true
}

// refuse fails if a key has a value.
func (p *parser) refuse(key, why string) {
	switch raw := strings.TrimSpace(string(p.keys[key])); raw {
	case "", "null", "{}", "[]", "false":
	default:
		p.fail("%s is not supported: %s", key, why)
	}
}

// JSON returns the configuration as a config.json, which ParseConfig and transformers
// can read.
func (c Config) JSON() []byte {
	keys := map[string]any{
		"model_type": "gpt2", "architectures": []string{"GPT2LMHeadModel"},
		"vocab_size": c.VocabSize, "n_positions": c.NPositions, "n_embd": c.NEmbd, "n_layer": c.NLayer, "n_head": c.NHead,
		"layer_norm_epsilon": c.LayerNormEpsilon, "activation_function": c.activation(),
		"scale_attn_weights": !c.UnscaledAttn, "scale_attn_by_inverse_layer_idx": c.InverseLayerScale, "tie_word_embeddings": !c.Untied,
	}
	if c.NInner != 0 {
		keys["n_inner"] = c.NInner
	}
	data, err := json.Marshal(keys)
	if err != nil {
		panic(err) // check refuses numbers that are not finite
	}
	return append(data, '\n')
}

// headWidth is the width of an attention head in all released GPT-2.
const headWidth = 64

// ConfigOf infers the settings from weights. They do not tell the number of heads nor
// anything else but sizes: ConfigOf assumes what all released sizes of GPT-2 have,
// heads of width 64 among it.
func ConfigOf(sd *nn.StateDict) (Config, error) {
	c, err := Config{LayerNormEpsilon: 1e-5}.sized(sd)
	if err != nil {
		return Config{}, err
	}
	if c.NEmbd%headWidth != 0 {
		return Config{}, fmt.Errorf("GPT-2's width %d is not a multiple of %d, the width of a head in all released sizes: its number of heads must be specified in a config.json beside the weights", c.NEmbd, headWidth)
	}
	c.NHead = c.NEmbd / headWidth
	return c, nil
}

// Of returns the configuration with the sizes of the weights. A size that contradicts
// them is an error that names both.
func (c Config) Of(sd *nn.StateDict) (Config, error) {
	c, err := c.sized(sd)
	if err != nil {
		return Config{}, err
	}
	return c, c.check()
}

func (c Config) sized(sd *nn.StateDict) (Config, error) {
	_, tokens := sd.Get("wte.weight")
	_, head := sd.Get("lm_head.weight")
	table := "wte.weight"
	if !tokens && head && !c.Untied {
		table = "lm_head.weight" // the same tensor, saved under its other name
	}
	wte, err := sd.Sizes(table, 2)
	if err != nil {
		return Config{}, fmt.Errorf("not a GPT-2: %w", err)
	}
	wpe, err := sd.Sizes("wpe.weight", 2)
	if err != nil {
		return Config{}, fmt.Errorf("not a GPT-2: %w", err)
	}
	fc, err := sd.Sizes("h.0.mlp.c_fc.weight", 2)
	if err != nil {
		return Config{}, fmt.Errorf("not a GPT-2: %w", err)
	}
	var layers int64
	for {
		if _, ok := sd.Get(fmt.Sprintf("h.%d.ln_1.weight", layers)); !ok {
			break
		}
		layers++
	}
	for _, s := range []struct {
		key    string
		size   *int64
		have   int64
		tensor string
	}{
		{"vocab_size", &c.VocabSize, wte[0], fmt.Sprintf("%s has shape %v", table, wte)},
		{"n_embd", &c.NEmbd, wte[1], fmt.Sprintf("%s has shape %v", table, wte)},
		{"n_positions", &c.NPositions, wpe[0], fmt.Sprintf("wpe.weight has shape %v", wpe)},
		{"n_layer", &c.NLayer, layers, fmt.Sprintf("the weights have %d layers", layers)},
		{"n_inner", &c.NInner, fc[1], fmt.Sprintf("h.0.mlp.c_fc.weight has shape %v", fc)},
	} {
		if *s.size != 0 && *s.size != s.have {
			return Config{}, fmt.Errorf("%s is %d, but %s", s.key, *s.size, s.tensor)
		}
		*s.size = s.have
	}
	if c.NInner == 4*c.NEmbd {
		c.NInner = 0
	}
	switch {
	case c.Untied && !head:
		return Config{}, fmt.Errorf("tie_word_embeddings is false, but the weights contain no lm_head.weight")
	case tokens && head && !c.Untied:
		// As in transformers, two matrices that differ are not tied, whatever the
		// configuration says.
		if c.Untied, err = differ(sd); err != nil {
			return Config{}, err
		}
	}
	return c, nil
}

// differ reports whether the head and the embedding are different matrices.
func differ(sd *nn.StateDict) (bool, error) {
	wte, _ := sd.Get("wte.weight")
	head, _ := sd.Get("lm_head.weight")
	if !slices.Equal(wte.Shape(), head.Shape()) || wte.DType() != head.DType() {
		return true, nil
	}
	same := false
	err := torch.Scope(func() error {
		same = wte.DataPtr() == head.DataPtr() || wte.Equal(head)
		return nil
	})
	return !same, err
}
