package train

import (
	"fmt"

	"cyclecap/torch"
)

// Features is a matrix of CLIP features, one per row, such as a feature store on disk.
type Features interface {
	Len() int
	Width() int
	// Read copies rows into dst [len(rows), Width].
	Read(rows []int32, dst []float32) error
}

// Matrix is an implementation of Features in memory.
type Matrix struct {
	Data []float32 // [n, Cols]
	Cols int
}

// Len returns the number of rows.
func (m Matrix) Len() int { return len(m.Data) / m.Cols }

// Width returns the number of columns.
func (m Matrix) Width() int { return m.Cols }

// Read copies rows into dst.
func (m Matrix) Read(rows []int32, dst []float32) error {
	for i, r := range rows {
		copy(dst[i*m.Cols:(i+1)*m.Cols], m.Data[int(r)*m.Cols:])
	}
	return nil
}

// Rows returns rows of features as a tensor [n, width] on a device.
func Rows(f Features, rows []int32, d torch.Device) (torch.Tensor, error) {
	dst := make([]float32, len(rows)*f.Width())
	if err := f.Read(rows, dst); err != nil {
		return torch.Tensor{}, fmt.Errorf("features: %w", err)
	}
	return torch.FromSliceOn(d, dst, int64(len(rows)), int64(f.Width())), nil
}
