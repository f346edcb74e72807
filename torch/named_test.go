package torch_test

import (
	"math"
	"testing"

	"cyclecap/torch"

	"github.com/google/go-cmp/cmp"
)

// TestCall calls operators by their names, with every kind of result.
func TestCall(t *testing.T) {
	run(t, func() {
		x := torch.FromSlice([]float32{3, 1, 2})
		values := func(v any) any {
			switch v := v.(type) {
			case torch.Tensor:
				return torch.ToSlice[float64](v)
			case []torch.Tensor:
				out := [][]float64{}
				for _, p := range v {
					out = append(out, torch.ToSlice[float64](p))
				}
				return out
			}
			return v
		}
		for _, c := range []struct {
			name string
			args []any
			want []any
		}{
			{"aten::add.Tensor", []any{x, x}, []any{[]float64{6, 2, 4}}},
			{"aten::add.Tensor", []any{x, x, 2}, []any{[]float64{9, 3, 6}}},
			{"aten::add.Tensor", []any{x, x, torch.WithAlpha(2)}, []any{[]float64{9, 3, 6}}},
			{"aten::add.Tensor", []any{x, torch.With("other", 1)}, []any{[]float64{4, 2, 3}}},
			{"aten::sort", []any{x, torch.WithDescending(true)}, []any{[]float64{3, 2, 1}, []float64{0, 2, 1}}},
			{"aten::split.Tensor", []any{x, 2}, []any{[][]float64{{3, 1}, {2}}}},
			{"aten::index.Tensor", []any{x.Unsqueeze(0), []torch.Tensor{{}, torch.FromSlice([]int64{2})}}, []any{[]float64{2}}},
			{"aten::item", []any{x.Sum()}, []any{6.0}},
			{"aten::item", []any{torch.Scalar0(1 + 2i)}, []any{1 + 2i}},
			{"aten::item", []any{torch.Scalar0(int64(7))}, []any{int64(7)}},
			{"aten::equal", []any{x, x}, []any{true}},
			{"aten::histogramdd", []any{x.Unsqueeze(1), []int64{2}}, []any{[]float64{1, 2}, [][]float64{{1, 2, 3}}}},
			{"aten::result_type.Tensor", []any{x, torch.Scalar0(1.0)}, []any{int64(torch.Float32)}},
			{"aten::zero_", []any{torch.Ones([]int64{2})}, []any{[]float64{0, 0}}},
			{"aten::_foreach_zero_", []any{[]torch.Tensor{torch.Ones([]int64{2})}}, []any{}},
			{"aten::clamp", []any{x, nil, 2}, []any{[]float64{2, 1, 2}}},
		} {
			got := []any{}
			for _, v := range torch.Call(c.name, c.args...) {
				got = append(got, values(v))
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("%s:\n%s", c.name, diff)
			}
		}
	})
}

// TestComplexNumbers passes and returns complex numbers.
func TestComplexNumbers(t *testing.T) {
	run(t, func() {
		x := torch.FromSlice([]complex64{1 + 2i, -1i})
		if diff := cmp.Diff([]complex64{2 + 4i, 1}, torch.ToSlice[complex64](x.AddScalar(complex64(1+2i)).Sub(torch.FromSlice([]complex64{0, -1i + 2i})))); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]complex64{3 + 2i, 2 - 1i}, torch.ToSlice[complex64](x.Add(torch.Ones([]int64{2}), torch.WithAlpha(2+0i)))); diff != "" {
			t.Error(diff)
		}
		if v := x.Select(0, 0).ItemScalar(); v != 1+2i {
			t.Errorf("item() = %v", v)
		}
		if v := torch.Full([]int64{1}, complex(math.Inf(1), 2)).ItemScalar(); v != complex(math.Inf(1), 2) {
			t.Errorf("full(inf+2j) = %v", v)
		}
		// A complex parameter of a real tensor is libtorch's error, as in Python.
		fails(t, "a complex number in a real tensor", "", func() { torch.Ones([]int64{1}).AddScalar_(1i) })
	})
}
