package pipeline_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cyclecap/data/photo"
	"cyclecap/data/tokenizer"
	"cyclecap/nets/clip"
	"cyclecap/pipeline"
	"cyclecap/torch"
	"cyclecap/torch/compare"
	"cyclecap/torch/torchtest"
	"cyclecap/weights"
)

var siglipFolder = flag.String("siglip", "testdata/siglip", "folder that testdata/reference/siglip.py has written")

// siglipTolerance is 0 on the processor on which the fixtures were made.
func siglipTolerance(t *testing.T, cpu string) compare.Tolerance {
	t.Helper()
	here, err := compare.Processor()
	if err != nil {
		t.Fatal(err)
	}
	if here == cpu {
		return compare.Bits
	}
	return compare.Bits.OtherProcessor()
}

// The features of a SigLIP are those of transformers' SiglipModel, bit for bit; those of an
// encoder alone are the same.
func TestSigLIP(t *testing.T) {
	threads := torch.NumThreads()
	torch.SetNumThreads(1)
	defer torch.SetNumThreads(threads)
	f, err := weights.Open(filepath.Join(*siglipFolder, "expected.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := f.Load()
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	get := func(name string) torch.Tensor {
		x, ok := want.Get(name)
		if !ok {
			t.Fatalf("expected.safetensors has no %s", name)
		}
		return x
	}
	tolerance := siglipTolerance(t, f.Meta["cpu"])
	for _, test := range []struct {
		folder string
		part   clip.Part
	}{{"model", clip.Both}, {"model", clip.Image}, {"model", clip.Text}, {"vision", clip.Image}, {"text", clip.Text}} {
		path := filepath.Join(*siglipFolder, test.folder)
		if _, err := os.Stat(path); err != nil {
			continue // siglip.py --base writes only the whole model
		}
		m, err := pipeline.LoadCLIP(path, "", test.part, pipeline.Options{})
		if err != nil {
			t.Fatal(err)
		}
		err = torch.Scope(func() error {
			torch.InferenceMode(func() {
				if test.part != clip.Text {
					pixels := get("pixels")
					torchtest.Close(t, m.Model.EncodeImage(pixels), get("image"), tolerance, test.folder, " image")
					torchtest.Close(t, m.Model.EncodeImage(pixels.Narrow(0, 0, 1)), get("image1"), tolerance, test.folder, " image alone")
				}
				if test.part != clip.Image {
					ids := get("ids")
					torchtest.Close(t, m.Model.EncodeText(ids), get("text"), tolerance, test.folder, " text")
					torchtest.Close(t, m.Model.EncodeText(ids.Narrow(0, 0, 1)), get("text1"), tolerance, test.folder, " text alone")
				}
			})
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		m.Close()
	}
}

func TestSigLIPRefuses(t *testing.T) {
	for _, test := range []struct{ old, now, want string }{
		{`"model_type": "siglip"`, `"model_type": "siglip2"`, "NaFlex"},
		{`"model_type": "siglip"`, `"model_type": "clip"`, `model_type is "clip", want siglip`},
		{`"num_attention_heads": 2`, `"num_attention_heads": 5`, "not a multiple of num_attention_heads 5"},
		{`"num_attention_heads": 2`, `"num_attention_heads": 0`, "num_attention_heads is 0"},
		{`"hidden_act": "gelu_pytorch_tanh"`, `"hidden_act": "relu"`, `hidden_act is "relu"`},
		{`"vision_use_head": true`, `"vision_use_head": false`, "vision_use_head is false"},
		{`"num_hidden_layers": 2`, `"num_hidden_layers": 3`, "the weights do not match the model"},
		{`"image_size": 39`, `"image_size": 48`, "position_embedding.weight is [16 32], want [36 32]"},
		{`"num_channels": 3`, `"num_channels": 1`, "num_channels is 1"},
	} {
		dir := copyFolder(t, "testdata/siglip/model")
		config := filepath.Join(dir, "config.json")
		text, err := os.ReadFile(config)
		if err != nil {
			t.Fatal(err)
		}
		changed := strings.Replace(string(text), test.old, test.now, 1)
		if changed == string(text) {
			t.Fatalf("config.json does not hold %s", test.old)
		}
		if err := os.WriteFile(config, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := pipeline.LoadCLIP(dir, "", clip.Both, pipeline.Options{})
		if err == nil {
			m.Close()
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want one with %q", test.now, err, test.want)
		}
	}
}

// Without files beside the weights, what is assumed is said, and texts are refused.
func TestSigLIPAlone(t *testing.T) {
	dir := copyFolder(t, "testdata/siglip/model")
	if err := os.Remove(filepath.Join(dir, "config.json")); err != nil {
		t.Fatal(err)
	}
	m, err := pipeline.LoadCLIP(dir, "", clip.Both, pipeline.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	notes := strings.Join(m.Notes, "\n")
	for _, want := range []string{"no config.json", "SiglipImageProcessor are assumed"} {
		if !strings.Contains(notes, want) {
			t.Errorf("notes %q, want %q", notes, want)
		}
	}
	if err := m.CheckTokenizer(); err == nil || !strings.Contains(err.Error(), "spiece.model") {
		t.Errorf("error %v, want one that names spiece.model", err)
	}
}

// Photos and texts become features by the files beside the weights.
func TestSigLIPFolder(t *testing.T) {
	dir := copyFolder(t, "testdata/siglip/model")
	if err := os.CopyFS(dir, os.DirFS("../data/tokenizer/testdata/siglip/siglip")); err != nil {
		t.Fatal(err)
	}
	config := `{"image_processor_type": "SiglipImageProcessor", "size": {"height": 39, "width": 39}, "resample": 2}`
	if err := os.WriteFile(filepath.Join(dir, "preprocessor_config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := pipeline.LoadCLIP(dir, "", clip.Both, pipeline.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if len(m.Notes) > 0 {
		t.Errorf("notes %q, want none", m.Notes)
	}
	if err := m.CheckTokenizer(); err != nil {
		t.Error(err)
	}
	texts := []string{"A dog on a skateboard.", "Two cats </s>"}
	ids := []int64{}
	one, err := tokenizer.NewSigLIP(read(t, dir, "spiece.model"), tokenizer.SigLIPConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range texts {
		row, err := one.Context(text, 64, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range row {
			ids = append(ids, int64(id))
		}
	}
	pre := photo.SigLIP(39)
	pre.Filter = photo.Bilinear
	image, err := photo.Decode(photos(t, 1)[0])
	if err != nil {
		t.Fatal(err)
	}
	pixels := make([]float32, pre.Len())
	if err := pre.Into(pixels, image); err != nil {
		t.Fatal(err)
	}
	var wantText, wantImage []float32
	err = torch.Scope(func() error {
		torch.InferenceMode(func() {
			wantText = torch.ToSlice[float32](m.Model.EncodeText(torch.FromSlice(ids, 2, 64)))
			wantImage = torch.ToSlice[float32](m.Model.EncodeImage(torch.FromSlice(pixels, 1, 3, 39, 39)))
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for f, err := range m.Texts(t.Context(), texts, 2, false) {
		if err != nil || !slices.Equal(f.Rows, wantText) {
			t.Errorf("features of texts differ (%v)", err)
		}
	}
	for f, err := range m.Photos(t.Context(), photos(t, 1), 1) {
		if err != nil || !slices.Equal(f.Rows, wantImage) {
			t.Errorf("features of photos differ (%v)", err)
		}
	}
	for _, err := range m.Texts(t.Context(), []string{strings.Repeat("cat ", 70)}, 1, false) {
		var long *pipeline.LongTextError
		if !errors.As(err, &long) || long.Room != 63 {
			t.Errorf("error %v, want a LongTextError with room for 63", err)
		}
	}
}

func read(t *testing.T, path ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return data
}
