// Package gpt2 implements the GPT-2 language model (Radford et al. 2019) like
// transformers' GPT2LMHeadModel: it uses the same operators in the same order, so
// that with the same libtorch the logits are bit-identical.
//
// Parameter names are those of transformers without the leading "transformer.".
// Unless Config.Untied is set, the output head is tied to wte.weight.
package gpt2

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"cyclecap/torch"
	"cyclecap/torch/nn"
)

// Model is GPT-2 with its head.
type Model struct {
	Config Config `name:"-"`
	Wte    *nn.EmbeddingModule
	Wpe    *nn.EmbeddingModule
	H      []*Block
	LnF    *nn.LayerNormModule
	LmHead *nn.LinearModule // nil: the head is tied to wte.weight
	Head   *nn.Packed       `name:"-"` // wte.weight as the head, set by nn.Pack
	Exact  *nn.ExactLinear  `name:"-"` // of wte.weight as the head, set by nn.Exact
}

// Block is one layer: pre-norm attention and a pre-norm MLP.
type Block struct {
	nn.Hook
	Ln1  *nn.LayerNormModule `name:"ln_1"`
	Attn *Attention
	Ln2  *nn.LayerNormModule `name:"ln_2"`
	Mlp  *MLP

	fused *nn.FusedLayer // set by nn.Pack, or nil
}

// Attention is causal self-attention with packed query, key and value.
type Attention struct {
	CAttn *Conv1D
	CProj *Conv1D
	heads int64
	scale float64 // of the scores
}

// MLP is the feed-forward part, by default four times as wide inside.
type MLP struct {
	CFc   *Conv1D
	CProj *Conv1D
	act   func(torch.Tensor) torch.Tensor
	fused torch.Activation // act in a packed layer, or none
}

// Conv1D is a linear layer whose weight is stored as [in, out], as in OpenAI's
// original.
type Conv1D struct {
	nn.Hook
	Weight torch.Tensor
	// WeightScale is the scale of each output, f32 [1, out], of a Weight of 8-bit integers,
	// and otherwise none; see nn.LinearModule.
	WeightScale torch.Tensor `optional:"true"`
	Bias        torch.Tensor
	Packed      *nn.Packed      `name:"-"` // set by nn.Pack
	Exact       *nn.ExactLinear `name:"-"` // set by nn.Exact
}

// New returns a GPT-2 with random weights: normal with standard deviation 0.02,
// biases 0, and residual projections scaled down by sqrt(2 layers), drawn in the
// same order as in transformers. The settings must be valid.
func New(c Config) *Model {
	if err := c.check(); err != nil {
		torch.Throw("gpt2.New", "%v", err)
	}
	m := &Model{Config: c, Wte: nn.Embedding(c.VocabSize, c.NEmbd), Wpe: nn.Embedding(c.NPositions, c.NEmbd)}
	for layer := range int(c.NLayer) {
		b := &Block{
			Ln1:  nn.LayerNorm([]int64{c.NEmbd}, c.LayerNormEpsilon),
			Attn: &Attention{CAttn: newConv1D(3*c.NEmbd, c.NEmbd), CProj: newConv1D(c.NEmbd, c.NEmbd), heads: c.NHead, scale: c.scale(layer)},
			Ln2:  nn.LayerNorm([]int64{c.NEmbd}, c.LayerNormEpsilon),
			Mlp:  &MLP{CFc: newConv1D(c.inner(), c.NEmbd), CProj: newConv1D(c.NEmbd, c.inner()), act: activations[c.activation()], fused: fused[c.activation()]},
		}
		m.H = append(m.H, b)
	}
	m.LnF = nn.LayerNorm([]int64{c.NEmbd}, c.LayerNormEpsilon)
	if c.Untied {
		m.LmHead = nn.Linear(c.NEmbd, c.VocabSize, false)
	}
	m.init()
	return m
}

