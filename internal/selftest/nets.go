package selftest

import (
	"context"
	"math"

	"cyclecap/nets/clip"
	"cyclecap/nets/clipcap"
	"cyclecap/nets/cyclegan"
	"cyclecap/nets/gpt2"
	"cyclecap/torch"
	"cyclecap/torch/nn"
)

// Sizes of the networks. Heads are 64 wide, as in the real ones, so that a GPU chooses
// the same attention kernels.
var (
	clipConfig = clip.Config{EmbedDim: featureWidth, ImageSize: 32, PatchSize: 8, VisionWidth: 128, VisionDepth: 2,
		Context: 16, Vocab: 300, TextWidth: 128, TextHeads: 2, TextDepth: 2}
	gptConfig    = gpt2.Config{VocabSize: 500, NPositions: 64, NEmbd: 128, NLayer: 2, NHead: 2, LayerNormEpsilon: 1e-5}
	mapperConfig = clipcap.TransformerConfig{FeatureWidth: featureWidth, Width: 128, ClipLength: 4, PrefixLength: 6, Layers: 2, Heads: clipcap.Heads}
)

const featureWidth = 64

// spread replaces the weights of a network with larger ones than training starts from,
// so that no output is nearly constant: activations of about 1 in every layer, and
// gains and biases that differ.
func spread(m any) {
	torch.NoGrad(func() {
		for _, p := range nn.Parameters(m) {
			switch p.Dim() {
			case 0: // CLIP's temperature
			case 1:
				p.Add_(torch.Randn(p.Shape()).MulScalar(0.1))
			default:
				nn.Normal_(p, 0, 1/math.Sqrt(float64(p.Numel()/p.Size(0))))
			}
		}
	})
}

// build returns a network with weights that depend only on the seed, on the CPU in f32.
func build[M any](seed uint64, newNet func() M) M {
	torch.ManualSeed(seed)
	m := newNet()
	spread(m)
	return m
}

func newCLIP() *clip.Model                  { return clip.New(clipConfig) }
func newGPT2() *gpt2.Model                  { return gpt2.New(gptConfig) }
func newMapper() *clipcap.TransformerMapper { return clipcap.NewTransformerMapper(mapperConfig) }
func newMLP() *clipcap.MLPMapper {
	return clipcap.NewMLPMapper(featureWidth, gptConfig.NEmbd, mapperConfig.PrefixLength)
}
func newGenerator() *cyclegan.Generator         { return cyclegan.NewGenerator(featureWidth) }
func newDiscriminator() *cyclegan.Discriminator { return cyclegan.NewDiscriminator(featureWidth) }

// features returns random features of about the size of CLIP's, on the CPU.
func features(seed uint64, n int64) torch.Tensor {
	torch.ManualSeed(seed)
	return torch.Randn([]int64{n, featureWidth}).MulScalar(0.5)
}

// ids returns random token ids, on the CPU.
func ids(seed uint64, n, length, vocab int64) torch.Tensor {
	torch.ManualSeed(seed)
	return torch.Randint(1, vocab, []int64{n, length})
}

// place moves a network to a device and a type, in the way that package pipeline does
// for inference: on the CPU, bf16 computes from packed weights.
func place(m any, d torch.Device, dtype torch.DType) {
	nn.To(m, torch.WithDevice(d), torch.WithDType(dtype))
	if d == torch.CPU && dtype == torch.BFloat16 {
		nn.Pack(m)
	}
}

// net returns the checks of a network: its forward pass in f32 and in bf16.
func net[M any](name string, newNet func() M, input func() torch.Tensor, forward func(m M, x torch.Tensor) torch.Tensor) []Check {
	check := func(dtype torch.DType) func(context.Context, torch.Device) (float64, error) {
		return func(_ context.Context, d torch.Device) (off float64, err error) {
			torch.NoGrad(func() {
				run := func(d torch.Device, dtype torch.DType) torch.Tensor {
					m := build(1, newNet)
					defer nn.Close(m)
					place(m, d, dtype)
					x := input().To(torch.WithDevice(d))
					if x.DType().IsFloat() {
						x = x.To(torch.WithDType(dtype))
					}
					return forward(m, x)
				}
				off, err = difference(run(d, dtype), run(torch.CPU, torch.Float64))
			})
			return off, err
		}
	}
	return []Check{{name + ", f32", boundF32, check(torch.Float32)}, {name + ", bf16", boundBF16, check(torch.BFloat16)}}
}

func nets() []Check {
	fromFeatures := func() torch.Tensor { return features(2, 6) }
	var all []Check
	add := func(c []Check) { all = append(all, c...) }
	add(net("CLIP, images", newCLIP,
		func() torch.Tensor {
			torch.ManualSeed(2)
			return torch.Randn([]int64{3, 3, clipConfig.ImageSize, clipConfig.ImageSize})
		},
		(*clip.Model).EncodeImage))
	add(net("CLIP, texts", newCLIP,
		func() torch.Tensor { return ids(2, 5, clipConfig.Context, clipConfig.Vocab) },
		(*clip.Model).EncodeText))
	add(net("GPT-2", newGPT2,
		func() torch.Tensor { return ids(2, 3, 20, gptConfig.VocabSize) },
		func(m *gpt2.Model, x torch.Tensor) torch.Tensor {
			return m.Logits(m.Forward(m.Embed(x), nil, torch.Tensor{}))
		}))
	add(net("transformer mapper", newMapper, fromFeatures, (*clipcap.TransformerMapper).Forward))
	add(net("MLP mapper", newMLP, fromFeatures, (*clipcap.MLPMapper).Forward))
	add(net("generator", newGenerator, fromFeatures, (*cyclegan.Generator).Forward))
	add(net("discriminator", newDiscriminator, fromFeatures, (*cyclegan.Discriminator).Forward))
	return all
}
