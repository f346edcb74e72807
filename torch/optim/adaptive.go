package optim

import (
	"math"
	"slices"

	"cyclecap/torch"
	"cyclecap/torch/internal/shim"
)

// The optimizers in this file call the operators of PyTorch's single-tensor implementations
// on every device.

// noForeach are the options in PyTorch's state dicts that only choose an implementation.
var noForeach = map[string]any{"foreach": nil, "capturable": false, "differentiable": false}

// AdagradOptions configures Adagrad; the names are PyTorch's.
type AdagradOptions struct {
	LR                      float64 `torch:"lr"`
	LRDecay                 float64 `torch:"lr_decay"`
	WeightDecay             float64
	InitialAccumulatorValue float64
	Eps                     float64
	Maximize                bool // steps go along the gradient
}

// AdagradDefaults returns PyTorch's defaults: learning rate 1e-2, eps 1e-10.
func AdagradDefaults() AdagradOptions { return AdagradOptions{LR: 1e-2, Eps: 1e-10} }

const adagradOp = "optim.Adagrad"

var adagradOf = &rules[AdagradOptions]{
	op: adagradOp,
	check: func(o *AdagradOptions) {
		within(adagradOp, "LRDecay", o.LRDecay, math.Inf(1))
		within(adagradOp, "WeightDecay", o.WeightDecay, math.Inf(1))
		within(adagradOp, "InitialAccumulatorValue", o.InitialAccumulatorValue, math.Inf(1))
		within(adagradOp, "Eps", o.Eps, math.Inf(1))
	},
	maximize: func(o *AdagradOptions) bool { return o.Maximize },
	names:    []string{"sum"},
	grads:    anyLayout,
	extra:    map[string]any{"foreach": nil, "differentiable": false, "fused": nil},
	step: each(func(o *AdagradOptions, p, g torch.Tensor, s *ParamState) {
		sum := s.tensor(0, 1, func() torch.Tensor {
			return p.FullLike(o.InitialAccumulatorValue, torch.WithMemoryFormat(torch.PreserveFormat))
		})
		s.Step++
		lr := o.LR / (1 + float64(s.Step-1)*o.LRDecay)
		if g.Layout() == torch.SparseCOO {
			noDecay(adagradOp, o.WeightDecay, p, g)
			g = g.Coalesce()
			values := g.Values()
			sum.Add_(like(g, values.PowScalar(2)))
			std := sum.SparseMask(g).Values().Sqrt_().AddScalar_(o.Eps)
			p.Add_(like(g, values.Div(std)), torch.WithAlpha(-lr))
			return
		}
		if o.WeightDecay != 0 {
			g = g.Add(p, torch.WithAlpha(o.WeightDecay))
		}
		sum.Addcmul_(g, g, torch.WithValue(1.0))
		p.Addcdiv_(g, sum.Sqrt().AddScalar_(o.Eps), torch.WithValue(-lr))
	}),
}

// Adagrad is torch.optim.Adagrad. Gradients may be sparse, without a weight decay.
func Adagrad(params []torch.Tensor, o AdagradOptions) *Of[AdagradOptions] {
	return newOf(adagradOf, params, o)
}

// AdadeltaOptions configures Adadelta; the names are PyTorch's.
type AdadeltaOptions struct {
	LR          float64 `torch:"lr"`
	Rho         float64
	Eps         float64
	WeightDecay float64
	Maximize    bool // steps go along the gradient
}

// AdadeltaDefaults returns PyTorch's defaults: learning rate 1, rho 0.9, eps 1e-6.
func AdadeltaDefaults() AdadeltaOptions { return AdadeltaOptions{LR: 1, Rho: 0.9, Eps: 1e-6} }

const adadeltaOp = "optim.Adadelta"

