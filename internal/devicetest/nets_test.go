package devicetest

import (
	"fmt"
	"maps"
	"math"
	"testing"

	"cyclecap/nets/clip"
	"cyclecap/nets/clipcap"
	"cyclecap/nets/cyclegan"
	"cyclecap/nets/gpt2"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	F "cyclecap/torch/nn/functional"
	"cyclecap/torch/optim"
	"cyclecap/train"
)

func newCLIP(gelu bool) *clip.Model {
	act := clip.QuickGELU
	if gelu {
		act = clip.GELU
	}
	return clip.New(clip.Config{EmbedDim: 16, ImageSize: 32, PatchSize: 8, VisionWidth: 64, VisionDepth: 2,
		Context: 12, Vocab: 50, TextWidth: 64, TextHeads: 1, TextDepth: 2, VisionActivation: act, TextActivation: act})
}

func newGPT2() *gpt2.Model {
	return gpt2.New(gpt2.Config{VocabSize: 50, NPositions: 32, NEmbd: 64, NLayer: 2, NHead: 2, LayerNormEpsilon: 1e-5})
}

func newTransformerMapper() clipcap.Mapper {
	return clipcap.NewTransformerMapper(clipcap.TransformerConfig{FeatureWidth: 16, Width: 64, ClipLength: 3, PrefixLength: 4, Layers: 2, Heads: 8})
}

// ids returns tokens [n, t], of which the last is the largest, as CLIP's end token is.
func ids(n, t int64) torch.Tensor {
	x := torch.Randint(1, 48, []int64{n, t})
	x.Select(1, t-1).Fill_(49)
	return x
}

// nets returns, for each network, a function that computes its output on a device and
// the gradients of its parameters.
var nets = map[string]func(d torch.Device) (torch.Tensor, any){
	"clip image":       clipImage(false),
	"clip image, gelu": clipImage(true),
	"clip text":        clipText,
	"gpt2": func(d torch.Device) (torch.Tensor, any) {
		m := moved(d, newGPT2())
		return m.Logits(m.Forward(m.Embed(to(d, ids(3, 9))), nil, torch.Tensor{})), m
	},
	"transformer mapper": func(d torch.Device) (torch.Tensor, any) {
		m := moved(d, newTransformerMapper())
		return m.Forward(to(d, torch.Randn([]int64{5, 16}))), m
	},
	"mlp mapper": func(d torch.Device) (torch.Tensor, any) {
		m := moved(d, clipcap.NewMLPMapper(16, 64, 4))
		return m.Forward(to(d, torch.Randn([]int64{5, 16}))), m
	},
	"decoder loss":        decoderLoss(false),
	"decoder loss, exact": decoderLoss(true),
	"generator": func(d torch.Device) (torch.Tensor, any) {
		m := moved(d, cyclegan.NewGenerator(16))
		return m.Forward(to(d, torch.Randn([]int64{5, 16}))), m
	},
	"discriminator": func(d torch.Device) (torch.Tensor, any) {
		m := moved(d, cyclegan.NewDiscriminator(16))
		return m.Forward(to(d, torch.Randn([]int64{5, 16}))), m
	},
}

func clipImage(gelu bool) func(d torch.Device) (torch.Tensor, any) {
	return func(d torch.Device) (torch.Tensor, any) {
		m := moved(d, newCLIP(gelu))
		return m.EncodeImage(to(d, torch.Randn([]int64{3, 3, 32, 32}))), m
	}
}

func clipText(d torch.Device) (torch.Tensor, any) {
	m := moved(d, newCLIP(false))
	return m.EncodeText(to(d, ids(3, 12))), m
}

func decoderLoss(exactly bool) func(d torch.Device) (torch.Tensor, any) {
	return func(d torch.Device) (torch.Tensor, any) {
		m := &clipcap.Model{Mapper: moved(d, newTransformerMapper()), GPT2: moved(d, newGPT2())}
		tokens := ids(3, 7)
		tokens.Select(0, 1).Narrow(0, 5, 2).Fill_(0) // padding
		loss := train.DecoderLoss(m, to(d, torch.Randn([]int64{3, 16})), to(d, tokens), exactly)
		return loss, m
	}
}

