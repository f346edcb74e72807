package nets_test

import (
	"testing"

	"cyclecap/nets/clip"
	"cyclecap/nets/clipcap"
	"cyclecap/nets/cyclegan"
	"cyclecap/nets/gpt2"
	"cyclecap/torch"
	"cyclecap/torch/nn"
)

// TestExact: nets with exact layers (nn.Exact) have the bits of the plain ones in every call,
// before and after their weights are packed.
func TestExact(t *testing.T) {
	var vision *clip.Model
	var gpt *gpt2.Model
	var mapper *clipcap.TransformerMapper
	var generator *cyclegan.Generator
	err := torch.Scope(func() error {
		vision = clip.New(clip.Config{EmbedDim: 64, ImageSize: 56, PatchSize: 8, VisionWidth: 192, VisionDepth: 4, Context: 16, Vocab: 300, TextWidth: 192, TextHeads: 3, TextDepth: 4})
		gpt = gpt2.New(gpt2.Config{VocabSize: 500, NPositions: 64, NEmbd: 192, NLayer: 4, NHead: 3, LayerNormEpsilon: 1e-5})
		mapper = clipcap.NewTransformerMapper(clipcap.TransformerConfig{FeatureWidth: 64, Width: 192, ClipLength: 4, PrefixLength: 6, Layers: 4, Heads: clipcap.Heads})
		generator = cyclegan.NewGenerator(192)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	type net struct {
		module  any
		forward func() torch.Tensor
		want    torch.Tensor // of the plain net
	}
	compute := func(n *net) (y torch.Tensor) {
		torch.InferenceMode(func() {
			torch.ManualSeed(3)
			y = n.forward()
		})
		return y
	}
	all := map[string]*net{
		"CLIP, images": {module: vision, forward: func() torch.Tensor { return vision.EncodeImage(torch.Randn([]int64{2, 3, 56, 56})) }},
		"CLIP, texts":  {module: vision, forward: func() torch.Tensor { return vision.EncodeText(torch.Randint(1, 300, []int64{3, 16})) }},
		"GPT-2": {module: gpt, forward: func() torch.Tensor {
			return gpt.Logits(gpt.Forward(gpt.Embed(torch.Randint(1, 500, []int64{3, 20})), nil, torch.Tensor{}))
		}},
		"transformer mapper": {module: mapper, forward: func() torch.Tensor { return mapper.Forward(torch.Randn([]int64{5, 64})) }},
		"generator":          {module: generator, forward: func() torch.Tensor { return generator.Forward(torch.Randn([]int64{64, 192})) }},
	}
	err = torch.Scope(func() error {
		for _, n := range all {
			n.want = torch.Tidy(func() torch.Tensor { return compute(n) })
		}
		for _, n := range all {
			nn.Exact(n.module)
		}
		for name, n := range all {
			for call := range 50 {
				torch.Tidy(func() torch.Tensor {
					if got := compute(n); !got.Equal(n.want) {
						t.Fatalf("%s: call %d has other bits", name, call)
					}
					return torch.Tensor{}
				})
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []any{vision, gpt, mapper, generator} {
		nn.Close(m)
	}
}
