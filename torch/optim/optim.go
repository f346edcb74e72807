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
	"fmt"
	"math"
	"slices"
	"strings"

	"cyclecap/torch"
)

// An Optimizer updates parameters using their gradients.
type Optimizer interface {
	// Step updates every parameter that has a gradient. It must be called in
	// a scope.
	Step()
	// ZeroGrad clears the gradients, like zero_grad(set_to_none=True).
	ZeroGrad()
	// LR returns the learning rate of the first group, and SetLR sets that of
	// all groups.
	LR() float64
	SetLR(lr float64)
	// LRs returns the learning rate of each group, and SetLRs sets them.
	LRs() []float64
	SetLRs(lrs []float64)
	// Params returns the parameters of all groups.
	Params() []torch.Tensor
	// State returns the state of each parameter, in the order of the
	// parameters. The tensors still belong to the optimizer.
	State() []ParamState
	// StateNames returns the names of the tensors of a ParamState in PyTorch's
	// state dict: "exp_avg" and "exp_avg_sq" for Adam and AdamW,
	// "momentum_buffer" for SGD with momentum.
	StateNames() []string
	// SetState restores a state returned by State. It takes ownership of the
	// tensors and moves them to the parameters' device; their shapes must
	// match the parameters'. If it fails, the optimizer is unchanged. It must
	// be called in a scope.
	SetState([]ParamState) error
	// StateDict returns state and options as PyTorch's state_dict does. The
	// tensors still belong to the optimizer, except for step counts, which
	// belong to the scope, in which it must be called.
	StateDict() StateDict
	// LoadStateDict restores what StateDict, or PyTorch's state_dict, returned,
	// from copies of the tensors. Groups and shapes must match. If it fails, the
	// optimizer is unchanged. It must be called in a scope.
	LoadStateDict(StateDict) error
	// Close frees the state but not the parameters.
	Close()

	// option returns the float option of a group by PyTorch's name, or nil; at is its
	// place in a tuple, or -1.
	option(group int, name string, at int) *float64
	// initialLR returns the initial learning rate of a group, which is lr the first time,
	// or whenever set is true. Schedulers multiply it.
	initialLR(group int, lr float64, set bool) float64
}

// ParamState is the state of one parameter: PyTorch's optimizer.state[p].
type ParamState struct {
	Step int64
	// Tensors are in the order of StateNames; nil before the first step. In groups
	// with different options, a name that a group does not use has none.
	Tensors []torch.Tensor
}

// StateDict is PyTorch's optimizer.state_dict().
type StateDict struct {
	// State has the state of each parameter by PyTorch's names, which is empty before the
	// first step. Its "step" is an f32 tensor without dimensions; for SparseAdam, whose step is
	// an int in PyTorch, an int64 one.
	State []map[string]torch.Tensor
	// ParamGroups has the options of each group by PyTorch's names: numbers, bools, strings
	// and nil, and lists of them for tuples.
	ParamGroups []map[string]any
	// Params has the indices in State of the parameters of each group.
	Params [][]int
}

// rules are what an optimizer with options of type O consists of.
type rules[O any] struct {
	op       string
	check    func(o *O)                  // throws if an option is invalid
	param    func(i int, p torch.Tensor) // throws if a parameter cannot be optimized; nil: any can
	maximize func(o *O) bool
	names    []string                               // of all tensors in the state
	uses     func(o *O, i int, p torch.Tensor) bool // names[i] is in the state of a parameter; nil: always
	shape    func(p torch.Tensor, i int) []int64    // of names[i], if it is not the parameter's
	noStep   bool                                   // PyTorch's state has no step
	intStep  bool                                   // the step in PyTorch's state is an int, no tensor
	grads    layouts                                // of gradients
	extra    map[string]any                         // options in PyTorch's state dict that have only one value here
	step     func(a *Of[O], o *O, g *group)         // updates parameters of one device and dtype
}

// layouts are those that the gradients of an optimizer may have.
type layouts int

