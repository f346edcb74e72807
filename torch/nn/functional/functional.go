// Package functional provides functions of torch.nn.functional that add
// something to the operators of package torch: defaults, named reductions, or a
// combination of operators. Import it as F. Functions that are a single operator
// (softmax, relu, gelu …) are methods of torch.Tensor and are not repeated here.
package functional

import (
	"cyclecap/torch"
)

// Reduction is the reduction that a loss applies to its elements.
type Reduction int64

// The reductions, with PyTorch's names. PyTorch's default is Mean.
const (
	None Reduction = 0
	Mean Reduction = 1
	Sum  Reduction = 2
)

// CrossEntropyOptions configures CrossEntropy. PyTorch's defaults are not the
// zero value; use CrossEntropyDefaults.
type CrossEntropyOptions struct {
	Weight         torch.Tensor // weight of each class [c], or none
	IgnoreIndex    int64
	Reduction      Reduction
	LabelSmoothing float64
}

// CrossEntropyDefaults returns PyTorch's defaults: no weights, ignore_index -100,
// reduction "mean".
func CrossEntropyDefaults() CrossEntropyOptions {
	return CrossEntropyOptions{IgnoreIndex: -100, Reduction: Mean}
}

// CrossEntropy is F.cross_entropy of logits [n, c] and int64 classes [n].
func CrossEntropy(logits, target torch.Tensor, o CrossEntropyOptions) torch.Tensor {
	return logits.CrossEntropyLoss(target, torch.WithWeight(o.Weight), torch.WithReduction(int64(o.Reduction)),
		torch.WithIgnoreIndex(o.IgnoreIndex), torch.WithLabelSmoothing(o.LabelSmoothing))
}

// NLLLoss is F.nll_loss of log-probabilities [n, c] and int64 classes [n].
func NLLLoss(logProbs, target torch.Tensor) torch.Tensor { return logProbs.NllLossNd(target) }

// MSELoss is F.mse_loss.
func MSELoss(x, target torch.Tensor, r Reduction) torch.Tensor {
	return x.MseLoss(target, torch.WithReduction(int64(r)))
}

// L1Loss is F.l1_loss.
func L1Loss(x, target torch.Tensor, r Reduction) torch.Tensor {
	return x.L1Loss(target, torch.WithReduction(int64(r)))
}

// BCEWithLogits is F.binary_cross_entropy_with_logits.
func BCEWithLogits(logits, target torch.Tensor, r Reduction) torch.Tensor {
	return logits.BinaryCrossEntropyWithLogits(target, torch.WithReduction(int64(r)))
}

// Normalize is F.normalize: it divides x by its 2-norm along dim, or by 1e-12 if
// the norm is smaller.
func Normalize(x torch.Tensor, dim int64) torch.Tensor {
	norm := x.LinalgVectorNorm(torch.WithDimList([]int64{dim}), torch.WithKeepdim(true))
	return x.Div(norm.ClampMin(1e-12).ExpandAs(x))
}
