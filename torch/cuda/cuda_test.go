package cuda_test

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"cyclecap/torch"
	"cyclecap/torch/cuda"
	"cyclecap/torch/torchtest"
)

// gpu returns cuda:0, or skips the test.
func gpu(t *testing.T) torch.Device {
	if n, why := torch.CUDADevices(); n == 0 {
		t.Skip(why)
	}
	return torch.CUDA(0)
}

func scope(t *testing.T, f func() error) {
	t.Helper()
	if err := torch.Scope(f); err != nil {
		t.Fatal(err)
	}
}

// The switches have PyTorch's defaults, and need no GPU.
func TestSwitches(t *testing.T) {
	if matmul, cudnn := cuda.TF32Allowed(); matmul || !cudnn {
		t.Errorf("TF32 is allowed in matrix products: %v, in cuDNN: %v; PyTorch's defaults are false and true", matmul, cudnn)
	}
	cuda.AllowTF32(true, false)
	if matmul, cudnn := cuda.TF32Allowed(); !matmul || cudnn {
		t.Errorf("after AllowTF32(true, false): %v, %v", matmul, cudnn)
	}
	cuda.AllowTF32(false, true)
	torch.UseDeterministicAlgorithms(true)
	defer torch.UseDeterministicAlgorithms(false)
	if !torch.DeterministicAlgorithms() {
		t.Error("deterministic algorithms are off after they were turned on")
	}
}

// Without a GPU, every function of a device says so.
func TestNoDevice(t *testing.T) {
	d := torch.CUDA(0)
	if n, _ := torch.CUDADevices(); n > 0 {
		d = torch.CUDA(n)
	}
	_, memory := cuda.MemoryOf(d)
	_, properties := cuda.PropertiesOf(d)
	_, stream := cuda.NewStream(d)
	_, graph := cuda.Capture(d, func() { t.Error("the function to record ran") })
	_, cpu := cuda.MemoryOf(torch.CPU)
	for name, err := range map[string]error{"memory": memory, "properties": properties, "stream": stream, "capture": graph,
		"reset": cuda.ResetPeakMemory(d), "cpu": cpu} {
		var e *torch.Error
		if !errors.As(err, &e) || e.Text == "" {
			t.Errorf("%s: %v, want a *torch.Error", name, err)
		}
	}
	if err := cuda.EmptyCache(); err != nil {
		t.Error(err)
	}
}

