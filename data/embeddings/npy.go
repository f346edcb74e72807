package embeddings

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"regexp"
	"strconv"

	"cyclecap/torch"
)

const npyMagic = "\x93NUMPY"

// npyHeader is the size of the header that is written. It has room for any shape, and keeps
// the numbers aligned, as numpy does.
const npyHeader = 128

// npyTypes are the types of numbers that are read.
var npyTypes = map[string]torch.DType{"<f2": torch.Float16, "<f4": torch.Float32}

// formatNPY returns the header of an array [rows, width] in version 1.0 of the format, with the
// bytes of numpy.save.
func formatNPY(dtype torch.DType, rows, width int) []byte {
	descr := "<f4"
	if dtype == torch.Float16 {
		descr = "<f2"
	}
	b := append([]byte(npyMagic), 1, 0)
	b = binary.LittleEndian.AppendUint16(b, npyHeader-10)
	b = fmt.Appendf(b, "{'descr': '%s', 'fortran_order': False, 'shape': (%d, %d), }", descr, rows, width)
	b = append(b, bytes.Repeat([]byte(" "), npyHeader-1-len(b))...)
	return append(b, '\n')
}

// array describes an array [rows, width] in a file.
type array struct {
	dtype       torch.DType
	rows, width int64
	offset      int64 // of the first number
}

// bytes returns the number of bytes of a row.
func (a array) bytes() int64 { return a.width * a.dtype.Size() }

// maxNPYHeader limits the header of a file of numpy, which describes one array.
const maxNPYHeader = 1 << 16

var (
	npyDescr   = regexp.MustCompile(`['"]descr['"]\s*:\s*(['"]([^'"]*)['"]|[^,}]*)`)
	npyFortran = regexp.MustCompile(`['"]fortran_order['"]\s*:\s*(True|False)`)
	npyShape   = regexp.MustCompile(`['"]shape['"]\s*:\s*\(([^)]*)\)`)
	npyMatrix  = regexp.MustCompile(`^\s*([0-9]{1,18})L?\s*,\s*([0-9]{1,9})L?\s*,?\s*$`)
)

// parseNPY reads the header of a file of numpy that has so many bytes.
func parseNPY(r io.ReaderAt, size int64) (a array, err error) {
	head := make([]byte, 12)
	n, err := r.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return a, err
	}
	if n < 12 || string(head[:6]) != npyMagic {
		return a, fmt.Errorf("not an array of numpy (.npy)")
	}
	at, length := int64(10), int64(binary.LittleEndian.Uint16(head[8:]))
	switch head[6] {
	case 1:
	case 2, 3:
		at, length = 12, int64(binary.LittleEndian.Uint32(head[8:]))
	default:
		return a, fmt.Errorf("version %d.%d of numpy's format, want 1.0 to 3.0", head[6], head[7])
	}
	if length > maxNPYHeader || at+length > size {
		return a, fmt.Errorf("the file ends within its header of %d bytes, or is damaged", length)
	}
	text := make([]byte, length)
	if _, err := r.ReadAt(text, at); err != nil && err != io.EOF {
		return a, err
	}
	descr, fortran, shape := npyDescr.FindSubmatch(text), npyFortran.FindSubmatch(text), npyShape.FindSubmatch(text)
	if descr == nil || fortran == nil || shape == nil {
		return a, fmt.Errorf("damaged header %.200q", text)
	}
	var ok bool
	if a.dtype, ok = npyTypes[string(descr[2])]; !ok {
		return a, fmt.Errorf("its numbers have the type %.100s, want '<f2' or '<f4' (float16 or float32)", descr[1])
	}
	m := npyMatrix.FindSubmatch(shape[1])
	if m == nil {
		return a, fmt.Errorf("its shape is (%.100s), want (rows, width)", shape[1])
	}
	a.rows, _ = strconv.ParseInt(string(m[1]), 10, 64)
	a.width, _ = strconv.ParseInt(string(m[2]), 10, 64)
	a.offset = at + length
	if a.width < 1 || a.width > maxWidth {
		return a, fmt.Errorf("its rows have a width of %d, want 1 to %d", a.width, maxWidth)
	}
	if string(fortran[1]) == "True" && a.rows > 1 && a.width > 1 {
		return a, fmt.Errorf("its columns are stored one after the other (fortran_order); save numpy.ascontiguousarray of it")
	}
	if have := size - a.offset; a.rows > have/a.bytes() || a.rows*a.bytes() != have {
		return a, fmt.Errorf("it has %d bytes of numbers, but %d rows of %d bytes are promised: it is truncated or damaged", have, a.rows, a.bytes())
	}
	return a, nil
}
