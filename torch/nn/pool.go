package nn

import (
	"math"

	"cyclecap/torch"
)

// MaxPoolOptions configures MaxPool1d, MaxPool2d and MaxPool3d. The zero value is PyTorch's
// defaults. A list has a number for each spatial dimension, or one number for all of them.
type MaxPoolOptions struct {
	Stride   []int64 // nil is the size of the kernel
	Padding  []int64 // nil is 0
	Dilation []int64 // nil is 1
	CeilMode bool    // the size of the output is rounded up
}

// MaxPoolModule is torch.nn.MaxPool1d, MaxPool2d or MaxPool3d.
type MaxPoolModule struct {
	Hook
	kernel []int64
	o      MaxPoolOptions
}

// MaxPool1d returns a maximum pooling of [n, channels, length]; n may be missing.
func MaxPool1d(kernel []int64, o MaxPoolOptions) *MaxPoolModule {
	return maxPool("nn.MaxPool1d", 1, kernel, o)
}

// MaxPool2d returns a maximum pooling of [n, channels, h, w]; n may be missing.
func MaxPool2d(kernel []int64, o MaxPoolOptions) *MaxPoolModule {
	return maxPool("nn.MaxPool2d", 2, kernel, o)
}

// MaxPool3d returns a maximum pooling of [n, channels, d, h, w]; n may be missing.
func MaxPool3d(kernel []int64, o MaxPoolOptions) *MaxPoolModule {
	return maxPool("nn.MaxPool3d", 3, kernel, o)
}

func maxPool(op string, dims int, kernel []int64, o MaxPoolOptions) *MaxPoolModule {
	m := &MaxPoolModule{kernel: sizes(op, "kernel", kernel, dims, 0), o: o}
	if o.Stride == nil {
		o.Stride = m.kernel
	}
	m.o.Stride = sizes(op, "Stride", o.Stride, dims, 0)
	m.o.Padding = sizes(op, "Padding", o.Padding, dims, 0)
	m.o.Dilation = sizes(op, "Dilation", o.Dilation, dims, 1)
	return m
}

// Forward pools the last dimensions of x.
func (m *MaxPoolModule) Forward(x torch.Tensor) torch.Tensor {
	call := []func(torch.Tensor, []int64, ...torch.Option) torch.Tensor{torch.Tensor.MaxPool1d, torch.Tensor.MaxPool2d, torch.Tensor.MaxPool3d}
	return m.Output(call[len(m.kernel)-1](x, m.kernel, torch.WithStride(m.o.Stride), torch.WithPadding(m.o.Padding),
		torch.WithDilation(m.o.Dilation), torch.WithCeilMode(m.o.CeilMode)))
}

// ForwardIndices is Forward with return_indices=True: it also returns the place of each maximum in
// the pooled dimensions of x, int64, of the shape of the output.
func (m *MaxPoolModule) ForwardIndices(x torch.Tensor) (y, indices torch.Tensor) {
	call := []func(torch.Tensor, []int64, ...torch.Option) (torch.Tensor, torch.Tensor){torch.Tensor.MaxPool1dWithIndices, torch.Tensor.MaxPool2dWithIndices, torch.Tensor.MaxPool3dWithIndices}
	y, indices = call[len(m.kernel)-1](x, m.kernel, torch.WithStride(m.o.Stride), torch.WithPadding(m.o.Padding),
		torch.WithDilation(m.o.Dilation), torch.WithCeilMode(m.o.CeilMode))
	return m.Output(y), indices
}

// AvgPoolOptions configures AvgPool1d, AvgPool2d and AvgPool3d. A list has a number for each
// spatial dimension, or one number for all of them.
type AvgPoolOptions struct {
	Stride          []int64 // nil is the size of the kernel
	Padding         []int64 // nil is 0
	CeilMode        bool    // the size of the output is rounded up
	CountIncludePad bool    // the padding's zeros count for the mean
	DivisorOverride int64   // divides the sums, or 0; not for AvgPool1d
}

// AvgPoolDefaults returns PyTorch's defaults: no padding, which would count.
func AvgPoolDefaults() AvgPoolOptions { return AvgPoolOptions{CountIncludePad: true} }

// AvgPoolModule is torch.nn.AvgPool1d, AvgPool2d or AvgPool3d.
type AvgPoolModule struct {
	Hook
	kernel []int64
	o      AvgPoolOptions
}

