package embeddings

import (
	"fmt"
	"io"

	"cyclecap/torch"
	"cyclecap/torch/npy"
)

// array describes an array [rows, width] in a file.
type array struct {
	dtype       torch.DType
	rows, width int64
	offset      int64 // of the first number
}

// bytes returns the number of bytes of a row.
func (a array) bytes() int64 { return a.width * a.dtype.Size() }

// readNPY reads the header of a file of numpy that has so many bytes.
func readNPY(r io.ReaderAt, size int64) (a array, err error) {
	h, err := npy.ReadHeader(r, size)
	if err != nil {
		return a, err
	}
	switch {
	case h.DType != torch.Float16 && h.DType != torch.Float32:
		return a, fmt.Errorf("its numbers are %v, want float16 or float32", h.DType)
	case len(h.Shape) != 2:
		return a, fmt.Errorf("its shape is %v, want [rows, width]", h.Shape)
	case h.Shape[1] < 1 || h.Shape[1] > maxWidth:
		return a, fmt.Errorf("its rows have a width of %d, want 1 to %d", h.Shape[1], maxWidth)
	case h.Fortran && h.Shape[0] > 1 && h.Shape[1] > 1:
		return a, fmt.Errorf("its columns are stored one after the other (fortran_order); save numpy.ascontiguousarray of it")
	}
	return array{h.DType, h.Shape[0], h.Shape[1], h.Offset}, nil
}
