package pipeline_test

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cyclecap/nets/clip"
	"cyclecap/nets/clipcap"
	"cyclecap/pipeline"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/weights"

	"github.com/google/go-cmp/cmp"
)

const small = "../internal/parity/testdata/small/"

var files = pipeline.Files{CLIP: small + "clip.pt", Decoder: small + "decoder.pt", GPT2: small + "gpt2", Generator: small + "generator.pt"}

func photos(t *testing.T, n int) []string {
	t.Helper()
	list, err := filepath.Glob("../testdata/photos/*.jpg")
	if err != nil || len(list) < n {
		t.Fatal(list, err)
	}
	return list[:n]
}

func loadCLIP(t *testing.T, path string, part clip.Part) *pipeline.CLIP {
	t.Helper()
	m, err := pipeline.LoadCLIP(path, "", part, pipeline.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// readsTexts writes a small CLIP with CLIP's whole vocabulary.
func readsTexts(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "clip.pt")
	err := torch.Scope(func() error {
		torch.ManualSeed(1)
		m := clip.New(clip.Config{EmbedDim: 16, ImageSize: 32, PatchSize: 16, VisionWidth: 64, VisionDepth: 1,
			Context: 77, Vocab: 49408, TextWidth: 64, TextHeads: 1, TextDepth: 1})
		defer nn.Close(m)
		return weights.Save(t.Context(), path, nn.StateDictOf(m), map[string]string{weights.CLIPConfig: m.Config.Metadata()})
	})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestLoadTexts loads files with both encoders and with the one for images: it takes what there
// is. Files without an image encoder are an error.
func TestLoadTexts(t *testing.T) {
	both := readsTexts(t)
	dir := t.TempDir()
	only := func(name string, part clip.Part) string {
		path := filepath.Join(dir, name)
		f, err := weights.Open(both)
		if err != nil {
			t.Fatal(err)
		}
		sd, err := weights.LoadCLIP(f, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer sd.Close()
		own := nn.NewStateDict()
		for _, n := range sd.Names() {
			if x, _ := sd.Get(n); part.Has(n) {
				own.Add(n, x)
			}
		}
		if err := weights.Save(t.Context(), path, own, f.Meta); err != nil {
			t.Fatal(err)
		}
		return path
	}
	siglip := func(part string) string { return filepath.Join("testdata", "siglip", part) }
	for _, test := range []struct {
		path string
		want bool
		says string
	}{
		{both, true, ""}, {only("image.safetensors", clip.Image), false, ""}, {only("text.safetensors", clip.Text), false, "image"},
		{siglip("model"), true, ""}, {siglip("vision"), false, ""}, {siglip("text"), false, "vision_model"}, {"missing.pt", false, "missing.pt"},
	} {
		c, err := pipeline.Load(pipeline.Files{CLIP: test.path, Texts: true}, pipeline.Options{})
		if err != nil {
			if test.says == "" || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%s: %v", test.path, err)
			}
			continue
		}
		if texts := c.CLIP.Model.ContextLength() > 0; test.says != "" || texts != test.want || c.CLIP.Model.ImageSize() == 0 || c.Decoder != nil {
			t.Errorf("%s: texts %v, images of %d pixels", test.path, texts, c.CLIP.Model.ImageSize())
		}
		c.Notes()
		c.Close()
	}
}

// An encoder that is loaded alone computes the same as one that is loaded with the
// other encoder, from every kind of file, and holds none of the other's weights.
func TestOneEncoder(t *testing.T) {
	whole := readsTexts(t)
	for _, name := range []string{whole, small + "clip.pt", small + "clip-archive.pt", small + "clip-transformers"} {
		both := loadCLIP(t, name, clip.Both)
		image, text := loadCLIP(t, name, clip.Image), loadCLIP(t, name, clip.Text)
		imageModel, textModel := image.Model.(*clip.Model), text.Model.(*clip.Model)
		if diff := cmp.Diff(both.Model.(*clip.Model).Config, imageModel.Config); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if imageModel.TokenEmbedding != nil || imageModel.TextProjection.Defined() || textModel.Visual != nil {
			t.Errorf("%s: the other encoder is there", name)
		}
		sd := nn.StateDictOf(image.Model)
		for _, n := range sd.Names() {
			if v, _ := sd.Get(n); !strings.HasPrefix(n, "visual.") || v.Device() != torch.CPU {
				t.Errorf("%s: the image encoder has %s on %v", name, n, v.Device())
			}
		}
		for a, err := range image.Photos(t.Context(), photos(t, 3), 3) {
			if err != nil {
				t.Fatal(err)
			}
			for b, err := range both.Photos(t.Context(), photos(t, 3), 3) {
				if err != nil || !slices.Equal(a.Rows, b.Rows) || len(a.Rows) != 3*both.Width() {
					t.Errorf("%s: other image features (%v)", name, err)
				}
			}
		}
		if name != whole {
			for _, err := range text.Texts(t.Context(), []string{"a cat"}, 1, false) {
				if err == nil || !strings.Contains(err.Error(), "another tokenizer") {
					t.Errorf("%s: a vocabulary of 256 tokens: %v", name, err)
				}
			}
			continue
		}
		for a, err := range text.Texts(t.Context(), []string{"a cat", "two dogs"}, 2, false) {
			if err != nil {
				t.Fatal(err)
			}
			for b, err := range both.Texts(t.Context(), []string{"a cat", "two dogs"}, 2, false) {
				if err != nil || !slices.Equal(a.Rows, b.Rows) || len(a.Rows) != 2*both.Width() {
					t.Errorf("%s: other text features (%v)", name, err)
				}
			}
		}
		for _, err := range image.Texts(t.Context(), []string{"a cat"}, 1, true) {
			if err == nil || !strings.Contains(err.Error(), "without its text encoder") {
				t.Errorf("%s: a text through the image encoder: %v", name, err)
			}
		}
	}
}

// Index is right if photos can't be read and if batches are not full.
func TestPlaces(t *testing.T) {
	m := loadCLIP(t, readsTexts(t), clip.Both)
	list := slices.Insert(photos(t, 4), 2, "missing.jpg")
	var index []int
	var failed []string
	for b, err := range m.Photos(t.Context(), list, 2) {
		if err != nil {
			t.Fatal(err)
		}
		if len(b.Rows) != len(b.Index)*m.Width() {
			t.Errorf("%d values for %d photos", len(b.Rows), len(b.Index))
		}
		index = append(index, b.Index...)
		for _, f := range b.Failed {
			failed = append(failed, f.Path)
		}
	}
	if diff := cmp.Diff([]int{0, 1, 3, 4}, index); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"missing.jpg"}, failed); diff != "" {
		t.Error(diff)
	}
	index = nil
	for b, err := range m.Texts(t.Context(), []string{"a", "b", "c"}, 2, false) {
		if err != nil {
			t.Fatal(err)
		}
		index = append(index, b.Index...)
	}
	if diff := cmp.Diff([]int{0, 1, 2}, index); diff != "" {
		t.Error(diff)
	}
	long := strings.Repeat("very ", 100) + "long"
	for b, err := range m.Texts(t.Context(), []string{"short", long}, 1, false) {
		var e *pipeline.LongTextError
		if !errors.As(err, &e) || e.Index != 1 || b.Rows != nil {
			t.Errorf("%v, %d values before it", err, len(b.Rows))
		}
	}
	for _, err := range m.Texts(t.Context(), []string{long}, 1, true) {
		if err != nil {
			t.Error(err)
		}
	}
}

