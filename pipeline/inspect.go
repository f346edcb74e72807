package pipeline

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"cyclecap/nets/clip"
	"cyclecap/nets/siglip"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/weights"
)

// A Setting is a property of a model that its numbers depend on.
type Setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	// From says where the value comes from: "weights" (the shapes of the tensors),
	// "metadata" of the file, the name of a file beside the weights, or "assumed".
	From string `json:"from"`
}

// besideNames are the files beside weights that concern a model.
var besideNames = []string{
	"config.json", "open_clip_config.json", "preprocessor_config.json", "processor_config.json", "generation_config.json",
	"tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json", "spiece.model", "decoder_config.pkl", "commandline_args.txt",
}

// Beside lists the files beside weights that concern the model.
func Beside(f *weights.File) []string {
	list := []string{}
	for _, name := range besideNames {
		if info, err := os.Stat(filepath.Join(filepath.Dir(f.Path), name)); err == nil && info.Mode().IsRegular() {
			list = append(list, name)
		}
	}
	return list
}

// Settings returns the settings of the model in a file, as the Load functions would
// use them, and notes on what was assumed. It returns an error if the file or what
// lies beside it contradicts itself, in which case the model cannot be loaded.
func Settings(f *weights.File) (list []Setting, notes []string, err error) {
	list, notes, err = settings(f)
	if err == nil && weights.Detect(f) != weights.Unknown {
		err = f.CheckQuantized()
	}
	if n := f.Quantized(); err == nil && n > 0 {
		list = append(list, Setting{"linear layers with weights of 8 bits", fmt.Sprint(n), "weights"})
	}
	return list, notes, err
}

// settings is Settings without what concerns every model.
func settings(f *weights.File) (list []Setting, notes []string, err error) {
	switch weights.Detect(f) {
	case weights.OpenAICLIP, weights.TransformersCLIP:
		return clipSettings(f)
	case weights.GPT2:
		return gpt2Settings(f)
	case weights.SigLIP:
		return siglipSettings(f)
	case weights.ClipCapMapper, weights.ClipCapModel, weights.DeCapModel:
		list, err = decoderSettings(f)
		return list, nil, err
	case weights.Generator:
		if w := shapeOf(f, "model.0.weight", "0.weight"); len(w) == 2 {
			layers := 0
			for _, e := range f.Entries {
				if strings.HasSuffix(e.Name, ".weight") {
					layers++
				}
			}
			list = append(list, Setting{"feature width", fmt.Sprint(w[1]), "weights"}, Setting{"linear layers", fmt.Sprint(layers), "weights"})
		}
	}
	return list, nil, nil
}

// shapeOf returns the shape of the first of the tensors that is in the file.
func shapeOf(f *weights.File, names ...string) []int64 {
	for _, n := range names {
		if e, ok := f.Get(n); ok {
			return e.Shape
		}
	}
	return nil
}

// notShown is the note in place of settings that need libtorch.
func notShown(err error) string {
	return fmt.Sprintf("the settings are not shown, because libtorch cannot be used: %v", err)
}

func clipSettings(f *weights.File) (list []Setting, notes []string, err error) {
	if err := ready(); err != nil {
		return nil, []string{notShown(err)}, nil
	}
	err = torch.Scope(func() error {
		sd, err := weights.LoadCLIP(f, func(string) bool { return false }) // shapes alone
		if err != nil {
			return err
		}
		defer sd.Close()
		part := partOf(sd)
		var c clip.Config
		if c, notes, err = clipConfig(f, sd, "", part); err != nil {
			return err
		}
		from := "assumed"
		switch {
		case clip.FromOpenAI(sd):
			from = "weights" // of OpenAI's own
		case f.Meta[weights.CLIPConfig] != "":
			from = "metadata"
		case len(notes) == 0 && weights.Detect(f) == weights.TransformersCLIP:
			from = "config.json"
		case len(notes) == 0:
			from = "open_clip_config.json"
		}
		add := func(name string, value any, from string) { list = append(list, Setting{name, fmt.Sprint(value), from}) }
		add("feature width", c.EmbedDim, "weights")
		if part != clip.Text {
			add("image size", c.ImageSize, "weights")
			if c.PatchSize > 0 {
				add("patch size", c.PatchSize, "weights")
				add("image encoder layers", c.VisionDepth, "weights")
			} else {
				add("image encoder blocks of its stages", c.ResNet, "weights")
			}
			add("image encoder width", c.VisionWidth, "weights")
			heads := c.VisionHeads
			if heads == 0 && c.PatchSize > 0 {
				heads = c.VisionWidth / 64
			}
			if heads > 0 {
				add("image encoder heads", heads, from)
			}
			if c.PatchSize > 0 {
				add("image encoder activation", c.VisionActivation, from)
				add("image encoder layer norm epsilon", epsilon(c.VisionEpsilon), from)
			}
		}
		if part != clip.Image {
			add("context length", c.Context, "weights")
			add("vocabulary", c.Vocab, "weights")
			add("text encoder layers", c.TextDepth, "weights")
			add("text encoder width", c.TextWidth, "weights")
			add("text encoder heads", c.TextHeads, from)
			add("text encoder activation", c.TextActivation, from)
			add("text encoder layer norm epsilon", epsilon(c.TextEpsilon), from)
			if c.Tokenizer != "" {
				add("tokenizer", c.Tokenizer, from)
			}
		}
		return nil
	})
	return list, notes, err
}

