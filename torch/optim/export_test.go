package optim

import (
	"cyclecap/torch"
	"cyclecap/torch/internal/shim"
)

// UseLists makes an optimizer call foreach operators on the CPU too.
func UseLists(o Optimizer) Optimizer {
	switch o := o.(type) {
	case *Of[AdamOptions]:
		o.lists = true
	case *Of[SGDOptions]:
		o.lists = true
	}
	return o
}

// ClipGradNormOfLists is ClipGradNorm with foreach operators on the CPU too.
func ClipGradNormOfLists(params []torch.Tensor, limit float64) torch.Tensor {
	return clipGradNorm(params, limit, true)
}

// Power is C's pow, as Python's ** calls it.
func Power(x, y float64) float64 { return shim.Pow(x, y) }
