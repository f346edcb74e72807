package nn_test

import (
	"math"
	"strings"
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
		linear, attention := nn.Linear(100, 70, true), nn.MultiheadAttention(64, 4, nn.MultiheadAttentionDefaults())
		defer nn.Close(linear)
		defer nn.Close(attention)
		for name, f := range map[string]struct {
			module any
			width  int64
			run    func(x torch.Tensor) torch.Tensor
			part   string
		}{
			"linear":    {linear, 100, linear.Forward, "weight"},
			"attention": {attention, 64, func(x torch.Tensor) torch.Tensor { return attention.SelfAttention(x, false) }, "in_proj_weight"},
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

// A layer takes integers of 8 bits with their scales from a state dict, and computes what it does
// if its weight is rounded while it is packed. Loading a weight without scales removes them.
func TestLoadInt8(t *testing.T) {
	alive := torch.Alive()
	err := torch.Scope(func() error {
		torch.ManualSeed(2)
		linear := nn.Linear(20, 30, true)
		defer nn.Close(linear)
		quantized := func() *nn.StateDict {
			sd := nn.NewStateDict()
			q, scale := torch.Int8Quantize(linear.Weight.Detach())
			sd.Add("weight", q)
			sd.Add("weight_scale", scale.Unsqueeze(1))
			sd.Add("bias", linear.Bias.Detach().Clone())
			return sd
		}
		of8, plain := nn.Linear(20, 30, true), nn.Linear(20, 30, true)
		defer nn.Close(of8)
		defer nn.Close(plain)
		for _, m := range []*nn.LinearModule{of8, of8, plain} {
			if err := nn.LoadStateDict(m, quantized()); err != nil {
				t.Fatal(err)
			}
			if got := nn.StateDictOf(m).Names(); len(got) != 3 {
				t.Errorf("the layer has %v", got)
			}
		}
		sd := nn.NewStateDict()
		sd.Add("weight", torch.Randn([]int64{30, 20}))
		sd.Add("bias", torch.Randn([]int64{30}))
		if err := nn.LoadStateDict(plain, sd); err != nil || plain.WeightScale.Defined() {
			t.Errorf("%v; the scale of other weights: %v", err, plain.WeightScale.Defined())
		}
		sd.Add("other_scale", torch.Ones([]int64{1}))
		if err := nn.LoadStateDict(plain, sd); err == nil || !strings.Contains(err.Error(), "1 unexpected: other_scale") {
			t.Error(err)
		}
		x := torch.Randn([]int64{3, 20})
		torch.InferenceMode(func() {
			nn.PackAs(linear, nn.Int8)
			nn.PackAs(of8, nn.Int8, torch.WithDType(torch.Float32))
			if !of8.Forward(x).Equal(linear.Forward(x)) {
				t.Error("other bits")
			}
		})
		if got := nn.StateDictOf(of8).Names(); len(got) != 1 {
			t.Errorf("after packing, the layer has %v", got)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if now := torch.Alive(); now != alive {
		t.Errorf("%d tensors are alive after, %d before", now, alive)
	}
	err = torch.Scope(func() error {
		torch.Tidy(func() torch.Tensor {
			nn.NewPacked(torch.Ones([]int64{2, 3}, torch.WithDType(torch.Int8)), torch.Ones([]int64{2}), torch.Tensor{}, nn.Blocked)
			return torch.Tensor{}
		})
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "can only be packed as Int8") {
		t.Error(err)
	}
}

// distance returns |got - want| / |want|.
func distance(got, want torch.Tensor) float64 {
	d := got.Sub(want)
	return math.Sqrt(d.Mul(d).Sum().Item() / want.Mul(want).Sum().Item())
}
