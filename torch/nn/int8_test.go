package nn_test

import (
	"math"
	"testing"

	"cyclecap/torch"
	"cyclecap/torch/nn"
)

// Layers with weights of 8 bits give about the same numbers, without the plain weights, and a
// row of a batch has the bits that it has alone.
func TestPackInt8(t *testing.T) {
	alive := torch.Alive()
	err := torch.Scope(func() error {
		torch.ManualSeed(1)
		linear, attention := nn.Linear(100, 70, true), nn.MultiheadAttention(64, 4)
		defer nn.Close(linear)
		defer nn.Close(attention)
		for name, f := range map[string]struct {
			module any
			width  int64
			run    func(x torch.Tensor) torch.Tensor
			part   string
		}{
			"linear":    {linear, 100, linear.Forward, "weight"},
			"attention": {attention, 64, func(x torch.Tensor) torch.Tensor { return attention.Forward(x, false) }, "in_proj_weight"},
		} {
			x := torch.Randn([]int64{3, 5, f.width})
			torch.InferenceMode(func() {
				want := f.run(x)
				nn.PackAs(f.module, nn.Int8)
				got := f.run(x)
				if off := distance(got, want); !(off > 0 && off < 0.02) {
					t.Errorf("%s: off by %.3g", name, off)
				}
				if name == "linear" && !f.run(x.Narrow(0, 1, 1)).Equal(got.Narrow(0, 1, 1)) {
					t.Errorf("%s: a row has other bits alone", name)
				}
			})
			if _, ok := nn.StateDictOf(f.module).Get(f.part); ok {
				t.Errorf("%s: the plain weight is still there", name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if now := torch.Alive(); now != alive {
		t.Errorf("%d tensors are alive after, %d before", now, alive)
	}
}

// distance returns |got - want| / |want|.
func distance(got, want torch.Tensor) float64 {
	d := got.Sub(want)
	return math.Sqrt(d.Mul(d).Sum().Item() / want.Mul(want).Sum().Item())
}
