package nn

import (
	"reflect"
	"sync"
	"sync/atomic"

	"cyclecap/torch"
)

// ExactLinear computes a linear layer with the bits of PyTorch's operators, and once it has been
// used for a while, from a packed copy of its weight where that is faster (see
// torch.ExactLinear). The weight must not change any more.
//
// How much is saved is measured, and a weight is packed when as much time has been lost as
// packing takes. A program that computes a few results and ends packs nothing.
type ExactLinear struct {
	lost   atomic.Int64 // nanoseconds
	once   sync.Once
	packed atomic.Pointer[torch.Tensor]
}

// packingTime is about what packing a byte takes, in nanoseconds.
const packingTime = 1

// Forward maps [..., in] to [..., out], as torch.Linear does for a weight [out, in] and a bias or
// none, or, if transposed is set, as addmm does for a weight [in, out] and a bias. All calls must
// have the same weight and bias.
func (e *ExactLinear) Forward(x, weight, bias torch.Tensor, transposed bool) torch.Tensor {
	var packed torch.Tensor
	if p := e.packed.Load(); p != nil {
		packed = *p
	}
	y, lost := torch.ExactLinear(x, weight, bias, packed, transposed)
	if lost > 0 && e.lost.Add(lost.Nanoseconds()) > weight.NBytes()*packingTime {
		e.once.Do(func() { e.pack(weight, transposed) })
	}
	return y
}

func (e *ExactLinear) pack(weight torch.Tensor, transposed bool) {
	p := torch.Tidy(func() torch.Tensor {
		if transposed {
			return torch.PanelsPack(weight.T())
		}
		return torch.PanelsPack(weight)
	})
	p.Keep()
	torch.DropPages(weight)
	e.packed.Store(&p)
}

// Close frees the packed copy.
func (e *ExactLinear) Close() {
	if p := e.packed.Swap(nil); p != nil {
		p.Close()
	}
}

// An exacter is a layer that can compute by [ExactLinear].
type exacter interface{ SetExact() }

// Exact lets the linear layers of a module compute by [ExactLinear], for inference on the CPU with
// f32 weights that do not change any more. The module keeps its parameters, and its results
// their bits.
func Exact(m any) {
	visit(reflect.ValueOf(m), func(part any) {
		if e, ok := part.(exacter); ok {
			e.SetExact()
		}
	})
}
