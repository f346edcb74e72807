package nn

import (
	"fmt"

	"cyclecap/torch"
)

// MultiheadAttentionModule is torch.nn.MultiheadAttention with batch_first and
// one width for query, key and value.
type MultiheadAttentionModule struct {
	InProjWeight torch.Tensor // [3 d, d]: query, key, value
	InProjBias   torch.Tensor // [3 d]
	OutProj      *LinearModule
	heads        int64
	Packed       *Packed `name:"-"` // InProjWeight, set by Pack
}

// MultiheadAttention makes an attention of width d with PyTorch's initial
// weights: xavier_uniform_ for the packed projection, biases 0.
func MultiheadAttention(d, heads int64) *MultiheadAttentionModule {
	if heads < 1 || d%heads != 0 {
		torch.Throw("nn.MultiheadAttention", "a width of %d does not divide into %d heads", d, heads)
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

// Forward is self-attention over x [n, t, d]; causal lets a position see only
// those up to its own.
func (m *MultiheadAttentionModule) Forward(x torch.Tensor, causal bool) torch.Tensor {
	if x.Dim() != 3 {
		torch.Throw("nn.MultiheadAttention", "an input [n, t, d] is needed, not %s", fmt.Sprint(x.Shape()))
	}
	n, t, d := x.Size(0), x.Size(1), x.Size(2)
	qkv := m.project(x).
		View([]int64{n, t, 3, m.heads, d / m.heads}).Permute([]int64{2, 0, 3, 1, 4}).Unbind() // 3 x [n, heads, t, head]
	y := torch.ScaledDotProductAttention(qkv[0], qkv[1], qkv[2], torch.WithIsCausal(causal))
	return m.OutProj.Forward(y.Transpose(1, 2).Reshape([]int64{n, t, d}))
}

func (m *MultiheadAttentionModule) project(x torch.Tensor) torch.Tensor {
	if m.Packed != nil {
		return m.Packed.Forward(x)
	}
	return torch.Linear(x, m.InProjWeight, torch.WithBias(m.InProjBias))
}

// Pack is what nn.Pack does with the input projection.
func (m *MultiheadAttentionModule) Pack() {
	if m.Packed == nil {
		m.Packed = NewPacked(m.InProjWeight, m.InProjBias)
		m.InProjWeight.Close()
		m.InProjWeight = torch.Tensor{}
	}
}
