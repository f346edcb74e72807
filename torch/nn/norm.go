package nn

import (
	"fmt"
	"slices"

	"cyclecap/torch"
)

// LayerNormModule is torch.nn.LayerNorm.
type LayerNormModule struct {
	Hook
	Weight torch.Tensor // of the normalized shape, or none
	Bias   torch.Tensor // of the normalized shape, or none
	shape  []int64
	eps    float64
}

// LayerNorm returns a layer normalization over the last dimensions, whose sizes
// are given by shape, with weight and bias. PyTorch's default eps is 1e-5.
func LayerNorm(shape []int64, eps float64) *LayerNormModule {
	return LayerNormWith(shape, LayerNormOptions{Eps: eps, ElementwiseAffine: true, Bias: true})
}

// LayerNormOptions configures LayerNormWith.
type LayerNormOptions struct {
	Eps               float64
	ElementwiseAffine bool // a weight
	Bias              bool // a bias, if there is a weight
}

// LayerNormDefaults returns PyTorch's defaults: eps 1e-5, a weight and a bias.
func LayerNormDefaults() LayerNormOptions {
	return LayerNormOptions{Eps: 1e-5, ElementwiseAffine: true, Bias: true}
}

// LayerNormWith is LayerNorm that can do without weight or bias.
func LayerNormWith(shape []int64, o LayerNormOptions) *LayerNormModule {
	l := &LayerNormModule{shape: slices.Clone(shape), eps: o.Eps}
	if o.ElementwiseAffine {
		l.Weight = parameter(torch.Ones(shape))
		if o.Bias {
			l.Bias = parameter(torch.Zeros(shape))
		}
	}
	return l
}

// Forward normalizes x over its last dimensions.
func (l *LayerNormModule) Forward(x torch.Tensor) torch.Tensor {
	return l.Output(torch.LayerNorm(x, l.shape, torch.WithWeight(l.Weight), torch.WithBias(l.Bias), torch.WithEps(l.eps)))
}

// RMSNormModule is torch.nn.RMSNorm.
type RMSNormModule struct {
	Hook
	Weight torch.Tensor // of the normalized shape, or none
	shape  []int64
	o      RMSNormOptions
}

// RMSNormOptions configures RMSNorm.
type RMSNormOptions struct {
	Eps               float64 // 0 is PyTorch's None: the epsilon of the input's dtype
	ElementwiseAffine bool    // a weight
}

// RMSNormDefaults returns PyTorch's defaults: the epsilon of the input's dtype, and a weight.
func RMSNormDefaults() RMSNormOptions { return RMSNormOptions{ElementwiseAffine: true} }

// RMSNorm returns a normalization by the root mean square over the last dimensions, whose sizes
// are given by shape.
func RMSNorm(shape []int64, o RMSNormOptions) *RMSNormModule {
	m := &RMSNormModule{shape: slices.Clone(shape), o: o}
	if o.ElementwiseAffine {
		m.Weight = parameter(torch.Ones(shape))
	}
	return m
}

// Forward normalizes x over its last dimensions.
func (m *RMSNormModule) Forward(x torch.Tensor) torch.Tensor {
	opts := []torch.Option{torch.WithWeight(m.Weight)}
	if m.o.Eps != 0 {
		opts = append(opts, torch.WithEps(m.o.Eps))
	}
	return m.Output(torch.RmsNorm(x, m.shape, opts...))
}

// GroupNormModule is torch.nn.GroupNorm.
type GroupNormModule struct {
	Hook
	Weight torch.Tensor // [channels], or none
	Bias   torch.Tensor // [channels], or none
	groups int64
	eps    float64
}

// GroupNormOptions configures GroupNorm.
type GroupNormOptions struct {
	Eps    float64
	Affine bool // a weight and a bias
}

// GroupNormDefaults returns PyTorch's defaults: eps 1e-5, a weight and a bias.
func GroupNormDefaults() GroupNormOptions { return GroupNormOptions{Eps: 1e-5, Affine: true} }

// GroupNorm returns a normalization over groups of channels. The number of channels must be
// divisible by the number of groups.
func GroupNorm(groups, channels int64, o GroupNormOptions) *GroupNormModule {
	if groups < 1 || channels%groups != 0 {
		torch.Throw("nn.GroupNorm", "the number of channels, %d, must be divisible by the number of groups, %d", channels, groups)
	}
	m := &GroupNormModule{groups: groups, eps: o.Eps}
	if o.Affine {
		m.Weight = parameter(torch.Ones([]int64{channels}))
		m.Bias = parameter(torch.Zeros([]int64{channels}))
	}
	return m
}

