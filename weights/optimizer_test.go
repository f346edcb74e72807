package weights_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cyclecap/torch"
	"cyclecap/torch/compare"
	"cyclecap/torch/nn"
	"cyclecap/torch/optim"
	"cyclecap/weights"
)

// nadam is the net and the optimizer of testdata/make_optimizer_fixtures.py.
func nadam() (*nn.SequentialModule, *optim.Of[optim.NAdamOptions]) {
	torch.ManualSeed(6)
	m := nn.Sequential(nn.Linear(5, 7, true), nn.Tanh(), nn.Linear(7, 3, true))
	p := nn.Parameters(m)
	opt := optim.NAdam(p[:2], optim.NAdamDefaults())
	o := optim.NAdamDefaults()
	o.LR, o.WeightDecay, o.DecoupledWeightDecay = 0.03, 0.1, true
	opt.AddGroup(p[2:], o)
	return m, opt
}

// step20 sets the weights of a net to those after 20 steps, and returns those after 50.
func step20(t *testing.T, m any) (want map[string][]float32, tolerance compare.Tolerance) {
	text, err := os.ReadFile("testdata/optimizer.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		CPU  string
		From map[string][]float32 `json:"20"`
		To   map[string][]float32 `json:"50"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	torch.NoGrad(func() {
		for _, p := range nn.NamedParameters(m) {
			p.Tensor.Copy_(torch.FromSlice(file.From[p.Name], p.Tensor.Shape()...))
		}
	})
	if processor, err := compare.Processor(); err != nil || processor != file.CPU {
		tolerance = tolerance.OtherProcessor()
	}
	return file.To, tolerance
}

// goOn takes steps 20 to 50, and compares the weights.
func goOn(t *testing.T, m *nn.SequentialModule, opt optim.Optimizer, want map[string][]float32, tolerance compare.Tolerance) {
	t.Helper()
	torch.ManualSeed(5)
	xs, ys := torch.Randn([]int64{50, 4, 5}), torch.Randn([]int64{50, 4, 3})
	for step := int64(20); step < 50; step++ {
		opt.ZeroGrad()
		m.Forward(xs.Select(0, step)).MseLoss(ys.Select(0, step)).Backward()
		opt.Step()
	}
	for _, p := range nn.NamedParameters(m) {
		if d := compare.Tensors(*p.Tensor, torch.FromSlice(want[p.Name], p.Tensor.Shape()...)); !tolerance.Within(d) {
			t.Errorf("%s: %v", p.Name, d)
		}
	}
}

// TestOptimizer continues what Python began, and what Go wrote from it.
func TestOptimizer(t *testing.T) {
	threads := torch.NumThreads()
	torch.SetNumThreads(1)
	defer torch.SetNumThreads(threads)
	before := torch.Alive()
	ours := filepath.Join(t.TempDir(), "ours.pt")
	for _, path := range []string{"testdata/optimizer.pt", ours} {
		err := torch.Scope(func() error {
			m, opt := nadam()
			defer nn.Close(m)
			defer opt.Close()
			opt.SetLR(77) // the options come from the file too
			opt.Options(1).DecoupledWeightDecay = false
			if err := weights.LoadOptimizer(path, opt); err != nil {
				return err
			}
			if path != ours {
				if err := weights.SaveOptimizer(context.Background(), ours, opt); err != nil {
					return err
				}
				// Python goes on from this file, in make_optimizer_fixtures.py.
				got, err := os.ReadFile(ours)
				want, err2 := os.ReadFile("testdata/optimizer_go.pt")
				if err != nil || err2 != nil || !bytes.Equal(got, want) {
					t.Errorf("the file differs from testdata/optimizer_go.pt (%v, %v)", err, err2)
				}
			}
			want, tolerance := step20(t, m)
			goOn(t, m, opt, want, tolerance)
			return nil
		})
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	if after := torch.Alive(); after != before {
		t.Errorf("%d tensors are alive that were not before", after-before)
	}
}

// TestSparseAdam takes Python's steps, whose state is Python's file, and writes the step as an int, as
// Python's own SparseAdam needs it. make_optimizer_fixtures.py reads the golden file.
func TestSparseAdam(t *testing.T) {
	golden, err := os.ReadFile("testdata/sparse_adam_go.pt")
	if err != nil {
		t.Fatal(err)
	}
	err = torch.Scope(func() error {
		torch.ManualSeed(6)
		m := nn.Embedding(9, 4)
		defer nn.Close(m)
		m.Sparse = true
		o := optim.SparseAdamDefaults()
		o.LR = 0.1
		trained, loaded := optim.SparseAdam(nn.Parameters(m), o), optim.SparseAdam(nn.Parameters(m), optim.SparseAdamDefaults())
		defer trained.Close()
		defer loaded.Close()
		for step := range int64(20) {
			trained.ZeroGrad()
			m.Forward(torch.FromSlice([]int64{step % 9, 3, 3})).Square().Sum().Backward()
			trained.Step()
		}
		if err := weights.LoadOptimizer("testdata/sparse_adam.pt", loaded); err != nil {
			return err
		}
		for name, opt := range map[string]optim.Optimizer{"trained": trained, "loaded": loaded} {
			path := filepath.Join(t.TempDir(), "x.pt")
			if err := weights.SaveOptimizer(context.Background(), path, opt); err != nil {
				return err
			}
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, golden) {
				t.Errorf("%s: the file differs from testdata/sparse_adam_go.pt (%v)", name, err)
			}
			if err := weights.LoadOptimizer(path, opt); err != nil || opt.State()[0].Step != 20 {
				t.Errorf("%s: %v, step %d", name, err, opt.State()[0].Step)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestOptimizerRefuses loads what does not fit.
func TestOptimizerRefuses(t *testing.T) {
	err := torch.Scope(func() error {
		m, opt := nadam()
		defer nn.Close(m)
		defer opt.Close()
		p := nn.Parameters(m)
		two := func(o optim.Optimizer, add func()) optim.Optimizer { add(); return o }
		adamax := optim.Adamax(p[:2], optim.AdamaxDefaults())
		swapped := optim.NAdam(p[2:], optim.NAdamDefaults())
		for _, c := range []struct {
			name, path, want string
			opt              optim.Optimizer
		}{
			{"one group", "testdata/optimizer.pt", "2 groups of parameters, but the optimizer has 1", optim.NAdam(p, optim.NAdamDefaults())},
			{"another optimizer", "testdata/optimizer.pt", "which optim.Adamax does not have", two(adamax, func() { adamax.AddGroup(p[2:], optim.AdamaxDefaults()) })},
			{"other shapes", "testdata/optimizer.pt", "parameter 0 has shape [3 7], but its exp_avg has shape [7 5]", two(swapped, func() { swapped.AddGroup(p[:2], optim.NAdamDefaults()) })},
			{"weights", "testdata/zip.pt", "there is no state", opt},
			{"safetensors", "testdata/single.safetensors", "not a file in the format of torch.save", opt},
			{"no file", "testdata/none.pt", "no such file", opt},
		} {
			lr := c.opt.LR()
			if err := weights.LoadOptimizer(c.path, c.opt); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: got %v, want %q", c.name, err, c.want)
			}
			if c.opt.LR() != lr {
				t.Errorf("%s: the optimizer has changed", c.name)
			}
		}
		if err := weights.SaveOptimizer(context.Background(), filepath.Join(t.TempDir(), "x.safetensors"), opt); err == nil || !strings.Contains(err.Error(), "use .pt") {
			t.Errorf("safetensors: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
