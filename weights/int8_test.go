package weights_test

import (
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cyclecap/torch"
	"cyclecap/torch/compare"
	"cyclecap/torch/nn"
	"cyclecap/torch/torchtest"
	"cyclecap/weights"
)

// scoped runs f in a scope, of which no tensor must be left.
func scoped(t *testing.T, f func()) {
	t.Helper()
	before := torch.Alive()
	defer func() {
		if after := torch.Alive(); after != before {
			t.Errorf("%d tensors are left", after-before)
		}
	}()
	if err := torch.Scope(func() error { f(); return nil }); err != nil {
		t.Fatal(err)
	}
}

func named(tensors map[string]torch.Tensor) *nn.StateDict {
	sd := nn.NewStateDict()
	for name, x := range tensors {
		sd.Add(name, x.Keep())
	}
	return sd
}

// Weights of linear layers get a scale for each output, whichever of their dimensions counts the
// outputs. The others keep their dtype, and the product of integers and scales is close.
func TestQuantize(t *testing.T) {
	scoped(t, func() {
		torch.ManualSeed(1)
		f16 := torch.WithDType(torch.Float16)
		wte := torch.Randn([]int64{7, 4})
		sd := named(map[string]torch.Tensor{
			"transformer.h.0.mlp.c_fc.weight":    torch.Randn([]int64{4, 6}),
			"transformer.h.0.mlp.c_fc.bias":      torch.Randn([]int64{6}),
			"transformer.wte.weight":             wte,
			"lm_head.weight":                     wte.Detach(),
			"gpt.transformer.wte.weight":         wte.Clone(),
			"gpt.lm_head.weight":                 wte.Clone(),
			"decoder.transformer.wte.weight":     wte.Clone(),
			"decoder.lm_head.weight":             torch.Randn([]int64{7, 4}),
			"clip_project.model.0.weight":        torch.Randn([]int64{5, 3}, f16),
			"clip_project.model.2.weight":        torch.Randn([]int64{5, torch.Int8MaxInputs + 1}),
			"visual.layer1.0.conv1.weight":       torch.Randn([]int64{5, 3, 1, 1}),
			"visual.transformer.resblocks.0.mlp": torch.Randn([]int64{5, 3}),
		})
		defer sd.Close()
		want := map[string]torch.Tensor{}
		for _, name := range sd.Names() {
			x, _ := sd.Get(name)
			want[name] = x.Clone()
		}
		n, err := weights.Quantize(t.Context(), sd)
		if err != nil || n != 3 {
			t.Fatalf("%d weights, %v", n, err)
		}
		for name, shape := range map[string][]int64{
			"transformer.h.0.mlp.c_fc.weight": {1, 6}, "clip_project.model.0.weight": {5, 1}, "decoder.lm_head.weight": {7, 1},
		} {
			x, _ := sd.Get(name)
			scale, ok := sd.Get(name + "_scale")
			if !ok || x.DType() != torch.Int8 || scale.DType() != torch.Float32 || !slices.Equal(scale.Shape(), shape) {
				t.Fatalf("%s: %v, scales %v %v", name, x, scale.Shape(), scale.DType())
			}
			torchtest.Close(t, x.To(torch.WithDType(torch.Float32)).Mul(scale), want[name].To(torch.WithDType(torch.Float32)), compare.Tolerance{Relative: 0.5 / 127})
		}
		// The embedding stands for a head that shares its memory, and one that is equal stays.
		if _, ok := sd.Get("lm_head.weight"); ok {
			t.Error("the tied head is still there")
		}
		for _, name := range sd.Names() {
			if strings.HasSuffix(name, "_scale") {
				continue
			}
			if x, _ := sd.Get(name); x.DType() != torch.Int8 && !x.Equal(want[name]) {
				t.Errorf("%s has changed", name)
			}
		}
		if x, _ := sd.Get("gpt.lm_head.weight"); x.DType() != torch.Float32 {
			t.Errorf("the head that is equal to its embedding became %v", x.DType())
		}
		// Integers are not rounded again, and another dtype takes them back.
		if n, err := weights.Quantize(t.Context(), sd); err != nil || n != 3 {
			t.Errorf("%d weights, %v", n, err)
		}
		if err := weights.Cast(t.Context(), sd, torch.BFloat16); err != nil {
			t.Fatal(err)
		}
		for _, name := range sd.Names() {
			if x, _ := sd.Get(name); x.DType() != torch.BFloat16 || strings.HasSuffix(name, "_scale") {
				t.Errorf("%s is %v", name, x.DType())
			}
		}
		sd.Add("model.0.weight", torch.FromSlice([]float32{1, 2, 3, float32(math.Inf(1))}, 2, 2).Keep())
		if _, err := weights.Quantize(t.Context(), sd); err == nil || !strings.Contains(err.Error(), "tensor model.0.weight has a number that is not finite, for output 1") {
			t.Error(err)
		}
	})
}

