package torch

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

// layerCase is a random layer, once with packed weights and once as operators.
type layerCase struct {
	fused       TransformerLayer
	norm1       [2]Tensor
	norm2       [2]Tensor
	linear      []Tensor // weights and biases of qkv, out, up and down
	inner, head int64
}

func newTransformerLayer(width, heads, inner int64, parts []int64, int8 bool) *layerCase {
	c := &layerCase{inner: inner, head: width / heads}
	random := func(scale float64, shape ...int64) Tensor { return Randn(shape).MulScalar(scale) }
	norm := func(pair *[2]Tensor) Norm {
		*pair = [2]Tensor{random(0.1, width).AddScalar(1), random(0.1, width)}
		return Norm{pair[0], pair[1], 1e-5}
	}
	linear := func(out, in int64) PackedLinear {
		w, b := random(1/math.Sqrt(float64(in)), out, in), random(0.1, out)
		c.linear = append(c.linear, w, b)
		if int8 {
			packed, scales, sums := Int8Pack(w)
			return PackedLinear{packed, scales, sums, b, out}
		}
		return PackedLinear{Weight: PanelsPack(w), Bias: b, Out: out}
	}
	c.fused = TransformerLayer{Norm1: norm(&c.norm1), Norm2: norm(&c.norm2), Activation: GELUTanh, Heads: heads, Scale: 1 / math.Sqrt(float64(c.head))}
	for _, part := range parts {
		c.fused.QKV = append(c.fused.QKV, linear(part*width, width))
	}
	c.fused.AttentionOut, c.fused.Up, c.fused.Down = linear(width, width), linear(inner, width), linear(width, inner)
	return c
}

// apply computes a linear layer alone.
func (p PackedLinear) apply(x Tensor, a Activation) Tensor {
	if p.Scales.Defined() {
		return Int8Linear(x, p.Weight, p.Scales, p.Sums, p.Bias, a)
	}
	return PanelsLinear(x, p.Weight, p.Out, p.Bias, a)
}

// forward computes the layer with one operator after the other. keys and values [n, heads, past,
// head] come before those of x.
func (c *layerCase) forward(x Tensor, causal bool, keys, values Tensor) Tensor {
	n, t, d := x.Size(0), x.Size(1), x.Size(2)
	l := &c.fused
	normed := LayerNorm(x, []int64{d}, WithWeight(l.Norm1.Weight), WithBias(l.Norm1.Bias), WithEps(l.Norm1.Epsilon))
	var columns []Tensor
	for _, p := range l.QKV {
		columns = append(columns, p.apply(normed, NoActivation))
	}
	parts := Cat(columns, WithDim(-1)).View([]int64{n, t, 3, l.Heads, c.head}).Permute([]int64{2, 0, 3, 1, 4}).Unbind()
	q, k, v := parts[0], parts[1], parts[2]
	if keys.Defined() {
		k, v = Cat([]Tensor{keys, k}, WithDim(2)), Cat([]Tensor{values, v}, WithDim(2))
	}
	opts := []Option{WithScale(l.Scale)}
	if causal {
		past := k.Size(2) - t
		opts = append(opts, WithAttnMask(Ones([]int64{t, past + t}, WithDType(Bool)).Tril(WithDiagonal(past))))
	}
	y := ScaledDotProductAttention(q, k, v, opts...).Transpose(1, 2).Reshape([]int64{n, t, d})
	x = x.Add(l.AttentionOut.apply(y, NoActivation))
	normed = LayerNorm(x, []int64{d}, WithWeight(l.Norm2.Weight), WithBias(l.Norm2.Bias), WithEps(l.Norm2.Epsilon))
	return x.Add(l.Down.apply(l.Up.apply(normed, l.Activation), NoActivation))
}

// near fails if two tensors differ by more than so much of the largest number.
func near(t *testing.T, what string, got, want Tensor, by float64) {
	t.Helper()
	if diff := got.Sub(want).Abs().Max().Item() / want.Abs().Max().Item(); !(diff <= by) {
		t.Errorf("%s: the largest difference is %g of the largest number", what, diff)
	}
}

