package optim_test

import (
	"fmt"

	"cyclecap/torch"
	"cyclecap/torch/nn"
	F "cyclecap/torch/nn/functional"
	"cyclecap/torch/optim"
)

// Training a classifier of points by quadrant: AdamW, warmup and linear decay,
// gradient clipping. One scope per step keeps memory use constant.
func Example() {
	const steps, batch = 200, 64
	var m *nn.SequentialModule
	var opt optim.Optimizer
	o := optim.AdamWDefaults()
	o.LR = 0.02
	err := torch.Scope(func() error {
		torch.ManualSeed(0)
		m = nn.Sequential(nn.Linear(2, 32, true), nn.Tanh(), nn.Linear(32, 4, true))
		opt = optim.AdamW(nn.Parameters(m), o)
		return nil
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer nn.Close(m)
	defer opt.Close()
	right := 0.0
	for step := range steps {
		err := torch.Scope(func() error {
			x := torch.Randn([]int64{batch, 2})
			positive := x.GtScalar(0).To(torch.WithDType(torch.Int64))
			class := positive.Select(1, 0).Add(positive.Select(1, 1), torch.WithAlpha(2))

			opt.SetLR(o.LR * optim.WarmupLinear(step, 20, steps))
			opt.ZeroGrad()
			y := m.Forward(x)
			F.CrossEntropy(y, class, F.CrossEntropyDefaults()).Backward()
			optim.ClipGradNorm(nn.Parameters(m), 1)
			opt.Step()

			right = y.Argmax(torch.WithDim(1)).Eq(class).Sum().Item() / batch
			return nil
		})
		if err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println(right > 0.9)
	// Output: true
}
