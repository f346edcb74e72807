package pipeline

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"cyclecap/data/tokenizer"
	"cyclecap/internal/nearest"
	"cyclecap/internal/regular"
	"cyclecap/nets/clip"
	"cyclecap/torch/nn"
	"cyclecap/weights"
)

// clipConfig returns the configuration of a CLIP, and notes on what it assumes. The
// sources, in this order: config, a file or a name; the weights themselves, where only
// OpenAI's archives have such tensors; the file's metadata; the file that transformers
// or open_clip writes beside the weights; and for an architecture that OpenAI released,
// or nobody, the properties that OpenAI's models have.
func clipConfig(f *weights.File, sd *nn.StateDict, config string, part clip.Part) (clip.Config, []string, error) {
	sizes, err := clip.ConfigOf(sd, part)
	if err != nil {
		return sizes, nil, fmt.Errorf("%s: %w", f.Path, err)
	}
	// agreed returns a configuration that the weights do not contradict.
	agreed := func(source string, c clip.Config, err error) (clip.Config, []string, error) {
		if err != nil {
			return c, nil, fmt.Errorf("%s: %w", source, err)
		}
		if err := c.Check(sizes, part); err != nil {
			return c, nil, fmt.Errorf("%s contradicts %s: %w", source, f.Path, err)
		}
		return c, nil, nil
	}
	openAI := clip.FromOpenAI(sd)
	if config != "" {
		c, err := configNamed(config, part)
		if err == nil && openAI && (c.VisionActivation != clip.QuickGELU || c.TextActivation != clip.QuickGELU) {
			err = fmt.Errorf("it says %v, but %s is one of OpenAI's own files, which all have quick_gelu", c.VisionActivation, f.Path)
		}
		return agreed(config, c, err)
	}
	if openAI {
		return sizes, nil, nil
	}
	if text := f.Meta[weights.CLIPConfig]; text != "" {
		c, err := clip.FromMetadata(text)
		return agreed("metadata "+weights.CLIPConfig, c, err)
	}
	name := "open_clip_config.json"
	if weights.Detect(f) == weights.TransformersCLIP {
		name = "config.json"
	}
	data, path, err := f.Beside(name)
	if err != nil {
		return sizes, nil, err
	}
	if data != nil {
		c, err := clip.ParseConfig(data, part)
		c, notes, err := agreed(path, c, err)
		if err != nil {
			err = fmt.Errorf("%w (--clip-config gives another configuration)", err)
		}
		return c, notes, err
	}
	return assumed(f, name, sizes, part)
}

// ReadCLIP returns the tensors of a CLIP, or one encoder of it, under OpenAI's names, and
// the metadata for a file of them, which describes the CLIP if that is known.
func ReadCLIP(f *weights.File) (*nn.StateDict, map[string]string, error) {
	sd, err := weights.LoadCLIP(f, nil)
	if err != nil {
		return nil, nil, err
	}
	c, notes, err := clipConfig(f, sd, "", partOf(sd))
	if err != nil || len(notes) > 0 {
		return sd, nil, nil // its tensors can be converted all the same
	}
	return sd, map[string]string{weights.CLIPConfig: c.Metadata()}, nil
}

// partOf returns the encoders that a CLIP's tensors contain.
func partOf(sd *nn.StateDict) clip.Part {
	part := clip.Both
	for _, p := range []clip.Part{clip.Image, clip.Text} {
		if _, err := clip.ConfigOf(sd, p); err != nil {
			part = clip.Image + clip.Text - p // the other one
		}
	}
	return part
}

// configNamed reads a configuration file, or returns the configuration of a name.
func configNamed(config string, part clip.Part) (clip.Config, error) {
	data, err := regular.Read(config, maxConfig)
	if err == nil {
		return clip.ParseConfig(data, part)
	}
	c, unknown := clip.Named(config)
	switch {
	case unknown == nil:
		return c, nil
	case errors.Is(err, fs.ErrNotExist):
		similar := ""
		if near := nearest.Word(config, clip.Names()); near != "" {
			similar = fmt.Sprintf("; did you mean %s?", near)
		}
		return c, fmt.Errorf("neither a file nor a known name of a CLIP, such as OpenAI's ViT-B/32 and RN50x4 or open_clip's ViT-H-14 and ViT-B-32-quickgelu%s", similar)
	}
	return c, err
}

// maxConfig bounds the size of a configuration file.
const maxConfig = 16 << 20

// assumed returns the configuration of weights that nothing describes.
func assumed(f *weights.File, beside string, sizes clip.Config, part clip.Part) (clip.Config, []string, error) {
	same := clip.Matching(sizes, part)
	if !sizes.Assumable(part) || len(same) > 0 && !slices.ContainsFunc(same, clip.ByOpenAI) {
		such := "FILE or NAME"
		if len(same) > 0 {
			such = strings.Join(same, " or ")
		}
		return sizes, nil, fmt.Errorf("%s: there is no %s beside it, and OpenAI released no CLIP of these sizes (%v): give its activation and attention heads with --clip-config %s",
			f.Path, beside, sizes, such)
	}
	example := ""
	if i := slices.IndexFunc(same, func(name string) bool { n, _ := clip.Named(name); return n.VisionActivation == clip.GELU }); i >= 0 {
		example = fmt.Sprintf(" (%s has gelu)", same[i])
	}
	return sizes, []string{fmt.Sprintf("no %s is beside %s: quick_gelu and attention heads of width 64 are assumed, as in OpenAI's models; for a CLIP with others, use --clip-config FILE or NAME%s",
		beside, f.Path, example)}, nil
}

// otherTokenizer says which tokenizer a text encoder needs, if it is not CLIP's: by its
// configuration, or by the vocabulary beside a model of transformers.
func otherTokenizer(f *weights.File, c clip.Config) (string, error) {
	if c.Tokenizer != "" {
		return c.Tokenizer, nil
	}
	if weights.Detect(f) != weights.TransformersCLIP {
		return "", nil
	}
	for _, name := range []string{"vocab.json", "tokenizer.json"} {
		data, path, err := f.Beside(name)
		if err != nil {
			return "", err
		}
		if data == nil {
			continue
		}
		var vocab map[string]int
		if name == "tokenizer.json" {
			var whole struct {
				Model struct {
					Vocab json.RawMessage `json:"vocab"`
				} `json:"model"`
			}
			if err := json.Unmarshal(data, &whole); err != nil {
				return "", fmt.Errorf("%s: %w", path, err)
			}
			data = whole.Model.Vocab
		}
		// The vocabulary of another kind of tokenizer is not an object of numbers.
		if json.Unmarshal(data, &vocab) != nil || !tokenizer.CLIP().Same(vocab) {
			return path + " is another vocabulary", nil
		}
	}
	return "", nil
}
