package pipeline

import (
	"fmt"
	"slices"
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
	d.GPT2 = &GPT2{Path: d.Path, Stop: int64(tokenizer.CLIP().EndID())}
	c, from, err := d.decapConfig(f, gpt)
	if err == nil {
		d.GPT2.Model, err = gpt2.LoadConfig(c, gpt)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	d.Notes = append(slices.Clone(d.Notes), fmt.Sprintf("%s: DeCap projects image features onto a memory of text features before it captions them, like the bridge decap of `cyclecap run`; here they are captioned as they are", d.Path))
	d.MaxTokens, d.text = decapTokens, decapText
	return nil
}

// decapConfig returns the configuration in decoder_config.pkl beside the weights or,
// without that file, the published one, and the file that an error is about.
func (d *Decoder) decapConfig(f *weights.File, gpt *nn.StateDict) (c gpt2.Config, from string, err error) {
	data, path, err := weights.DeCapConfig(f)
	if err != nil {
		return c, path, err
	}
	if data != nil {
		if c, err = gpt2.ParseConfig(data); err == nil {
			c, err = c.Of(gpt)
		}
		return c, path, err
	}
	d.GPT2.Notes = append(d.GPT2.Notes, fmt.Sprintf("there is no decoder_config.pkl beside %s: its GPT-2 is assumed to have %d attention heads, as in DeCap's published weights", d.Path, decapHeads))
	c, err = gpt2.Config{NHead: decapHeads, LayerNormEpsilon: 1e-5}.Of(gpt)
	return c, d.Path, err
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
