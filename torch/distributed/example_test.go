package distributed_test

import (
	"context"
	"errors"
	"fmt"

	"cyclecap/torch"
	"cyclecap/torch/distributed"
	"cyclecap/torch/nn"
	"cyclecap/torch/optim"
)

// Linear regression with any number of processes. Started with
// `torchrun --nproc-per-node 2 --no-python PROGRAM`, it prints the same result,
// once.
func Example() {
	var group *distributed.Group // nil: a group of only this process
	options, err := distributed.FromEnv()
	switch {
	case err == nil:
		group, err = distributed.InitProcessGroup(context.Background(), options)
	case errors.Is(err, distributed.ErrNotLaunched):
		err = nil
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	defer group.Close()

	err = torch.Scope(func() error {
		torch.ManualSeed(0) // the same data and the same network in every process
		x := torch.Randn([]int64{96, 1})
		y := x.MulScalar(3).AddScalar(2)
		model := nn.Linear(1, 1, true)
		defer nn.Close(model)
		opt := optim.SGD(nn.Parameters(model), optim.SGDOptions{LR: 0.1})
		defer opt.Close()

		rows := 96 / int64(group.Size())
		x, y = x.Narrow(0, rows*int64(group.Rank()), rows), y.Narrow(0, rows*int64(group.Rank()), rows)
		for range 100 {
			if err := torch.Scope(func() error {
				opt.ZeroGrad()
				model.Forward(x).MseLoss(y).Backward()
				if err := distributed.AverageGradients(group, nn.Parameters(model)); err != nil {
					return err
				}
				opt.Step()
				return nil
			}); err != nil {
				return err
			}
		}
		if group.Rank() == 0 {
			fmt.Printf("y = %.1f x + %.1f\n", model.Weight.Item(), model.Bias.Item())
		}
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output: y = 3.0 x + 2.0
}