func newConv1D(out, in int64) *Conv1D {
	c := &Conv1D{Weight: torch.Empty([]int64{in, out}), Bias: torch.Zeros([]int64{out})}
	normal(c.Weight, 0.02)
	c.Weight.Keep().SetRequiresGrad(true)
	c.Bias.Keep().SetRequiresGrad(true)
	return c
}

func normal(t torch.Tensor, std float64) {
	torch.NoGrad(func() { t.Normal_(torch.WithMean(0), torch.WithStd(std)) })
}

// init draws the weights a second time, like transformers' post_init after the
// constructors of the layers have drawn them once. Transformers also draws a head
// and discards it when it ties the weights; that comes after all this, so it is
// left out.
func (m *Model) init() {
	residual := 0.02 / math.Sqrt(float64(2*m.Config.NLayer))
	normal(m.Wte.Weight, 0.02)
	normal(m.Wpe.Weight, 0.02)
	for _, b := range m.H {
		normal(b.Attn.CAttn.Weight, 0.02)
		normal(b.Attn.CProj.Weight, 0.02)
		normal(b.Attn.CProj.Weight, residual)
		normal(b.Mlp.CFc.Weight, 0.02)
		normal(b.Mlp.CProj.Weight, 0.02)
		normal(b.Mlp.CProj.Weight, residual)
	}
	if m.LmHead != nil {
		normal(m.LmHead.Weight, 0.02)
	}
}

// Load returns a GPT-2 that uses the tensors of sd without copying them, with the
// settings of ConfigOf. extra lists names that the weights may contain in addition to
// the model's own.
func Load(sd *nn.StateDict, extra ...string) (*Model, error) {
	c, err := ConfigOf(sd)
	if err != nil {
		return nil, err
	}
	return LoadConfig(c, sd, extra...)
}

// LoadConfig is like Load, with the settings of c (see Config.Of).
func LoadConfig(c Config, sd *nn.StateDict, extra ...string) (m *Model, err error) {
	if c, err = c.Of(sd); err != nil {
		return nil, fmt.Errorf("GPT-2: %w", err)
	}
	if head, ok := sd.Get("lm_head.weight"); ok && !c.Untied {
		sd = tied(sd, head)
	}
	err = torch.Scope(func() error {
		torch.OnDevice(torch.Meta, func() { m = New(c) })
		return nn.LoadStateDict(m, sd, extra...)
	})
	if err != nil {
		return nil, fmt.Errorf("GPT-2 with %d layers of width %d: %w", c.NLayer, c.NEmbd, err)
	}
	return m, nil
}

// tied returns sd without the head, which is equal to wte.weight or takes its place.
func tied(sd *nn.StateDict, head torch.Tensor) *nn.StateDict {
	out := nn.NewStateDict()
	for _, name := range sd.Names() {
		if t, _ := sd.Get(name); name != "lm_head.weight" {
			out.Add(name, t)
		}
	}
	wte, ok := out.Get("wte.weight")
	if !ok {
		out.Add("wte.weight", head)
	} else if wte != head {
		head.Close()
	}
	return out
}

// A Cache holds the keys and values of previous positions, so that a step
// computes only its own position. Its memory is allocated once, for the maximum
// number of positions.
type Cache struct {
	Len          int64 // number of positions seen
	keys, values []torch.Tensor
}

// NewCache allocates a cache for batch sequences of at most length positions.
func (m *Model) NewCache(batch, length int64) *Cache {
	c := &Cache{}
	w := m.Wte.Weight
	shape := []int64{batch, m.Config.NHead, length, m.Config.NEmbd / m.Config.NHead}
	for range m.H {
		c.keys = append(c.keys, torch.Empty(shape, torch.WithDType(w.DType()), torch.WithDevice(w.Device())))
		c.values = append(c.values, torch.Empty(shape, torch.WithDType(w.DType()), torch.WithDevice(w.Device())))
	}
	return c
}

// Close frees the cache before its scope ends.
func (c *Cache) Close() {
	for _, list := range [][]torch.Tensor{c.keys, c.values} {
		for _, t := range list {
			t.Close()
		}
	}
}

