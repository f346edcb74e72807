package optim

import (
	"math"
	"slices"

	"cyclecap/torch"
)

// SGDOptions configures SGD; the names are PyTorch's.
type SGDOptions struct {
	LR          float64 `torch:"lr"`
	Momentum    float64
	Dampening   float64
	WeightDecay float64
	Nesterov    bool
	Maximize    bool // steps go along the gradient
}

// SGDDefaults returns PyTorch's defaults: learning rate 1e-3, and no momentum.
func SGDDefaults() SGDOptions { return SGDOptions{LR: 1e-3} }

const sgdOp = "optim.SGD"

var sgdOf = &rules[SGDOptions]{
	op: sgdOp,
	check: func(o *SGDOptions) {
		within(sgdOp, "Momentum", o.Momentum, math.Inf(1))
		within(sgdOp, "WeightDecay", o.WeightDecay, math.Inf(1))
		if o.Nesterov && (o.Momentum == 0 || o.Dampening != 0) {
			torch.Throw(sgdOp, "Nesterov momentum requires a momentum and zero dampening")
		}
	},
	maximize: func(o *SGDOptions) bool { return o.Maximize },
	names:    []string{"momentum_buffer"},
	uses:     func(o *SGDOptions, _ int, _ torch.Tensor) bool { return o.Momentum != 0 },
	noStep:   true,
	grads:    anyLayout,
	extra:    map[string]any{"foreach": nil, "differentiable": false, "fused": nil},
	step: func(a *Of[SGDOptions], o *SGDOptions, g *group) {
		// As in PyTorch, which has no lists of sparse gradients either.
		if a.foreach() && !slices.ContainsFunc(g.grads, func(t torch.Tensor) bool { return t.Layout() != torch.Strided }) {
			o.list(g)
		} else {
			each((*SGDOptions).single)(a, o, g)
		}
	},
}

// SGD is torch.optim.SGD. Gradients may be sparse, without a weight decay; the momentum then is too,
// and cannot be saved in a file.
func SGD(params []torch.Tensor, o SGDOptions) *Of[SGDOptions] { return newOf(sgdOf, params, o) }

func (o *SGDOptions) single(p, g torch.Tensor, s *ParamState) {
	if o.WeightDecay != 0 {
		noDecay(sgdOp, o.WeightDecay, p, g)
		g = g.Add(p, torch.WithAlpha(o.WeightDecay))
	}
	if o.Momentum != 0 {
		if s.Tensors == nil {
			s.Tensors = []torch.Tensor{g.Clone().Keep()}
		} else {
			s.Tensors[0].MulScalar_(o.Momentum).Add_(g, torch.WithAlpha(1-o.Dampening))
		}
		if o.Nesterov {
			g = g.Add(s.Tensors[0], torch.WithAlpha(o.Momentum))
		} else {
			g = s.Tensors[0]
		}
	}
	s.Step++
	p.Add_(g, torch.WithAlpha(-o.LR))
}

func (o *SGDOptions) list(g *group) {
	grads := g.grads
	if o.WeightDecay != 0 {
		grads = torch.ForeachAdd(grads, g.params, torch.WithAlpha(o.WeightDecay))
	}
	if o.Momentum != 0 {
		buffers := o.buffers(g, grads)
		if o.Nesterov {
			grads = torch.ForeachAdd(grads, buffers, torch.WithAlpha(o.Momentum))
		} else {
			grads = buffers
		}
	}
	for _, s := range g.states {
		s.Step++
	}
	torch.ForeachAdd_(g.params, grads, torch.WithAlpha(-o.LR))
}

// buffers updates the momentum of a group and returns it.
func (o *SGDOptions) buffers(g *group, grads []torch.Tensor) (buffers []torch.Tensor) {
	started := true
	for _, s := range g.states {
		started = started && s.Tensors != nil
	}
	for i, s := range g.states {
		switch {
		case s.Tensors == nil:
			s.Tensors = []torch.Tensor{grads[i].Clone().Keep()}
		case !started: // some parameters have their first gradient
			s.Tensors[0].MulScalar_(o.Momentum).Add_(grads[i], torch.WithAlpha(1-o.Dampening))
		}
		buffers = append(buffers, s.Tensors[0])
	}
	if started {
		torch.ForeachMulScalar_(buffers, o.Momentum)
		torch.ForeachAdd_(buffers, grads, torch.WithAlpha(1-o.Dampening))
	}
	return buffers
}
