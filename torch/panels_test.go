package torch

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func needPanels(t *testing.T) {
	t.Helper()
	if !HasPanels() {
		t.Skip("this processor does not have AVX-512")
	}
}

// chain adds products as PanelsLinear does: in order, each with one rounding, and anew after
// 384.
func chain(x, w []float32) float32 {
	var all float32
	for from := 0; from < len(x); from += 384 {
		var sum float32
		for i := from; i < min(from+384, len(x)); i++ {
			sum = fma(x[i], w[i], sum)
		}
		if from == 0 {
			all = sum
		} else {
			all += sum
		}
	}
	return all
}

// Every result has the bits of a sum in the order of the inputs, whatever the number of rows
// and threads.
func TestPanelsLinear(t *testing.T) {
	needPanels(t)
	threads := NumThreads()
	t.Cleanup(func() { SetNumThreads(threads) })
	r := rand.New(rand.NewPCG(1, 2))
	for _, size := range [][2]int{{0, 5}, {1, 1}, {3, 5}, {4, 16}, {63, 17}, {64, 64}, {65, 130}, {70, 100}, {257, 333}, {1600, 81}} {
		in, out := size[0], size[1]
		weight, bias := make([]float32, in*out), make([]float32, out)
		for _, v := range [][]float32{weight, bias} {
			for i := range v {
				v[i] = float32(r.NormFloat64())
			}
		}
		err := Scope(func() error {
			packed := PanelsPack(FromSlice(weight, int64(out), int64(in)))
			b := FromSlice(bias, int64(out))
			for _, rows := range []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 49, 100} {
				x := make([]float32, rows*in)
				for i := range x {
					x[i] = float32(r.NormFloat64())
				}
				want := make([]float32, rows*out)
				for i := range rows {
					for n := range out {
						want[i*out+n] = chain(x[i*in:(i+1)*in], weight[n*in:(n+1)*in])
					}
				}
				input := FromSlice(x, int64(rows), int64(in))
				for _, n := range []int{1, 2, 3} {
					SetNumThreads(n)
					if got := ToSlice[float32](PanelsLinear(input, packed, int64(out), Tensor{}, NoActivation)); !sameBits(got, want) {
						t.Fatalf("%v, %d rows, %d threads: the bits differ", size, rows, n)
					}
				}
				for i := range want {
					want[i] += bias[i%out]
				}
				if got := ToSlice[float32](PanelsLinear(input, packed, int64(out), b, NoActivation)); !sameBits(got, want) {
					t.Fatalf("%v, %d rows, with a bias: the bits differ", size, rows)
				}
				for i, v := range want {
					want[i] = max(v, 0)
				}
				if got := ToSlice[float32](PanelsLinear(input, packed, int64(out), b, ReLU)); !sameBits(got, want) {
					t.Fatalf("%v, %d rows, with ReLU: the bits differ", size, rows)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// The layer that a test of activations uses: its result is its input.
func identity(x Tensor) (packed Tensor) { return PanelsPack(Eye(x.Size(-1))) }

// The activations are as close to the functions as f32 allows, over all magnitudes, and treat
// what is not finite as PyTorch's do.
func TestActivations(t *testing.T) {
	needPanels(t)
	half := func(x float64) float64 { return 0.5 * math.Erfc(-x/math.Sqrt2) }
	sigmoid := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
	err := Scope(func() error {
		var x []float32
		for e := -40.0; e < 12; e += 1.0 / 64 {
			x = append(x, float32(math.Exp2(e)), -float32(math.Exp2(e)))
		}
		for i := range 4096 {
			x = append(x, float32(i)/256-8)
		}
		x = x[:len(x)/32*32]
		rows := FromSlice(x, int64(len(x)/32), 32)
		packed := identity(rows)
		for name, test := range map[string]struct {
			a    Activation
			f    func(x float64) float64
			most float64 // error, relative to the larger of the result and 1e-3 of x
		}{
			"silu":       {SiLU, func(x float64) float64 { return x * sigmoid(x) }, 3e-7},
			"quick_gelu": {QuickGELU, func(x float64) float64 { return x * sigmoid(1.702*x) }, 5e-7},
			"gelu":       {GELU, func(x float64) float64 { return x * half(x) }, 5e-7},
			"gelu tanh": {GELUTanh, func(x float64) float64 {
				return x * sigmoid(2*math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x))
			}, 8e-7}, // 3 roundings before the exponential
		} {
			got := ToSlice[float32](PanelsLinear(rows, packed, 32, Tensor{}, test.a))
			var worst, at float64
			for i, v := range x {
				want := test.f(float64(v))
				e := math.Abs(float64(got[i])-want) / max(math.Abs(want), 1e-3*math.Abs(float64(v)), 1e-37)
				if e > worst {
					worst, at = e, float64(v)
				}
			}
			t.Logf("%s: %.2g at %v", name, worst, at)
			if !(worst <= test.most) {
				t.Errorf("%s: an error of %.2g at %v, more than %.2g", name, worst, at, test.most)
			}
		}
		inf := float32(math.Inf(1))
		odd := []float32{inf, 1e30, -1e30, 200, -200, 0}
		x = make([]float32, 16*len(odd)) // a row for each, since a sum with an infinity is NaN
		for i, v := range odd {
			x[16*i] = v
		}
		one := make([]float32, 16)
		one[0] = 1
		for _, a := range []Activation{ReLU, SiLU, GELU, GELUTanh, QuickGELU} {
			got := ToSlice[float32](PanelsLinear(FromSlice(x, int64(len(odd)), 16), PanelsPack(FromSlice(one, 1, 16)), 1, Tensor{}, a))
			if want := []float32{inf, 1e30, 0, 200, 0, 0}; !slices.Equal(got, want) {
				t.Errorf("activation %d of %v: %v, want %v", a, odd, got, want)
			}
			nan := PanelsLinear(FromSlice([]float32{float32(math.NaN())}, 1, 1), PanelsPack(Ones([]int64{1, 1})), 1, Tensor{}, a)
			if v := nan.Item(); !math.IsNaN(v) {
				t.Errorf("activation %d of NaN: %v", a, v)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The kernels of int8 apply the activations with the same bits, and those of panels too.
func TestInt8Activations(t *testing.T) {
	err := Scope(func() error {
		ManualSeed(5)
		x, weight, bias := Randn([]int64{40, 70}).MulScalar(3), Randn([]int64{100, 70}), Randn([]int64{100})
		packed, scales, sums := Int8Pack(weight)
		bare := Int8Linear(x, packed, scales, sums, bias, NoActivation)
		for _, a := range []Activation{ReLU, SiLU, GELU, GELUTanh, QuickGELU} {
			fast, plain := int8Linear(x, packed, scales, sums, bias, a, false), int8Linear(x, packed, scales, sums, bias, a, true)
			if !fast.Equal(plain) {
				t.Errorf("activation %d: the kernels differ", a)
			}
			if HasPanels() {
				if want := PanelsLinear(bare, identity(bare), 100, Tensor{}, a); !fast.Equal(want) {
					t.Errorf("activation %d: int8's differs from that of panels", a)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// What does not fit is an error that says so.
func TestPanelsErrors(t *testing.T) {
	needPanels(t)
	err := Scope(func() error {
		x, weight := Randn([]int64{2, 12}), Randn([]int64{20, 12})
		packed := PanelsPack(weight)
		for name, f := range map[string]func(){
			"a weight of 1 dimension": func() { PanelsPack(Randn([]int64{3})) },
			"a weight of bf16":        func() { PanelsPack(weight.To(WithDType(BFloat16))) },
			"a weight on meta":        func() { PanelsPack(weight.To(WithDevice(Meta))) },
			"x of another width":      func() { PanelsLinear(Randn([]int64{2, 13}), packed, 20, Tensor{}, ReLU) },
			"x of bf16":               func() { PanelsLinear(x.To(WithDType(BFloat16)), packed, 20, Tensor{}, ReLU) },
			"x without dimensions":    func() { PanelsLinear(Scalar0(float32(1)), packed, 20, Tensor{}, ReLU) },
			"other outputs":           func() { PanelsLinear(x, packed, 40, Tensor{}, ReLU) },
			"a bias of 19":            func() { PanelsLinear(x, packed, 20, Zeros([]int64{19}), ReLU) },
			"x that needs a gradient": func() { PanelsLinear(x.Clone().SetRequiresGrad(true), packed, 20, Tensor{}, ReLU) },
			"no x":                    func() { PanelsLinear(Tensor{}, packed, 20, Tensor{}, ReLU) },
		} {
			if err := Scope(func() error { f(); return nil }); err == nil {
				t.Errorf("%s: no error", name)
			} else if testing.Verbose() {
				t.Logf("%s: %v", name, err)
			}
		}
		for _, rows := range []int64{0, 1} {
			if y := PanelsLinear(Zeros([]int64{rows, 12}), packed, 20, Tensor{}, ReLU); !slices.Equal(y.Shape(), []int64{rows, 20}) {
				t.Errorf("%d rows give %v", rows, y.Shape())
			}
		}
		if y := PanelsLinear(Randn([]int64{3, 2, 12}), packed, 20, Tensor{}, ReLU); !slices.Equal(y.Shape(), []int64{3, 2, 20}) {
			t.Errorf("3 dimensions give %v", y.Shape())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A weight that lies in memory transposed gives the same panels.
func TestPanelsPackTransposed(t *testing.T) {
	needPanels(t)
	for _, size := range [][2]int64{{1, 1}, {1, 40}, {5, 3}, {16, 16}, {64, 33}, {100, 64}, {257, 130}} {
		err := Scope(func() error {
			w := Randn(size[:])
			if got := PanelsPack(w.T().Contiguous().T()); !got.Equal(PanelsPack(w)) {
				t.Errorf("%v: other panels", size)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
