// Package pipeline is the way from photos to captions: it loads a CLIP, a text
// decoder and a generator from files of weights, computes the features of photos
// and texts, and decodes features into captions.
//
//	photo -> CLIP -> (Generator) -> Decoder -> caption
//
// The parts can be used by themselves; a [Captioner] is all of them together.
// Functions that take a context stop at the next batch or token when it is done.
// Every function may be called from any goroutine, but a model computes for one
// at a time; for many goroutines, run them on a torch.Executor.
package pipeline

import (
	"cyclecap/torch"
	"cyclecap/torch/nn"
)

// Options says where and how models compute. The zero value is f32 on the CPU,
// with PyTorch's bits.
type Options struct {
	Device torch.Device
	// BF16 keeps weights in bf16 and computes in it; on the CPU from packed
	// weights.
	BF16 bool
	// Pack lets linear layers compute from packed f32 weights on the CPU: about
	// twice as fast, with other low-order bits. Elsewhere it changes nothing.
	Pack bool
}

// DType gives the dtype of the weights.
func (o Options) DType() torch.DType {
	if o.BF16 {
		return torch.BFloat16
	}
	return torch.Float32
}

// Packed tells whether linear layers compute from packed weights. bf16 always
// does on the CPU: it has no bits of PyTorch's to keep.
func (o Options) Packed() bool { return o.Device == torch.CPU && (o.Pack || o.BF16) }

// to gives o for a tensor or a module that moves there.
func (o Options) to() []torch.Option {
	return []torch.Option{torch.WithDevice(o.Device), torch.WithDType(o.DType())}
}

// prepare brings modules to the device and the precision, and packs them. Files
// in half precision become f32: the CPU computes in that or in bf16.
func (o Options) prepare(modules ...any) error {
	return torch.Scope(func() error {
		for _, m := range modules {
			nn.To(m, o.to()...)
			if o.Packed() {
				nn.Pack(m)
			}
		}
		return nil
	})
}

// infer runs f in a scope without gradients.
func infer(f func() error) error {
	return torch.Scope(func() (err error) {
		torch.InferenceMode(func() { err = f() })
		return err
	})
}

// tensor gives rows [n, width] on the device.
func (o Options) tensor(rows []float32, width int) torch.Tensor {
	return torch.FromSlice(rows, int64(len(rows)/width), int64(width)).To(o.to()...)
}