var adadeltaOf = &rules[AdadeltaOptions]{
	op: adadeltaOp,
	check: func(o *AdadeltaOptions) {
		if !(o.Rho >= 0 && o.Rho <= 1) {
			torch.Throw(adadeltaOp, "Rho must be between 0 and 1, got %v", o.Rho)
		}
		within(adadeltaOp, "Eps", o.Eps, math.Inf(1))
		within(adadeltaOp, "WeightDecay", o.WeightDecay, math.Inf(1))
	},
	maximize: func(o *AdadeltaOptions) bool { return o.Maximize },
	names:    []string{"square_avg", "acc_delta"},
	extra:    noForeach,
	step: each(func(o *AdadeltaOptions, p, g torch.Tensor, s *ParamState) {
		squares, deltas := s.zeros(0, 2, p), s.zeros(1, 2, p)
		s.Step++
		if o.WeightDecay != 0 {
			g = g.Add(p, torch.WithAlpha(o.WeightDecay))
		}
		squares.MulScalar_(o.Rho).Addcmul_(g, g, torch.WithValue(1-o.Rho))
		std := squares.AddScalar(o.Eps).Sqrt_()
		delta := deltas.AddScalar(o.Eps).Sqrt_()
		delta.Div_(std).Mul_(g)
		deltas.MulScalar_(o.Rho).Addcmul_(delta, delta, torch.WithValue(1-o.Rho))
		p.Add_(delta, torch.WithAlpha(-o.LR))
	}),
}

// Adadelta is torch.optim.Adadelta.
func Adadelta(params []torch.Tensor, o AdadeltaOptions) *Of[AdadeltaOptions] {
	return newOf(adadeltaOf, params, o)
}

// RMSpropOptions configures RMSprop; the names are PyTorch's.
type RMSpropOptions struct {
	LR          float64 `torch:"lr"`
	Alpha       float64
	Eps         float64
	WeightDecay float64
	Momentum    float64
	Centered    bool // gradients are normalized by an estimate of their variance
	Maximize    bool // steps go along the gradient
}

// RMSpropDefaults returns PyTorch's defaults: learning rate 1e-2, alpha 0.99, eps 1e-8.
func RMSpropDefaults() RMSpropOptions { return RMSpropOptions{LR: 1e-2, Alpha: 0.99, Eps: 1e-8} }

const rmspropOp = "optim.RMSprop"

var rmspropOf = &rules[RMSpropOptions]{
	op: rmspropOp,
	check: func(o *RMSpropOptions) {
		within(rmspropOp, "Alpha", o.Alpha, math.Inf(1))
		within(rmspropOp, "Eps", o.Eps, math.Inf(1))
		within(rmspropOp, "WeightDecay", o.WeightDecay, math.Inf(1))
		within(rmspropOp, "Momentum", o.Momentum, math.Inf(1))
	},
	maximize: func(o *RMSpropOptions) bool { return o.Maximize },
	names:    []string{"square_avg", "momentum_buffer", "grad_avg"},
	uses: func(o *RMSpropOptions, i int, _ torch.Tensor) bool {
		return i == 0 || i == 1 && o.Momentum > 0 || i == 2 && o.Centered
	},
	extra: noForeach,
	step: each(func(o *RMSpropOptions, p, g torch.Tensor, s *ParamState) {
		squares := s.zeros(0, 3, p)
		s.Step++
		if o.WeightDecay != 0 {
			g = g.Add(p, torch.WithAlpha(o.WeightDecay))
		}
		squares.MulScalar_(o.Alpha).Addcmul_(g, g, torch.WithValue(1-o.Alpha))
		var avg torch.Tensor
		if o.Centered {
			mean := s.zeros(2, 3, p)
			mean.LerpScalar_(g, 1-o.Alpha)
			avg = squares.Addcmul(mean, mean, torch.WithValue(-1.0)).Sqrt_()
		} else {
			avg = squares.Sqrt()
		}
		avg.AddScalar_(o.Eps)
		if o.Momentum > 0 {
			buffer := s.zeros(1, 3, p)
			buffer.MulScalar_(o.Momentum).Addcdiv_(g, avg)
			p.Add_(buffer, torch.WithAlpha(-o.LR))
		} else {
			p.Addcdiv_(g, avg, torch.WithValue(-o.LR))
		}
	}),
}

// RMSprop is torch.optim.RMSprop.
func RMSprop(params []torch.Tensor, o RMSpropOptions) *Of[RMSpropOptions] {
	return newOf(rmspropOf, params, o)
}

// AdamaxOptions configures Adamax; the names are PyTorch's.
type AdamaxOptions struct {
	LR          float64 `torch:"lr"`
	Beta1       float64 `torch:"betas.0"`
	Beta2       float64 `torch:"betas.1"`
	Eps         float64
	WeightDecay float64
	Maximize    bool // steps go along the gradient
}

