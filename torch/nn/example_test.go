package nn_test

import (
	"fmt"

	"cyclecap/torch"
	"cyclecap/torch/nn"
)

// MLP is a typical module: a struct of submodules with a Forward method.
type MLP struct {
	CFc   *nn.LinearModule
	CProj *nn.LinearModule
	Scale torch.Tensor `name:"logit_scale"`
}

// NewMLP initializes the weights in the same order as the Python class.
func NewMLP(width int64) *MLP {
	return &MLP{
		CFc:   nn.Linear(width, 4*width, true),
		CProj: nn.Linear(4*width, width, true),
		Scale: torch.Ones([]int64{}).Keep().SetRequiresGrad(true),
	}
}

// Forward maps [..., width] to [..., width].
func (m *MLP) Forward(x torch.Tensor) torch.Tensor {
	return m.CProj.Forward(m.CFc.Forward(x).Gelu()).Mul(m.Scale)
}

func ExampleNamedParameters() {
	err := torch.Scope(func() error {
		m := NewMLP(8)
		defer nn.Close(m)
		for _, p := range nn.NamedParameters(m) {
			fmt.Println(p.Name, p.Tensor.Shape())
		}
		fmt.Println(m.Forward(torch.Ones([]int64{2, 8})).Shape())
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// c_fc.weight [32 8]
	// c_fc.bias [32]
	// c_proj.weight [8 32]
	// c_proj.bias [8]
	// logit_scale []
	// [2 8]
}

// Loading weights into a network that was created without any.
func ExampleLoadStateDict() {
	err := torch.Scope(func() error {
		var m *nn.LinearModule
		torch.OnDevice(torch.Meta, func() { m = nn.Linear(2, 1, true) })
		defer nn.Close(m)

		weights := nn.NewStateDict()
		weights.Add("weight", torch.FromSlice([]float32{1, 10}, 1, 2))
		weights.Add("biass", torch.FromSlice([]float32{100}))
		fmt.Println(nn.LoadStateDict(m, weights))

		weights.Add("bias", torch.FromSlice([]float32{100}))
		fmt.Println(nn.LoadStateDict(m, weights, "biass"))
		fmt.Println(m.Forward(torch.Ones([]int64{1, 2})))
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// the weights do not match the model; 1 missing: bias; 1 unexpected: biass
	// <nil>
	// tensor([[111.]])
}
