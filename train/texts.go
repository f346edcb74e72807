package train

import "cyclecap/torch"

// Texts are token ids of many texts, packed.
type Texts struct {
	ids   []int32
	start []int
}

// Add puts a text at the end.
func (t *Texts) Add(ids []int) {
	if t.start == nil {
		t.start = []int{0}
	}
	for _, id := range ids {
		t.ids = append(t.ids, int32(id))
	}
	t.start = append(t.start, len(t.ids))
}

// Len counts the texts.
func (t *Texts) Len() int { return max(0, len(t.start)-1) }

// Get gives a text's ids.
func (t *Texts) Get(i int) []int32 { return t.ids[t.start[i]:t.start[i+1]] }

// Select gives the texts that are listed, in that order.
func (t *Texts) Select(items []int32) *Texts {
	out := &Texts{start: make([]int, 1, len(items)+1)}
	for _, i := range items {
		out.ids = append(out.ids, t.Get(int(i))...)
		out.start = append(out.start, len(out.ids))
	}
	return out
}

// batch gives texts as int64 [n, longest], cut at limit and padded behind with
// pad.
func (t *Texts) batch(items []int32, limit int, pad int64, d torch.Device) torch.Tensor {
	longest := 1
	for _, i := range items {
		longest = max(longest, min(limit, len(t.Get(int(i)))))
	}
	flat := make([]int64, len(items)*longest)
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
	return torch.FromSlice(flat, int64(len(items)), int64(longest)).To(torch.WithDevice(d))
}
