package nn

import "cyclecap/torch"

// IdentityModule is torch.nn.Identity.
type IdentityModule struct{ Hook }

// Identity returns a module that returns its input.
func Identity() *IdentityModule { return &IdentityModule{} }

// Forward returns x.
func (m *IdentityModule) Forward(x torch.Tensor) torch.Tensor { return m.Output(x) }

// FlattenModule is torch.nn.Flatten.
type FlattenModule struct {
	Hook
	start, end int64
}

// Flatten returns a module that makes one dimension of the dimensions from start to end.
// PyTorch's defaults are 1 and -1.
func Flatten(start, end int64) *FlattenModule { return &FlattenModule{start: start, end: end} }

// Forward flattens x.
func (m *FlattenModule) Forward(x torch.Tensor) torch.Tensor {
	return m.Output(x.Flatten(torch.WithStartDim(m.start), torch.WithEndDim(m.end)))
}

// UnflattenModule is torch.nn.Unflatten.
type UnflattenModule struct {
	Hook
	dim   int64
	sizes []int64
}

// Unflatten returns a module that makes dimensions of the given sizes of dimension dim.
func Unflatten(dim int64, sizes []int64) *UnflattenModule {
	return &UnflattenModule{dim: dim, sizes: sizes}
}

// Forward unflattens x.
func (m *UnflattenModule) Forward(x torch.Tensor) torch.Tensor {
	return m.Output(x.Unflatten(m.dim, m.sizes))
}

// PixelShuffleModule is torch.nn.PixelShuffle.
type PixelShuffleModule struct {
	Hook
	factor int64
}

// PixelShuffle returns a module that maps [..., c*factor², h, w] to [..., c, h*factor, w*factor].
func PixelShuffle(factor int64) *PixelShuffleModule { return &PixelShuffleModule{factor: factor} }

// Forward moves channels of x to pixels.
func (m *PixelShuffleModule) Forward(x torch.Tensor) torch.Tensor {
	return m.Output(x.PixelShuffle(m.factor))
}

// PixelUnshuffleModule is torch.nn.PixelUnshuffle.
type PixelUnshuffleModule struct {
	Hook
	factor int64
}

// PixelUnshuffle returns a module that maps [..., c, h*factor, w*factor] to [..., c*factor², h, w].
func PixelUnshuffle(factor int64) *PixelUnshuffleModule { return &PixelUnshuffleModule{factor: factor} }

// Forward moves pixels of x to channels.
func (m *PixelUnshuffleModule) Forward(x torch.Tensor) torch.Tensor {
	return m.Output(x.PixelUnshuffle(m.factor))
}

// PadModule is torch.nn.ZeroPad1d, ConstantPad2d, ReflectionPad3d, ReplicationPad2d, CircularPad1d
// or another of these kinds and numbers of dimensions: how many dimensions it pads follows from
// the list of paddings.
type PadModule struct {
	Hook
	padding []int64
	mode    string
	value   float64
}

// ConstantPad returns a module that adds padding of the given value around the last dimensions:
// padding has what comes before and after the last dimension, then for the one before it, and so
// on. A negative number removes elements.
func ConstantPad(padding []int64, value float64) *PadModule {
	return &PadModule{padding: padding, mode: "constant", value: value}
}

// ZeroPad returns ConstantPad of zeros.
func ZeroPad(padding []int64) *PadModule { return ConstantPad(padding, 0) }

// ReflectionPad returns a module that mirrors the last one to three dimensions at their ends,
// without repeating the last elements; padding is as in [ConstantPad].
func ReflectionPad(padding []int64) *PadModule { return &PadModule{padding: padding, mode: "reflect"} }

// ReplicationPad returns a module that repeats the elements at the ends of the last one to three
// dimensions; padding is as in [ConstantPad].
func ReplicationPad(padding []int64) *PadModule {
	return &PadModule{padding: padding, mode: "replicate"}
}

// CircularPad returns a module that continues the last one to three dimensions with the elements
// of their other end; padding is as in [ConstantPad].
func CircularPad(padding []int64) *PadModule { return &PadModule{padding: padding, mode: "circular"} }

// Forward pads x.
func (m *PadModule) Forward(x torch.Tensor) torch.Tensor {
	opts := []torch.Option{torch.WithMode(m.mode)}
	if m.mode == "constant" {
		opts = append(opts, torch.WithValue(m.value))
	}
	return m.Output(x.Pad(m.padding, opts...))
}
