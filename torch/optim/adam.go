package optim

import (
	"errors"
	"math"

	"cyclecap/torch"
	"cyclecap/torch/internal/shim"
)

// AdamOptions configures Adam and AdamW; the names are PyTorch's.
type AdamOptions struct {
	LR          float64 `torch:"lr"`
	Beta1       float64 `torch:"betas.0"`
	Beta2       float64 `torch:"betas.1"`
	Eps         float64
	WeightDecay float64
	Amsgrad     bool // the largest second moment so far counts
	Maximize    bool // steps go along the gradient
	// Fused selects libtorch's fused kernel instead of a sequence of operators
	// (PyTorch's fused=True). It is faster; low-order bits differ.
	Fused bool `torch:"-"`
}

// AdamDefaults returns PyTorch's defaults for Adam: learning rate 1e-3, betas 0.9
// and 0.999, eps 1e-8, no weight decay.
func AdamDefaults() AdamOptions {
	return AdamOptions{LR: 1e-3, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8}
}

// AdamWDefaults returns PyTorch's defaults for AdamW: those of Adam with a weight
// decay of 1e-2.
func AdamWDefaults() AdamOptions {
	o := AdamDefaults()
	o.WeightDecay = 1e-2
	return o
}

// TransformersAdamWDefaults returns transformers' defaults: those of Adam with
// eps 1e-6.
func TransformersAdamWDefaults() AdamOptions {
	o := AdamDefaults()
	o.Eps = 1e-6
	return o
}

// The tensors in the state of Adam.
const (
	expAvg = iota
	expAvgSq
	maxExpAvgSq
	adamTensors
)

func adamRules(op string, decoupled bool) *rules[AdamOptions] {
	return &rules[AdamOptions]{
		op:       op,
		check:    func(o *AdamOptions) { o.check(op) },
		maximize: func(o *AdamOptions) bool { return o.Maximize },
		names:    []string{"exp_avg", "exp_avg_sq", "max_exp_avg_sq"},
		uses:     func(o *AdamOptions, i int, _ torch.Tensor) bool { return i != maxExpAvgSq || o.Amsgrad },
		extra:    map[string]any{"decoupled_weight_decay": decoupled, "foreach": nil, "capturable": false, "differentiable": false, "fused": nil},
		step: func(a *Of[AdamOptions], o *AdamOptions, g *group) {
			s := adamStep{a, o, decoupled}
			switch {
			case o.Fused && g.params[0].Device() != torch.Meta: // the meta device has no fused kernel
				s.fused(g)
			case a.foreach():
				s.list(g)
			case o.Amsgrad:
				each(func(_ *AdamOptions, p, grad torch.Tensor, state *ParamState) { s.single(p, grad, state) })(a, o, g)
			default:
				kind := shim.AdamPlain
				if decoupled {
					kind = shim.AdamDecoupled
				}
				g.adam(op, kind, *o, o.root, o.size)
			}
		},
	}
}

func (o *AdamOptions) check(op string) {
	within(op, "Beta1", o.Beta1, 1)
	within(op, "Beta2", o.Beta2, 1)
	within(op, "Eps", o.Eps, math.Inf(1))
	within(op, "WeightDecay", o.WeightDecay, math.Inf(1))
}

var (
	adamOf  = adamRules("optim.Adam", false)
	adamWOf = adamRules("optim.AdamW", true)
)

// Adam is torch.optim.Adam. The weight decay is added to the gradient.
func Adam(params []torch.Tensor, o AdamOptions) *Of[AdamOptions] { return newOf(adamOf, params, o) }

// AdamW is torch.optim.AdamW. The weight decay is applied to the weights.
func AdamW(params []torch.Tensor, o AdamOptions) *Of[AdamOptions] { return newOf(adamWOf, params, o) }

// moments counts a step and returns the moments of Adam, which are zeros before the first
// step.
func (s *ParamState) moments(p torch.Tensor, n int) (avg, avgSq torch.Tensor) {
	avg, avgSq = s.zeros(expAvg, n, p), s.zeros(expAvgSq, n, p)
	s.Step++
	return avg, avgSq
}

