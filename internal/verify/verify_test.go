package verify_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"cyclecap/internal/verify"
	"cyclecap/nets/clip"
	"cyclecap/pipeline"
	"cyclecap/torch"
	"cyclecap/torch/compare"
)

// testdata/small.safetensors was written with the weights of internal/parity:
//
//	python scripts/record_reference.py internal/verify/testdata/small.safetensors --clip-package openai
//	  --clip $D/clip.pt --decoder $D/decoder.pt --gpt2 $D/gpt2 --generator $D/generator.pt --normalize no
//	  --photos testdata/photos/000000{084284,114174}.jpg --tokens 12 --threads 2
const (
	reference = "testdata/small.safetensors"
	files     = "../parity/testdata/small/"
	photos    = "../../testdata/photos"
)

func TestMain(m *testing.M) {
	runtime.LockOSThread()
	os.Exit(m.Run())
}

// setup opens the reference and returns a verifier of it.
func setup(t *testing.T) (*verify.Reference, *verify.Verifier) {
	t.Helper()
	ref, err := verify.Open(reference)
	if err != nil {
		t.Fatal(err)
	}
	torch.SetNumThreads(ref.Facts.Threads)
	v := verify.New(ref, pipeline.Options{})
	v.PhotoDir = photos
	t.Cleanup(func() { v.Close(); ref.Close() })
	return ref, v
}

