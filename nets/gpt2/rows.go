package gpt2

import (
	"math"
	"slices"

	"cyclecap/torch"
)

// A RowCache is a cache for sequences that start and end at different times: each of its
// rows has a number of positions of its own. Its memory is allocated once.
//
// The positions of a row start at 0 in its part of the buffers, so that nothing moves
// when rows of another length join or leave. Between the last position of a row and that
// of the longest, there is padding: numbers that attention masks, and that must be finite,
// since 0 times NaN is NaN.
type RowCache struct {
	lengths      []int64        // number of positions of each row
	keys, values []torch.Tensor // of each layer, [most, heads, length, head]
}

// NewRowCache allocates a cache for at most most rows of at most length positions. It
// must be closed.
func (m *Model) NewRowCache(most, length int64) *RowCache {
	c := &RowCache{}
	w := m.Wte.Weight
	shape := []int64{most, m.Config.NHead, length, m.Config.NEmbd / m.Config.NHead}
	for range m.H {
		c.keys = append(c.keys, torch.Empty(shape, torch.WithDType(w.DType()), torch.WithDevice(w.Device())).Keep())
		c.values = append(c.values, torch.Empty(shape, torch.WithDType(w.DType()), torch.WithDevice(w.Device())).Keep())
	}
	return c
}

// Close frees the cache.
func (c *RowCache) Close() {
	for _, t := range slices.Concat(c.keys, c.values) {
		t.Close()
	}
}

// Keep removes all rows but those listed, which must be ascending, and which move up to
// the first places.
func (c *RowCache) Keep(rows []int64) {
	still := 0 // rows that stay where they are
	for still < len(rows) && rows[still] == int64(still) {
		still++
	}
	longest, lengths := c.longest(), c.lengths[:0]
	for _, r := range rows {
		lengths = append(lengths, c.lengths[r])
	}
	c.lengths = lengths
	if still == len(rows) {
		return
	}
	torch.Tidy(func() torch.Tensor {
		moved := torch.FromSlice(rows[still:]).To(torch.WithDevice(c.keys[0].Device()))
		for _, t := range slices.Concat(c.keys, c.values) {
			t = t.Narrow(2, 0, longest)
			t.Narrow(0, int64(still), int64(len(rows)-still)).Copy_(t.IndexSelect(0, moved))
		}
		return torch.Tensor{}
	})
}

// longest returns the number of positions of the longest row.
func (c *RowCache) longest() (n int64) {
	for _, l := range c.lengths {
		n = max(n, l)
	}
	return n
}

// ForwardNew adds rows to the cache. It returns the last hidden states of the last position
// [n, 1, n_embd], after ln_f, for their input embeddings [n, t, n_embd].
func (m *Model) ForwardNew(embeds torch.Tensor, c *RowCache) torch.Tensor {
	n, t := embeds.Size(0), embeds.Size(1)
	first := int64(len(c.lengths))
	if most := c.keys[0].Size(0); first+n > most {
		torch.Throw("gpt2.cache", "%d rows are needed, but the cache has room for %d", first+n, most)
	}
	hidden := m.forward(embeds, m.positions(embeds, 0), part{c, first, n, 0}, torch.Tensor{}, true)
	if padding := c.longest() - t; padding > 0 {
		for _, list := range [][]torch.Tensor{c.keys, c.values} {
			for _, all := range list {
				all.Narrow(0, first, n).Narrow(2, t, padding).Fill_(0)
			}
		}
	}
	for range n {
		c.lengths = append(c.lengths, t)
	}
	return hidden
}