func testLayers(t *testing.T, f func(name string, c *layerCase)) {
	needPanels(t)
	for _, int8 := range []bool{false, true} {
		for _, s := range []struct {
			width, heads, inner int64
			parts               []int64
		}{
			{64, 4, 256, []int64{3}},
			{60, 5, 100, []int64{1, 2}},     // heads of 12
			{144, 2, 150, []int64{1, 1, 1}}, // heads of 72
			{256, 2, 512, []int64{3}},       // heads of 128
			{8, 8, 16, []int64{3}},          // heads of 1
		} {
			name := fmt.Sprintf("width %d, %d heads, int8: %t", s.width, s.heads, int8)
			if err := Scope(func() error {
				ManualSeed(7)
				f(name, newTransformerLayer(s.width, s.heads, s.inner, s.parts, int8))
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// The layer gives what its operators give, but for rounding, which 8 bits amplify.
func TestTransformerLayer(t *testing.T) {
	testLayers(t, func(name string, c *layerCase) {
		by := 2e-6
		if c.fused.Up.Scales.Defined() {
			by = 5e-3
		}
		width := c.fused.Norm1.Weight.Size(0)
		for _, length := range []int64{1, 2, 7, 50, 130} {
			x := Randn([]int64{3, length, width})
			only := []int64{0, length / 2, length - 1}
			for _, causal := range []bool{false, true} {
				what := fmt.Sprintf("%s, %d positions, causal: %t", name, length, causal)
				want := c.forward(x, causal, Tensor{}, Tensor{})
				near(t, what, c.fused.Forward(x, causal, nil, nil), want, by)
				some := c.fused.Forward(x, causal, nil, only)
				for i, position := range only {
					near(t, fmt.Sprintf("%s, only %d", what, position), some.Select(0, int64(i)).Select(0, 0), want.Select(0, int64(i)).Select(0, position), by)
				}
			}
		}
	})
}

// With a cache, sequences of different lengths continue as if they were computed whole.
func TestTransformerLayerCache(t *testing.T) {
	testLayers(t, func(name string, c *layerCase) {
		by := 2e-6
		if c.fused.Up.Scales.Defined() {
			by = 5e-3
		}
		width, heads := c.fused.Norm1.Weight.Size(0), c.fused.Heads
		const room, first = 40, 1
		keys, values := Full([]int64{5, heads, room, c.head}, math.NaN()), Full([]int64{5, heads, room, c.head}, math.NaN())
		lengths := []int64{3, 20, 11}
		whole := make([]Tensor, len(lengths))
		for i, n := range lengths {
			x := Randn([]int64{1, n, width})
			c.fused.Forward(x, true, &KeyValues{keys, values, first + int64(i), []int64{0}}, nil)
			whole[i] = x
		}
		for _, more := range []int64{1, 4} {
			x := Randn([]int64{3, more, width})
			got := c.fused.Forward(x, true, &KeyValues{keys, values, first, lengths}, nil)
			for i := range lengths {
				whole[i] = Cat([]Tensor{whole[i], x.Narrow(0, int64(i), 1)}, WithDim(1))
				want := c.forward(whole[i], true, Tensor{}, Tensor{}).Slice(WithDim(1), WithStart(lengths[i]))
				near(t, fmt.Sprintf("%s, sequence %d, %d more", name, i, more), got.Narrow(0, int64(i), 1), want, by)
				lengths[i] += more
			}
		}
		for _, row := range []int64{0, 4} {
			if !keys.Select(0, row).Isnan().All().Equal(Ones([]int64{}, WithDType(Bool))) {
				t.Errorf("%s: row %d of the cache belongs to nobody, and was written", name, row)
			}
		}
	})
}

// The bits of a sequence depend neither on the others nor on the threads.
func TestTransformerLayerAlone(t *testing.T) {
	threads := NumThreads()
	t.Cleanup(func() { SetNumThreads(threads) })
	testLayers(t, func(name string, c *layerCase) {
		width := c.fused.Norm1.Weight.Size(0)
		for _, length := range []int64{1, 9, 60} {
			x := Randn([]int64{17, length, width})
			var want []float32
			for n := 1; n <= 4; n++ {
				SetNumThreads(n)
				got := ToSlice[float32](c.fused.Forward(x, true, nil, nil))
				if want == nil {
					want = got
				}
				if !sameBits(got, want) {
					t.Fatalf("%s, %d positions, %d threads: the bits differ", name, length, n)
				}
			}
			for i := range int64(17) {
				got := ToSlice[float32](c.fused.Forward(x.Narrow(0, i, 1), true, nil, nil))
				if !sameBits(got, want[i*length*width:(i+1)*length*width]) {
					t.Fatalf("%s, %d positions: sequence %d has other bits alone", name, length, i)
				}
			}
		}
	})
}

// Scores far beyond the range of exp, infinities and NaNs stay with their sequence.
func TestTransformerLayerExtremes(t *testing.T) {
	testLayers(t, func(name string, c *layerCase) {
		width := c.fused.Norm1.Weight.Size(0)
		for _, bad := range []float64{math.NaN(), math.Inf(1)} {
			x := Randn([]int64{2, 5, width})
			x.Select(0, 0).Select(0, 2).Select(0, 3).Fill_(bad)
			got := c.fused.Forward(x, true, nil, nil)
			finite := func(i, from, n int64) bool {
				return got.Select(0, i).Narrow(0, from, n).Isfinite().All().Equal(Ones([]int64{}, WithDType(Bool)))
			}
			if !finite(1, 0, 5) {
				t.Errorf("%s, %g: reached the other sequence", name, bad)
			}
			for p := range int64(3) {
				if finite(0, 2+p, 1) {
					t.Errorf("%s, %g: position %d is finite", name, bad, 2+p)
				}
			}
		}
		l := c.fused
		l.Scale = 1e4 // the softmax is 1 at one position, and 0 at the others
		wide := layerCase{fused: l, head: c.head}
		x := Randn([]int64{2, 6, width})
		if l.Up.Scales.Defined() {
			return // rounding chooses another position
		}
		near(t, name+", large scores", wide.fused.Forward(x, true, nil, nil), wide.forward(x, true, Tensor{}, Tensor{}), 1e-5)
	})
}

func TestTransformerLayerErrors(t *testing.T) {
	needPanels(t)
	err := Scope(func() error {
		c := newTransformerLayer(16, 2, 32, []int64{3}, false)
		x := Randn([]int64{2, 3, 16})
		cache := Zeros([]int64{2, 2, 8, 8})
		for _, test := range []struct {
			change func(l *TransformerLayer)
			x      Tensor
			cache  *KeyValues
			only   []int64
			want   string
		}{
			{func(*TransformerLayer) {}, Randn([]int64{2, 3}), nil, nil, "x must have 3 dimensions, got 2"},
			{func(*TransformerLayer) {}, Randn([]int64{2, 0, 16}), nil, nil, "at least 1 position"},
			{func(*TransformerLayer) {}, Randn([]int64{2, 3, 18}), nil, nil, "must have 18 elements, got 16"},
			{func(*TransformerLayer) {}, x.To(WithDType(Float64)), nil, nil, "dtype"},
			{func(l *TransformerLayer) { l.Heads = 3 }, x, nil, nil, "number of heads, 3"},
			{func(l *TransformerLayer) { l.QKV = nil }, x, nil, nil, "1 to 3 layers, got 0"},
			{func(l *TransformerLayer) { l.QKV = slices.Repeat(l.QKV, 2) }, x, nil, nil, "48 outputs, got 96"},
			{func(l *TransformerLayer) { l.Down = l.Up }, x, nil, nil, "down must have 16 outputs, got 32"},
			{func(l *TransformerLayer) { l.Up.Weight = l.AttentionOut.Weight }, x, nil, nil, "do not fit packed weights"},
			{func(l *TransformerLayer) { l.AttentionOut.Bias = Zeros([]int64{3}) }, x, nil, nil, "a bias of 16 elements, got 3"},
			{func(l *TransformerLayer) { l.Norm2.Bias = Tensor{} }, x, nil, nil, "expected a tensor for norm2's bias"},
			{func(*TransformerLayer) {}, x, &KeyValues{cache, cache, 1, []int64{0, 0}}, nil, "no rows from 1 to 2"},
			{func(*TransformerLayer) {}, x, &KeyValues{cache, cache, 0, []int64{0, 6}}, nil, "row 1 needs 9 positions, but the cache has room for 8"},
			{func(*TransformerLayer) {}, x, &KeyValues{Tensor{}, cache, 0, []int64{0, 0}}, nil, "expected a tensor for cache"},
			{func(*TransformerLayer) {}, x, &KeyValues{cache, cache, 0, []int64{0}}, nil, "2 sequences need as many"},
			{func(*TransformerLayer) {}, x, nil, []int64{0, 3}, "row 1 has no position 3"},
			{func(*TransformerLayer) {}, x, nil, []int64{0}, "2 sequences need as many"},
		} {
			l := c.fused
			test.change(&l)
			err := Scope(func() error {
				l.Forward(test.x, true, test.cache, test.only)
				return nil
			})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("want an error with %q, got %v", test.want, err)
			}
		}
		if y := c.fused.Forward(Zeros([]int64{0, 3, 16}), true, nil, nil); !slices.Equal(y.Shape(), []int64{0, 3, 16}) {
			t.Errorf("no sequences give %v", y.Shape())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
