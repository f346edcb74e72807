package weights

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"cyclecap/torch"
	"cyclecap/torch/nn"
)

// An extent is a piece of memory that a tensor uses, or several that overlap
// (tied weights, views of each other). In a PyTorch file it becomes a storage.
type extent struct {
	dtype   torch.DType
	first   torch.Tensor // the member at the start of the extent
	n       int64        // elements
	members []member
	// gaps is set if the only member does not use all elements in between. Its
	// elements are then written without the others: a column of a large matrix
	// should not take the matrix along, as it does in PyTorch.
	gaps bool
}

// member is a tensor of an extent, at an offset in elements.
type member struct {
	name           string
	t              torch.Tensor
	offset         int64
	shape, strides []int64
	at             int // index of the tensor in the state dict
}

// contents returns the elements as one dimension, without copying them unless
// there are gaps.
func (x *extent) contents() torch.Tensor {
	t := x.first.Detach()
	if !x.gaps && x.n > 0 {
		return t.AsStrided([]int64{x.n}, []int64{1})
	}
	return t.Contiguous().View([]int64{-1})
}

// checkLayouts returns an error if a tensor has no elements at places, as sparse ones have none.
func checkLayouts(sd *nn.StateDict) error {
	for _, name := range sd.Names() {
		if t, _ := sd.Get(name); t.Layout() != torch.Strided {
			return fmt.Errorf("tensor %q has layout %v, which cannot be saved; call ToDense", name, t.Layout())
		}
	}
	return nil
}

// extents returns the extents of a state dict, in the order of their first
// tensors. Tensors of different types never share one.
func extents(sd *nn.StateDict) []*extent {
	type place struct {
		member
		device   string
		dtype    torch.DType
		from, to uintptr // bytes
	}
	var places []place
	for i, name := range sd.Names() {
		t, _ := sd.Get(name)
		p := place{member: member{name: name, t: t, shape: t.Shape(), strides: t.Strides(), at: i}, device: t.Device().String(), dtype: t.DType(), from: t.DataPtr()}
		p.to = p.from + uintptr(Entry{Shape: p.shape, Strides: p.strides}.span()*p.dtype.Size())
		places = append(places, p)
	}
	slices.SortStableFunc(places, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.device, b.device), cmp.Compare(a.dtype, b.dtype), cmp.Compare(a.from, b.from))
	})
	var out []*extent
	var last place // its from and to are those of the last extent
	for _, p := range places {
		size := uintptr(p.dtype.Size())
		n := int64((p.to - p.from) / size)
		if len(out) > 0 && p.device == last.device && p.dtype == last.dtype && p.from != 0 && p.from < last.to && p.to > p.from && (p.from-last.from)%size == 0 {
			x := out[len(out)-1]
			p.offset = int64((p.from - last.from) / size)
			x.n = max(x.n, p.offset+n)
			x.members = append(x.members, p.member)
			last.to = max(last.to, p.to)
			continue
		}
		out = append(out, &extent{dtype: p.dtype, first: p.t, n: n, members: []member{p.member}})
		last = p
	}
	for _, x := range out {
		slices.SortFunc(x.members, func(a, b member) int { return a.at - b.at })
		if m := &x.members[0]; len(x.members) == 1 && x.n > numel(m.shape) {
			x.gaps, x.n, m.strides = true, numel(m.shape), contiguous(m.shape)
		}
	}
	slices.SortFunc(out, func(a, b *extent) int { return a.members[0].at - b.members[0].at })
	return out
}

// Cast converts the floating-point tensors of sd, and those of 8 bits with scales, to dtype.
// Tensors that share memory still do so afterwards. Cast closes the tensors that it
// replaces.
func Cast(ctx context.Context, sd *nn.StateDict, dtype torch.DType) error {
	return torch.Scope(func() error {
		Dequantize(sd)
		for _, x := range extents(sd) {
			if err := ctx.Err(); err != nil {
				return err
			}
			if !x.dtype.IsFloat() || x.dtype == dtype {
				continue
			}
			torch.NoGrad(func() {
				all := x.contents().To(torch.WithDType(dtype))
				for _, m := range x.members {
					sd.Add(m.name, all.AsStrided(m.shape, m.strides, torch.WithStorageOffset(m.offset)).Detach().Keep())
				}
				all.Close()
			})
			for _, m := range x.members {
				m.t.Close()
			}
		}
		return nil
	})
}

// safetensors has no sharing, so each tensor is written in full. These limit
// what tensors may take in a file that take maxCopies times less in memory.
const (
	maxCopies   = 16
	alwaysWrite = 64 << 20
)

// checkCopies returns an error if tensors share so much memory that they should
// not be written in full.
func checkCopies(sd *nn.StateDict) error {
	var memory, written, largest int64
	var name string
	for _, x := range extents(sd) {
		memory += x.n * x.dtype.Size()
		for _, m := range x.members {
			n := numel(m.shape) * x.dtype.Size()
			if n > largest {
				largest, name = n, m.name
			}
			if written += n; written < 0 {
				written = 1 << 62
			}
		}
	}
	if written > maxCopies*memory+alwaysWrite {
		return fmt.Errorf("the tensors share %d bytes of memory, but safetensors has no sharing and would take %d bytes (%d of them for %q); use .pt", memory, written, largest, name)
	}
	return nil
}
