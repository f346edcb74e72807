package nn

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"cyclecap/torch"
)

// MultiheadAttentionOptions configures MultiheadAttention.
type MultiheadAttentionOptions struct {
	Dropout     float64 // the probability to drop an attention weight in training
	Bias        bool
	AddBiasKv   bool  // a learned position is added to keys and values
	AddZeroAttn bool  // a position of zeros is added to keys and values
	Kdim, Vdim  int64 // the sizes of keys and values; 0 is the embedding dimension
	BatchFirst  bool  // inputs and outputs are [n, t, d] instead of [t, n, d]
}

// MultiheadAttentionDefaults returns PyTorch's defaults: biases, and nothing else.
func MultiheadAttentionDefaults() MultiheadAttentionOptions {
	return MultiheadAttentionOptions{Bias: true}
}

// MultiheadAttentionModule is torch.nn.MultiheadAttention.
type MultiheadAttentionModule struct {
	Hook
	Training     bool
	InProjWeight torch.Tensor // [3 d, d]: query, key, value; none if Kdim or Vdim differ from d
	// InProjWeightScale is the scale of each output, f32 [3 d, 1], of an InProjWeight of
	// 8-bit integers, and otherwise none; see LinearModule.WeightScale.
	InProjWeightScale torch.Tensor `optional:"true"`
	QProjWeight       torch.Tensor // [d, d], in place of InProjWeight
	KProjWeight       torch.Tensor // [d, Kdim]
	VProjWeight       torch.Tensor // [d, Vdim]
	InProjBias        torch.Tensor // [3 d], or none
	BiasK             torch.Tensor // [1, 1, d], or none
	BiasV             torch.Tensor // [1, 1, d], or none
	OutProj           *LinearModule
	heads, d          int64
	o                 MultiheadAttentionOptions
	Packed            *Packed      `name:"-"` // InProjWeight, set by Pack
	Exact             *ExactLinear `name:"-"` // of InProjWeight, set by SetExact
}

// MultiheadAttention returns a multi-head attention of embedding dimension d with
// PyTorch's initialization: xavier_uniform_ for the input projections, and
// zero biases.
func MultiheadAttention(d, heads int64, o MultiheadAttentionOptions) *MultiheadAttentionModule {
	if heads < 1 || d%heads != 0 {
		torch.Throw("nn.MultiheadAttention", "the embedding dimension %d must be divisible by the number of heads, %d", d, heads)
	}
	if o.Kdim == 0 {
		o.Kdim = d
	}
	if o.Vdim == 0 {
		o.Vdim = d
	}
	m := &MultiheadAttentionModule{Training: true, heads: heads, d: d, o: o}
	empty := func(shape ...int64) torch.Tensor { return parameter(torch.Empty(shape)) }
	if o.Kdim == d && o.Vdim == d {
		m.InProjWeight = empty(3*d, d)
	} else {
		m.QProjWeight, m.KProjWeight, m.VProjWeight = empty(d, d), empty(d, o.Kdim), empty(d, o.Vdim)
	}
	m.OutProj = Linear(d, d, o.Bias)
	for _, w := range []torch.Tensor{m.InProjWeight, m.QProjWeight, m.KProjWeight, m.VProjWeight} {
		if w.Defined() {
			XavierUniform_(w)
		}
	}
	if o.Bias {
		m.InProjBias = parameter(torch.Zeros([]int64{3 * d}))
		Constant_(m.OutProj.Bias, 0)
	}
	if o.AddBiasKv {
		m.BiasK, m.BiasV = empty(1, 1, d), empty(1, 1, d)
		XavierNormal_(m.BiasK)
		XavierNormal_(m.BiasV)
	}
	return m
}

// SelfAttention returns the self-attention of x [n, t, d] (whatever BatchFirst is), without dropout.
// If causal is set, each position attends only to itself and earlier positions. It computes from
// packed weights if there are any. Keys and values must have dimension d, and biases but no added
// positions.
func (m *MultiheadAttentionModule) SelfAttention(x torch.Tensor, causal bool) torch.Tensor {
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
	if m.Exact != nil {
		return m.Exact.Forward(x, m.InProjWeight, m.InProjBias, false)
	}
	return torch.Linear(x, m.InProjWeight, torch.WithBias(m.InProjBias))
}

