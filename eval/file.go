package eval

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// imageLine is an image in the file of WriteImages.
type imageLine struct {
	ImageID int64              `json:"image_id"`
	Scores  map[string]float64 `json:"scores"`
	Tokens  struct {
		Candidate  string   `json:"candidate"`
		References []string `json:"references"`
	} `json:"tokens"`
}

// WriteImages writes the scores and tokens of every image as a JSON list:
//
//	[{"image_id": 1, "scores": {"CIDEr": 0.5}, "tokens": {"candidate": "a dog", "references": ["the dog"]}}]
//
// The file appears whole or not at all.
func (r *Result) WriteImages(path string) (err error) {
	lines := make([]imageLine, len(r.Images))
	for i, image := range r.Images {
		lines[i].ImageID, lines[i].Scores = image.ImageID, image.Scores
		lines[i].Tokens.Candidate, lines[i].Tokens.References = image.Candidate, image.References
	}
	// A new file in the same folder, as a rename is atomic only within a file
	// system.
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("eval: cannot write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("eval: cannot write %s: %w", path, errors.Join(err, os.Remove(f.Name())))
		}
	}()
	enc := json.NewEncoder(f)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	err = enc.Encode(lines)
	if err == nil {
		err = f.Chmod(0o644) // CreateTemp makes a private file
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
