package nn_test

import (
	"testing"

	"cyclecap/torch"
	"cyclecap/torch/compare"
	"cyclecap/torch/nn"
	"cyclecap/torch/torchtest"
)

// A packed layer that applies a function gives the numbers of the layer and PyTorch's operator,
// up to rounding.
func TestForwardFused(t *testing.T) {
	for name, test := range map[string]struct {
		fused torch.Activation
		op    func(torch.Tensor) torch.Tensor
	}{
		"relu":       {torch.ReLU, torch.Tensor.Relu},
		"silu":       {torch.SiLU, torch.Tensor.Silu},
		"gelu":       {torch.GELU, func(x torch.Tensor) torch.Tensor { return x.Gelu() }},
		"quick gelu": {torch.QuickGELU, torch.Tensor.QuickGelu},
		"gelu tanh":  {torch.GELUTanh, func(x torch.Tensor) torch.Tensor { return x.Gelu(torch.WithApproximate("tanh")) }},
	} {
		t.Run(name, func(t *testing.T) {
			for _, rows := range []int64{1, 7, 50} {
				err := torch.Scope(func() error {
					torch.ManualSeed(1)
					m := nn.Linear(96, 200, true)
					defer nn.Close(m)
					x := torch.Randn([]int64{rows, 96}).MulScalar(4)
					torch.InferenceMode(func() {
						want := test.op(m.Forward(x))
						nn.Pack(m)
						torchtest.Close(t, m.Packed.ForwardFused(x, test.fused), want, compare.Tolerance{Relative: 1e-6}, "fused")
						of8 := nn.Linear(96, 200, true)
						defer nn.Close(of8)
						nn.PackAs(of8, nn.Int8)
						torchtest.Close(t, of8.Packed.ForwardFused(x, test.fused), test.op(of8.Forward(x)), compare.Tolerance{Relative: 1e-6}, "of 8 bits")
					})
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// A convolution that divides an image into patches is packed as well, and gives the plain one's
// numbers up to rounding; others stay as they are.
func TestPackPatches(t *testing.T) {
	for _, test := range []struct {
		kernel, stride, padding int64
		bias, patches           bool
	}{
		{16, 16, 0, false, true},
		{7, 7, 0, true, true}, // of 32 pixels, 4 are left over
		{3, 1, 1, false, false},
		{1, 1, 0, false, false},
	} {
		err := torch.Scope(func() error {
			torch.ManualSeed(1)
			m := nn.Conv2d(3, 40, []int64{test.kernel}, nn.ConvOptions{Stride: []int64{test.stride}, Padding: []int64{test.padding}, Bias: test.bias})
			defer nn.Close(m)
			x := torch.Randn([]int64{2, 3, 32, 48})
			torch.InferenceMode(func() {
				want := m.Forward(x)
				nn.Pack(m)
				torchtest.Close(t, m.Forward(x), want, compare.Tolerance{Relative: 1e-6}, "packed")
			})
			if want := test.patches && torch.HasPanels(); (m.Packed != nil) != want {
				t.Errorf("a kernel of %d with stride %d is packed: %t", test.kernel, test.stride, !want)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A packed layer gives the plain one's numbers up to rounding, and holds its
// weight only once.
func TestPack(t *testing.T) {
	for _, test := range []struct {
		name  string
		dtype torch.DType
		bias  bool
		rows  []int64
		limit float64 // of the largest value
	}{
		{"f32", torch.Float32, true, []int64{1, 5}, 1e-6},
		{"f32 many rows", torch.Float32, true, []int64{7, 80}, 1e-6},
		{"f32 without bias", torch.Float32, false, []int64{16}, 1e-6},
		{"bf16", torch.BFloat16, true, []int64{3, 16}, 1.0 / 128},
	} {
		t.Run(test.name, func(t *testing.T) {
			alive := torch.Alive()
			err := torch.Scope(func() error {
				torch.ManualSeed(1)
				m := nn.Linear(768, 2304, test.bias)
				defer nn.Close(m)
				nn.To(m, torch.WithDType(test.dtype))
				x := torch.Randn(append(test.rows, 768)).To(torch.WithDType(test.dtype))
				torch.InferenceMode(func() {
					want := m.Forward(x)
					nn.Pack(m)
					torchtest.Close(t, m.Forward(x), want, compare.Tolerance{Relative: test.limit}, "packed")
				})
				if _, ok := nn.StateDictOf(m).Get("weight"); ok {
					t.Error("the plain weight is still there")
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if now := torch.Alive(); now != alive {
				t.Errorf("%d tensors are alive after, %d before", now, alive)
			}
		})
	}
}
