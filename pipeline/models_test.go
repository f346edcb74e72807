package pipeline_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cyclecap/nets/clip"
	"cyclecap/pipeline"
	"cyclecap/torch"
	"cyclecap/torch/compare"
	"cyclecap/torch/nn"
	"cyclecap/torch/torchtest"
	"cyclecap/weights"
)

// clips has small models of the real Python classes, and their features, written by
// testdata/reference/clips.py.
const clips = "../nets/clip/testdata/"

// bits is the tolerance of features that have the same bits on the processor that the
// fixtures were made on.
func bits(t *testing.T) compare.Tolerance {
	t.Helper()
	var facts struct {
		CPU     string
		Threads int
	}
	text, err := os.ReadFile(clips + "facts.json")
	if err == nil {
		err = json.Unmarshal(text, &facts)
	}
	if err != nil {
		t.Fatal(err)
	}
	here, err := compare.Processor()
	if err != nil {
		t.Fatal(err)
	}
	torch.SetNumThreads(facts.Threads)
	if here != facts.CPU {
		return compare.Tolerance{Why: "another processor: " + here, Relative: 1e-5}
	}
	return compare.Bits
}

func load(t *testing.T, path string) *nn.StateDict {
	t.Helper()
	f, err := weights.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	sd, err := f.Load()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sd.Close)
	return sd
}