// Batch returns the number of sequences.
func (c *Cache) Batch() int64 { return c.keys[0].Size(0) }

// Select keeps the sequences listed in rows (int64 [n]), in that order and with
// repetitions, as beam search does after a step. shared is the number of leading
// positions known to be equal in all sequences that may change places; these
// positions are not moved. It is used only if the number of rows stays the same.
// Call Select inside the scope that created the cache.
func (c *Cache) Select(rows torch.Tensor, shared int64) {
	n := rows.Size(0)
	for _, list := range [][]torch.Tensor{c.keys, c.values} {
		for i, t := range list {
			moved := torch.Tidy(func() torch.Tensor {
				if n == t.Size(0) {
					part := t.Narrow(2, shared, c.Len-shared)
					part.Copy_(part.IndexSelect(0, rows))
					return torch.Tensor{}
				}
				m := torch.Empty([]int64{n, t.Size(1), t.Size(2), t.Size(3)}, torch.WithDType(t.DType()), torch.WithDevice(t.Device()))
				m.Narrow(2, 0, c.Len).Copy_(t.Narrow(2, 0, c.Len).IndexSelect(0, rows))
				return m
			})
			if moved.Defined() {
				t.Close()
				list[i] = moved
			}
		}
	}
}

func (c *Cache) layer(i int) *torch.KeyValues {
	past := slices.Repeat([]int64{c.Len}, int(c.Batch()))
	return &torch.KeyValues{Keys: c.keys[i], Values: c.values[i], Past: past}
}

func (c *Cache) extend(i int, k, v torch.Tensor) (keys, values torch.Tensor) {
	t := k.Size(2)
	if room := c.keys[i].Size(2); c.Len+t > room {
		torch.Throw("gpt2.cache", "%d positions are needed, but the cache has room for %d", c.Len+t, room)
	}
	c.keys[i].Narrow(2, c.Len, t).Copy_(k)
	c.values[i].Narrow(2, c.Len, t).Copy_(v)
	return c.keys[i].Narrow(2, 0, c.Len+t), c.values[i].Narrow(2, 0, c.Len+t)
}

// Embed returns the embeddings [b, t, n_embd] of token ids [b, t].
func (m *Model) Embed(ids torch.Tensor) torch.Tensor { return m.Wte.Forward(ids) }

// Forward returns the last hidden states [b, t, n_embd], after ln_f, for input
// embeddings [b, t, n_embd] at the positions that follow those in the cache (nil:
// positions start at 0 and nothing is cached). mask (none: causal) is an additive
// float or a boolean attention mask [b, 1, t, t]. It is needed only to reproduce a
// padded batch bit for bit: a text never attends to the padding after it.
func (m *Model) Forward(embeds torch.Tensor, cache *Cache, mask torch.Tensor) torch.Tensor {
	if cache == nil {
		return m.forward(embeds, m.positions(embeds, 0), nil, mask, false)
	}
	return m.cached(embeds, cache, mask, false)
}

// ForwardLast is Forward with a cache and without a mask, of which only the last position is
// needed: it returns [b, 1, n_embd].
func (m *Model) ForwardLast(embeds torch.Tensor, cache *Cache) torch.Tensor {
	return m.cached(embeds, cache, torch.Tensor{}, true)
}

func (m *Model) cached(embeds torch.Tensor, cache *Cache, mask torch.Tensor, last bool) torch.Tensor {
	hidden := m.forward(embeds, m.positions(embeds, cache.Len), cache, mask, last)
	cache.Len += embeds.Size(1)
	return hidden
}

// positions returns the positions [1, t] of embeds [b, t, n_embd] after past others.
func (m *Model) positions(embeds torch.Tensor, past int64) torch.Tensor {
	end := past + embeds.Size(1)
	m.reaches(end)
	return torch.Arange(past, end, torch.WithDType(torch.Int64), torch.WithDevice(embeds.Device())).Unsqueeze(0)
}