func TestNets(t *testing.T) {
	for name, f := range nets {
		t.Run(name, func(t *testing.T) {
			compareDevices(t, gradient, func(d torch.Device) []result {
				y, m := f(d)
				defer nn.Close(m)
				return kept(learned(y, m))
			})
		})
		t.Run(name+", bf16", func(t *testing.T) {
			half := func(d torch.Device) []result {
				var y torch.Tensor
				var m any
				torch.Autocast(d.Type, torch.BFloat16, func() { y, m = f(d) })
				defer nn.Close(m)
				return kept(learned(y, m))
			}
			if exact() {
				compareDevices(t, 0, half)
				return
			}
			// A ReLU can be open on one device and shut on the other where its input
			// is rounded to either side of 0, which changes single gradients at will.
			// As one vector, the results may be twice as far from the CPU's as the
			// rounding to bf16 is from f32 there.
			scope(t, func() error {
				var list [3][]result
				for i, run := range []func() []result{
					func() []result {
						y, m := f(torch.CPU)
						defer nn.Close(m)
						return kept(learned(y, m))
					},
					func() []result { return half(torch.CPU) },
					func() []result { return half(device) },
				} {
					torch.ManualSeed(7)
					list[i] = run()
				}
				rounding, between := distance(list[0], list[1]), distance(list[1], list[2])
				if !(between <= 2*rounding) {
					t.Errorf("in bf16 the results differ from the CPU's by %.2g, and f32 on the CPU by %.2g", between, rounding)
				}
				return nil
			})
		})
		t.Run(name+", inference", func(t *testing.T) {
			compareDevices(t, forward, func(d torch.Device) (out []result) {
				torch.InferenceMode(func() {
					y, m := f(d)
					nn.Close(m)
					out = []result{{"output", y}}
				})
				return out
			})
		})
	}
}

// distance returns the length of b - a, relative to that of a, as one vector each.
func distance(a, b []result) float64 {
	var difference, length float64
	for i := range a {
		if a[i].Defined() {
			x, y := torch.ToSlice[float64](a[i].To(torch.WithDType(torch.Float64))), torch.ToSlice[float64](b[i].To(torch.WithDType(torch.Float64)))
			for k := range x {
				difference += (y[k] - x[k]) * (y[k] - x[k])
				length += x[k] * x[k]
			}
		}
	}
	return math.Sqrt(difference / length)
}

// kept returns copies of results that stay when their modules are closed.
func kept(list []result) []result {
	for i, r := range list {
		if r.Defined() {
			list[i].Tensor = r.Clone()
		}
	}
	return list
}

// TestInit checks that networks that are made on the device have the CPU's initial
// weights: random numbers are drawn there. On CUDA they are others, and only finite.
func TestInit(t *testing.T) {
	for name, make := range map[string]func() any{
		"clip":   func() any { return newCLIP(false) },
		"gpt2":   func() any { return newGPT2() },
		"mapper": func() any { return newTransformerMapper() },
		"gan":    func() any { return []any{cyclegan.NewGenerator(16), cyclegan.NewDiscriminator(16)} },
	} {
		t.Run(name, func(t *testing.T) {
			compareDevices(t, math.Inf(1), func(d torch.Device) (out []result) {
				var m any
				torch.OnDevice(d, func() { m = make() })
				list, ok := m.([]any)
				if !ok {
					list = []any{m}
				}
				for i, m := range list {
					for _, p := range nn.NamedParameters(m) {
						out = append(out, result{fmt.Sprint(i, " ", p.Name), p.Tensor.Detach()})
					}
					defer nn.Close(m)
				}
				return kept(out)
			})
		})
	}
}

