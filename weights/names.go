package weights

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"cyclecap/internal/regular"
	"cyclecap/torch"
	"cyclecap/torch/nn"
)

// Scheme is a naming scheme for the tensors of a model.
type Scheme string

// The known naming schemes.
const (
	OpenAICLIP       Scheme = "OpenAI CLIP"
	TransformersCLIP Scheme = "transformers CLIP"
	GPT2             Scheme = "transformers GPT-2"
	ClipCapMapper    Scheme = "ClipCap mapper"
	ClipCapModel     Scheme = "ClipCap model"
	Generator        Scheme = "CycleGAN generator"
	Unknown          Scheme = "unknown"
)

// Detect identifies the model in a file by the names of its tensors.
func Detect(f *File) Scheme {
	has := func(name string) bool { _, ok := f.Get(name); return ok }
	prefix := func(p string) bool {
		for _, e := range f.Entries {
			if strings.HasPrefix(e.Name, p) {
				return true
			}
		}
		return false
	}
	switch {
	case has("visual.conv1.weight"):
		return OpenAICLIP
	case has("vision_model.embeddings.patch_embedding.weight"):
		return TransformersCLIP
	case prefix("clip_project.") && prefix("gpt."):
		return ClipCapModel
	case prefix("clip_project."):
		return ClipCapMapper
	case has("wte.weight"), has("transformer.wte.weight"):
		return GPT2
	case has("model.6.weight") && has("model.0.weight"), has("6.weight") && has("0.weight"):
		return Generator
	}
	return Unknown
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
		if c := shape("visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight"); len(c) == 4 {
			return fmt.Sprintf("%s, vision width %d, patches of %d", s, c[0], c[3])
		}
	case GPT2:
		if w := shape("wte.weight", "transformer.wte.weight"); len(w) == 2 {
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
		names := []string{}
		for _, e := range f.Entries[:min(3, len(f.Entries))] {
			names = append(names, e.Name)
		}
		return &Error{f.Path, fmt.Errorf("expected %s, but the file contains other tensors (%s, …); run `cyclecap inspect` to list them", what, strings.Join(names, ", "))}
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

// LoadCLIP reads a CLIP model with OpenAI's or transformers' tensor names and
// returns it with OpenAI's. keep selects tensors by their OpenAI names; the
// others are on the meta device, as with LoadOnly. A nil keep selects all.
// quickGELU reports whether the activation is QuickGELU. For a transformers
// model it is read from the config.json in the same folder; without that file
// it is true, as in OpenAI's models.
func LoadCLIP(path string, keep func(name string) bool) (sd *nn.StateDict, quickGELU bool, err error) {
	f, err := Open(path)
	if err != nil {
		return nil, false, err
	}
	if err := wants(f, "a CLIP model", OpenAICLIP, TransformersCLIP); err != nil {
		return nil, false, err
	}
	ofTransformers := Detect(f) == TransformersCLIP
	own := keep
	if keep != nil && ofTransformers {
		own = func(name string) bool { return keep(openAIName(name)) }
	}
	sd, err = f.LoadOnly(own)
	if err != nil {
		return nil, false, err
	}
	quickGELU = true
	if ofTransformers {
		quickGELU, err = activation(filepath.Dir(f.Path))
		if err == nil {
			sd, err = openAINames(sd)
		}
		if err != nil {
			return nil, false, &Error{path, err}
		}
	}
	return sd, quickGELU, nil
}

// activation reads hidden_act from the config.json of a transformers model.
func activation(dir string) (quickGELU bool, err error) {
	text, err := regular.Read(filepath.Join(dir, "config.json"), 1<<20)
	if os.IsNotExist(err) {
		return true, nil
	} else if err != nil {
		return false, err
	}
	type part struct {
		HiddenAct string `json:"hidden_act"`
	}
	var c struct {
		Vision part `json:"vision_config"`
		Text   part `json:"text_config"`
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return false, fmt.Errorf("config.json in the same folder: %w", err)
	}
	acts := map[string]bool{}
	for _, a := range []string{c.Vision.HiddenAct, c.Text.HiddenAct} {
		if a == "" {
			a = "quick_gelu" // transformers' default for CLIP
		}
		acts[a] = true
	}
	switch {
	case len(acts) == 1 && acts["quick_gelu"]:
		return true, nil
	case len(acts) == 1 && acts["gelu"]:
		return false, nil
	}
	return false, fmt.Errorf("config.json in the same folder: hidden_act must be quick_gelu or gelu, and the same for both encoders")
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
	clipQKV = regexp.MustCompile(`^(.*)\.self_attn\.([qkv])_proj\.(weight|bias)$`)
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

// openAINames renames the tensors of transformers' CLIP. It copies the separate
// query, key and value projections into OpenAI's packed one, and makes the
// projections to features transposed views.
func openAINames(in *nn.StateDict) (*nn.StateDict, error) {
	out := nn.NewStateDict()
	packed := map[string]map[string]torch.Tensor{}
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
					torch.NoGrad(func() {
						out.Add(key, torch.Cat([]torch.Tensor{p["q"], p["k"], p["v"]}).Keep())
					})
					for _, part := range p {
						part.Close()
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
	return out, err
}

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
