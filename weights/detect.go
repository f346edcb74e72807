package weights

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Scheme is a naming scheme for the tensors of a model.
type Scheme string

// The known naming schemes.
const (
	OpenAICLIP       Scheme = "OpenAI CLIP"
	TransformersCLIP Scheme = "transformers CLIP"
	SigLIP           Scheme = "transformers SigLIP"
	OpenCLIPSigLIP   Scheme = "open_clip SigLIP, which is supported with transformers' names only"
	GPT2             Scheme = "transformers GPT-2"
	ClipCapMapper    Scheme = "ClipCap mapper"
	ClipCapModel     Scheme = "ClipCap model"
	DeCapModel       Scheme = "DeCap model"
	Generator        Scheme = "CycleGAN generator"
	Unknown          Scheme = "unknown"
)

// Detect identifies the model in a file by the names of its tensors.
func Detect(f *File) Scheme {
	prefix := func(p string) bool {
		for _, e := range f.Entries {
			if strings.HasPrefix(e.Name, p) {
				return true
			}
		}
		return false
	}
	switch {
	case isSigLIP(f):
		return SigLIP
	case isOpenCLIPSigLIP(f):
		return OpenCLIPSigLIP
	case f.has("visual.conv1.weight"), f.has("token_embedding.weight") && f.has("text_projection"), f.has("text.token_embedding.weight"):
		return OpenAICLIP
	case f.has("vision_model.embeddings.patch_embedding.weight"), f.has("text_model.embeddings.token_embedding.weight"):
		return TransformersCLIP
	case prefix("clip_project.") && prefix("gpt."):
		return ClipCapModel
	case prefix("clip_project.") && prefix("decoder."):
		return DeCapModel
	case prefix("clip_project."):
		return ClipCapMapper
	case f.has("wte.weight"), f.has("transformer.wte.weight"), f.has("h.0.attn.c_attn.weight"), f.has("transformer.h.0.attn.c_attn.weight"):
		return GPT2
	case f.has("model.6.weight") && f.has("model.0.weight"), f.has("6.weight") && f.has("0.weight"), isGenerator(f):
		return Generator
	}
	return Unknown
}

var generatorTensor = regexp.MustCompile(`^(model\.)?\d*[02468]\.(weight|weight_scale|bias)$`)

// isGenerator reports whether a file has nothing but square linear layers of one width,
// with an activation between them: a generator of any depth.
func isGenerator(f *File) bool {
	first, ok := f.Get("model.0.weight")
	if !ok {
		first, ok = f.Get("0.weight")
	}
	if !ok || len(first.Shape) != 2 || first.Shape[0] != first.Shape[1] {
		return false
	}
	for _, e := range f.Entries {
		square := slices.Equal(e.Shape, first.Shape)
		bias := len(e.Shape) == 1 && e.Shape[0] == first.Shape[0]
		if !generatorTensor.MatchString(e.Name) || strings.HasSuffix(e.Name, ".weight") && !square || strings.HasSuffix(e.Name, ".bias") && !bias {
			return false
		}
	}
	return true
}

// Describe returns a description of the model in a file, such as "OpenAI CLIP,
// vision width 768, patches of 32".
func Describe(f *File) string {
	s := Detect(f)
	shape := func(names ...string) []int64 {
		for _, n := range names {
			if e, ok := f.Get(n); ok {
				return e.Shape
			}
		}
		return nil
	}
	switch s {
	case OpenAICLIP, TransformersCLIP:
		if r := shape("visual.layer1.0.conv1.weight"); len(r) == 4 {
			return fmt.Sprintf("%s, ResNet of width %d", s, r[0])
		}
		if c := shape("visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight"); len(c) == 4 {
			return fmt.Sprintf("%s, vision width %d, patches of %d", s, c[0], c[3])
		}
		if c := shape("token_embedding.weight", "text.token_embedding.weight", "text_model.embeddings.token_embedding.weight"); len(c) == 2 {
			return fmt.Sprintf("%s, text encoder of width %d", s, c[1])
		}
	case SigLIP:
		if c := shape("vision_model.embeddings.patch_embedding.weight"); len(c) == 4 {
			return fmt.Sprintf("%s, vision width %d, patches of %d", s, c[0], c[3])
		}
		if c := shape("text_model.embeddings.token_embedding.weight"); len(c) == 2 {
			return fmt.Sprintf("%s, text encoder of width %d", s, c[1])
		}
	case GPT2:
		if w := shape("wte.weight", "transformer.wte.weight", "lm_head.weight"); len(w) == 2 {
			layers := 0
			for _, e := range f.Entries {
				if strings.HasSuffix(e.Name, ".ln_1.weight") {
					layers++
				}
			}
			return fmt.Sprintf("%s, %d layers, width %d, %d tokens", s, layers, w[1], w[0])
		}
	case ClipCapMapper, ClipCapModel:
		if c := shape("clip_project.prefix_const"); len(c) == 2 {
			return fmt.Sprintf("%s, transformer, prefix of %d, width %d", s, c[0], c[1])
		}
		return string(s) + ", MLP"
	case DeCapModel:
		if w := shape("decoder.transformer.wte.weight"); len(w) == 2 {
			return fmt.Sprintf("%s, width %d, %d tokens", s, w[1], w[0])
		}
	case Generator:
		if c := shape("model.0.weight", "0.weight"); len(c) == 2 {
			return fmt.Sprintf("%s, width %d", s, c[0])
		}
	}
	return string(s)
}

// wants returns an error unless the file contains one of the schemes.
func wants(f *File, what string, schemes ...Scheme) error {
	got := Detect(f)
	if slices.Contains(schemes, got) {
		return f.checkShared()
	}
	if got == Unknown {
		var supported []string
		for _, k := range schemes {
			supported = append(supported, string(k))
		}
		return &Error{f.Path, fmt.Errorf("expected %s, but the file contains %s; supported here: %s; `cyclecap inspect` lists the tensors", what, unknown(f), strings.Join(supported, ", "))}
	}
	return &Error{f.Path, fmt.Errorf("expected %s, but the file contains: %s", what, Describe(f))}
}

// checkShared returns an error if tensors of a model, which a net computes with in
// full, share memory to such an extent that they are far larger than the file.
func (f *File) checkShared() error {
	type part struct{ from, to int64 }
	parts := map[string]part{}
	var total, memory float64
	for _, e := range f.Entries {
		size := e.DType.Size()
		total += float64(e.Numel()) * float64(size)
		p, ok := parts[e.Storage]
		if !ok {
			p.from = e.Offset
		}
		parts[e.Storage] = part{min(p.from, e.Offset), max(p.to, e.Offset+e.span()*size)}
	}
	for _, p := range parts {
		memory += float64(p.to - p.from)
	}
	if total > maxCopies*memory+alwaysWrite {
		return &Error{f.Path, fmt.Errorf("its tensors have %.0f bytes, but share %.0f bytes of memory: not the weights of a trained model", total, memory)}
	}
	return nil
}
