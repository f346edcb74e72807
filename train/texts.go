package train

import (
	"slices"

	"cyclecap/torch"
)

// Texts stores the token ids of many texts in one slice.
type Texts struct {
	ids   []int32
	start []int
}

// Add appends a text.
func (t *Texts) Add(ids []int) {
	if t.start == nil {
		t.start = []int{0}
	}
	for _, id := range ids {
		t.ids = append(t.ids, int32(id))
	}
	t.start = append(t.start, len(t.ids))
}

// Len returns the number of texts.
func (t *Texts) Len() int { return max(0, len(t.start)-1) }

// Get returns the token ids of a text.
func (t *Texts) Get(i int) []int32 { return t.ids[t.start[i]:t.start[i+1]] }

// Select returns a copy of the texts with the given indices, in that order.
func (t *Texts) Select(items []int32) *Texts {
	out := &Texts{start: make([]int, 1, len(items)+1)}
	for _, i := range items {
		out.ids = append(out.ids, t.Get(int(i))...)
		out.start = append(out.start, len(out.ids))
	}
	return out
}

// cut returns the first tokens of a text, at most limit.
func (t *Texts) cut(item int32, limit int) []int32 {
	ids := t.Get(int(item))
	return ids[:min(len(ids), limit)]
}

// counted returns the number of tokens that count in DecoderLoss.
func (t *Texts) counted(items []int32, limit int) (n int) {
	for _, i := range items {
		for _, id := range t.cut(i, limit) {
			if id != 0 {
				n++
			}
		}
	}
	return n
}

// batch returns texts as an int64 tensor [n, longest], cut to limit tokens and padded at
// the end with pad.
func (t *Texts) batch(items []int32, limit int, pad int64, d torch.Device) torch.Tensor {
	longest := 1
	for _, i := range items {
		longest = max(longest, len(t.cut(i, limit)))
	}
	flat := slices.Repeat([]int64{pad}, len(items)*longest)
	for k, i := range items {
		for j, id := range t.cut(i, limit) {
			flat[k*longest+j] = int64(id)
		}
	}
	return torch.FromSliceOn(d, flat, int64(len(items)), int64(longest))
}