// AdamaxDefaults returns PyTorch's defaults: learning rate 2e-3, betas 0.9 and 0.999, eps 1e-8.
func AdamaxDefaults() AdamaxOptions {
	return AdamaxOptions{LR: 2e-3, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8}
}

const adamaxOp = "optim.Adamax"

var adamaxOf = &rules[AdamaxOptions]{
	op: adamaxOp,
	check: func(o *AdamaxOptions) {
		(&AdamOptions{Beta1: o.Beta1, Beta2: o.Beta2, Eps: o.Eps, WeightDecay: o.WeightDecay}).check(adamaxOp)
	},
	maximize: func(o *AdamaxOptions) bool { return o.Maximize },
	names:    []string{"exp_avg", "exp_inf"},
	extra:    noForeach,
	step: each(func(o *AdamaxOptions, p, g torch.Tensor, s *ParamState) {
		avg, largest := s.moments(p, 2)
		if o.WeightDecay != 0 {
			g = g.Add(p, torch.WithAlpha(o.WeightDecay))
		}
		avg.LerpScalar_(g, 1-o.Beta1)
		largest.Copy_(largest.MulScalar_(o.Beta2).Maximum(g.Abs().AddScalar_(o.Eps)))
		p.Addcdiv_(avg, largest, torch.WithValue(-(o.LR / (1 - shim.Pow(o.Beta1, float64(s.Step))))))
	}),
}

// Adamax is torch.optim.Adamax.
func Adamax(params []torch.Tensor, o AdamaxOptions) *Of[AdamaxOptions] {
	return newOf(adamaxOf, params, o)
}

// NAdamOptions configures NAdam; the names are PyTorch's.
type NAdamOptions struct {
	LR                   float64 `torch:"lr"`
	Beta1                float64 `torch:"betas.0"`
	Beta2                float64 `torch:"betas.1"`
	Eps                  float64
	WeightDecay          float64
	MomentumDecay        float64
	DecoupledWeightDecay bool // the weight decay is applied to the weights, as in AdamW
	Maximize             bool // steps go along the gradient
}

// NAdamDefaults returns PyTorch's defaults: learning rate 2e-3, betas 0.9 and 0.999, eps 1e-8,
// momentum decay 4e-3.
func NAdamDefaults() NAdamOptions {
	return NAdamOptions{LR: 2e-3, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, MomentumDecay: 4e-3}
}

const nadamOp = "optim.NAdam"

var nadamOf = &rules[NAdamOptions]{
	op: nadamOp,
	check: func(o *NAdamOptions) {
		(&AdamOptions{Beta1: o.Beta1, Beta2: o.Beta2, Eps: o.Eps, WeightDecay: o.WeightDecay}).check(nadamOp)
		within(nadamOp, "MomentumDecay", o.MomentumDecay, math.Inf(1))
	},
	maximize: func(o *NAdamOptions) bool { return o.Maximize },
	names:    []string{"exp_avg", "exp_avg_sq", "mu_product"},
	shape:    scalarShape(2),
	extra:    noForeach,
	step: each(func(o *NAdamOptions, p, g torch.Tensor, s *ParamState) {
		avg, avgSq := s.moments(p, 3)
		product := s.tensor(2, 3, func() torch.Tensor { return torch.Scalar0[float32](1) })
		step := float64(s.Step)
		correction := 1 - shim.Pow(o.Beta2, step)
		if o.WeightDecay != 0 {
			if o.DecoupledWeightDecay {
				p.MulScalar_(1 - o.LR*o.WeightDecay)
			} else {
				g = g.Add(p, torch.WithAlpha(o.WeightDecay))
			}
		}
		mu := o.Beta1 * (1 - 0.5*shim.Pow(0.96, step*o.MomentumDecay))
		next := o.Beta1 * (1 - 0.5*shim.Pow(0.96, (step+1)*o.MomentumDecay))
		product.MulScalar_(mu)
		avg.LerpScalar_(g, 1-o.Beta1)
		avgSq.MulScalar_(o.Beta2).Addcmul_(g, g, torch.WithValue(1-o.Beta2))
		denom := avgSq.DivScalar(correction).Sqrt().AddScalar_(o.Eps)
		so := product.Item()
		p.Addcdiv_(g, denom, torch.WithValue(-o.LR*(1-mu)/(1-so)))
		p.Addcdiv_(avg, denom, torch.WithValue((-o.LR*next)/(1-so*next)))
	}),
}

