package torch_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"cyclecap/torch"
	"cyclecap/torch/internal/fixture"

	"github.com/google/go-cmp/cmp"
)

// indexOf returns an index of make_index_fixtures.py.
func indexOf(v any) any {
	switch v := v.(type) {
	case float64:
		return int(v)
	case bool:
		return v
	case string:
		switch v {
		case ":":
			return torch.All
		case "...":
			return torch.Ellipsis
		}
		return torch.NewAxis
	}
	m := v.(map[string]any)
	list, ok := m["tensor"].([]any)
	if !ok {
		r := torch.Slice{Start: int64(m["start"].(float64)), End: torch.EndOfDim, Step: int64(m["step"].(float64))}
		if end, ok := m["end"].(float64); ok {
			r.End = int64(end)
		}
		return r
	}
	shape := []int64{}
	for _, n := range m["shape"].([]any) {
		shape = append(shape, int64(n.(float64)))
	}
	numbers := make([]int64, len(list))
	for i, x := range list {
		switch x := x.(type) {
		case bool:
			if x {
				numbers[i] = 1
			}
		case float64:
			numbers[i] = int64(x)
		}
	}
	t := torch.FromSlice(numbers).Reshape(shape)
	if m["bool"] == true {
		t = t.To(torch.WithDType(torch.Bool))
	}
	return t
}

// TestAt compares parts and assignments with Python's.
func TestAt(t *testing.T) {
	var cases []struct {
		Shape  []int64
		Index  []any
		Error  bool
		Result struct {
			Tensor, Shape []int64
		}
		Number, Tensor []int64
	}
	fixture.Open(t, "testdata/indexing.json.gz").Cases(&cases)
	for i, c := range cases {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			n := int64(1)
			for _, d := range c.Shape {
				n *= d
			}
			create := func() torch.Tensor { return torch.Arange(0, int(n)).View(c.Shape) }
			err := torch.Scope(func() error {
				var indices []any
				for _, v := range c.Index {
					indices = append(indices, indexOf(v))
				}
				y := create().At(indices...)
				if c.Error {
					t.Errorf("%v of %v: Python refuses it", c.Index, c.Shape)
					return nil
				}
				if !slices.Equal(c.Result.Shape, y.Shape()) {
					t.Errorf("%v of %v has shape %v, want %v", c.Index, c.Shape, y.Shape(), c.Result.Shape)
				}
				if diff := cmp.Diff(c.Result.Tensor, torch.ToSlice[int64](y)); diff != "" {
					t.Errorf("%v of %v: %s", c.Index, c.Shape, diff)
				}
				x := create().SetAt(-1, indices...)
				if diff := cmp.Diff(c.Number, torch.ToSlice[int64](x)); diff != "" {
					t.Errorf("%v of %v = -1: %s", c.Index, c.Shape, diff)
				}
				if c.Tensor != nil {
					values := torch.Arange(0, int(y.Numel())).View(y.Shape()).RsubScalar(-100)
					x := create().SetAt(values, indices...)
					if diff := cmp.Diff(c.Tensor, torch.ToSlice[int64](x)); diff != "" {
						t.Errorf("%v of %v = numbers: %s", c.Index, c.Shape, diff)
					}
				}
				return nil
			})
			if (err != nil) != c.Error {
				t.Errorf("%v of %v: error %v, but Python's is %v", c.Index, c.Shape, err, c.Error)
			}
		})
	}
}

// TestAtView writes through a part, and refuses what is no index.
func TestAtView(t *testing.T) {
	err := torch.Scope(func() error {
		x := torch.Zeros([]int64{2, 3})
		before := torch.Alive()
		x.At(1, torch.Slice{Start: 1, End: torch.EndOfDim}).Fill_(7)
		x.SetAt(torch.Ones([]int64{1, 1, 2}), 0, torch.Slice{End: 2}) // leading ones are dropped
		if diff := cmp.Diff([]float32{1, 1, 0, 0, 7, 7}, torch.ToSlice[float32](x)); diff != "" {
			t.Error(diff)
		}
		x.SetAt(2, x.GtScalar(5))
		if left := torch.Alive() - before; left != 3 { // the part, the ones and the mask
			t.Errorf("At and SetAt leave %d tensors", left-3)
		}
		x.At().Close()
		if x.Numel() != 6 { // At returns a tensor of its own
			t.Error("x was closed")
		}
		for _, c := range []struct {
			want    string
			indices []any
		}{
			{"not string", []any{"a"}},
			{"3 indices for 2 dimensions", []any{0, 0, 0}},
			{"2 ellipses", []any{torch.Ellipsis, torch.Ellipsis}},
			{"a mask of shape [2] for dimensions of sizes [3]", []any{0, torch.FromSlice([]bool{true, false})}},
		} {
			err := torch.Scope(func() error { x.At(c.indices...); return nil })
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v: got %v, want %q", c.indices, err, c.want)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
