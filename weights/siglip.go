package weights

import (
	"regexp"

	"cyclecap/torch/nn"
)

// siglipLinear are the weights of linear layers that a CLIP does not have. The input projection of
// the pooling attention is a plain matrix.
var siglipLinear = regexp.MustCompile(`^text_model\.head\.weight$|^vision_model\.head\.(attention\.out_proj|mlp\.fc[12])\.weight$`)

// LoadSigLIP reads a SigLIP from f, with transformers' tensor names: a SiglipModel, or one of its
// encoders alone. keep selects tensors by name; the others are on the meta device, as with
// LoadOnly. A nil keep selects all.
func LoadSigLIP(f *File, keep func(name string) bool) (*nn.StateDict, error) {
	if err := wants(f, "a SigLIP of transformers", SigLIP); err != nil {
		return nil, err
	}
	in, err := f.LoadModel(keep)
	if err != nil {
		return nil, err
	}
	out := nn.NewStateDict()
	for _, name := range in.Names() {
		t, _ := in.Get(name)
		if clipBuffers.MatchString(name) {
			t.Close()
			continue
		}
		out.Add(name, t)
	}
	return out, nil
}

// isSigLIP reports whether the tensors are those of a SigLIP of transformers.
func isSigLIP(f *File) bool {
	return f.has("vision_model.head.probe") || f.has("text_model.head.weight")
}

// isOpenCLIPSigLIP reports whether the tensors are those of a SigLIP of open_clip, whose image
// encoder is one of timm's.
func isOpenCLIPSigLIP(f *File) bool { return f.has("visual.trunk.attn_pool.latent") }
