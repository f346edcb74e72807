package optim_test

import (
	"os"
	"testing"

	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/torch/optim"

	"github.com/shirou/gopsutil/v4/process"
)

// resident returns the resident memory of this process in bytes.
func resident(t *testing.T) int64 {
	t.Helper()
	self, err := process.NewProcess(int32(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	m, err := self.MemoryInfo()
	if err != nil {
		t.Fatal(err)
	}
	return int64(m.RSS)
}

// TestMemoryIsFlat trains a small MLP for 10,000 steps: nothing may be left
// of a step. Peers of this package grow here.
func TestMemoryIsFlat(t *testing.T) {
	if testing.Short() {
		t.Skip("nothing here is concurrent")
	}
	const steps, warm = 10_000, 1_000
	scoped(t, func() {
		torch.ManualSeed(1)
		m := nn.Sequential(nn.Linear(64, 128, true), nn.ReLU(), nn.Linear(128, 10, true))
		defer nn.Close(m)
		o := optim.AdamDefaults()
		opt := optim.Adam(nn.Parameters(m), o)
		defer opt.Close()
		var early, alive int64
		var first, last float64
		for step := range steps {
			err := torch.Scope(func() error {
				x := torch.Randn([]int64{32, 64})
				y := x.Narrow(1, 0, 10)
				opt.ZeroGrad()
				loss := m.Forward(x).MseLoss(y)
				loss.Backward()
				opt.Step()
				if step == 0 {
					first = loss.Item()
				}
				last = loss.Item()
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if step == warm {
				early, alive = resident(t), torch.Alive()
			}
		}
		late := resident(t)
		t.Logf("resident after %d steps %.1f MB, after %d steps %.1f MB; loss %.3f to %.3f", warm, float64(early)/1e6, steps, float64(late)/1e6, first, last)
		// One leaked gradient a step would be 300 MB by now.
		if grown := late - early; grown > 8<<20 && !sanitized {
			t.Errorf("resident memory grew by %.1f MB over %d steps", float64(grown)/1e6, steps-warm)
		}
		if now := torch.Alive(); now != alive {
			t.Errorf("%d tensors are alive, %d were after %d steps", now, alive, warm)
		}
		if !(last < first/4) {
			t.Errorf("the loss went from %.3f to %.3f: nothing was learned", first, last)
		}
	})
}

// TestMemoryComesBack frees 1 GB of tensors. Unless a program calls TuneAllocator, the
// memory goes back to the operating system: at once if the tensors are large, and after
// ReleaseMemory in any case.
func TestMemoryComesBack(t *testing.T) {
	if sanitized {
		t.Skip("sanitizers hold freed memory back")
	}
	for _, c := range []struct{ tensors, bytes int64 }{{16, 64 << 20}, {1000, 1 << 20}} {
		before := resident(t)
		var most int64
		scoped(t, func() {
			for range c.tensors {
				torch.Full([]int64{c.bytes / 4}, 1.0)
			}
			most = resident(t)
		})
		after := resident(t)
		torch.ReleaseMemory()
		released := resident(t)
		t.Logf("%d tensors of %d KB: resident %d MB before, %d MB with them, %d MB after, %d MB released",
			c.tensors, c.bytes>>10, before>>20, most>>20, after>>20, released>>20)
		if most < before+900<<20 {
			t.Errorf("the tensors take %d MB", (most-before)>>20)
		}
		if c.bytes >= 64<<20 && after > before+64<<20 || released > before+64<<20 {
			t.Errorf("%d MB are left of tensors of %d KB", (after-before)>>20, c.bytes>>10)
		}
	}
}