// reaches checks that the model has so many positions.
func (m *Model) reaches(end int64) {
	if end > m.Config.NPositions {
		torch.Throw("gpt2", "%d positions are needed, but the model has %d", end, m.Config.NPositions)
	}
}

// keyValues are the keys and values of previous positions.
type keyValues interface {
	// extend appends the keys and values [b, heads, t, head] of a layer, and returns those of all
	// positions.
	extend(layer int, k, v torch.Tensor) (keys, values torch.Tensor)
	// layer returns those of a layer, for one that extends them itself.
	layer(i int) *torch.KeyValues
}

// forward is Forward at the given positions, int64 [b or 1, t]. cache is nil if nothing
// is cached. If last is set, it returns the last position alone.
func (m *Model) forward(embeds, positions torch.Tensor, cache keyValues, mask torch.Tensor, last bool) torch.Tensor {
	if d := embeds.Size(2); d != m.Config.NEmbd {
		torch.Throw("gpt2", "embeddings have width %d, want the width of the model, %d", d, m.Config.NEmbd)
	}
	x := embeds.Add(m.Wpe.Forward(positions))
	t := x.Size(1)
	fused := !mask.Defined() && m.Fused()
	for i, b := range m.H {
		// Keep only the result of the block, and what autograd needs.
		x = torch.Tidy(func() torch.Tensor {
			if !fused {
				return b.forward(x, cache, i, mask)
			}
			var rows *torch.KeyValues
			if cache != nil {
				rows = cache.layer(i)
			}
			var only []int64
			if last && i == len(m.H)-1 {
				only = slices.Repeat([]int64{t - 1}, int(x.Size(0)))
			}
			return b.fused.Forward(x, true, rows, only)
		})
	}
	x = m.LnF.Forward(x)
	if last {
		x = x.Narrow(1, x.Size(1)-1, 1)
	}
	return x
}

// Fused reports whether the blocks are computed at once: see nn.FusedLayer. A sequence then has
// the same bits whatever others are computed with it.
func (m *Model) Fused() bool {
	return !slices.ContainsFunc(m.H, func(b *Block) bool { return !b.fused.Ready() })
}

// Logits returns the scores [..., vocab] of hidden states [..., n_embd].
func (m *Model) Logits(hidden torch.Tensor) torch.Tensor {
	switch {
	case m.LmHead != nil:
		return m.LmHead.Forward(hidden)
	case m.Head != nil:
		return m.Head.Forward(hidden)
	case m.Exact != nil:
		return m.Exact.Forward(hidden, m.Wte.Weight, torch.Tensor{}, false)
	}
	return torch.Linear(hidden, m.Wte.Weight)
}

// FuseGelu sets whether gelu_new, if it is the activation, is computed by PyTorch's own operator
// for the same function (gelu_pytorch_tanh) instead of transformers' sequence of operators. A
// small model trains up to a fifth faster with it, with other rounding.
func (m *Model) FuseGelu(on bool) {
	name := m.Config.activation()
	if name == "gelu_new" && on {
		name = "gelu_pytorch_tanh"
	}
	for _, b := range m.H {
		b.Mlp.act = activations[name]
	}
}

// HeadWeight returns the weight [vocab, n_embd] of the head, before nn.Pack.
func (m *Model) HeadWeight() torch.Tensor {
	if m.LmHead != nil {
		return m.LmHead.Weight
	}
	return m.Wte.Weight
}

func (b *Block) forward(x torch.Tensor, cache keyValues, layer int, mask torch.Tensor) torch.Tensor {
	x = b.Attn.forward(b.Ln1.Forward(x), cache, layer, mask).Add(x)
	return b.Output(x.Add(b.Mlp.Forward(b.Ln2.Forward(x))))
}

func (a *Attention) forward(x torch.Tensor, cache keyValues, layer int, mask torch.Tensor) torch.Tensor {
	return a.CProj.Forward(a.attend(a.CAttn.Forward(x), cache, layer, mask))
}

