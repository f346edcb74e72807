package nn

import (
	"fmt"
	"math"

	"cyclecap/torch"
)

// MultiheadAttentionModule is torch.nn.MultiheadAttention with batch_first=True
// and the same embedding dimension for query, key and value.
type MultiheadAttentionModule struct {
	Hook
	InProjWeight torch.Tensor // [3 d, d]: query, key, value
	// InProjWeightScale is the scale of each output, f32 [3 d, 1], of an InProjWeight of
	// 8-bit integers, and otherwise none; see LinearModule.WeightScale.
	InProjWeightScale torch.Tensor `optional:"true"`
	InProjBias        torch.Tensor // [3 d]
	OutProj           *LinearModule
	heads             int64
	Packed            *Packed `name:"-"` // InProjWeight, set by Pack
}

// MultiheadAttention returns a multi-head attention of embedding dimension d with
// PyTorch's initialization: xavier_uniform_ for the packed input projection, and
// zero biases.
func MultiheadAttention(d, heads int64) *MultiheadAttentionModule {
	if heads < 1 || d%heads != 0 {
		torch.Throw("nn.MultiheadAttention", "the embedding dimension %d must be divisible by the number of heads, %d", d, heads)
	}
	m := &MultiheadAttentionModule{
		InProjWeight: parameter(torch.Empty([]int64{3 * d, d})),
		InProjBias:   parameter(torch.Zeros([]int64{3 * d})),
		OutProj:      Linear(d, d, true),
		heads:        heads,
	}
	XavierUniform_(m.InProjWeight)
	Constant_(m.OutProj.Bias, 0)
	return m
}

// Forward returns the self-attention of x [n, t, d]. If causal is set, each
// position attends only to itself and earlier positions.
func (m *MultiheadAttentionModule) Forward(x torch.Tensor, causal bool) torch.Tensor {
	if x.Dim() != 3 {
		torch.Throw("nn.MultiheadAttention", "expected an input of shape [n, t, d], got %s", fmt.Sprint(x.Shape()))
	}
	n, t, d := x.Size(0), x.Size(1), x.Size(2)
	qkv := m.project(x).
		View([]int64{n, t, 3, m.heads, d / m.heads}).Permute([]int64{2, 0, 3, 1, 4}).Unbind() // 3 x [n, heads, t, head]
	y := torch.ScaledDotProductAttention(qkv[0], qkv[1], qkv[2], torch.WithIsCausal(causal))
	return m.Output(m.OutProj.Forward(y.Transpose(1, 2).Reshape([]int64{n, t, d})))
}

func (m *MultiheadAttentionModule) project(x torch.Tensor) torch.Tensor {
	if m.Packed != nil {
		return m.Packed.Forward(x)
	}
	return torch.Linear(x, m.InProjWeight, torch.WithBias(m.InProjBias))
}

// Scale returns the factor of the scores.
func (m *MultiheadAttentionModule) Scale() float64 {
	return 1 / math.Sqrt(float64(m.OutProj.Bias.Size(0)/m.heads))
}

// Heads returns the number of heads.
func (m *MultiheadAttentionModule) Heads() int64 { return m.heads }

// Pack packs the weight of the input projection; see nn.Pack.
func (m *MultiheadAttentionModule) Pack(as Packing) {
	if m.Packed == nil {
		m.Packed = NewPacked(m.InProjWeight, m.InProjWeightScale, m.InProjBias, as)
		m.InProjWeight.Close()
		m.InProjWeightScale.Close()
		m.InProjWeight, m.InProjWeightScale = torch.Tensor{}, torch.Tensor{}
	}
}
