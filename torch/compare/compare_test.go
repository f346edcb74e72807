package compare_test

import (
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"cyclecap/torch"
	"cyclecap/torch/compare"
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
			torch.Float32, torch.Float64, torch.Bool, torch.Complex64, torch.Complex128} {
			want := torch.Zeros([]int64{3, 700_000}, torch.WithDType(dtype))
			got := want.Clone()
			got.Select(0, 2).Select(0, 699_998).Fill_(1)
			d := compare.Tensors(got, want)
			at := []int64{2, 699_998}
			if dtype == torch.Complex64 || dtype == torch.Complex128 {
				at = append(at, 0)
			}
			if d.Differing != 1 || d.Max != 1 || !slices.Equal(d.First.Index, at) {
				t.Errorf("%v: %+v", dtype, d)
			}
			if d := compare.Tensors(want, want); !d.Equal() {
				t.Errorf("%v: %v", dtype, d)
			}
		}
		// Where float64 is too narrow, the bits still tell the difference.
		a, b := torch.FromSlice([]int64{1<<60 + 1}), torch.FromSlice([]int64{1 << 60})
		if d := compare.Tensors(a, b); d.Differing != 1 {
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
		for want, d := range map[string]compare.Difference{
			"the shape is [2, 3], want [3, 2]":    compare.Tensors(a, torch.Zeros([]int64{3, 2})),
			"the dtype is float32, want bfloat16": compare.Tensors(a, torch.Zeros([]int64{2, 3}, torch.WithDType(torch.BFloat16))),
			"there are 1 numbers, want 2":         compare.Numbers([]float64{1}, []float64{1, 2}),
			"there are 1 lists, want 0":           compare.Lists([][]int64{{1}}, nil),
		} {
			if d.Equal() || d.String() != want || (compare.Tolerance{Relative: 1e9}).Within(d) {
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
	if d := compare.Lists([][]string{{"a"}}, [][]string{{"b"}}); d.Equal() {
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
	if got := compare.Numbers([]float64{1}, []float64{1}).String(); !strings.Contains(got, "1 element ") {
		t.Error(got)
	}
}

func TestMain(m *testing.M) {
	torch.SetNumThreads(2)
	os.Exit(m.Run())
}
