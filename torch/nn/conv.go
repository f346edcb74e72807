package nn

import (
	"math"

	"cyclecap/torch"
)

// ConvOptions configures Conv1d, Conv2d and Conv3d. A list has a number for each spatial
// dimension, or one number for all of them. PyTorch's defaults are ConvDefaults; of the zero
// value, only Bias differs from them.
type ConvOptions struct {
	Stride   []int64 // nil is 1
	Padding  []int64 // on both sides; nil is 0
	Dilation []int64 // nil is 1
	Groups   int64   // 0 is 1
	Bias     bool
	// PaddingMode is "zeros" (or ""), "reflect", "replicate" or "circular".
	PaddingMode string
	// Same is padding="same": the output has the size of the input. It requires a stride of
	// 1 and no Padding.
	Same bool
}

// ConvDefaults returns PyTorch's defaults: stride 1, no padding, dilation 1, one group, a bias.
func ConvDefaults() ConvOptions { return ConvOptions{Groups: 1, Bias: true, PaddingMode: "zeros"} }

// ConvModule is torch.nn.Conv1d, Conv2d or Conv3d.
type ConvModule struct {
	Hook
	Weight torch.Tensor // [out, in/groups, kernel...]
	Bias   torch.Tensor // [out], or none
	Packed *Packed      `name:"-"` // set by nn.Pack for patches
	kernel []int64
	o      ConvOptions
}

// Conv1d returns a convolution over one dimension with PyTorch's initialization. kernel has one
// number.
func Conv1d(in, out int64, kernel []int64, o ConvOptions) *ConvModule {
	return conv("nn.Conv1d", 1, in, out, kernel, o)
}

// Conv2d returns a convolution over two dimensions with PyTorch's initialization. kernel has
// its height and width, or one number for both.
func Conv2d(in, out int64, kernel []int64, o ConvOptions) *ConvModule {
	return conv("nn.Conv2d", 2, in, out, kernel, o)
}

// Conv3d returns a convolution over three dimensions with PyTorch's initialization. kernel has
// three sizes, or one number for all.
func Conv3d(in, out int64, kernel []int64, o ConvOptions) *ConvModule {
	return conv("nn.Conv3d", 3, in, out, kernel, o)
}

func conv(op string, dims int, in, out int64, kernel []int64, o ConvOptions) *ConvModule {
	o.Groups = max(o.Groups, 1)
	if in%o.Groups != 0 || out%o.Groups != 0 {
		torch.Throw(op, "the numbers of channels, %d and %d, must be divisible by the number of groups, %d", in, out, o.Groups)
	}
	c := &ConvModule{kernel: sizes(op, "kernel", kernel, dims, 0), o: o}
	c.o.Stride = sizes(op, "Stride", o.Stride, dims, 1)
	c.o.Padding = sizes(op, "Padding", o.Padding, dims, 0)
	c.o.Dilation = sizes(op, "Dilation", o.Dilation, dims, 1)
	switch o.PaddingMode {
	case "", "zeros", "reflect", "replicate", "circular":
	default:
		torch.Throw(op, "PaddingMode must be zeros, reflect, replicate or circular, not %q", o.PaddingMode)
	}
	if o.Same {
		for d := range dims {
			if c.o.Stride[d] != 1 || c.o.Padding[d] != 0 {
				torch.Throw(op, "Same requires a stride of 1 and no Padding, got %v and %v", c.o.Stride, c.o.Padding)
			}
		}
	}
	c.Weight = parameter(torch.Empty(append([]int64{out, in / o.Groups}, c.kernel...)))
	KaimingUniform_(c.Weight, math.Sqrt(5))
	if o.Bias {
		c.Bias = parameter(torch.Empty([]int64{out}))
		fan, _ := fans(op, c.Weight)
		uniformFanIn_(c.Bias, fan)
	}
	return c
}

