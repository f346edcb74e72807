// Package optim provides PyTorch's optimizers, and learning rate schedules. On
// the CPU a step calls the same operators as PyTorch's single-tensor
// implementation in the same order, so that weights remain bit-identical to
// PyTorch's over any number of steps.
//
//	opt := optim.AdamW(nn.Parameters(model), optim.AdamWDefaults())
//	defer opt.Close()
//	for step := range steps {
//		err := torch.Scope(func() error {
//			opt.ZeroGrad()
//			loss(model).Backward()
//			opt.SetLR(lr * optim.WarmupLinear(step, warmup, steps))
//			opt.Step()
//			return nil
//		})
//		…
//	}
//
// The parameters must outlive the optimizer. Close frees the optimizer's own
// tensors. Invalid options panic with a *torch.Error, which the enclosing scope
// returns.
package optim

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"cyclecap/torch"
	"cyclecap/torch/internal/shim"
)

// An Optimizer updates parameters using their gradients.
type Optimizer interface {
	// Step updates every parameter that has a gradient. It must be called in
	// a scope.
	Step()
	// ZeroGrad clears the gradients, like zero_grad(set_to_none=True).
	ZeroGrad()
	// LR and SetLR return and set the learning rate, for schedules.
	LR() float64
	SetLR(lr float64)
	// State returns the state of each parameter, in the order of the
	// parameters. The tensors still belong to the optimizer.
	State() []ParamState
	// StateNames returns the names of the tensors of a ParamState in PyTorch's
	// state dict: "exp_avg" and "exp_avg_sq" for Adam and AdamW,
	// "momentum_buffer" for SGD.
	StateNames() []string
	// SetState restores a state returned by State. It takes ownership of the
	// tensors and moves them to the parameters' device; their shapes must
	// match the parameters'. If it fails, the optimizer is unchanged. It must
	// be called in a scope.
	SetState([]ParamState) error
	// Close frees the state but not the parameters.
	Close()
}

// ParamState is the state of one parameter: PyTorch's optimizer.state[p].
type ParamState struct {
	Step    int64
	Tensors []torch.Tensor // in the order of StateNames; nil before the first step
}

// base is the common part of the optimizers.
type base struct {
	params []torch.Tensor
	state  []ParamState
	lr     float64
	names  []string // names of the tensors in state
}

func newBase(op string, params []torch.Tensor, lr float64, names ...string) base {
	if len(params) == 0 {
		torch.Throw(op, "the list of parameters is empty")
	}
	for i, p := range params {
		if !p.IsLeaf() {
			torch.Throw(op, "parameter %d, of shape %v, is not a leaf tensor but the result of an operator; only leaf tensors can be optimized", i, p.Shape())
		}
	}
	within(op, "LR", lr, math.Inf(1))
	return base{params: slices.Clone(params), state: make([]ParamState, len(params)), lr: lr, names: names}
}

// within throws unless v is in [0, limit).
func within(op, name string, v, limit float64) {
	if !(v >= 0 && v < limit) {
		torch.Throw(op, "%s must be at least 0 and less than %v, got %v", name, limit, v)
	}
}

func (b *base) ZeroGrad() {
	for _, p := range b.params {
		p.SetGrad(torch.Tensor{})
	}
}

func (b *base) LR() float64      { return b.lr }
func (b *base) SetLR(lr float64) { b.lr = lr }

func (b *base) State() []ParamState  { return slices.Clone(b.state) }
func (b *base) StateNames() []string { return slices.Clone(b.names) }

func (b *base) SetState(s []ParamState) error {
	if len(s) != len(b.params) {
		return fmt.Errorf("optim: the state has %d parameters, but the optimizer has %d", len(s), len(b.params))
	}
	for i, p := range s {
		if len(p.Tensors) != 0 && len(p.Tensors) != len(b.names) {
			return fmt.Errorf("optim: the state of parameter %d has %d tensors, want %d (%s)", i, len(p.Tensors), len(b.names), strings.Join(b.names, ", "))
		}
		for k, t := range p.Tensors {
			if !slices.Equal(t.Shape(), b.params[i].Shape()) {
				return fmt.Errorf("optim: parameter %d has shape %v, but its %s has shape %v", i, b.params[i].Shape(), b.names[k], t.Shape())
			}
		}
	}
	for i, p := range s {
		own := b.state[i].Tensors
		b.state[i] = ParamState{Step: p.Step}
		if len(p.Tensors) > 0 {
			b.state[i].Tensors = slices.Clone(p.Tensors)
		}
		for k, t := range p.Tensors {
			if d := b.params[i].Device(); t.Device() != d {
				moved := t.To(torch.WithDevice(d))
				t.Close()
				t = moved
			}
			b.state[i].Tensors[k] = t.Keep()
		}
		for _, t := range own {
			if !slices.Contains(b.state[i].Tensors, t) {
				t.Close()
			}
		}
	}
	return nil
}

func (b *base) Close() {
	for i := range b.state {
		for _, t := range b.state[i].Tensors {
			t.Close()
		}
		b.state[i] = ParamState{}
	}
}

