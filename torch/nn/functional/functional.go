// Package functional has torch.nn.functional's losses and functions where they
// add something to the operators of package torch: defaults, reductions by
// name, several operators in one. Import it as F. What is one operator already
// (softmax, relu, gelu …) is a method of torch.Tensor and not repeated here.
package functional

import (
	"cyclecap/torch"
)

// Reduction says what a loss does with its elements.
type Reduction int64

// The reductions under PyTorch's names; its default is Mean.
const (
	None Reduction = 0
	Mean Reduction = 1
	Sum  Reduction = 2
)

// CrossEntropyOptions are the settings of CrossEntropy; the zero value is not
// PyTorch's default, CrossEntropyDefaults is.
type CrossEntropyOptions struct {
	Weight         torch.Tensor // of each class [c], or none
	IgnoreIndex    int64
	Reduction      Reduction
	LabelSmoothing float64
}

// CrossEntropyDefaults are PyTorch's: no weights, ignore_index -100, mean.
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

// Normalize is F.normalize: x over its 2-norm along dim, where that is not 0.
func Normalize(x torch.Tensor, dim int64) torch.Tensor {
	norm := x.LinalgVectorNorm(torch.WithDim([]int64{dim}), torch.WithKeepdim(true))
	return x.Div(norm.ClampMin(1e-12).ExpandAs(x))
}
