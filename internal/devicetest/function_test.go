package devicetest

import (
	"errors"
	"strings"
	"testing"

	"cyclecap/torch"
)

// scaled is sin(x) times a factor.
type scaled struct {
	factor float64
	fail   bool
}

func (f scaled) Forward(ctx *torch.FunctionContext, in []torch.Tensor) []torch.Tensor {
	ctx.SaveForBackward(in[0].Cos())
	return []torch.Tensor{in[0].Sin().MulScalar(f.factor)}
}

func (f scaled) Backward(ctx *torch.FunctionContext, grads []torch.Tensor) []torch.Tensor {
	if f.fail {
		panic("no gradient")
	}
	return []torch.Tensor{grads[0].Mul(ctx.Saved()[0]).MulScalar(f.factor)}
}

// TestGoFunction runs backward passes written in Go on a thread of the device, between
// those of libtorch's operators, once with an error.
func TestGoFunction(t *testing.T) {
	compareDevices(t, gradient, func(d torch.Device) []result {
		x := to(d, torch.Randn([]int64{40})).SetRequiresGrad(true)
		y := x.Exp()
		for range 3 {
			y = torch.Apply(scaled{factor: 0.5}, y)[0].Add(x)
		}
		y.Sum().Backward()
		return []result{{"output", y.Detach()}, {"gradient", x.Grad()}}
	})
	scope(t, func() error {
		err := torch.Scope(func() error {
			x := to(device, torch.Ones([]int64{3})).SetRequiresGrad(true)
			torch.Apply(scaled{fail: true}, x.Exp())[0].Sum().Backward()
			return nil
		})
		var e *torch.Error
		if !errors.As(err, &e) || !strings.Contains(e.Text, "no gradient") {
			t.Errorf("got %v", err)
		}
		return nil
	})
}
