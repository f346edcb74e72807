package nn

import (
	"cmp"
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
	Exact       *ExactLinear `name:"-"` // set by nn.Exact
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
	if l.Exact != nil {
		return l.Output(l.Exact.Forward(x, l.Weight, l.Bias, false))
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

// SetExact lets the layer compute by [ExactLinear]; see [Exact].
func (l *LinearModule) SetExact() { l.Exact = cmp.Or(l.Exact, &ExactLinear{}) }

// EmbeddingModule is torch.nn.Embedding.
type EmbeddingModule struct {
	Hook
	Weight torch.Tensor // [n, dim]
	// Sparse makes the gradient of Weight a sparse tensor of the rows that were used, for
	// optim.SparseAdam, SGD and Adagrad.
	Sparse bool
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
	return e.Output(torch.Embedding(e.Weight, ids, torch.WithSparse(e.Sparse)))
}
