// Package optim provides PyTorch's optimizers, and learning rate schedules. A
// step calls the same operators as PyTorch's in the same order: on the CPU those
// of the single-tensor implementation, and on other devices those of the foreach
// implementation, which PyTorch uses there by default. On the CPU weights remain
// bit-identical to PyTorch's over any number of steps. No function of this package
// waits for the device.
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
	"errors"
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
	lists  bool     // call foreach operators on the CPU too, for tests
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

// foreach reports whether a step calls operators on lists of parameters instead of on
// each parameter, as PyTorch does by default on every device but the CPU.
func (b *base) foreach() bool { return b.lists || b.params[0].Device() != torch.CPU }

// A group is the parameters of one device and dtype that have a gradient. PyTorch groups
// them like this too; the kernels that update a whole list at once require it.
type group struct {
	params, grads []torch.Tensor
	index         []int         // in the list of all parameters
	states        []*ParamState // set by updateLists
}

// groupsOf returns the groups of params, in the order of their first parameters.
func groupsOf(params []torch.Tensor) []*group {
	type kind struct {
		device torch.Device
		dtype  torch.DType
	}
	var groups []*group
	of := map[kind]*group{}
	for i, p := range params {
		grad := p.Grad()
		if !grad.Defined() {
			continue
		}
		k := kind{p.Device(), p.DType()}
		g := of[k]
		if g == nil {
			g = &group{}
			of[k] = g
			groups = append(groups, g)
		}
		g.params, g.grads, g.index = append(g.params, p), append(g.grads, grad), append(g.index, i)
	}
	return groups
}

// updateLists calls f for each group.
func (b *base) updateLists(f func(g *group)) {
	torch.NoGrad(func() {
		torch.Tidy(func() torch.Tensor {
			for _, g := range groupsOf(b.params) {
				for _, i := range g.index {
					g.states = append(g.states, &b.state[i])
				}
				f(g)
			}
			return torch.Tensor{}
		})
	})
}

// moments counts a step and returns the moments of Adam.
func (g *group) moments() (avgs, avgSqs []torch.Tensor) {
	for i, s := range g.states {
		avg, avgSq := s.moments(g.params[i])
		avgs, avgSqs = append(avgs, avg), append(avgSqs, avgSq)
	}
	return avgs, avgSqs
}

// perStep returns a number for each parameter that depends on its number of steps.
func (g *group) perStep(f func(step float64) float64) []float64 {
	out := make([]float64, len(g.states))
	for i, s := range g.states {
		if i > 0 && s.Step == g.states[i-1].Step {
			out[i] = out[i-1]
		} else {
			out[i] = f(float64(s.Step))
		}
	}
	return out
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
	steps     []torch.Tensor // step counts on the device, for the fused kernel
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
	switch {
	case a.o.Fused && a.params[0].Device() != torch.Meta: // the meta device has no fused kernel
		a.updateLists(a.fused)
	case a.foreach():
		a.updateLists(a.list)
	default:
		a.updateLists(a.blocks)
	}
}

// blocks updates a group of the CPU.
func (a *adam) blocks(g *group) {
	op, kind := "optim.Adam", shim.AdamPlain
	if a.decoupled {
		op, kind = "optim.AdamW", shim.AdamDecoupled
	}
	g.adam(op, kind, a.lr, a.o, a.root, a.size)
}

// adam runs a step of Adam on a group of the CPU: operator by operator as PyTorch's loop over
// the parameters, but on blocks that stay in the cache.
func (g *group) adam(op string, kind int, lr float64, o AdamOptions, root, size func(t float64) float64) {
	avgs, avgSqs := g.moments()
	var all []any
	for _, list := range [][]torch.Tensor{g.params, g.grads, avgs, avgSqs} {
		for _, t := range list {
			all = append(all, t)
		}
	}
	c := shim.Adam{Kind: kind, LR: lr, Beta1: o.Beta1, Beta2: o.Beta2, Eps: o.Eps, WeightDecay: o.WeightDecay}
	err := shim.Lend(op, func(p []uintptr) error { return shim.AdamStep(c, p, g.perStep(root), g.perStep(size)) }, all...)
	if e := (*shim.Error)(nil); errors.As(err, &e) {
		panic(&torch.Error{Kind: torch.Kind(e.Kind), Op: op, Text: e.Text})
	} else if err != nil {
		torch.Throw(op, "%v", err)
	}
}