// AvgPool1d returns a mean pooling of [n, channels, length]; n may be missing.
func AvgPool1d(kernel []int64, o AvgPoolOptions) *AvgPoolModule {
	if o.DivisorOverride != 0 {
		torch.Throw("nn.AvgPool1d", "there is no DivisorOverride for one dimension")
	}
	return avgPool("nn.AvgPool1d", 1, kernel, o)
}

// AvgPool2d returns a mean pooling of [n, channels, h, w]; n may be missing.
func AvgPool2d(kernel []int64, o AvgPoolOptions) *AvgPoolModule {
	return avgPool("nn.AvgPool2d", 2, kernel, o)
}

// AvgPool3d returns a mean pooling of [n, channels, d, h, w]; n may be missing.
func AvgPool3d(kernel []int64, o AvgPoolOptions) *AvgPoolModule {
	return avgPool("nn.AvgPool3d", 3, kernel, o)
}

func avgPool(op string, dims int, kernel []int64, o AvgPoolOptions) *AvgPoolModule {
	m := &AvgPoolModule{kernel: sizes(op, "kernel", kernel, dims, 0), o: o}
	if o.Stride == nil {
		o.Stride = m.kernel
	}
	m.o.Stride = sizes(op, "Stride", o.Stride, dims, 0)
	m.o.Padding = sizes(op, "Padding", o.Padding, dims, 0)
	return m
}

// Forward pools the last dimensions of x.
func (m *AvgPoolModule) Forward(x torch.Tensor) torch.Tensor {
	opts := []torch.Option{torch.WithStride(m.o.Stride), torch.WithPadding(m.o.Padding), torch.WithCeilMode(m.o.CeilMode),
		torch.WithCountIncludePad(m.o.CountIncludePad)}
	if m.o.DivisorOverride != 0 {
		opts = append(opts, torch.WithDivisorOverride(m.o.DivisorOverride))
	}
	call := []func(torch.Tensor, []int64, ...torch.Option) torch.Tensor{torch.Tensor.AvgPool1d, torch.Tensor.AvgPool2d, torch.Tensor.AvgPool3d}
	return m.Output(call[len(m.kernel)-1](x, m.kernel, opts...))
}

// LPPoolOptions configures LPPool1d, LPPool2d and LPPool3d. The zero value is PyTorch's
// defaults.
type LPPoolOptions struct {
	Stride   []int64 // nil is the size of the kernel
	CeilMode bool    // the size of the output is rounded up
}

// LPPoolModule is torch.nn.LPPool1d, LPPool2d or LPPool3d.
type LPPoolModule struct {
	Hook
	norm float64
	pool *AvgPoolModule
}

// LPPool1d returns a pooling of [n, channels, length] by the norm of the given order; n may be
// missing.
func LPPool1d(norm float64, kernel []int64, o LPPoolOptions) *LPPoolModule {
	return lpPool("nn.LPPool1d", 1, norm, kernel, o)
}

// LPPool2d returns a pooling of [n, channels, h, w] by the norm of the given order; n may be
// missing.
func LPPool2d(norm float64, kernel []int64, o LPPoolOptions) *LPPoolModule {
	return lpPool("nn.LPPool2d", 2, norm, kernel, o)
}

// LPPool3d returns a pooling of [n, channels, d, h, w] by the norm of the given order; n may be
// missing.
func LPPool3d(norm float64, kernel []int64, o LPPoolOptions) *LPPoolModule {
	return lpPool("nn.LPPool3d", 3, norm, kernel, o)
}

func lpPool(op string, dims int, norm float64, kernel []int64, o LPPoolOptions) *LPPoolModule {
	return &LPPoolModule{norm: norm, pool: avgPool(op, dims, kernel, AvgPoolOptions{Stride: o.Stride, CeilMode: o.CeilMode, CountIncludePad: true})}
}

// Forward pools the last dimensions of x.
func (m *LPPoolModule) Forward(x torch.Tensor) torch.Tensor {
	count := int64(1)
	for _, k := range m.pool.kernel {
		count *= k
	}
	order := torch.Scalar(m.norm)
	if m.norm == math.Trunc(m.norm) {
		order = int64(m.norm)
	}
	y := m.pool.Forward(x.PowScalar(order))
	return m.Output(y.Sign().Mul(y.Abs().Relu()).MulScalar(count).PowScalar(1 / m.norm))
}

