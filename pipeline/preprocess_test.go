package pipeline_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cyclecap/data/photo"
	"cyclecap/nets/clip"
	"cyclecap/pipeline"
)

// copyFolder copies a folder without subfolders into a temporary one.
func copyFolder(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// The file beside the weights decides about photos, and a wrong size is an error that names
// both files.
func TestPreprocessBesideTheWeights(t *testing.T) {
	write := func(dir, name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ofTransformers := photo.CLIP(32)
	ofTransformers.Factor, ofTransformers.Transformers, ofTransformers.Filter = 1./255, true, photo.Bilinear
	squash := photo.CLIP(32)
	squash.Resize = photo.Squash
	// The configuration of clip.pt, as open_clip writes it.
	const openCLIP = `{"model_cfg": {"embed_dim": 64, "quick_gelu": true, "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 64}, "text_cfg": {"context_length": 16, "vocab_size": 256, "width": 64, "heads": 1, "layers": 2}}, "preprocess_cfg": {"resize_mode": "squash"}}`
	for _, test := range []struct {
		name, weights, file, text string
		want                      photo.Preprocess
		note, err                 string
	}{
		{name: "no file, OpenAI's names", weights: "clip.pt", want: photo.CLIP(32), note: "quick_gelu"},
		{name: "no file, transformers", weights: "clip-transformers", want: photo.CLIP(32), note: "CLIPImageProcessor are assumed"},
		{name: "transformers", weights: "clip-transformers", file: "preprocessor_config.json",
			text: `{"resample": 2, "size": 32, "crop_size": 32}`, want: ofTransformers},
		{name: "transformers 5", weights: "clip-transformers", file: "processor_config.json",
			text: `{"image_processor": {"resample": 2, "size": 32, "crop_size": 32}}`, want: ofTransformers},
		{name: "another size", weights: "clip-transformers", file: "preprocessor_config.json",
			text: `{"size": 224}`, err: "makes photos of 224 pixels, but the model in"},
		{name: "another class", weights: "clip-transformers", file: "preprocessor_config.json",
			text: `{"image_processor_type": "BitImageProcessor"}`, err: `preprocessor_config.json: image_processor_type is "BitImageProcessor"`},
		{name: "open_clip", weights: "clip.pt", file: "open_clip_config.json",
			text: openCLIP, want: squash},
		{name: "OpenAI's archive", weights: "clip-archive.pt", file: "open_clip_config.json",
			text: `{"preprocess_cfg": {"resize_mode": "squash"}}`, want: photo.CLIP(32)},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := small + test.weights
			if info, err := os.Stat(path); err != nil {
				t.Fatal(err)
			} else if info.IsDir() {
				path = copyFolder(t, path)
			} else {
				data, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				path = filepath.Join(t.TempDir(), test.weights)
				write(filepath.Dir(path), test.weights, string(data))
			}
			if dir := strings.TrimSuffix(path, test.weights); test.file != "" {
				write(dir, test.file, test.text)
			}
			m, err := pipeline.LoadCLIP(path, "", clip.Image, pipeline.Options{})
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("error %v, want one with %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			if m.Preprocess != test.want {
				t.Errorf("got %+v, want %+v", m.Preprocess, test.want)
			}
			if notes := strings.Join(m.Notes, "\n"); (notes != "") != (test.note != "") || !strings.Contains(notes, test.note) {
				t.Errorf("notes %q, want %q", notes, test.note)
			}
		})
	}
}