// TestLosses compares losses and their gradients.
func TestLosses(t *testing.T) {
	target := func(a torch.Tensor) torch.Tensor {
		return to(a.Device(), torch.FromSlice([]int64{0, 4, 2, 0, 1, 3}))
	}
	entropy := func(change func(*F.CrossEntropyOptions)) func(a, b torch.Tensor) torch.Tensor {
		return func(a, _ torch.Tensor) torch.Tensor {
			o := F.CrossEntropyDefaults()
			change(&o)
			return F.CrossEntropy(a, target(a), o)
		}
	}
	for name, f := range map[string]func(a, b torch.Tensor) torch.Tensor{
		"cross entropy":           entropy(func(*F.CrossEntropyOptions) {}),
		"cross entropy, ignore 0": entropy(func(o *F.CrossEntropyOptions) { o.IgnoreIndex = 0 }),
		"cross entropy, sum":      entropy(func(o *F.CrossEntropyOptions) { o.Reduction = F.Sum }),
		"cross entropy, smooth":   entropy(func(o *F.CrossEntropyOptions) { o.LabelSmoothing = 0.1 }),
		"nll":                     func(a, _ torch.Tensor) torch.Tensor { return F.NLLLoss(a.LogSoftmax(-1), target(a)) },
		"mse":                     func(a, b torch.Tensor) torch.Tensor { return F.MSELoss(a, b, F.Mean) },
		"l1":                      func(a, b torch.Tensor) torch.Tensor { return F.L1Loss(a, b, F.Mean) },
		"l1, sum":                 func(a, b torch.Tensor) torch.Tensor { return F.L1Loss(a, b, F.Sum) },
		"bce with logits": func(a, b torch.Tensor) torch.Tensor {
			return F.BCEWithLogits(a, b.GtScalar(0).To(torch.WithDType(torch.Float32)), F.Mean)
		},
		"normalize": func(a, b torch.Tensor) torch.Tensor { return F.Normalize(a, -1).Mul(b).Sum() },
		"cosine similarity": func(a, b torch.Tensor) torch.Tensor {
			return torch.CosineSimilarity(a, b, torch.WithDim(int64(-1))).Sum()
		},
		"clip": func(a, b torch.Tensor) torch.Tensor {
			logits := clip.Normalize(a).MM(clip.Normalize(b).T()).MulScalar(14)
			diagonal := torch.Arange(0, 6, torch.WithDType(torch.Int64), torch.WithDevice(a.Device()))
			return logits.CrossEntropyLoss(diagonal).Add(logits.T().CrossEntropyLoss(diagonal)).MulScalar(0.5)
		},
	} {
		t.Run(name, func(t *testing.T) {
			compareDevices(t, gradient, func(d torch.Device) []result {
				a, b := to(d, torch.Randn([]int64{6, 5})).SetRequiresGrad(true), to(d, torch.Randn([]int64{6, 5}))
				loss := f(a, b)
				loss.Backward()
				return []result{{"loss", loss.Detach()}, {"gradient", a.Grad()}}
			})
		})
	}
}

