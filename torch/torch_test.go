package torch_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"cyclecap/torch"

	"github.com/google/go-cmp/cmp"
)

// run is torch.Scope for tests.
func run(t *testing.T, f func()) {
	t.Helper()
	if err := torch.Scope(func() error { f(); return nil }); err != nil {
		t.Fatal(err)
	}
}

func TestArithmetic(t *testing.T) {
	run(t, func() {
		x := torch.FromSlice([]float32{1, 2, 3, 4, 5, 6}, 2, 3)
		y := x.Add(x, torch.WithAlpha(2)).MM(x.T())
		if diff := cmp.Diff([]float32{42, 96, 96, 231}, torch.ToSlice[float32](y)); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]int64{2, 2}, y.Shape()); diff != "" {
			t.Error(diff)
		}
		v, i := x.MaxDim(1)
		if diff := cmp.Diff([]float32{3, 6}, torch.ToSlice[float32](v)); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]int64{2, 2}, torch.ToSlice[int64](i)); diff != "" {
			t.Error(diff)
		}
	})
}

// TestErrorWithoutKernel: an operator without a kernel for a device is an error of one line, without libtorch's table
// of all kernels.
func TestErrorWithoutKernel(t *testing.T) {
	if n, why := torch.CUDADevices(); n == 0 {
		err := torch.Scope(func() error {
			torch.Ones([]int64{2}, torch.WithDevice(torch.CUDA(0)))
			return nil
		})
		if want := "ones(): Could not run 'aten::empty.memory_format' with arguments from the 'CUDA' backend: " + why.Error(); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	err := torch.Scope(func() error {
		torch.Ones([]int64{2, 2}).ToSparse().Cumsum(0) // of the SparseCPU backend
		return nil
	})
	if err == nil || strings.Contains(err.Error(), "\n") || !strings.HasSuffix(err.Error(), ": libtorch has no such kernel") {
		t.Error(err)
	}
}

func TestErrorsNameOperatorAndShapes(t *testing.T) {
	err := torch.Scope(func() error {
		torch.Ones([]int64{2, 3}).MM(torch.Ones([]int64{2, 3}))
		return nil
	})
	var e *torch.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want a *torch.Error", err)
	}
	if diff := cmp.Diff([]any{"mm", "float32[2,3], float32[2,3]", torch.RuntimeError}, []any{e.Op, e.Args, e.Kind}); diff != "" {
		t.Error(diff)
	}
}

// TestCallsOfEveryForm calls operators in the forms that the shim reads in different ways
// (unboxed, and boxed for what only some calls have), with the same results, and without
// losing or freeing a reference when the operator fails.
func TestCallsOfEveryForm(t *testing.T) {
	before := torch.Alive()
	run(t, func() {
		x := torch.FromSlice([]float32{1, -2, 3, -4, 5, -6}, 2, 3)
		for _, c := range []struct {
			name string
			got  torch.Tensor
			want []float32
		}{
			{"an alpha that is the default", x.Add(x), []float32{2, -4, 6, -8, 10, -12}},
			{"an alpha", x.Add(x, torch.WithAlpha(2)), []float32{3, -6, 9, -12, 15, -18}},
			{"a number for a tensor", torch.Call("aten::add.Tensor", x, 1)[0].(torch.Tensor), []float32{2, -1, 4, -3, 6, -5}},
			{"a float", x.MulScalar(0.5), []float32{0.5, -1, 1.5, -2, 2.5, -3}},
			{"a bool", x.MulScalar(true), []float32{1, -2, 3, -4, 5, -6}},
			{"a list", x.View([]int64{3, -1}), []float32{1, -2, 3, -4, 5, -6}},
			{"a default bool", x.Expand([]int64{1, 2, 3}), []float32{1, -2, 3, -4, 5, -6}},
			{"a bool that is given", x.Expand([]int64{1, 2, 3}, torch.WithImplicit(true)), []float32{1, -2, 3, -4, 5, -6}},
			{"a length", x.Narrow(1, 1, 2), []float32{-2, 3, 5, -6}},
			{"in place", x.Clone().Add_(x), []float32{2, -4, 6, -8, 10, -12}},
		} {
			if d := cmp.Diff(c.want, torch.ToSlice[float32](c.got)); d != "" {
				t.Errorf("%s (-want +got):\n%s", c.name, d)
			}
		}
		other := torch.Ones([]int64{4})
		for range 100 {
			for name, f := range map[string]func(){
				"add":  func() { x.Add(other) },
				"add_": func() { x.Add_(other) },
				"view": func() { x.View([]int64{4}) },
			} {
				if err := torch.Scope(func() error { f(); return nil }); err == nil || !strings.Contains(err.Error(), "size") {
					t.Fatalf("%s: %v", name, err)
				}
			}
		}
		if d := cmp.Diff([]float32{1, -2, 3, -4, 5, -6}, torch.ToSlice[float32](x)); d != "" {
			t.Errorf("after errors (-want +got):\n%s", d)
		}
	})
	if now := torch.Alive(); now != before {
		t.Errorf("%d tensors are left", now-before)
	}
}