func TestMemory(t *testing.T) {
	d := gpu(t)
	scope(t, func() error {
		before, err := cuda.MemoryOf(d)
		if err != nil {
			return err
		}
		x := torch.Zeros([]int64{1 << 20}, torch.WithDevice(d))
		after, err := cuda.MemoryOf(d)
		if err != nil {
			return err
		}
		if got := after.Allocated - before.Allocated; got != 4<<20 {
			t.Errorf("4 MiB were allocated, the figure rose by %d", got)
		}
		if after.MaxAllocated < after.Allocated || after.Reserved < after.Allocated || after.Total < after.Reserved {
			t.Errorf("impossible figures: %+v", after)
		}
		x.Close()
		if err := cuda.ResetPeakMemory(d); err != nil {
			return err
		}
		last, err := cuda.MemoryOf(d)
		if last.MaxAllocated != before.Allocated {
			t.Errorf("the peak is %d after its reset, want %d", last.MaxAllocated, before.Allocated)
		}
		return err
	})
	p, err := cuda.PropertiesOf(d)
	if err != nil || p.Name == "" || p.Multiprocessors == 0 || p.Memory == 0 || !strings.Contains(p.Capability, ".") {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestStreamsAndEvents(t *testing.T) {
	d := gpu(t)
	scope(t, func() error {
		s, err := cuda.NewStream(d)
		if err != nil {
			return err
		}
		main, err := cuda.CurrentStream(d)
		if err != nil {
			return err
		}
		begin, err := cuda.NewEvent()
		if err != nil {
			return err
		}
		defer begin.Close()
		end, err := cuda.NewEvent()
		if err != nil {
			return err
		}
		defer end.Close()
		x := torch.Ones([]int64{1024, 1024}, torch.WithDevice(d))
		if err := s.Wait(main); err != nil {
			return err
		}
		var y torch.Tensor
		err = s.On(func() error {
			if now, err := cuda.CurrentStream(d); err != nil || now != s {
				t.Errorf("the current stream is %v (%v), want %v", now, err, s)
			}
			if err := begin.Record(s); err != nil {
				return err
			}
			y = x.Matmul(x)
			return end.Record(s)
		})
		if err != nil {
			return err
		}
		if err := end.Synchronize(); err != nil {
			return err
		}
		if ms, err := begin.Elapsed(end); err != nil || !(ms > 0) {
			t.Errorf("the product took %v ms (%v)", ms, err)
		}
		if now, _ := cuda.CurrentStream(d); now != main {
			t.Errorf("the current stream is not restored: %v", now)
		}
		if got := y.Select(0, 0).Select(0, 0).Item(); got != 1024 {
			t.Errorf("got %v, want 1024", got)
		}
		return s.Synchronize()
	})
}

func TestGraph(t *testing.T) {
	d := gpu(t)
	scope(t, func() error {
		x := torch.FromSlice([]float32{1, 2, 3}).To(torch.WithDevice(d))
		total := torch.Zeros([]int64{3}, torch.WithDevice(d))
		step := func() { total.Add_(x.Mul(x)) }
		step()
		g, err := cuda.Capture(d, step)
		if err != nil {
			return err
		}
		defer g.Close()
		if got := torch.ToSlice[float32](total); !slices.Equal(got, []float32{1, 4, 9}) {
			t.Errorf("the recording ran the work: %v", got)
		}
		x.Copy_(torch.FromSlice([]float32{10, 0, 1}).To(torch.WithDevice(d)))
		for range 2 {
			if err := g.Replay(); err != nil {
				return err
			}
		}
		if got := torch.ToSlice[float32](total); !slices.Equal(got, []float32{201, 4, 11}) {
			t.Errorf("after two replays: %v", got)
		}
		return nil
	})
}

// A recording that fails leaves the device usable.
func TestGraphFails(t *testing.T) {
	d := gpu(t)
	for name, f := range map[string]func(x torch.Tensor){
		"an operator fails": func(x torch.Tensor) { x.View([]int64{7}) },
		"a read":            func(x torch.Tensor) { x.Sum().Item() },
	} {
		scope(t, func() error {
			x := torch.Ones([]int64{3}, torch.WithDevice(d))
			err := torch.Scope(func() error {
				g, err := cuda.Capture(d, func() { f(x) })
				g.Close()
				return err
			})
			if err == nil {
				t.Errorf("%s: no error", name)
			}
			if got := x.AddScalar(1).Sum().Item(); got != 6 {
				t.Errorf("%s: afterwards 3 x (1+1) is %v", name, got)
			}
			return nil
		})
	}
}

// GPT-2's activation has the bits of its operators in one kernel: without gradients in
// f32 and bf16, and with them in f32.
func TestGeluNew(t *testing.T) {
	d := gpu(t)
	// The order of the operators is that in which autograd adds the gradients of x.
	operators := func(x torch.Tensor) torch.Tensor {
		half := x.MulScalar(0.5)
		inner := x.Add(x.PowScalar(3.0).MulScalar(0.044715)).MulScalar(math.Sqrt(2 / math.Pi))
		return half.Mul(inner.Tanh().AddScalar(1.0))
	}
	for _, dtype := range []torch.DType{torch.Float32, torch.BFloat16} {
		scope(t, func() error {
			x := torch.Randn([]int64{1 << 20}, torch.WithDevice(d)).MulScalar(3).To(torch.WithDType(dtype)).SetRequiresGrad(true)
			g := torch.Randn([]int64{1 << 20}, torch.WithDevice(d)).To(torch.WithDType(dtype))
			gradient := func(y torch.Tensor) torch.Tensor {
				x.SetGrad(torch.Tensor{})
				y.Mul(g).Sum().Backward()
				return x.Grad()
			}
			want := operators(x)
			torch.NoGrad(func() {
				torchtest.Bits(t, x.GeluNew(), want, dtype, ": the kernel")
			})
			y := x.GeluNew()
			torchtest.Bits(t, y, want, dtype, ": the recorded activation")
			torchtest.Bits(t, gradient(y), gradient(want), dtype, ": the gradient")
			return nil
		})
	}
}
