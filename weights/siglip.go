package weights

import (
	"regexp"
	"strings"

	"cyclecap/torch/nn"
)

// LoadSigLIP reads a SigLIP with transformers' tensor names: a SiglipModel, or one of its
// encoders alone. keep selects tensors by the names that they have in a SiglipModel; the
// others are on the meta device, as with LoadOnly. A nil keep selects all.
func LoadSigLIP(path string, keep func(name string) bool) (*nn.StateDict, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	if err := wants(f, "a SigLIP of transformers", SigLIP); err != nil {
		return nil, err
	}
	own := keep
	if keep != nil {
		own = func(name string) bool { return keep(siglipName(f, name)) }
	}
	in, err := f.LoadOnly(own)
	if err != nil {
		return nil, err
	}
	out := nn.NewStateDict()
	for _, name := range in.Names() {
		t, _ := in.Get(name)
		if siglipBuffers.MatchString(name) {
			t.Close()
			continue
		}
		out.Add(siglipName(f, name), t)
	}
	return out, nil
}

// Buffers that older versions of transformers saved.
var siglipBuffers = regexp.MustCompile(`(^|\.)embeddings\.position_ids$`)

// siglipName returns the name that a tensor has in a SiglipModel. In the file of one encoder,
// which transformers 5 writes, the names lack the encoder's.
func siglipName(f *File, name string) string {
	switch {
	case !strings.HasPrefix(name, "embeddings.") && !strings.HasPrefix(name, "encoder.") && !strings.HasPrefix(name, "head.") &&
		!strings.HasPrefix(name, "post_layernorm.") && !strings.HasPrefix(name, "final_layer_norm."):
		return name
	case f.has("embeddings.patch_embedding.weight"):
		return "vision_model." + name
	}
	return "text_model." + name
}

func (f *File) has(name string) bool { _, ok := f.Get(name); return ok }

// isSigLIP reports whether the tensors are those of a SigLIP of transformers.
func isSigLIP(f *File) bool {
	return f.has("vision_model.head.probe") || f.has("text_model.head.weight") && f.has("text_model.embeddings.token_embedding.weight") ||
		f.has("head.probe") && f.has("embeddings.patch_embedding.weight") ||
		f.has("head.weight") && f.has("embeddings.token_embedding.weight") && f.has("final_layer_norm.weight")
}

// isOpenCLIPSigLIP reports whether the tensors are those of a SigLIP of open_clip, whose image
// encoder is one of timm's.
func isOpenCLIPSigLIP(f *File) bool { return f.has("visual.trunk.attn_pool.latent") }
