package torch_test

import (
	"errors"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cyclecap/torch"
	"cyclecap/torch/optim"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

// fails calls f in a scope and checks that it ends with a *torch.Error that
// contains text.
func fails(t *testing.T, name, text string, f func()) {
	t.Helper()
	var e *torch.Error
	err := torch.Scope(func() error { f(); return nil })
	if !errors.As(err, &e) || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: got %v, want a *torch.Error that contains %q", name, err, text)
	}
}

// collecting runs the garbage collector without pause while f runs.
func collecting(f func()) {
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for !stop.Load() {
			runtime.GC()
		}
	})
	f()
	stop.Store(true)
	wg.Wait()
}

// TestGeneratorsInUse draws from generators that nothing but the call refers to.
func TestGeneratorsInUse(t *testing.T) {
	own := func() *torch.Generator { return torch.NewGenerator(torch.CPU).ManualSeed(5) }
	collecting(func() {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 300 {
					err := torch.Scope(func() error {
						x, y := torch.RandnGenerator([]int64{64}, own()), torch.RandnGenerator([]int64{64}, own())
						p, q := torch.RandpermGenerator(9, own()), torch.RandpermGenerator(9, own())
						if !x.Equal(y) || !p.Equal(q) || !x.Uniform_(torch.WithGenerator(own())).Equal(y.Uniform_(torch.WithGenerator(own()))) {
							t.Error("two generators with one seed give different numbers")
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
	})
}

// TestTensorsInUse calls operators on tensors that nothing else refers to, so that
// the garbage collector may free them once they are no longer needed.
func TestTensorsInUse(t *testing.T) {
	kept := func(v float64) torch.Tensor { return torch.Full([]int64{1000}, v).Keep() }
	collecting(func() {
		for range 500 {
			run(t, func() {
				if s := kept(2).Mul(kept(3)).Sum().Item(); s != 6000 {
					t.Errorf("sum %v", s)
				}
				if s := torch.Cat([]torch.Tensor{kept(1), kept(2)}).Sum().Item(); s != 3000 {
					t.Errorf("sum of a list %v", s)
				}
				g := torch.GradOf([]torch.Tensor{kept(3).SetRequiresGrad(true).Sum()}, []torch.Tensor{kept(1).SetRequiresGrad(true)}, false)
				if g[0].Defined() {
					t.Error("an unused input has a gradient")
				}
				torch.Data(kept(7), func(d []float32) {
					runtime.GC()
					torch.Full([]int64{1000}, 9.0).Keep()
					if d[0] != 7 || d[999] != 7 {
						t.Errorf("the slice of a kept tensor changed: %v, %v", d[0], d[999])
					}
				})
			})
		}
	})
}

// TestDataOfAClosedTensor closes a tensor, and gives it other data, while its slice
// is in use.
func TestDataOfAClosedTensor(t *testing.T) {
	run(t, func() {
		for name, f := range map[string]func(x torch.Tensor){
			"Close":   func(x torch.Tensor) { x.Close() },
			"SetData": func(x torch.Tensor) { x.SetData(torch.Ones([]int64{2})) },
		} {
			x := torch.Full([]int64{1 << 16}, 7.0)
			torch.Data(x, func(d []float32) {
				f(x)
				torch.Full([]int64{1 << 16}, 9.0)
				if i := slices.IndexFunc(d, func(v float32) bool { return v != 7 }); i >= 0 {
					t.Errorf("%s: element %d became %v", name, i, d[i])
				}
			})
		}
	})
}

func TestBackwardArguments(t *testing.T) {
	w := func() torch.Tensor { return torch.Ones([]int64{}).SetRequiresGrad(true) }
	outputs := func(n int) (l []torch.Tensor) {
		for range n {
			l = append(l, w().MulScalar(2))
		}
		return l
	}
	one := torch.Tensor{}
	run(t, func() { one = torch.Ones([]int64{}).Keep() })
	defer one.Close()
	fails(t, "one gradient for 8 outputs", "expected 8 gradients", func() { torch.Backward(outputs(8), []torch.Tensor{one}, false) })
	fails(t, "too many gradients", "expected 1 gradients", func() { torch.Backward(outputs(1), []torch.Tensor{one, one}, false) })
	fails(t, "no output", "got none", func() { torch.Backward([]torch.Tensor{{}}, nil, false) })
	fails(t, "no input", "got none", func() { torch.GradOf(outputs(1), []torch.Tensor{{}}, false) })
	fails(t, "a gradient of another shape", "shape", func() { torch.Backward(outputs(1), []torch.Tensor{torch.Ones([]int64{3})}, false) })
	fails(t, "none", "got none", func() { torch.Tensor{}.SetGrad(one) })
	run(t, func() {
		a, b := w(), w()
		torch.Backward([]torch.Tensor{a.MulScalar(2), b.MulScalar(3)}, []torch.Tensor{one, {}}, false)
		torch.Backward([]torch.Tensor{a.MulScalar(4)}, []torch.Tensor{}, false)
		if a, b := a.Grad().Item(), b.Grad().Item(); a != 6 || b != 3 {
			t.Errorf("gradients %v and %v, want 6 and 3", a, b)
		}
	})
}

func TestSetGradChecks(t *testing.T) {
	p := func() torch.Tensor { return torch.Zeros([]int64{4}).SetRequiresGrad(true) }
	fails(t, "shape", "the gradient has shape [3, 4]", func() { p().SetGrad(torch.Ones([]int64{3, 4})) })
	fails(t, "dtype", "the gradient has dtype Double", func() { p().SetGrad(torch.Ones([]int64{4}, torch.WithDType(torch.Float64))) })
	fails(t, "device", "the gradient is on meta", func() { p().SetGrad(torch.Ones([]int64{4}, torch.WithDevice(torch.Meta))) })
	fails(t, "itself", "its own gradient", func() { p := p(); p.SetGrad(p) })
	run(t, func() {
		p := p()
		p.SetGrad(torch.Ones([]int64{4}))
		optim.SGD([]torch.Tensor{p}, optim.SGDOptions{LR: 1}).Step()
		if s := p.Sum().Item(); s != -4 {
			t.Errorf("the sum after a step is %v", s)
		}
		if p.SetGrad(torch.Tensor{}); p.Grad().Defined() {
			t.Error("the gradient was not cleared")
		}
	})
}

func TestManyDimensions(t *testing.T) {
	run(t, func() {
		shape := slices.Repeat([]int64{1}, 20)
		shape[19] = 5
		x := torch.Ones(shape)
		if !slices.Equal(x.Shape(), shape) || x.Size(-1) != 5 || len(x.Strides()) != 20 {
			t.Errorf("shape %v, strides %v", x.Shape(), x.Strides())
		}
		if s := x.String(); strings.Count(s, "1.") != 5 {
			t.Errorf("printed as %s", s)
		}
	})
}

// TestForeignArguments passes what an operator does not take: each is an error of
// the operator, and never a panic of another kind or a crash.
func TestForeignArguments(t *testing.T) {
	ones := func() torch.Tensor { return torch.Ones([]int64{2, 2}) }
	meta := func(d torch.Device) {
		torch.OnDevice(torch.Meta, func() { torch.Empty([]int64{2}, torch.WithDevice(d)) })
	}
	freed := torch.Tensor{}
	run(t, func() { freed = ones() })
	var none *torch.Generator
	for _, c := range []struct {
		name, text string
		f          func()
	}{
		{"no tensor", "got none", func() { ones().Add(torch.Tensor{}) }},
		{"no tensor in a list", "got none", func() { torch.Cat([]torch.Tensor{ones(), {}}) }},
		{"a freed tensor", "has been freed", func() { ones().Add(freed) }},
		{"a freed tensor in a list", "has been freed", func() { torch.Cat([]torch.Tensor{ones(), freed}) }},
		{"a string for a number", "'dim' must be", func() { ones().Argmax(torch.With("dim", "x")) }},
		{"a list for a number", "'dim' must be", func() { ones().Argmax(torch.With("dim", []int64{1})) }},
		{"a tensor for a number", "'dim' must be", func() { ones().Argmax(torch.With("dim", ones())) }},
		{"a tensor for a list", "'dim' must be", func() { ones().LinalgVectorNorm(torch.With("dim", ones())) }},
		{"another type", "not struct", func() { ones().Argmax(torch.With("dim", struct{}{})) }},
		{"another type of scalar", "not []int", func() { ones().AddScalar([]int{1}) }},
		{"the memory of zeros that have none", "zero by a flag: true", func() {
			zeros := torch.Call("aten::_efficientzerotensor", []int64{3}, torch.WithDType(torch.Float32))[0].(torch.Tensor)
			torch.Data(zeros, func([]float32) {})
		}},
		{"an operator that does not exist", "has no operator aten::nothing", func() { torch.Call("aten::nothing", ones()) }},
		{"no operator's name", "has no operator", func() { torch.Call("") }},
		{"too few arguments", "argument 'mat2' (Tensor) is missing", func() { torch.Call("aten::mm", ones()) }},
		{"too many arguments", "at most 2 arguments, got 3", func() { torch.Call("aten::mm", ones(), ones(), 1) }},
		{"an argument twice", "only 0 of the 1 options", func() { torch.Call("aten::mm", ones(), ones(), torch.With("mat2", ones())) }},
		{"an argument of another type", "'mat2' must be", func() { torch.Call("aten::mm", ones(), "x") }},
		{"no tensor for an argument", "'mat2' must be", func() { torch.Call("aten::mm", ones(), torch.Tensor{}) }},
		{"a complex number for an int", "'dim' must be", func() { torch.Call("aten::cumsum", ones(), 1i) }},
		{"a large scalar", "less than 2^63", func() { ones().AddScalar(uint64(math.MaxUint64)) }},
		{"no scalar", "must be", func() { ones().AddScalar(nil) }},
		{"dtype 99", "there is no ScalarType 99", func() { torch.Empty([]int64{2}, torch.WithDType(99)) }},
		{"dtype -1", "there is no ScalarType -1", func() { ones().To(torch.WithDType(-1)) }},
		{"memory format 9", "there is no MemoryFormat 9", func() { ones().Contiguous(torch.WithMemoryFormat(9)) }},
		{"a device type", "no device type 77", func() { meta(torch.Device{Type: 77}) }},
		{"CUDA(14)", "", func() { meta(torch.CUDA(14)) }},
		{"CUDA(300)", "no device with index 300", func() { meta(torch.CUDA(300)) }},
		{"a generator for another device", "", func() { torch.NewGenerator(torch.Meta) }},
		{"a zero generator", "got none", func() { torch.RandnGenerator([]int64{1}, &torch.Generator{}) }},
		{"a zero generator as an option", "got none", func() { ones().Uniform_(torch.WithGenerator(&torch.Generator{})) }},
		{"to seed no generator", "got none", func() { none.ManualSeed(1) }},
		{"the state of no generator", "got none", func() { none.State() }},
	} {
		fails(t, c.name, c.text, c.f)
	}
	if err := none.SetState([]byte{1}); err == nil {
		t.Error("no generator has a state")
	}
	if e := torch.Scope(func() error { meta(torch.CUDA(14)); return nil }); e != nil && strings.Contains(e.Error(), "tag") {
		t.Errorf("CUDA(14): %v", e)
	}
	run(t, func() { // nil is the default generator, as None is in Python
		torch.ManualSeed(3)
		x := torch.Randn([]int64{5})
		torch.ManualSeed(3)
		if !torch.RandnGenerator([]int64{5}, nil).Equal(x) {
			t.Error("nil is not the default generator")
		}
	})
}

// TestNumbers passes numbers of every Go type, and single numbers for lists, as
// Python does.
func TestNumbers(t *testing.T) {
	run(t, func() {
		x := torch.Ones([]int64{1})
		for _, v := range []torch.Scalar{3, int8(3), int16(3), int32(3), int64(3), uint(3), uint8(3), uint16(3), uint32(3), uint64(3), float32(3), 3.0} {
			if got := x.AddScalar(v).Item(); got != 4 {
				t.Errorf("1 + %T(3) = %v", v, got)
			}
		}
		if x.MulScalar_(true).Item() != 1 || x.MulScalar_(false).Item() != 0 {
			t.Error("a bool is not 1 or 0")
		}
		m := torch.FromSlice([]float32{3, 4, 6, 8}, 2, 2)
		if diff := cmp.Diff([]float32{5, 10}, torch.ToSlice[float32](m.LinalgVectorNorm(torch.WithDim(1)))); diff != "" {
			t.Error(diff)
		}
	})
}

func TestLongLists(t *testing.T) {
	before := torch.Alive()
	run(t, func() {
		l := torch.Arange(0, 20_000).View([]int64{-1, 1}).Unbind()
		if len(l) != 20_000 || l[19_999].Item() != 19_999 {
			t.Errorf("%d rows", len(l))
		}
	})
	// Fewer, if the garbage collector has freed what an earlier test forgot.
	if got := torch.Alive(); got > before {
		t.Errorf("%d tensors alive, %d before", got, before)
	}
}

func TestItem(t *testing.T) {
	const big = 1<<53 + 1
	run(t, func() {
		if v := torch.ItemOf[int64](torch.Scalar0[int64](big)); v != big {
			t.Errorf("%d became %d", int64(big), v)
		}
		c := torch.Complex(torch.Scalar0[float32](1), torch.Scalar0[float32](2))
		if v := torch.ItemOf[complex128](c); v != 1+2i {
			t.Errorf("1+2i became %v", v)
		}
		if v := torch.Scalar0[int64](-1 << 62).Item(); v != -1<<62 {
			t.Errorf("-2^62 became %v", v)
		}
	})
	fails(t, "2^53+1", "ItemOf[int64]", func() { torch.Scalar0[int64](big).Item() })
	fails(t, "2^63-1", "ItemOf[int64]", func() { torch.Scalar0[int64](math.MaxInt64).Item() })
	fails(t, "2^64-1", "ItemOf[uint64]", func() { torch.Scalar0[uint64](math.MaxUint64).Item() })
	fails(t, "complex", "ItemOf[complex128]", func() { torch.Scalar0(2i).Item() })
	fails(t, "two elements", "one element", func() { torch.Ones([]int64{2}).Item() })
	fails(t, "meta", "", func() { torch.Ones([]int64{}, torch.WithDevice(torch.Meta)).Item() })
}

// TestLazyConjugate reads tensors whose elements libtorch has not yet conjugated or
// negated.
func TestLazyConjugate(t *testing.T) {
	run(t, func() {
		x := torch.FromSlice([]complex64{1 + 2i, 3 - 4i})
		if diff := cmp.Diff([]complex64{1 - 2i, 3 + 4i}, torch.ToSlice[complex64](x.Conj())); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]float32{-2, 4}, torch.ToSlice[float32](x.Conj().Imag())); diff != "" {
			t.Error(diff)
		}
	})
	fails(t, "Data", "conjugated", func() {
		torch.Data(torch.FromSlice([]complex64{1i}).Conj(), func([]complex64) { t.Error("Data gave the elements") })
	})
}

// TestExecutorPanic has the caller of Do recover from a panic in its function, as
// net/http does, and the executor go on.
func TestExecutorPanic(t *testing.T) {
	defer goleak.VerifyNone(t)
	e := torch.NewExecutor()
	defer e.Close()
	bug := errors.New("a bug")
	for range 3 {
		func() {
			defer func() {
				if p := recover(); p != bug {
					t.Errorf("recovered %v", p)
				}
			}()
			e.Do(func() error { torch.NoGrad(func() { panic(bug) }); return nil })
			t.Error("the panic was lost")
		}()
		if err := e.Do(func() error {
			if !torch.Ones([]int64{1}).SetRequiresGrad(true).MulScalar(2).RequiresGrad() {
				t.Error("the panic left NoGrad behind")
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
}

// TestManyScopes has more scopes open at once than fit into one block.
func TestManyScopes(t *testing.T) {
	const goroutines, depth = 60, 150
	var ready, wg sync.WaitGroup
	hold := make(chan struct{})
	ready.Add(goroutines)
	for range goroutines {
		wg.Go(func() {
			var nest func(d int) error
			nest = func(d int) error {
				if d == 0 {
					ready.Done()
					<-hold
					torch.Ones([]int64{1})
					return nil
				}
				return torch.Scope(func() error { return nest(d - 1) })
			}
			if err := nest(depth); err != nil {
				t.Error(err)
				ready.Done()
			}
		})
	}
	ready.Wait()
	close(hold)
	wg.Wait()
}

// TestOtherGoroutines shares tensors of a scope with goroutines that use, keep and
// close them while the scope goes on.
func TestOtherGoroutines(t *testing.T) {
	before := torch.Alive()
	n := 3000
	if testing.Short() {
		n = 300
	}
	for name, f := range map[string]func(x torch.Tensor){
		"close": func(x torch.Tensor) { x.Close(); x.Close() },
		"keep":  func(x torch.Tensor) { x.Keep().Close() },
		"use":   func(x torch.Tensor) { x.Add(x).SetRequiresGrad(true).Sum().Backward(); x.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func() {
				tensors := make(chan torch.Tensor, 16)
				var wg sync.WaitGroup
				for range 3 {
					wg.Go(func() {
						for x := range tensors {
							err := torch.Scope(func() error { f(x); return nil })
							if err != nil && !strings.Contains(err.Error(), "has been freed") {
								t.Error(err)
							}
						}
					})
				}
				for i := range n {
					x := torch.Ones([]int64{4})
					tensors <- x
					if i%3 == 0 {
						tensors <- x // two goroutines may have the same tensor
					}
					torch.Ones([]int64{4}).Close()
				}
				close(tensors)
				wg.Wait()
			})
		})
	}
	waitAlive(t, before)
}

// TestScopeEndsWhileUsed frees the tensors of a scope while other goroutines read
// them: a call that has begun finishes, and later ones fail.
func TestScopeEndsWhileUsed(t *testing.T) {
	before := torch.Alive()
	for range 100 {
		var wg sync.WaitGroup
		started := make(chan struct{})
		run(t, func() {
			x := torch.Ones([]int64{100, 100})
			for range 3 {
				wg.Go(func() {
					for i := range 1000 {
						err := torch.Scope(func() error {
							if s := x.MM(x).Sum().Item(); s != 1e6 {
								t.Errorf("sum %v", s)
							}
							return nil
						})
						if err != nil {
							return
						}
						if i == 0 {
							started <- struct{}{}
						}
					}
				})
			}
			for range 3 {
				<-started
			}
		})
		wg.Wait()
	}
	waitAlive(t, before)
}

// waitAlive checks that no more tensors are alive than before, once the garbage
// collector has freed those that are kept and forgotten.
func waitAlive(t *testing.T, before int64) {
	t.Helper()
	for range 100 {
		runtime.GC()
		if torch.Alive() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d tensors alive, %d before", torch.Alive(), before)
}

// TestForgotten keeps tensors and forgets them: they must not pile up until Go's own
// heap happens to grow.
func TestForgotten(t *testing.T) {
	const n, each = 200, 16 << 20
	before := torch.Alive()
	var most int64
	for range n {
		run(t, func() { torch.Empty([]int64{each / 4}).Keep() }) // memory that is not touched
		most = max(most, torch.KeptBytes())
	}
	t.Logf("%d MB kept and forgotten, at most %d MB at once", n*each>>20, most>>20)
	if most > 1<<30 && os.Getenv("SANITIZE") == "" { // freeing is slow under a sanitizer
		t.Errorf("%d MB of forgotten tensors at once", most>>20)
	}
	waitAlive(t, before)
}
