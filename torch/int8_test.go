package torch

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// A layer is a linear layer, in Go.
type layer struct {
	in, out      int
	weight, bias []float32
	q            [][]int32 // [out][in]
	scales       []float32
}

func newLayer(r *rand.Rand, in, out int) *layer {
	l := &layer{in: in, out: out, weight: make([]float32, in*out), bias: make([]float32, out)}
	for i := range l.weight {
		l.weight[i] = float32(r.NormFloat64() * 0.05)
	}
	for i := range l.bias {
		l.bias[i] = float32(r.NormFloat64())
	}
	if out > 2 { // an output of zeros
		clear(l.weight[2*in : 3*in])
	}
	for n := range out {
		row := l.weight[n*in : (n+1)*in]
		var most float32
		for _, v := range row {
			most = max(most, float32(math.Abs(float64(v))))
		}
		scale := most / 127
		q := make([]int32, in)
		if scale > 0 {
			inverse := 1 / scale
			for k, v := range row {
				q[k] = min(127, max(-127, int32(math.RoundToEven(float64(v*inverse)))))
			}
		}
		l.q, l.scales = append(l.q, q), append(l.scales, scale)
	}
	return l
}

// quantized returns the integers of a row, its scale and its zero point.
func quantized(x []float32) (q []int32, scale float32, zero int32) {
	lo, hi := float32(0), float32(0)
	for _, v := range x {
		lo, hi = min(lo, v), max(hi, v)
	}
	q = make([]int32, len(x))
	scale = float32((float64(hi) - float64(lo)) / 255)
	if scale == 0 {
		return q, 0, 0
	}
	inverse := 1 / scale
	zero = int32(math.RoundToEven(float64(-lo * inverse)))
	for i, v := range x {
		q[i] = min(255, max(0, int32(math.RoundToEven(float64(v*inverse)))+zero))
	}
	return q, scale, zero
}

// forward computes a row: exact integers, and one fused multiplication and addition.
func (l *layer) forward(x []float32, bias bool) []float32 {
	q, scale, zero := quantized(x)
	y := make([]float32, l.out)
	for n := range y {
		var sum int64
		for k, v := range q {
			sum += int64(v-zero) * int64(l.q[n][k])
		}
		var b float32
		if bias {
			b = l.bias[n]
		}
		y[n] = fma(scale*l.scales[n], float32(sum), b)
	}
	return y
}

// fma returns x*y + z with a single rounding. The product is exact in f64; the sum is rounded
// to odd there, which makes the second rounding the only one.
func fma(x, y, z float32) float32 {
	p, c := float64(x)*float64(y), float64(z)
	s := p + c
	t := s - p
	if rest := (p - (s - t)) + (c - t); rest != 0 && math.Float64bits(s)&1 == 0 {
		if (rest > 0) == (s > 0) {
			s = math.Float64frombits(math.Float64bits(s) + 1)
		} else {
			s = math.Float64frombits(math.Float64bits(s) - 1)
		}
	}
	return float32(s)
}

func sameBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(a, b float32) bool {
		return math.Float32bits(a) == math.Float32bits(b) || a != a && b != b
	})
}