// sizes returns a number for each of dims dimensions: those of list, its only one for all, or
// fallback if it is empty. A kernel has no fallback.
func sizes(op, name string, list []int64, dims int, fallback int64) []int64 {
	if len(list) != dims && len(list) != 1 && (list != nil || name == "kernel") {
		torch.Throw(op, "%s must have one or %d numbers, got %v", name, dims, list)
	}
	out := make([]int64, dims)
	for d := range out {
		switch len(list) {
		case 0:
			out[d] = fallback
		case 1:
			out[d] = list[0]
		default:
			out[d] = list[d]
		}
	}
	return out
}

// padding returns what torch.Pad adds around x: the last dimension comes first.
func (c *ConvModule) padding() (pad []int64) {
	for d := len(c.kernel) - 1; d >= 0; d-- {
		left, right := c.o.Padding[d], c.o.Padding[d]
		if c.o.Same {
			total := c.o.Dilation[d] * (c.kernel[d] - 1)
			left, right = total/2, total-total/2
		}
		pad = append(pad, left, right)
	}
	return pad
}

// Forward maps [n, in, sizes...] to [n, out, sizes...]; the dimension of the batch may be
// missing.
func (c *ConvModule) Forward(x torch.Tensor) torch.Tensor {
	if c.Packed != nil {
		return c.Output(c.patches(x))
	}
	opts := []torch.Option{torch.WithStride(c.o.Stride), torch.WithDilation(c.o.Dilation), torch.WithGroups(c.o.Groups)}
	if c.Bias.Defined() {
		opts = append(opts, torch.WithBias(c.Bias))
	}
	zeros := c.o.PaddingMode == "" || c.o.PaddingMode == "zeros"
	call := []func(input, weight torch.Tensor, opts ...torch.Option) torch.Tensor{torch.Conv1d, torch.Conv2d, torch.Conv3d}
	switch {
	case !zeros:
		x = x.Pad(c.padding(), torch.WithMode(c.o.PaddingMode))
	case c.o.Same:
		call = []func(input, weight torch.Tensor, opts ...torch.Option) torch.Tensor{torch.Conv1dPadding, torch.Conv2dPadding, torch.Conv3dPadding}
		opts = append(opts, torch.WithPaddingString("same"))
	default:
		opts = append(opts, torch.WithPadding(c.o.Padding))
	}
	return c.Output(call[len(c.kernel)-1](x, c.Weight, opts...))
}

// patches is Forward where the kernel covers each pixel once: a linear layer of patches.
func (c *ConvModule) patches(x torch.Tensor) torch.Tensor {
	n, in, kh, kw := x.Size(0), x.Size(1), c.kernel[0], c.kernel[1]
	h, w := x.Size(2)/kh, x.Size(3)/kw
	x = x.Narrow(2, 0, h*kh).Narrow(3, 0, w*kw).Reshape([]int64{n, in, h, kh, w, kw}).
		Permute([]int64{0, 2, 4, 1, 3, 5}).Reshape([]int64{n, h, w, in * kh * kw})
	return c.Packed.Forward(x).Permute([]int64{0, 3, 1, 2})
}

// Pack packs the weight of a layer that divides an image into patches, if the processor has the
// instructions for it ([torch.HasPanels]); see nn.Pack. Other convolutions stay as they are.
func (c *ConvModule) Pack(as Packing) {
	patches := len(c.kernel) == 2 && c.o.Groups == 1 && !c.o.Same
	for d := range c.kernel {
		patches = patches && c.kernel[d] > 1 && c.o.Stride[d] == c.kernel[d] && c.o.Padding[d] == 0 && c.o.Dilation[d] == 1
	}
	if c.Packed == nil && patches && torch.HasPanels() && c.Weight.DType() == torch.Float32 {
		torch.Tidy(func() torch.Tensor {
			c.Packed = NewPacked(c.Weight.Flatten(torch.WithStartDim(1)), torch.Tensor{}, c.Bias, as)
			return torch.Tensor{}
		})
		c.Weight.Close()
		c.Weight = torch.Tensor{}
	}
}