// moments counts a step and returns the moments of Adam.
func (g *group) moments() (avgs, avgSqs []torch.Tensor) {
	for i, s := range g.states {
		avg, avgSq := s.moments(g.params[i], adamTensors)
		avgs, avgSqs = append(avgs, avg), append(avgSqs, avgSq)
	}
	return avgs, avgSqs
}

// largest returns the largest second moments so far.
func (g *group) largest() (out []torch.Tensor) {
	for i, s := range g.states {
		out = append(out, s.zeros(maxExpAvgSq, adamTensors, g.params[i]))
	}
	return out
}

// adam runs a step of Adam on a group of the CPU: operator by operator as PyTorch's loop over
// the parameters, but on blocks that stay in the cache.
func (g *group) adam(op string, kind int, o AdamOptions, root, size func(t float64) float64) {
	avgs, avgSqs := g.moments()
	var all []any
	for _, list := range [][]torch.Tensor{g.params, g.grads, avgs, avgSqs} {
		for _, t := range list {
			all = append(all, t)
		}
	}
	c := shim.Adam{Kind: kind, LR: o.LR, Beta1: o.Beta1, Beta2: o.Beta2, Eps: o.Eps, WeightDecay: o.WeightDecay}
	err := shim.Lend(op, func(p []uintptr) error { return shim.AdamStep(c, p, g.perStep(root), g.perStep(size)) }, all...)
	if e := (*shim.Error)(nil); errors.As(err, &e) {
		panic(&torch.Error{Kind: torch.Kind(e.Kind), Op: op, Text: e.Text})
	} else if err != nil {
		torch.Throw(op, "%v", err)
	}
}

// root returns the square root of the second bias correction at step t.
func (o *AdamOptions) root(t float64) float64 {
	return shim.Pow(1-shim.Pow(o.Beta2, t), 0.5) // not Sqrt, which differs from PyTorch in the last bit at some steps
}

// size returns the factor of the update at step t.
func (o *AdamOptions) size(t float64) float64 { return -(o.LR / (1 - shim.Pow(o.Beta1, t))) }

type adamStep struct {
	a         *Of[AdamOptions]
	o         *AdamOptions
	decoupled bool
}

// single updates one parameter with amsgrad.
func (s adamStep) single(p, grad torch.Tensor, state *ParamState) {
	avg, avgSq := state.moments(p, adamTensors)
	largest := state.zeros(maxExpAvgSq, adamTensors, p)
	if s.o.WeightDecay != 0 {
		if s.decoupled {
			p.MulScalar_(1 - s.o.LR*s.o.WeightDecay)
		} else {
			grad = grad.Add(p, torch.WithAlpha(s.o.WeightDecay))
		}
	}
	avg.LerpScalar_(grad, 1-s.o.Beta1)
	avgSq.MulScalar_(s.o.Beta2).Addcmul_(grad, grad, torch.WithValue(1-s.o.Beta2))
	largest.Copy_(largest.Maximum(avgSq))
	t := float64(state.Step)
	denom := largest.Sqrt().DivScalar(s.o.root(t)).AddScalar_(s.o.Eps)
	p.Addcdiv_(avg, denom, torch.WithValue(s.o.size(t)))
}

// list updates a group with operators on lists.
func (s adamStep) list(g *group) {
	avgs, avgSqs := g.moments()
	grads := g.grads
	if s.o.WeightDecay != 0 {
		if s.decoupled {
			torch.ForeachMulScalar_(g.params, 1-s.o.LR*s.o.WeightDecay)
		} else {
			grads = torch.ForeachAdd(grads, g.params, torch.WithAlpha(s.o.WeightDecay))
		}
	}
	torch.ForeachLerpScalar_(avgs, grads, 1-s.o.Beta1)
	torch.ForeachMulScalar_(avgSqs, s.o.Beta2)
	torch.ForeachAddcmul_(avgSqs, grads, grads, torch.WithValue(1-s.o.Beta2))
	if s.o.Amsgrad {
		largest := g.largest()
		for i, l := range largest {
			l.Copy_(l.Maximum(avgSqs[i]))
		}
		avgSqs = largest
	}
	denoms := torch.ForeachSqrt(avgSqs)
	torch.ForeachDivScalars_(denoms, g.perStep(s.o.root))
	torch.ForeachAddScalar_(denoms, s.o.Eps)
	torch.ForeachAddcdivScalars_(g.params, avgs, denoms, g.perStep(s.o.size))
}

