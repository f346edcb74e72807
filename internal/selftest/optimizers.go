package selftest

import (
	"context"

	"cyclecap/torch"
	"cyclecap/torch/optim"
)

const steps = 3 // of an optimizer or a training

// optimizers returns the checks of the optimizers: by how much a few steps with given
// gradients change given weights. bf16 trainings keep f32 weights, so there is no bf16
// here.
func optimizers() []Check {
	adam := optim.AdamOptions{LR: 0.1, Beta1: 0.9, Beta2: 0.98, Eps: 1e-6, WeightDecay: 0.1}
	fused := adam
	fused.Fused = true
	check := func(make func(params []torch.Tensor, exact bool) optim.Optimizer) func(context.Context, torch.Device) (float64, error) {
		return func(_ context.Context, d torch.Device) (float64, error) {
			run := func(d torch.Device, dtype torch.DType, exact bool) torch.Tensor {
				torch.ManualSeed(4)
				var params, starts, changes []torch.Tensor
				for _, shape := range [][]int64{{64, 48}, {5, 7, 3}, {17}} {
					start := torch.Randn(shape).To(torch.WithDevice(d)).To(torch.WithDType(dtype))
					starts = append(starts, start)
					params = append(params, start.Clone().SetRequiresGrad(true))
				}
				o := make(params, exact)
				defer o.Close()
				for range steps {
					o.ZeroGrad()
					for _, p := range params {
						g := torch.Randn(p.Shape()).To(torch.WithDevice(d)).To(torch.WithDType(dtype))
						p.Mul(g).Sum().Backward() // the gradient is g
					}
					o.Step()
				}
				for i, p := range params {
					changes = append(changes, p.Detach().Sub(starts[i]).Flatten())
				}
				return torch.Cat(changes)
			}
			return difference(run(d, torch.Float32, false), run(torch.CPU, torch.Float64, true))
		}
	}
	adamOf := func(p []torch.Tensor, _ bool) optim.Optimizer { return optim.Adam(p, adam) }
	adamWOf := func(p []torch.Tensor, exact bool) optim.Optimizer {
		if exact { // not the kernel that is checked
			return optim.AdamW(p, adam)
		}
		return optim.AdamW(p, fused)
	}
	transformersOf := func(p []torch.Tensor, _ bool) optim.Optimizer { return optim.TransformersAdamW(p, adam) }
	return []Check{
		{"optimizer Adam, f32", boundF32, check(adamOf)},
		{"optimizer AdamW, fused, f32", boundF32, check(adamWOf)},
		{"optimizer TransformersAdamW, f32", boundF32, check(transformersOf)},
	}
}
