package eval

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"cyclecap/data/coco"
	"cyclecap/internal/atomicfile"
)

// imageLine is an image in the file that WriteImages writes.
type imageLine struct {
	ImageID coco.ID            `json:"image_id"`
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
// The file is written atomically.
func (r *Result) WriteImages(path string) error {
	lines := make([]imageLine, len(r.Images))
	for i, image := range r.Images {
		lines[i].ImageID, lines[i].Scores = image.ImageID, image.Scores
		lines[i].Tokens.Candidate, lines[i].Tokens.References = image.Candidate, image.References
	}
	err := atomicfile.Write(context.Background(), path, func(w io.Writer) error {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", " ")
		return enc.Encode(lines)
	})
	if err != nil {
		return fmt.Errorf("eval: %w", err)
	}
	return nil
}
