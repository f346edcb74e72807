package devicetest

import (
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"cyclecap/torch"
	"cyclecap/torch/distributed"
)

// TestGroup runs every collective operation on CUDA tensors, in a group of one process,
// over NCCL and over Gloo.
func TestGroup(t *testing.T) {
	if device.Type != torch.CUDADevice {
		t.Skip("needs a GPU")
	}
	for _, backend := range []string{distributed.NCCL, distributed.Gloo} {
		t.Run(backend, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			port := l.Addr().(*net.TCPAddr).Port
			l.Close()
			g, err := distributed.InitProcessGroup(t.Context(), distributed.Options{WorldSize: 1, MasterAddr: "127.0.0.1", MasterPort: port,
				Timeout: time.Minute, Backend: backend})
			if err != nil {
				t.Fatal(err)
			}
			defer g.Close()
			scope(t, func() error {
				x := to(device, torch.FromSlice([]float32{1, 2, 3}))
				all, err := g.AllGather(x)
				if err := errors.Join(err, g.Broadcast(x, 0), g.AllReduce(x, distributed.Sum), g.AllReduce(x, distributed.Avg), g.Barrier()); err != nil {
					return err
				}
				for _, y := range []torch.Tensor{x, all[0]} {
					if got := torch.ToSlice[float32](y); y.Device() != device || !slices.Equal(got, []float32{1, 2, 3}) {
						t.Errorf("got %v on %v", got, y.Device())
					}
				}
				return nil
			})
		})
	}
}
