package devicetest

import (
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"testing"

	"cyclecap/data/tokenizer"
	"cyclecap/nets/clip"
	"cyclecap/nets/clipcap"
	"cyclecap/nets/cyclegan"
	"cyclecap/nets/gpt2"
	"cyclecap/pipeline"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/torch/torchtest"
	"cyclecap/weights"

	"github.com/google/go-cmp/cmp"
)

// writeFiles writes small models and photos to a folder.
func writeFiles(t *testing.T) (f pipeline.Files, photos []string) {
	t.Helper()
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	f = pipeline.Files{CLIP: path("clip.pt"), Decoder: path("decoder.pt"), Generator: path("generator.pt")}
	scope(t, func() error {
		torch.ManualSeed(1)
		c := clip.New(clip.Config{EmbedDim: 16, ImageSize: 32, PatchSize: 8, VisionWidth: 64, VisionDepth: 1,
			Context: 77, Vocab: 49408, TextWidth: 64, TextHeads: 1, TextDepth: 1})
		mapper := clipcap.NewTransformerMapper(clipcap.TransformerConfig{FeatureWidth: 16, Width: 64, ClipLength: 3, PrefixLength: 4, Layers: 1, Heads: 8})
		language := gpt2.New(gpt2.Config{VocabSize: 2048, NPositions: 32, NEmbd: 64, NLayer: 1, NHead: 1, LayerNormEpsilon: 1e-5})
		g := cyclegan.NewGenerator(16)
		defer nn.Close(c)
		defer nn.Close(mapper)
		defer nn.Close(language)
		defer nn.Close(g)
		if err := weights.Save(t.Context(), f.CLIP, nn.StateDictOf(c), nil); err != nil {
			return err
		}
		tok, _, err := tokenizer.GPT2().Limited(2048)
		if err != nil {
			return err
		}
		if err := pipeline.SaveDecoder(t.Context(), f.Decoder, mapper, &pipeline.GPT2{Model: language, Tokenizer: tok}, pipeline.Scaling{Normalize: true}); err != nil {
			return err
		}
		return weights.Save(t.Context(), f.Generator, nn.StateDictOf(g), nil)
	})
	for i, name := range []string{"a.png", "b.png", "c.png"} {
		m := image.NewRGBA(image.Rect(0, 0, 40, 33))
		for y := range 33 {
			for x := range 40 {
				m.Set(x, y, color.RGBA{uint8(x * (5 + i)), uint8(y * 7), uint8(x * y), 255})
			}
		}
		w, err := os.Create(path(name))
		if err != nil {
			t.Fatal(err)
		}
		if err := png.Encode(w, m); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		photos = append(photos, path(name))
	}
	return f, photos
}

// TestPipeline compares features and captions of photos and texts, from files.
func TestPipeline(t *testing.T) {
	files, photos := writeFiles(t)
	for name, c := range map[string]struct {
		bf16 bool
		rel  float64
	}{"f32": {false, forward}, "bf16": {true, halved}} {
		t.Run(name, func(t *testing.T) {
			if c.bf16 && exact() {
				t.Skip("on the CPU, bf16 computes from packed weights, which other devices do not have")
			}
			on := func(d torch.Device) pipeline.Options { return pipeline.Options{Device: d, BF16: c.bf16} }
			features := func(d torch.Device) (images, texts []float32) {
				m, err := pipeline.LoadCLIP(files.CLIP, "", clip.Both, on(d))
				if err != nil {
					t.Fatal(err)
				}
				defer m.Close()
				for b, err := range m.Photos(t.Context(), photos, 2) {
					if err != nil {
						t.Fatal(err)
					}
					images = append(images, b.Rows...)
				}
				for b, err := range m.Texts(t.Context(), []string{"a cat", "two dogs on a boat", ""}, 2, false) {
					if err != nil {
						t.Fatal(err)
					}
					texts = append(texts, b.Rows...)
				}
				return images, texts
			}
			images, texts := features(torch.CPU)
			gotImages, gotTexts := features(device)
			if len(images) == 0 || len(texts) == 0 {
				t.Fatalf("%d and %d values", len(images), len(texts))
			}
			scope(t, func() error {
				differ(t, c.rel, result{"image features", torch.FromSlice(images)}, result{"image features", torch.FromSlice(gotImages)})
				differ(t, c.rel, result{"text features", torch.FromSlice(texts)}, result{"text features", torch.FromSlice(gotTexts)})
				return nil
			})
		})
	}
	for name, o := range map[string]clipcap.Options{
		"greedy": {Method: clipcap.Greedy, MaxTokens: 8, Stop: clipcap.Stop},
		"beam":   {Method: clipcap.Beam, Beam: 3, MaxTokens: 8, Stop: clipcap.Stop},
	} {
		t.Run(name, func(t *testing.T) {
			captions := func(d torch.Device) (out []pipeline.Captioned) {
				m, err := pipeline.Load(files, pipeline.Options{Device: d})
				if err != nil {
					t.Fatal(err)
				}
				defer m.Close()
				for b, err := range m.Photos(t.Context(), photos, 2, o) {
					if err != nil {
						t.Fatal(err)
					}
					out = append(out, b.Captions...)
				}
				return out
			}
			near := cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) <= decoded()*max(1, math.Abs(a)) })
			if diff := cmp.Diff(captions(torch.CPU), captions(device), near); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestMovesBack checks that weights that were moved to the device and saved there are
// those of the CPU.
func TestMovesBack(t *testing.T) {
	scope(t, func() error {
		m := moved(device, cyclegan.NewGenerator(16))
		defer nn.Close(m)
		path := filepath.Join(t.TempDir(), "g.safetensors")
		if err := weights.SaveSafetensors(t.Context(), path, nn.StateDictOf(m), nil); err != nil {
			return err
		}
		f, err := weights.Open(path)
		if err != nil {
			return err
		}
		sd, err := weights.LoadGenerator(f)
		if err != nil {
			return err
		}
		g, err := cyclegan.LoadGenerator(sd)
		if err != nil {
			return err
		}
		defer nn.Close(g)
		for i, p := range nn.NamedParameters(g) {
			torchtest.Bits(t, *p.Tensor, *nn.NamedParameters(m)[i].Tensor, p.Name)
		}
		return nil
	})
}
