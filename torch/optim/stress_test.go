package optim_test

import (
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/torch/optim"
)

// sanitized reports whether `make sanitize` runs the tests. Sanitizers hold freed memory
// back to detect its use, so the size of the process says nothing there.
var sanitized = os.Getenv("SANITIZE") != ""

// TestStress trains small networks for 20,000 steps in all, in several goroutines that
// share their inputs, fail now and then, keep tensors that they forget, and close
// tensors of each other, while the garbage collector runs all the time. Each network
// must end with the weights that it gets when it trains alone. Under `make sanitize`
// nothing of it may touch memory that was freed.
func TestStress(t *testing.T) {
	const goroutines = 4
	steps := 5_000
	if testing.Short() {
		steps = 1_500
	}
	before := torch.Alive()
	var x torch.Tensor
	if err := torch.Scope(func() error {
		torch.ManualSeed(3)
		x = torch.Randn([]int64{8, 16}).Keep()
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	passed := make(chan torch.Tensor, 64) // tensors that another goroutine closes
	train := func(seed uint64, together bool) []float32 {
		g := torch.NewGenerator(torch.CPU).ManualSeed(seed)
		var weights []float32
		err := torch.Scope(func() error {
			m := nn.Sequential(nn.Linear(16, 8, true), nn.Tanh(), nn.Linear(8, 4, true))
			defer nn.Close(m)
			torch.NoGrad(func() {
				for _, p := range nn.Parameters(m) {
					p.Copy_(torch.RandnGenerator(p.Shape(), g).MulScalar(0.1))
				}
			})
			opt := optim.Adam(nn.Parameters(m), optim.AdamDefaults())
			defer opt.Close()
			for step := range steps {
				err := torch.Scope(func() error {
					opt.ZeroGrad()
					m.Forward(x).MseLoss(x.Narrow(1, 0, 4)).Backward()
					opt.Step()
					if !together {
						return nil
					}
					kept := torch.Ones([]int64{64}).Keep()
					select {
					case passed <- kept:
					case other := <-passed:
						other.Close()
						kept.Close()
					}
					switch step % 50 {
					case 0:
						x.MM(x) // shapes that do not fit
					case 1:
						torch.Cat([]torch.Tensor{x, x.Narrow(1, 0, 2)})
					case 2:
						torch.Ones([]int64{1000}).Keep() // forgotten
					}
					return nil
				})
				if failing := together && step%50 < 2; (err != nil) != failing || failing && !strings.Contains(err.Error(), "float32[8,16]") {
					t.Errorf("step %d: %v", step, err)
				}
			}
			for _, p := range nn.Parameters(m) {
				weights = append(weights, torch.ToSlice[float32](p)...)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		return weights
	}
	var stop atomic.Bool
	var collector, wg sync.WaitGroup
	collector.Go(func() {
		for !stop.Load() {
			runtime.GC()
			time.Sleep(time.Millisecond)
		}
	})
	var got [goroutines][]float32
	for i := range got {
		wg.Go(func() { got[i] = train(uint64(i), true) })
	}
	wg.Wait()
	stop.Store(true)
	collector.Wait()
	want := train(1, false)
	for k, w := range want {
		if got[1][k] != w {
			t.Fatalf("weight %d is %v, and %v when it trains alone", k, got[1][k], w)
		}
	}
	close(passed)
	for x := range passed {
		x.Close()
	}
	x.Close()
	for i := 0; torch.Alive() > before; i++ { // what was forgotten
		if i == 100 {
			t.Fatalf("%d tensors alive, %d before", torch.Alive(), before)
		}
		runtime.GC()
	}
}
