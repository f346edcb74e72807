package pipeline

import (
	"encoding/json"
	"fmt"

	"cyclecap/data/photo"
	"cyclecap/internal/regular"
	"cyclecap/weights"
)

// preprocess sets how photos become the input of c.Model, whose weights are in f. config is
// what the user gave as its configuration: if it is a file of open_clip, that says it.
func (c *CLIP) preprocess(f *weights.File, config string, own photo.Preprocess, class string) error {
	size := c.Model.ImageSize()
	if size == 0 {
		return nil // a text encoder
	}
	if config != "" {
		if data, err := regular.Read(config, maxConfig); err == nil {
			var has struct {
				Preprocess json.RawMessage `json:"preprocess_cfg"`
			}
			if json.Unmarshal(data, &has) == nil && has.Preprocess != nil {
				p, err := photo.ParseOpenCLIP(data)
				c.Preprocess, err = sized(p, err, config, f, size)
				return err
			}
		}
	}
	p, notes, err := preprocessOf(f, size, own, class)
	c.Preprocess, c.Notes = p, append(c.Notes, notes...)
	return err
}

// sized returns p, which a file says, with the size of the model in f.
func sized(p photo.Preprocess, err error, path string, f *weights.File, size int64) (photo.Preprocess, error) {
	if err != nil {
		return p, fmt.Errorf("%s: %w", path, err)
	}
	if p.Size == 0 {
		p.Size = int(size)
	}
	if p.Size != int(size) {
		return p, fmt.Errorf("%s makes photos of %d pixels, but the model in %s takes %d: correct the size there (position embeddings are not interpolated)", path, p.Size, f.Path, size)
	}
	return p, nil
}

// preprocessOf returns how photos of size pixels become the input of the model in f. It
// follows the file in the folder of the weights that belongs to the library whose names the
// tensors have: transformers' preprocessor_config.json (or processor_config.json), or
// open_clip's open_clip_config.json. Without it, it is own. class is transformers' class of
// image processors of this kind of model. notes say what was assumed.
func preprocessOf(f *weights.File, size int64, own photo.Preprocess, class string) (p photo.Preprocess, notes []string, err error) {
	own.Size = int(size)
	if f.Format == weights.TorchScript { // OpenAI's archive, which needs no other file
		return own, nil, nil
	}
	transformers := func(data []byte) (photo.Preprocess, error) { return photo.ParseTransformers(data, class) }
	files := []struct {
		name  string
		parse func([]byte) (photo.Preprocess, error)
	}{{"preprocessor_config.json", transformers}, {"processor_config.json", transformers}}
	openAI := weights.Detect(f) == weights.OpenAICLIP
	if openAI {
		files = files[:0]
	}
	files = append(files, struct {
		name  string
		parse func([]byte) (photo.Preprocess, error)
	}{"open_clip_config.json", photo.ParseOpenCLIP})

	for _, file := range files {
		data, path, err := f.Beside(file.name)
		if err != nil {
			return p, nil, err
		}
		if data == nil {
			continue
		}
		p, err := file.parse(data)
		p, err = sized(p, err, path, f, size)
		return p, nil, err
	}
	if !openAI {
		notes = []string{fmt.Sprintf("no preprocessor_config.json is beside %s: the settings of %s are assumed", f.Path, class)}
	}
	return own, notes, nil
}