// NAdam is torch.optim.NAdam.
func NAdam(params []torch.Tensor, o NAdamOptions) *Of[NAdamOptions] {
	return newOf(nadamOf, params, o)
}

// scalarShape returns rules.shape where the tensors from first on have no dimensions.
func scalarShape(first int) func(torch.Tensor, int) []int64 {
	return func(_ torch.Tensor, i int) []int64 {
		if i >= first {
			return []int64{}
		}
		return nil
	}
}

// RAdamOptions configures RAdam; the names are PyTorch's.
type RAdamOptions struct {
	LR                   float64 `torch:"lr"`
	Beta1                float64 `torch:"betas.0"`
	Beta2                float64 `torch:"betas.1"`
	Eps                  float64
	WeightDecay          float64
	DecoupledWeightDecay bool // the weight decay is applied to the weights, as in AdamW
	Maximize             bool // steps go along the gradient
}

// RAdamDefaults returns PyTorch's defaults: learning rate 1e-3, betas 0.9 and 0.999, eps 1e-8.
func RAdamDefaults() RAdamOptions {
	return RAdamOptions{LR: 1e-3, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8}
}

const radamOp = "optim.RAdam"

var radamOf = &rules[RAdamOptions]{
	op: radamOp,
	check: func(o *RAdamOptions) {
		(&AdamOptions{Beta1: o.Beta1, Beta2: o.Beta2, Eps: o.Eps, WeightDecay: o.WeightDecay}).check(radamOp)
	},
	maximize: func(o *RAdamOptions) bool { return o.Maximize },
	names:    []string{"exp_avg", "exp_avg_sq"},
	extra:    noForeach,
	step: each(func(o *RAdamOptions, p, g torch.Tensor, s *ParamState) {
		avg, avgSq := s.moments(p, 2)
		step := float64(s.Step)
		if o.WeightDecay != 0 {
			if o.DecoupledWeightDecay {
				p.MulScalar_(1 - o.LR*o.WeightDecay)
			} else {
				g = g.Add(p, torch.WithAlpha(o.WeightDecay))
			}
		}
		avg.LerpScalar_(g, 1-o.Beta1)
		avgSq.MulScalar_(o.Beta2).Addcmul_(g, g, torch.WithValue(1-o.Beta2))
		power := shim.Pow(o.Beta2, step)
		correction1, correction2 := 1-shim.Pow(o.Beta1, step), 1-power
		update := avg.DivScalar(correction1).MulScalar(o.LR)
		limit := 2/(1-o.Beta2) - 1
		length := limit - 2*step*power/correction2
		if length > 5 {
			// Python computes a number / tensor as a reciprocal and a product.
			adaptive := avgSq.Sqrt().AddScalar_(o.Eps).Reciprocal().MulScalar(shim.Pow(correction2, 0.5))
			rectified := shim.Pow((length-4)*(length-2)*limit/((limit-4)*(limit-2)*length), 0.5)
			update = update.Mul(adaptive).MulScalar(rectified)
		}
		p.Add_(update, torch.WithAlpha(-1.0))
	}),
}

// RAdam is torch.optim.RAdam.
func RAdam(params []torch.Tensor, o RAdamOptions) *Of[RAdamOptions] {
	return newOf(radamOf, params, o)
}

// ASGDOptions configures ASGD; the names are PyTorch's.
type ASGDOptions struct {
	LR          float64 `torch:"lr"`
	Lambd       float64 // decay
	Alpha       float64 // the power by which steps become smaller
	T0          float64 `torch:"t0"` // the step at which averaging starts
	WeightDecay float64
	Maximize    bool // steps go along the gradient
}

// ASGDDefaults returns PyTorch's defaults: learning rate 1e-2, lambd 1e-4, alpha 0.75, t0 1e6.
func ASGDDefaults() ASGDOptions { return ASGDOptions{LR: 1e-2, Lambd: 1e-4, Alpha: 0.75, T0: 1e6} }

const asgdOp = "optim.ASGD"