// AttentionOptions are the options of [MultiheadAttentionModule.Forward].
type AttentionOptions struct {
	// KeyPaddingMask, [n, s] or [s] without a batch, is true, or -Inf, for keys that nobody
	// attends to, or numbers that are added to their scores; or none.
	KeyPaddingMask torch.Tensor
	// AttnMask, [t, s] or [n*heads, t, s], is true, or -Inf, where a position does not attend
	// to a key, or numbers that are added to the scores; or none.
	AttnMask           torch.Tensor
	NeedWeights        bool // the weights are returned; otherwise attention is one fused operator
	AverageAttnWeights bool // the weights are averaged over the heads
	// IsCausal says that AttnMask, which it requires, is the causal one. It is then not read
	// if there is neither KeyPaddingMask nor NeedWeights.
	IsCausal bool
}

// AttentionDefaults returns PyTorch's defaults: no masks, averaged weights.
func AttentionDefaults() AttentionOptions {
	return AttentionOptions{NeedWeights: true, AverageAttnWeights: true}
}

// Forward returns the attention of queries [t, n, d] to keys [s, n, Kdim] and values [s, n, Vdim],
// or [n, t, d] and so on with BatchFirst; n may be missing everywhere. It returns the output, of
// the shape of query, and with NeedWeights the attention weights, [n, t, s], or [n, heads, t, s]
// if they are not averaged, and otherwise none. For self-attention pass the same tensor three
// times: the three projections are then one product.
//
// PyTorch's fast path for evaluation without gradients rounds otherwise; Forward computes as
// PyTorch does in training.
func (m *MultiheadAttentionModule) Forward(query, key, value torch.Tensor, o AttentionOptions) (out, weights torch.Tensor) {
	const op = "nn.MultiheadAttention"
	if m.Packed != nil {
		torch.Throw(op, "only SelfAttention computes from packed weights")
	}
	batched := query.Dim() == 3
	if query.Dim() != 2 && !batched || key.Dim() != query.Dim() || value.Dim() != query.Dim() {
		torch.Throw(op, "expected a query, key and value of two or three dimensions each, got %v, %v and %v", query.Shape(), key.Shape(), value.Shape())
	}
	if query.Size(-1) != m.d || key.Size(-1) != m.o.Kdim || value.Size(-1) != m.o.Vdim || !slices.Equal(key.Shape()[:key.Dim()-1], value.Shape()[:value.Dim()-1]) {
		torch.Throw(op, "expected a query, key and value of sizes %d, %d and %d, got %v, %v and %v", m.d, m.o.Kdim, m.o.Vdim, query.Shape(), key.Shape(), value.Shape())
	}
	if o.IsCausal && !o.AttnMask.Defined() {
		torch.Throw(op, "IsCausal requires the causal AttnMask")
	}
	padding := o.KeyPaddingMask
	// PyTorch projects the parts of a query without a batch one by one, whatever they are.
	self, same := batched && query == key && key == value, batched && key == value
	arrange := func(t torch.Tensor) torch.Tensor { // [t, n, d]
		switch {
		case !batched:
			return t.Unsqueeze(1)
		case m.o.BatchFirst:
			return t.Transpose(1, 0)
		}
		return t
	}
	query = arrange(query)
	switch {
	case self:
		key, value = query, query
	case same:
		key = arrange(key)
		value = key
	default:
		key, value = arrange(key), arrange(value)
	}
	if !batched && padding.Defined() {
		padding = padding.Unsqueeze(0)
	}
	t, n, heads, head := query.Size(0), query.Size(1), m.heads, m.d/m.heads
	padding = additive(op, padding, query.DType())
	mask, causal := o.AttnMask, o.IsCausal
	if causal && !padding.Defined() && !o.NeedWeights {
		mask = torch.Tensor{}
	} else {
		mask = additive(op, mask, query.DType())
		causal = causal && !padding.Defined()
	}
	q, k, v := m.projections(query, key, value, self, same)
	if mask.Defined() {
		want := []int64{t, key.Size(0)}
		switch mask.Dim() {
		case 2:
			mask = mask.Unsqueeze(0)
		default:
			want = append([]int64{n * heads}, want...)
		}
		if got := o.AttnMask.Shape(); !slices.Equal(got, want) {
			torch.Throw(op, "AttnMask has shape %v, want %v", got, want)
		}
	}
	wider := func(mask torch.Tensor) torch.Tensor { // by an added position
		if mask.Defined() {
			return mask.Pad([]int64{0, 1})
		}
		return mask
	}
	if m.BiasK.Defined() {
		k = torch.Cat([]torch.Tensor{k, m.BiasK.Repeat([]int64{1, n, 1})})
		v = torch.Cat([]torch.Tensor{v, m.BiasV.Repeat([]int64{1, n, 1})})
		mask, padding = wider(mask), wider(padding)
	}
	split := func(x torch.Tensor) torch.Tensor { // [n*heads, t, head]
		return x.View([]int64{x.Size(0), n * heads, head}).Transpose(0, 1)
	}
	q, k, v = split(q), split(k), split(v)
	if m.o.AddZeroAttn {
		zeros := torch.Zeros([]int64{n * heads, 1, head}, torch.WithDType(k.DType()), torch.WithDevice(k.Device()))
		k, v = torch.Cat([]torch.Tensor{k, zeros}, torch.WithDim(1)), torch.Cat([]torch.Tensor{v, zeros}, torch.WithDim(1))
		mask, padding = wider(mask), wider(padding)
	}
	s := k.Size(1)
	if padding.Defined() {
		if got := padding.Shape(); !slices.Equal(got, []int64{n, s}) {
			torch.Throw(op, "KeyPaddingMask has shape %v, want %v", o.KeyPaddingMask.Shape(), []int64{n, s})
		}
		padding = padding.View([]int64{n, 1, 1, s}).Expand([]int64{-1, heads, -1, -1}).Reshape([]int64{n * heads, 1, s})
		if mask.Defined() {
			mask = mask.Add(padding)
		} else {
			mask = padding
		}
	}
	dropout := 0.0
	if m.Training {
		dropout = m.o.Dropout
	}
	if o.NeedWeights {
		out, weights = m.weighted(q, k, v, mask, dropout, o.AverageAttnWeights)
	} else {
		if mask.Defined() {
			if mask.Size(0) == 1 {
				mask = mask.Unsqueeze(0)
			} else {
				mask = mask.View([]int64{n, heads, -1, s})
			}
		}
		y := torch.ScaledDotProductAttention(q.View([]int64{n, heads, t, head}), k.View([]int64{n, heads, s, head}), v.View([]int64{n, heads, s, head}),
			torch.WithAttnMask(mask), torch.WithDropoutP(dropout), torch.WithIsCausal(causal))
		out = y.Permute([]int64{2, 0, 1, 3}).Contiguous().View([]int64{n * t, m.d})
	}
	out = m.OutProj.Forward(out).View([]int64{t, n, m.d})
	switch {
	case !batched:
		out = out.SqueezeDim(1)
		if weights.Defined() {
			weights = weights.SqueezeDim(0)
		}
	case m.o.BatchFirst:
		out = out.Transpose(1, 0)
	}
	return m.Output(out), weights
}