func withCLIP(t *testing.T, v *verify.Verifier, change func(*pipeline.CLIP)) {
	t.Helper()
	c, err := pipeline.LoadCLIP(files+"clip.pt", "", clip.Both, pipeline.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if change != nil {
		change(c)
	}
	v.Weights(verify.CLIP, files+"clip.pt")
	v.CLIP(c)
}

func find(t *testing.T, r *verify.Report, what string) verify.Row {
	t.Helper()
	for _, row := range r.Rows {
		if strings.Contains(row.What, what) {
			return row
		}
	}
	t.Fatalf("there is no row %q", what)
	return verify.Row{}
}

func diagnosis(t *testing.T, r *verify.Report, want string) {
	t.Helper()
	if all := strings.Join(r.Diagnosis, "\n"); !strings.Contains(all, want) {
		t.Errorf("the diagnosis does not say %q:\n%s", want, all)
	}
}

// The small nets compute what Python does: with the same bits on the same processor.
func TestSame(t *testing.T) {
	ref, v := setup(t)
	v.Bisect = true
	withCLIP(t, v, nil)
	g, err := pipeline.LoadGenerator(files+"generator.pt", pipeline.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	v.Generator(g, pipeline.Options{})
	d, err := pipeline.LoadDecoder(files+"decoder.pt", files+"gpt2", pipeline.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	d.Normalize = false // as it was recorded
	v.GPT2(d.GPT2, pipeline.Options{})
	v.Decoder(d)
	r := v.Finish()
	cpu, err := compare.Processor()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range r.Rows {
		if !row.OK() || row.Verdict() == verify.Skipped {
			t.Errorf("%s: %s: %s %s %v", row.Part, row.What, row.Verdict(), row.Message(), row.Difference)
		}
		if cpu == ref.Facts.CPU && row.Verdict() != verify.Equal && row.What != "scores of the beams" {
			t.Errorf("%s: %s: %s", row.Part, row.What, row.Verdict())
		}
	}
	if len(r.Rows) < 20 || len(r.Modules) < 60 {
		t.Errorf("%d rows and %d modules", len(r.Rows), len(r.Modules))
	}
	for _, m := range r.Modules {
		if !m.Row.OK() {
			t.Errorf("%s: %s: %v", m.Net, m.Name, m.Row.Difference)
		}
	}
	for _, format := range []func() ([]byte, error){r.HTML, func() ([]byte, error) { return json.Marshal(r.JSON()) }} {
		if text, err := format(); err != nil || !bytes.Contains(text, []byte("resblocks.1.mlp.c_proj")) {
			t.Errorf("%v: %.200s", err, text)
		}
	}
}

// With int8, outputs are within its bound, which the report states, and not within that of f32.
func TestInt8(t *testing.T) {
	ref, err := verify.Open(reference)
	if err != nil {
		t.Fatal(err)
	}
	defer ref.Close()
	int8 := pipeline.Options{Int8: true}
	for _, given := range []verify.Files{
		{CLIP: files + "clip.pt", Decoder: files + "decoder.pt", GPT2: files + "gpt2", Generator: files + "generator.pt"},
		{GPT2: files + "gpt2"},
	} {
		v := verify.New(ref, int8)
		v.PhotoDir = photos
		if _, err := v.Files(given, int8); err != nil {
			t.Fatal(err)
		}
		r := v.Finish()
		for _, row := range r.Rows {
			if !row.OK() {
				t.Errorf("%s: %s: %s %s %v", row.Part, row.What, row.Verdict(), row.Message(), row.Difference)
			}
		}
		row := find(t, r, "logits of embeddings, all")
		if d := row.Difference.Relative(); row.Verdict() != verify.Within || !(d > 1e-4 && d < 0.05) || row.Tolerance.Relative != 0.07 {
			t.Errorf("logits: %s, off by %g, tolerance %g", row.Verdict(), d, row.Tolerance.Relative)
		}
		if bounds := strings.Join(r.Bounds(), "; "); !strings.Contains(bounds, "0.07 of the largest (weights and inputs of linear layers have 8 bits)") || r.Here.DType != "int8" {
			t.Errorf("%s of %s", bounds, r.Here.DType)
		}
		diagnosis(t, r, "the numbers differ by no more than weights and inputs of 8 bits explain, at most 0.0")
		v.Close()
	}
	// Other weights are out of the bound.
	v := verify.New(ref, int8)
	defer v.Close()
	v.PhotoDir = photos
	if _, err := v.Files(verify.Files{CLIP: files + "clip-init.pt"}, int8); err != nil {
		t.Fatal(err)
	}
	if r := v.Finish(); r.OK() || find(t, r, "image features, all").Verdict() != verify.Differs {
		t.Error("other weights were not noticed")
	}
}

// What was not given is skipped, and that is no failure.
func TestSkipped(t *testing.T) {
	_, v := setup(t)
	withCLIP(t, v, nil)
	r := v.Finish()
	if row := find(t, r, "all of it"); row.Verdict() != verify.Skipped || !r.OK() {
		t.Errorf("%+v", row)
	}
}

func TestOtherActivation(t *testing.T) {
	_, v := setup(t)
	v.Bisect = true
	withCLIP(t, v, func(c *pipeline.CLIP) { c.Model.(*clip.Model).SetActivation(clip.GELU) })
	r := v.Finish()
	if r.OK() {
		t.Error("another activation was not noticed")
	}
	diagnosis(t, r, "other activation: with quick_gelu instead of gelu, the image features agree")
	bad, before, ok := r.First("clip.image")
	if !ok || bad.Name != "visual.transformer.resblocks.0.mlp.c_proj" || before.Name != "visual.transformer.resblocks.0.mlp.c_fc" {
		t.Errorf("the first module that differs is %q, after %q", bad.Name, before.Name)
	}
}

// A wrong weight is found in the module that has it.
func TestFault(t *testing.T) {
	_, v := setup(t)
	v.Bisect = true
	withCLIP(t, v, func(c *pipeline.CLIP) {
		b := c.Model.(*clip.Model).Transformer.Resblocks[1]
		if err := torch.Scope(func() error {
			torch.NoGrad(func() { b.Ln2.Bias.Narrow(0, 3, 1).Fill_(1) })
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	})
	r := v.Finish()
	if find(t, r, "image features, all").Verdict() == verify.Differs || find(t, r, "text features, all").Verdict() != verify.Differs {
		t.Error("the fault is not in the texts alone")
	}
	diagnosis(t, r, `a fault in clip: with the same weights and inputs, "text features, all texts at once" differs`)
	diagnosis(t, r, "clip.text: the first module that differs is transformer.resblocks.1.ln_2")
}

func TestOtherWeights(t *testing.T) {
	_, v := setup(t)
	c, err := pipeline.LoadCLIP(files+"clip-init.pt", "", clip.Both, pipeline.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	v.Weights(verify.CLIP, files+"clip-init.pt")
	v.CLIP(c)
	r := v.Finish()
	if r.OK() {
		t.Error("other weights were not noticed")
	}
	diagnosis(t, r, "other weights: the file of --clip is not the one")
}

// Other preprocessing: the rest is computed from the recorded pixels.
func TestOtherPreprocessing(t *testing.T) {
	_, v := setup(t)
	withCLIP(t, v, func(c *pipeline.CLIP) { c.Preprocess.Std = [3]float32{0.5, 0.5, 0.5} })
	r := v.Finish()
	if find(t, r, "preprocessed").Verdict() != verify.Differs || !find(t, r, "image features, all").OK() {
		t.Errorf("%+v", r.Rows)
	}
	diagnosis(t, r, "differ by up to")
}

func TestPhotos(t *testing.T) {
	_, v := setup(t)
	v.PhotoDir = t.TempDir()
	if err := os.WriteFile(filepath.Join(v.PhotoDir, "000000114174.jpg"), []byte("another photo"), 0o644); err != nil {
		t.Fatal(err)
	}
	withCLIP(t, v, nil)
	r := v.Finish()
	if row := find(t, r, "000000084284.jpg"); row.Verdict() != verify.Failed || !strings.Contains(row.Err, "does not exist") || !strings.Contains(row.Err, "--photos") {
		t.Errorf("%+v", row)
	}
	if row := find(t, r, "000000114174.jpg"); !strings.Contains(row.Err, "is another file than the reference's") {
		t.Errorf("%+v", row)
	}
	if r.OK() || !find(t, r, "image features, all").OK() {
		t.Error("without its photos, the rest is not compared")
	}
}

func TestOpen(t *testing.T) {
	if _, err := verify.Open(files + "expected.safetensors"); err == nil || !strings.Contains(err.Error(), "is not a reference") {
		t.Error(err)
	}
	data, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	for old, want := range map[string]string{
		`"cyclecap_reference": "1"`: "is a reference of version 9, and this cyclecap reads version 1",
		`"facts": "{`:               "its facts can't be read",
	} {
		changed := strings.NewReplacer(`"1"`, `"9"`, `"{`, `"[`).Replace(old)
		path := filepath.Join(t.TempDir(), "changed.safetensors")
		if err := os.WriteFile(path, bytes.Replace(data, []byte(old), []byte(changed), 1), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := verify.Open(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", old, err)
		}
	}
}

// testdata/siglip.safetensors was written with transformers, without photos:
//
//	python scripts/record_reference.py internal/verify/testdata/siglip.safetensors --clip-package transformers
//	  --clip pipeline/testdata/siglip/model --threads 2
//
// All modules that compute something are compared, under transformers' names.
func TestSigLIPModules(t *testing.T) {
	ref, err := verify.Open("testdata/siglip.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer ref.Close()
	torch.SetNumThreads(ref.Facts.Threads)
	v := verify.New(ref, pipeline.Options{})
	defer v.Close()
	v.Bisect = true
	c, err := pipeline.LoadCLIP("../../pipeline/testdata/siglip/model", "", clip.Both, pipeline.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	v.CLIP(c)
	r := v.Finish()
	have := map[string]bool{}
	for _, m := range r.Modules {
		have[m.Name] = true
		if !m.Row.OK() {
			t.Errorf("%s: %s: %v", m.Net, m.Name, m.Row.Difference)
		}
	}
	for net, names := range ref.Facts.Layers {
		for _, name := range names {
			// Functions, and embeddings, whose shapes are others here.
			if have[name] || strings.HasSuffix(name, "activation_fn") || strings.HasSuffix(name, "embeddings") || strings.HasSuffix(name, "embedding") {
				continue
			}
			t.Errorf("%s: %s is not compared", net, name)
		}
	}
}
