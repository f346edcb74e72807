package pipeline_test

import (
	"slices"
	"strings"
	"testing"

	"cyclecap/eval/geometry"
	"cyclecap/nets/clip"
	"cyclecap/nets/clipcap"
	"cyclecap/pipeline"
	"cyclecap/torch"
)

// cosine returns the least cosine of two lists of rows.
func cosine(a, b []float32, width int) float64 {
	rows := func(v []float32) [][]float32 { return slices.Collect(slices.Chunk(v, width)) }
	return slices.Min(geometry.Cosines(rows(a), rows(b), 0))
}

// Features and logits with int8 point where those of f32 do.
func TestInt8(t *testing.T) {
	int8 := pipeline.Options{Int8: true}
	features := func(o pipeline.Options) ([]float32, int) {
		m, err := pipeline.LoadCLIP(files.CLIP, "", clip.Image, o)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		var rows []float32
		for b, err := range m.Photos(t.Context(), photos(t, 4), 4) {
			if err != nil {
				t.Fatal(err)
			}
			rows = append(rows, b.Rows...)
		}
		return rows, m.Width()
	}
	want, width := features(pipeline.Options{})
	got, _ := features(int8)
	if c := cosine(want, got, width); !(c > 0.999) || c == 1 {
		t.Errorf("features: cosine %v", c)
	} else {
		t.Logf("features: cosine %.6f", c)
	}

	logits := func(o pipeline.Options) (rows []float32, width int) {
		d, err := pipeline.LoadDecoder(files.Decoder, files.GPT2, o)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		err = torch.Scope(func() error {
			torch.InferenceMode(func() {
				torch.ManualSeed(3)
				m := d.Model.GPT2
				y := m.Logits(m.Forward(m.Embed(torch.Arange(2, 14).View([]int64{2, 6})), nil, torch.Tensor{}))
				rows, width = torch.ToSlice[float32](y), int(y.Size(2))
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return rows, width
	}
	want, width = logits(pipeline.Options{})
	got, _ = logits(int8)
	if c := cosine(want, got, width); !(c > 0.999) || c == 1 {
		t.Errorf("logits: cosine %v", c)
	} else {
		t.Logf("logits: cosine %.6f", c)
	}
}

// All models load with packed weights of each kind, and write captions.
func TestPackedCaptions(t *testing.T) {
	for _, o := range []pipeline.Options{{Pack: true}, {Int8: true}} {
		c, err := pipeline.Load(files, o)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for b, err := range c.Photos(t.Context(), photos(t, 2), 2, clipcap.Options{Method: clipcap.Greedy, MaxTokens: 4, Stop: c.Decoder.Stop}) {
			if err != nil {
				t.Fatalf("%+v: %v", o, err)
			}
			n += len(b.Captions)
		}
		if n != 2 {
			t.Errorf("%+v: %d captions", o, n)
		}
		c.Close()
	}
}

// Contradictory options are errors, and a processor without the instructions computes with
// packed f32.
func TestInt8Options(t *testing.T) {
	for says, o := range map[string]pipeline.Options{
		"int8 and bf16 exclude each other":               {Int8: true, BF16: true},
		"int8 is for the CPU and cannot be used on cuda": {Int8: true, Device: torch.CUDA(0)},
	} {
		if err := o.Check(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if _, err := pipeline.LoadCLIP(files.CLIP, "", clip.Image, pipeline.Options{Int8: true, BF16: true}); err == nil {
		t.Error("int8 and bf16 load")
	}
	has := *pipeline.HasInt8
	defer func() { *pipeline.HasInt8 = has }()
	for _, able := range []bool{false, true} {
		*pipeline.HasInt8 = func() bool { return able }
		o, note := pipeline.Options{Int8: true}.Usable()
		if o.Int8 != able || o.Pack == able || !o.Packed() || (note == "") != able {
			t.Errorf("instructions %v: %+v, %q", able, o, note)
		}
		if o, note := (pipeline.Options{BF16: true}).Usable(); !o.BF16 || o.Pack || note != "" {
			t.Errorf("bf16: %+v, %q", o, note)
		}
	}
	for want, o := range map[string]pipeline.Options{"int8": {Int8: true}, "bfloat16": {BF16: true}, "float32": {Pack: true}} {
		if got := o.TypeName(); got != want {
			t.Errorf("%+v is called %s", o, got)
		}
	}
}