var asgdOf = &rules[ASGDOptions]{
	op:       asgdOp,
	check:    func(o *ASGDOptions) { within(asgdOp, "WeightDecay", o.WeightDecay, math.Inf(1)) },
	maximize: func(o *ASGDOptions) bool { return o.Maximize },
	names:    []string{"ax", "eta", "mu"},
	shape:    scalarShape(1),
	extra:    noForeach,
	step: each(func(o *ASGDOptions, p, g torch.Tensor, s *ParamState) {
		average := s.zeros(0, 3, p)
		eta := s.tensor(1, 3, func() torch.Tensor { return torch.Scalar0(float32(o.LR)) })
		mu := s.tensor(2, 3, func() torch.Tensor { return torch.Scalar0[float32](1) })
		s.Step++
		if o.WeightDecay != 0 {
			g = g.Add(p, torch.WithAlpha(o.WeightDecay))
		}
		rate := eta.Item()
		p.MulScalar_(1 - o.Lambd*rate)
		p.Add_(g, torch.WithAlpha(-rate))
		if mu.Item() == 1 {
			average.Copy_(p)
		} else {
			average.Add_(p.Sub(average).Mul_(mu))
		}
		step := float64(s.Step)
		eta.Fill_(o.LR / shim.Pow(1+o.Lambd*o.LR*step, o.Alpha))
		mu.Fill_(1 / max(1, step-o.T0))
	}),
}

// ASGD is torch.optim.ASGD: averaged stochastic gradient descent. The average is the tensor "ax" of
// the state.
func ASGD(params []torch.Tensor, o ASGDOptions) *Of[ASGDOptions] { return newOf(asgdOf, params, o) }

// RpropOptions configures Rprop; the names are PyTorch's.
type RpropOptions struct {
	LR          float64 `torch:"lr"`     // the initial size of steps
	EtaMinus    float64 `torch:"etas.0"` // the factor of a step after a gradient's change of sign
	EtaPlus     float64 `torch:"etas.1"` // the factor otherwise
	StepSizeMin float64 `torch:"step_sizes.0"`
	StepSizeMax float64 `torch:"step_sizes.1"`
	Maximize    bool    // steps go along the gradient
}

// RpropDefaults returns PyTorch's defaults: learning rate 1e-2, etas 0.5 and 1.2, step sizes
// between 1e-6 and 50.
func RpropDefaults() RpropOptions {
	return RpropOptions{LR: 1e-2, EtaMinus: 0.5, EtaPlus: 1.2, StepSizeMin: 1e-6, StepSizeMax: 50}
}

const rpropOp = "optim.Rprop"

var rpropOf = &rules[RpropOptions]{
	op: rpropOp,
	check: func(o *RpropOptions) {
		if !(0 < o.EtaMinus && o.EtaMinus < 1 && 1 < o.EtaPlus) {
			torch.Throw(rpropOp, "EtaMinus must be between 0 and 1, and EtaPlus above 1, got %v and %v", o.EtaMinus, o.EtaPlus)
		}
	},
	maximize: func(o *RpropOptions) bool { return o.Maximize },
	names:    []string{"prev", "step_size"},
	extra:    noForeach,
	step: each(func(o *RpropOptions, p, g torch.Tensor, s *ParamState) {
		previous := s.zeros(0, 2, p)
		size := s.tensor(1, 2, func() torch.Tensor { return g.FullLike(o.LR) })
		s.Step++
		sign := g.Mul(previous).Sign()
		sign.MaskedFill_(sign.GtScalar(0), o.EtaPlus)
		sign.MaskedFill_(sign.LtScalar(0), o.EtaMinus)
		sign.MaskedFill_(sign.EqScalar(0), 1.0)
		size.Mul_(sign).Clamp_(torch.WithMin(o.StepSizeMin), torch.WithMax(o.StepSizeMax))
		g = g.Clone(torch.WithMemoryFormat(torch.PreserveFormat)).MaskedFill_(sign.EqScalar(o.EtaMinus), 0.0)
		p.Addcmul_(g.Sign(), size, torch.WithValue(-1.0))
		previous.Copy_(g)
	}),
}

// Rprop is torch.optim.Rprop.
func Rprop(params []torch.Tensor, o RpropOptions) *Of[RpropOptions] {
	return newOf(rpropOf, params, o)
}

// AdafactorOptions configures Adafactor; the names are PyTorch's.
type AdafactorOptions struct {
	LR          float64 `torch:"lr"`
	Beta2Decay  float64 `torch:"beta2_decay"`
	Eps1        float64 `torch:"eps.0" none:"true"` // 0 is PyTorch's None: the epsilon of the parameter's dtype
	Eps2        float64 `torch:"eps.1"`
	D           float64 `torch:"d"` // the clipping threshold of updates
	WeightDecay float64
	Maximize    bool // steps go along the gradient
}