// A captioner returns both captions of each photo, with all beams of a beam search,
// for every batch size.
func TestCaptioner(t *testing.T) {
	c, err := pipeline.Load(files, pipeline.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, o := range []clipcap.Options{
		{Method: clipcap.Beam, Beam: 3, MaxTokens: 6, Stop: clipcap.Stop},
		{Method: clipcap.Sample, Temperature: 1, MaxTokens: 6, Stop: clipcap.Stop, Seed: 9},
	} {
		texts := map[int][]string{} // by batch size
		for _, batch := range []int{1, 4} {
			for b, err := range c.Photos(t.Context(), photos(t, 4), batch, o) {
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range b.Captions {
					if want := max(1, o.Beam); len(p.Direct) != want || len(p.Textualised) != want {
						t.Fatalf("%d and %d alternatives instead of %d", len(p.Direct), len(p.Textualised), want)
					}
					for _, x := range append(p.Direct, p.Textualised...) {
						sum := 0.
						for _, v := range x.TokenLogProbs {
							sum += v
						}
						if len(x.TokenLogProbs) != len(x.Tokens) || math.Abs(sum-x.LogProb) > 1e-4 {
							t.Errorf("%d tokens, %d log-probabilities of sum %g, %g in all", len(x.Tokens), len(x.TokenLogProbs), sum, x.LogProb)
						}
						texts[batch] = append(texts[batch], x.Text)
					}
				}
			}
		}
		if diff := cmp.Diff(texts[1], texts[4]); diff != "" {
			t.Errorf("%s: the batch changes captions: %s", o.Method, diff)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range c.Photos(ctx, photos(t, 2), 1, clipcap.Options{Method: clipcap.Greedy, MaxTokens: 3}) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("a context that is done: %v", err)
		}
	}
}

// A decoder file records whether its features have length 1, and LoadDecoder and
// Captions honour that.
func TestNormalizeTravels(t *testing.T) {
	plain, err := pipeline.LoadDecoder(files.Decoder, files.GPT2, pipeline.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if !plain.Normalize || !strings.Contains(plain.NormalizeNote, "does not say") || plain.OwnGPT2 {
		t.Errorf("a transformer mapper that records no normalisation and contains no GPT-2: normalize %v (%q), own GPT-2 %v",
			plain.Normalize, plain.NormalizeNote, plain.OwnGPT2)
	}
	plain.Normalize = false
	for _, name := range []string{"decoder.pt", "decoder.safetensors"} {
		path := filepath.Join(t.TempDir(), name)
		for _, whole := range []bool{false, true} {
			gptFile := files.GPT2
			gpt := plain.GPT2
			if whole {
				gptFile = ""
			} else {
				gpt = nil
			}
			if err := pipeline.SaveDecoder(t.Context(), path, plain.Model.Mapper, gpt, pipeline.Scaling{Normalize: true}); err != nil {
				t.Fatal(err)
			}
			d, err := pipeline.LoadDecoder(path, gptFile, pipeline.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if !d.Normalize || d.NormalizeNote != "" || d.OwnGPT2 != whole {
				t.Errorf("%s: normalize %v, own GPT-2 %v", name, d.Normalize, d.OwnGPT2)
			}
			if err := pipeline.SaveDecoder(t.Context(), path, plain.Model.Mapper, gpt, pipeline.Scaling{Normalize: true, MeanRemoved: true}); err != nil {
				t.Fatal(err)
			}
			_, err = pipeline.Load(pipeline.Files{CLIP: files.CLIP, Decoder: path, GPT2: gptFile}, pipeline.Options{})
			if err == nil || !strings.Contains(err.Error(), "without their mean (C3)") {
				t.Errorf("%s, trained without the mean: %v", name, err)
			}
			m := loadCLIP(t, files.CLIP, clip.Image)
			o := clipcap.Options{Method: clipcap.Greedy, MaxTokens: 6, Stop: clipcap.Stop}
			for f, err := range m.Photos(t.Context(), photos(t, 2), 2) {
				if err != nil {
					t.Fatal(err)
				}
				got, err := (&pipeline.Captioner{CLIP: m, Decoder: d}).Captions(t.Context(), f.Rows, o)
				if err != nil {
					t.Fatal(err)
				}
				if err := pipeline.Normalize(f.Rows, m.Width()); err != nil {
					t.Fatal(err)
				}
				want, err := (&pipeline.Captioner{CLIP: m, Decoder: plain}).Captions(t.Context(), f.Rows, o)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s: %s", name, diff)
				}
			}
			d.Close()
		}
	}
}

func TestLoadErrors(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "broken.pt")
	err := torch.Scope(func() error {
		f, err := weights.Open(files.Decoder)
		if err != nil {
			return err
		}
		sd, err := f.Load()
		if err != nil {
			return err
		}
		return weights.Save(t.Context(), broken, sd, map[string]string{weights.NormalizePrefix: "perhaps"})
	})
	if err != nil {
		t.Fatal(err)
	}
	other := func(change func(f *pipeline.Files)) pipeline.Files {
		f := files
		change(&f)
		return f
	}
	for name, test := range map[string]struct {
		files pipeline.Files
		want  []string
	}{
		"no GPT-2":           {other(func(f *pipeline.Files) { f.GPT2 = "" }), []string{files.Decoder, "only a mapper"}},
		"not a CLIP":         {other(func(f *pipeline.Files) { f.CLIP = files.Generator }), []string{files.Generator, "expected a CLIP model"}},
		"missing":            {other(func(f *pipeline.Files) { f.Generator = "nowhere.pt" }), []string{"nowhere.pt"}},
		"metadata":           {other(func(f *pipeline.Files) { f.Decoder = broken }), []string{broken, "normalize_prefix", "perhaps"}},
		"a folder for GPT-2": {other(func(f *pipeline.Files) { f.GPT2 = t.TempDir() }), []string{"model.safetensors"}},
	} {
		c, err := pipeline.Load(test.files, pipeline.Options{})
		if err == nil {
			c.Close()
			t.Errorf("%s: no error", name)
			continue
		}
		for _, w := range test.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v lacks %q", name, err, w)
			}
		}
	}
}

