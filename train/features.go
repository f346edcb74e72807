package train

import (
	"fmt"

	"cyclecap/torch"
)

// Features are rows of CLIP features, such as a feature store has on disk.
type Features interface {
	Len() int
	Width() int
	// Read copies rows into dst, [len(rows), Width] in f32.
	Read(rows []int32, dst []float32) error
}

// Matrix is Features in memory.
type Matrix struct {
	Data []float32 // [n, Columns]
	Cols int
}

// Len counts the rows.
func (m Matrix) Len() int { return len(m.Data) / m.Cols }

// Width gives the length of a row.
func (m Matrix) Width() int { return m.Cols }

// Read copies rows.
func (m Matrix) Read(rows []int32, dst []float32) error {
	for i, r := range rows {
		copy(dst[i*m.Cols:(i+1)*m.Cols], m.Data[int(r)*m.Cols:])
	}
	return nil
}

// rowsOf gives rows of features as a tensor [n, width] on a device.
func rowsOf(f Features, rows []int32, d torch.Device) (torch.Tensor, error) {
	dst := make([]float32, len(rows)*f.Width())
	if err := f.Read(rows, dst); err != nil {
		return torch.Tensor{}, err
	}
	return torch.FromSlice(dst, int64(len(rows)), int64(f.Width())).To(torch.WithDevice(d)), nil
}

// Normalize scales rows [n, width] to length 1, as ClipCap's
// normalize_prefix does.
func Normalize(x torch.Tensor) torch.Tensor {
	return x.Div(x.LinalgVectorNorm(torch.WithDim([]int64{-1}), torch.WithKeepdim(true)))
}

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

// listed names items of a batch for people.
func listed(what string, items []int32) string {
	s := what
	for i, v := range items {
		if i == 8 {
			return s + fmt.Sprintf(" and %d more", len(items)-i)
		}
		if i > 0 {
			s += ","
		}
		s += fmt.Sprintf(" %d", v)
	}
	return s
}