// A file whose integers and scales do not fit is an error that names the file and the tensor.
func TestQuantizedErrors(t *testing.T) {
	const fc, q = "transformer.h.0.mlp.c_fc.weight", "model.0.weight"
	for says, change := range map[string]func(sd *nn.StateDict){
		"tensor " + fc + " has integers of 8 bits, but the file has no " + fc + "_scale": func(sd *nn.StateDict) { sd.Delete(fc + "_scale") },
		"tensor " + fc + "_scale has shape [6 1], which does not fit " + fc + " of shape [4 6]: want [1 6]": func(sd *nn.StateDict) {
			sd.Add(fc+"_scale", torch.Ones([]int64{6, 1}).Keep())
		},
		"tensor " + fc + "_scale has shape [6], which": func(sd *nn.StateDict) { sd.Add(fc+"_scale", torch.Ones([]int64{6}).Keep()) },
		"tensor " + q + "_scale has shape [], which":   func(sd *nn.StateDict) { sd.Add(q+"_scale", torch.Ones([]int64{}).Keep()) },
		"tensor " + fc + "_scale, the scales of " + fc + ", is of dtype int64": func(sd *nn.StateDict) {
			sd.Add(fc+"_scale", torch.Ones([]int64{1, 6}, torch.WithDType(torch.Int64)).Keep())
		},
		"tensor " + fc + "_scale has the scale NaN for output 2":  func(sd *nn.StateDict) { sd.Add(fc+"_scale", scales(2, math.NaN())) },
		"tensor " + fc + "_scale has the scale +Inf for output 5": func(sd *nn.StateDict) { sd.Add(fc+"_scale", scales(5, math.Inf(1))) },
		"tensor " + fc + "_scale has the scale -1 for output 0":   func(sd *nn.StateDict) { sd.Add(fc+"_scale", scales(0, -1)) },
		"tensor other has integers of 8 bits, but the file has no other_scale": func(sd *nn.StateDict) {
			sd.Add("other", torch.Ones([]int64{3}, torch.WithDType(torch.Int8)).Keep())
		},
	} {
		scoped(t, func() {
			sd := named(map[string]torch.Tensor{fc: torch.Randn([]int64{4, 6}), q: torch.Randn([]int64{3, 2})})
			defer sd.Close()
			if _, err := weights.Quantize(t.Context(), sd); err != nil {
				t.Fatal(err)
			}
			before := nn.NewStateDict()
			for _, name := range sd.Names() {
				x, _ := sd.Get(name)
				before.Add(name, x)
			}
			defer before.Close() // also what is replaced or removed
			change(sd)
			path := filepath.Join(t.TempDir(), "damaged.safetensors")
			if err := weights.Save(t.Context(), path, sd, nil); err != nil {
				t.Fatal(err)
			}
			f, err := weights.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			out, err := f.LoadModel(nil)
			if err == nil {
				out.Close()
			}
			if err == nil || !strings.Contains(err.Error(), path+": "+says) || !strings.Contains(err.Error(), "cyclecap convert --dtype int8") {
				t.Errorf("%v, want %s", err, says)
			}
		})
	}
}

// scales returns scales of 6 outputs, one of which is x.
func scales(at int, x float64) torch.Tensor {
	list := []float32{1, 1, 1, 1, 1, 1}
	list[at] = float32(x)
	return torch.FromSlice(list, 1, 6).Keep()
}

// The query, key and value projections of transformers become one matrix: all have 8 bits, or none.
func TestQuantizedQKV(t *testing.T) {
	scoped(t, func() {
		f, err := weights.Open("../internal/parity/testdata/small/clip-transformers")
		if err != nil {
			t.Fatal(err)
		}
		sd, err := f.Load()
		if err != nil {
			t.Fatal(err)
		}
		defer sd.Close()
		const one = "text_model.encoder.layers.0.self_attn.k_proj.weight"
		x, _ := sd.Get(one)
		before := x.Clone()
		if _, err := weights.Quantize(t.Context(), sd); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{one, one + "_scale"} {
			x, _ := sd.Get(name)
			x.Close()
			sd.Delete(name)
		}
		sd.Add(one, before.Keep())
		path := filepath.Join(t.TempDir(), "mixed.safetensors")
		if err := weights.Save(t.Context(), path, sd, nil); err != nil {
			t.Fatal(err)
		}
		if f, err = weights.Open(path); err != nil {
			t.Fatal(err)
		}
		if _, err := weights.LoadCLIP(f, nil); err == nil || !strings.Contains(err.Error(), "mixed.safetensors: transformer.resblocks.0.attn.in_proj_weight: of the query, key and value projections, 2 have 8 bits") {
			t.Error(err)
		}
	})
}