// Features that are not finite do not leave the encoders.
func TestNotFinite(t *testing.T) {
	m := loadCLIP(t, readsTexts(t), clip.Both)
	paths := photos(t, 2)
	err := torch.Scope(func() error {
		torch.NoGrad(func() {
			model := m.Model.(*clip.Model)
			model.TextProjection.Fill_(math.Inf(1))
			model.Visual.Proj.Fill_(math.NaN())
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for f, err := range m.Photos(t.Context(), paths, 2) {
		if err != nil {
			t.Fatal(err)
		}
		if len(f.Index) != 0 || len(f.Rows) != 0 || len(f.Failed) != 2 || !strings.Contains(f.Failed[1].Error(), paths[1]+": its feature is not finite (value 1 of 16 is NaN)") {
			t.Errorf("%+v", f)
		}
	}
	for _, err := range m.Texts(t.Context(), []string{"a cat", "a dog"}, 2, false) {
		if err == nil || !strings.Contains(err.Error(), "the feature of text 0 is not finite") {
			t.Errorf("%v", err)
		}
	}
	rows := []float32{3, 4, 0, 0}
	var bad *pipeline.RowError
	if err := pipeline.Normalize(rows, 2); !errors.As(err, &bad) || bad.Row != 1 || rows[0] != 3 {
		t.Errorf("%v, rows %v", err, rows)
	}
}

// Features computed with bf16 or packed weights are about the same.
func TestOptions(t *testing.T) {
	exact := loadCLIP(t, files.CLIP, clip.Image)
	var want []float32
	for b, err := range exact.Photos(t.Context(), photos(t, 2), 2) {
		if err != nil {
			t.Fatal(err)
		}
		want = b.Rows
	}
	for _, test := range []struct {
		o     pipeline.Options
		bound float64 // of the largest value
	}{{pipeline.Options{Pack: true}, 1e-5}, {pipeline.Options{BF16: true}, 0.1}} {
		m, err := pipeline.LoadCLIP(files.CLIP, "", clip.Image, test.o)
		if err != nil {
			t.Fatal(err)
		}
		for b, err := range m.Photos(t.Context(), photos(t, 2), 2) {
			if err != nil {
				t.Fatal(err)
			}
			var off, largest float64
			for i, v := range b.Rows {
				off, largest = max(off, math.Abs(float64(v-want[i]))), max(largest, math.Abs(float64(want[i])))
			}
			if !(off <= test.bound*largest) || test.o.BF16 && off == 0 {
				t.Errorf("%+v: features are off by %g of %g", test.o, off, largest)
			}
		}
		m.Close()
	}
}

func TestMain(m *testing.M) {
	torch.SetNumThreads(2)
	os.Exit(m.Run())
}
