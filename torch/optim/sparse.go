package optim

import (
	"math"

	"cyclecap/torch"
	"cyclecap/torch/internal/shim"
)

// SparseAdamOptions configures SparseAdam; the names are PyTorch's.
type SparseAdamOptions struct {
	LR       float64 `torch:"lr"`
	Beta1    float64 `torch:"betas.0"`
	Beta2    float64 `torch:"betas.1"`
	Eps      float64
	Maximize bool // steps go along the gradient
}

// SparseAdamDefaults returns PyTorch's defaults: learning rate 1e-3, betas 0.9 and 0.999, eps 1e-8.
func SparseAdamDefaults() SparseAdamOptions {
	return SparseAdamOptions{LR: 1e-3, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8}
}

const sparseAdamOp = "optim.SparseAdam"

var sparseAdamOf = &rules[SparseAdamOptions]{
	op: sparseAdamOp,
	check: func(o *SparseAdamOptions) {
		(&AdamOptions{Beta1: o.Beta1, Beta2: o.Beta2, Eps: o.Eps}).check(sparseAdamOp)
		if o.Eps == 0 { // would divide 0 by 0 where a gradient is 0
			torch.Throw(sparseAdamOp, "Eps must be more than 0")
		}
	},
	param: func(i int, p torch.Tensor) {
		switch d := p.DType(); {
		case p.Layout() != torch.Strided:
			torch.Throw(sparseAdamOp, "parameter %d, of shape %v, has layout %v; only dense parameters can be optimized", i, p.Shape(), p.Layout())
		case !d.IsFloat():
			torch.Throw(sparseAdamOp, "parameter %d, of shape %v, has dtype %v; only real parameters can be optimized", i, p.Shape(), d)
		}
	},
	maximize: func(o *SparseAdamOptions) bool { return o.Maximize },
	names:    []string{"exp_avg", "exp_avg_sq"},
	intStep:  true,
	grads:    sparse,
	step:     each((*SparseAdamOptions).single),
}

// SparseAdam is torch.optim.SparseAdam, for parameters with sparse gradients, such as those of an
// nn.Embedding whose Sparse is set. A step changes only the rows of a parameter, and of its moments,
// that are in the gradient.
func SparseAdam(params []torch.Tensor, o SparseAdamOptions) *Of[SparseAdamOptions] {
	return newOf(sparseAdamOf, params, o)
}

func (o *SparseAdamOptions) single(p, g torch.Tensor, s *ParamState) {
	avg, avgSq := s.moments(p, 2)
	step := float64(s.Step)
	g = g.Coalesce()
	values := g.Values()
	if values.Numel() == 0 {
		return
	}
	old := avg.SparseMask(g).Values()
	numer := values.Sub(old).MulScalar_(1 - o.Beta1)
	avg.Add_(like(g, numer))
	oldSq := avgSq.SparseMask(g).Values()
	denom := values.PowScalar(2).Sub_(oldSq).MulScalar_(1 - o.Beta2)
	avgSq.Add_(like(g, denom))
	numer.Add_(old)
	denom.Add_(oldSq).Sqrt_().AddScalar_(o.Eps)
	correction1, correction2 := 1-shim.Pow(o.Beta1, step), 1-shim.Pow(o.Beta2, step)
	size := o.LR * math.Sqrt(correction2) / correction1
	p.Add_(like(g, numer.Div_(denom).MulScalar(-size)))
}

// noDecay throws if there is a weight decay and g, the gradient of p, is sparse: their sum would be dense.
func noDecay(op string, decay float64, p, g torch.Tensor) {
	if decay != 0 && g.Layout() == torch.SparseCOO {
		torch.Throw(op, "WeightDecay is %v, but a parameter of shape %v has a sparse gradient; it must be 0", decay, p.Shape())
	}
}

// like returns a tensor with the shape and the indices of a coalesced one, and other values.
func like(g, values torch.Tensor) torch.Tensor {
	return torch.SparseCooTensorIndicesSize(g.Indices(), values, g.Shape())
}