// Int8Quantize gives the integers and scales of the rule, and packing its integers gives what
// packing the weight does, also if they lie in memory transposed.
func TestInt8Quantize(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, size := range [][2]int{{1, 1}, {3, 5}, {4, 16}, {63, 17}, {70, 100}, {257, 333}} {
		l := newLayer(r, size[0], size[1])
		err := Scope(func() error {
			weight := FromSlice(l.weight, int64(l.out), int64(l.in))
			q, scales := Int8Quantize(weight)
			if got := ToSlice[float32](scales); !sameBits(got, l.scales) {
				t.Errorf("%v: scales %v, want %v", size, got, l.scales)
			}
			var want []int32
			for _, row := range l.q {
				want = append(want, row...)
			}
			if got := ToSlice[int32](q.To(WithDType(Int32))); q.DType() != Int8 || !slices.Equal(q.Shape(), weight.Shape()) || !slices.Equal(got, want) {
				t.Errorf("%v: other integers, %v %v", size, q.DType(), q.Shape())
			}
			packed, _, sums := Int8Pack(weight)
			for _, integers := range []Tensor{q, q.T().Contiguous().T()} {
				again, ones, sumsAgain := Int8Pack(integers)
				if !again.Equal(packed) || !sumsAgain.Equal(sums) || !ones.Equal(Ones([]int64{int64(l.out)})) {
					t.Errorf("%v: the integers are packed otherwise than the weight", size)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Every result has the bits of the formula, whatever the number of rows and threads and the
// kernel.
func TestInt8Linear(t *testing.T) {
	threads := NumThreads()
	defer SetNumThreads(threads)
	r := rand.New(rand.NewPCG(1, 2))
	for _, size := range [][2]int{{1, 1}, {3, 5}, {4, 16}, {63, 17}, {64, 64}, {65, 130}, {70, 100}, {257, 333}} {
		l := newLayer(r, size[0], size[1])
		err := Scope(func() error {
			packed, scales, sums := Int8Pack(FromSlice(l.weight, int64(l.out), int64(l.in)))
			if got := ToSlice[float32](scales); !sameBits(got, l.scales) {
				t.Errorf("%v: scales %v, want %v", size, got, l.scales)
			}
			if got, want := packed.Shape(), []int64{int64(l.out+15) / 16, int64(l.in+3) / 4, 16, 4}; !slices.Equal(got, want) {
				t.Errorf("%v: packed as %v, want %v", size, got, want)
			}
			bias := FromSlice(l.bias, int64(l.out))
			for rows := 1; rows <= 20; rows++ {
				x := make([]float32, rows*l.in)
				for i := range x {
					x[i] = float32(r.NormFloat64() * math.Exp(float64(i/l.in%7)))
				}
				zero, positive := rows/2, rows/3
				for k := range l.in {
					x[positive*l.in+k] = float32(math.Abs(float64(x[positive*l.in+k])))
				}
				if rows > 4 {
					clear(x[zero*l.in : (zero+1)*l.in])
				}
				var want, bare []float32
				for i := range rows {
					want = append(want, l.forward(x[i*l.in:(i+1)*l.in], true)...)
					bare = append(bare, l.forward(x[i*l.in:(i+1)*l.in], false)...)
				}
				input := FromSlice(x, int64(rows), int64(l.in))
				for _, n := range []int{1, 2} {
					SetNumThreads(n)
					for _, plain := range []bool{false, true} {
						if got := ToSlice[float32](int8Linear(input, packed, scales, sums, bias, NoActivation, plain)); !sameBits(got, want) {
							t.Fatalf("%v, %d rows, %d threads, plain %v: the bits differ", size, rows, n, plain)
						}
						if got := ToSlice[float32](int8Linear(input, packed, scales, sums, Tensor{}, NoActivation, plain)); !sameBits(got, bare) {
							t.Fatalf("%v, %d rows, %d threads, plain %v, without bias: the bits differ", size, rows, n, plain)
						}
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A row has the same bits alone and among others, and the result is as close to that of f32 as
// the rounding of weights and inputs implies.
func TestInt8LinearRows(t *testing.T) {
	err := Scope(func() error {
		ManualSeed(4)
		const in, out = 770, 1031
		weight, bias := Randn([]int64{out, in}).MulScalar(0.03), Randn([]int64{out})
		x := Randn([]int64{3, 50, in}).MulScalar(2)
		packed, scales, sums := Int8Pack(weight)
		all := Int8Linear(x, packed, scales, sums, bias, NoActivation)
		if got := all.Shape(); !slices.Equal(got, []int64{3, 50, out}) {
			t.Fatalf("shape %v", got)
		}
		for _, row := range []int64{0, 7, 49} {
			one := Int8Linear(x.Select(0, 1).Select(0, row), packed, scales, sums, bias, NoActivation)
			if !one.Equal(all.Select(0, 1).Select(0, row)) {
				t.Errorf("row %d has other bits alone", row)
			}
		}
		if plain := int8Linear(x, packed, scales, sums, bias, NoActivation, true); !plain.Equal(all) {
			t.Error("the kernels differ")
		}
		// |x w - x' w'| <= |w| |x - x'| + |x'| |w - w'|, where x - x' and w - w' are at most half
		// a step (and a little for the arithmetic in f32).
		want := Linear(x, weight, WithBias(bias))
		step := x.Amax(WithDimList([]int64{-1}), WithKeepdim(true)).Sub(x.Amin(WithDimList([]int64{-1}), WithKeepdim(true))).DivScalar(2 * 255)
		bound := step.Mul(weight.Abs().SumDim([]int64{1})).Add(
			x.Abs().SumDim([]int64{-1}, WithKeepdim(true)).Add(step.MulScalar(in)).Mul(scales.DivScalar(2))).MulScalar(1.001)
		if worst := all.Sub(want).Abs().Div(bound).Max().Item(); !(worst <= 1) {
			t.Errorf("off by %.3g of the bound", worst)
		} else {
			t.Logf("off by at most %.3g of the bound, %.2g of the largest value", worst, all.Sub(want).Abs().Max().Item()/want.Abs().Max().Item())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Numbers that are not finite give NaN where they have an effect, and only there.
func TestInt8NotFinite(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, bad := range []float32{nan, inf, -inf} {
		for _, plain := range []bool{false, true} {
			err := Scope(func() error {
				ManualSeed(5)
				const in, out = 37, 21
				weight, x := Randn([]int64{out, in}), Randn([]int64{9, in})
				good := func() Tensor {
					packed, scales, sums := Int8Pack(weight)
					return int8Linear(x, packed, scales, sums, Tensor{}, NoActivation, plain)
				}()
				w, v := ToSlice[float32](weight), ToSlice[float32](x)
				w[5*in+36], v[3*in+34], v[4*in] = bad, bad, bad
				packed, scales, sums := Int8Pack(FromSlice(w, out, in))
				got := ToSlice[float32](int8Linear(FromSlice(v, 9, in), packed, scales, sums, Tensor{}, NoActivation, plain))
				for i, want := range ToSlice[float32](good) {
					if row, n := i/out, i%out; row == 3 || row == 4 || n == 5 {
						if got[i] == got[i] {
							t.Errorf("%v: [%d, %d] is %v, want NaN", bad, row, n, got[i])
						}
					} else if got[i] != want {
						t.Errorf("%v: [%d, %d] is %v, want %v", bad, row, n, got[i], want)
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// The largest and smallest numbers are no exception.
func TestInt8Extremes(t *testing.T) {
	err := Scope(func() error {
		const in = 8
		one := make([]float32, in)
		for i := range one {
			one[i] = 1
		}
		packed, scales, sums := Int8Pack(FromSlice(one, 1, in))
		for _, v := range []float32{math.MaxFloat32 / 16, 1e-36, math.SmallestNonzeroFloat32, 0} {
			x := make([]float32, in)
			x[0], x[1], x[2] = v, v, -v
			for _, plain := range []bool{false, true} {
				got := ToSlice[float32](int8Linear(FromSlice(x, 1, in), packed, scales, sums, Tensor{}, NoActivation, plain))[0]
				if !(math.Abs(float64(got-v)) <= float64(v)/50+1e-35) {
					t.Errorf("%v + %v - %v = %v", v, v, v, got)
				}
			}
		}
		// The sums of the widest layer fit into 32 bits.
		wide := Ones([]int64{3, 65536})
		packed, scales, sums = Int8Pack(wide)
		for _, sign := range []Scalar{1, -1} {
			if got := Int8Linear(wide.MulScalar(sign), packed, scales, sums, Tensor{}, NoActivation); math.Abs(got.Max().Item()-float64(sign.(int))*65536) > 1 {
				t.Errorf("65536 ones give %v", got)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// What does not fit is an error.
func TestInt8Errors(t *testing.T) {
	err := Scope(func() error {
		packed, scales, sums := Int8Pack(Randn([]int64{20, 10}))
		x := Randn([]int64{2, 10})
		for name, f := range map[string]func(){
			"no weight":               func() { Int8Pack(Tensor{}) },
			"a weight of f64":         func() { Int8Pack(x.To(WithDType(Float64))) },
			"a weight of one dim":     func() { Int8Pack(Zeros([]int64{3})) },
			"a weight on meta":        func() { Int8Pack(Zeros([]int64{3, 3}, WithDevice(Meta))) },
			"too wide":                func() { Int8Pack(Zeros([]int64{1, 65537})) },
			"x of another width":      func() { Int8Linear(Randn([]int64{2, 13}), packed, scales, sums, Tensor{}, NoActivation) },
			"x of bf16":               func() { Int8Linear(x.To(WithDType(BFloat16)), packed, scales, sums, Tensor{}, NoActivation) },
			"a bias of 19":            func() { Int8Linear(x, packed, scales, sums, Zeros([]int64{19}), NoActivation) },
			"scales of 19":            func() { Int8Linear(x, packed, Zeros([]int64{19}), sums, Tensor{}, NoActivation) },
			"x that needs a gradient": func() { Int8Linear(x.Clone().SetRequiresGrad(true), packed, scales, sums, Tensor{}, NoActivation) },
			"no x":                    func() { Int8Linear(Tensor{}, packed, scales, sums, Tensor{}, NoActivation) },
		} {
			if err := Scope(func() error { f(); return nil }); err == nil {
				t.Errorf("%s: no error", name)
			}
		}
		for _, rows := range []int64{0, 1} {
			if y := Int8Linear(Zeros([]int64{rows, 10}), packed, scales, sums, Tensor{}, NoActivation); !slices.Equal(y.Shape(), []int64{rows, 20}) {
				t.Errorf("%d rows give %v", rows, y.Shape())
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The least times of 40 calls with 2 threads: plain f32, packed f32 (oneDNN's and ours), and
// int8.
func BenchmarkLinear(b *testing.B) {
	defer SetNumThreads(NumThreads())
	SetNumThreads(2)
	for _, size := range [][3]int64{{768, 3072, 1}, {768, 3072, 16}, {768, 3072, 400}, {768, 3072, 1600}, {3072, 768, 1600}, {3072, 768, 1}, {768, 768, 1}, {768, 768, 400}, {768, 50257, 1}, {768, 50257, 16}, {64, 64, 1}, {64, 64, 50}, {128, 128, 1}, {128, 512, 1}, {128, 512, 50}, {256, 256, 1}, {256, 1024, 16}, {512, 512, 1}} {
		in, out, rows := size[0], size[1], size[2]
		b.Run(fmt.Sprintf("%dx%d-%d", in, out, rows), func(b *testing.B) {
			err := Scope(func() error {
				InferenceMode(func() {
					weight, bias, x := Randn([]int64{out, in}), Randn([]int64{out}), Randn([]int64{rows, in})
					packed, scales, sums := Int8Pack(weight)
					dnn := weight.MKLDNNReorderLinearWeight()
					order := PanelsPack(weight)
					best := func(f func()) float64 {
						t := math.Inf(1)
						for range 40 {
							begin := time.Now()
							f()
							t = min(t, time.Since(begin).Seconds())
						}
						return t * 1e3
					}
					for range b.N {
						plain := best(func() { Linear(x, weight, WithBias(bias)).Close() })
						f32 := best(func() { MKLDNNLinearPointwise(x, dnn, bias, "none", nil, "").Close() })
						panels := best(func() { PanelsLinear(x, order, out, bias, NoActivation).Close() })
						ours := best(func() { Int8Linear(x, packed, scales, sums, bias, NoActivation).Close() })
						b.ReportMetric(plain, "f32_ms")
						b.ReportMetric(f32, "onednn_ms")
						b.ReportMetric(panels, "panels_ms")
						b.ReportMetric(ours, "int8_ms")
						b.ReportMetric(0, "ns/op")
					}
				})
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
		})
	}
}