const (
	dense layouts = iota
	anyLayout
	sparse // torch.SparseCOO
)

// checkGrad throws if the optimizer does not take a gradient's layout. n is the number of its parameter.
func (r *rules[O]) checkGrad(n int, grad torch.Tensor) {
	if r.grads == anyLayout {
		return
	}
	is := grad.Layout() == torch.SparseCOO
	switch {
	case r.grads == dense && is:
		torch.Throw(r.op, "parameter %d, of shape %v, has a sparse gradient; use SparseAdam, SGD or Adagrad", n, grad.Shape())
	case r.grads == sparse && !is:
		torch.Throw(r.op, "parameter %d, of shape %v, has a dense gradient; use Adam", n, grad.Shape())
	}
}

func (r *rules[O]) used(o *O, i int, p torch.Tensor) bool { return r.uses == nil || r.uses(o, i, p) }

// Of is an Optimizer with options of type O for each group of parameters.
type Of[O any] struct {
	rules  *rules[O]
	groups []*paramGroup[O]
	params []torch.Tensor // of all groups
	state  []ParamState   // of all parameters; Tensors in the order of rules.names
	lists  bool           // call foreach operators on the CPU too, for tests
	steps  []torch.Tensor // step counts on the device, for fused kernels
}

type paramGroup[O any] struct {
	first  int // index of its first parameter
	params []torch.Tensor
	o      O
	// The initial learning rate, if a scheduler has set it.
	initial    float64
	hasInitial bool
}

func newOf[O any](r *rules[O], params []torch.Tensor, o O) *Of[O] {
	a := &Of[O]{rules: r}
	a.AddGroup(params, o)
	return a
}

// AddGroup adds parameters with options of their own, like add_param_group.
func (a *Of[O]) AddGroup(params []torch.Tensor, o O) {
	op := a.rules.op
	if len(params) == 0 {
		torch.Throw(op, "the list of parameters is empty")
	}
	for i, p := range params {
		if !p.IsLeaf() {
			torch.Throw(op, "parameter %d, of shape %v, is not a leaf tensor but the result of an operator; only leaf tensors can be optimized", i, p.Shape())
		}
		if a.rules.param != nil {
			a.rules.param(i, p)
		}
		if slices.Contains(a.params, p) {
			torch.Throw(op, "parameter %d, of shape %v, is in another group already", i, p.Shape())
		}
	}
	within(op, "LR", *field(&o, "lr", -1), math.Inf(1))
	a.rules.check(&o)
	a.groups = append(a.groups, &paramGroup[O]{first: len(a.params), params: slices.Clone(params), o: o})
	a.params = append(a.params, params...)
	a.state = append(a.state, make([]ParamState, len(params))...)
}

// Groups returns the number of groups.
func (a *Of[O]) Groups() int { return len(a.groups) }

// Options returns the options of group i, which may be changed between steps.
func (a *Of[O]) Options(i int) *O { return &a.groups[i].o }

// Params returns the parameters of all groups.
func (a *Of[O]) Params() []torch.Tensor { return slices.Clone(a.params) }

func (a *Of[O]) option(group int, name string, at int) *float64 {
	return field(&a.groups[group].o, name, at)
}

func (a *Of[O]) initialLR(group int, lr float64, set bool) float64 {
	g := a.groups[group]
	if set || !g.hasInitial {
		g.initial, g.hasInitial = lr, true
	}
	return g.initial
}

// within throws unless v is in [0, limit).
func within(op, name string, v, limit float64) {
	if !(v >= 0 && v < limit) {
		torch.Throw(op, "%s must be at least 0 and less than %v, got %v", name, limit, v)
	}
}

// ZeroGrad clears the gradients, like zero_grad(set_to_none=True).
func (a *Of[O]) ZeroGrad() {
	for _, p := range a.params {
		p.SetGrad(torch.Tensor{})
	}
}

// LR returns the learning rate of the first group.
func (a *Of[O]) LR() float64 { return *a.option(0, "lr", -1) }

