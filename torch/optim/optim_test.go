package optim_test

import (
	"fmt"
	"strings"
	"testing"

	"cyclecap/torch"
	"cyclecap/torch/internal/fixture"
	"cyclecap/torch/nn"
	"cyclecap/torch/optim"

	"github.com/google/go-cmp/cmp"
)

const steps = 25

func adam(change func(*optim.AdamOptions)) optim.AdamOptions {
	o := optim.AdamDefaults()
	o.LR = 0.01
	change(&o)
	return o
}

// optimizers restates OPTIMIZERS of make_fixtures.py.
var optimizers = map[string]func(p []torch.Tensor) optim.Optimizer{
	"sgd": func(p []torch.Tensor) optim.Optimizer { return optim.SGD(p, optim.SGDOptions{LR: 0.1}) },
	"sgd_momentum": func(p []torch.Tensor) optim.Optimizer {
		return optim.SGD(p, optim.SGDOptions{LR: 0.05, Momentum: 0.9, WeightDecay: 0.01})
	},
	"sgd_nesterov": func(p []torch.Tensor) optim.Optimizer {
		return optim.SGD(p, optim.SGDOptions{LR: 0.05, Momentum: 0.9, Nesterov: true})
	},
	"sgd_dampening": func(p []torch.Tensor) optim.Optimizer {
		return optim.SGD(p, optim.SGDOptions{LR: 0.05, Momentum: 0.8, Dampening: 0.3})
	},
	"adam": func(p []torch.Tensor) optim.Optimizer { return optim.Adam(p, adam(func(*optim.AdamOptions) {})) },
	"adam_gan": func(p []torch.Tensor) optim.Optimizer {
		return optim.Adam(p, adam(func(o *optim.AdamOptions) { o.LR, o.Beta1 = 2e-4, 0.5 }))
	},
	"adam_decay": func(p []torch.Tensor) optim.Optimizer {
		return optim.Adam(p, adam(func(o *optim.AdamOptions) { o.WeightDecay = 0.1 }))
	},
	"adamw": func(p []torch.Tensor) optim.Optimizer {
		return optim.AdamW(p, adam(func(o *optim.AdamOptions) { o.WeightDecay = 0.05 }))
	},
	"adam_fused": func(p []torch.Tensor) optim.Optimizer {
		return optim.Adam(p, adam(func(o *optim.AdamOptions) { o.Fused = true }))
	},
	"adamw_fused": func(p []torch.Tensor) optim.Optimizer {
		return optim.AdamW(p, adam(func(o *optim.AdamOptions) { o.WeightDecay, o.Fused = 0.05, true }))
	},
	"transformers_adamw": func(p []torch.Tensor) optim.Optimizer {
		return optim.TransformersAdamW(p, adam(func(o *optim.AdamOptions) { o.Eps = 1e-6 }))
	},
	"transformers_adamw_decay": func(p []torch.Tensor) optim.Optimizer {
		return optim.TransformersAdamW(p, adam(func(o *optim.AdamOptions) { o.Eps, o.WeightDecay = 1e-6, 0.1 }))
	},
}

func scoped(t *testing.T, f func()) {
	t.Helper()
	before := torch.Alive()
	if err := torch.Scope(func() error { f(); return nil }); err != nil {
		t.Fatal(err)
	}
	if after := torch.Alive(); after != before {
		t.Errorf("%d tensors are alive that were not before", after-before)
	}
}

func net() *nn.SequentialModule {
	torch.ManualSeed(6)
	return nn.Sequential(nn.Linear(8, 12, true), nn.Tanh(), nn.Linear(12, 4, true))
}

// train runs steps [from, to) of the fixtures' regression.
func train(m nn.Module, opt optim.Optimizer, xs, ys torch.Tensor, from, to int, after func(step int)) {
	for step := from; step < to; step++ {
		torch.Tidy(func() torch.Tensor {
			opt.ZeroGrad()
			m.Forward(xs.Select(0, int64(step))).MseLoss(ys.Select(0, int64(step))).Backward()
			after(step)
			opt.Step()
			return torch.Tensor{}
		})
	}
}

