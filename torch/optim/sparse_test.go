package optim_test

import (
	"strings"
	"testing"

	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/torch/optim"
)

// TestSparseGradients: who does not take sparse gradients, or dense ones, says so before it changes anything.
func TestSparseGradients(t *testing.T) {
	scoped(t, func() {
		m := nn.Embedding(5, 3)
		defer nn.Close(m)
		params := nn.Parameters(m)
		for _, sparse := range []bool{true, false} {
			m.Sparse = sparse
			m.Weight.SetGrad(torch.Tensor{})
			m.Forward(torch.FromSlice([]int64{1, 4, 1})).Square().Sum().Backward()
			if is := m.Weight.Grad().Layout() == torch.SparseCOO; is != sparse {
				t.Fatalf("Sparse is %v, and the gradient %v", sparse, m.Weight.Grad())
			}
			before := m.Weight.Clone()
			for name, create := range constructors {
				want := ""
				switch name {
				case "SparseAdam":
					if !sparse {
						want = "parameter 0, of shape [5 3], has a dense gradient; use Adam"
					}
				case "SGD", "Adagrad":
				default:
					if sparse {
						want = "parameter 0, of shape [5 3], has a sparse gradient; use SparseAdam, SGD or Adagrad"
					}
				}
				opt := create(t, params, []map[string]any{{}})
				err := torch.Scope(func() error { opt.Step(); return nil })
				switch {
				case want == "" && err != nil:
					t.Errorf("%s: %v", name, err)
				case want != "" && (err == nil || !strings.HasSuffix(err.Error(), want)):
					t.Errorf("%s: got %v, want %s", name, err, want)
				case want != "" && (!m.Weight.Equal(before) || opt.State()[0].Step != 0):
					t.Errorf("%s: the step has changed something", name)
				}
				opt.Close()
				torch.NoGrad(func() { m.Weight.Copy_(before) })
			}
		}
	})
}

// TestSparseRows: a row without a gradient stays as it is, with its moments, whatever came before.
func TestSparseRows(t *testing.T) {
	scoped(t, func() {
		m := nn.Embedding(5, 3)
		defer nn.Close(m)
		m.Sparse = true
		opt := optim.SparseAdam(nn.Parameters(m), optim.SparseAdamDefaults())
		defer opt.Close()
		step := func(ids ...int64) {
			opt.ZeroGrad()
			m.Forward(torch.FromSlice(ids)).Square().Sum().Backward()
			opt.Step()
		}
		step(0, 1)
		row, moment := m.Weight.Select(0, 1).Clone(), opt.State()[0].Tensors[0].Select(0, 1).Clone()
		step(0, 4)
		if !m.Weight.Select(0, 1).Equal(row) || !opt.State()[0].Tensors[0].Select(0, 1).Equal(moment) || moment.CountNonzero().Item() != 3 {
			t.Error("a row that was not used has changed")
		}
		// An empty gradient counts as a step, as in PyTorch.
		before := m.Weight.Clone()
		opt.ZeroGrad()
		m.Weight.SetGrad(torch.SparseCooTensorSize([]int64{5, 3}))
		opt.Step()
		if !m.Weight.Equal(before) || opt.State()[0].Step != 3 {
			t.Errorf("step %d", opt.State()[0].Step)
		}
	})
}

// TestSparseFailures: options, parameters and combinations that PyTorch refuses too.
func TestSparseFailures(t *testing.T) {
	scoped(t, func() {
		w := torch.Ones([]int64{3, 2}).SetRequiresGrad(true)
		w.SetGrad(torch.Ones([]int64{3, 2}).ToSparse())
		adam := func(p torch.Tensor, change func(o *optim.SparseAdamOptions)) func() {
			return func() {
				o := optim.SparseAdamDefaults()
				change(&o)
				optim.SparseAdam([]torch.Tensor{p}, o)
			}
		}
		none := func(*optim.SparseAdamOptions) {}
		for name, c := range map[string]struct {
			text string
			f    func()
		}{
			"learning rate": {"LR must be at least 0", adam(w, func(o *optim.SparseAdamOptions) { o.LR = -1 })},
			"beta":          {"Beta2 must be at least 0 and less than 1", adam(w, func(o *optim.SparseAdamOptions) { o.Beta2 = 1 })},
			"eps":           {"Eps must be more than 0", adam(w, func(o *optim.SparseAdamOptions) { o.Eps = 0 })},
			"sparse":        {"parameter 0, of shape [2 2], has layout sparse_coo; only dense parameters", adam(torch.Eye(2).ToSparse(), none)},
			"complex":       {"has dtype complex64; only real parameters", adam(torch.Ones([]int64{2}, torch.WithDType(torch.Complex64)), none)},
			"ClipGradNorm":  {"a parameter of shape [3 2] has a sparse gradient; only dense ones can be clipped", func() { optim.ClipGradNorm([]torch.Tensor{w}, 1) }},
			"ClipGradValue": {"a parameter of shape [3 2] has a sparse gradient; only dense ones can be clipped", func() { optim.ClipGradValue([]torch.Tensor{w}, 1) }},
			"Adagrad": {"WeightDecay is 0.5, but a parameter of shape [3 2] has a sparse gradient", func() {
				o := optim.AdagradDefaults()
				o.WeightDecay = 0.5
				a := optim.Adagrad([]torch.Tensor{w}, o)
				defer a.Close()
				a.Step()
			}},
			"SGD": {"WeightDecay is 0.5, but a parameter of shape [3 2] has a sparse gradient", func() {
				a := optim.SGD([]torch.Tensor{w}, optim.SGDOptions{LR: 0.1, WeightDecay: 0.5})
				defer a.Close()
				a.Step()
			}},
		} {
			err := torch.Scope(func() error { c.f(); return nil })
			if err == nil || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%s: got %v, want %s", name, err, c.text)
			}
		}
	})
}

// TestLBFGSSparse: LBFGS makes sparse gradients dense, as in PyTorch.
func TestLBFGSSparse(t *testing.T) {
	scoped(t, func() {
		var after []torch.Tensor
		for _, sparse := range []bool{false, true} {
			torch.ManualSeed(1)
			m := nn.Embedding(5, 3)
			defer nn.Close(m)
			m.Sparse = sparse
			opt := optim.LBFGS(nn.Parameters(m), optim.LBFGSDefaults())
			defer opt.Close()
			opt.Step(func() torch.Tensor {
				opt.ZeroGrad()
				loss := m.Forward(torch.FromSlice([]int64{1, 4})).Square().Square().Sum()
				loss.Backward()
				return loss
			})
			after = append(after, m.Weight)
		}
		if !after[0].Equal(after[1]) {
			t.Errorf("%v with dense gradients, %v with sparse ones", after[0], after[1])
		}
	})
}