// epsilon returns the layer norm epsilon of a configuration, where 0 means 1e-5.
func epsilon(e float64) float64 {
	if e == 0 {
		return 1e-5
	}
	return e
}

// gpt2Layer matches one tensor of each layer of a GPT-2.
var gpt2Layer = regexp.MustCompile(`^((gpt|decoder)\.)?(transformer\.)?h\.\d+\.ln_1\.weight$`)

// gpt2Settings loads the shapes of a GPT-2, and the two tensors that tell by their values
// whether its head is tied.
func gpt2Settings(f *weights.File) (list []Setting, notes []string, err error) {
	if err := ready(); err != nil {
		return nil, []string{notShown(err)}, nil
	}
	err = torch.Scope(func() error {
		g, err := readGPT2(f, func(name string) bool { return name == "wte.weight" || name == "lm_head.weight" })
		if err != nil {
			return err
		}
		defer nn.Close(g.Model)
		notes = g.Notes
		add := func(name string, value any, from string) { list = append(list, Setting{name, fmt.Sprint(value), from}) }
		c := g.Model.Config
		add("n_layer", c.NLayer, "weights")
		add("n_embd", c.NEmbd, "weights")
		add("vocab_size", c.VocabSize, "weights")
		add("n_positions", c.NPositions, "weights")
		add("n_inner", cmp.Or(c.NInner, 4*c.NEmbd), "weights")
		add("n_head", c.NHead, g.from)
		add("activation_function", cmp.Or(c.Activation, "gelu_new"), g.from)
		add("layer_norm_epsilon", c.LayerNormEpsilon, g.from)
		add("scale_attn_weights", !c.UnscaledAttn, g.from)
		add("scale_attn_by_inverse_layer_idx", c.InverseLayerScale, g.from)
		tied := g.from
		if c.Untied {
			tied = "weights" // which then contain a head of their own
		}
		add("tie_word_embeddings", !c.Untied, tied)
		return nil
	})
	return list, notes, err
}

func siglipSettings(f *weights.File) (list []Setting, notes []string, err error) {
	data, path, err := f.Beside("config.json")
	if err != nil || data == nil {
		return nil, nil, err
	}
	c, err := siglip.ParseConfig(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	add := func(name string, value any) { list = append(list, Setting{name, fmt.Sprint(value), "config.json"}) }
	tower := func(name string, t siglip.Tower) {
		activation := "gelu_pytorch_tanh"
		if t.ExactGELU {
			activation = "gelu"
		}
		add(name+" layers", t.Depth)
		add(name+" width", t.Width)
		add(name+" heads", t.Heads)
		add(name+" activation", activation)
		add(name+" layer norm epsilon", t.Eps)
	}
	if shapeOf(f, "vision_model.embeddings.patch_embedding.weight") != nil {
		add("image size", c.Vision.ImageSize)
		add("patch size", c.Vision.PatchSize)
		tower("image encoder", c.Vision.Tower)
	}
	if shapeOf(f, "text_model.embeddings.token_embedding.weight") != nil {
		add("context length", c.Text.Context)
		add("vocabulary", c.Text.Vocab)
		tower("text encoder", c.Text.Tower)
	}
	return list, nil, nil
}

func decoderSettings(f *weights.File) (list []Setting, err error) {
	add := func(name string, value any, from string) { list = append(list, Setting{name, fmt.Sprint(value), from}) }
	if w := shapeOf(f, "clip_project.model.0.weight"); len(w) == 2 && weights.Detect(f) == weights.DeCapModel {
		add("mapper", "linear", "weights")
		add("feature width", w[1], "weights")
		add("prefix length", 1, "weights")
	} else if len(w) == 2 {
		add("mapper", "MLP", "weights")
		add("feature width", w[1], "weights")
	} else if w := shapeOf(f, "clip_project.linear.weight"); len(w) == 2 {
		add("mapper", "transformer", "weights")
		add("feature width", w[1], "weights")
		if c := shapeOf(f, "clip_project.prefix_const"); len(c) == 2 {
			add("prefix length", c[0], "weights")
			add("clip length", w[0]/max(1, c[1]), "weights")
		}
	}
	if v, ok := f.Meta[weights.NormalizePrefix]; ok {
		add(weights.NormalizePrefix, v, "metadata")
	} else if weights.Detect(f) != weights.DeCapModel {
		args, err := weights.CapDec(f)
		if err != nil {
			return list, err
		}
		if args != nil {
			add(weights.NormalizePrefix, args.Normalize(), filepath.Base(args.Path))
		}
	}
	own := slices.ContainsFunc(f.Entries, func(e weights.Entry) bool { return gpt2Layer.MatchString(e.Name) })
	add("GPT-2 in the file", own, "weights")
	return list, nil
}
