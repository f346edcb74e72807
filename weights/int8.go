package weights

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"cyclecap/torch"
	"cyclecap/torch/nn"
)

// Quantization is a key of File.Meta: "int8" in a file whose linear layers have weights of 8 bits
// (see [Quantize]). It is for people and other programs; readers go by the dtypes.
const Quantization = "quantization"

// scaleSuffix ends the name of the scales of a tensor of 8 bits: those of "fc.weight" are
// "fc.weight_scale", as in files of compressed-tensors, which vLLM and transformers read.
const scaleSuffix = "_scale"

// outputs returns the dimension of a tensor that counts the outputs of a linear layer, or -1
// if the tensor of this name is not the weight of one, for every naming scheme. These are
// the layers that nn.PackAs packs. has reports whether there is a tensor of a name.
func outputs(name string, has func(name string) bool) int {
	switch {
	case strings.HasSuffix(name, gpt2Head):
		// Without the embedding, the head takes its place.
		if _, ok := gpt2Embedding(name, has); ok {
			return 0
		}
	case gpt2Conv1D.MatchString(name):
		return 1
	case clipLinear.MatchString(name), siglipLinear.MatchString(name), mapperLinear.MatchString(name), generatorLinear.MatchString(name):
		return 0
	}
	return -1
}

// Quantize replaces the weights of the linear layers in sd by integers of 8 bits, rounded as
// torch.Int8Quantize does, and adds their scales: for "fc.weight" [out, in], f32
// "fc.weight_scale" [out, 1]; for GPT-2's layers, whose weights are [in, out], [1, out]. A
// weight is about the product of both. The other tensors, such as embeddings and
// convolutions, stay as they are. A head of GPT-2 that is equal to its embedding does too;
// one that shares the embedding's memory is removed, since the embedding stands for both.
//
// Quantize returns the number of weights of 8 bits in sd, with those that had been integers
// before. A weight that is not finite is an error.
func Quantize(ctx context.Context, sd *nn.StateDict) (n int, err error) {
	has := func(name string) bool { _, ok := sd.Get(name); return ok }
	err = torch.Scope(func() error {
		for _, name := range sd.Names() {
			if err := ctx.Err(); err != nil {
				return err
			}
			t, _ := sd.Get(name)
			axis := outputs(name, has)
			if axis < 0 || t.Dim() != 2 || !t.DType().IsFloat() || t.Size(1-axis) > torch.Int8MaxInputs {
				continue
			}
			if embedding, ok := gpt2Embedding(name, has); ok {
				e, _ := sd.Get(embedding)
				if slices.Equal(e.Shape(), t.Shape()) && e.DType() == t.DType() {
					if e.DataPtr() == t.DataPtr() {
						sd.Delete(name)
						t.Close()
						continue
					} else if e.Equal(t) {
						continue
					}
				}
			}
			if err := quantize(sd, name, t, axis); err != nil {
				return err
			}
		}
		return nil
	})
	return quantized(sd), err
}

// quantize replaces the weight t by integers and their scales.
func quantize(sd *nn.StateDict, name string, t torch.Tensor, axis int) (err error) {
	torch.NoGrad(func() {
		torch.Tidy(func() torch.Tensor {
			w := t.Detach().To(torch.WithDType(torch.Float32), torch.WithDevice(torch.CPU))
			if axis == 1 {
				w = w.T().Contiguous()
			}
			q, scale := torch.Int8Quantize(w)
			if at := slices.IndexFunc(torch.ToSlice[float32](scale), notFinite); at >= 0 {
				err = fmt.Errorf("tensor %s has a number that is not finite, for output %d: its weights cannot be converted to 8 bits", name, at)
				return torch.Tensor{}
			}
			if axis == 1 {
				q = q.T().Contiguous()
			}
			sd.Add(name, q.Keep())
			sd.Add(name+scaleSuffix, scale.Unsqueeze(int64(1-axis)).Keep())
			return torch.Tensor{}
		})
	})
	if err == nil {
		torch.DropPages(t)
		t.Close()
	}
	return err
}

func notFinite(x float32) bool { return math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) }

// quantized returns the number of tensors of 8 bits that have scales.
func quantized(sd *nn.StateDict) (n int) {
	for _, name := range sd.Names() {
		if _, ok := sd.Get(name + scaleSuffix); ok {
			if t, _ := sd.Get(name); t.DType() == torch.Int8 {
				n++
			}
		}
	}
	return n
}

// Dequantize replaces the tensors of 8 bits that have scales by the product of both, in f32, and
// removes the scales. It returns the number of these tensors.
func Dequantize(sd *nn.StateDict) (n int) {
	return dequantize(sd, func(string) bool { return true })
}

