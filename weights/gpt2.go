package weights

import (
	"fmt"
	"regexp"
	"strings"

	"cyclecap/torch"
	"cyclecap/torch/nn"
)

// Buffers of GPT-2's attention in files of older versions of transformers. They
// are masks, not weights.
var gpt2Buffers = regexp.MustCompile(`^h\.\d+\.attn\.(bias|masked_bias)$`)

// LoadGPT2 reads a GPT-2 model with transformers' tensor names and returns it
// without the leading "transformer." and without the head, which must be tied
// to wte.weight.
func LoadGPT2(path string) (*nn.StateDict, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	if err := wants(f, "a GPT-2 model", GPT2); err != nil {
		return nil, err
	}
	sd, err := f.Load()
	if err != nil {
		return nil, err
	}
	out, err := gpt2Names(sd)
	if err != nil {
		return nil, &Error{path, err}
	}
	return out, nil
}

func gpt2Names(in *nn.StateDict) (*nn.StateDict, error) {
	out := nn.NewStateDict()
	var head torch.Tensor
	for _, name := range in.Names() {
		t, _ := in.Get(name)
		if name == "lm_head.weight" {
			head = t
			continue
		}
		name = strings.TrimPrefix(name, "transformer.")
		if gpt2Buffers.MatchString(name) {
			t.Close()
			continue
		}
		out.Add(name, t)
	}
	if head.Defined() {
		defer head.Close()
		wte, ok := out.Get("wte.weight")
		var same bool
		err := torch.Scope(func() error {
			same = ok && fmt.Sprint(wte.Shape()) == fmt.Sprint(head.Shape()) && (wte.DataPtr() == head.DataPtr() || wte.Equal(head))
			return nil
		})
		if err != nil {
			return nil, err
		}
		if !same {
			return nil, fmt.Errorf("lm_head.weight is not tied to wte.weight; GPT-2 requires tied weights")
		}
	}
	return out, nil
}
