package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var schemas = map[string]string{
	"t::sum":        "t::sum(Tensor self, int dim=0) -> Tensor",
	"t::sum.dims":   "t::sum.dims(Tensor self, int[1] dim=[]) -> Tensor",
	"t::scale_":     "t::scale_(Tensor(a!) self, float by=1.) -> Tensor(a!)",
	"t::stretch":    "t::stretch(Tensor x, Scalar by=1) -> (Tensor, Tensor)",
	"t::histogram":  "t::histogram(Tensor self, int bins, str? type) -> (Tensor, Tensor[])",
	"t::dtype":      "t::dtype(Tensor self) -> ScalarType",
	"t::names":      "t::names(str[] names) -> Tensor",
	"t::dictionary": "t::dictionary(Tensor self) -> Dict(str, Tensor)",
}

func find(name, overload string) (string, error) {
	if overload != "" {
		name += "." + overload
	}
	if s := schemas[name]; s != "" {
		return s, nil
	}
	return "", fmt.Errorf("this libtorch has no operator %s", name)
}

// signatures returns the lines of the generated files that begin functions.
func signatures(t *testing.T, list, options string) []string {
	t.Helper()
	files, _, err := generate(list, options, find)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(files)) {
		for line := range strings.Lines(string(files[name])) {
			if strings.HasPrefix(line, "func ") {
				out = append(out, name+": "+strings.TrimSpace(line))
			}
		}
	}
	return out
}

func TestGenerate(t *testing.T) {
	got := signatures(t, "t::sum # a comment\n\nt::scale_\nt::stretch\nt::histogram Hist\nt::dtype\nt::sum.dims -\n", "by Scalar\n")
	want := []string{
		"ops_d_gen.go: func (self Tensor) DType() DType {",
		"ops_h_gen.go: func (self Tensor) Hist(bins int64, type_ any) (Tensor, []Tensor) {",
		"ops_s_gen.go: func (self Tensor) Scale_(opts ...Option) Tensor {",
		"ops_s_gen.go: func Stretch(x Tensor, opts ...Option) (Tensor, Tensor) {",
		"ops_s_gen.go: func (self Tensor) Sum(opts ...Option) Tensor {",
		`options_gen.go: func WithBy(v Scalar) Option { return Option{"by", v} }`,
		`options_gen.go: func WithDim(v int64) Option { return Option{"dim", v} }`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestOptionsKeepTheirTypes adds an operator whose option exists with another type: an
// error until options.txt has a function for it, which leaves the other as it was.
func TestOptionsKeepTheirTypes(t *testing.T) {
	const list = "t::sum\nt::sum.dims SumDims\n"
	if _, _, err := generate(list, "", find); err == nil || !strings.Contains(err.Error(), "WithDim is already the option dim of type int") {
		t.Errorf("two types of one option: %v", err)
	}
	if _, _, err := generate(list, "dim int\n", find); err == nil || !strings.Contains(err.Error(), "no line for option dim of type int[]") {
		t.Errorf("a type that is not declared: %v", err)
	}
	want := append(signatures(t, "t::sum\n", ""), `options_gen.go: func WithDimList(v []int64) Option { return Option{"dim", v} }`,
		"ops_s_gen.go: func (self Tensor) SumDims(opts ...Option) Tensor {")
	if diff := cmp.Diff(slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(signatures(t, list, "dim int\ndim int[] WithDimList\n")))); diff != "" {
		t.Error(diff)
	}
}

func TestErrors(t *testing.T) {
	for list, want := range map[string]string{
		"t::sum\nt::sum.dims\n": "ops.txt:2: t::sum.dims: the Go name Sum is already used for t::sum",
		"t::missing\n":          "ops.txt:1: t::missing: this libtorch has no operator t::missing",
		"t::names\n":            "ops.txt:1: t::names: no Go type for str[] names",
		"t::dictionary\n":       "ops.txt:1: t::dictionary: no Go type for result Dict",
	} {
		if _, _, err := generate(list, "", find); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", list, err, want)
		}
	}
	for options, want := range map[string]string{
		"by\n":         "options.txt:1: expected a name, a type and perhaps a function",
		"\nby thing\n": "options.txt:2: unknown type thing",
	} {
		if _, _, err := generate("", options, find); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", options, err, want)
		}
	}
}

func TestUnlisted(t *testing.T) {
	const all = `aten::abs(Tensor self) -> Tensor
aten::abs.out(Tensor self, *, Tensor(a!) out) -> Tensor(a!)
aten::neg(Tensor self) -> Tensor
aten::_neg(Tensor self) -> Tensor
aten::names(str[] names) -> Tensor
mkldnn::linear(Tensor self) -> Tensor
`
	if diff := cmp.Diff([]string{"aten::neg"}, unlisted("aten::abs\n", all)); diff != "" {
		t.Error(diff)
	}
}
