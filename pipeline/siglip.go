package pipeline

import (
	"fmt"
	"strings"

	"cyclecap/data/photo"
	"cyclecap/data/tokenizer"
	"cyclecap/internal/regular"
	"cyclecap/nets/clip"
	"cyclecap/nets/siglip"
	"cyclecap/torch/nn"
	"cyclecap/weights"
)

var _ Encoder = (*siglip.Model)(nil)

// loadSigLIP loads the model in f, a SigLIP of transformers. config is the file of its
// configuration; if it is empty, that is the config.json beside the weights.
func (c *CLIP) loadSigLIP(f *weights.File, config string, part clip.Part) (err error) {
	sd, err := weights.LoadSigLIP(f, func(name string) bool {
		text, image := strings.HasPrefix(name, "text_model."), strings.HasPrefix(name, "vision_model.")
		return part == clip.Both || part == clip.Text && text || part == clip.Image && image
	})
	if err != nil {
		return err
	}
	of, notes, err := siglipConfig(f, sd, config)
	if err == nil {
		var converted []string
		converted, err = c.on.dequantize(c.Path, sd)
		notes = append(notes, converted...)
	}
	if err != nil {
		sd.Close()
		return err
	}
	m, err := siglip.Load(sd, of, part)
	if err != nil {
		return fmt.Errorf("%s: %w", c.Path, err)
	}
	c.Model, c.Notes = m, append(c.Notes, notes...)
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	if err := c.preprocess(f, "", photo.SigLIP(0), "SiglipImageProcessor"); err != nil {
		return err
	}
	if part != clip.Image {
		if c.texts, c.other, err = siglipTokenizer(f); err != nil {
			return err
		}
		if t, ok := c.texts.(*tokenizer.SigLIP2Tokenizer); ok {
			c.Notes = append(c.Notes, t.Notes()...)
		}
	}
	return c.on.prepare(m)
}

// siglipConfig returns the configuration of a SigLIP, and notes on what it assumes.
func siglipConfig(f *weights.File, sd *nn.StateDict, config string) (siglip.Config, []string, error) {
	data, path, err := f.Beside("config.json")
	if config != "" {
		path = config
		data, err = regular.Read(config, maxConfig)
	}
	if err != nil {
		return siglip.Config{}, nil, err
	}
	if data == nil {
		c, err := siglip.ConfigOf(sd)
		if err != nil {
			return c, nil, fmt.Errorf("%s: %w", f.Path, err)
		}
		return c, []string{fmt.Sprintf("no config.json is beside %s: %d attention heads, gelu_pytorch_tanh and images of %d pixels are assumed, as in Google's models; for a SigLIP with others, use --clip-config FILE",
			f.Path, c.Vision.Heads, c.Vision.ImageSize)}, nil
	}
	c, err := siglip.ParseConfig(data)
	if err != nil {
		return c, nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil, nil
}

// siglipTokenizer returns the tokenizer beside the weights: SigLIP's spiece.model, or the
// tokenizer.json of SigLIP 2. Without either, missing says which files are missing.
func siglipTokenizer(f *weights.File) (t textTokenizer, missing string, err error) {
	config, configPath, err := f.Beside("tokenizer_config.json")
	if err != nil {
		return nil, "", err
	}
	c, err := tokenizer.ParseSigLIPConfig(config)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", configPath, err)
	}
	model, path, err := f.Beside("spiece.model")
	if err != nil {
		return nil, "", err
	}
	if model != nil {
		t, err := tokenizer.NewSigLIP(model, c)
		if err != nil {
			return nil, "", fmt.Errorf("%s: %w", path, err)
		}
		return t, "", nil
	}
	model, path, err = f.Beside("tokenizer.json")
	if err != nil {
		return nil, "", err
	}
	if model != nil {
		t, err := tokenizer.NewSigLIP2(model, c)
		if err != nil {
			return nil, "", fmt.Errorf("%s: %w", path, err)
		}
		return t, "", nil
	}
	return nil, "put its spiece.model (SigLIP) or tokenizer.json (SigLIP 2) into the folder of the weights", nil
}