// attend returns the attention [n, t, d] of queries, keys and values [n, t, 3d].
func (a *Attention) attend(x torch.Tensor, cache keyValues, layer int, mask torch.Tensor) torch.Tensor {
	n, t, d := x.Size(0), x.Size(1), x.Size(2)/3
	head := d / a.heads
	qkv := x.Split(d, torch.WithDim(2)) // 3 x [n, t, d]
	for i, p := range qkv {
		qkv[i] = p.View([]int64{n, t, a.heads, head}).Transpose(1, 2) // [n, heads, t, head]
	}
	q, k, v := qkv[0], qkv[1], qkv[2]
	if cache != nil {
		k, v = cache.extend(layer, k, v)
	}
	opts := []torch.Option{torch.WithScale(a.scale)}
	switch {
	case mask.Defined():
		opts = append(opts, torch.WithAttnMask(mask))
	case t > 1:
		if k.Size(2) > t {
			torch.Throw("gpt2.attention", "several positions at once after a cache need a mask")
		}
		opts = append(opts, torch.WithIsCausal(true))
	}
	y := torch.ScaledDotProductAttention(q, k, v, opts...) // [n, heads, t, head]
	return y.Transpose(1, 2).Reshape([]int64{n, t, d})
}

// Forward maps [n, t, n_embd] to the same shape through the wide layer.
func (m *MLP) Forward(x torch.Tensor) torch.Tensor {
	if m.CFc.Packed != nil && m.fused != torch.NoActivation && !m.CFc.Observed() {
		return m.CProj.Forward(m.CFc.Packed.ForwardFused(x, m.fused))
	}
	return m.CProj.Forward(m.act(m.CFc.Forward(x)))
}

// Forward returns x W + b for x [..., in], computed as a single addmm.
func (c *Conv1D) Forward(x torch.Tensor) torch.Tensor {
	if c.Packed != nil {
		return c.Output(c.Packed.Forward(x))
	}
	if c.Exact != nil {
		return c.Output(c.Exact.Forward(x, c.Weight, c.Bias, true))
	}
	shape := x.Shape()
	in := shape[len(shape)-1]
	y := c.Bias.Addmm(x.View([]int64{-1, in}), c.Weight)
	shape[len(shape)-1] = c.Weight.Size(1)
	return c.Output(y.View(shape))
}

// Pack packs the weight; nn.Pack calls it.
func (c *Conv1D) Pack(as nn.Packing) {
	if c.Packed == nil {
		torch.Tidy(func() torch.Tensor {
			c.Packed = nn.NewPacked(c.Weight.T(), c.WeightScale, c.Bias, as)
			return torch.Tensor{}
		})
		torch.DropPages(c.Weight)
		c.Weight.Close()
		c.WeightScale.Close()
		c.Weight, c.WeightScale = torch.Tensor{}, torch.Tensor{}
	}
}

// SetExact lets the layer compute by nn.ExactLinear; nn.Exact calls it.
func (c *Conv1D) SetExact() { c.Exact = cmp.Or(c.Exact, &nn.ExactLinear{}) }

// Pack prepares the block to be computed at once; nn.Pack calls it.
func (b *Block) Pack(nn.Packing) {
	if b.Mlp.fused != torch.NoActivation {
		b.fused = nn.NewFusedLayer(b, b.Ln1, b.Ln2, []*nn.Packed{b.Attn.CAttn.Packed}, b.Attn.CProj.Packed,
			b.Mlp.CFc.Packed, b.Mlp.CProj.Packed, b.Mlp.fused, b.Attn.heads, b.Attn.scale)
	}
}

// Pack packs a tied head; nn.Pack calls it. The embedding stays as it is.
func (m *Model) Pack(as nn.Packing) {
	if m.Head == nil && m.LmHead == nil {
		m.Head = nn.NewPacked(m.Wte.Weight, torch.Tensor{}, torch.Tensor{}, as)
	}
}

// SetExact lets a tied head compute by nn.ExactLinear; nn.Exact calls it.
func (m *Model) SetExact() {
	if m.LmHead == nil {
		m.Exact = cmp.Or(m.Exact, &nn.ExactLinear{})
	}
}
