package devicetest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"

	"cyclecap/internal/testdevice"
	"cyclecap/torch"
	"cyclecap/torch/compare"
	"cyclecap/torch/nn"
	"cyclecap/train"
)

// device is the device to test.
var device torch.Device

// pretend reports whether it is the pretend accelerator.
func pretend() bool { return device == testdevice.Device }

// exact reports whether the device must return the CPU's bits.
func exact() bool { return device.Type != torch.CUDADevice }

// Tolerances for CUDA, relative to the largest value of the CPU's tensor. The kernels
// add in another order. TF32 is off.
const (
	forward  = 1e-4
	gradient = 1e-3
	// halved is for bf16, whose numbers have 8 bits: a sum that is rounded
	// differently differs by 2^-8, and more after several layers.
	halved = 5e-2
	// trained is for losses and weights after a few steps.
	trained = 2e-2
	// floor is within every tolerance: a gradient that is 0 but for rounding has no
	// digits to compare.
	floor = 1e-6
)

func TestMain(m *testing.M) {
	// The modes and thread pools of libtorch are per OS thread.
	runtime.LockOSThread()
	name := os.Getenv("CYCLECAP_TEST_DEVICE")
	if name == "" {
		name = testdevice.Device.String()
	}
	if name == testdevice.Device.String() {
		fatal(testdevice.Open())
	}
	// Convolutions use TF32 by default. The libraries read this when they are loaded.
	os.Setenv("NVIDIA_TF32_OVERRIDE", "0")
	// For torch.UseDeterministicAlgorithms.
	os.Setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
	var err error
	device, err = torch.ParseDevice(name)
	fatal(err)
	os.Exit(m.Run())
}

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "devicetest:", err)
		os.Exit(1)
	}
}

// scope runs f in a scope, and checks that it leaves no tensors behind.
func scope(t *testing.T, f func() error) {
	t.Helper()
	before := torch.Alive()
	if err := torch.Scope(f); err != nil {
		t.Fatal(err)
	}
	if n := torch.Alive() - before; n > 0 {
		t.Errorf("%d tensors are left", n)
	}
}

// result is a named result of a computation.
type result struct {
	name string
	torch.Tensor
}

// compareDevices runs f on the CPU and on the device, each time from the same random state,
// and compares the results. On CUDA they may differ by rel times the largest value.
func compareDevices(t *testing.T, rel float64, f func(d torch.Device) []result) {
	t.Helper()
	scope(t, func() error { return compareHere(t, rel, f) })
}

// compareHere is compareDevices in the current scope. f may leave tensors behind.
func compareHere(t *testing.T, rel float64, f func(d torch.Device) []result) error {
	t.Helper()
	torch.ManualSeed(7)
	want := f(torch.CPU)
	torch.ManualSeed(7)
	got := f(device)
	if len(got) != len(want) || len(got) == 0 {
		t.Fatalf("%d results, want %d", len(got), len(want))
	}
	worst, where := 0.0, ""
	for i, g := range got {
		w := want[i]
		if g.name != w.name {
			t.Fatalf("result %d is %s, want %s", i, g.name, w.name)
		}
		if g.Defined() && g.Device() != device {
			t.Errorf("%s is on %v, want %v", g.name, g.Device(), device)
		}
		if d := differ(t, rel, w, g); d > worst {
			worst, where = d, g.name
		}
	}
	if worst != 0 {
		t.Logf("largest difference: %.2g (%s)", worst, where)
	}
	return nil
}

// differ fails the test if two results differ by more than rel times the largest value,
// and returns by how much of it they differ.
func differ(t *testing.T, rel float64, want, got result) float64 {
	t.Helper()
	d := compare.Tensors(got.Tensor, want.Tensor)
	tolerance := compare.Tolerance{Relative: rel, Max: floor}
	if exact() {
		tolerance = compare.Bits
	}
	if !tolerance.Within(d) {
		t.Errorf("%s, of which the CPU's may differ by %v: %v", got.name, tolerance, d)
	}
	return d.Relative()
}

// to moves a tensor that was made on the CPU, so that its values are equal everywhere.
func to(d torch.Device, x torch.Tensor) torch.Tensor { return x.To(torch.WithDevice(d)) }

// moved moves a module that was made on the CPU.
func moved[M any](d torch.Device, m M) M {
	nn.To(m, torch.WithDevice(d))
	return m
}

// learned returns y, and the gradients of a weighted sum of y in the parameters of
// modules.
func learned(y torch.Tensor, modules ...any) []result {
	weights := torch.Arange(0, y.Numel(), torch.WithDType(torch.Float32)).Cos().View(y.Shape())
	y.To(torch.WithDType(torch.Float32)).Mul(to(y.Device(), weights)).Sum().Backward()
	out := []result{{"output", y.Detach()}}
	for _, m := range modules {
		for _, p := range nn.NamedParameters(m) {
			out = append(out, result{"gradient of " + p.Name, p.Tensor.Grad()})
		}
	}
	return out
}

// matrix returns random features.
func matrix(n, width int, seed uint64) train.Matrix {
	rng := rand.New(rand.NewPCG(seed, 0))
	m := train.Matrix{Data: make([]float32, n*width), Cols: width}
	for i := range m.Data {
		m.Data[i] = float32(rng.NormFloat64())
	}
	return m
}

// texts returns random texts.
func texts(n, vocab int) *train.Texts {
	rng := rand.New(rand.NewPCG(7, 7))
	t := &train.Texts{}
	for range n {
		ids := make([]int, 3+rng.IntN(6))
		for i := range ids {
			ids[i] = 1 + rng.IntN(vocab-1)
		}
		t.Add(ids)
	}
	return t
}