// SetLR sets the learning rate of all groups.
func (a *Of[O]) SetLR(lr float64) {
	for i := range a.groups {
		*a.option(i, "lr", -1) = lr
	}
}

// LRs returns the learning rate of each group.
func (a *Of[O]) LRs() (lrs []float64) {
	for i := range a.groups {
		lrs = append(lrs, *a.option(i, "lr", -1))
	}
	return lrs
}

// SetLRs sets the learning rate of each group.
func (a *Of[O]) SetLRs(lrs []float64) {
	if len(lrs) != len(a.groups) {
		torch.Throw(a.rules.op, "%d learning rates for %d groups", len(lrs), len(a.groups))
	}
	for i, lr := range lrs {
		*a.option(i, "lr", -1) = lr
	}
}

// Step updates every parameter that has a gradient. It must be called in a scope.
func (a *Of[O]) Step() {
	torch.NoGrad(func() {
		torch.Tidy(func() torch.Tensor {
			for _, own := range a.groups {
				for _, g := range groupsOf(own.params) {
					for k, i := range g.index {
						g.index[k] = own.first + i
						g.states = append(g.states, &a.state[own.first+i])
						a.rules.checkGrad(own.first+i, g.grads[k])
						if a.rules.maximize != nil && a.rules.maximize(&own.o) {
							g.grads[k] = g.grads[k].Neg()
						}
					}
					a.rules.step(a, &own.o, g)
				}
			}
			return torch.Tensor{}
		})
	})
}

// each returns a step that calls f for each parameter.
func each[O any](f func(o *O, p, grad torch.Tensor, s *ParamState)) func(*Of[O], *O, *group) {
	return func(_ *Of[O], o *O, g *group) {
		for i, p := range g.params {
			torch.Tidy(func() torch.Tensor {
				f(o, p, g.grads[i], g.states[i])
				return torch.Tensor{}
			})
		}
	}
}

// inUse returns the indices in rules.names of the tensors that any group uses.
func (a *Of[O]) inUse() (out []int) {
	for i := range a.rules.names {
		if slices.ContainsFunc(a.groups, func(g *paramGroup[O]) bool {
			return slices.ContainsFunc(g.params, func(p torch.Tensor) bool { return a.rules.used(&g.o, i, p) })
		}) {
			out = append(out, i)
		}
	}
	return out
}

// StateNames returns the names of the tensors of a ParamState in PyTorch's state dict.
func (a *Of[O]) StateNames() (names []string) {
	for _, i := range a.inUse() {
		names = append(names, a.rules.names[i])
	}
	return names
}

// State returns the state of each parameter. The tensors still belong to the optimizer.
func (a *Of[O]) State() []ParamState {
	out := make([]ParamState, len(a.state))
	use := a.inUse()
	for k, s := range a.state {
		out[k].Step = s.Step
		if s.Tensors != nil {
			for _, i := range use {
				out[k].Tensors = append(out[k].Tensors, s.Tensors[i])
			}
		}
	}
	return out
}

// SetState restores a state returned by State; see [Optimizer].
func (a *Of[O]) SetState(s []ParamState) error {
	if len(s) != len(a.params) {
		return fmt.Errorf("optim: the state has %d parameters, but the optimizer has %d", len(s), len(a.params))
	}
	use, names := a.inUse(), a.StateNames()
	full := make([]ParamState, len(s))
	for k, p := range s {
		full[k].Step = p.Step
		if len(p.Tensors) == 0 {
			continue
		}
		if len(p.Tensors) != len(use) {
			return fmt.Errorf("optim: the state of parameter %d has %d tensors, want %d (%s)", k, len(p.Tensors), len(use), strings.Join(names, ", "))
		}
		full[k].Tensors = make([]torch.Tensor, len(a.rules.names))
		for n, i := range use {
			full[k].Tensors[i] = p.Tensors[n]
		}
	}
	return a.replace(full)
}

