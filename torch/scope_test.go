package torch_test

import (
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"

	"cyclecap/torch"

	"go.uber.org/goleak"
)

// TestExecutor has goroutines hand batches to one executor, as commands do.
func TestExecutor(t *testing.T) {
	defer goleak.VerifyNone(t)
	before := torch.Alive()
	e := torch.NewExecutor()
	sums := make([]float64, 64)
	var wg sync.WaitGroup
	for i := range sums {
		wg.Go(func() {
			data := make([]float32, 100)
			for k := range data {
				data[k] = float32(i)
			}
			err := e.Do(func() error {
				sums[i] = torch.FromSlice(data).Sum().Item()
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	wrong := errors.New("wrong")
	if err := e.Do(func() error { return wrong }); err != wrong {
		t.Errorf("Do gave %v", err)
	}
	if err := e.Do(func() error { torch.Ones([]int64{2}).MM(torch.Ones([]int64{2})); return nil }); err == nil {
		t.Error("an operator's error was lost")
	}
	e.Close()
	e.Close()
	if err := e.Do(func() error { return nil }); err == nil {
		t.Error("a closed executor took work")
	}
	for i, s := range sums {
		if s != float64(100*i) {
			t.Errorf("sum %d is %v", i, s)
		}
	}
	if after := torch.Alive(); after != before {
		t.Errorf("%d tensors alive, %d before", after, before)
	}
}

// TestExecutorGoexit has work end the executor's goroutine, as t.Fatal would.
func TestExecutorGoexit(t *testing.T) {
	defer goleak.VerifyNone(t)
	before := torch.Alive()
	e := torch.NewExecutor()
	for range 2 {
		err := e.Do(func() error { torch.Ones([]int64{2}); runtime.Goexit(); return nil })
		if err == nil || !strings.Contains(err.Error(), "Goexit") {
			t.Errorf("got %v", err)
		}
	}
	e.Close()
	if after := torch.Alive(); after != before {
		t.Errorf("%d tensors alive, %d before", after, before)
	}
}

// TestScopeLimit opens scopes without end: the error comes back as one.
func TestScopeLimit(t *testing.T) {
	depth := 0
	var deeper func() error
	deeper = func() error { depth++; return torch.Scope(deeper) }
	if err := deeper(); err == nil || !strings.Contains(err.Error(), "scopes are nested") {
		t.Errorf("at depth %d: %v", depth, err)
	}
	run(t, func() { torch.Ones([]int64{1}) }) // all of them were given back
}

// TestSharedReading has several scopes read one kept tensor at once.
func TestSharedReading(t *testing.T) {
	var w torch.Tensor
	run(t, func() { w = torch.Ones([]int64{50, 50}).Keep() })
	defer w.Close()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				err := torch.Scope(func() error {
					if s := w.Matmul(w).Sum().Item(); s != 125000 {
						t.Errorf("sum %v", s)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestOutsideOfScope(t *testing.T) {
	defer func() {
		e, ok := recover().(*torch.Error)
		if !ok || !strings.Contains(e.Error(), "torch.Scope") {
			t.Errorf("outside of a scope: %v", e)
		}
	}()
	torch.Ones([]int64{1})
}

func TestModes(t *testing.T) {
	run(t, func() {
		w := torch.Ones([]int64{2}).SetRequiresGrad(true)
		grad := func() bool { return w.MulScalar(2).RequiresGrad() }
		torch.NoGrad(func() {
			if grad() {
				t.Error("NoGrad records")
			}
			torch.EnableGrad(func() {
				if !grad() {
					t.Error("EnableGrad inside of NoGrad does not record")
				}
			})
			if grad() {
				t.Error("NoGrad records behind EnableGrad")
			}
		})
		if !grad() {
			t.Error("recording did not come back")
		}
		torch.InferenceMode(func() {
			if grad() {
				t.Error("InferenceMode records")
			}
		})
	})
	// A panic on the way leaves the modes as they were.
	err := torch.Scope(func() error {
		torch.NoGrad(func() { torch.Throw("test", "thrown") })
		return nil
	})
	if err == nil {
		t.Fatal("the error was lost")
	}
	run(t, func() {
		if !torch.Ones([]int64{2}).SetRequiresGrad(true).MulScalar(2).RequiresGrad() {
			t.Error("NoGrad outlived a panic")
		}
	})
}

func TestOptions(t *testing.T) {
	err := torch.Scope(func() error {
		torch.Ones([]int64{2}).Add(torch.Ones([]int64{2}), torch.WithKeepdim(true))
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "keepdim") {
		t.Errorf("an option of another operator: %v", err)
	}
}

func TestDataInPlace(t *testing.T) {
	run(t, func() {
		x := torch.Zeros([]int64{2, 2})
		torch.Data(x, func(d []float32) { d[3] = 5 })
		if got := x.Sum().Item(); got != 5 {
			t.Errorf("a write through Data gives %v", got)
		}
	})
	for name, f := range map[string]func(){
		"another type":   func() { torch.Data(torch.Zeros([]int64{2}), func([]int64) {}) },
		"not contiguous": func() { torch.Data(torch.Zeros([]int64{2, 3}).T(), func([]float32) {}) },
		"meta":           func() { torch.Data(torch.Empty([]int64{2}, torch.WithDevice(torch.Meta)), func([]float32) {}) },
	} {
		if err := torch.Scope(func() error { f(); return nil }); err == nil {
			t.Errorf("%s: Data gave a slice", name)
		}
	}
}

func TestParseDevice(t *testing.T) {
	for s, want := range map[string]string{"cpu": "cpu", "meta": "meta", "gpu": "", "cuda:99": "", "cuda:x": "", "cpu:1": "", "privateuseone:0": ""} {
		d, err := torch.ParseDevice(s)
		if want == "" && err == nil || want != "" && (err != nil || d.String() != want) {
			t.Errorf("%s: %v, %v", s, d, err)
		}
		if s == "cuda:99" && (err == nil || !strings.Contains(err.Error(), "not available") || !strings.Contains(err.Error(), "cpu")) {
			t.Errorf("the error does not name what is there: %v", err)
		}
	}
}

func TestBuildInfo(t *testing.T) {
	b, err := torch.BuildInfo()
	if err != nil {
		t.Fatal(err)
	}
	if b.Version == "" || b.Version != b.Compiled || b.Path == "" {
		t.Errorf("%+v", b)
	}
}
