package pipeline_test

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	worldmodels "cyclecap/models/world"
	"cyclecap/nets/clipcap"
	"cyclecap/pipeline"
	"cyclecap/torch"
)

// differing returns the number of elements whose bits differ.
func differing(a, b []float32) (n int) {
	if len(a) != len(b) {
		return max(len(a), len(b))
	}
	for i, v := range a {
		if math.Float32bits(v) != math.Float32bits(b[i]) {
			n++
		}
	}
	return n
}

// inBatches returns what f computes of list by batches of n.
func inBatches[T any](t *testing.T, list []T, n int, f func([]T) ([]float32, error)) (rows []float32) {
	t.Helper()
	for part := range slices.Chunk(list, n) {
		r, err := f(part)
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, r...)
	}
	return rows
}

// world are the models in the program, with CLIP's text encoder.
var world = pipeline.Files{CLIP: "clip.safetensors", Decoder: "decoder.safetensors", GPT2: "gpt2.safetensors", Generator: "generator.safetensors", FS: worldmodels.FS, Texts: true}

// Where BatchInvariant says that features have the same bits in any batch, they have.
func TestBatchInvariant(t *testing.T) {
	for _, c := range []struct {
		name          string
		files         pipeline.Files
		photos, texts bool
	}{
		{"ViT of OpenAI", pipeline.Files{CLIP: clips + "openai-state/clip.pt"}, true, true},
		{"ViT of open_clip", pipeline.Files{CLIP: clips + "openclip-variants/open_clip_model.safetensors"}, true, true},
		{"ViT of transformers", pipeline.Files{CLIP: clips + "transformers"}, true, true},
		{"ResNet", pipeline.Files{CLIP: clips + "openclip-resnet/open_clip_model.safetensors"}, false, true},
		{"SigLIP", pipeline.Files{CLIP: *siglipFolder + "/model"}, false, false},
		{"world", world, false, true},
	} {
		for kind, o := range map[string]pipeline.Options{"exact": {}, "bf16": {BF16: true}, "fast": {Pack: true}, "int8": {Int8: true}} {
			t.Run(c.name+"/"+kind, func(t *testing.T) {
				c.files.Texts, c.files.Decoder, c.files.GPT2, c.files.Generator = true, "", "", ""
				all, err := pipeline.Load(c.files, o)
				if err != nil {
					t.Fatal(err)
				}
				defer all.Close()
				m := all.CLIP
				packed := torch.HasPanels() && (o.Pack || o.Int8)
				images, texts := m.BatchInvariant()
				if images != (packed && c.photos) || texts != (packed && c.texts) {
					t.Errorf("BatchInvariant: photos %v, texts %v", images, texts)
				}
				if images {
					var pixels [][]float32
					for _, p := range photos(t, 5) {
						data, err := os.ReadFile(p)
						if err != nil {
							t.Fatal(err)
						}
						x, err := m.Pixels(data, 1<<30)
						if err != nil {
							t.Fatal(err)
						}
						pixels = append(pixels, x)
					}
					if n := differing(inBatches(t, pixels, 5, m.EncodePixels), inBatches(t, pixels, 1, m.EncodePixels)); n > 0 {
						t.Errorf("photos: %d numbers differ", n)
					}
				}
				if texts && m.CheckTokenizer() == nil {
					list := []string{"a", "a red cup", "two dogs play in the snow", "", "a man and a woman sit on a bench in a park with a dog"}
					of := func(texts []string) (rows []float32, err error) {
						for f, err := range m.Texts(t.Context(), texts, len(texts), true) {
							if err != nil {
								return nil, err
							}
							rows = append(rows, f.Rows...)
						}
						return rows, nil
					}
					if n := differing(inBatches(t, list, 5, of), inBatches(t, list, 1, of)); n > 0 {
						t.Errorf("texts: %d numbers differ", n)
					}
				}
			})
		}
	}
}