// dequantize is Dequantize for the tensors whose names are chosen.
func dequantize(sd *nn.StateDict, chosen func(name string) bool) (n int) {
	for _, name := range sd.Names() {
		t, _ := sd.Get(name)
		scale, ok := sd.Get(name + scaleSuffix)
		if !ok || t.DType() != torch.Int8 || !chosen(name) {
			continue
		}
		torch.NoGrad(func() {
			sd.Add(name, torch.Tidy(func() torch.Tensor {
				f32 := torch.WithDType(torch.Float32)
				return t.To(f32).Mul_(scale.To(f32))
			}).Keep())
		})
		sd.Delete(name + scaleSuffix)
		torch.DropPages(t)
		t.Close()
		scale.Close()
		n++
	}
	return n
}

// Quantized returns the number of weights of linear layers that have 8 bits.
func (f *File) Quantized() (n int) {
	names := f.names()
	has := func(name string) bool { _, ok := names[name]; return ok }
	for _, e := range f.Entries {
		if e.DType == torch.Int8 && has(e.Name+scaleSuffix) && outputs(e.Name, has) >= 0 {
			n++
		}
	}
	return n
}

// names returns the entries by their names.
func (f *File) names() map[string]Entry {
	m := make(map[string]Entry, len(f.Entries))
	for _, e := range f.Entries {
		m[e.Name] = e
	}
	return m
}

// again says what to do with a damaged file.
const again = "; make the file again from the original weights with `cyclecap convert --dtype int8`"

// CheckQuantized returns an error unless each tensor of 8 bits has scales that fit it. The file
// must be that of a model: a file of other tensors may have integers without scales.
func (f *File) CheckQuantized() error {
	names := f.names()
	has := func(name string) bool { _, ok := names[name]; return ok }
	for _, e := range f.Entries {
		if e.DType != torch.Int8 {
			continue
		}
		scale, ok := names[e.Name+scaleSuffix]
		if !ok {
			return &Error{f.Path, fmt.Errorf("tensor %s has integers of 8 bits, but the file has no %s by which to multiply them%s", e.Name, e.Name+scaleSuffix, again)}
		}
		switch scale.DType {
		case torch.Float32, torch.Float16, torch.BFloat16:
		default:
			return &Error{f.Path, fmt.Errorf("tensor %s, the scales of %s, is of dtype %v; must be f32, f16 or bf16%s", scale.Name, e.Name, scale.DType, again)}
		}
		// Of embeddings and the like, any shape that multiplies them.
		axis := outputs(e.Name, has)
		fits := len(scale.Shape) == len(e.Shape) && (axis < 0 || len(e.Shape) == 2)
		want := slices.Clone(e.Shape)
		for i := range want {
			if fits && axis < 0 {
				fits = scale.Shape[i] == 1 || scale.Shape[i] == e.Shape[i]
			} else if i != axis {
				want[i] = 1
			}
		}
		if !fits || axis >= 0 && !slices.Equal(scale.Shape, want) {
			return &Error{f.Path, fmt.Errorf("tensor %s has shape %v, which does not fit %s of shape %v: want %v, a scale for each output%s", scale.Name, scale.Shape, e.Name, e.Shape, want, again)}
		}
	}
	return nil
}

// LoadModel is LoadOnly for the file of a model. A tensor of 8 bits is loaded, or left on the meta
// device, together with its scales, which are checked. Where it is not the weight of a
// linear layer, it is dequantised.
func (f *File) LoadModel(keep func(name string) bool) (*nn.StateDict, error) {
	if err := f.CheckQuantized(); err != nil {
		return nil, err
	}
	names := f.names()
	has := func(name string) bool { _, ok := names[name]; return ok }
	together := keep
	if keep != nil {
		together = func(name string) bool {
			if of, ok := strings.CutSuffix(name, scaleSuffix); ok && names[of].DType == torch.Int8 {
				return keep(of)
			}
			return keep(name)
		}
	}
	sd, err := f.LoadOnly(together)
	if err != nil {
		return nil, err
	}
	err = torch.Scope(func() error {
		for _, e := range f.Entries {
			scale, ok := sd.Get(e.Name + scaleSuffix)
			if e.DType != torch.Int8 || !ok || scale.Device() == torch.Meta {
				continue
			}
			list := torch.ToSlice[float32](scale.To(torch.WithDType(torch.Float32)))
			if at := slices.IndexFunc(list, func(x float32) bool { return notFinite(x) || x < 0 }); at >= 0 {
				return &Error{f.Path, fmt.Errorf("tensor %s has the scale %g for output %d of %s; must be finite and not below 0%s", e.Name+scaleSuffix, list[at], at, e.Name, again)}
			}
		}
		dequantize(sd, func(name string) bool {
			axis := outputs(name, has)
			return axis < 0 || names[name].Shape[1-axis] > torch.Int8MaxInputs
		})
		return nil
	})
	if err != nil {
		sd.Close()
		return nil, err
	}
	return sd, nil
}
