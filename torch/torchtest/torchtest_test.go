package torchtest_test

import (
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cyclecap/torch"
	"cyclecap/torch/compare"
	"cyclecap/torch/torchtest"
	"cyclecap/weights"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestMain(m *testing.M) {
	torch.SetNumThreads(1)
	os.Exit(m.Run())
}

// A recorder is a test whose failures are kept instead of failing.
type recorder struct {
	testing.TB
	failures []string
}

func (r *recorder) Helper()           {}
func (r *recorder) Name() string      { return "TestModel" }
func (r *recorder) Error(args ...any) { r.failures = append(r.failures, fmt.Sprint(args...)) }
func (r *recorder) Errorf(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

// scope runs tensor code.
func scope(t *testing.T, f func()) {
	t.Helper()
	if err := torch.Scope(func() error { f(); return nil }); err != nil {
		t.Fatal(err)
	}
}

// expect checks the failure of f, which is none if want is empty.
func expect(t *testing.T, want string, f func(t testing.TB)) {
	t.Helper()
	var r recorder
	f(&r)
	if diff := cmp.Diff(want, strings.Join(r.failures, "\n")); diff != "" {
		t.Error(diff)
	}
}

func TestBits(t *testing.T) {
	scope(t, func() {
		want := torch.FromSlice([]float32{1, 2, 3, 4, 5, 7}, 2, 3)
		got := torch.FromSlice([]float32{1, 2.5, 3, 4, 5, 6.25}, 2, 3)
		expect(t, "", func(t testing.TB) { torchtest.Bits(t, want.Clone(), want) })
		expect(t, `2 of 6 elements of float32[2, 3] differ in their bits
first:   [0, 1]: got 2.5, want 2
largest: [1, 2]: got 6.25, want 7
max |difference| 0.75, mean 0.208, relative to the largest wanted value 0.107
   1e-01 ######################################## 2`, func(t testing.TB) { torchtest.Bits(t, got, want) })
		expect(t, "output 3: the shape is [3, 2], want [2, 3]", func(t testing.TB) { torchtest.Bits(t, got.T(), want, "output ", 3) })
		zero, negative := torch.Scalar0(0.), torch.Scalar0(math.Copysign(0, -1))
		var r recorder
		if torchtest.Bits(&r, zero, negative); len(r.failures) != 1 {
			t.Error("0 has the bits of -0")
		}
	})
}

func TestClose(t *testing.T) {
	scope(t, func() {
		want := torch.FromSlice([]float32{1, 2, 4})
		got := torch.FromSlice([]float32{1, 2, 4.5})
		loose, tight := compare.Tolerance{Relative: 0.125}, compare.Tolerance{Why: "another order of sums", Relative: 0.1}
		expect(t, "", func(t testing.TB) { torchtest.Close(t, got, want, loose) })
		expect(t, "", func(t testing.TB) { torchtest.Close(t, want, want.Clone(), compare.Bits) })
		expect(t, `loss: more than 0.1 of the largest apart (another order of sums)
1 of 3 elements of float32[3] differ in their bits
first:   [2]: got 4.5, want 4
largest: [2]: got 4.5, want 4
max |difference| 0.5, mean 0.167, relative to the largest wanted value 0.125
   1e-01 ######################################## 1`, func(t testing.TB) { torchtest.Close(t, got, want, tight, "loss") })
		expect(t, "there is no tensor, want float32[3]", func(t testing.TB) { torchtest.Close(t, torch.Tensor{}, want, loose) })
		nan := torch.FromSlice([]float32{1, 2, float32(math.NaN())})
		var r recorder
		if torchtest.Close(&r, nan, want, loose); len(r.failures) != 1 || !strings.Contains(r.failures[0], "[2]: got NaN, want 4") {
			t.Errorf("%q", r.failures)
		}
	})
}

// update runs f as `go test -update` does.
func update(t *testing.T, f func()) {
	t.Helper()
	for _, on := range []string{"true", "false"} {
		if err := flag.Set("update", on); err != nil {
			t.Fatal(err)
		}
		if on == "true" {
			f()
		}
	}
}

func TestGolden(t *testing.T) {
	file := filepath.Join(t.TempDir(), "testdata", "golden.safetensors")
	scope(t, func() {
		a, b := torch.FromSlice([]float32{1, 2, 3}), torch.FromSlice([]int64{4})
		golden := func(name string, x torch.Tensor) func(t testing.TB) {
			return func(t testing.TB) { torchtest.Golden(t, file, name, x) }
		}
		expect(t, file+" does not exist; `go test -run '^TestModel$' -update` writes it", golden("a", a))
		update(t, func() {
			expect(t, "", golden("a", torch.Zeros([]int64{2})))
			expect(t, "", golden("a", a))
			expect(t, "", golden("b", b))
			expect(t, file+": c is no tensor", golden("c", torch.Tensor{}))
		})
		expect(t, "", golden("a", a))
		expect(t, "", golden("b", b))
		expect(t, file+" has no tensor \"c\"; `go test -run '^TestModel$' -update` writes it", golden("c", a))
		expect(t, "a of "+file+`: 1 of 3 elements of float32[3] differ in their bits
first:   [1]: got 2.5, want 2
largest: [1]: got 2.5, want 2
max |difference| 0.5, mean 0.167, relative to the largest wanted value 0.167
   1e-01 ######################################## 1
if the new values are right, `+"`go test -run '^TestModel$' -update` writes them", golden("a", torch.FromSlice([]float32{1, 2.5, 3})))

		// With another number of threads, the last bits may differ.
		near := torch.FromSlice([]float32{1, 2.00001, 3})
		var r recorder
		if golden("a", near)(&r); len(r.failures) != 1 {
			t.Errorf("%q", r.failures)
		}
		torch.SetNumThreads(2)
		defer torch.SetNumThreads(1)
		expect(t, "", golden("a", near))
		r = recorder{}
		if golden("a", torch.FromSlice([]float32{1, 2.001, 3}))(&r); len(r.failures) != 1 ||
			!strings.Contains(r.failures[0], ", 1 threads; this is ") || !strings.Contains(r.failures[0], "more than 1e-05 of the largest apart") {
			t.Errorf("%q", r.failures)
		}
	})
	if n := torch.Alive(); n != 0 {
		t.Errorf("%d tensors are left", n)
	}
	f, err := weights.Open(file)
	if err != nil || len(f.Entries) != 2 || !strings.HasSuffix(f.Meta["b"], ", 1 threads") {
		t.Errorf("%+v, %v", f, err)
	}
	if err := os.WriteFile(file, []byte("no tensors"), 0o666); err != nil {
		t.Fatal(err)
	}
	var r recorder
	scope(t, func() { torchtest.Golden(&r, file, "a", torch.Zeros([]int64{1})) })
	if len(r.failures) != 1 || !strings.Contains(r.failures[0], file) {
		t.Errorf("%q", r.failures)
	}
}

type layer struct {
	Weight, Bias torch.Tensor
	name         string
}

type net struct {
	Layers []layer
	Steps  int
	State  map[string]torch.Tensor
}

func TestDiff(t *testing.T) {
	scope(t, func() {
		vector := func(v ...float32) torch.Tensor { return torch.FromSlice(v) }
		build := func() net {
			return net{[]layer{{vector(1, 2), vector(3), "a"}, {vector(4, 5), torch.Tensor{}, "b"}}, 7, map[string]torch.Tensor{"m": vector(0, 1)}}
		}
		unexported := cmpopts.IgnoreUnexported(layer{})
		if d := torchtest.Diff(build(), build(), compare.Bits, unexported); d != "" {
			t.Error(d)
		}
		got := build()
		got.Layers[1].Weight = vector(1, 2) // that of the layer before, which is no insertion
		got.State["m"] = vector(0, 1.25)
		want := `{torchtest_test.net}.Layers[1].Weight:
	2 of 2 elements of float32[2] differ in their bits
	first:   [0]: got 1, want 4
	largest: [0]: got 1, want 4
	max |difference| 3, mean 3, relative to the largest wanted value 0.6
	   1e+00 ######################################## 2
{torchtest_test.net}.State["m"]:
	1 of 2 elements of float32[2] differ in their bits
	first:   [1]: got 1.25, want 1
	largest: [1]: got 1.25, want 1
	max |difference| 0.25, mean 0.125, relative to the largest wanted value 0.25
	   1e-01 ######################################## 1`
		if diff := cmp.Diff(want, torchtest.Diff(got, build(), compare.Bits, unexported)); diff != "" {
			t.Error(diff)
		}
		if d := torchtest.Diff(got, build(), compare.Tolerance{Relative: 0.6}, unexported); d != "" {
			t.Error(d)
		}
		got = build()
		got.Steps = 8
		got.Layers[1].Bias = vector(1)
		got.Layers[0].name = "c"
		delete(got.State, "m")
		d := torchtest.Diff(got, build(), compare.Bits, cmp.AllowUnexported(layer{}))
		for _, part := range []string{"the tensor is float32[1], want none", "+ \tSteps: 8", "tensor([0., 1.])", `"c"`} {
			if !strings.Contains(strings.ReplaceAll(d, "\u00a0", " "), part) {
				t.Errorf("%s\ndoes not contain %q", d, part)
			}
		}
	})
}

func TestDiffOfTensors(t *testing.T) {
	scope(t, func() {
		x := torch.Ones([]int64{2})
		if d := torchtest.Diff(x, x.Clone(), compare.Bits); d != "" {
			t.Error(d)
		}
		if d := torchtest.Diff(x.MulScalar(2), x, compare.Bits); !strings.HasPrefix(d, "{torch.Tensor}:\n\t2 of 2") {
			t.Error(d)
		}
	})
}