// replace takes a state whose tensors are in the order of rules.names.
func (a *Of[O]) replace(s []ParamState) error {
	for k, p := range s {
		for i, t := range p.Tensors {
			if !t.Defined() {
				continue
			}
			if err := a.checkShape(k, i, t); err != nil {
				return err
			}
		}
	}
	for k, p := range s {
		own := a.state[k].Tensors
		a.state[k] = ParamState{Step: p.Step}
		if len(p.Tensors) > 0 {
			a.state[k].Tensors = slices.Clone(p.Tensors)
		}
		for i, t := range p.Tensors {
			if !t.Defined() {
				continue
			}
			d := a.params[k].Device()
			if a.scalar(i) {
				d = torch.CPU
			}
			if t.Device() != d {
				moved := t.To(torch.WithDevice(d))
				t.Close()
				t = moved
			}
			a.state[k].Tensors[i] = t.Keep()
		}
		for _, t := range own {
			if !slices.Contains(a.state[k].Tensors, t) {
				t.Close()
			}
		}
	}
	a.forget()
	return nil
}

// checkShape returns an error if t cannot be tensor i in the state of parameter k.
func (a *Of[O]) checkShape(k, i int, t torch.Tensor) error {
	if slices.Equal(t.Shape(), a.shape(k, i)) {
		return nil
	}
	return fmt.Errorf("optim: parameter %d has shape %v, but its %s has shape %v", k, a.params[k].Shape(), a.rules.names[i], t.Shape())
}

// shape returns the shape of tensor i in the state of parameter k.
func (a *Of[O]) shape(k, i int) []int64 {
	if a.rules.shape != nil {
		if s := a.rules.shape(a.params[k], i); s != nil {
			return s
		}
	}
	return a.params[k].Shape()
}

// scalar reports whether tensor i of a state is a number, which stays on the CPU.
func (a *Of[O]) scalar(i int) bool {
	switch a.rules.names[i] {
	case "mu_product", "eta", "mu":
		return true
	}
	return false
}

// StateDict returns state and options as PyTorch's state_dict does; see [Optimizer].
func (a *Of[O]) StateDict() StateDict {
	var d StateDict
	for _, s := range a.state {
		own := map[string]torch.Tensor{}
		if s.Tensors != nil || s.Step > 0 {
			switch {
			case a.rules.noStep:
			case a.rules.intStep:
				own["step"] = torch.Scalar0(s.Step)
			default:
				own["step"] = torch.Scalar0(float32(s.Step))
			}
			for i, t := range s.Tensors {
				if t.Defined() {
					own[a.rules.names[i]] = t
				}
			}
		}
		d.State = append(d.State, own)
	}
	for _, g := range a.groups {
		o := export(&g.o)
		for name, v := range a.rules.extra {
			o[name] = v
		}
		if g.hasInitial {
			o["initial_lr"] = g.initial
		}
		d.ParamGroups = append(d.ParamGroups, o)
		var indices []int
		for i := range g.params {
			indices = append(indices, g.first+i)
		}
		d.Params = append(d.Params, indices)
	}
	return d
}