// ForwardNext adds a position to every row. It returns the last hidden states
// [n, 1, n_embd], after ln_f, for input embeddings [n, 1, n_embd]. If all rows have the
// same length, these have the bits of Forward with a Cache.
func (m *Model) ForwardNext(embeds torch.Tensor, c *RowCache) torch.Tensor {
	n, longest := int64(len(c.lengths)), c.longest()
	if b, t := embeds.Size(0), embeds.Size(1); b != n || t != 1 {
		torch.Throw("gpt2.cache", "embeddings have %d rows of %d positions, want %d of 1", b, t, n)
	}
	rows := part{c, 0, n, longest}
	d := torch.WithDevice(embeds.Device())
	var hidden torch.Tensor
	switch {
	case slices.Min(c.lengths) == longest:
		hidden = m.forward(embeds, m.positions(embeds, longest), rows, torch.Tensor{}, false)
	case m.Fused():
		m.reaches(longest + 1)
		hidden = m.forward(embeds, torch.FromSlice(c.lengths, n, 1), ragged{rows}, torch.Tensor{}, false)
	default:
		m.reaches(longest + 1)
		positions := torch.FromSlice(c.lengths, n, 1).To(d)
		mask := make([]float32, 0, n*(longest+1))
		slots := make([]int64, 0, n*m.Config.NHead)
		room := c.keys[0].Size(2)
		for r, length := range c.lengths {
			for p := range longest + 1 {
				if p <= length {
					mask = append(mask, 0)
				} else {
					mask = append(mask, float32(math.Inf(-1)))
				}
			}
			for h := range m.Config.NHead {
				slots = append(slots, (int64(r)*m.Config.NHead+h)*room+length)
			}
		}
		hidden = m.forward(embeds, positions, scattered{rows, torch.FromSlice(slots).To(d)},
			torch.FromSlice(mask, n, 1, 1, longest+1).To(d, torch.WithDType(embeds.DType())), false)
	}
	for r := range c.lengths {
		c.lengths[r]++
	}
	return hidden
}

// part is n rows of a cache from row first, which all have past positions.
type part struct {
	*RowCache
	first, n, past int64
}

func (p part) extend(i int, k, v torch.Tensor) (keys, values torch.Tensor) {
	keys, values = p.upTo(i, p.past+k.Size(2))
	keys.Narrow(2, p.past, k.Size(2)).Copy_(k)
	values.Narrow(2, p.past, v.Size(2)).Copy_(v)
	return keys, values
}

func (p part) layer(i int) *torch.KeyValues {
	return &torch.KeyValues{Keys: p.keys[i], Values: p.values[i], First: p.first, Past: slices.Repeat([]int64{p.past}, int(p.n))}
}

// ragged is a part whose rows have as many positions as the cache says, for layers that extend
// them themselves.
type ragged struct{ part }

func (r ragged) layer(i int) *torch.KeyValues {
	return &torch.KeyValues{Keys: r.keys[i], Values: r.values[i], First: r.first, Past: r.lengths}
}

// upTo returns the first n positions of the rows in layer i.
func (p part) upTo(i int, n int64) (keys, values torch.Tensor) {
	if room := p.keys[i].Size(2); n > room {
		torch.Throw("gpt2.cache", "%d positions are needed, but the cache has room for %d", n, room)
	}
	return p.keys[i].Narrow(0, p.first, p.n).Narrow(2, 0, n), p.values[i].Narrow(0, p.first, p.n).Narrow(2, 0, n)
}

// scattered is a part whose rows have up to past positions. The next of each row and
// head is the row slots [n x heads] of the buffers as matrices [most x heads x length, head].
type scattered struct {
	part
	slots torch.Tensor
}

func (s scattered) extend(i int, k, v torch.Tensor) (keys, values torch.Tensor) {
	keys, values = s.upTo(i, s.past+1)
	head := k.Size(3)
	matrix := []int64{-1, head}
	// The longest rows write here, and the padding of the others grows.
	keys.Narrow(2, s.past, 1).Fill_(0)
	values.Narrow(2, s.past, 1).Fill_(0)
	s.keys[i].View(matrix).IndexCopy_(0, s.slots, k.Reshape(matrix))
	s.values[i].View(matrix).IndexCopy_(0, s.slots, v.Reshape(matrix))
	return keys, values
}