func TestScopesFree(t *testing.T) {
	before := torch.Alive()
	var kept torch.Tensor
	run(t, func() {
		x := torch.Ones([]int64{4})
		y := torch.Tidy(func() torch.Tensor { return x.AddScalar(1).MulScalar(3) })
		if got := torch.Alive() - before; got != 2 {
			t.Errorf("%d tensors alive after Tidy, want 2", got)
		}
		kept = y.Keep()
	})
	if got := torch.Alive() - before; got != 1 {
		t.Errorf("%d tensors alive after the scope, want 1", got)
	}
	if got := torch.KeptBytes(); got != 16 {
		t.Errorf("%d bytes kept, want 16", got)
	}
	kept.Close()
	kept.Close()
	if got := torch.Alive(); got != before {
		t.Errorf("%d tensors alive at the end, want %d", got, before)
	}
}

func TestUseAfterFree(t *testing.T) {
	var x torch.Tensor
	run(t, func() { x = torch.Ones([]int64{4}) })
	err := torch.Scope(func() error { x.AddScalar(1); return nil })
	if err == nil {
		t.Fatal("no error for a freed tensor")
	}
}

func TestBackward(t *testing.T) {
	run(t, func() {
		w := torch.FromSlice([]float32{2, 3}).SetRequiresGrad(true)
		w.Mul(w).Sum().Backward()
		if diff := cmp.Diff([]float32{4, 6}, torch.ToSlice[float32](w.Grad())); diff != "" {
			t.Error(diff)
		}
	})
}

// TestFromSliceOn copies to the devices that every machine has; the CUDA path is covered
// where there is a GPU.
func TestFromSliceOn(t *testing.T) {
	run(t, func() {
		x := torch.FromSliceOn(torch.CPU, []int32{1, 2, 3, 4, 5, 6}, 2, 3)
		if got := torch.ToSlice[int32](x.Select(0, 1)); !slices.Equal(got, []int32{4, 5, 6}) {
			t.Errorf("row 1 is %v", got)
		}
		if x.Upload(torch.CPU).DataPtr() != x.DataPtr() {
			t.Error("uploading to the same device copies")
		}
		for _, y := range []torch.Tensor{torch.FromSliceOn(torch.Meta, []float32{1, 2}), torch.Ones([]int64{2}).Upload(torch.Meta)} {
			if y.Device() != torch.Meta || y.DType() != torch.Float32 || !slices.Equal(y.Shape(), []int64{2}) {
				t.Errorf("%v %v on %v", y.DType(), y.Shape(), y.Device())
			}
		}
	})
	err := torch.Scope(func() error { torch.FromSliceOn(torch.CPU, []float32{1, 2, 3}, 2, 2); return nil })
	if err == nil || !strings.Contains(err.Error(), "the shape has 4 elements, but the slice has 3") {
		t.Errorf("a slice that does not fit: %v", err)
	}
}
