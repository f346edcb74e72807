package nn

import (
	"math"

	"cyclecap/torch"
)

// LinearModule is torch.nn.Linear.
type LinearModule struct {
	Hook
	Weight torch.Tensor // [out, in]
	// WeightScale is the scale of each output, f32 [out, 1], of a Weight of 8-bit integers
	// (see torch.Int8Quantize), and otherwise none. Such a layer has to be packed as [Int8]
	// to compute.
	WeightScale torch.Tensor `optional:"true"`
	Bias        torch.Tensor // [out], or none
	Packed      *Packed      `name:"-"` // set by nn.Pack
}

// Linear returns a linear layer with PyTorch's initialization:
// kaiming_uniform_(a=sqrt(5)) for the weight, and a uniform distribution between
// -1/sqrt(in) and 1/sqrt(in) for the bias.
func Linear(in, out int64, bias bool) *LinearModule {
	l := &LinearModule{Weight: parameter(torch.Empty([]int64{out, in}))}
	KaimingUniform_(l.Weight, math.Sqrt(5))
	if bias {
		l.Bias = parameter(torch.Empty([]int64{out}))
		uniformFanIn_(l.Bias, in)
	}
	return l
}

// Forward maps [..., in] to [..., out].
func (l *LinearModule) Forward(x torch.Tensor) torch.Tensor {
	if l.Packed != nil {
		return l.Output(l.Packed.Forward(x))
	}
	if l.Bias.Defined() {
		return l.Output(torch.Linear(x, l.Weight, torch.WithBias(l.Bias)))
	}
	return l.Output(torch.Linear(x, l.Weight))
}

// Pack packs the weight of the layer; see nn.Pack.
func (l *LinearModule) Pack(as Packing) {
	if l.Packed == nil {
		torch.Tidy(func() torch.Tensor {
			l.Packed = NewPacked(l.Weight, l.WeightScale, l.Bias, as)
			return torch.Tensor{}
		})
		l.Weight.Close()
		l.WeightScale.Close()
		l.Weight, l.WeightScale = torch.Tensor{}, torch.Tensor{}
	}
}

// LayerNormModule is torch.nn.LayerNorm with weight and bias.
type LayerNormModule struct {
	Hook
	Weight torch.Tensor
	Bias   torch.Tensor
	eps    float64
}

// LayerNorm returns a layer normalization over the last dimensions, whose sizes
// are given by shape. PyTorch's default eps is 1e-5.
func LayerNorm(shape []int64, eps float64) *LayerNormModule {
	return &LayerNormModule{
		Weight: parameter(torch.Ones(shape)),
		Bias:   parameter(torch.Zeros(shape)),
		eps:    eps,
	}
}

// Forward normalizes x over its last dimensions.
func (l *LayerNormModule) Forward(x torch.Tensor) torch.Tensor {
	return l.Output(torch.LayerNorm(x, l.Weight.Shape(), torch.WithWeight(l.Weight), torch.WithBias(l.Bias), torch.WithEps(l.eps)))
}

// EmbeddingModule is torch.nn.Embedding.
type EmbeddingModule struct {
	Hook
	Weight torch.Tensor // [n, dim]
}

// Embedding returns a table of n vectors, initialized from the standard normal
// distribution.
func Embedding(n, dim int64) *EmbeddingModule {
	e := &EmbeddingModule{Weight: parameter(torch.Empty([]int64{n, dim}))}
	Normal_(e.Weight, 0, 1)
	return e
}

// Forward maps int64 ids [...] to [..., dim].
func (e *EmbeddingModule) Forward(ids torch.Tensor) torch.Tensor {
	return e.Output(torch.Embedding(e.Weight, ids))
}

// Conv2dModule is torch.nn.Conv2d.
type Conv2dModule struct {
	Hook
	Weight          torch.Tensor // [out, in, kernel, kernel]
	Bias            torch.Tensor // [out], or none
	Packed          *Packed      `name:"-"` // set by nn.Pack for patches
	kernel          int64
	stride, padding int64
}

// Conv2d returns a convolution with a square kernel and PyTorch's initialization.
func Conv2d(in, out, kernel, stride, padding int64, bias bool) *Conv2dModule {
	c := &Conv2dModule{Weight: parameter(torch.Empty([]int64{out, in, kernel, kernel})), kernel: kernel, stride: stride, padding: padding}
	KaimingUniform_(c.Weight, math.Sqrt(5))
	if bias {
		c.Bias = parameter(torch.Empty([]int64{out}))
		uniformFanIn_(c.Bias, in*kernel*kernel)
	}
	return c
}

// Forward maps [n, in, h, w] to [n, out, h', w'].
func (c *Conv2dModule) Forward(x torch.Tensor) torch.Tensor {
	if c.Packed != nil {
		return c.Output(c.patches(x))
	}
	opts := []torch.Option{torch.WithStride([]int64{c.stride, c.stride}), torch.WithPadding([]int64{c.padding, c.padding})}
	if c.Bias.Defined() {
		opts = append(opts, torch.WithBias(c.Bias))
	}
	return c.Output(torch.Conv2d(x, c.Weight, opts...))
}

// patches is Forward where the kernel covers each pixel once: a linear layer of patches.
func (c *Conv2dModule) patches(x torch.Tensor) torch.Tensor {
	n, in, k := x.Size(0), x.Size(1), c.kernel
	h, w := x.Size(2)/k, x.Size(3)/k
	x = x.Narrow(2, 0, h*k).Narrow(3, 0, w*k).Reshape([]int64{n, in, h, k, w, k}).
		Permute([]int64{0, 2, 4, 1, 3, 5}).Reshape([]int64{n, h, w, in * k * k})
	return c.Packed.Forward(x).Permute([]int64{0, 3, 1, 2})
}

// Pack packs the weight of a layer that divides an image into patches, if the processor has the
// instructions for it ([torch.HasPanels]); see nn.Pack. Other convolutions stay as they are.
func (c *Conv2dModule) Pack(as Packing) {
	patches := c.kernel > 1 && c.stride == c.kernel && c.padding == 0
	if c.Packed == nil && patches && torch.HasPanels() && c.Weight.DType() == torch.Float32 {
		torch.Tidy(func() torch.Tensor {
			c.Packed = NewPacked(c.Weight.Flatten(torch.WithStartDim(1)), torch.Tensor{}, c.Bias, as)
			return torch.Tensor{}
		})
		c.Weight.Close()
		c.Weight = torch.Tensor{}
	}
}
