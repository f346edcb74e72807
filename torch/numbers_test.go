package torch

import (
	"math"
	"runtime"
	"slices"
	"testing"
)

// writtenOut is transformers' NewGELUActivation, operator by operator.
func writtenOut(x Tensor) Tensor {
	half := x.MulScalar(0.5)
	inner := x.Add(x.PowScalar(3.0).MulScalar(0.044715)).MulScalar(math.Sqrt(2 / math.Pi))
	return half.Mul(inner.Tanh().AddScalar(1.0))
}

// writtenQuick is OpenAI's QuickGELU, operator by operator.
func writtenQuick(x Tensor) Tensor { return x.Mul(x.MulScalar(1.702).Sigmoid()) }

// TestGelus: results, gradients and second derivatives are to the bit those of the operators
// one after another, also where the CPU applies them to blocks, with any number of threads.
func TestGelus(t *testing.T) {
	threads := NumThreads()
	t.Cleanup(func() { SetNumThreads(threads) })
	for n := range 5 {
		SetNumThreads(n + 1)
		testGelus(t)
	}
}

func testGelus(t *testing.T) {
	t.Helper()
	for _, test := range []struct {
		name       string
		operators  func(Tensor) Tensor
		activation func(Tensor) Tensor
		shape      []int64
	}{
		{"gelu_new", writtenOut, Tensor.GeluNew, []int64{7, 33}},
		{"gelu_new", writtenOut, Tensor.GeluNew, []int64{14, 20011}},
		{"quick_gelu", writtenQuick, Tensor.QuickGelu, []int64{7, 33}},
		{"quick_gelu", writtenQuick, Tensor.QuickGelu, []int64{14, 20011}},
	} {
		err := Scope(func() error {
			ManualSeed(3)
			for _, d := range []DType{Float32, Float64, BFloat16} {
				data := Randn(test.shape).MulScalar(3).To(WithDType(d))
				weight := Randn(test.shape).To(WithDType(d))
				var sides [2][]Tensor
				for i, f := range []func(Tensor) Tensor{test.operators, test.activation} {
					for _, bf16 := range []bool{false, true} {
						x := data.Clone().SetRequiresGrad(true)
						var y, without Tensor
						run := func() {
							y = f(x)
							InferenceMode(func() { without = f(data) })
						}
						if bf16 {
							Autocast(CPU.Type, BFloat16, run)
						} else {
							run()
						}
						first := GradOf([]Tensor{y.Mul(weight).Sum()}, []Tensor{x}, true)[0]
						second := GradOf([]Tensor{first.Mul(weight).Sum()}, []Tensor{x}, false)[0]
						plain := GradOf([]Tensor{f(x).Mul(weight).Sum()}, []Tensor{x}, false)[0]
						turned := f(data.T())
						sides[i] = append(sides[i], y, first, second, plain, without, turned)
					}
				}
				for k, want := range sides[0] {
					have := sides[1][k]
					if have.DType() != want.DType() || !have.Equal(want) {
						t.Errorf("%s of %v, %v, %d threads, result %d: it differs from its operators'", test.name, test.shape, d, NumThreads(), k)
					}
				}
			}
			x := Zeros([]int64{2, 3}, WithDevice(Meta)).SetRequiresGrad(true)
			y := test.activation(x)
			y.Sum().Backward()
			if g := x.Grad(); y.Device() != Meta || !slices.Equal(g.Shape(), []int64{2, 3}) || g.Device() != Meta {
				t.Errorf("%s on meta: %v, %v", test.name, y, g)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestSetNumThreads: the number holds for every Scope that begins afterwards, on whichever
// OS thread.
func TestSetNumThreads(t *testing.T) {
	threads := NumThreads()
	t.Cleanup(func() { SetNumThreads(threads) })
	ask, have := make(chan bool), make(chan int)
	go func() {
		runtime.LockOSThread()
		for range ask {
			if err := Scope(func() error { have <- NumThreads(); return nil }); err != nil {
				t.Error(err)
			}
		}
	}()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, n := range []int{1, 3, 2} {
		SetNumThreads(n)
		ask <- true
		if got := <-have; got != n || NumThreads() != n {
			t.Errorf("%d threads in a scope, %d here, want %d", got, NumThreads(), n)
		}
	}
	close(ask)
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
