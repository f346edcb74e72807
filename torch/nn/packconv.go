package nn

import "cyclecap/torch"

// PackedConv is a convolution over two dimensions, and a factor and a summand for each of its
// outputs, such as those of a batch norm in evaluation. The weights are in oneDNN's order, and ReLU
// and the addition of another tensor are done before a result is written to memory. It
// returns tensors in the channels-last format, and is fastest with such inputs. Like [Packed], it is
// for inference on the CPU only.
type PackedConv struct {
	weight, bias torch.Tensor
	o            ConvOptions
}

// NewPackedConv packs scale·c(x) + shift. scale and shift have a number for each output of c, in
// any dtype: their products with the weights are computed in f64 and rounded once, to the weights'
// dtype. size is the height and width of the inputs, for which oneDNN chooses its
// order; others are possible. c needs zeros as padding and not Same, and stays as it is.
func NewPackedConv(c *ConvModule, scale, shift torch.Tensor, size []int64) *PackedConv {
	if len(c.kernel) != 2 || c.o.Same || c.o.PaddingMode != "" && c.o.PaddingMode != "zeros" {
		torch.Throw("nn.NewPackedConv", "only convolutions over two dimensions that pad with zeros can be packed")
	}
	p := &PackedConv{o: c.o}
	torch.NoGrad(func() {
		f64, dtype := torch.WithDType(torch.Float64), torch.WithDType(c.Weight.DType())
		scale, shift = scale.To(f64), shift.To(f64)
		if c.Bias.Defined() {
			shift = shift.Add(c.Bias.To(f64).Mul(scale))
		}
		input := []int64{1, c.Weight.Size(1) * p.o.Groups, size[0], size[1]}
		p.weight = c.Weight.To(f64).Mul(scale.Reshape([]int64{-1, 1, 1, 1})).To(dtype).MKLDNNReorderConvolutionWeight(
			torch.WithPadding(p.o.Padding), torch.WithStride(p.o.Stride), torch.WithDilation(p.o.Dilation),
			torch.WithGroups(p.o.Groups), torch.WithInputSize(input)).Keep()
		p.bias = shift.To(dtype).Keep()
		torch.DropPages(c.Weight)
	})
	return p
}

var channelsLast = torch.WithMemoryFormat(torch.ChannelsLastFormat)

// Forward maps [n, in, h, w] to f([n, out, h, w]). f is ReLU or NoActivation.
func (p *PackedConv) Forward(x torch.Tensor, f torch.Activation) torch.Tensor {
	name := "none"
	switch f {
	case torch.NoActivation:
	case torch.ReLU:
		name = "relu"
	default:
		torch.Throw("nn.PackedConv", "the activation must be ReLU or none, not %d", f)
	}
	return torch.MKLDNNConvolutionPointwise(x.Contiguous(channelsLast), p.weight, p.bias, p.o.Padding, p.o.Stride, p.o.Dilation, p.o.Groups, name, nil, nil)
}

// ForwardAdd_ replaces y [n, out, h, w] by the ReLU of its sum with the result for x [n, in, h, w],
// and returns it.
func (p *PackedConv) ForwardAdd_(x, y torch.Tensor) torch.Tensor {
	return torch.MKLDNNConvolutionPointwiseBinary_(y, x.Contiguous(channelsLast), p.weight, p.bias, p.o.Padding, p.o.Stride, p.o.Dilation, p.o.Groups,
		"add", 1.0, "relu", nil, nil)
}

// Close frees the packed weight.
func (p *PackedConv) Close() {
	p.weight.Close()
	p.bias.Close()
}
