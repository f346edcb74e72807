package torch_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cyclecap/torch"
	"cyclecap/torch/compare"
	"cyclecap/torch/npy"
	"cyclecap/torch/torchtest"
)

func loadScript(t *testing.T, name string) *torch.ScriptModule {
	t.Helper()
	m, err := torch.LoadScript("testdata/"+name, torch.CPU)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// plain replaces the tensors in a result by their text.
func plain(v any) any {
	switch v := v.(type) {
	case torch.Tensor:
		return v.Detach().String()
	case torch.Tuple:
		out := torch.Tuple{}
		for _, e := range v {
			out = append(out, plain(e))
		}
		return out
	case map[any]any:
		out := map[any]any{}
		for k, e := range v {
			out[k] = plain(e)
		}
		return out
	}
	return v
}

// Arguments and results of a TorchScript module are of Go's types.
func TestScriptValues(t *testing.T) {
	m := loadScript(t, "values.pt")
	m.Train(false)
	run(t, func() {
		x := torch.FromSlice([]float32{1, 2}, 1, 2)
		for name, c := range map[string]struct{ got, want any }{
			"forward":          {m.Forward(x), "tensor([[12., 18., 24.]])"},
			"forward, scale":   {m.Forward(x, 1), "tensor([[ 6.,  9., 12.]])"},
			"parts":            {m.Call("parts", []torch.Tensor{x, x}, []string{"a", "bcd"}, torch.Tuple{3, 0.5}), torch.Tuple{"tensor([3.])", []any{"a", "bcd", "end"}, map[any]any{"a": int64(4), "bcd": int64(6)}, nil}},
			"parts of nothing": {m.Call("parts", []torch.Tensor{}, []string{}, torch.Tuple{3, 1}), torch.Tuple{"tensor([0.])", []any{"end"}, map[any]any{}, nil}},
			"lookup":           {m.Call("lookup", map[string]torch.Tensor{"x": x, "y": x}, "y"), map[any]any{"y": "tensor([[2., 3.]])"}},
			"lookup of all":    {m.Call("lookup", map[string]torch.Tensor{"x": x}, nil), map[any]any{"x": "tensor([[2., 3.]])"}},
			"lookup in none":   {m.Call("lookup", map[string]torch.Tensor{}), map[any]any{}},
			"numbers":          {m.Call("numbers", 2, true, 1+2i, []int64{4, 5}, [][]float64{{1, 2.5}, {}}), torch.Tuple{int64(3), false, 2 + 4i, int64(2), 3.5, "äö"}},
		} {
			if diff := cmp.Diff(c.want, plain(c.got)); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
		}
		m.Train(true) // dropout
		torch.ManualSeed(1)
		seen := map[string]bool{}
		for range 20 {
			seen[m.Forward(x).(torch.Tensor).String()] = true
		}
		if len(seen) < 2 {
			t.Error("no dropout in training")
		}
		y := m.Forward(x).(torch.Tensor)
		if !y.RequiresGrad() {
			t.Error("the result of a module with parameters needs no gradients")
		}
	})
}

// A traced network has Python's results, also for many goroutines at once.
func TestScriptTraced(t *testing.T) {
	m := loadScript(t, "traced.pt")
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			run(t, func() {
				z, err := npy.LoadZ("testdata/traced.npz")
				if err != nil {
					t.Fatal(err)
				}
				torch.InferenceMode(func() {
					torchtest.Close(t, m.Forward(z["x"]).(torch.Tensor), z["y"], compare.Bits.OtherProcessor(), "traced")
				})
			})
		})
	}
	wait.Wait()
}

func TestScriptErrors(t *testing.T) {
	junk := filepath.Join(t.TempDir(), "junk.pt")
	if err := os.WriteFile(junk, []byte("no archive"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{junk, "testdata/none.pt", "testdata/traced.npz"} {
		if _, err := torch.LoadScript(path, torch.CPU); err == nil || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "frame #") {
			t.Errorf("%s: %v", path, err)
		}
	}
	m := loadScript(t, "values.pt")
	alive := torch.Alive()
	for says, call := range map[string]func(){
		"the module has no method nothing":                                      func() { m.Call("nothing") },
		"Expected a value of type 'Tensor' for argument 'x'":                    func() { m.Forward("x") },
		"forward() is missing value for argument 'x'":                           func() { m.Forward() },
		"Expected at most 3 argument(s) for operator 'forward', but received 4": func() { m.Forward(torch.Zeros([]int64{1, 2}), 1, 2) },
		"one number is enough":                                                  func() { m.Call("fails", torch.Zeros([]int64{2})) },
		"a result of type Device is not supported":                              func() { m.Call("device") },
		"expected elements of type str, got one of type int":                    func() { m.Call("parts", []torch.Tensor{}, []int64{1}, torch.Tuple{1, 2.0}) },
		"must be a number, a bool or of another type that an operator takes":    func() { m.Forward(struct{}{}) },
	} {
		err := torch.Scope(func() error { call(); return nil })
		var e *torch.Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "frame #") {
			t.Errorf("%s: %v", says, err)
		}
	}
	if n := torch.Alive(); n > alive {
		t.Errorf("%d tensors are left of failed calls", n-alive)
	}
	m.Close()
	m.Close()
	if err := torch.Scope(func() error { m.Forward(torch.Zeros([]int64{1, 2})); return nil }); err == nil {
		t.Error("a closed module computes")
	}
}