// fused updates a group in one call.
func (s adamStep) fused(g *group) {
	avgs, avgSqs := g.moments()
	var largest []torch.Tensor
	if s.o.Amsgrad {
		largest = g.largest()
	}
	call := torch.FusedAdam_
	if s.decoupled {
		call = torch.FusedAdamw_
	}
	// The gradients are negated already if Maximize is set.
	call(g.params, g.grads, avgs, avgSqs, largest, s.a.counts(g), s.o.LR, s.o.Beta1, s.o.Beta2, s.o.WeightDecay, s.o.Eps, s.o.Amsgrad, false)
}

// counts returns the step counts of a group as tensors, which the fused kernel requires.
// On other devices than the CPU they stay on the device, as in PyTorch, because copying
// them there in each step would take longer than the step.
func (a *Of[O]) counts(g *group) (counts []torch.Tensor) {
	full := func(i int, v int64) torch.Tensor {
		return torch.Full([]int64{}, float64(v), torch.WithDType(torch.Float32), torch.WithDevice(g.params[i].Device()))
	}
	if !a.foreach() {
		for i, s := range g.states {
			counts = append(counts, full(i, s.Step))
		}
		return counts
	}
	for len(a.steps) < len(a.params) {
		a.steps = append(a.steps, torch.Tensor{})
	}
	for i, s := range g.states {
		own := &a.steps[g.index[i]]
		if !own.Defined() {
			*own = full(i, s.Step-1).Keep()
		}
		counts = append(counts, *own)
	}
	torch.ForeachAddScalar_(counts, 1)
	return counts
}

const transformersOp = "optim.TransformersAdamW"

var transformersOf = &rules[AdamOptions]{
	op: transformersOp,
	check: func(o *AdamOptions) {
		o.check(transformersOp)
		if o.Amsgrad || o.Maximize || o.Fused {
			torch.Throw(transformersOp, "transformers' AdamW has no Amsgrad, Maximize or Fused")
		}
	},
	names: []string{"exp_avg", "exp_avg_sq", "max_exp_avg_sq"},
	uses:  func(_ *AdamOptions, i int, _ torch.Tensor) bool { return i != maxExpAvgSq },
	step: func(a *Of[AdamOptions], o *AdamOptions, g *group) {
		if a.foreach() {
			transformersList(o, g)
			return
		}
		one := func(float64) float64 { return 1 } // not used
		g.adam(transformersOp, shim.AdamTransformers, *o, one, o.transformersSize)
	},
}

// TransformersAdamW is transformers' own AdamW, since removed, with which ClipCap
// trains: eps is added before the bias correction, and the decoupled weight decay
// is applied after the update. ClipCap changes only the learning rate of
// TransformersAdamWDefaults.
func TransformersAdamW(params []torch.Tensor, o AdamOptions) *Of[AdamOptions] {
	return newOf(transformersOf, params, o)
}

// transformersList updates a group of another device. transformers has only a loop over the
// parameters; the elements go through the same arithmetic.
func transformersList(o *AdamOptions, g *group) {
	avgs, avgSqs := g.moments()
	torch.ForeachMulScalar_(avgs, o.Beta1)
	torch.ForeachAdd_(avgs, g.grads, torch.WithAlpha(1-o.Beta1))
	torch.ForeachMulScalar_(avgSqs, o.Beta2)
	torch.ForeachAddcmul_(avgSqs, g.grads, g.grads, torch.WithValue(1-o.Beta2))
	denoms := torch.ForeachSqrt(avgSqs)
	torch.ForeachAddScalar_(denoms, o.Eps)
	torch.ForeachAddcdivScalars_(g.params, avgs, denoms, g.perStep(o.transformersSize))
	if o.WeightDecay > 0 {
		torch.ForeachAdd_(g.params, g.params, torch.WithAlpha(-o.LR*o.WeightDecay))
	}
}

// transformersSize returns the factor of the update at step t.
func (o *AdamOptions) transformersSize(t float64) float64 {
	return -(o.LR * math.Sqrt(1-shim.Pow(o.Beta2, t)) / (1 - shim.Pow(o.Beta1, t)))
}
