package nn

import (
	"fmt"
	"math"

	"cyclecap/torch"
)

// MultiheadAttentionModule is torch.nn.MultiheadAttention with batch_first and
// one width for query, key and value.
type MultiheadAttentionModule struct {
	InProjWeight torch.Tensor // [3 d, d]: query, key, value
	InProjBias   torch.Tensor // [3 d]
	OutProj      *LinearModule
	heads        int64
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
	torch.NoGrad(func() { m.OutProj.Bias.Zero_() })
	return m
}

// Forward is self-attention over x [n, t, d]; causal lets a position see only
// those up to its own.
func (m *MultiheadAttentionModule) Forward(x torch.Tensor, causal bool) torch.Tensor {
	if x.Dim() != 3 {
		torch.Throw("nn.MultiheadAttention", "an input [n, t, d] is needed, not %s", fmt.Sprint(x.Shape()))
	}
	n, t, d := x.Size(0), x.Size(1), x.Size(2)
	qkv := torch.Linear(x, m.InProjWeight, torch.WithBias(m.InProjBias)).
		View([]int64{n, t, 3, m.heads, d / m.heads}).Permute([]int64{2, 0, 3, 1, 4}).Unbind() // 3 x [n, heads, t, head]
	y := torch.ScaledDotProductAttention(qkv[0], qkv[1], qkv[2], torch.WithIsCausal(causal))
	return m.OutProj.Forward(y.Transpose(1, 2).Reshape([]int64{n, t, d}))
}

// XavierUniform_ is torch.nn.init.xavier_uniform_ of a matrix [out, in].
func XavierUniform_(t torch.Tensor) {
	s := t.Shape()
	std := math.Sqrt(2.0 / float64(s[0]+s[1]))
	bound := math.Sqrt(3.0) * std
	torch.NoGrad(func() { t.Uniform_(torch.WithFrom(-bound), torch.WithTo(bound)) })
}