// Forward normalizes x [n, channels, ...].
func (m *GroupNormModule) Forward(x torch.Tensor) torch.Tensor {
	return m.Output(torch.GroupNorm(x, m.groups, torch.WithWeight(m.Weight), torch.WithBias(m.Bias), torch.WithEps(m.eps)))
}

// BatchNormOptions configures BatchNorm1d, BatchNorm2d and BatchNorm3d.
type BatchNormOptions struct {
	Eps      float64
	Momentum float64
	// Cumulative is PyTorch's momentum=None: the running statistics are the means over all
	// batches, and Momentum is not used.
	Cumulative        bool
	Affine            bool // a weight and a bias
	TrackRunningStats bool // otherwise every batch is normalized by its own statistics
}

// BatchNormDefaults returns PyTorch's defaults: eps 1e-5, momentum 0.1, a weight and a bias,
// running statistics.
func BatchNormDefaults() BatchNormOptions {
	return BatchNormOptions{Eps: 1e-5, Momentum: 0.1, Affine: true, TrackRunningStats: true}
}

// BatchNormModule is torch.nn.BatchNorm1d, BatchNorm2d or BatchNorm3d. If Training is set, it
// normalizes by the statistics of the batch and updates the running ones; otherwise it
// normalizes by the running ones.
type BatchNormModule struct {
	Hook
	Training          bool
	Weight            torch.Tensor // [features], or none
	Bias              torch.Tensor // [features], or none
	RunningMean       torch.Tensor `buffer:"true"` // [features], or none
	RunningVar        torch.Tensor `buffer:"true"` // [features], or none
	NumBatchesTracked torch.Tensor `buffer:"true"` // int64 [], or none
	dims              []int        // of an input
	o                 BatchNormOptions
}

// BatchNorm1d returns a batch normalization of [n, features] or [n, features, length].
func BatchNorm1d(features int64, o BatchNormOptions) *BatchNormModule {
	return batchNorm(features, o, 2, 3)
}

// BatchNorm2d returns a batch normalization of [n, features, h, w].
func BatchNorm2d(features int64, o BatchNormOptions) *BatchNormModule {
	return batchNorm(features, o, 4)
}

// BatchNorm3d returns a batch normalization of [n, features, d, h, w].
func BatchNorm3d(features int64, o BatchNormOptions) *BatchNormModule {
	return batchNorm(features, o, 5)
}

func batchNorm(features int64, o BatchNormOptions, dims ...int) *BatchNormModule {
	m := &BatchNormModule{Training: true, dims: dims, o: o}
	shape := []int64{features}
	if o.Affine {
		m.Weight, m.Bias = parameter(torch.Ones(shape)), parameter(torch.Zeros(shape))
	}
	if o.TrackRunningStats {
		m.RunningMean, m.RunningVar = torch.Zeros(shape).Keep(), torch.Ones(shape).Keep()
		m.NumBatchesTracked = torch.Zeros([]int64{}, torch.WithDType(torch.Int64)).Keep()
	}
	return m
}

// Forward normalizes each feature of x. With Cumulative, training waits for the device to read
// the number of batches.
func (m *BatchNormModule) Forward(x torch.Tensor) torch.Tensor {
	const op = "nn.BatchNorm"
	if !slices.Contains(m.dims, x.Dim()) {
		torch.Throw(op, "expected an input of %s dimensions, got %v", fmt.Sprint(m.dims), x.Shape())
	}
	batch := m.Training || !m.RunningMean.Defined()
	if batch && x.Size(1) > 0 && x.Numel()/x.Size(1) == 1 {
		torch.Throw(op, "expected more than one value for each channel in training, got %v", x.Shape())
	}
	momentum := m.o.Momentum
	if m.Training && m.o.TrackRunningStats {
		torch.NoGrad(func() { m.NumBatchesTracked.AddScalar_(1) })
		if m.o.Cumulative {
			momentum = 1 / m.NumBatchesTracked.Item()
		}
	}
	return m.Output(torch.BatchNorm(x, m.Weight, m.Bias, m.RunningMean, m.RunningVar, batch, momentum, m.o.Eps, true))
}

// InstanceNormOptions configures InstanceNorm1d, InstanceNorm2d and InstanceNorm3d.
type InstanceNormOptions struct {
	Eps               float64
	Momentum          float64
	Affine            bool // a weight and a bias
	TrackRunningStats bool // evaluation normalizes by running statistics instead of the input's
}

// InstanceNormDefaults returns PyTorch's defaults: eps 1e-5, momentum 0.1, no parameters, no
// running statistics.
func InstanceNormDefaults() InstanceNormOptions { return InstanceNormOptions{Eps: 1e-5, Momentum: 0.1} }

