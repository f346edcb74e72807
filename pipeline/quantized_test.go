package pipeline_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
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

// quantizedFile writes the model at path with weights of 8 bits, beside copies of the files that
// describe it, and returns the new file.
func quantizedFile(t *testing.T, path string, change func(sd *nn.StateDict)) string {
	t.Helper()
	f, err := weights.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	sd, err := f.LoadModel(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer sd.Close()
	if _, err := weights.Quantize(t.Context(), sd); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(sd)
	}
	out := filepath.Join(t.TempDir(), "model.safetensors")
	if err := weights.Save(t.Context(), out, sd, f.Meta); err != nil {
		t.Fatal(err)
	}
	for _, name := range pipeline.Beside(f) {
		data, err := os.ReadFile(filepath.Join(filepath.Dir(f.Path), name))
		if err == nil {
			err = os.WriteFile(filepath.Join(filepath.Dir(out), name), data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// computed has what a model computes, and its modules.
type computed struct {
	outputs []torch.Tensor
	modules []any
	notes   []string
	sd      func() (*nn.StateDict, error) // its tensors in the file
	close   func()
}

func runCLIP(path string, o pipeline.Options) (c computed, err error) {
	f, err := weights.Open(path)
	if err != nil {
		return c, err
	}
	load := weights.LoadCLIP
	if weights.Detect(f) == weights.SigLIP {
		load = weights.LoadSigLIP
	}
	sd, err := load(f, nil)
	if err != nil {
		return c, err
	}
	sd.Close()
	m, err := pipeline.LoadCLIP(path, "", clip.Both, o)
	if err != nil {
		return c, err
	}
	torch.ManualSeed(2)
	size := m.Model.ImageSize()
	pixels := torch.Randn([]int64{2, 3, size, size})
	ids := torch.Randint(1, m.Model.VocabSize(), []int64{2, m.Model.ContextLength()}, torch.WithDType(torch.Int64))
	return computed{
		[]torch.Tensor{m.Model.EncodeImage(pixels.To(torch.WithDType(o.DType()))), m.Model.EncodeText(ids)}, []any{m.Model}, m.Notes,
		func() (*nn.StateDict, error) { return load(f, nil) }, m.Close,
	}, nil
}

func runGPT2(path string, o pipeline.Options) (c computed, err error) {
	g, err := pipeline.LoadGPT2For(path, o)
	if err != nil {
		return c, err
	}
	m := g.Model
	y := m.Logits(m.Forward(m.Embed(torch.Arange(2, 14).View([]int64{2, 6})), nil, torch.Tensor{}))
	return computed{[]torch.Tensor{y}, []any{m}, g.Notes, func() (*nn.StateDict, error) {
		f, err := weights.Open(path)
		if err != nil {
			return nil, err
		}
		return weights.LoadGPT2(f, nil)
	}, func() { nn.Close(m) }}, nil
}

func runDecoder(path string, o pipeline.Options) (c computed, err error) {
	d, err := pipeline.LoadDecoder(path, small+"gpt2", o)
	if err != nil {
		return c, err
	}
	torch.ManualSeed(3)
	m := d.Model
	prefix := m.Mapper.Forward(torch.Randn([]int64{2, int64(d.FeatureWidth())}).To(torch.WithDType(o.DType())))
	modules := []any{m.Mapper}
	outputs := []torch.Tensor{prefix}
	if d.OwnGPT2 {
		modules = append(modules, m.GPT2)
		outputs = append(outputs, m.GPT2.Logits(m.GPT2.Forward(prefix, nil, torch.Tensor{})))
	}
	return computed{outputs, modules, d.Notes, func() (*nn.StateDict, error) {
		f, err := weights.Open(path)
		if err != nil {
			return nil, err
		}
		mapper, gpt, err := weights.LoadDecoder(f)
		if gpt != nil {
			for _, name := range gpt.Names() {
				x, _ := gpt.Get(name)
				mapper.Add("gpt "+name, x)
			}
		}
		return mapper, err
	}, d.Close}, nil
}

func runGenerator(path string, o pipeline.Options) (c computed, err error) {
	g, err := pipeline.LoadGenerator(path, o)
	if err != nil {
		return c, err
	}
	torch.ManualSeed(4)
	y := g.Model.Forward(torch.Randn([]int64{3, g.Model.Width()}).To(torch.WithDType(o.DType())))
	return computed{[]torch.Tensor{y}, []any{g.Model}, g.Notes, func() (*nn.StateDict, error) {
		f, err := weights.Open(path)
		if err != nil {
			return nil, err
		}
		return weights.LoadGenerator(f)
	}, g.Close}, nil
}

// A file with weights of 8 bits gives the bits with int8 that the original gives, for every kind
// of model. Its linear layers are those that are packed, and none is rounded a second time.
func TestQuantizedFiles(t *testing.T) {
	untied := gpt2Folder(t, "untied.safetensors", map[string]string{"config.json": `{"model_type": "gpt2", "n_head": 2, "tie_word_embeddings": false}`})
	for name, c := range map[string]struct {
		path string
		run  func(path string, o pipeline.Options) (computed, error)
	}{
		"OpenAI's CLIP":                {small + "clip.pt", runCLIP},
		"OpenAI's archive in f16":      {small + "clip-archive.pt", runCLIP},
		"OpenAI's ResNet":              {clips + "openai-resnet-archive/clip.pt", runCLIP},
		"CLIP of transformers":         {small + "clip-transformers", runCLIP},
		"open_clip with custom_text":   {clips + "openclip-custom/open_clip_model.safetensors", runCLIP},
		"open_clip's ResNet":           {clips + "openclip-resnet", runCLIP},
		"SigLIP":                       {"testdata/siglip/model", runCLIP},
		"GPT-2":                        {small + "gpt2", runGPT2},
		"GPT-2 with its head twice":    {small + "gpt2-old.bin", runGPT2},
		"GPT-2 in shards":              {"testdata/gpt2/shards", runGPT2},
		"GPT-2 with a head of its own": {untied, runGPT2},
		"transformer mapper":           {small + "decoder.pt", runDecoder},
		"MLP mapper":                   {small + "decoder-mlp.pt", runDecoder},
		"mapper with GPT-2":            {small + "decoder-whole.pt", runDecoder},
		"DeCap":                        {"testdata/decoders/decap.pt", runDecoder},
		"generator":                    {small + "generator.pt", runGenerator},
	} {
		t.Run(name, func(t *testing.T) {
			err := torch.Scope(func() (err error) {
				torch.InferenceMode(func() { err = sameQuantized(t, c.path, c.run) })
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

func sameQuantized(t *testing.T, path string, run func(string, pipeline.Options) (computed, error)) error {
	quantized := quantizedFile(t, path, nil)
	plain, err := run(path, pipeline.Options{})
	if err != nil {
		return err
	}
	defer plain.close()
	want, err := run(path, pipeline.Options{Int8: true})
	if err != nil {
		return err
	}
	defer want.close()
	got, err := run(quantized, pipeline.Options{Int8: true})
	if err != nil {
		return err
	}
	defer got.close()
	for i := range want.outputs {
		if !got.outputs[i].Equal(want.outputs[i]) {
			t.Errorf("output %d: not the bits of the original file", i)
		}
		if want.outputs[i].Equal(plain.outputs[i]) {
			t.Errorf("output %d: the bits of f32", i)
		}
	}
	if slices.ContainsFunc(got.notes, func(n string) bool { return strings.Contains(n, "8 bits") }) {
		t.Errorf("notes: %q", got.notes)
	}
	// The weights that packing takes out of the modules are those of 8 bits in the file, apart from
	// the convolution of patches and the projections to features, which stay as they are in files.
	packed := 0
	for i, m := range plain.modules {
		left := map[string]bool{}
		for _, p := range nn.NamedParameters(want.modules[i]) {
			left[p.Name] = true
		}
		for _, p := range nn.NamedParameters(m) {
			if !left[p.Name] && p.Tensor.Dim() == 2 && p.Name != "visual.proj" && p.Name != "text_projection" {
				packed++
			}
		}
	}
	sd, err := got.sd()
	if err != nil {
		return err
	}
	defer sd.Close()
	eight := 0
	for _, name := range sd.Names() {
		if x, _ := sd.Get(name); x.DType() == torch.Int8 {
			eight++
		}
	}
	if packed != eight || eight == 0 {
		t.Errorf("%d weights are packed, and %d have 8 bits in the file", packed, eight)
	}
	// In f32, bf16 and packed f32, they are converted, and a note says so.
	for _, o := range []pipeline.Options{{}, {BF16: true}, {Pack: true}} {
		y, err := run(quantized, o)
		if err != nil {
			return err
		}
		defer y.close()
		if !slices.ContainsFunc(y.notes, func(n string) bool {
			return strings.Contains(n, quantized+" has weights of 8 bits, which were converted to "+o.TypeName())
		}) {
			t.Errorf("%+v: notes %q", o, y.notes)
		}
		for i := range y.outputs {
			f32 := torch.WithDType(torch.Float32)
			torchtest.Close(t, y.outputs[i].To(f32), plain.outputs[i].To(f32), compare.Tolerance{Relative: 0.1}, fmt.Sprintf("%+v", o))
		}
	}
	return nil
}

// Other tensors of 8 bits with scales, such as the embeddings of other programs' files, become f32
// while they are loaded.
func TestQuantizedEmbedding(t *testing.T) {
	path := quantizedFile(t, small+"gpt2", func(sd *nn.StateDict) {
		if err := torch.Scope(func() error {
			wte := sd.Names()[slices.IndexFunc(sd.Names(), func(n string) bool { return strings.HasSuffix(n, "wte.weight") })]
			w, _ := sd.Get(wte)
			q, scale := torch.Int8Quantize(w)
			sd.Add(wte, q.Keep())
			sd.Add(wte+"_scale", scale.Unsqueeze(1).Keep())
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	})
	err := torch.Scope(func() (err error) {
		torch.InferenceMode(func() {
			var want, got computed
			if want, err = runGPT2(small+"gpt2", pipeline.Options{}); err != nil {
				return
			}
			defer want.close()
			if got, err = runGPT2(path, pipeline.Options{Int8: true}); err != nil {
				return
			}
			defer got.close()
			torchtest.Close(t, got.outputs[0], want.outputs[0], compare.Tolerance{Relative: 0.1})
		})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