// checkFeatures compares the features of a CLIP with those in a folder of clips.
func checkFeatures(t *testing.T, m *pipeline.CLIP, folder string, part clip.Part) {
	t.Helper()
	exact := bits(t)
	fused := compare.Tolerance{Why: "open_clip runs PyTorch's fused attention layer", Relative: 2e-6}
	want := load(t, folder+"/expected.safetensors")
	err := torch.Scope(func() error {
		torch.InferenceMode(func() {
			for _, c := range []struct {
				part   clip.Part
				input  string
				encode func(torch.Tensor) torch.Tensor
				want   string
			}{{clip.Image, "pixels", m.Model.EncodeImage, "image"}, {clip.Text, "ids", m.Model.EncodeText, "text"}} {
				if part != clip.Both && part != c.part {
					continue
				}
				x, ok := want.Get(c.input)
				if !ok {
					t.Fatalf("%s has no %s", folder, c.input)
				}
				reference, _ := want.Get(c.want)
				got := c.encode(x.Clone())
				torchtest.Close(t, got, reference, exact, c.want)
				if reference, ok := want.Get("fused_" + c.want); ok {
					torchtest.Close(t, got, reference, fused, c.want)
				}
			}
		})
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// Every kind of CLIP and every form of file has the features that OpenAI's code,
// open_clip and transformers compute.
func TestModels(t *testing.T) {
	const (
		assumed       = "quick_gelu and attention heads of width 64 are assumed"
		preprocessing = "no preprocessor_config.json"
	)
	for _, c := range []struct {
		file string
		part clip.Part
		note string // part of the only note
	}{
		{"openai-resnet-archive/clip.pt", clip.Both, ""},
		{"openai-resnet-visual/clip.pt", clip.Image, assumed},
		{"openai-state/clip.pt", clip.Both, assumed},
		{"openai-text/clip.pt", clip.Text, assumed},
		{"openclip-gelu/open_clip_model.safetensors", clip.Both, ""},
		{"openclip-quickgelu/open_clip_pytorch_model.bin", clip.Both, ""},
		{"openclip-custom/open_clip_model.safetensors", clip.Both, ""},
		{"openclip-variants/open_clip_model.safetensors", clip.Both, ""},
		{"openclip-first/open_clip_model.safetensors", clip.Both, ""},
		{"openclip-resnet/open_clip_model.safetensors", clip.Both, ""},
		{"transformers", clip.Both, preprocessing},
		{"transformers-sharded", clip.Both, preprocessing},
		{"transformers-vision", clip.Image, preprocessing},
		{"transformers-text", clip.Text, ""},
	} {
		t.Run(c.file, func(t *testing.T) {
			parts := []clip.Part{c.part}
			if c.part == clip.Both {
				parts = append(parts, clip.Image, clip.Text)
			}
			for _, part := range parts {
				m, err := pipeline.LoadCLIP(clips+c.file, "", part, pipeline.Options{})
				if err != nil {
					t.Fatal(err)
				}
				if part == clip.Text && c.note == preprocessing {
					c.note = "" // texts need none
				}
				if c.note == "" && len(m.Notes) > 0 || c.note != "" && (len(m.Notes) != 1 || !strings.Contains(m.Notes[0], c.note)) {
					t.Errorf("notes %q", m.Notes)
				}
				folder, _, _ := strings.Cut(c.file, "/")
				checkFeatures(t, m, clips+folder, part)
				m.Close()
			}
			if c.part == clip.Both {
				return
			}
			for _, part := range []clip.Part{clip.Both, clip.Image + clip.Text - c.part} {
				if _, err := pipeline.LoadCLIP(clips+c.file, "", part, pipeline.Options{}); err == nil || !strings.Contains(err.Error(), "encoder of a CLIP") && !strings.Contains(err.Error(), "clip_") {
					t.Errorf("part %d, of which nothing is there: %v", part, err)
				}
			}
		})
	}
}

// copied copies files of a folder of clips to a new one.
func copied(t *testing.T, from string, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		data, err := os.ReadFile(clips + from + "/" + name)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// The configuration comes from the flag, from the weights or from beside them, and what
// has to be assumed is said.
func TestClipConfig(t *testing.T) {
	alone := copied(t, "openclip-gelu", "open_clip_model.safetensors") + "/open_clip_model.safetensors"
	t.Run("heads that cannot be assumed", func(t *testing.T) {
		_, err := pipeline.LoadCLIP(alone, "", clip.Both, pipeline.Options{})
		if err == nil || !strings.Contains(err.Error(), "open_clip_config.json") || !strings.Contains(err.Error(), "--clip-config") {
			t.Error(err)
		}
	})
	t.Run("a file", func(t *testing.T) {
		m, err := pipeline.LoadCLIP(alone, clips+"openclip-gelu/open_clip_config.json", clip.Both, pipeline.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		checkFeatures(t, m, clips+"openclip-gelu", clip.Both)
	})
	t.Run("a file that contradicts", func(t *testing.T) {
		config := clips + "openclip-custom/open_clip_config.json"
		_, err := pipeline.LoadCLIP(alone, config, clip.Both, pipeline.Options{})
		if err == nil || !strings.Contains(err.Error(), alone) || !strings.Contains(err.Error(), config) || !strings.Contains(err.Error(), "vision width of 48, but the weights have 40") {
			t.Error(err)
		}
	})
	t.Run("neither a file nor a name", func(t *testing.T) {
		_, err := pipeline.LoadCLIP(alone, "ViT-B-33", clip.Both, pipeline.Options{})
		if err == nil || !strings.Contains(err.Error(), "ViT-B-33") || !strings.Contains(err.Error(), "did you mean ViT-B-32?") {
			t.Error(err)
		}
	})
	t.Run("transformers without config.json", func(t *testing.T) {
		path := copied(t, "transformers", "model.safetensors")
		_, err := pipeline.LoadCLIP(path, "", clip.Both, pipeline.Options{})
		if err == nil || !strings.Contains(err.Error(), "there is no config.json beside it") {
			t.Error(err)
		}
		m, err := pipeline.LoadCLIP(path, clips+"transformers/config.json", clip.Both, pipeline.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		checkFeatures(t, m, clips+"transformers", clip.Both)
	})
	t.Run("a config.json of something else", func(t *testing.T) {
		path := copied(t, "transformers", "model.safetensors")
		if err := os.WriteFile(path+"/config.json", []byte(`{"model_type": "gpt2"}`), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := pipeline.LoadCLIP(path, "", clip.Both, pipeline.Options{})
		if err == nil || !strings.Contains(err.Error(), path+`/config.json: model_type "gpt2"`) {
			t.Error(err)
		}
	})
	t.Run("OpenAI's archive is what it is", func(t *testing.T) {
		_, err := pipeline.LoadCLIP(clips+"openai-resnet-archive/clip.pt", clips+"openclip-resnet/open_clip_config.json", clip.Both, pipeline.Options{})
		if err == nil || !strings.Contains(err.Error(), "one of OpenAI's own files") {
			t.Error(err)
		}
	})
	t.Run("metadata", func(t *testing.T) {
		for _, name := range []string{"transformers", "openclip-custom/open_clip_model.safetensors", "openai-resnet-archive/clip.pt"} {
			f, err := weights.Open(clips + name)
			if err != nil {
				t.Fatal(err)
			}
			sd, meta, err := pipeline.ReadCLIP(f)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "converted.safetensors")
			err = weights.Save(t.Context(), path, sd, meta)
			sd.Close()
			if err != nil {
				t.Fatal(err)
			}
			m, err := pipeline.LoadCLIP(path, "", clip.Both, pipeline.Options{})
			if err != nil {
				t.Fatal(err)
			}
			folder, _, _ := strings.Cut(name, "/")
			if len(m.Notes) > 0 {
				t.Errorf("%s: %q", name, m.Notes)
			}
			checkFeatures(t, m, clips+folder, clip.Both)
			m.Close()
		}
	})
}

// CLIPVisionModel and CLIPTextModel have no projection, and their features are not
// CLIP's.
func TestNoProjection(t *testing.T) {
	for of, c := range map[string]struct {
		part    clip.Part
		without string
	}{"transformers-vision": {clip.Image, "visual_projection.weight"}, "transformers-text": {clip.Text, "text_projection.weight"}} {
		path := filepath.Join(t.TempDir(), "model.safetensors")
		in, out := load(t, clips+of+"/model.safetensors"), nn.NewStateDict()
		for _, name := range in.Names() {
			if x, _ := in.Get(name); name != c.without {
				out.Add(name, x)
			}
		}
		if err := weights.Save(t.Context(), path, out, nil); err != nil {
			t.Fatal(err)
		}
		_, err := pipeline.LoadCLIP(path, "", c.part, pipeline.Options{})
		if err == nil || !strings.Contains(err.Error(), "no "+c.without) {
			t.Errorf("%s: %v", of, err)
		}
	}
}

// logit_scale is not needed for features: it may have another shape or be missing.
func TestLogitScale(t *testing.T) {
	for name, change := range map[string]func(sd *nn.StateDict, name string) bool{
		"missing": func(_ *nn.StateDict, name string) bool { return name == "logit_scale" },
		"a bias": func(sd *nn.StateDict, _ string) bool {
			sd.Add("logit_bias", torch.Zeros([]int64{1}).Keep())
			return false
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "clip.pt")
			in := load(t, clips+"openai-state/clip.pt")
			err := torch.Scope(func() error {
				out := nn.NewStateDict()
				for _, n := range in.Names() {
					if x, _ := in.Get(n); !change(out, n) {
						out.Add(n, x)
					}
				}
				return weights.Save(t.Context(), path, out, nil)
			})
			if err != nil {
				t.Fatal(err)
			}
			m, err := pipeline.LoadCLIP(path, "", clip.Both, pipeline.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			checkFeatures(t, m, clips+"openai-state", clip.Both)
		})
	}
}

// A CLIP with another vocabulary than CLIP's cannot read texts, even if it has the same
// size.
func TestOtherTokenizer(t *testing.T) {
	for name, c := range map[string]struct{ file, text, want string }{
		"none":            {"", "", "vocabulary of 64 tokens"},
		"another vocab":   {"vocab.json", `{"a": 0}`, "vocab.json is another vocabulary"},
		"WordPiece":       {"tokenizer.json", `{"model": {"type": "WordPiece", "vocab": {"a": 0}}}`, "tokenizer.json is another vocabulary"},
		"a Unigram model": {"tokenizer.json", `{"model": {"type": "Unigram", "vocab": [["a", -1.5]]}}`, "tokenizer.json is another vocabulary"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := copied(t, "transformers", "model.safetensors", "config.json")
			if c.file != "" {
				if err := os.WriteFile(filepath.Join(dir, c.file), []byte(c.text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			m, err := pipeline.LoadCLIP(dir, "", clip.Text, pipeline.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			if err := m.CheckTokenizer(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Error(err)
			}
		})
	}
}