// AdafactorDefaults returns PyTorch's defaults: learning rate 1e-2, beta2_decay -0.8, the epsilon of
// the dtype and 1e-3, d 1.
func AdafactorDefaults() AdafactorOptions {
	return AdafactorOptions{LR: 1e-2, Beta2Decay: -0.8, Eps2: 1e-3, D: 1}
}

const adafactorOp = "optim.Adafactor"

// The tensors in the state of Adafactor: a matrix has the first two, and a vector the last.
const (
	rowVar = iota
	colVar
	variance
	adafactorTensors
)

var adafactorOf = &rules[AdafactorOptions]{
	op: adafactorOp,
	check: func(o *AdafactorOptions) {
		within(adafactorOp, "WeightDecay", o.WeightDecay, math.Inf(1))
		within(adafactorOp, "Eps1", o.Eps1, math.Inf(1))
		within(adafactorOp, "Eps2", o.Eps2, math.Inf(1))
		if !(o.Beta2Decay <= 0 && o.D >= 1) {
			torch.Throw(adafactorOp, "Beta2Decay must be at most 0, and D at least 1, got %v and %v", o.Beta2Decay, o.D)
		}
	},
	maximize: func(o *AdafactorOptions) bool { return o.Maximize },
	names:    []string{"row_var", "col_var", "variance"},
	uses:     func(_ *AdafactorOptions, i int, p torch.Tensor) bool { return (i == variance) == (p.Dim() < 2) },
	shape:    factorShape,
	extra:    map[string]any{"foreach": nil},
	step:     each((*AdafactorOptions).single),
}

// factorShape returns the shape of a tensor in the state.
func factorShape(p torch.Tensor, i int) []int64 {
	s := slices.Clone(p.Shape())
	switch i {
	case rowVar:
		s[len(s)-1] = 1
	case colVar:
		s[len(s)-2] = 1
	}
	return s
}

// Adafactor is torch.optim.Adafactor. Each step of a parameter waits for the device twice.
func Adafactor(params []torch.Tensor, o AdafactorOptions) *Of[AdafactorOptions] {
	return newOf(adafactorOf, params, o)
}

func (o *AdafactorOptions) single(p, g torch.Tensor, s *ParamState) {
	eps := o.Eps1
	if eps == 0 {
		eps = epsilon(p.DType())
	}
	zeros := func(i int) torch.Tensor {
		return s.tensor(i, adafactorTensors, func() torch.Tensor {
			return torch.Zeros(factorShape(p, i), torch.WithDType(g.DType()), torch.WithDevice(g.Device()))
		})
	}
	s.Step++
	step := float64(s.Step)
	norm := func(t torch.Tensor) float64 { return t.LinalgVectorNorm().Item() }
	weight := shim.Pow(step, o.Beta2Decay)
	rho := min(o.LR, 1/shim.Pow(step, 0.5))
	alpha := max(o.Eps2, norm(p)/shim.Pow(float64(p.Numel()), 0.5)) * rho
	if o.WeightDecay != 0 {
		p.MulScalar_(1 - o.LR*o.WeightDecay)
	}
	var estimate torch.Tensor
	if p.Dim() > 1 {
		rows, cols := zeros(rowVar), zeros(colVar)
		mean := func(dim int64) torch.Tensor {
			return g.LinalgVectorNorm(torch.WithDimList([]int64{dim}), torch.WithKeepdim(true)).Square().DivScalar_(g.Size(int(dim)))
		}
		rows.LerpScalar_(mean(-1), weight)
		cols.LerpScalar_(mean(-2), weight)
		estimate = rows.Matmul(cols)
		estimate.Div_(rows.MeanDim([]int64{-2}, torch.WithKeepdim(true)).Clamp_(torch.WithMin(eps)))
	} else {
		v := zeros(variance)
		v.LerpScalar_(g.Mul(g), weight)
		estimate = v.Clone()
	}
	update := estimate.Clamp_(torch.WithMin(eps * eps)).Rsqrt()
	update.Mul_(g)
	denom := max(1, norm(update)/(shim.Pow(float64(update.Numel()), 0.5)*o.D))
	p.Add_(update, torch.WithAlpha(-alpha/denom))
}

