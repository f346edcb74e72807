package gpt2

import "cyclecap/torch"

// A StaticCache holds keys and values like a Cache, but at positions that a tensor
// names: the shapes and addresses of a step do not depend on its number, so that a
// CUDA graph can replay it. An attention mask tells which slots a query sees.
type StaticCache struct {
	layers []torch.Tensor // [2, batch, heads, slots, head]: keys and values
}

// NewStaticCache allocates a cache for batch sequences of slots positions. It must
// be closed.
func (m *Model) NewStaticCache(batch, slots int64) *StaticCache {
	c := &StaticCache{}
	w := m.Wte.Weight
	for range m.H {
		// Zeros: a masked slot has weight 0, but 0 times an uninitialised NaN is NaN.
		c.layers = append(c.layers, torch.Zeros([]int64{2, batch, m.Config.NHead, slots, m.Config.NEmbd / m.Config.NHead},
			torch.WithDType(w.DType()), torch.WithDevice(w.Device())).Keep())
	}
	return c
}

// Close frees the cache.
func (c *StaticCache) Close() {
	for _, t := range c.layers {
		t.Close()
	}
}

// ForwardStatic returns the last hidden states [b, t, n_embd], after ln_f, for input
// embeddings [b, t, n_embd] at positions (int64 [t], or [1] for all). Their keys and
// values are stored in slots (int64 [t]) of the cache. With a mask, additive
// [b, 1, t, span], attention covers the first span slots; without one, the embeddings
// attend causally to one another only.
func (m *Model) ForwardStatic(embeds torch.Tensor, c *StaticCache, positions, slots, mask torch.Tensor) torch.Tensor {
	if d := embeds.Size(2); d != m.Config.NEmbd {
		torch.Throw("gpt2", "embeddings have width %d, want the width of the model, %d", d, m.Config.NEmbd)
	}
	x := embeds.Add(m.Wpe.Forward(positions))
	for i, b := range m.H {
		x = torch.Tidy(func() torch.Tensor {
			x := b.Attn.static(b.Ln1.Forward(x), c.layers[i], slots, mask).Add(x)
			return x.Add(b.Mlp.CProj.few(b.Mlp.act(b.Mlp.CFc.few(b.Ln2.Forward(x)))))
		})
	}
	return m.LnF.Forward(x)
}

func (a *Attention) static(x, cache, slots, mask torch.Tensor) torch.Tensor {
	n, t, d := x.Size(0), x.Size(1), x.Size(2)
	head := d / a.heads
	qkv := a.CAttn.few(x).View([]int64{n, t, 3, a.heads, head}).Permute([]int64{2, 0, 3, 1, 4}) // [3, n, heads, t, head]
	now := qkv.Narrow(0, 1, 2)
	cache.IndexCopy_(3, slots, now)
	q := qkv.Select(0, 0)
	var y torch.Tensor // [n, heads, t, head]
	switch {
	case !mask.Defined():
		y = torch.ScaledDotProductAttention(q, now.Select(0, 0), now.Select(0, 1), torch.WithScale(a.scale), torch.WithIsCausal(true))
	case x.DType() == torch.Float32:
		// In f32, the attention kernel of libtorch 2.11 takes up to twice as long for
		// few queries, since it gives all keys of a head to one block of the GPU.
		now = cache.Narrow(3, 0, mask.Size(3))
		w := q.Matmul(now.Select(0, 0).Transpose(2, 3)).MulScalar(a.scale).Add_(mask).Softmax(-1)
		y = w.Matmul(now.Select(0, 1))
	default:
		now = cache.Narrow(3, 0, mask.Size(3))
		y = torch.ScaledDotProductAttention(q, now.Select(0, 0), now.Select(0, 1), torch.WithScale(a.scale), torch.WithAttnMask(mask))
	}
	return a.CProj.few(y.Transpose(1, 2).Reshape([]int64{n, t, d}))
}

// few is Forward for few rows. In f32, with a bias of one dimension, addmm leaves the
// choice of the kernel to cuBLASLt, whose choice for 16 rows takes 5 times as long as
// cuBLAS's for the layer of 3072 inputs (77 us instead of 15 on an H200); a bias of two
// dimensions leaves it to cuBLAS. The bits differ.
func (c *Conv1D) few(x torch.Tensor) torch.Tensor {
	shape := x.Shape()
	in := shape[len(shape)-1]
	rows := x.Numel() / in
	if x.DType() != torch.Float32 || rows <= 8 {
		return c.Forward(x)
	}
	out := c.Weight.Size(1)
	shape[len(shape)-1] = out
	return c.Bias.Expand([]int64{rows, out}).Addmm(x.View([]int64{rows, in}), c.Weight).View(shape)
}
