package distributed_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cyclecap/torch"
	"cyclecap/torch/distributed"

	"github.com/google/go-cmp/cmp"
)

// alone returns a group of one process.
func alone(t *testing.T, backend string) (*distributed.Group, error) {
	t.Helper()
	if !distributed.IsAvailable() {
		t.Skip("this libtorch has no c10d with Gloo")
	}
	g, err := distributed.InitProcessGroup(t.Context(), distributed.Options{WorldSize: 1, MasterAddr: "localhost", MasterPort: freePort(t), Timeout: 20 * time.Second, Backend: backend})
	t.Cleanup(g.Close)
	return g, err
}

// Without a GPU, the library for NCCL is opened and libtorch's class is called, which
// says that there is none.
func TestNCCLWithoutGPU(t *testing.T) {
	n, why := torch.CUDADevices()
	if n > 0 {
		t.Skip("there is a GPU")
	}
	_, err := alone(t, distributed.NCCL)
	if err == nil {
		t.Fatal("a group over NCCL without a GPU")
	}
	t.Log(err)
	l, libErr := torch.FindLibraries()
	if libErr != nil {
		t.Fatal(libErr)
	}
	const name = "libcyclecap_torch_nccl.so"
	if _, statErr := os.Stat(filepath.Join(filepath.Dir(l.Shim), name)); statErr != nil {
		if !strings.Contains(err.Error(), "built without NCCL") {
			t.Errorf("%q does not say that the shim lacks NCCL", err)
		}
		t.Skip("the shim was built without NCCL")
	}
	for _, want := range []string{"rank 0 of 1", "NCCL needs a GPU", why.Error()} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	if !strings.Contains(why.Error(), "libtorch_cuda.so is loaded") {
		t.Skip(why)
	}
	maps, readErr := os.ReadFile("/proc/self/maps")
	if readErr != nil {
		t.Skip(readErr)
	}
	if !strings.Contains(string(maps), "/"+name) {
		t.Errorf("%s was not opened", name)
	}
}

// CUDA tensors go through every collective, and CPU tensors of the same group too.
func TestCUDATensors(t *testing.T) {
	if n, why := torch.CUDADevices(); n == 0 {
		t.Skip(why)
	}
	for _, backend := range []string{"", distributed.NCCL, distributed.Gloo} {
		g, err := alone(t, backend)
		if err != nil {
			t.Errorf("backend %q: %v", backend, err)
			continue
		}
		for _, d := range []torch.Device{torch.CUDA(0), torch.CPU} {
			if err := torch.Scope(func() error {
				x := torch.FromSlice([]float32{1, 2}).To(torch.WithDevice(d))
				p := torch.Ones([]int64{2}, torch.WithDevice(d)).SetRequiresGrad(true)
				p.Mul(x).Sum().Backward()
				all, err := g.AllGather(x)
				if err := errors.Join(err, g.AllReduce(x, distributed.Sum), g.AllReduce(x, distributed.Avg), g.Broadcast(x, 0), g.Barrier(),
					distributed.AverageGradients(g, []torch.Tensor{p})); err != nil {
					return err
				}
				if x.Device() != d || all[0].Device() != d {
					t.Errorf("results on %v and %v, want %v", x.Device(), all[0].Device(), d)
				}
				got := [][]float32{torch.ToSlice[float32](x), torch.ToSlice[float32](all[0]), torch.ToSlice[float32](p.Grad())}
				if diff := cmp.Diff([][]float32{{1, 2}, {1, 2}, {1, 2}}, got); diff != "" {
					t.Errorf("backend %q, %v: %s", backend, d, diff)
				}
				return nil
			}); err != nil {
				t.Errorf("backend %q, %v: %v", backend, d, err)
			}
		}
	}
}
