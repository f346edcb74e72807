package schema

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]Operator{
		"aten::add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor": {
			Name: "aten::add", Overload: "Tensor",
			Args: []Argument{{Type: "Tensor", Name: "self"}, {Type: "Tensor", Name: "other"},
				{Type: "Scalar", Name: "alpha", Default: true, Keyword: true}},
			Returns: []Return{{Type: "Tensor"}},
		},
		"aten::split.Tensor(Tensor(a -> *) self, SymInt split_size, int dim=0) -> Tensor(a)[]": {
			Name: "aten::split", Overload: "Tensor",
			Args:    []Argument{{Type: "Tensor", Name: "self"}, {Type: "int", Name: "split_size"}, {Type: "int", Name: "dim", Default: true}},
			Returns: []Return{{Type: "Tensor[]"}},
		},
		"aten::sort.values(Tensor self, int dim=-1, *, Tensor(a!) values, Tensor(b!) indices) -> (Tensor(a!) values, Tensor(b!) indices)": {
			Name: "aten::sort", Overload: "values",
			Args: []Argument{{Type: "Tensor", Name: "self"}, {Type: "int", Name: "dim", Default: true},
				{Type: "Tensor", Name: "values", Keyword: true, Written: "a"}, {Type: "Tensor", Name: "indices", Keyword: true, Written: "b"}},
			Returns: []Return{{Type: "Tensor", Written: "a"}, {Type: "Tensor", Written: "b"}},
		},
		"aten::max_pool1d(Tensor self, int[1] kernel_size, int[1] stride=[], int[1]? padding=None) -> Tensor": {
			Name: "aten::max_pool1d",
			Args: []Argument{{Type: "Tensor", Name: "self"}, {Type: "int[]", Name: "kernel_size"},
				{Type: "int[]", Name: "stride", Default: true}, {Type: "int[]?", Name: "padding", Default: true}},
			Returns: []Return{{Type: "Tensor"}},
		},
		"aten::_foreach_zero_(Tensor(a!)[] self) -> ()": {
			Name: "aten::_foreach_zero_", Args: []Argument{{Type: "Tensor[]", Name: "self", Written: "a"}},
		},
		"aten::seed() -> int": {Name: "aten::seed", Returns: []Return{{Type: "int"}}},
	} {
		got, err := Parse(text)
		if err != nil {
			t.Error(err)
			continue
		}
		want.Text = text
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s:\n%s", text, diff)
		}
	}
	for _, text := range []string{"", "aten::add", "aten::add(Tensor) -> Tensor", "-> Tensor", ") -> Tensor"} {
		if o, err := Parse(text); err == nil {
			t.Errorf("%q is parsed as %+v", text, o)
		}
	}
}

func TestKinds(t *testing.T) {
	for text, want := range map[string][3]any{
		"aten::add.out(Tensor self, Tensor other, *, Scalar alpha=1, Tensor(a!) out) -> Tensor(a!)": {"aten::add.out", true, true},
		"aten::add_.Tensor(Tensor(a!) self, Tensor other, *, Scalar alpha=1) -> Tensor(a!)":         {"aten::add_.Tensor", false, true},
		"aten::_safe_softmax(Tensor self, int dim, ScalarType? dtype=None) -> Tensor":               {"aten::_safe_softmax", false, false},
		"_c10d_functional::wait_tensor(Tensor tensor) -> Tensor":                                    {"_c10d_functional::wait_tensor", false, false},
	} {
		o, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, [3]any{o.FullName(), o.Out(), o.Public()}); diff != "" {
			t.Error(diff)
		}
	}
}
