package weights

import (
	"fmt"
	"regexp"
	"strings"

	"cyclecap/torch"
	"cyclecap/torch/nn"
)

// CLIPConfig is a key of File.Meta: the configuration of a CLIP whose file says it
// (clip.Config.Metadata).
const CLIPConfig = "clip_config"

// LoadCLIP reads a CLIP, or one encoder of it, from f, with OpenAI's, open_clip's or
// transformers' tensor names, and returns it with OpenAI's. keep selects tensors by their
// OpenAI names; the others are on the meta device, as with LoadOnly. A nil keep selects
// all.
func LoadCLIP(f *File, keep func(name string) bool) (sd *nn.StateDict, err error) {
	if err := wants(f, "a CLIP model", OpenAICLIP, TransformersCLIP); err != nil {
		return nil, err
	}
	rename := func(name string) string { return name }
	if Detect(f) == TransformersCLIP {
		rename = openAIName
	} else if f.has(customText + "token_embedding.weight") {
		rename = func(name string) string { return strings.TrimPrefix(name, customText) }
	}
	own := keep
	if keep != nil {
		own = func(name string) bool { return keep(rename(name)) }
	}
	if err := projected(f, keep); err != nil {
		return nil, &Error{f.Path, err}
	}
	loaded, err := f.LoadModel(own)
	if err != nil {
		return nil, err
	}
	if Detect(f) == TransformersCLIP {
		sd, err = openAINames(loaded)
	} else {
		sd, err = renamed(loaded, rename)
	}
	if err != nil {
		loaded.Close()
		return nil, &Error{f.Path, err}
	}
	return sd, nil
}

// projected returns an error if an encoder of transformers that is wanted has no
// projection to features. keep is LoadCLIP's.
func projected(f *File, keep func(name string) bool) error {
	if Detect(f) != TransformersCLIP {
		return nil
	}
	for _, e := range []struct{ part, tensor, projection, class string }{
		{"image", "vision_model.embeddings.patch_embedding.weight", "visual_projection.weight", "CLIPVisionModel"},
		{"text", "text_model.embeddings.token_embedding.weight", "text_projection.weight", "CLIPTextModel"},
	} {
		_, there := f.Get(e.tensor)
		_, has := f.Get(e.projection)
		if there && !has && (keep == nil || keep(openAIName(e.projection))) {
			return fmt.Errorf("its %s encoder has no %s, which makes features that images and texts share: save a CLIPModel or a %sWithProjection instead of a %s", e.part, e.projection, e.class, e.class)
		}
	}
	return nil
}

// customText begins the names of the text encoder's tensors in open_clip's models with
// custom_text.
const customText = "text."

// renamed returns the tensors under other names.
func renamed(in *nn.StateDict, rename func(string) string) (*nn.StateDict, error) {
	out := nn.NewStateDict()
	for _, name := range in.Names() {
		now := rename(name)
		if _, twice := out.Get(now); twice {
			return nil, fmt.Errorf("there are two tensors for %s: one of them is %s", now, name)
		}
		t, _ := in.Get(name)
		out.Add(now, t)
	}
	return out, nil
}

