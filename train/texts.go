package train

import "cyclecap/torch"

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

// counted returns the positions in batch's tensor [n, width], flattened, of the tokens that
// count in DecoderLoss.
func (t *Texts) counted(items []int32, limit, width int) (at []int64) {
	for k, i := range items {
		ids := t.Get(int(i))
		for j, id := range ids[:min(len(ids), limit)] {
			if id != 0 {
				at = append(at, int64(k*width+j))
			}
		}
	}
	return at
}

// batch returns texts as an int64 tensor [n, longest], cut to limit tokens and padded at
// the end with pad.
func (t *Texts) batch(items []int32, limit int, pad int64, d torch.Device) torch.Tensor {
	flat, longest := t.padded(items, limit, pad)
	return torch.FromSliceOn(d, flat, int64(len(items)), int64(longest))
}

// padded returns the elements of batch's tensor, and the longest.
func (t *Texts) padded(items []int32, limit int, pad int64) (flat []int64, longest int) {
	longest = 1
	for _, i := range items {
		longest = max(longest, min(limit, len(t.Get(int(i)))))
	}
	flat = make([]int64, len(items)*longest)
	for k, i := range items {
		row := flat[k*longest : (k+1)*longest]
		ids := t.Get(int(i))
		for j := range row {
			row[j] = pad
			if j < len(ids) {
				row[j] = int64(ids[j])
			}
		}
	}
	return flat, longest
}