// AdaptiveAvgPoolModule is torch.nn.AdaptiveAvgPool1d, AdaptiveAvgPool2d or AdaptiveAvgPool3d.
type AdaptiveAvgPoolModule struct {
	Hook
	output []int64
}

// AdaptiveMaxPoolModule is torch.nn.AdaptiveMaxPool1d, AdaptiveMaxPool2d or AdaptiveMaxPool3d.
type AdaptiveMaxPoolModule struct {
	Hook
	output []int64
}

// KeepSize is a size of an adaptive pooling's output: that of the input.
const KeepSize = -1

// AdaptiveAvgPool1d returns a mean pooling of [n, channels, length] to a length of output; n may
// be missing.
func AdaptiveAvgPool1d(output []int64) *AdaptiveAvgPoolModule {
	return &AdaptiveAvgPoolModule{output: sizes("nn.AdaptiveAvgPool1d", "output", output, 1, 0)}
}

// AdaptiveAvgPool2d returns a mean pooling of [n, channels, h, w] to the sizes in output, of which
// [KeepSize] is the input's; n may be missing.
func AdaptiveAvgPool2d(output []int64) *AdaptiveAvgPoolModule {
	return &AdaptiveAvgPoolModule{output: sizes("nn.AdaptiveAvgPool2d", "output", output, 2, 0)}
}

// AdaptiveAvgPool3d returns a mean pooling of [n, channels, d, h, w] to the sizes in output, of
// which [KeepSize] is the input's; n may be missing.
func AdaptiveAvgPool3d(output []int64) *AdaptiveAvgPoolModule {
	return &AdaptiveAvgPoolModule{output: sizes("nn.AdaptiveAvgPool3d", "output", output, 3, 0)}
}

// AdaptiveMaxPool1d returns a maximum pooling of [n, channels, length] to a length of output; n
// may be missing.
func AdaptiveMaxPool1d(output []int64) *AdaptiveMaxPoolModule {
	return &AdaptiveMaxPoolModule{output: sizes("nn.AdaptiveMaxPool1d", "output", output, 1, 0)}
}

// AdaptiveMaxPool2d returns a maximum pooling of [n, channels, h, w] to the sizes in output, of
// which [KeepSize] is the input's; n may be missing.
func AdaptiveMaxPool2d(output []int64) *AdaptiveMaxPoolModule {
	return &AdaptiveMaxPoolModule{output: sizes("nn.AdaptiveMaxPool2d", "output", output, 2, 0)}
}

// AdaptiveMaxPool3d returns a maximum pooling of [n, channels, d, h, w] to the sizes in output, of
// which [KeepSize] is the input's; n may be missing.
func AdaptiveMaxPool3d(output []int64) *AdaptiveMaxPoolModule {
	return &AdaptiveMaxPoolModule{output: sizes("nn.AdaptiveMaxPool3d", "output", output, 3, 0)}
}

// adapted returns the sizes to which x is pooled.
func adapted(x torch.Tensor, output []int64) []int64 {
	size := make([]int64, len(output))
	for d := range size {
		if size[d] = output[d]; size[d] == KeepSize {
			size[d] = x.Size(d - len(size))
		}
	}
	return size
}

// Forward pools the last dimensions of x.
func (m *AdaptiveAvgPoolModule) Forward(x torch.Tensor) torch.Tensor {
	call := []func(torch.Tensor, []int64) torch.Tensor{torch.Tensor.AdaptiveAvgPool1d, torch.Tensor.AdaptiveAvgPool2d, torch.Tensor.AdaptiveAvgPool3d}
	return m.Output(call[len(m.output)-1](x, adapted(x, m.output)))
}

// Forward pools the last dimensions of x.
func (m *AdaptiveMaxPoolModule) Forward(x torch.Tensor) torch.Tensor {
	y, _ := m.ForwardIndices(x)
	return y
}

// ForwardIndices is Forward with return_indices=True: it also returns the place of each maximum in
// the pooled dimensions of x, int64, of the shape of the output.
func (m *AdaptiveMaxPoolModule) ForwardIndices(x torch.Tensor) (y, indices torch.Tensor) {
	call := []func(torch.Tensor, []int64) (torch.Tensor, torch.Tensor){torch.Tensor.AdaptiveMaxPool1d, torch.Tensor.AdaptiveMaxPool2d, torch.Tensor.AdaptiveMaxPool3d}
	y, indices = call[len(m.output)-1](x, adapted(x, m.output))
	return m.Output(y), indices
}