// epsilon returns torch.finfo(d).eps.
func epsilon(d torch.DType) float64 {
	switch d {
	case torch.Float64:
		return 0x1p-52
	case torch.BFloat16:
		return 0x1p-7
	case torch.Float16:
		return 0x1p-10
	}
	return 0x1p-23
}

// MuonOptions configures Muon; the names are PyTorch's.
type MuonOptions struct {
	LR          float64 `torch:"lr"`
	WeightDecay float64
	Momentum    float64
	Nesterov    bool
	NsA         float64 `torch:"ns_coefficients.0"` // of the polynomial of the Newton-Schulz iteration
	NsB         float64 `torch:"ns_coefficients.1"`
	NsC         float64 `torch:"ns_coefficients.2"`
	Eps         float64
	NsSteps     int64
	// AdjustLrFn is how the learning rate depends on the shape of a matrix: "original" (or ""),
	// or "match_rms_adamw".
	AdjustLrFn string `none:"true"`
}

// MuonDefaults returns PyTorch's defaults: learning rate 1e-3, weight decay 0.1, Nesterov momentum
// 0.95, five iterations with coefficients 3.4445, -4.775 and 2.0315, eps 1e-7.
func MuonDefaults() MuonOptions {
	return MuonOptions{LR: 1e-3, WeightDecay: 0.1, Momentum: 0.95, Nesterov: true, NsA: 3.4445, NsB: -4.775, NsC: 2.0315, Eps: 1e-7, NsSteps: 5}
}

const muonOp = "optim.Muon"

var muonOf = &rules[MuonOptions]{
	op: muonOp,
	check: func(o *MuonOptions) {
		within(muonOp, "WeightDecay", o.WeightDecay, math.Inf(1))
		within(muonOp, "Momentum", o.Momentum, math.Inf(1))
		if o.NsSteps < 0 || o.NsSteps >= 100 {
			torch.Throw(muonOp, "NsSteps must be between 0 and 99, got %d", o.NsSteps)
		}
		if o.AdjustLrFn != "" && o.AdjustLrFn != "original" && o.AdjustLrFn != "match_rms_adamw" {
			torch.Throw(muonOp, "AdjustLrFn must be original or match_rms_adamw, not %q", o.AdjustLrFn)
		}
	},
	names:  []string{"momentum_buffer"},
	noStep: true,
	step: each(func(o *MuonOptions, p, g torch.Tensor, s *ParamState) {
		if p.Dim() != 2 {
			torch.Throw(muonOp, "only matrices can be optimized, got a parameter of shape %v", p.Shape())
		}
		buffer := s.zeros(0, 1, p)
		s.Step++
		buffer.LerpScalar_(g, 1-o.Momentum)
		update := buffer
		if o.Nesterov {
			update = g.LerpScalar(buffer, o.Momentum)
		}
		update = o.orthogonal(update)
		rows, cols := float64(p.Size(0)), float64(p.Size(1))
		ratio := math.Sqrt(max(1, rows/cols))
		if o.AdjustLrFn == "match_rms_adamw" {
			ratio = 0.2 * math.Sqrt(max(rows, cols))
		}
		p.MulScalar_(1 - o.LR*o.WeightDecay)
		p.Add_(update, torch.WithAlpha(-(o.LR * ratio)))
	}),
}

// orthogonal returns a matrix close to the nearest orthogonal one, in bf16, by a Newton-Schulz
// iteration.
func (o *MuonOptions) orthogonal(g torch.Tensor) torch.Tensor {
	x := g.To(torch.WithDType(torch.BFloat16))
	tall := g.Size(0) > g.Size(1)
	if tall {
		x = x.T()
	}
	x.Div_(x.LinalgVectorNorm().Clamp(torch.WithMin(o.Eps)))
	for range o.NsSteps {
		gram := x.Matmul(x.T())
		gram = gram.Addmm(gram, gram, torch.WithBeta(o.NsB), torch.WithAlpha(o.NsC))
		x = x.Addmm(gram, x, torch.WithBeta(o.NsA))
	}
	if tall {
		x = x.T()
	}
	return x
}

// Muon is torch.optim.Muon, for matrices only.
func Muon(params []torch.Tensor, o MuonOptions) *Of[MuonOptions] { return newOf(muonOf, params, o) }
