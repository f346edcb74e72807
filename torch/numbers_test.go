package torch

import (
	"math"
	"slices"
	"testing"
)

// writtenOut is transformers' NewGELUActivation, operator by operator.
func writtenOut(x Tensor) Tensor {
	half := x.MulScalar(0.5)
	inner := x.Add(x.PowScalar(3.0).MulScalar(0.044715)).MulScalar(math.Sqrt(2 / math.Pi))
	return half.Mul(inner.Tanh().AddScalar(1.0))
}

// TestGeluNew: results, gradients and second derivatives are to the bit those
// of the operators one after another.
func TestGeluNew(t *testing.T) {
	err := Scope(func() error {
		ManualSeed(3)
		for _, d := range []DType{Float32, Float64, BFloat16} {
			data := Randn([]int64{7, 33}).MulScalar(3).To(WithDType(d))
			weight := Randn([]int64{7, 33}).To(WithDType(d))
			var sides [2][]Tensor
			for i, f := range []func(Tensor) Tensor{writtenOut, Tensor.GeluNew} {
				for _, bf16 := range []bool{false, true} {
					x := data.Clone().SetRequiresGrad(true)
					var y Tensor
					run := func() { y = f(x) }
					if bf16 {
						Autocast(CPU.Type, BFloat16, run)
					} else {
						run()
					}
					first := GradOf([]Tensor{y.Mul(weight).Sum()}, []Tensor{x}, true)[0]
					second := GradOf([]Tensor{first.Mul(weight).Sum()}, []Tensor{x}, false)[0]
					plain := GradOf([]Tensor{f(x).Mul(weight).Sum()}, []Tensor{x}, false)[0]
					var none Tensor
					InferenceMode(func() { none = f(data) })
					sides[i] = append(sides[i], y, first, second, plain, none)
				}
			}
			for k, want := range sides[0] {
				have := sides[1][k]
				if have.DType() != want.DType() || !have.Equal(want) {
					t.Errorf("%v, result %d: it differs from its operators'", d, k)
				}
			}
		}
		x := Zeros([]int64{2, 3}, WithDevice(Meta)).SetRequiresGrad(true)
		y := x.GeluNew()
		y.Sum().Backward()
		if g := x.Grad(); y.Device() != Meta || !slices.Equal(g.Shape(), []int64{2, 3}) || g.Device() != Meta {
			t.Errorf("on meta: %v, %v", y, g)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestMulScalar: a number is rounded as Python does it, in place or not.
func TestMulScalar(t *testing.T) {
	err := Scope(func() error {
		x := Randn([]int64{70, 33})
		for _, d := range []DType{Float32, BFloat16, Float16} {
			for _, v := range []Scalar{0.044715, 3, 1e5} {
				x := x.To(WithDType(d))
				if want, have := x.MulScalar(v), x.Clone().MulScalar_(v); !have.Equal(want) {
					t.Errorf("%v, %v: in place it differs", d, v)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
