package weights

import (
	"fmt"
	"regexp"
	"strings"

	"cyclecap/torch/nn"
)

// GPT2Config, GPT2Tokenizer and GPT2Merges are keys of File.Meta, in the file of a decoder that
// contains its GPT-2: the GPT-2's config.json, and the fingerprint of its tokenizer.
// GPT2Merges are the merges of the tokenizer, as in merges.txt, if they are a part of
// GPT-2's.
const (
	GPT2Config    = "gpt2_config"
	GPT2Tokenizer = "gpt2_tokenizer"
	GPT2Merges    = "gpt2_merges"
)

// What a GPT-2 file may contain besides the language model: the masks of attention, which
// older versions of transformers stored, and the second head of GPT2DoubleHeadsModel.
var gpt2Unused = regexp.MustCompile(`^h\.\d+\.attn\.(bias|masked_bias)$|^multiple_choice_head\.`)

// gpt2Conv1D are the weights of the linear layers but the head, also in a decoder's file. They are
// [in, out].
var gpt2Conv1D = regexp.MustCompile(`(^|\.)h\.\d+\.(attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.weight$`)

// gpt2Head ends the name of the head.
const gpt2Head = "lm_head.weight"

// gpt2Embedding returns the name of the embedding that belongs to a head.
func gpt2Embedding(head string, has func(name string) bool) (string, bool) {
	prefix, ok := strings.CutSuffix(head, gpt2Head)
	for _, name := range []string{prefix + "wte.weight", prefix + "transformer.wte.weight"} {
		if ok && has(name) {
			return name, true
		}
	}
	return "", false
}

// LoadGPT2 reads a GPT-2 model from f, with transformers' tensor names, and returns it
// without the leading "transformer.". The head, lm_head.weight, is among the tensors only
// if the file contains it. keep selects tensors by their names without "transformer.";
// the others are on the meta device, as with LoadOnly. A nil keep selects all.
func LoadGPT2(f *File, keep func(name string) bool) (*nn.StateDict, error) {
	if err := wants(f, "a GPT-2 model", GPT2); err != nil {
		return nil, err
	}
	own := keep
	if keep != nil {
		own = func(name string) bool { return keep(strings.TrimPrefix(name, "transformer.")) }
	}
	sd, err := f.LoadModel(own)
	if err != nil {
		return nil, err
	}
	out, err := gpt2Names(sd)
	if err != nil {
		return nil, &Error{f.Path, err}
	}
	return out, nil
}

func gpt2Names(in *nn.StateDict) (*nn.StateDict, error) {
	out := nn.NewStateDict()
	for _, full := range in.Names() {
		t, _ := in.Get(full)
		name := strings.TrimPrefix(full, "transformer.")
		if gpt2Unused.MatchString(name) {
			t.Close()
			continue
		}
		if _, twice := out.Get(name); twice {
			in.Close()
			return nil, fmt.Errorf("the file contains %s both with and without the prefix \"transformer.\"", name)
		}
		out.Add(name, t)
	}
	return out, nil
}