// The optimizers.
var (
	adam = func(change func(*optim.AdamOptions)) optim.AdamOptions {
		o := optim.AdamDefaults()
		change(&o)
		return o
	}
	decay   = func(o *optim.AdamOptions) { o.WeightDecay = 0.1 }
	amsgrad = func(o *optim.AdamOptions) { o.Amsgrad, o.Maximize = true, true }
	fused   = func(o *optim.AdamOptions) { o.WeightDecay, o.Fused = 0.1, true }
	// The optimizers that are fused or work on lists, for the trainings of an experiment.
	optimizers = map[string]func(p []torch.Tensor) optim.Optimizer{
		"adam":               func(p []torch.Tensor) optim.Optimizer { return optim.Adam(p, adam(func(*optim.AdamOptions) {})) },
		"adam, decay":        func(p []torch.Tensor) optim.Optimizer { return optim.Adam(p, adam(decay)) },
		"adam, fused":        func(p []torch.Tensor) optim.Optimizer { return optim.Adam(p, adam(fused)) },
		"adamw":              func(p []torch.Tensor) optim.Optimizer { return optim.AdamW(p, optim.AdamWDefaults()) },
		"adamw, fused":       func(p []torch.Tensor) optim.Optimizer { return optim.AdamW(p, adam(fused)) },
		"transformers adamw": func(p []torch.Tensor) optim.Optimizer { return optim.TransformersAdamW(p, adam(decay)) },
		"sgd":                func(p []torch.Tensor) optim.Optimizer { return optim.SGD(p, optim.SGDOptions{LR: 0.1}) },
		"sgd, nesterov": func(p []torch.Tensor) optim.Optimizer {
			return optim.SGD(p, optim.SGDOptions{LR: 0.1, Momentum: 0.9, WeightDecay: 0.01, Nesterov: true})
		},
		"sgd, dampened": func(p []torch.Tensor) optim.Optimizer {
			return optim.SGD(p, optim.SGDOptions{LR: 0.1, Momentum: 0.9, Dampening: 0.1})
		},
	}
	// Those that take one parameter after the other.
	otherOptimizers = map[string]func(p []torch.Tensor) optim.Optimizer{
		"adam, amsgrad": func(p []torch.Tensor) optim.Optimizer { return optim.Adam(p, adam(amsgrad)) },
		"adadelta":      func(p []torch.Tensor) optim.Optimizer { return optim.Adadelta(p, optim.AdadeltaDefaults()) },
		"adafactor":     func(p []torch.Tensor) optim.Optimizer { return optim.Adafactor(p, optim.AdafactorDefaults()) },
		"adagrad":       func(p []torch.Tensor) optim.Optimizer { return optim.Adagrad(p, optim.AdagradDefaults()) },
		"adamax":        func(p []torch.Tensor) optim.Optimizer { return optim.Adamax(p, optim.AdamaxDefaults()) },
		"asgd":          func(p []torch.Tensor) optim.Optimizer { return optim.ASGD(p, optim.ASGDDefaults()) },
		"nadam":         func(p []torch.Tensor) optim.Optimizer { return optim.NAdam(p, optim.NAdamDefaults()) },
		"radam":         func(p []torch.Tensor) optim.Optimizer { return optim.RAdam(p, optim.RAdamDefaults()) },
		"rmsprop":       func(p []torch.Tensor) optim.Optimizer { return optim.RMSprop(p, optim.RMSpropDefaults()) },
	}
)

// TestOptimizers compares weights and states after several steps.
func TestOptimizers(t *testing.T) {
	all := maps.Clone(optimizers)
	maps.Copy(all, otherOptimizers)
	for name, newOptimizer := range all {
		t.Run(name, func(t *testing.T) {
			compareDevices(t, trained, func(d torch.Device) (out []result) {
				m := moved(d, cyclegan.NewGenerator(16))
				defer nn.Close(m)
				opt := newOptimizer(nn.Parameters(m))
				defer opt.Close()
				for range 5 {
					opt.ZeroGrad()
					m.Forward(to(d, torch.Randn([]int64{8, 16}))).MseLoss(to(d, torch.Randn([]int64{8, 16}))).Backward()
					optim.ClipGradNorm(nn.Parameters(m), 0.5)
					optim.ClipGradValue(nn.Parameters(m), 0.05)
					opt.Step()
				}
				for i, p := range nn.NamedParameters(m) {
					out = append(out, result{p.Name, p.Tensor.Detach()})
					for k, s := range opt.State()[i].Tensors {
						if !s.Defined() || s.Dim() == 0 {
							continue // not used, or a number, which stays on the CPU
						}
						out = append(out, result{opt.StateNames()[k] + " of " + p.Name, s})
					}
				}
				return kept(out)
			})
		})
	}
}
