package pipeline

import (
	"encoding/json"
	"fmt"
	"strings"

	"cyclecap/data/tokenizer"
	"cyclecap/nets/gpt2"
	"cyclecap/torch/nn"
	"cyclecap/weights"
)

// DeCap's decoder (github.com/dhg-wei/DeCap) is a linear layer and a small GPT-2 that is
// trained from scratch on captions in CLIP's tokens. Its vocabulary is nevertheless
// GPT-2's: the rows from 49,408 on are never used.

const (
	decapHeads  = 4  // attention heads of the published configuration
	decapTokens = 30 // maximum number of tokens in DeCap's decoding
)

// decap sets the GPT-2, the tokenizer and the stop token of DeCap's decoder in f.
func (d *Decoder) decap(f *weights.File, gpt *nn.StateDict) error {
	c, err := d.decapConfig(f, gpt)
	if err != nil {
		return err
	}
	if d.Model.GPT2, err = gpt2.LoadConfig(c, gpt); err != nil {
		return fmt.Errorf("%s: %w", d.Path, err)
	}
	d.Notes = append(d.Notes, fmt.Sprintf("%s: DeCap projects image features onto a memory of text features before it captions them, like the bridge decap of `cyclecap run`; here they are captioned as they are", d.Path))
	d.Stop, d.MaxTokens, d.text = int64(tokenizer.CLIP().EndID()), decapTokens, decapText
	return nil
}

// decapConfig returns the configuration in decoder_config.pkl beside the weights or,
// without that file, the published one.
func (d *Decoder) decapConfig(f *weights.File, gpt *nn.StateDict) (gpt2.Config, error) {
	c, err := gpt2.ConfigOf(gpt)
	if err != nil {
		return c, fmt.Errorf("%s: %w", d.Path, err)
	}
	data, path, err := weights.DeCapConfig(f)
	if err != nil {
		return c, err
	}
	if data == nil {
		c.NHead = decapHeads
		d.Notes = append(d.Notes, fmt.Sprintf("there is no decoder_config.pkl beside %s: its GPT-2 is assumed to have %d attention heads, as in DeCap's published weights", d.Path, decapHeads))
		return c, nil
	}
	keys := struct {
		Heads      int64   `json:"n_head"`
		Epsilon    float64 `json:"layer_norm_epsilon"`
		Activation string  `json:"activation_function"`
		Scaled     bool    `json:"scale_attn_weights"`
		ByLayer    bool    `json:"scale_attn_by_inverse_layer_idx"`
		Cross      bool    `json:"add_cross_attention"`
	}{12, 1e-5, "gelu_new", true, false, false}
	if err := json.Unmarshal(data, &keys); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	switch {
	case keys.Heads < 1 || c.NEmbd%keys.Heads != 0:
		return c, fmt.Errorf("%s: n_head is %d, which does not divide the width of %d", path, keys.Heads, c.NEmbd)
	case keys.Activation != "gelu_new":
		return c, fmt.Errorf("%s: activation_function %q is not supported: must be gelu_new", path, keys.Activation)
	case !keys.Scaled || keys.ByLayer || keys.Cross:
		return c, fmt.Errorf("%s: scale_attn_weights must be true, and scale_attn_by_inverse_layer_idx and add_cross_attention false", path)
	}
	c.NHead, c.LayerNormEpsilon = keys.Heads, keys.Epsilon
	return c, nil
}

// decapText decodes tokens as DeCap does: CLIP's tokenizer, without the special tokens.
// Ids that CLIP does not have, for which DeCap writes the caption "None", are left out.
func decapText(ids []int) (string, error) {
	t := tokenizer.CLIP()
	words := make([]int, 0, len(ids))
	for _, id := range ids {
		if id < t.VocabSize() {
			words = append(words, id)
		}
	}
	text, err := t.Decode(words)
	return strings.NewReplacer("<|startoftext|>", "", "<|endoftext|>", "").Replace(text), err
}