// ConvTransposeOptions configures ConvTranspose1d, ConvTranspose2d and ConvTranspose3d. A list
// has a number for each spatial dimension, or one number for all of them. PyTorch's defaults
// are ConvTransposeDefaults; of the zero value, only Bias differs from them.
type ConvTransposeOptions struct {
	Stride        []int64 // nil is 1
	Padding       []int64 // nil is 0
	OutputPadding []int64 // added to one side of the output; nil is 0
	Groups        int64   // 0 is 1
	Bias          bool
	Dilation      []int64 // nil is 1
}

// ConvTransposeDefaults returns PyTorch's defaults: stride 1, no padding, dilation 1, one group,
// a bias.
func ConvTransposeDefaults() ConvTransposeOptions { return ConvTransposeOptions{Groups: 1, Bias: true} }

// ConvTransposeModule is torch.nn.ConvTranspose1d, ConvTranspose2d or ConvTranspose3d.
type ConvTransposeModule struct {
	Hook
	Weight torch.Tensor // [in, out/groups, kernel...]
	Bias   torch.Tensor // [out], or none
	o      ConvTransposeOptions
}

// ConvTranspose1d returns a transposed convolution over one dimension with PyTorch's
// initialization. kernel has one number.
func ConvTranspose1d(in, out int64, kernel []int64, o ConvTransposeOptions) *ConvTransposeModule {
	return convTranspose("nn.ConvTranspose1d", 1, in, out, kernel, o)
}

// ConvTranspose2d returns a transposed convolution over two dimensions with PyTorch's
// initialization. kernel has its height and width, or one number for both.
func ConvTranspose2d(in, out int64, kernel []int64, o ConvTransposeOptions) *ConvTransposeModule {
	return convTranspose("nn.ConvTranspose2d", 2, in, out, kernel, o)
}

// ConvTranspose3d returns a transposed convolution over three dimensions with PyTorch's
// initialization. kernel has three sizes, or one number for all.
func ConvTranspose3d(in, out int64, kernel []int64, o ConvTransposeOptions) *ConvTransposeModule {
	return convTranspose("nn.ConvTranspose3d", 3, in, out, kernel, o)
}

func convTranspose(op string, dims int, in, out int64, kernel []int64, o ConvTransposeOptions) *ConvTransposeModule {
	o.Groups = max(o.Groups, 1)
	if in%o.Groups != 0 || out%o.Groups != 0 {
		torch.Throw(op, "the numbers of channels, %d and %d, must be divisible by the number of groups, %d", in, out, o.Groups)
	}
	c := &ConvTransposeModule{o: o}
	c.o.Stride = sizes(op, "Stride", o.Stride, dims, 1)
	c.o.Padding = sizes(op, "Padding", o.Padding, dims, 0)
	c.o.OutputPadding = sizes(op, "OutputPadding", o.OutputPadding, dims, 0)
	c.o.Dilation = sizes(op, "Dilation", o.Dilation, dims, 1)
	c.Weight = parameter(torch.Empty(append([]int64{in, out / o.Groups}, sizes(op, "kernel", kernel, dims, 0)...)))
	KaimingUniform_(c.Weight, math.Sqrt(5))
	if o.Bias {
		c.Bias = parameter(torch.Empty([]int64{out}))
		fan, _ := fans(op, c.Weight)
		uniformFanIn_(c.Bias, fan)
	}
	return c
}

// Forward maps [n, in, sizes...] to [n, out, sizes...]; the dimension of the batch may be
// missing.
func (c *ConvTransposeModule) Forward(x torch.Tensor) torch.Tensor {
	opts := []torch.Option{torch.WithStride(c.o.Stride), torch.WithPadding(c.o.Padding), torch.WithOutputPadding(c.o.OutputPadding),
		torch.WithGroups(c.o.Groups), torch.WithDilation(c.o.Dilation)}
	if c.Bias.Defined() {
		opts = append(opts, torch.WithBias(c.Bias))
	}
	call := []func(input, weight torch.Tensor, opts ...torch.Option) torch.Tensor{torch.ConvTranspose1d, torch.ConvTranspose2d, torch.ConvTranspose3d}
	return c.Output(call[len(c.o.Stride)-1](x, c.Weight, opts...))
}