// InstanceNormModule is torch.nn.InstanceNorm1d, InstanceNorm2d or InstanceNorm3d.
type InstanceNormModule struct {
	Hook
	Training          bool
	Weight            torch.Tensor // [features], or none
	Bias              torch.Tensor // [features], or none
	RunningMean       torch.Tensor `buffer:"true"` // [features], or none
	RunningVar        torch.Tensor `buffer:"true"` // [features], or none
	NumBatchesTracked torch.Tensor `buffer:"true"` // int64 [], always 0 as in PyTorch, or none
	dims              int          // of a single instance
	o                 InstanceNormOptions
}

// InstanceNorm1d returns an instance normalization of [n, features, length].
func InstanceNorm1d(features int64, o InstanceNormOptions) *InstanceNormModule {
	return instanceNorm(features, o, 2)
}

// InstanceNorm2d returns an instance normalization of [n, features, h, w].
func InstanceNorm2d(features int64, o InstanceNormOptions) *InstanceNormModule {
	return instanceNorm(features, o, 3)
}

// InstanceNorm3d returns an instance normalization of [n, features, d, h, w].
func InstanceNorm3d(features int64, o InstanceNormOptions) *InstanceNormModule {
	return instanceNorm(features, o, 4)
}

func instanceNorm(features int64, o InstanceNormOptions, dims int) *InstanceNormModule {
	b := batchNorm(features, BatchNormOptions{Affine: o.Affine, TrackRunningStats: o.TrackRunningStats})
	return &InstanceNormModule{Training: true, Weight: b.Weight, Bias: b.Bias, RunningMean: b.RunningMean, RunningVar: b.RunningVar,
		NumBatchesTracked: b.NumBatchesTracked, dims: dims, o: o}
}

// Forward normalizes each feature of each instance of x; the dimension of the batch may be
// missing.
func (m *InstanceNormModule) Forward(x torch.Tensor) torch.Tensor {
	const op = "nn.InstanceNorm"
	single := x.Dim() == m.dims
	if single {
		x = x.Unsqueeze(0)
	} else if x.Dim() != m.dims+1 {
		torch.Throw(op, "expected an input of %d or %d dimensions, got %v", m.dims, m.dims+1, x.Shape())
	}
	own := m.Training || !m.o.TrackRunningStats
	if own && x.Numel() == x.Size(0)*x.Size(1) {
		torch.Throw(op, "expected more than one value for each feature of an instance in training, got %v", x.Shape())
	}
	y := torch.InstanceNorm(x, m.Weight, m.Bias, m.RunningMean, m.RunningVar, own, m.o.Momentum, m.o.Eps, true)
	if single {
		y = y.SqueezeDim(0)
	}
	return m.Output(y)
}

// LocalResponseNormModule is torch.nn.LocalResponseNorm.
type LocalResponseNormModule struct {
	Hook
	size int64
	o    LocalResponseNormOptions
}

// LocalResponseNormOptions configures LocalResponseNorm.
type LocalResponseNormOptions struct{ Alpha, Beta, K float64 }

// LocalResponseNormDefaults returns PyTorch's defaults: alpha 1e-4, beta 0.75, k 1.
func LocalResponseNormDefaults() LocalResponseNormOptions {
	return LocalResponseNormOptions{Alpha: 1e-4, Beta: 0.75, K: 1}
}

// LocalResponseNorm returns a normalization across size neighbouring channels.
func LocalResponseNorm(size int64, o LocalResponseNormOptions) *LocalResponseNormModule {
	return &LocalResponseNormModule{size: size, o: o}
}

// Forward normalizes x [n, channels, ...], which has at least three dimensions.
func (m *LocalResponseNormModule) Forward(x torch.Tensor) torch.Tensor {
	if x.Dim() < 3 {
		torch.Throw("nn.LocalResponseNorm", "expected an input of three or more dimensions, got %v", x.Shape())
	}
	if x.Numel() == 0 {
		return m.Output(x)
	}
	shape, before, after := x.Shape(), m.size/2, (m.size-1)/2
	div := x.Mul(x)
	if x.Dim() == 3 {
		div = div.Unsqueeze(1).Pad([]int64{0, 0, before, after})
		div = div.AvgPool2d([]int64{m.size, 1}, torch.WithStride([]int64{1})).SqueezeDim(1)
	} else {
		div = div.View([]int64{shape[0], 1, shape[1], shape[2], -1}).Pad([]int64{0, 0, 0, 0, before, after})
		div = div.AvgPool3d([]int64{m.size, 1, 1}, torch.WithStride([]int64{1})).SqueezeDim(1).View(shape)
	}
	return m.Output(x.Div(div.MulScalar(m.o.Alpha).AddScalar(m.o.K).PowScalar(m.o.Beta)))
}