// projections returns the projections of query, key and value [t, n, d].
func (m *MultiheadAttentionModule) projections(query, key, value torch.Tensor, self, same bool) (q, k, v torch.Tensor) {
	linear := func(x, w, b torch.Tensor) torch.Tensor { return torch.Linear(x, w, torch.WithBias(b)) }
	// several is one product for a number of projections.
	several := func(x, w, b torch.Tensor, number int64) []torch.Tensor {
		y := linear(x, w, b).Unflatten(-1, []int64{number, m.d})
		y = y.Unsqueeze(0).Transpose(0, -2).SqueezeDim(-2).Contiguous()
		out := make([]torch.Tensor, number)
		for i := range out {
			out[i] = y.Select(0, int64(i))
		}
		return out
	}
	var b [3]torch.Tensor
	split := func(sizes ...int64) (bias []torch.Tensor) {
		if m.InProjBias.Defined() {
			return m.InProjBias.SplitWithSizes(sizes)
		}
		return b[:len(sizes)]
	}
	switch d := m.d; {
	case !m.InProjWeight.Defined():
		bias := split(d, d, d)
		return linear(query, m.QProjWeight, bias[0]), linear(key, m.KProjWeight, bias[1]), linear(value, m.VProjWeight, bias[2])
	case self:
		p := several(query, m.InProjWeight, m.InProjBias, 3)
		return p[0], p[1], p[2]
	case same:
		w, bias := m.InProjWeight.SplitWithSizes([]int64{d, 2 * d}), split(d, 2*d)
		q = linear(query, w[0], bias[0])
		p := several(key, w[1], bias[1], 2)
		return q, p[0], p[1]
	default:
		w, bias := m.InProjWeight.Chunk(3), split(d, d, d)
		return linear(query, w[0], bias[0]), linear(key, w[1], bias[1]), linear(value, w[2], bias[2])
	}
}

