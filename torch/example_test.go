package torch_test

import (
	"fmt"

	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/torch/optim"
)

// Linear regression: find a slope and an offset from noisy points.
func Example_linearRegression() {
	err := torch.Scope(func() error {
		torch.ManualSeed(0)
		x := torch.Randn([]int64{100, 1})
		y := x.MulScalar(3).AddScalar(2).Add(torch.Randn([]int64{100, 1}), torch.WithAlpha(0.1))
		model := nn.Linear(1, 1, true)
		defer nn.Close(model)
		opt := optim.SGD(nn.Parameters(model), optim.SGDOptions{LR: 0.1})
		for range 100 {
			torch.Tidy(func() torch.Tensor { // frees what a step makes
				opt.ZeroGrad()
				model.Forward(x).MseLoss(y).Backward()
				opt.Step()
				return torch.Tensor{}
			})
		}
		fmt.Printf("y = %.1f x + %.1f\n", model.Weight.Item(), model.Bias.Item())
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output: y = 3.0 x + 2.0
}

func ExampleScope() {
	var kept torch.Tensor
	err := torch.Scope(func() error {
		x := torch.FromSlice([]float32{1, 2, 3, 4}, 2, 2)
		kept = x.MM(x).Keep() // outlives the scope; x does not
		return nil
	})
	fmt.Println(err, torch.ToSlice[float32](kept))
	kept.Close()

	// An operator's error is the scope's.
	err = torch.Scope(func() error {
		torch.Ones([]int64{2, 3}).MM(torch.Ones([]int64{2, 3}))
		return nil
	})
	fmt.Println(err)
	// Output:
	// <nil> [7 10 15 22]
	// mm(float32[2,3], float32[2,3]): mat1 and mat2 shapes cannot be multiplied (2x3 and 2x3)
}

func ExampleTidy() {
	torch.Scope(func() error {
		x := torch.Ones([]int64{3})
		before := torch.Alive()
		y := torch.Tidy(func() torch.Tensor {
			return x.AddScalar(1).MulScalar(2).Exp().Log() // three of these four are freed at once
		})
		fmt.Println(y, torch.Alive()-before)
		return nil
	})
	// Output: tensor([4., 4., 4.]) 1
}

func ExampleTensor_Backward() {
	torch.Scope(func() error {
		w := torch.FromSlice([]float32{1, 2}).SetRequiresGrad(true)
		w.Mul(w).Sum().Backward()
		fmt.Println(w.Grad())
		return nil
	})
	// Output: tensor([2., 4.])
}

func ExampleAutocast() {
	torch.Scope(func() error {
		x := torch.Ones([]int64{2, 2})
		torch.Autocast(torch.CPUDevice, torch.BFloat16, func() {
			fmt.Println(x.Matmul(x))
		})
		return nil
	})
	// Output:
	// tensor([[2., 2.],
	//         [2., 2.]], dtype=torch.bfloat16)
}

func ExampleTensor_String() {
	torch.Scope(func() error {
		fmt.Println(torch.Arange(0, 6).View([]int64{2, 3}).DivScalar(4))
		return nil
	})
	// Output:
	// tensor([[0.0000, 0.2500, 0.5000],
	//         [0.7500, 1.0000, 1.2500]])
}
