package testdevice

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"cyclecap/torch"
	"cyclecap/torch/torchtest"
)

func TestMain(m *testing.M) {
	if err := Open(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

var on = torch.WithDevice(Device)

func scope(t *testing.T, f func()) {
	t.Helper()
	if err := torch.Scope(func() error { f(); return nil }); err != nil {
		t.Fatal(err)
	}
}

// each runs f on the CPU and on the device, from the same seed, and compares the
// results.
func each(t *testing.T, what string, f func(d torch.Device) []torch.Tensor) {
	t.Helper()
	scope(t, func() {
		var out [2][]torch.Tensor
		for i, d := range []torch.Device{torch.CPU, Device} {
			torch.ManualSeed(5)
			torch.OnDevice(d, func() { out[i] = f(d) })
		}
		for i, x := range out[1] {
			if x.Device() != Device {
				t.Errorf("%s: result %d is on %v", what, i, x.Device())
			}
			torchtest.Bits(t, x, out[0][i], what, ": result ", i)
		}
	})
}

func TestOperators(t *testing.T) {
	for what, f := range map[string]func(d torch.Device) []torch.Tensor{
		"random": func(d torch.Device) []torch.Tensor {
			g := torch.NewGenerator(d).ManualSeed(3)
			return []torch.Tensor{torch.Randn([]int64{100}), torch.Rand([]int64{7}), torch.Randint(0, 9, []int64{20}), torch.Empty([]int64{3, 4}).Normal_(torch.WithGenerator(g)), torch.Randperm(9)}
		},
		"in place, on views": func(torch.Device) []torch.Tensor {
			x := torch.Zeros([]int64{4, 5})
			x.Select(0, 1).Fill_(2)
			x.Transpose(0, 1).Narrow(0, 2, 2).AddScalar_(1)
			y := x.View([]int64{2, 10}).Unsqueeze(0)
			y.MulScalar_(3)
			return []torch.Tensor{x, y, x.Select(0, 1), x.Slice(torch.WithStep(2)).Contiguous()}
		},
		"lists": func(torch.Device) []torch.Tensor {
			x := torch.Randn([]int64{6, 4})
			parts := x.Split(2)
			parts[1].Fill_(7)
			return append([]torch.Tensor{x, torch.Cat(parts, torch.WithDim(1))}, x.Unbind()...)
		},
		"indexing": func(d torch.Device) []torch.Tensor {
			x := torch.Randn([]int64{6, 4})
			rows := torch.FromSlice([]int64{3, 0, 3}).To(torch.WithDevice(d))
			best, index := x.Topk(2)
			return []torch.Tensor{x.IndexSelect(0, rows), x.Gather(1, index), best, index, x.Argmax(torch.WithDim(-1)), x.MaskedFill(x.GtScalar(0), 1)}
		},
		"matrices": func(torch.Device) []torch.Tensor {
			x, w := torch.Randn([]int64{33, 65}), torch.Randn([]int64{65, 17})
			return []torch.Tensor{x.Matmul(w), x.T().Contiguous(), x.Softmax(-1), x.Logsumexp([]int64{-1}), torch.LayerNorm(x, []int64{65}), x.Sum(), x.To(torch.WithDType(torch.BFloat16)).Matmul(w.To(torch.WithDType(torch.BFloat16)))}
		},
		"numbers of the CPU": func(torch.Device) []torch.Tensor {
			x := torch.Randn([]int64{3})
			return []torch.Tensor{x.Add(torch.Scalar0(float32(2))), torch.Scalar0(float32(2)).Mul(x)}
		},
	} {
		each(t, what, f)
	}
}

// TestGradients checks the kernels for which libtorch chooses by the device, and
// their gradients.
func TestGradients(t *testing.T) {
	for what, f := range map[string]func(x torch.Tensor) torch.Tensor{
		"attention": func(x torch.Tensor) torch.Tensor {
			q := x.View([]int64{2, 4, 16, 8})
			return torch.ScaledDotProductAttention(q, q.MulScalar(0.5), q.AddScalar(1), torch.WithIsCausal(true))
		},
		"layer norm": func(x torch.Tensor) torch.Tensor {
			return torch.LayerNorm(x.View([]int64{-1, 32}), []int64{32}, torch.WithWeight(torch.Full([]int64{32}, 1.5, torch.WithDevice(x.Device()))))
		},
		"convolution": func(x torch.Tensor) torch.Tensor {
			w := x.Narrow(0, 0, 72).View([]int64{4, 2, 3, 3})
			return torch.Conv2d(x.View([]int64{2, 2, 16, 16}), w, torch.WithStride([]int64{2, 2}))
		},
		"gelu": func(x torch.Tensor) torch.Tensor { return x.GeluNew() },
		"cross entropy": func(x torch.Tensor) torch.Tensor {
			return x.View([]int64{32, 32}).CrossEntropyLoss(torch.Arange(0, 32, torch.WithDType(torch.Int64), torch.WithDevice(x.Device())))
		},
		"dropout": func(x torch.Tensor) torch.Tensor { return torch.Dropout(x, 0.3, true) },
		"l1":      func(x torch.Tensor) torch.Tensor { return x.L1Loss(x.Detach().MulScalar(0.5)) },
		"bce":     func(x torch.Tensor) torch.Tensor { return x.BinaryCrossEntropyWithLogits(x.FullLike(1)) },
		"max":     func(x torch.Tensor) torch.Tensor { return x.Abs().Max() },
		"twice":   func(x torch.Tensor) torch.Tensor { return x.Tanh().Mul(x.Tanh()).Add(x) },
	} {
		each(t, what, func(torch.Device) []torch.Tensor {
			x := torch.Randn([]int64{1024}).SetRequiresGrad(true)
			y := f(x)
			y.Mul(y).Sum().Backward()
			return []torch.Tensor{y.Detach(), x.Grad()}
		})
	}
}

func TestAutocast(t *testing.T) {
	each(t, "autocast", func(d torch.Device) []torch.Tensor {
		x, w := torch.Randn([]int64{8, 32}).SetRequiresGrad(true), torch.Randn([]int64{16, 32}).SetRequiresGrad(true)
		var out []torch.Tensor
		torch.Autocast(d.Type, torch.BFloat16, func() {
			y := torch.Linear(x, w)
			z := torch.LayerNorm(y, []int64{16}).Matmul(w.Narrow(0, 0, 16))
			loss := z.MseLoss(torch.Zeros([]int64{8, 32}))
			loss.Add(torch.Cat([]torch.Tensor{z, x}).Mean()).Backward()
			out = []torch.Tensor{y.Detach(), z.Detach(), loss.Detach(), x.Grad(), w.Grad()}
		})
		return out
	})
}

func TestMixedDevicesFail(t *testing.T) {
	for what, f := range map[string]func(x, host torch.Tensor){
		"add":                      func(x, host torch.Tensor) { x.Add(host) },
		"reversed":                 func(x, host torch.Tensor) { host.Add(x) },
		"in place":                 func(x, host torch.Tensor) { x.Add_(host) },
		"into a number of the CPU": func(x, _ torch.Tensor) { torch.Scalar0(float32(1)).Add_(x.Select(0, 0).Select(0, 0)) },
		"matmul":                   func(x, host torch.Tensor) { x.Matmul(host) },
		"linear":                   func(x, host torch.Tensor) { torch.Linear(x, host) },
		"cat":                      func(x, host torch.Tensor) { torch.Cat([]torch.Tensor{x, host}) },
		"norm":                     func(x, host torch.Tensor) { torch.LayerNorm(x, []int64{4}, torch.WithWeight(host.Select(0, 0))) },
		"loss":                     func(x, host torch.Tensor) { x.MseLoss(host) },
		"generator":                func(x, _ torch.Tensor) { x.Uniform_(torch.WithGenerator(torch.NewGenerator(torch.CPU))) },
	} {
		err := torch.Scope(func() error {
			f(torch.Ones([]int64{4, 4}, on), torch.Ones([]int64{4, 4}))
			return nil
		})
		var e *torch.Error
		if !errors.As(err, &e) {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if !strings.Contains(e.Text, "Expected all tensors to be on the same device") && !strings.Contains(e.Text, "generator") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestOutOfMemory(t *testing.T) {
	before := Allocated()
	err := torch.Scope(func() error {
		torch.Empty([]int64{1 << 40}, on)
		return nil
	})
	var e *torch.Error
	if !errors.As(err, &e) || e.Kind != torch.OutOfMemoryError {
		t.Errorf("got %v", err)
	}
	scope(t, func() {
		if v := torch.Ones([]int64{3}, on).Sum().Item(); v != 3 {
			t.Errorf("the sum is %g", v)
		}
	})
	if now := Allocated(); now != before {
		t.Errorf("%d bytes are in use, %d before", now, before)
	}
}

func TestCounts(t *testing.T) {
	scope(t, func() {
		count := func(what string, want Counts, f func()) {
			t.Helper()
			Reset()
			f()
			if got := Read(); got != want {
				t.Errorf("%s: %+v, want %+v; %v", what, got, want, Operators())
			}
		}
		host := torch.FromSlice([]float32{1, 2, 3, 4})
		var x torch.Tensor
		count("copy to the device", Counts{ToDevice: 1, Synchronized: 1}, func() { x = host.To(on) })
		count("copy to the host", Counts{ToHost: 1, Synchronized: 1}, func() { torch.ToSlice[float32](x) })
		count("operators", Counts{Operators: 2}, func() { x.Add(x).Mul(x) })
		count("views", Counts{}, func() { x.View([]int64{2, 2}).T().Select(0, 1) })
		count("item", Counts{ToHost: 1, Synchronized: 1, Operators: 1}, func() { x.Sum().Item() })
		count("synchronize", Counts{Synchronized: 1}, func() {
			if err := torch.Synchronize(Device); err != nil {
				t.Error(err)
			}
		})
	})
}

func TestNewMemoryIsNaN(t *testing.T) {
	scope(t, func() {
		for _, v := range torch.ToSlice[float32](torch.Empty([]int64{100}, on)) {
			if !math.IsNaN(float64(v)) {
				t.Fatalf("new memory contains %g", v)
			}
		}
	})
}

// TestHostAccessEndsTheProgram reads and writes device memory in a program of its own.
func TestHostAccessEndsTheProgram(t *testing.T) {
	const name = "CYCLECAP_TEST_TOUCH"
	if how := os.Getenv(name); how != "" {
		torch.Scope(func() error {
			p := (*float32)(unsafe.Add(unsafe.Pointer(nil), torch.Ones([]int64{4}, on).DataPtr()))
			switch how {
			case "read":
				fmt.Println(*p)
			case "write":
				*p = 1
			case "read in C":
				fmt.Println(readInC(unsafe.Pointer(p)))
			}
			return nil
		})
		os.Exit(0)
	}
	for _, how := range []string{"read", "write", "read in C"} {
		cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), name+"="+how)
		out, err := cmd.CombinedOutput()
		if err == nil {
			t.Errorf("%s: the program did not fail", how)
		}
		for _, want := range []string{"the host accessed device memory at 0x", "testdevice_test.go"} {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s: %q is not in\n%s", how, want, out)
			}
		}
	}
}

// TestGoFaultsStayPanics checks that the device's signal handler passes on Go's own.
func TestGoFaultsStayPanics(t *testing.T) {
	defer func() {
		if p := recover(); p == nil || !strings.Contains(fmt.Sprint(p), "nil pointer") {
			t.Errorf("recovered %v", p)
		}
	}()
	var p *int
	fmt.Println(*p)
}

// TestOtherLibrary calls the operators that the library registers with libtorch.
func TestOtherLibrary(t *testing.T) {
	scope(t, func() {
		x := torch.FromSlice([]float32{1, 2})
		for _, c := range []struct {
			name string
			args []any
			want []float32
		}{
			{"scaled", []any{x}, []float32{2, 4}},
			{"scaled", []any{x, 3}, []float32{3, 6}},
			{"scaled", []any{x.To(on), torch.With("by", 0.5)}, []float32{0.5, 1}},
			{"scaled.value", []any{x, 3}, []float32{3, 6}},
		} {
			got := torch.Call("testdevice::"+c.name, c.args...)
			if len(got) != 1 || !slices.Equal(torch.ToSlice[float32](got[0].(torch.Tensor)), c.want) {
				t.Errorf("%s(%v) = %v, want %v", c.name, c.args, got, c.want)
			}
		}
	})
	if err := torch.LoadLibrary("missing.so"); err == nil || !strings.Contains(err.Error(), "missing.so") {
		t.Errorf("opening a file that does not exist: %v", err)
	}
}
