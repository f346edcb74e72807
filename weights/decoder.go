package weights

import (
	"strings"

	"cyclecap/torch/nn"
)

// NormalizePrefix is a key of File.Meta. In a decoder's file its value is "true"
// or "false" and specifies whether the decoder expects features of length 1
// (ClipCap's normalize_prefix).
const NormalizePrefix = "normalize_prefix"

// LoadDecoder reads a ClipCap checkpoint. It returns the mapper with its
// original names ("clip_project.…") and, if the file contains a complete model,
// its GPT-2 as LoadGPT2 does; otherwise gpt is nil. meta is the file's Meta.
func LoadDecoder(path string) (mapper, gpt *nn.StateDict, meta map[string]string, err error) {
	f, err := Open(path)
	if err != nil {
		return nil, nil, nil, err
	}
	if err := wants(f, "a ClipCap decoder", ClipCapMapper, ClipCapModel); err != nil {
		return nil, nil, nil, err
	}
	sd, err := f.Load()
	if err != nil {
		return nil, nil, nil, err
	}
	mapper = nn.NewStateDict()
	rest := nn.NewStateDict()
	for _, name := range sd.Names() {
		t, _ := sd.Get(name)
		if after, ok := strings.CutPrefix(name, "gpt."); ok {
			rest.Add(after, t)
		} else {
			mapper.Add(name, t)
		}
	}
	if rest.Len() > 0 {
		if gpt, err = gpt2Names(rest); err != nil {
			return nil, nil, nil, &Error{path, err}
		}
	}
	return mapper, gpt, f.Meta, nil
}

// LoadGenerator reads a CycleGAN generator, with cyclecap's tensor names
// ("model.0.weight", …) or those of a plain nn.Sequential ("0.weight", …).
func LoadGenerator(path string) (*nn.StateDict, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	if err := wants(f, "a CycleGAN generator", Generator); err != nil {
		return nil, err
	}
	sd, err := f.Load()
	if err != nil {
		return nil, err
	}
	out := nn.NewStateDict()
	for _, name := range sd.Names() {
		t, _ := sd.Get(name)
		if !strings.HasPrefix(name, "model.") {
			name = "model." + name
		}
		out.Add(name, t)
	}
	return out, nil
}