// update calls f for each parameter that has a gradient.
func (b *base) update(f func(p, grad torch.Tensor, s *ParamState)) {
	torch.NoGrad(func() {
		for i, p := range b.params {
			torch.Tidy(func() torch.Tensor {
				g := p.Grad()
				if g.Defined() {
					f(p, g, &b.state[i])
				}
				return torch.Tensor{}
			})
		}
	})
}

// moments counts a step and returns the moments of Adam, which it creates as
// zeros in the first step.
func (s *ParamState) moments(p torch.Tensor) (avg, avgSq torch.Tensor) {
	if s.Tensors == nil {
		s.Tensors = []torch.Tensor{
			p.ZerosLike(torch.WithMemoryFormat(torch.PreserveFormat)).Keep(),
			p.ZerosLike(torch.WithMemoryFormat(torch.PreserveFormat)).Keep(),
		}
	}
	s.Step++
	return s.Tensors[0], s.Tensors[1]
}

// AdamOptions configures Adam and AdamW; the names are PyTorch's.
type AdamOptions struct {
	LR           float64
	Beta1, Beta2 float64
	Eps          float64
	WeightDecay  float64
	// Fused selects libtorch's fused kernel instead of a sequence of operators
	// (PyTorch's fused=True). It is faster; low-order bits differ.
	Fused bool
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

func newAdamBase(op string, params []torch.Tensor, o AdamOptions) base {
	within(op, "Beta1", o.Beta1, 1)
	within(op, "Beta2", o.Beta2, 1)
	within(op, "Eps", o.Eps, math.Inf(1))
	within(op, "WeightDecay", o.WeightDecay, math.Inf(1))
	return newBase(op, params, o.LR, "exp_avg", "exp_avg_sq")
}

type adam struct {
	base
	o         AdamOptions
	decoupled bool
}

// Adam is torch.optim.Adam. The weight decay is added to the gradient.
func Adam(params []torch.Tensor, o AdamOptions) Optimizer {
	return &adam{base: newAdamBase("optim.Adam", params, o), o: o}
}

// AdamW is torch.optim.AdamW. The weight decay is applied to the weights.
func AdamW(params []torch.Tensor, o AdamOptions) Optimizer {
	return &adam{base: newAdamBase("optim.AdamW", params, o), o: o, decoupled: true}
}

func (a *adam) Step() {
	if a.o.Fused && a.params[0].Device() != torch.Meta { // the meta device has no fused kernel
		a.fused()
		return
	}
	b1, b2 := a.o.Beta1, a.o.Beta2
	a.update(func(p, g torch.Tensor, s *ParamState) {
		avg, avgSq := s.moments(p)
		if a.o.WeightDecay != 0 {
			if a.decoupled {
				p.MulScalar_(1 - a.lr*a.o.WeightDecay)
			} else {
				g = g.Add(p, torch.WithAlpha(a.o.WeightDecay))
			}
		}
		avg.LerpScalar_(g, 1-b1)
		avgSq.MulScalar_(b2).Addcmul_(g, g, torch.WithValue(1-b2))
		t := float64(s.Step)
		stepSize := a.lr / (1 - shim.Pow(b1, t))
		root := shim.Pow(1-shim.Pow(b2, t), 0.5) // not Sqrt, which differs from PyTorch in the last bit at some steps
		denom := avgSq.Sqrt().DivScalar_(root).AddScalar_(a.o.Eps)
		p.Addcdiv_(avg, denom, torch.WithValue(-stepSize))
	})
}

// fused updates all parameters in one call.
func (a *adam) fused() {
	torch.NoGrad(func() {
		torch.Tidy(func() torch.Tensor {
			var params, grads, avgs, avgSqs, maxes, steps []torch.Tensor
			for i, p := range a.params {
				g := p.Grad()
				if !g.Defined() {
					continue
				}
				s := &a.state[i]
				avg, avgSq := s.moments(p)
				params, grads = append(params, p), append(grads, g)
				avgs, avgSqs = append(avgs, avg), append(avgSqs, avgSq)
				steps = append(steps, torch.Full([]int64{}, float64(s.Step), torch.WithDType(torch.Float32), torch.WithDevice(p.Device())))
			}
			if len(params) == 0 {
				return torch.Tensor{}
			}
			call := torch.FusedAdam_
			if a.decoupled {
				call = torch.FusedAdamw_
			}
			call(params, grads, avgs, avgSqs, maxes, steps, a.lr, a.o.Beta1, a.o.Beta2, a.o.WeightDecay, a.o.Eps, false, false)
			return torch.Tensor{}
		})
	})
}

type transformersAdamW struct {
	base
	o AdamOptions
}

// TransformersAdamW is transformers' own AdamW, since removed, with which ClipCap
// trains: eps is added before the bias correction, and the decoupled weight decay
// is applied after the update. ClipCap changes only the learning rate of
// TransformersAdamWDefaults.
func TransformersAdamW(params []torch.Tensor, o AdamOptions) Optimizer {
	return &transformersAdamW{base: newAdamBase("optim.TransformersAdamW", params, o), o: o}
}

func (a *transformersAdamW) Step() {
	b1, b2 := a.o.Beta1, a.o.Beta2
	a.update(func(p, g torch.Tensor, s *ParamState) {
		avg, avgSq := s.moments(p)
		avg.MulScalar_(b1).Add_(g, torch.WithAlpha(1-b1))
		avgSq.MulScalar_(b2).Addcmul_(g, g, torch.WithValue(1-b2))
		denom := avgSq.Sqrt().AddScalar_(a.o.Eps)
		t := float64(s.Step)
		stepSize := a.lr * math.Sqrt(1-shim.Pow(b2, t)) / (1 - shim.Pow(b1, t))
		p.Addcdiv_(avg, denom, torch.WithValue(-stepSize))
		if a.o.WeightDecay > 0 {
			p.Add_(p, torch.WithAlpha(-a.lr*a.o.WeightDecay))
		}
	})
}

// SGDOptions configures SGD; the names are PyTorch's.
type SGDOptions struct {
	LR          float64
	Momentum    float64
	Dampening   float64
	WeightDecay float64
	Nesterov    bool
}

type sgd struct {
	base
	o SGDOptions
}

// SGD is torch.optim.SGD.
func SGD(params []torch.Tensor, o SGDOptions) Optimizer {
	const op = "optim.SGD"
	within(op, "Momentum", o.Momentum, math.Inf(1))
	within(op, "WeightDecay", o.WeightDecay, math.Inf(1))
	if o.Nesterov && (o.Momentum == 0 || o.Dampening != 0) {
		torch.Throw(op, "Nesterov momentum requires a momentum and zero dampening")
	}
	return &sgd{base: newBase(op, params, o.LR, "momentum_buffer"), o: o}
}

func (o *sgd) Step() {
	o.update(func(p, g torch.Tensor, s *ParamState) {
		if o.o.WeightDecay != 0 {
			g = g.Add(p, torch.WithAlpha(o.o.WeightDecay))
		}
		if o.o.Momentum != 0 {
			if s.Tensors == nil {
				s.Tensors = []torch.Tensor{g.Clone().Keep()}
			} else {
				s.Tensors[0].MulScalar_(o.o.Momentum).Add_(g, torch.WithAlpha(1-o.o.Dampening))
			}
			if o.o.Nesterov {
				g = g.Add(s.Tensors[0], torch.WithAlpha(o.o.Momentum))
			} else {
				g = s.Tensors[0]
			}
		}
		s.Step++
		p.Add_(g, torch.WithAlpha(-o.lr))
	})
}

// WarmupLinear is transformers' get_linear_schedule_with_warmup. It returns the
// factor for the learning rate at a step (counted from 0), which increases
// linearly to 1 over the first warmup steps and then decreases to 0 at step
// total.
func WarmupLinear(step, warmup, total int) float64 {
	if step < warmup {
		return float64(step) / float64(max(1, warmup))
	}
	return max(0, float64(total-step)/float64(max(1, total-warmup)))
}

// ConstantLinear is the schedule of the CycleGAN authors. It returns the factor
// for the learning rate in an epoch (counted from 0), which is 1 in the first
// constant epochs and then decreases linearly over decay epochs, so that it
// would reach 0 in the epoch after the last.
func ConstantLinear(epoch, constant, decay int) float64 {
	return 1 - float64(max(0, epoch+1-constant))/float64(decay+1)
}

// ClipGradNorm is torch.nn.utils.clip_grad_norm_ with the 2-norm: it scales the
// gradients so that their total norm is at most limit. It returns the norm before
// scaling: 0 if there are no gradients, NaN on the meta device.
func ClipGradNorm(params []torch.Tensor, limit float64) float64 {
	var total float64
	torch.NoGrad(func() {
		torch.Tidy(func() torch.Tensor {
			var grads, norms []torch.Tensor
			for _, p := range params {
				if g := p.Grad(); g.Defined() {
					grads = append(grads, g)
					norms = append(norms, g.LinalgVectorNorm())
				}
			}
			if len(grads) == 0 {
				return torch.Tensor{}
			}
			norm := torch.Stack(norms).LinalgVectorNorm()
			// Python computes limit / (norm + 1e-6) as a reciprocal and a product.
			factor := norm.AddScalar(1e-6).Reciprocal().MulScalar(limit).Clamp(torch.WithMax(1.0))
			for _, g := range grads {
				g.Mul_(factor)
			}
			if total = math.NaN(); norm.Device() != torch.Meta {
				total = norm.Item()
			}
			return torch.Tensor{}
		})
	})
	return total
}

// ClipGradValue is torch.nn.utils.clip_grad_value_.
func ClipGradValue(params []torch.Tensor, limit float64) {
	torch.NoGrad(func() {
		torch.Tidy(func() torch.Tensor {
			for _, p := range params {
				if g := p.Grad(); g.Defined() {
					g.Clamp_(torch.WithMin(-limit), torch.WithMax(limit))
				}
			}
			return torch.Tensor{}
		})
	})
}