// root returns the square root of the second bias correction at step t.
func (a *adam) root(t float64) float64 {
	return shim.Pow(1-shim.Pow(a.o.Beta2, t), 0.5) // not Sqrt, which differs from PyTorch in the last bit at some steps
}

// size returns the factor of the update at step t.
func (a *adam) size(t float64) float64 { return -(a.lr / (1 - shim.Pow(a.o.Beta1, t))) }

func (a *adam) list(g *group) {
	avgs, avgSqs := g.moments()
	grads := g.grads
	if a.o.WeightDecay != 0 {
		if a.decoupled {
			torch.ForeachMulScalar_(g.params, 1-a.lr*a.o.WeightDecay)
		} else {
			grads = torch.ForeachAdd(grads, g.params, torch.WithAlpha(a.o.WeightDecay))
		}
	}
	torch.ForeachLerpScalar_(avgs, grads, 1-a.o.Beta1)
	torch.ForeachMulScalar_(avgSqs, a.o.Beta2)
	torch.ForeachAddcmul_(avgSqs, grads, grads, torch.WithValue(1-a.o.Beta2))
	denoms := torch.ForeachSqrt(avgSqs)
	torch.ForeachDivScalars_(denoms, g.perStep(a.root))
	torch.ForeachAddScalar_(denoms, a.o.Eps)
	torch.ForeachAddcdivScalars_(g.params, avgs, denoms, g.perStep(a.size))
}

// fused updates a group in one call.
func (a *adam) fused(g *group) {
	avgs, avgSqs := g.moments()
	call := torch.FusedAdam_
	if a.decoupled {
		call = torch.FusedAdamw_
	}
	call(g.params, g.grads, avgs, avgSqs, nil, a.counts(g), a.lr, a.o.Beta1, a.o.Beta2, a.o.WeightDecay, a.o.Eps, false, false)
}