// The parts of transformers' names for CLIP and of OpenAI's.
var (
	clipNames = strings.NewReplacer(
		"vision_model.embeddings.class_embedding", "visual.class_embedding",
		"vision_model.embeddings.patch_embedding.", "visual.conv1.",
		"vision_model.embeddings.position_embedding.weight", "visual.positional_embedding",
		"vision_model.pre_layrnorm.", "visual.ln_pre.",
		"vision_model.post_layernorm.", "visual.ln_post.",
		"vision_model.encoder.layers.", "visual.transformer.resblocks.",
		"text_model.embeddings.token_embedding.", "token_embedding.",
		"text_model.embeddings.position_embedding.weight", "positional_embedding",
		"text_model.final_layer_norm.", "ln_final.",
		"text_model.encoder.layers.", "transformer.resblocks.",
		".layer_norm1.", ".ln_1.", ".layer_norm2.", ".ln_2.",
		".self_attn.out_proj.", ".attn.out_proj.",
		".mlp.fc1.", ".mlp.c_fc.", ".mlp.fc2.", ".mlp.c_proj.",
	)
	clipQKV = regexp.MustCompile(`^(.*)\.self_attn\.([qkv])_proj\.(weight|weight_scale|bias)$`)
	// The weights of linear layers, under either library's names, also those of a ResNet's
	// attention pooling. The projections to features are plain matrices.
	clipLinear = regexp.MustCompile(`(^|\.)resblocks\.\d+\.(attn\.in_proj_weight|attn\.out_proj\.weight|mlp\.c_(fc|proj)\.weight)$` +
		`|^visual\.attnpool\.[kqvc]_proj\.weight$` +
		`|\.encoder\.layers\.\d+\.(self_attn\.([qkv]|out)_proj|mlp\.fc[12])\.weight$`)
	// Buffers that older versions of transformers saved.
	clipBuffers = regexp.MustCompile(`\.embeddings\.position_ids$`)
)

// openAIName returns OpenAI's name for a tensor of transformers' CLIP. For a
// query, key or value projection it is the name of the packed projection.
func openAIName(name string) string {
	switch m := clipQKV.FindStringSubmatch(name); {
	case m != nil:
		return clipNames.Replace(m[1]+".") + "attn.in_proj_" + m[3]
	case name == "visual_projection.weight":
		return "visual.proj"
	case name == "text_projection.weight":
		return "text_projection"
	}
	return clipNames.Replace(name)
}

// eightBits returns how many of the tensors are integers of 8 bits.
func eightBits(parts map[string]torch.Tensor) (n int) {
	for _, t := range parts {
		if t.DType() == torch.Int8 {
			n++
		}
	}
	return n
}

// openAINames renames the tensors of transformers' CLIP. It copies the separate
// query, key and value projections into OpenAI's packed one, and makes the
// projections to features transposed views.
func openAINames(in *nn.StateDict) (*nn.StateDict, error) {
	out := nn.NewStateDict()
	packed := map[string]map[string]torch.Tensor{}
	var freed int64
	err := torch.Scope(func() error {
		for _, name := range in.Names() {
			t, _ := in.Get(name)
			switch m := clipQKV.FindStringSubmatch(name); {
			case clipBuffers.MatchString(name):
			case m != nil:
				key := openAIName(name)
				if packed[key] == nil {
					packed[key] = map[string]torch.Tensor{}
				}
				packed[key][m[2]] = t
				if p := packed[key]; len(p) == 3 {
					if n := eightBits(p); n > 0 && n < len(p) {
						return fmt.Errorf("%s: of the query, key and value projections, %d have 8 bits and the others do not%s", key, n, again)
					}
					torch.NoGrad(func() {
						out.Add(key, torch.Cat([]torch.Tensor{p["q"], p["k"], p["v"]}).Keep())
					})
					for _, part := range p {
						freed += part.NBytes()
						torch.DropPages(part)
						part.Close()
					}
					if freed > 64<<20 { // so that the model is not in memory twice
						torch.ReleaseMemory()
						freed = 0
					}
				}
			case name == "visual_projection.weight" || name == "text_projection.weight":
				if t.Dim() != 2 {
					return fmt.Errorf("%s: expected a matrix, got %d dimensions", name, t.Dim())
				}
				out.Add(openAIName(name), t.T().Keep())
				t.Close()
			default:
				out.Add(openAIName(name), t)
			}
		}
		for key, p := range packed {
			if len(p) != 3 {
				return fmt.Errorf("%s: one of the query, key and value projections is missing", key)
			}
		}
		return nil
	})
	if err != nil {
		out.Close()
	}
	return out, err
}
