// Package pipeline captions photos: it loads a CLIP, a text decoder and a generator
// from weights files, computes the features of photos and texts, and decodes
// features into captions.
//
//	photo -> CLIP -> (Generator) -> Decoder -> caption
//
// The parts can be used on their own; a [Captioner] combines them. Functions that
// take a context stop at the next batch or token once the context is done. Every
// function may be called from any goroutine, but a model computes for one goroutine
// at a time; to share models between goroutines, use a torch.Executor.
package pipeline

import (
	"errors"
	"fmt"
	"runtime"

	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/weights"
)

// Options configures where and how models compute. The zero value means f32 on the
// CPU, with the same bits as PyTorch.
type Options struct {
	Device torch.Device
	// BF16 stores the weights in bf16 and computes in bf16; on the CPU, from
	// packed weights.
	BF16 bool
	// Pack computes from packed f32 weights on the CPU, and whole layers at once: up to
	// twice as fast, with different low-order bits. On a processor with AVX-512
	// ([torch.HasPanels]) a feature or caption then has the same bits in any batch. It has
	// no effect on other devices.
	Pack bool
	// Int8 makes linear layers compute with weights and inputs of 8 bits ([nn.Int8]) on
	// the CPU, and the rest in f32: faster than Pack, with results that differ by about
	// 1 % of their size. It includes Pack, and excludes BF16 and other devices; it is
	// fast only on processors with the instructions ([Options.Usable]).
	Int8 bool
	// ShortTexts computes the texts of a CLIP only up to the end of the longest in a batch:
	// several times as fast for captions, with different low-order bits. Packed weights
	// imply it.
	ShortTexts bool
}

// MaxThreads returns the largest number of threads for an operator that is allowed
// on this machine. More threads than cores reproduce the low-order bits of a machine
// that has as many, but slow each other down: with 1,024 on 2 cores, the first
// operator takes minutes.
func MaxThreads() int { return max(64, 4*runtime.NumCPU()) }

// DType returns the dtype of the weights.
func (o Options) DType() torch.DType {
	if o.BF16 {
		return torch.BFloat16
	}
	return torch.Float32
}

// TypeName returns "int8", or the name of the dtype of the weights.
func (o Options) TypeName() string {
	if o.Int8 {
		return "int8"
	}
	return o.DType().String()
}

// Packed reports whether linear layers compute from packed weights. On the CPU, bf16 and
// int8 layers always do, since their results need not have the same bits as PyTorch's.
func (o Options) Packed() bool { return o.Device == torch.CPU && (o.Pack || o.BF16 || o.Int8) }

// batchInvariant reports whether the rows of a linear layer, and of a transformer's layer, have
// the same bits in any batch.
func (o Options) batchInvariant() bool {
	return o.Packed() && !o.BF16 && torch.HasPanels()
}

// hasInt8 is replaced in tests.
var hasInt8 = torch.HasInt8

// Usable returns options that are fast on this processor, and a note if they are not o: without
// the instructions for Int8, packed f32 weights take its place.
func (o Options) Usable() (usable Options, note string) {
	if o.Int8 && !hasInt8() {
		o.Int8, o.Pack = false, true
		return o, "this processor lacks the instructions for int8 (AVX-512 VNNI): computing with packed f32 weights instead, as --fast does"
	}
	return o, ""
}

// Check returns an error if options contradict each other.
func (o Options) Check() error {
	switch {
	case o.Int8 && o.Device != torch.CPU:
		return fmt.Errorf("int8 is for the CPU and cannot be used on %v; use bf16 or f32 there", o.Device)
	case o.Int8 && o.BF16:
		return errors.New("int8 and bf16 exclude each other")
	}
	return nil
}

// to returns the options that move a tensor or a module to o's device and dtype.
func (o Options) to() []torch.Option {
	return []torch.Option{torch.WithDevice(o.Device), torch.WithDType(o.DType())}
}

// dequantize makes weights of 8 bits in the file at path f32, unless o computes with them, and
// returns a note if there are any.
func (o Options) dequantize(path string, parts ...*nn.StateDict) (notes []string, err error) {
	if o.Int8 {
		return nil, nil
	}
	n := 0
	err = torch.Scope(func() error {
		for _, sd := range parts {
			n += weights.Dequantize(sd)
		}
		return nil
	})
	if n > 0 {
		notes = append(notes, fmt.Sprintf("%s has weights of 8 bits, which were converted to %s; --dtype int8 computes with them as they are, on a CPU with AVX-512 VNNI", path, o.TypeName()))
	}
	return notes, err
}

// prepare moves modules to the device and dtype of o, and packs them if o asks for
// it. Half-precision weights are converted too: the CPU computes in f32 or bf16.
func (o Options) prepare(modules ...any) error {
	if err := o.Check(); err != nil {
		return err
	}
	return torch.Scope(func() error {
		for _, m := range modules {
			switch {
			case o.Int8:
				nn.PackAs(m, nn.Int8, o.to()...)
			case o.Packed():
				nn.Pack(m, o.to()...)
			default:
				nn.To(m, o.to()...)
				if o.Device == torch.CPU && torch.HasPanels() {
					nn.Exact(m)
				}
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

// tensor returns rows [n, width] as a tensor on the device.
func (o Options) tensor(rows []float32, width int) torch.Tensor {
	return torch.FromSliceOn(o.Device, rows, int64(len(rows)/width), int64(width)).To(o.to()...)
}
