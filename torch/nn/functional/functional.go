// Package functional provides functions of torch.nn.functional that add
// something to the operators of package torch: defaults, named reductions, or a
// combination of operators. Import it as F. Functions that are a single operator
// (softmax, relu, gelu …) are methods of torch.Tensor and are not repeated here.
package functional

import (
	"math"

	"cyclecap/torch"
)

// Reduction is the reduction that a loss applies to its elements.
type Reduction int64

// The reductions, with PyTorch's names. PyTorch's default is Mean.
const (
	None Reduction = 0
	Mean Reduction = 1
	Sum  Reduction = 2
	// BatchMean is the sum divided by the size of the first dimension, for KLDiv only.
	BatchMean Reduction = 3
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

// CrossEntropy is F.cross_entropy of logits [n, c, ...] and int64 classes [n, ...], or of [c] and [].
// In place of classes, target can have the probabilities of the classes, in the shape of the logits.
func CrossEntropy(logits, target torch.Tensor, o CrossEntropyOptions) torch.Tensor {
	return logits.CrossEntropyLoss(target, torch.WithWeight(o.Weight), torch.WithReduction(int64(o.Reduction)),
		torch.WithIgnoreIndex(o.IgnoreIndex), torch.WithLabelSmoothing(o.LabelSmoothing))
}

// NLLLoss is F.nll_loss of log-probabilities [n, c] and int64 classes [n].
func NLLLoss(logProbs, target torch.Tensor) torch.Tensor { return logProbs.NllLossNd(target) }

// NLLLossOptions configures NLLLossWith.
type NLLLossOptions struct {
	Weight      torch.Tensor // weight of each class [c], or none
	IgnoreIndex int64
	Reduction   Reduction
}

// NLLLossDefaults returns PyTorch's defaults: no weights, ignore_index -100, reduction "mean".
func NLLLossDefaults() NLLLossOptions { return NLLLossOptions{IgnoreIndex: -100, Reduction: Mean} }

// NLLLossWith is F.nll_loss of log-probabilities [n, c, ...] and int64 classes [n, ...], or of [c]
// and [].
func NLLLossWith(logProbs, target torch.Tensor, o NLLLossOptions) torch.Tensor {
	return logProbs.NllLossNd(target, torch.WithWeight(o.Weight), torch.WithReduction(int64(o.Reduction)), torch.WithIgnoreIndex(o.IgnoreIndex))
}

// MSELoss is F.mse_loss.
func MSELoss(x, target torch.Tensor, r Reduction) torch.Tensor {
	return x.MseLoss(target, torch.WithReduction(int64(r)))
}

// L1Loss is F.l1_loss.
func L1Loss(x, target torch.Tensor, r Reduction) torch.Tensor {
	return x.L1Loss(target, torch.WithReduction(int64(r)))
}

// SmoothL1Loss is F.smooth_l1_loss, whose default beta is 1. For a beta of 0 it is the L1 loss.
func SmoothL1Loss(x, target torch.Tensor, beta float64, r Reduction) torch.Tensor {
	if beta == 0 {
		return L1Loss(x, target, r)
	}
	return x.SmoothL1Loss(target, torch.WithReduction(int64(r)), torch.WithBeta(beta))
}

// HuberLoss is F.huber_loss, whose default delta is 1.
func HuberLoss(x, target torch.Tensor, delta float64, r Reduction) torch.Tensor {
	return x.HuberLoss(target, torch.WithReduction(int64(r)), torch.WithDelta(delta))
}

// KLDiv is F.kl_div of log-probabilities and probabilities, or their logarithms with logTarget. r can
// be BatchMean too.
func KLDiv(x, target torch.Tensor, logTarget bool, r Reduction) torch.Tensor {
	how := r
	if r == BatchMean {
		how = Sum
	}
	y := x.KlDiv(target, torch.WithReduction(int64(how)), torch.WithLogTarget(logTarget))
	if r == BatchMean && x.Dim() > 0 {
		y = y.DivScalar(x.Size(0))
	}
	return y
}

// BCE is F.binary_cross_entropy of probabilities and targets of the same shape. weight, which can be
// broadcast to it, multiplies the losses, or is none.
func BCE(x, target, weight torch.Tensor, r Reduction) torch.Tensor {
	if weight.Defined() {
		weight = weight.ExpandAs(target)
	}
	return x.BinaryCrossEntropy(target, torch.WithWeight(weight), torch.WithReduction(int64(r)))
}

// BCEWithLogitsWeighted is F.binary_cross_entropy_with_logits with weights: weight multiplies the
// losses, and posWeight their parts for positive targets. Both can be broadcast to the shape of the
// logits, or are none.
func BCEWithLogitsWeighted(logits, target, weight, posWeight torch.Tensor, r Reduction) torch.Tensor {
	return logits.BinaryCrossEntropyWithLogits(target, torch.WithWeight(weight), torch.WithPosWeight(posWeight), torch.WithReduction(int64(r)))
}

// CosineEmbeddingLoss is F.cosine_embedding_loss of two tensors [n, d] and targets [n] of 1 and -1,
// or of [d] and []. The default margin is 0.
func CosineEmbeddingLoss(x1, x2, target torch.Tensor, margin float64, r Reduction) torch.Tensor {
	return torch.CosineEmbeddingLoss(x1, x2, target, torch.WithMargin(margin), torch.WithReduction(int64(r)))
}

// MarginRankingLoss is F.margin_ranking_loss of three tensors of one shape; target has 1 and -1. The
// default margin is 0.
func MarginRankingLoss(x1, x2, target torch.Tensor, margin float64, r Reduction) torch.Tensor {
	return torch.MarginRankingLoss(x1, x2, target, torch.WithMargin(margin), torch.WithReduction(int64(r)))
}

// HingeEmbeddingLoss is F.hinge_embedding_loss of two tensors of one shape; target has 1 and -1. The
// default margin is 1.
func HingeEmbeddingLoss(x, target torch.Tensor, margin float64, r Reduction) torch.Tensor {
	return x.HingeEmbeddingLoss(target, torch.WithMargin(margin), torch.WithReduction(int64(r)))
}

// SoftMarginLoss is F.soft_margin_loss of two tensors of one shape; target has 1 and -1.
func SoftMarginLoss(x, target torch.Tensor, r Reduction) torch.Tensor {
	return x.SoftMarginLoss(target, torch.WithReduction(int64(r)))
}

// MultiLabelMarginLoss is F.multilabel_margin_loss of scores [n, c] and int64 classes [n, c], which end
// with -1, or of [c] and [c].
func MultiLabelMarginLoss(x, target torch.Tensor, r Reduction) torch.Tensor {
	return x.MultilabelMarginLoss(target, torch.WithReduction(int64(r)))
}

// MultiLabelSoftMarginLoss is F.multilabel_soft_margin_loss of scores and targets [n, c] of 0 and 1, or
// of [c] and [c]. weight [c] multiplies the losses, or is none.
func MultiLabelSoftMarginLoss(x, target, weight torch.Tensor, r Reduction) torch.Tensor {
	loss := target.Mul(x.LogSigmoid()).Add(target.RsubScalar(1).Mul(x.Neg().LogSigmoid())).Neg()
	if weight.Defined() {
		loss = loss.Mul(weight)
	}
	return reduce(loss.SumDim([]int64{-1}).DivScalar(x.Size(-1)), r)
}

// MultiMarginLossOptions configures MultiMarginLoss.
type MultiMarginLossOptions struct {
	P         int64 // 1 or 2
	Margin    float64
	Weight    torch.Tensor // weight of each class [c], or none
	Reduction Reduction
}

// MultiMarginLossDefaults returns PyTorch's defaults: p 1, margin 1, no weights, reduction "mean".
func MultiMarginLossDefaults() MultiMarginLossOptions {
	return MultiMarginLossOptions{P: 1, Margin: 1, Reduction: Mean}
}

// MultiMarginLoss is F.multi_margin_loss of scores [n, c] and int64 classes [n], or of [c] and [].
func MultiMarginLoss(x, target torch.Tensor, o MultiMarginLossOptions) torch.Tensor {
	return x.MultiMarginLoss(target, torch.WithP(o.P), torch.WithMargin(o.Margin), torch.WithWeight(o.Weight), torch.WithReduction(int64(o.Reduction)))
}

// TripletMarginLossOptions configures TripletMarginLoss.
type TripletMarginLossOptions struct {
	Margin, P, Eps float64
	Swap           bool // the distance of positive and negative counts if it is smaller
	Reduction      Reduction
}

// TripletMarginLossDefaults returns PyTorch's defaults: margin 1, the 2-norm, eps 1e-6, no swap,
// reduction "mean".
func TripletMarginLossDefaults() TripletMarginLossOptions {
	return TripletMarginLossOptions{Margin: 1, P: 2, Eps: 1e-6, Reduction: Mean}
}

// TripletMarginLoss is F.triplet_margin_loss of three tensors [n, d] or [d].
func TripletMarginLoss(anchor, positive, negative torch.Tensor, o TripletMarginLossOptions) torch.Tensor {
	return torch.TripletMarginLoss(anchor, positive, negative, torch.WithMargin(o.Margin), torch.WithP(o.P), torch.WithEps(o.Eps),
		torch.WithSwap(o.Swap), torch.WithReduction(int64(o.Reduction)))
}

// PoissonNLLLossOptions configures PoissonNLLLoss.
type PoissonNLLLossOptions struct {
	LogInput  bool // the input is the logarithm of the rate
	Full      bool // adds Stirling's approximation of the constant term
	Eps       float64
	Reduction Reduction
}

// PoissonNLLLossDefaults returns PyTorch's defaults: logarithms, no constant term, eps 1e-8, reduction
// "mean".
func PoissonNLLLossDefaults() PoissonNLLLossOptions {
	return PoissonNLLLossOptions{LogInput: true, Eps: 1e-8, Reduction: Mean}
}

// PoissonNLLLoss is F.poisson_nll_loss of two tensors of one shape.
func PoissonNLLLoss(x, target torch.Tensor, o PoissonNLLLossOptions) torch.Tensor {
	return torch.PoissonNllLoss(x, target, o.LogInput, o.Full, o.Eps, int64(o.Reduction))
}

// GaussianNLLLossOptions configures GaussianNLLLoss.
type GaussianNLLLossOptions struct {
	Full      bool // adds the constant term
	Eps       float64
	Reduction Reduction
}

// GaussianNLLLossDefaults returns PyTorch's defaults: no constant term, eps 1e-6, reduction "mean".
func GaussianNLLLossDefaults() GaussianNLLLossOptions {
	return GaussianNLLLossOptions{Eps: 1e-6, Reduction: Mean}
}

// GaussianNLLLoss is F.gaussian_nll_loss of means and targets of one shape. The variances have this
// shape too, or lack its last dimension, or have one dimension of size 1. That none is negative is
// not checked, because this would wait for the device.
func GaussianNLLLoss(x, target, variance torch.Tensor, o GaussianNLLLossOptions) torch.Tensor {
	if variance.Dim() == x.Dim()-1 {
		variance = variance.Unsqueeze(-1)
	}
	variance = variance.Clone()
	torch.NoGrad(func() { variance.Clamp_(torch.WithMin(o.Eps)) })
	loss := variance.Log().Add(x.Sub(target).PowScalar(2).Div(variance)).MulScalar(0.5)
	if o.Full {
		loss = loss.AddScalar_(0.5 * math.Log(2*math.Pi))
	}
	return reduce(loss, o.Reduction)
}

// CTCLossOptions configures CTCLoss.
type CTCLossOptions struct {
	Blank        int64
	Reduction    Reduction
	ZeroInfinity bool // infinite losses, and their gradients, are 0
}

// CTCLossDefaults returns PyTorch's defaults: blank 0, reduction "mean".
func CTCLossDefaults() CTCLossOptions { return CTCLossOptions{Reduction: Mean} }

// CTCLoss is F.ctc_loss of log-probabilities [t, n, c] or [t, c], int64 targets [n, s] or [sum of
// lengths], and int64 lengths [n] or [] of inputs and targets.
func CTCLoss(logProbs, targets, inputLengths, targetLengths torch.Tensor, o CTCLossOptions) torch.Tensor {
	return torch.CtcLoss(logProbs, targets, inputLengths, targetLengths, torch.WithBlank(o.Blank), torch.WithReduction(int64(o.Reduction)),
		torch.WithZeroInfinity(o.ZeroInfinity))
}

// reduce applies a reduction to the elements of a loss.
func reduce(loss torch.Tensor, r Reduction) torch.Tensor {
	switch r {
	case Mean:
		return loss.Mean()
	case Sum:
		return loss.Sum()
	}
	return loss
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
