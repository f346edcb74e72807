package compare_test

import (
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"cyclecap/torch"
	"cyclecap/torch/compare"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func scope(t *testing.T, f func()) {
	t.Helper()
	if err := torch.Scope(func() error { f(); return nil }); err != nil {
		t.Fatal(err)
	}
}

func TestTensors(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	scope(t, func() {
		want := torch.FromSlice([]float32{1, -4, nan, inf, 0, 2}, 2, 3)
		if d := compare.Tensors(want.Clone(), want); !d.Equal() || !compare.Bits.Within(d) || d.Elements != 6 || d.Largest != 4 {
			t.Errorf("equal tensors: %+v", d)
		}
		got := torch.FromSlice([]float32{1, -4, nan, inf, float32(math.Copysign(0, -1)), 2.25}, 2, 3)
		d := compare.Tensors(got, want)
		if d.Differing != 2 || d.Max != 0.25 || d.Mean != 0.25/6 || d.Relative() != 0.0625 {
			t.Errorf("%+v", d)
		}
		if !slices.Equal(d.First.Index, []int64{1, 1}) || d.First.Want != 0 || !slices.Equal(d.Worst.Index, []int64{1, 2}) || d.Worst.Got != 2.25 {
			t.Errorf("first %v, worst %v", d.First, d.Worst)
		}
		if len(d.Decades) != 1 || d.Decades[-1] != 1 {
			t.Errorf("decades %v", d.Decades)
		}
		for _, test := range []struct {
			t    compare.Tolerance
			want bool
		}{
			{compare.Bits, false},
			{compare.Tolerance{Relative: 0.0625}, true}, {compare.Tolerance{Relative: 0.06}, false},
			{compare.Tolerance{Max: 0.25}, true}, {compare.Tolerance{Max: 0.2}, false},
			{compare.Tolerance{}.OtherProcessor(), false}, {compare.Tolerance{Relative: 0.0625}.OtherProcessor(), true},
			{compare.Tolerance{Max: 0.25, Mean: 0.05}, true}, {compare.Tolerance{Max: 0.25, Mean: 0.04}, false}, {compare.Tolerance{Max: 0.2, Mean: 1}, false},
		} {
			if got := test.t.Within(d); got != test.want {
				t.Errorf("within %v: %v", test.t, got)
			}
		}
		// NaN or infinity against a number is within no tolerance.
		for _, v := range []float32{nan, inf} {
			d := compare.Tensors(torch.FromSlice([]float32{v, 1}), torch.FromSlice([]float32{1, 1}))
			if !math.IsInf(d.Max, 1) || (compare.Tolerance{Relative: 1e9}).Within(d) || (compare.Tolerance{Max: 1e9, Mean: 1e9}).Within(d) {
				t.Errorf("%v against 1: %+v", v, d)
			}
		}
		// A reference of zeros: any difference is relatively infinite.
		if d := compare.Tensors(torch.FromSlice([]float32{1e-30}), torch.FromSlice([]float32{0})); !math.IsInf(d.Relative(), 1) {
			t.Errorf("relative to 0: %v", d.Relative())
		}
	})
}

// Every dtype is compared by its bits; blocks do not matter.
func TestDTypes(t *testing.T) {
	scope(t, func() {
		for _, dtype := range []torch.DType{torch.Uint8, torch.Int8, torch.Int16, torch.Int32, torch.Int64, torch.Float16, torch.BFloat16,
			torch.Float32, torch.Float64, torch.Bool, torch.Uint16, torch.Uint32, torch.Uint64, torch.Complex32, torch.Complex64, torch.Complex128,
			torch.Float8E5M2, torch.Float8E4M3FN, torch.Float8E5M2FNUZ, torch.Float8E4M3FNUZ} {
			want := torch.Zeros([]int64{3, 700_000})
			got := want.Clone()
			got.Select(0, 2).Select(0, 699_998).Fill_(1)
			got, want = got.To(torch.WithDType(dtype)), want.To(torch.WithDType(dtype))
			d := compare.Tensors(got, want)
			at := []int64{2, 699_998}
			if dtype == torch.Complex32 || dtype == torch.Complex64 || dtype == torch.Complex128 {
				at = append(at, 0)
			}
			if d.Differing != 1 || d.Max != 1 || !slices.Equal(d.First.Index, at) {
				t.Errorf("%v: %+v", dtype, d)
			}
			if d := compare.Tensors(want, want); !d.Equal() {
				t.Errorf("%v: %v", dtype, d)
			}
		}
		// Integers that a float64 does not hold.
		a, b := torch.FromSlice([]int64{1<<60 + 1, math.MinInt64}), torch.FromSlice([]int64{1 << 60, math.MaxInt64})
		if d := compare.Tensors(a, b); d.Differing != 2 || d.Max != math.MaxUint64 || d.Decades[0] != 1 || d.First.String() != "[0]: got 1152921504606846977, want 1152921504606846976" {
			t.Errorf("%+v", d)
		}
		// A conjugation that is only a flag.
		z := torch.FromSlice([]complex128{1 + 2i})
		if d := compare.Tensors(z.Conj(), z); d.Differing != 1 || d.First.String() != "[0, 1]: got -2, want 2" {
			t.Errorf("%+v", d)
		}
		// A view is compared in its own order.
		v := torch.FromSlice([]float32{1, 2, 3, 4}, 2, 2)
		if d := compare.Tensors(v.T(), torch.FromSlice([]float32{1, 3, 2, 4}, 2, 2)); !d.Equal() {
			t.Errorf("%v", d)
		}
	})
}

func TestMismatch(t *testing.T) {
	scope(t, func() {
		a := torch.Zeros([]int64{2, 3})
		freed := torch.Zeros([]int64{2, 3}).Keep()
		freed.Close()
		if d := compare.Tensors(freed, a); d.Equal() || !strings.Contains(d.Mismatch, "freed") {
			t.Error(d)
		}
		if d := compare.Tensors(torch.Tensor{}, torch.Tensor{}); !d.Equal() {
			t.Error(d)
		}
		for want, d := range map[string]compare.Difference{
			"the shape is [2, 3], want [3, 2]":                                       compare.Tensors(a, torch.Zeros([]int64{3, 2})),
			"the dtype is float32, want bfloat16":                                    compare.Tensors(a, torch.Zeros([]int64{2, 3}, torch.WithDType(torch.BFloat16))),
			"there is no tensor, want float32[2, 3]":                                 compare.Tensors(torch.Tensor{}, a),
			"the tensor is float32[2, 3], want none":                                 compare.Tensors(a, torch.Tensor{}),
			"a tensor on the meta device has no elements to compare":                 compare.Tensors(a.To(torch.WithDevice(torch.Meta)), a),
			"a tensor of layout sparse_coo has no elements to compare; call ToDense": compare.Tensors(a.ToSparse(), a),
			"1 number, want 2":                                                       compare.Numbers([]float64{1}, []float64{1, 2}),
			"1 list, want 0":                                                         compare.Lists([][]int64{{1}}, nil),
		} {
			if d.Equal() || d.Differing == 0 || d.String() != want || (compare.Tolerance{Relative: 1e9}).Within(d) {
				t.Errorf("got %q, want %q", d, want)
			}
		}
	})
}

func TestLists(t *testing.T) {
	want := [][]int64{{1, 2}, {3, 4, 5}}
	if d := compare.Lists([][]int64{{1, 2}, {3, 4, 5}}, want); !d.Equal() || d.Elements != 5 {
		t.Errorf("%+v", d)
	}
	d := compare.Lists([][]int64{{1, 2}, {3, 7}}, want)
	if d.Differing != 2 || d.Elements != 5 || !slices.Equal(d.First.Index, []int64{1, 1}) || d.First.Got != 7 || (compare.Tolerance{Relative: 1e9}).Within(d) {
		t.Errorf("%+v", d)
	}
	if d := compare.Lists([][]string{{"a"}}, [][]string{{"b", "c"}}); d.Differing != 2 || d.String() != "2 of 2 elements of 1 list differ in their bits\nfirst:   [0, 0]: got \"a\", want \"b\"" {
		t.Errorf("%+v", d)
	}
}

func TestString(t *testing.T) {
	d := compare.Numbers([]float64{1, 2.5, 3, 4.001}, []float64{1, 2, 3, 4})
	want := `2 of 4 elements of float64[4] differ in their bits
first:   [1]: got 2.5, want 2
largest: [1]: got 2.5, want 2
max |difference| 0.5, mean 0.125, relative to the largest wanted value 0.125
   1e-03 ######################################## 1
   1e-01 ######################################## 1`
	if got := d.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := compare.Numbers([]float64{1}, []float64{1}).String(); got != "the only element of float64[1] has the same bits" {
		t.Error(got)
	}
}

// TestAdd compares several tensors.
func TestAdd(t *testing.T) {
	var d compare.Difference
	d.Add("equal", compare.Numbers([]float64{100}, []float64{100}))
	d.Add("first", compare.Numbers([]float64{1, 2.25}, []float64{1, 2}))
	before := d
	d.Add("worst", compare.Numbers([]float64{1.5, 10.25}, []float64{1, 10}))
	want := `3 of 5 elements of several tensors differ in their bits
first:   first [1]: got 2.25, want 2
largest: worst [0]: got 1.5, want 1
max |difference| 0.5, mean 0.2, relative to the largest wanted value 0.125
   1e-01 ######################################## 3`
	if diff := cmp.Diff(want, d.String()); diff != "" || d.Largest != 100 {
		t.Error(diff)
	}
	if before.Decades[-1] != 1 {
		t.Error("Add has changed another difference")
	}
	d.Add("absent", compare.Numbers(nil, []float64{1}))
	if d.String() != "absent: 0 numbers, want 1" || d.Equal() || d.Elements != 6 || !math.IsInf(d.Max, 1) {
		t.Errorf("%+v", d)
	}
}

func TestTolerance(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	relative := compare.Tolerance{Why: "rounding", Relative: 1e-3}
	absolute := compare.Tolerance{Why: "Adam", Max: 0.5, Mean: 0.1}
	for _, c := range []struct {
		name       string
		got, want  []float64
		tolerance  compare.Tolerance
		ok, others bool // on the reference's kind of processor, on others
	}{
		{"equal", []float64{1, 2}, []float64{1, 2}, compare.Bits, true, true},
		{"an ulp", []float64{1, 2}, []float64{1, math.Nextafter(2, 3)}, compare.Bits, false, true},
		{"the sign of zero", []float64{0, 1}, []float64{math.Copysign(0, -1), 1}, compare.Bits, false, true},
		{"NaN here", []float64{nan, 1}, []float64{1, 1}, relative, false, false},
		{"NaN there", []float64{1, 1}, []float64{1, nan}, relative, false, false},
		{"NaN there, absolute", []float64{1, 1}, []float64{1, nan}, absolute, false, false},
		{"infinity makes nothing small", []float64{inf, 2}, []float64{inf, 1}, relative, false, false},
		{"something for nothing", []float64{1e-9}, []float64{0}, relative, false, false},
		{"within the relative bound", []float64{1, 10.009}, []float64{1, 10}, relative, true, true},
		{"beyond it", []float64{1.02, 10}, []float64{1, 10}, relative, false, false},
		{"within both absolute bounds", []float64{1.3, 1, 1, 1}, []float64{1, 1, 1, 1}, absolute, true, true},
		{"the mean too large", []float64{1.2, 1.2}, []float64{1, 1}, absolute, false, false},
		{"one too large", []float64{1.6, 1, 1, 1, 1, 1, 1, 1}, []float64{1, 1, 1, 1, 1, 1, 1, 1}, absolute, false, false},
	} {
		d := compare.Numbers(c.got, c.want)
		if ok, others := c.tolerance.Within(d), c.tolerance.OtherProcessor().Within(d); ok != c.ok || others != c.others {
			t.Errorf("%s: within %v and %v, want %v and %v: %v", c.name, ok, others, c.ok, c.others, d)
		}
	}
	for want, tolerance := range map[string]compare.Tolerance{"0": compare.Bits, "0.001 of the largest": relative, "0.5 (mean 0.1)": absolute, "0.5": {Max: 0.5}} {
		if tolerance.String() != want {
			t.Errorf("%q, want %q", tolerance, want)
		}
	}
}

// TestAgainstDefinition compares random numbers, and the numbers as tensors, with what
// the definitions give.
func TestAgainstDefinition(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	finite := func(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.OneOf(rapid.Float64(), rapid.SampledFrom([]float64{0, math.Copysign(0, -1), 1, inf, -inf, nan, -nan, 1e-322, 1e-300, 0.1, 10, 1e45, 1e308}))
		want := rapid.SliceOfN(value, 1, 8).Draw(t, "want")
		got := slices.Clone(want)
		for i := range got {
			if rapid.Bool().Draw(t, "change") {
				got[i] = value.Draw(t, "value")
			}
		}
		d := compare.Numbers(got, want)
		var differing int64
		var most, largest, sum float64
		first, worst := -1, -1
		decades := map[int]int64{}
		for i, w := range want {
			if finite(w) {
				largest = max(largest, math.Abs(w))
			}
			if math.Float64bits(got[i]) == math.Float64bits(w) {
				continue
			}
			off := math.Abs(got[i] - w)
			switch {
			case math.IsNaN(got[i]) && math.IsNaN(w):
				off = 0
			case math.IsNaN(off):
				off = inf
			}
			if differing++; first < 0 {
				first, worst = i, i
			}
			if off > most {
				most, worst = off, i
			}
			sum += off
			if off > 0 && finite(off) {
				text := strconv.FormatFloat(off, 'e', -1, 64)
				k, err := strconv.Atoi(text[strings.Index(text, "e")+1:])
				if err != nil {
					t.Fatal(err)
				}
				decades[max(k, -323)]++
			}
		}
		if d.Differing != differing || d.Max != most || d.Largest != largest || d.Mean != sum/float64(len(want)) || !maps.Equal(d.Decades, decades) {
			t.Fatalf("%+v, want %d, max %v, largest %v, mean %v, decades %v", d, differing, most, largest, sum/float64(len(want)), decades)
		}
		if first >= 0 && (d.First.Index[0] != int64(first) || d.Worst.Index[0] != int64(worst)) {
			t.Fatalf("first %v, worst %v; want %d and %d", d.First, d.Worst, first, worst)
		}
		if err := torch.Scope(func() error {
			if of := compare.Tensors(torch.FromSlice(got), torch.FromSlice(want)); of.String() != d.String() {
				t.Fatalf("tensors: %v\nnumbers: %v", of, d)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	})
}

func TestMain(m *testing.M) {
	torch.SetNumThreads(2)
	os.Exit(m.Run())
}

// TestUnusualMemory compares tensors that have no elements in memory, as the zeros that
// autograd makes, and one complex number with a stride.
func TestUnusualMemory(t *testing.T) {
	scope(t, func() {
		zeros := torch.Call("aten::_efficientzerotensor", []int64{3}, torch.WithDType(torch.Float32))[0].(torch.Tensor)
		z := torch.FromSlice([]complex64{1 + 2i, 2, 3})
		for what, pair := range map[string][2]torch.Tensor{
			"zeros":       {zeros, torch.FromSlice([]float32{0, 0, 0})},
			"one element": {z.AsStrided([]int64{1}, []int64{4}), torch.FromSlice([]complex64{1 + 2i})},
		} {
			if d := compare.Tensors(pair[0], pair[1]); !d.Equal() {
				t.Errorf("%s: %v", what, d)
			}
			if d := compare.Tensors(pair[1], pair[0]); !d.Equal() {
				t.Errorf("%s, the other way round: %v", what, d)
			}
			if d := compare.Tensors(pair[0], pair[1].AddScalar(1)); d.Differing == 0 || d.Mismatch != "" {
				t.Errorf("%s and other numbers: %v", what, d)
			}
		}
	})
}
