package verify_test

import (
	"testing"

	"cyclecap/internal/verify"
	"cyclecap/nets/clip"
	"cyclecap/pipeline"
	"cyclecap/torch"
	"cyclecap/torch/compare"
)

// References of models that have other parts than a CLIP with both encoders and a decoder of
// ClipCap's, written with
//
//	python scripts/record_reference.py internal/verify/testdata/decap.safetensors --tokens 12 --threads 2
//	  --decoder pipeline/testdata/decoders/decap.pt
//	python scripts/record_reference.py internal/verify/testdata/vision.safetensors --threads 2
//	  --clip-package transformers --clip nets/clip/testdata/transformers-vision --photos testdata/photos/000000084284.jpg
//	python scripts/record_reference.py internal/verify/testdata/text.safetensors --threads 2
//	  --clip-package transformers --clip nets/clip/testdata/transformers-text
const (
	decap = "../../pipeline/testdata/decoders/decap.pt"
	clips = "../../nets/clip/testdata/"
)

// verifyFiles compares files with a reference.
func verifyFiles(t *testing.T, name string, f verify.Files) *verify.Report {
	t.Helper()
	ref, err := verify.Open("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer ref.Close()
	torch.SetNumThreads(ref.Facts.Threads)
	v := verify.New(ref, pipeline.Options{})
	defer v.Close()
	v.PhotoDir, v.Bisect = photos, true
	if _, err := v.Files(f, pipeline.Options{}); err != nil {
		t.Fatal(err)
	}
	return v.Finish()
}

// same fails unless all rows and modules agree, with the same bits on the same processor.
func same(t *testing.T, r *verify.Report, rows, modules int) {
	t.Helper()
	cpu, err := compare.Processor()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range r.Rows {
		if !row.OK() || row.Verdict() == verify.Skipped || cpu == r.Reference.Facts.CPU && row.Verdict() != verify.Equal {
			t.Errorf("%s: %s: %s %s %v", row.Part, row.What, row.Verdict(), row.Message(), row.Difference)
		}
	}
	if len(r.Rows) != rows || len(r.Modules) < modules {
		t.Errorf("%d rows and %d modules, want %d and at least %d", len(r.Rows), len(r.Modules), rows, modules)
	}
}

// DeCap's decoder: its own decoding, and the texts of its captions by CLIP's tokenizer.
func TestDeCap(t *testing.T) {
	r := verifyFiles(t, "decap.safetensors", verify.Files{Decoder: decap})
	same(t, r, 11, 10)
	if row := find(t, r, "DeCap's Decoding"); row.Difference.Elements == 0 {
		t.Error("no tokens were compared")
	}
}

func TestVisionEncoder(t *testing.T) {
	r := verifyFiles(t, "vision.safetensors", verify.Files{CLIP: clips + "transformers-vision"})
	same(t, r, 4, 10)
}

func TestTextEncoder(t *testing.T) {
	r := verifyFiles(t, "text.safetensors", verify.Files{CLIP: clips + "transformers-text"})
	same(t, r, 3, 10)
}

// Without an image encoder, the activation is found by the text features.
func TestOtherTextActivation(t *testing.T) {
	ref, err := verify.Open("testdata/text.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer ref.Close()
	v := verify.New(ref, pipeline.Options{})
	defer v.Close()
	c, err := pipeline.LoadCLIP(clips+"transformers-text", "", clip.Text, pipeline.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Model.(*clip.Model).SetActivation(clip.QuickGELU)
	v.CLIP(c)
	diagnosis(t, v.Finish(), "other activation: with gelu instead of quick_gelu, the text features agree")
}

// A decoder that scales features where the reference does not is named, and is no failure.
func TestOtherScaling(t *testing.T) {
	ref, v := setup(t)
	ref.Facts.Normalize = true
	d, err := pipeline.LoadDecoder(files+"decoder.pt", files+"gpt2", pipeline.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	d.Normalize = false
	v.Decoder(d)
	if row := find(t, v.Finish(), "scaled to length 1"); row.Verdict() != verify.Skipped {
		t.Errorf("%+v", row)
	} else {
		t.Log(row.Message())
	}
}