// LoadStateDict restores what StateDict, or PyTorch's state_dict, returned; see [Optimizer].
func (a *Of[O]) LoadStateDict(d StateDict) error {
	if len(d.ParamGroups) != len(a.groups) || len(d.Params) != len(a.groups) {
		return fmt.Errorf("optim: the state has %d groups of parameters, but the optimizer has %d", len(d.ParamGroups), len(a.groups))
	}
	options := make([]O, len(a.groups))
	full := make([]ParamState, len(a.params))
	for n, g := range a.groups {
		if len(d.Params[n]) != len(g.params) {
			return fmt.Errorf("optim: group %d of the state has %d parameters, but that of the optimizer has %d", n, len(d.Params[n]), len(g.params))
		}
		options[n] = g.o
		if err := restore(&options[n], d.ParamGroups[n]); err != nil {
			return err
		}
		for name, want := range a.rules.extra {
			if got, ok := d.ParamGroups[n][name]; ok && want != nil && got != want {
				return fmt.Errorf("optim: the state's %s is %v, which another optimizer than %s has", name, got, a.rules.op)
			}
		}
		if err := torch.Scope(func() error { a.rules.check(&options[n]); return nil }); err != nil {
			return err
		}
		for i, k := range d.Params[n] {
			if k < 0 || k >= len(d.State) {
				return fmt.Errorf("optim: group %d of the state has parameter %d, but there are %d", n, k, len(d.State))
			}
			own := d.State[k]
			for name := range own {
				if name != "step" && !slices.Contains(a.rules.names, name) {
					return fmt.Errorf("optim: the state of parameter %d has %s, which %s does not have", k, name, a.rules.op)
				}
			}
			at := &full[g.first+i]
			if step, ok := own["step"]; ok {
				at.Step = int64(step.Item())
			}
			for x, name := range a.rules.names {
				t, ok := own[name]
				if !ok {
					if len(own) > 0 && a.rules.used(&options[n], x, g.params[i]) {
						return fmt.Errorf("optim: the state of parameter %d has no %s", k, name)
					}
					continue
				}
				// Before the copy: a file can contain one element with a huge shape.
				if err := a.checkShape(g.first+i, x, t); err != nil {
					return err
				}
				if at.Tensors == nil {
					at.Tensors = make([]torch.Tensor, len(a.rules.names))
				}
				at.Tensors[x] = t.Detach().Clone()
			}
		}
	}
	if err := a.replace(full); err != nil {
		return err
	}
	for n, g := range a.groups {
		g.o = options[n]
		if lr, ok := d.ParamGroups[n]["initial_lr"].(float64); ok {
			g.initial, g.hasInitial = lr, true
		}
	}
	return nil
}

// forget frees the step counts on the device.
func (a *Of[O]) forget() {
	for _, t := range a.steps {
		t.Close()
	}
	a.steps = nil
}

// Close frees the state but not the parameters.
func (a *Of[O]) Close() {
	for i := range a.state {
		for _, t := range a.state[i].Tensors {
			t.Close()
		}
		a.state[i] = ParamState{}
	}
	a.forget()
}

// foreach reports whether a step calls operators on lists of parameters instead of on
// each parameter, as PyTorch does by default on every device but the CPU.
func (a *Of[O]) foreach() bool { return a.lists || a.params[0].Device() != torch.CPU }

// A group is the parameters of one device and dtype that have a gradient. PyTorch groups
// them like this too; the kernels that update a whole list at once require it.
type group struct {
	params, grads []torch.Tensor
	index         []int // in the list of all parameters
	states        []*ParamState
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

// tensor returns tensor i of n in a state, which create makes in the first step.
func (s *ParamState) tensor(i, n int, create func() torch.Tensor) torch.Tensor {
	if s.Tensors == nil {
		s.Tensors = make([]torch.Tensor, n)
	}
	if !s.Tensors[i].Defined() {
		s.Tensors[i] = create().Keep()
	}
	return s.Tensors[i]
}

// zeros returns tensor i of n in a state, initially zeros like p.
func (s *ParamState) zeros(i, n int, p torch.Tensor) torch.Tensor {
	return s.tensor(i, n, func() torch.Tensor { return p.ZerosLike(torch.WithMemoryFormat(torch.PreserveFormat)) })
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
			allDense("optim.ClipGradNorm", groups)
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

// allDense throws if a gradient is sparse: libtorch cannot clip those.
func allDense(op string, groups []*group) {
	for _, g := range groups {
		for i, grad := range g.grads {
			if grad.Layout() != torch.Strided {
				torch.Throw(op, "a parameter of shape %v has a sparse gradient; only dense ones can be clipped", g.params[i].Shape())
			}
		}
	}
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
			groups := groupsOf(params)
			allDense("optim.ClipGradValue", groups)
			for _, g := range groups {
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
