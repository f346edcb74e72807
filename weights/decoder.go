package weights

import (
	"regexp"
	"strings"

	"cyclecap/torch/nn"
)

// NormalizePrefix is a key of File.Meta. In a decoder's file its value is "true"
// or "false" and specifies whether the decoder expects features of length 1
// (ClipCap's normalize_prefix).
const NormalizePrefix = "normalize_prefix"

// MeanRemoved is a key of File.Meta, in a decoder's file: "true" if the mean of the
// features was subtracted in training (C3's).
const MeanRemoved = "mean_removed"

// The weights of the linear layers of mappers and generators.
var (
	mapperLinear = regexp.MustCompile(`^clip_project\.(linear|model\.\d+|transformer\.layers\.\d+\.` +
		`(attn\.(to_queries|to_keys_values|project)|mlp\.fc[12]))\.weight$`)
	generatorLinear = regexp.MustCompile(`^(model\.)?\d+\.weight$`)
)

// LoadDecoder reads the checkpoint of a decoder from f: ClipCap's, CapDec's (the same classes)
// or DeCap's. It returns the mapper with its original names ("clip_project.…") and, if
// the file contains a complete model, its GPT-2 as LoadGPT2 does; otherwise gpt is nil.
// Detect tells the kind of f.
func LoadDecoder(f *File) (mapper, gpt *nn.StateDict, err error) {
	if err := wants(f, "a ClipCap or DeCap decoder", ClipCapMapper, ClipCapModel, DeCapModel); err != nil {
		return nil, nil, err
	}
	sd, err := f.LoadModel(nil)
	if err != nil {
		return nil, nil, err
	}
	inside := "gpt."
	if Detect(f) == DeCapModel {
		inside = "decoder."
	}
	mapper = nn.NewStateDict()
	rest := nn.NewStateDict()
	for _, name := range sd.Names() {
		t, _ := sd.Get(name)
		if after, ok := strings.CutPrefix(name, inside); ok {
			rest.Add(after, t)
		} else {
			mapper.Add(name, t)
		}
	}
	if rest.Len() > 0 {
		if gpt, err = gpt2Names(rest); err != nil {
			return nil, nil, &Error{f.Path, err}
		}
	}
	return mapper, gpt, nil
}

// LoadGenerator reads a CycleGAN generator from f, with cyclecap's tensor names
// ("model.0.weight", …) or those of a plain nn.Sequential ("0.weight", …).
func LoadGenerator(f *File) (*nn.StateDict, error) {
	if err := wants(f, "a CycleGAN generator", Generator); err != nil {
		return nil, err
	}
	sd, err := f.LoadModel(nil)
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