// So have translated features and the captions of every method.
func TestBatchInvariantCaptions(t *testing.T) {
	for kind, o := range map[string]pipeline.Options{"exact": {}, "bf16": {BF16: true}, "fast": {Pack: true}, "int8": {Int8: true}} {
		t.Run(kind, func(t *testing.T) {
			c, err := pipeline.Load(world, o)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			packed := torch.HasPanels() && (o.Pack || o.Int8)
			if got := c.Decoder.BatchInvariant(); got != packed {
				t.Errorf("BatchInvariant: %v", got)
			}
			if !packed {
				return
			}
			width := c.CLIP.Width()
			var features []float32
			for f, err := range c.CLIP.Texts(t.Context(), []string{"a red cup", "two blue dogs on a beach", "a green tree stands beside a house", "three birds", "a big yellow bus at night", "a white boat"}, 6, true) {
				if err != nil {
					t.Fatal(err)
				}
				features = append(features, f.Rows...)
			}
			list := slices.Collect(slices.Chunk(features, width))
			textualise := func(rows [][]float32) ([]float32, error) { return c.Textualise(slices.Concat(rows...)) }
			if n := differing(inBatches(t, list, 6, textualise), inBatches(t, list, 1, textualise)); n > 0 {
				t.Errorf("translated features: %d numbers differ", n)
			}
			for _, method := range clipcap.Methods {
				at := clipcap.Options{Method: method, Beam: 4, MaxTokens: 20, Stop: c.Decoder.Stop, Seed: 7}
				together, err := c.Direct(t.Context(), features, at)
				if err != nil {
					t.Fatal(err)
				}
				for i, f := range list {
					alone, err := c.Direct(t.Context(), f, at)
					if err != nil {
						t.Fatal(err)
					}
					at.Seed++
					if diff := cmp.Diff(alone[0], together[i]); diff != "" {
						t.Errorf("%s, caption %d: %s", method, i, diff)
					}
				}
			}
		})
	}
}

// varied returns the token that is chosen first at the most different places, so that captions
// which it ends have different lengths.
func varied(captions []pipeline.Captioned) (stop int64) {
	at := map[int64]map[int]bool{}
	for _, c := range captions {
		for i, id := range c.Direct[0].Tokens {
			if slices.Index(c.Direct[0].Tokens, id) == i {
				if at[id] == nil {
					at[id] = map[int]bool{}
				}
				at[id][i] = true
			}
		}
	}
	for id := range at {
		if len(at[id]) > len(at[stop]) || len(at[id]) == len(at[stop]) && id < stop {
			stop = id
		}
	}
	return stop
}

// The captions of a set join each other where that changes no bit. They are those of each photo
// by itself, in order, and photos that cannot be read are reported.
func TestCaptionsOfASet(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.jpg")
	if err := os.WriteFile(bad, []byte("no photo"), 0o666); err != nil {
		t.Fatal(err)
	}
	list := slices.Insert(photos(t, 9), 5, bad)
	for kind, on := range map[string]pipeline.Options{"exact": {}, "fast": {Pack: true}, "int8": {Int8: true}} {
		c, err := pipeline.Load(files, on)
		if err != nil {
			t.Fatal(err)
		}
		var features []float32
		for f, err := range c.CLIP.Photos(t.Context(), list, 1) {
			if err != nil {
				t.Fatal(err)
			}
			features = append(features, f.Rows...)
		}
		width := c.CLIP.Width()
		for _, method := range []clipcap.Method{clipcap.Greedy, clipcap.Sample} {
			o := clipcap.Options{Method: method, MaxTokens: 16, Stop: -1, Seed: 3, Temperature: 0.3}
			// alone returns the captions of each photo by itself.
			alone := func() (list []pipeline.Captioned) {
				at := o
				for row := range slices.Chunk(features, width) {
					captions, err := c.Captions(t.Context(), row, at)
					if err != nil {
						t.Fatal(err)
					}
					at.Seed++
					list = append(list, captions...)
				}
				return list
			}
			o.Stop = varied(alone())
			want := alone()
			var got []pipeline.Captioned
			var paths, failed []string
			for b, err := range c.Photos(t.Context(), list, 3, o) {
				if err != nil {
					t.Fatal(err)
				}
				got, paths = append(got, b.Captions...), append(paths, b.Paths...)
				for _, f := range b.Failed {
					failed = append(failed, f.Path)
				}
			}
			if !slices.Equal(paths, slices.Delete(slices.Clone(list), 5, 6)) || !slices.Equal(failed, []string{bad}) {
				t.Errorf("%s, %s: photos %q, failed %q", kind, method, paths, failed)
			}
			lengths := map[int]bool{}
			for i, w := range want {
				lengths[len(w.Direct[0].Tokens)] = true
				if kind == "exact" || !torch.HasPanels() {
					continue
				}
				if diff := cmp.Diff(w, got[i]); diff != "" {
					t.Errorf("%s, %s, photo %d: %s", kind, method, i, diff)
				}
			}
			if len(lengths) < 2 {
				t.Errorf("%s, %s: all captions have one of the lengths %v", kind, method, lengths)
			}
		}
		c.Close()
	}
}
