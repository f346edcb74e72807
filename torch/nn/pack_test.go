package nn_test

import (
	"fmt"
	"strings"
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

// A packed convolution gives the plain one's numbers with the factors, summands, ReLU and addition
// applied, up to rounding, for sizes other than those it was packed for too.
func TestPackedConv(t *testing.T) {
	near := compare.Tolerance{Relative: 1e-6}
	for _, o := range []nn.ConvOptions{
		{},
		{Padding: []int64{1}, Bias: true},
		{Stride: []int64{2, 1}, Padding: []int64{1, 2}},
		{Dilation: []int64{2}, Groups: 4, Bias: true},
	} {
		t.Run(fmt.Sprintf("%+v", o), func(t *testing.T) {
			alive := torch.Alive()
			err := torch.Scope(func() error {
				torch.ManualSeed(1)
				m := nn.Conv2d(8, 24, []int64{3}, o)
				defer nn.Close(m)
				scale, shift := torch.Randn([]int64{24}), torch.Randn([]int64{24})
				torch.InferenceMode(func() {
					p := nn.NewPackedConv(m, scale, shift, []int64{12, 12})
					defer p.Close()
					for _, shape := range [][]int64{{1, 8, 12, 12}, {3, 8, 12, 12}, {2, 8, 7, 20}} {
						x := torch.Randn(shape)
						each := []int64{24, 1, 1}
						want := m.Forward(x).Mul(scale.Reshape(each)).Add(shift.Reshape(each))
						torchtest.Close(t, p.Forward(x, torch.NoActivation), want, near, "without ReLU")
						torchtest.Close(t, p.Forward(x, torch.ReLU), want.Relu(), near, "with ReLU")
						y := torch.Randn(want.Shape())
						want = want.Add(y).Relu()
						torchtest.Close(t, p.ForwardAdd_(x, y), want, near, "with a sum")
						torchtest.Close(t, y, want, near, "the sum, in its place")
					}
				})
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if n := torch.Alive(); n != alive {
				t.Errorf("%d tensors left", n-alive)
			}
		})
	}
	for _, test := range []struct {
		what string
		call func()
	}{
		{"that pad with zeros", func() {
			m := nn.Conv2d(1, 1, []int64{3}, nn.ConvOptions{PaddingMode: "reflect"})
			defer nn.Close(m)
			nn.NewPackedConv(m, torch.Ones([]int64{1}), torch.Zeros([]int64{1}), []int64{4, 4})
		}},
		{"must be ReLU or none", func() {
			m := nn.Conv2d(1, 1, []int64{3}, nn.ConvOptions{})
			defer nn.Close(m)
			p := nn.NewPackedConv(m, torch.Ones([]int64{1}), torch.Zeros([]int64{1}), []int64{4, 4})
			defer p.Close()
			p.Forward(torch.Ones([]int64{1, 1, 4, 4}), torch.GELU)
		}},
	} {
		if err := torch.Scope(func() error { test.call(); return nil }); err == nil || !strings.Contains(err.Error(), test.what) {
			t.Errorf("got %v, want an error that says %q", err, test.what)
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