// counts returns the step counts of a group as tensors, which the fused kernel requires.
// On other devices than the CPU they stay on the device, as in PyTorch, because copying
// them there in each step would take longer than the step.
func (a *adam) counts(g *group) (counts []torch.Tensor) {
	full := func(i int, v int64) torch.Tensor {
		return torch.Full([]int64{}, float64(v), torch.WithDType(torch.Float32), torch.WithDevice(g.params[i].Device()))
	}
	if !a.foreach() {
		for i, s := range g.states {
			counts = append(counts, full(i, s.Step))
		}
		return counts
	}
	if a.steps == nil {
		a.steps = make([]torch.Tensor, len(a.params))
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

func (a *adam) SetState(s []ParamState) error {
	err := a.base.SetState(s)
	if err == nil {
		a.forget()
	}
	return err
}

// forget frees the step counts on the device.
func (a *adam) forget() {
	for _, t := range a.steps {
		t.Close()
	}
	a.steps = nil
}

func (a *adam) Close() {
	a.base.Close()
	a.forget()
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
	if a.foreach() {
		a.updateLists(a.list)
	} else {
		a.updateLists(a.blocks)
	}
}

// blocks updates a group of the CPU.
func (a *transformersAdamW) blocks(g *group) {
	one := func(float64) float64 { return 1 } // not used
	g.adam("optim.TransformersAdamW", shim.AdamTransformers, a.lr, a.o, one, a.size)
}

// list updates a group of another device. transformers has only a loop over the parameters;
// the elements go through the same arithmetic.
func (a *transformersAdamW) list(g *group) {
	avgs, avgSqs := g.moments()
	torch.ForeachMulScalar_(avgs, a.o.Beta1)
	torch.ForeachAdd_(avgs, g.grads, torch.WithAlpha(1-a.o.Beta1))
	torch.ForeachMulScalar_(avgSqs, a.o.Beta2)
	torch.ForeachAddcmul_(avgSqs, g.grads, g.grads, torch.WithValue(1-a.o.Beta2))
	denoms := torch.ForeachSqrt(avgSqs)
	torch.ForeachAddScalar_(denoms, a.o.Eps)
	torch.ForeachAddcdivScalars_(g.params, avgs, denoms, g.perStep(a.size))
	if a.o.WeightDecay > 0 {
		torch.ForeachAdd_(g.params, g.params, torch.WithAlpha(-a.lr*a.o.WeightDecay))
	}
}

// size returns the factor of the update at step t.
func (a *transformersAdamW) size(t float64) float64 {
	return -(a.lr * math.Sqrt(1-shim.Pow(a.o.Beta2, t)) / (1 - shim.Pow(a.o.Beta1, t)))
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
	if o.foreach() {
		o.updateLists(o.list)
	} else {
		o.update(o.single)
	}
}

func (o *sgd) single(p, g torch.Tensor, s *ParamState) {
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
}

func (o *sgd) list(g *group) {
	grads := g.grads
	if o.o.WeightDecay != 0 {
		grads = torch.ForeachAdd(grads, g.params, torch.WithAlpha(o.o.WeightDecay))
	}
	if o.o.Momentum != 0 {
		buffers := o.buffers(g, grads)
		if o.o.Nesterov {
			grads = torch.ForeachAdd(grads, buffers, torch.WithAlpha(o.o.Momentum))
		} else {
			grads = buffers
		}
	}
	for _, s := range g.states {
		s.Step++
	}
	torch.ForeachAdd_(g.params, grads, torch.WithAlpha(-o.lr))
}

// buffers updates the momentum of a group and returns it.
func (o *sgd) buffers(g *group, grads []torch.Tensor) (buffers []torch.Tensor) {
	started := true
	for _, s := range g.states {
		started = started && s.Tensors != nil
	}
	for i, s := range g.states {
		switch {
		case s.Tensors == nil:
			s.Tensors = []torch.Tensor{grads[i].Clone().Keep()}
		case !started: // some parameters have their first gradient
			s.Tensors[0].MulScalar_(o.o.Momentum).Add_(grads[i], torch.WithAlpha(1-o.o.Dampening))
		}
		buffers = append(buffers, s.Tensors[0])
	}
	if started {
		torch.ForeachMulScalar_(buffers, o.o.Momentum)
		torch.ForeachAdd_(buffers, grads, torch.WithAlpha(1-o.o.Dampening))
	}
	return buffers
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
// scaling, a tensor without dimensions on the gradients' device, or 0 if there are no
// gradients. Reading the norm waits for the device; clipping does not.
func ClipGradNorm(params []torch.Tensor, limit float64) torch.Tensor {
	return clipGradNorm(params, limit, false)
}

func clipGradNorm(params []torch.Tensor, limit float64, lists bool) (total torch.Tensor) {
	torch.NoGrad(func() {
		total = torch.Tidy(func() torch.Tensor {
			groups := groupsOf(params)
			if len(groups) == 0 {
				return torch.Scalar0[float32](0)
			}
			device := groups[0].params[0].Device()
			lists = lists || device != torch.CPU
			var norms []torch.Tensor
			for _, g := range groups {
				of := g.norms(lists)
				for _, n := range of {
					norms = append(norms, n.To(torch.WithDevice(device)))
				}
			}
			norm := torch.Stack(norms).LinalgVectorNorm()
			// Python computes limit / (norm + 1e-6) as a reciprocal and a product.
			factor := norm.AddScalar(1e-6).Reciprocal().MulScalar(limit).Clamp(torch.WithMax(1.0))
			for _, g := range groups {
				own := factor.To(torch.WithDevice(g.params[0].Device()))
				if lists {
					torch.ForeachMul_(g.grads, own)
					continue
				}
				for _, grad := range g.grads {
					grad.Mul_(own)
				}
			}
			return norm
		})
	})
	return total
}

// norms returns the norm of each gradient.
func (g *group) norms(lists bool) (norms []torch.Tensor) {
	if lists {
		return torch.ForeachNorm(g.grads)
	}
	for _, grad := range g.grads {
		norms = append(norms, grad.LinalgVectorNorm())
	}
	return norms
}

// ClipGradValue is torch.nn.utils.clip_grad_value_.
func ClipGradValue(params []torch.Tensor, limit float64) {
	torch.NoGrad(func() {
		torch.Tidy(func() torch.Tensor {
			for _, g := range groupsOf(params) {
				if g.params[0].Device() != torch.CPU {
					torch.ForeachClampMin_(g.grads, -limit)
					torch.ForeachClampMax_(g.grads, limit)
					continue
				}
				for _, grad := range g.grads {
					grad.Clamp_(torch.WithMin(-limit), torch.WithMax(limit))
				}
			}
			return torch.Tensor{}
		})
	})
}
