package torch_test

import (
	"errors"
	"fmt"
	"sync"

	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/torch/optim"
)

// Linear regression: fit a line to noisy points.
func Example_linearRegression() {
	err := torch.Scope(func() error {
		torch.ManualSeed(0)
		x := torch.Randn([]int64{100, 1})
		y := x.MulScalar(3).AddScalar(2).Add(torch.Randn([]int64{100, 1}), torch.WithAlpha(0.1))
		model := nn.Linear(1, 1, true)
		defer nn.Close(model)
		opt := optim.SGD(nn.Parameters(model), optim.SGDOptions{LR: 0.1})
		for range 100 {
			torch.Tidy(func() torch.Tensor { // frees the tensors of a step
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

	// Scope returns the error of an operator.
	err = torch.Scope(func() error {
		torch.Ones([]int64{2, 3}).MM(torch.Ones([]int64{2, 3}))
		return nil
	})
	var e *torch.Error
	if errors.As(err, &e) {
		fmt.Printf("%s(%s): a RuntimeError: %v\n", e.Op, e.Args, e.Kind == torch.RuntimeError)
	}
	// Output:
	// <nil> [7 10 15 22]
	// mm(float32[2,3], float32[2,3]): a RuntimeError: true
}

func ExampleTidy() {
	torch.Scope(func() error {
		x := torch.Ones([]int64{3})
		before := torch.Alive()
		y := torch.Tidy(func() torch.Tensor {
			return x.AddScalar(1).MulScalar(2).Exp().Log() // three of these four results are freed immediately
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

// Three ways to read the elements: one value, a copy of all, and the memory
// itself.
func ExampleData() {
	torch.Scope(func() error {
		x := torch.FromSlice([]float32{1, 2, 3, 4, 5, 6}, 2, 3)
		fmt.Println(x.Select(0, 1).Select(0, 2).Item())
		fmt.Println(torch.ToSlice[int64](x.T()))
		torch.Data(x, func(data []float32) { data[0] = 100 })
		fmt.Println(x.Sum().Item())
		return nil
	})
	// Output:
	// 6
	// [1 4 2 5 3 6]
	// 120
}

func ExampleNoGrad() {
	torch.Scope(func() error {
		w := torch.Ones([]int64{2}).SetRequiresGrad(true)
		fmt.Println(w.Exp().RequiresGrad())
		torch.NoGrad(func() {
			fmt.Println(w.Exp().RequiresGrad())
			torch.EnableGrad(func() { fmt.Println(w.Exp().RequiresGrad()) })
		})
		torch.InferenceMode(func() { fmt.Println(w.Exp().RequiresGrad()) })
		return nil
	})
	// Output:
	// true
	// false
	// true
	// false
}

// Many goroutines run tensor code on one OS thread.
func ExampleExecutor() {
	e := torch.NewExecutor()
	defer e.Close()
	lengths := make([]float64, 3)
	var wg sync.WaitGroup
	for i := range lengths {
		wg.Go(func() {
			v := []float32{3 * float32(i), 4 * float32(i)} // work that needs no tensors, such as decoding
			err := e.Do(func() error {
				lengths[i] = torch.FromSlice(v).LinalgVectorNorm().Item()
				return nil
			})
			if err != nil {
				fmt.Println(err)
			}
		})
	}
	wg.Wait()
	fmt.Println(lengths)
	// Output: [0 5 10]
}

// Tensors on the meta device have a shape but no data, so a network of any size
// can be created and run there immediately.
func ExampleOnDevice() {
	torch.Scope(func() error {
		torch.OnDevice(torch.Meta, func() {
			m := nn.Linear(100_000, 50_000, true) // 20 GB on other devices
			defer nn.Close(m)
			fmt.Println(m.Forward(torch.Empty([]int64{8, 100_000})))
		})
		return nil
	})
	// Output: tensor(..., device='meta', size=(8, 50000), grad_fn=<AddmmBackward0>)
}

// Restoring a saved state generates the same numbers again.
func ExampleGenerator_State() {
	torch.Scope(func() error {
		torch.ManualSeed(0)
		g := torch.DefaultGenerator(torch.CPU)
		state := g.State()
		fmt.Println(torch.Randn([]int64{3}))
		if err := g.SetState(state); err != nil {
			return err
		}
		fmt.Println(torch.Randn([]int64{3}))
		return nil
	})
	// Output:
	// tensor([ 1.5410, -0.2934, -2.1788])
	// tensor([ 1.5410, -0.2934, -2.1788])
}

// round rounds, and lets gradients pass as if it did not: the straight-through
// estimator, with which networks are trained for integers.
type round struct{}

func (round) Forward(ctx *torch.FunctionContext, inputs []torch.Tensor) []torch.Tensor {
	return []torch.Tensor{inputs[0].Round()}
}

func (round) Backward(ctx *torch.FunctionContext, grads []torch.Tensor) []torch.Tensor {
	return grads
}

func ExampleApply() {
	err := torch.Scope(func() error {
		x := torch.FromSlice([]float32{0.4, 1.6}).SetRequiresGrad(true)
		y := torch.Apply(round{}, x)[0]
		y.Square().Sum().Backward()
		fmt.Println(torch.ToSlice[float32](y), torch.ToSlice[float32](x.Grad()))
		return nil
	})
	fmt.Println(err)
	// Output:
	// [0 2] [0 4]
	// <nil>
}

func ExampleFromBlob() {
	pixels := []uint8{10, 20, 30, 40} // also memory of C, or a mapped file, as a slice
	err := torch.Scope(func() error {
		image := torch.FromBlob(pixels, []int64{2, 2}, nil, nil)
		image.T().Select(0, 0).Zero_()
		return nil
	})
	fmt.Println(pixels, err)
	// Output: [0 20 0 40] <nil>
}
