package clip_test

import (
	"fmt"
	"testing"

	"cyclecap/nets/clip"
	"cyclecap/torch"
	"cyclecap/torch/compare"
	"cyclecap/torch/nn"
	"cyclecap/torch/torchtest"
)

// A packed CLIP, whose layers apply the activation themselves, gives the plain one's features
// up to rounding. So it does when the outputs of its layers are seen, which are then the plain
// one's too, and when its activation is changed afterwards, as `cyclecap verify` does.
func TestPacked(t *testing.T) {
	near := compare.Tolerance{Relative: 1e-5}
	for _, a := range []clip.Activation{clip.QuickGELU, clip.GELU, clip.GELUTanh} {
		t.Run(a.String(), func(t *testing.T) {
			err := torch.Scope(func() error {
				config := clip.Config{EmbedDim: 32, ImageSize: 32, PatchSize: 8, VisionWidth: 64, VisionDepth: 2, Context: 8, Vocab: 20,
					TextWidth: 64, TextHeads: 1, TextDepth: 2, VisionActivation: a, TextActivation: a}
				made := func() *clip.Model {
					torch.ManualSeed(1)
					m := clip.New(config)
					torch.NoGrad(func() {
						for _, p := range nn.NamedParameters(m) {
							if p.Tensor.Dim() == 1 { // biases are 0 at first
								p.Tensor.Normal_(torch.WithMean(0.5), torch.WithStd(1))
							}
						}
					})
					return m
				}
				plain, packed := made(), made()
				defer nn.Close(plain)
				defer nn.Close(packed)
				pixels := torch.Randn([]int64{3, 3, 32, 32})
				ids := torch.FromSlice([]int64{18, 3, 5, 19, 0, 0, 0, 0}, 1, 8)
				torch.InferenceMode(func() {
					nn.Pack(packed)
					same := func(what string) {
						t.Helper()
						torchtest.Close(t, packed.EncodeImage(pixels), plain.EncodeImage(pixels), near, what+", image")
						torchtest.Close(t, packed.EncodeText(ids), plain.EncodeText(ids), near, what+", text")
					}
					same("features")

					if torch.HasPanels() {
						// A feature has the bits that it has alone.
						images, texts := packed.EncodeImage(pixels), packed.EncodeText(ids.Repeat([]int64{5, 1}))
						text := packed.EncodeText(ids)
						for i := range int64(3) {
							torchtest.Close(t, packed.EncodeImage(pixels.Narrow(0, i, 1)), images.Narrow(0, i, 1), compare.Tolerance{}, "image alone")
							torchtest.Close(t, text, texts.Narrow(0, i, 1), compare.Tolerance{}, "text alone")
						}
					}

					got, want := outputs(packed, pixels), outputs(plain, pixels)
					if len(got) != len(want) || !got["visual.transformer.resblocks.1.mlp.c_fc"].Defined() {
						t.Errorf("%d layers show their outputs, want %d", len(got), len(want))
					}
					for name, w := range want {
						torchtest.Close(t, got[name], w, near, name)
						got[name].Close()
						w.Close()
					}

					for _, other := range []clip.Activation{clip.GELU, clip.QuickGELU, clip.GELUTanh, a} {
						plain.SetActivation(other)
						packed.SetActivation(other)
						same(fmt.Sprintf("with %v instead", other))
					}
				})
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// outputs returns what the modules of m give for photos, by their names.
func outputs(m *clip.Model, pixels torch.Tensor) map[string]torch.Tensor {
	seen := map[string]torch.Tensor{}
	nn.OnOutput(m, func(name string, y torch.Tensor) { seen[name] = y.Clone().Keep() })
	defer nn.OnOutput(m, nil)
	m.EncodeImage(pixels)
	return seen
}

// A packed ResNet, whose batch norms are folded into its convolutions, gives the plain one's features
// up to rounding, and where all outputs of its modules are seen, exactly those of its plain
// convolutions. Seeing a single one changes no feature either.
func TestPackedResNet(t *testing.T) {
	for _, test := range []struct {
		dtype torch.DType
		limit float64 // of the largest value
	}{
		{torch.Float32, 1e-5},
		{torch.BFloat16, 0.05},
	} {
		t.Run(test.dtype.String(), func(t *testing.T) {
			alive := torch.Alive()
			err := torch.Scope(func() error {
				config := clip.Config{EmbedDim: 32, ImageSize: 64, ResNet: [4]int64{1, 2, 1, 2}, VisionWidth: 8, VisionHeads: 4, Context: 8, Vocab: 20,
					TextWidth: 64, TextHeads: 1, TextDepth: 1}
				made := func() *clip.Model {
					torch.ManualSeed(1)
					m := clip.New(config)
					torch.NoGrad(func() {
						for _, p := range nn.NamedParameters(m.ResNet) {
							if p.Tensor.Dim() == 1 { // those of batch norms are 1 and 0 at first, or 0
								p.Tensor.Normal_(torch.WithMean(0.5), torch.WithStd(0.3))
							}
						}
						for _, p := range nn.NamedBuffers(m.ResNet) {
							p.Tensor.Uniform_(torch.WithFrom(0.2), torch.WithTo(2))
						}
					})
					return m
				}
				plain, packed := made(), made()
				defer nn.Close(plain)
				defer nn.Close(packed)
				pixels := torch.Randn([]int64{3, 3, 64, 64})
				torch.InferenceMode(func() {
					want := plain.EncodeImage(pixels)
					near := compare.Tolerance{Relative: test.limit}
					nn.Pack(packed, torch.WithDType(test.dtype))
					nn.To(plain, torch.WithDType(test.dtype))
					x := pixels.To(torch.WithDType(test.dtype))
					features := func() torch.Tensor { return packed.EncodeImage(x).To(torch.WithDType(torch.Float32)) }
					torchtest.Close(t, features(), want, near, "features")
					torchtest.Close(t, packed.EncodeImage(x.Narrow(0, 0, 1)).To(torch.WithDType(torch.Float32)), want.Narrow(0, 0, 1), near, "a photo alone")

					r := packed.ResNet
					for _, m := range []any{r.Conv1, r.Layer2[1].Conv3, r.Layer3[0].BN2, r.Layer4[0]} {
						n := 0
						nn.OnOutput(m, func(string, torch.Tensor) { n++ })
						torchtest.Close(t, features(), want, near, fmt.Sprintf("features with a hook on a %T", m))
						nn.OnOutput(m, nil)
						if n == 0 {
							t.Errorf("the output of a %T was not seen", m)
						}
					}
					got, each := outputs(packed, x), outputs(plain, x)
					if len(got) != len(each) {
						t.Errorf("%d modules show their outputs, want %d", len(got), len(each))
					}
					for name, w := range each {
						limit := compare.Tolerance{}
						if name == "visual.attnpool" || test.dtype != torch.Float32 {
							limit = near // its linear layers are packed
						}
						torchtest.Close(t, got[name].To(torch.WithDType(torch.Float32)), w.To(torch.WithDType(torch.Float32)), limit, name)
						got[name].Close()
						w.Close()
					}
				})
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if n := torch.Alive(); n != alive {
				t.Errorf("%d tensors left", n-alive)
			}
		})
	}
}
