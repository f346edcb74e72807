package gpt2

import (
	"math"

	"cyclecap/torch"
)

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
			return x.Add(b.Mlp.Forward(b.Ln2.Forward(x)))
		})
	}
	return m.LnF.Forward(x)
}

func (a *Attention) static(x, cache, slots, mask torch.Tensor) torch.Tensor {
	n, t, d := x.Size(0), x.Size(1), x.Size(2)
	head := d / a.heads
	qkv := a.CAttn.Forward(x).View([]int64{n, t, 3, a.heads, head}).Permute([]int64{2, 0, 3, 1, 4}) // [3, n, heads, t, head]
	now := qkv.Narrow(0, 1, 2)
	cache.IndexCopy_(3, slots, now)
	opts := []torch.Option{torch.WithScale(1 / math.Sqrt(float64(head)))}
	if mask.Defined() {
		now = cache.Narrow(3, 0, mask.Size(3))
		opts = append(opts, torch.WithAttnMask(mask))
	} else {
		opts = append(opts, torch.WithIsCausal(true))
	}
	y := torch.ScaledDotProductAttention(qkv.Select(0, 0), now.Select(0, 0), now.Select(0, 1), opts...)
	return a.CProj.Forward(y.Transpose(1, 2).Reshape([]int64{n, t, d}))
}
