package torch_test

import (
	"bytes"
	"math"
	"strconv"
	"testing"

	"cyclecap/torch"
	"cyclecap/torch/internal/fixture"
	"cyclecap/torch/nn"
	"cyclecap/torch/optim"

	"github.com/google/go-cmp/cmp"
)

// TestString holds printing to Python's repr.
func TestString(t *testing.T) {
	s := fixture.Open(t, "testdata/fixtures.json")
	f32 := func(v ...float32) torch.Tensor { return torch.FromSlice(v) }
	to := func(x torch.Tensor, d torch.DType) torch.Tensor { return x.To(torch.WithDType(d)) }
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	tensors := map[string]func() torch.Tensor{
		"scalar":      func() torch.Tensor { return torch.Scalar0(float32(3.5)) },
		"scalar_int":  func() torch.Tensor { return torch.Scalar0(int64(7)) },
		"scalar_bool": func() torch.Tensor { return torch.Scalar0(true) },
		"scalar_small": func() torch.Tensor {
			return torch.Scalar0(float32(1e-6))
		},
		"ints":          func() torch.Tensor { return torch.FromSlice([]int64{1, -20, 300}) },
		"ints2d":        func() torch.Tensor { return torch.FromSlice([]int64{1, 2, -30, 4}, 2, 2) },
		"int32":         func() torch.Tensor { return torch.FromSlice([]int32{1, 2}) },
		"uint8":         func() torch.Tensor { return torch.FromSlice([]uint8{1, 255}) },
		"whole":         func() torch.Tensor { return f32(1, 2, -3) },
		"fixed":         func() torch.Tensor { return f32(0.5, 1.25, -100) },
		"science":       func() torch.Tensor { return f32(1e-5, 1, 1000) },
		"huge":          func() torch.Tensor { return f32(1e9, 2e9) },
		"special":       func() torch.Tensor { return f32(inf, -inf, nan, 1.5) },
		"special_whole": func() torch.Tensor { return f32(inf, 2) },
		"only_nan":      func() torch.Tensor { return f32(nan) },
		"zeros":         func() torch.Tensor { return torch.Zeros([]int64{2, 3}) },
		"bool":          func() torch.Tensor { return torch.FromSlice([]bool{true, false, false, true}, 2, 2) },
		"half":          func() torch.Tensor { return to(f32(0.1, 2), torch.Float16) },
		"bf16":          func() torch.Tensor { return to(f32(0.1, 2), torch.BFloat16) },
		"double":        func() torch.Tensor { return torch.FromSlice([]float64{0.1, 1.0 / 3}) },
		"complex":       func() torch.Tensor { return torch.FromSlice([]complex64{1 + 2i, -0.5 - 1i}) },
		"empty":         func() torch.Tensor { return torch.Empty([]int64{0}) },
		"empty2d":       func() torch.Tensor { return torch.Empty([]int64{0, 3}) },
		"empty_int":     func() torch.Tensor { return torch.Empty([]int64{0}, torch.WithDType(torch.Int64)) },
		"three":         func() torch.Tensor { return torch.Arange(0, 24).View([]int64{2, 3, 4}) },
		"three_float":   func() torch.Tensor { return torch.Arange(0, 24).View([]int64{2, 3, 4}).DivScalar(7) },
		"big":           func() torch.Tensor { return s.Tensor("repr/big") },
		"big_vector":    func() torch.Tensor { return torch.Arange(0, 5000) },
		"wide":          func() torch.Tensor { return s.Tensor("repr/wide") },
		"long":          func() torch.Tensor { return torch.Arange(0, 100).DivScalar(3) },
		"grad":          func() torch.Tensor { return f32(1, 2).SetRequiresGrad(true) },
		"grad_fn":       func() torch.Tensor { return f32(1, 2).SetRequiresGrad(true).Exp() },
		"meta":          func() torch.Tensor { return torch.Empty([]int64{2, 3}, torch.WithDevice(torch.Meta)) },
		"meta_int": func() torch.Tensor {
			return torch.Empty([]int64{2}, torch.WithDType(torch.Int64), torch.WithDevice(torch.Meta))
		},
		"grad_int_none": func() torch.Tensor {
			return torch.Ones([]int64{3}, torch.WithDType(torch.Float64)).SetRequiresGrad(true).Sum()
		},
		"one_dim_one": func() torch.Tensor { return f32(5) },
		"nested_one":  func() torch.Tensor { return torch.FromSlice([]float32{1}, 1, 1, 1) },
		"long_suffix": func() torch.Tensor { return to(torch.Arange(0, 12).DivScalar(3), torch.Float64).SetRequiresGrad(true) },
	}
	for name, want := range s.Repr() {
		t.Run(name, func(t *testing.T) {
			f, ok := tensors[name]
			if !ok {
				t.Fatal("there is no such tensor here")
			}
			run(t, func() {
				if diff := cmp.Diff(want, f().String()); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// draw is drawn() of make_fixtures.py.
func draw(t *testing.T, r fixture.Recipe) torch.Tensor {
	t.Helper()
	dtype, err := torch.ParseDType(r.DType)
	if err != nil {
		t.Fatal(err)
	}
	torch.ManualSeed(r.Seed)
	x := torch.Randn(r.Shape, torch.WithDType(torch.Float64)).MulScalar(r.Scale)
	if r.Whole {
		x = x.Round()
	}
	flat := x.View([]int64{-1})
	for _, set := range r.Set {
		value, err := strconv.ParseFloat(set[0].(string), 64)
		if err != nil {
			t.Fatal(err)
		}
		flat.Slice(torch.WithDim(int64(0)), torch.WithStart(int64(set[1].(float64))), torch.WithStep(int64(set[2].(float64)))).Fill_(value)
	}
	switch dtype {
	case torch.Complex64, torch.Complex128:
		imag := x
		if x.Dim() > 0 {
			imag = x.Flip([]int64{0})
		}
		x = torch.Complex(x, imag.MulScalar(r.Imag))
	case torch.Bool:
		x = x.GtScalar(0)
	case torch.Uint8:
		x = x.Abs()
	}
	x = x.To(torch.WithDType(dtype))
	if r.Grad {
		x.SetRequiresGrad(true)
	}
	return x
}

// TestStringOfRandomTensors holds printing to Python's over dtypes, shapes,
// scales and special values drawn at random.
func TestStringOfRandomTensors(t *testing.T) {
	recipes := fixture.Open(t, "testdata/fixtures.json").Recipes()
	if len(recipes) == 0 {
		t.Fatal("fixtures.json has no recipes")
	}
	for _, r := range recipes {
		run(t, func() {
			if diff := cmp.Diff(r.Repr, draw(t, r).String()); diff != "" {
				t.Errorf("%s%v seed %d scale %g set %v:\n%s", r.DType, r.Shape, r.Seed, r.Scale, r.Set, diff)
			}
		})
	}
}

func TestAutocast(t *testing.T) {
	s := fixture.Open(t, "testdata/fixtures.json")
	run(t, func() {
		x, w := s.Tensor("autocast/x"), s.Tensor("autocast/w")
		torch.Autocast(torch.CPUDevice, torch.BFloat16, func() {
			y := x.Matmul(w)
			if y.DType() != torch.BFloat16 {
				t.Errorf("a product is %v under autocast", y.DType())
			}
			s.EqualBFloat16("product", y.To(torch.WithDType(torch.Float32)), "autocast/y")
			s.EqualBFloat16("softmax", y.Softmax(-1).To(torch.WithDType(torch.Float32)), "autocast/softmax")
		})
		if y := x.Matmul(w); y.DType() != torch.Float32 {
			t.Errorf("a product is %v behind autocast", y.DType())
		}
	})
}

// TestAutocastTraining takes three steps: the weights that autocast keeps in
// bfloat16 must be those of the step, not of the one before. (With the weights of the
// one before, gradients differ by 30 times what another processor may.)
func TestAutocastTraining(t *testing.T) {
	s := fixture.Open(t, "testdata/fixtures.json")
	run(t, func() {
		torch.ManualSeed(15)
		m := nn.Sequential(nn.Linear(8, 16, true), nn.GELU("none"), nn.LayerNorm([]int64{16}, 1e-5), nn.Linear(16, 4, true))
		defer nn.Close(m)
		opt := optim.SGD(nn.Parameters(m), optim.SGDOptions{LR: 0.1})
		x := s.Tensor("autocast/x")
		var loss torch.Tensor
		for range 3 {
			opt.ZeroGrad()
			torch.Autocast(torch.CPUDevice, torch.BFloat16, func() {
				loss = m.Forward(x).MseLoss(m.Forward(x.MulScalar(2)).Detach())
			})
			loss.Backward()
			opt.Step()
		}
		s.EqualBFloat16("loss", loss, "autocast/loss")
		for _, p := range nn.NamedParameters(m) {
			s.EqualBFloat16(p.Name, *p.Tensor, "autocast/train/"+p.Name)
			s.EqualBFloat16("gradient of "+p.Name, p.Tensor.Grad(), "autocast/train/grad/"+p.Name)
		}
	})
}

func TestRandom(t *testing.T) {
	s := fixture.Open(t, "testdata/fixtures.json")
	run(t, func() {
		torch.ManualSeed(12)
		s.Equal("rand", torch.Rand([]int64{20}), "random/rand")
		s.Equal("randn", torch.Randn([]int64{20}), "random/randn")
		s.Equal("randint", torch.Randint(0, 1000, []int64{20}), "random/randint")
		s.Equal("randperm", torch.Randperm(20), "random/randperm")
		g := torch.DefaultGenerator(torch.CPU)
		if !bytes.Equal(g.State(), torch.ToSlice[uint8](s.Tensor("random/state"))) {
			t.Error("the default generator's state is not PyTorch's")
		}
		before := g.State()
		first := torch.Rand([]int64{3})
		if err := g.SetState(before); err != nil {
			t.Fatal(err)
		}
		if again := torch.Rand([]int64{3}); !again.Equal(first) {
			t.Error("a state that was set back gives other numbers")
		}
		if err := g.SetState([]byte{1, 2, 3}); err == nil {
			t.Error("3 bytes are taken for a state")
		}
		own := torch.NewGenerator(torch.CPU).ManualSeed(13)
		s.Equal("own generator", torch.RandnGenerator([]int64{5}, own), "random/own")
		if !bytes.Equal(own.State(), torch.ToSlice[uint8](s.Tensor("random/own_state"))) {
			t.Error("the own generator's state is not PyTorch's")
		}
	})
}