// weighted is attention that returns its weights, averaged over the heads or not.
func (m *MultiheadAttentionModule) weighted(q, k, v, mask torch.Tensor, dropout float64, average bool) (out, weights torch.Tensor) {
	t, s := q.Size(1), k.Size(1)
	n := q.Size(0) / m.heads
	scaled, keys := q.MulScalar(math.Sqrt(1/float64(m.d/m.heads))), k.Transpose(-2, -1)
	var scores torch.Tensor
	if mask.Defined() {
		scores = mask.Baddbmm(scaled, keys)
	} else {
		scores = scaled.BMM(keys)
	}
	p := scores.Softmax(-1)
	if dropout > 0 {
		p = torch.Dropout(p, dropout, true)
	}
	out = p.BMM(v).Transpose(0, 1).Contiguous().View([]int64{t * n, m.d})
	weights = p.View([]int64{n, m.heads, t, s})
	if average {
		weights = weights.MeanDim([]int64{1})
	}
	return out, weights
}

// additive returns a mask of numbers that are added to scores: true is -Inf.
func additive(op string, mask torch.Tensor, dtype torch.DType) torch.Tensor {
	switch {
	case !mask.Defined() || mask.DType().IsFloat():
		return mask
	case mask.DType() != torch.Bool:
		torch.Throw(op, "a mask must be of bools or floats, not of %v", mask.DType())
	}
	return mask.ZerosLike(torch.WithDType(dtype)).MaskedFill_(mask, math.Inf(-1))
}

// Scale returns the factor of the scores.
func (m *MultiheadAttentionModule) Scale() float64 {
	return 1 / math.Sqrt(float64(m.d/m.heads))
}

// Heads returns the number of heads.
func (m *MultiheadAttentionModule) Heads() int64 { return m.heads }

// Pack packs the weight of the input projection, if there is one for query, key and value; see
// nn.Pack.
func (m *MultiheadAttentionModule) Pack(as Packing) {
	if m.Packed == nil && m.InProjWeight.Defined() {
		m.Packed = NewPacked(m.InProjWeight, m.InProjWeightScale, m.InProjBias, as)
		m.InProjWeight.Close()
		m.InProjWeightScale.Close()
		m.InProjWeight, m.InProjWeightScale = torch.Tensor{}, torch.Tensor{}
	}
}

// SetExact lets the input projection, if there is one for query, key and value, compute by
// [ExactLinear]; see [Exact].
func (m *MultiheadAttentionModule) SetExact() {
	if m.InProjWeight.Defined() {
		m.Exact = cmp.Or(m.Exact, &ExactLinear{})
	}
}
