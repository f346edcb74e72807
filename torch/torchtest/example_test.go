package torchtest_test

import (
	"fmt"
	"testing"

	"cyclecap/torch"
	"cyclecap/torch/compare"
	"cyclecap/torch/nn"
	"cyclecap/torch/torchtest"
)

var t = &testing.T{} // of a function TestModel(t *testing.T)

// The output of a network is compared with a file that `go test -update` writes.
func ExampleGolden() {
	torch.Scope(func() error {
		torch.ManualSeed(0)
		model := nn.Linear(3, 2, true)
		defer nn.Close(model)
		torchtest.Golden(t, "testdata/golden.safetensors", "linear", model.Forward(torch.Ones([]int64{4, 3})))
		return nil
	})
	fmt.Println(t.Failed())
	// Output: false
}

// Softmax in one operator and in three rounds differently.
func ExampleClose() {
	torch.Scope(func() error {
		torch.ManualSeed(0)
		x := torch.Randn([]int64{5, 7})
		e := x.Exp()
		got := e.Div(e.SumDim([]int64{-1}, torch.WithKeepdim(true)))
		torchtest.Close(t, got, x.Softmax(-1), compare.Tolerance{Why: "the largest is not subtracted", Relative: 1e-6})
		return nil
	})
	fmt.Println(t.Failed())
	// Output: false
}

func ExampleDiff() {
	type state struct {
		Step    int
		Weights map[string]torch.Tensor
	}
	torch.Scope(func() error {
		got := state{3, map[string]torch.Tensor{"bias": torch.FromSlice([]float32{0, 0.25})}}
		want := state{3, map[string]torch.Tensor{"bias": torch.FromSlice([]float32{0, 0.5})}}
		fmt.Println(torchtest.Diff(got, want, compare.Bits))
		return nil
	})
	// Output:
	// {torchtest_test.state}.Weights["bias"]:
	// 	1 of 2 elements of float32[2] differ in their bits
	// 	first:   [1]: got 0.25, want 0.5
	// 	largest: [1]: got 0.25, want 0.5
	// 	max |difference| 0.25, mean 0.125, relative to the largest wanted value 0.5
	// 	   1e-01 ######################################## 1
}