// TestSteps holds the weights after 25 steps to PyTorch's bits.
func TestSteps(t *testing.T) {
	s := fixture.Open(t, "../testdata/fixtures.json")
	for name, create := range optimizers {
		for _, variant := range []string{"", "_clipped"} {
			t.Run(name+variant, func(t *testing.T) {
				scoped(t, func() {
					xs, ys := s.Tensor("optim/x"), s.Tensor("optim/y")
					m := net()
					defer nn.Close(m)
					params := nn.Parameters(m)
					opt := create(params)
					defer opt.Close()
					base := opt.LR()
					var norms []float64
					train(m, opt, xs, ys, 0, steps, func(step int) {
						if variant != "" {
							opt.SetLR(base * optim.WarmupLinear(step, 5, steps))
							norms = append(norms, optim.ClipGradNorm(params, 0.5))
							optim.ClipGradValue(params, 0.1)
						}
					})
					prefix := "optim/" + name + variant + "/"
					for _, p := range nn.NamedParameters(m) {
						s.Equal(p.Name, *p.Tensor, prefix+p.Name)
					}
					if variant != "" {
						s.Equal("norms", torch.FromSlice(norms), prefix+"norms")
					}
				})
			})
		}
	}
}

// TestResume takes the state out in the middle, puts it into a new optimizer
// and has to end with the same bits.
func TestResume(t *testing.T) {
	s := fixture.Open(t, "../testdata/fixtures.json")
	for _, name := range []string{"sgd_momentum", "adamw", "adam_fused", "transformers_adamw"} {
		t.Run(name, func(t *testing.T) {
			scoped(t, func() {
				xs, ys := s.Tensor("optim/x"), s.Tensor("optim/y")
				m := net()
				defer nn.Close(m)
				first := optimizers[name](nn.Parameters(m))
				train(m, first, xs, ys, 0, 10, func(int) {})
				var kept []optim.ParamState
				for _, p := range first.State() {
					c := optim.ParamState{Step: p.Step}
					for _, x := range p.Tensors {
						c.Tensors = append(c.Tensors, x.Clone().Keep())
					}
					kept = append(kept, c)
				}
				first.Close()
				second := optimizers[name](nn.Parameters(m))
				defer second.Close()
				if err := second.SetState(kept); err != nil {
					t.Fatal(err)
				}
				train(m, second, xs, ys, 10, steps, func(int) {})
				for _, p := range nn.NamedParameters(m) {
					s.Equal(p.Name, *p.Tensor, "optim/"+name+"/"+p.Name)
				}
			})
		})
	}
}

func TestSetStateRefuses(t *testing.T) {
	scoped(t, func() {
		m := net()
		defer nn.Close(m)
		opt := optimizers["adam"](nn.Parameters(m))
		if err := opt.SetState(nil); err == nil || !strings.Contains(err.Error(), "0 for 4") && !strings.Contains(err.Error(), "of 0 parameters") {
			t.Errorf("state of no parameters: %v", err)
		}
		bad := make([]optim.ParamState, 4)
		bad[0].Tensors = []torch.Tensor{torch.Ones([]int64{1}), torch.Ones([]int64{1})}
		if err := opt.SetState(bad); err == nil || !strings.Contains(err.Error(), "[12 8]") {
			t.Errorf("state of another shape: %v", err)
		}
	})
}

func TestSchedules(t *testing.T) {
	var warm, constant []string
	for step := range 6 {
		warm = append(warm, fmt.Sprintf("%.3g", optim.WarmupLinear(step, 2, 5)))
		constant = append(constant, fmt.Sprintf("%.3g", optim.ConstantLinear(step, 3, 3)))
	}
	// get_linear_schedule_with_warmup(2, 5); lambda of the CycleGAN authors
	// with n_epochs 3, n_epochs_decay 3, epoch_count 1.
	if diff := cmp.Diff([]string{"0", "0.5", "1", "0.667", "0.333", "0"}, warm); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"1", "1", "1", "0.75", "0.5", "0.25"}, constant); diff != "" {
		t.Error(diff)
	}
}
