// Package npy reads and writes numpy's files of arrays, .npy and .npz, as tensors.
package npy

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"cyclecap/internal/atomicfile"
	"cyclecap/internal/regular"
	"cyclecap/torch"
)

const magic = "\x93NUMPY"

// maxHeader limits the header of a file, which describes one array, and maxDims its dimensions,
// as numpy does.
const (
	maxHeader = 1 << 16
	maxDims   = 64
)

// descrs are numpy's names of the types of numbers that tensors have. bfloat16 has none.
var descrs = map[torch.DType]string{torch.Bool: "|b1", torch.Uint8: "|u1", torch.Int8: "|i1", torch.Int16: "<i2", torch.Int32: "<i4", torch.Int64: "<i8",
	torch.Float16: "<f2", torch.Float32: "<f4", torch.Float64: "<f8", torch.Complex64: "<c8", torch.Complex128: "<c16"}

// A Header describes the array in a .npy file.
type Header struct {
	DType torch.DType
	Shape []int64
	// Fortran is true if the first index changes fastest, not the last.
	Fortran bool
	// Offset is the position of the first number in the file.
	Offset int64
}

// Bytes returns the number of bytes of the array's numbers, or -1 if no int64 holds it.
func (h Header) Bytes() int64 {
	n := h.DType.Size()
	if slices.Contains(h.Shape, 0) {
		return 0
	}
	for _, d := range h.Shape {
		if n > (1<<62)/d {
			return -1
		}
		n *= d
	}
	return n
}

// Encode returns the header in version 1.0 of the format, with the bytes of numpy.save. It
// ignores Offset.
func (h Header) Encode() ([]byte, error) {
	descr, ok := descrs[h.DType]
	if !ok {
		return nil, fmt.Errorf("numpy has no type for %v; convert the tensor to float32 first", h.DType)
	}
	order, grows := "False", 0 // numpy leaves room for one dimension to grow
	if h.Fortran {
		order, grows = "True", len(h.Shape)-1
	}
	shape := make([]string, len(h.Shape))
	for i, d := range h.Shape {
		shape[i] = strconv.FormatInt(d, 10)
	}
	tuple := strings.Join(shape, ", ")
	if len(shape) == 1 {
		tuple += ","
	}
	text := fmt.Sprintf("{'descr': '%s', 'fortran_order': %s, 'shape': (%s), }", descr, order, tuple)
	if len(shape) > 0 {
		text += strings.Repeat(" ", 21-len(shape[grows]))
	}
	const before, align = 10, 64
	length := (before+len(text)+1+align-1)/align*align - before
	b := binary.LittleEndian.AppendUint16(append([]byte(magic), 1, 0), uint16(length))
	b = append(b, text...)
	b = append(b, bytes.Repeat([]byte(" "), length-1-len(text))...)
	return append(b, '\n'), nil
}

var (
	descrKey   = regexp.MustCompile(`['"]descr['"]\s*:\s*(['"]([^'"]*)['"]|[^,}]*)`)
	fortranKey = regexp.MustCompile(`['"]fortran_order['"]\s*:\s*(True|False)`)
	shapeKey   = regexp.MustCompile(`['"]shape['"]\s*:\s*\(([^)]*)\)`)
	dimension  = regexp.MustCompile(`^[0-9]{1,18}L?$`)
)

// ReadHeader reads the header of a .npy file, versions 1.0 to 3.0, and checks that it describes
// all size bytes of the file.
func ReadHeader(r io.ReaderAt, size int64) (h Header, err error) {
	head := make([]byte, 12)
	n, err := r.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return h, err
	}
	if n < 12 || string(head[:6]) != magic {
		return h, fmt.Errorf("not an array of numpy (.npy)")
	}
	at, length := int64(10), int64(binary.LittleEndian.Uint16(head[8:]))
	switch head[6] {
	case 1:
	case 2, 3:
		at, length = 12, int64(binary.LittleEndian.Uint32(head[8:]))
	default:
		return h, fmt.Errorf("version %d.%d of numpy's format, want 1.0 to 3.0", head[6], head[7])
	}
	if length > maxHeader || at+length > size {
		return h, fmt.Errorf("the file ends within its header of %d bytes, or is damaged", length)
	}
	text := make([]byte, length)
	if _, err := r.ReadAt(text, at); err != nil && err != io.EOF {
		return h, err
	}
	descr, fortran, shape := descrKey.FindSubmatch(text), fortranKey.FindSubmatch(text), shapeKey.FindSubmatch(text)
	if descr == nil || fortran == nil || shape == nil {
		return h, fmt.Errorf("damaged header %.200q", text)
	}
	if h.DType, err = dtypeOf(string(descr[2]), string(descr[1])); err != nil {
		return h, err
	}
	fields := strings.Split(string(shape[1]), ",")
	for i, field := range fields {
		field = strings.TrimSpace(field)
		if field == "" && i == len(fields)-1 { // () and (3,)
			continue
		}
		if !dimension.MatchString(field) {
			return h, fmt.Errorf("damaged header: its shape is (%.100s)", shape[1])
		}
		d, _ := strconv.ParseInt(strings.TrimSuffix(field, "L"), 10, 64)
		h.Shape = append(h.Shape, d)
	}
	if len(h.Shape) > maxDims {
		return h, fmt.Errorf("it has %d dimensions, more than numpy's %d", len(h.Shape), maxDims)
	}
	h.Fortran, h.Offset = string(fortran[1]) == "True", at+length
	if have := size - h.Offset; h.Bytes() != have {
		return h, fmt.Errorf("it has %d bytes of numbers, but its shape (%s) of %v promises others: it is truncated or damaged", have, shape[1], h.DType)
	}
	return h, nil
}

// dtypeOf returns the dtype of numpy's type descr, which stands in the header as written.
func dtypeOf(descr, written string) (torch.DType, error) {
	for dtype, d := range descrs {
		if d == descr || d[0] == '|' && len(descr) == 3 && d[1:] == descr[1:] {
			return dtype, nil
		}
	}
	if strings.HasPrefix(descr, ">") {
		return 0, fmt.Errorf("its numbers have the type %.100s, big-endian; convert it with x.astype(x.dtype.newbyteorder('<'))", written)
	}
	return 0, fmt.Errorf("its numbers have the type %.100s, which tensors do not have; convert it with numpy's astype", written)
}

// Read reads an array in a .npy file of size bytes as a CPU tensor. A tensor of an array in
// Fortran's order has its strides, as torch.from_numpy gives it. Read must be called in a scope.
func Read(r io.ReaderAt, size int64) (t torch.Tensor, err error) {
	h, err := ReadHeader(r, size)
	if err != nil {
		return t, err
	}
	shape := slices.Clone(h.Shape)
	if h.Fortran {
		slices.Reverse(shape)
	}
	t = torch.Empty(shape, torch.WithDType(h.DType), torch.WithDevice(torch.CPU))
	if h.Bytes() > 0 {
		torch.Data(t.View([]int64{-1}).ViewDType(torch.Uint8), func(b []uint8) {
			_, err = io.ReadFull(io.NewSectionReader(r, h.Offset, size-h.Offset), b)
		})
	}
	if h.Fortran {
		dims := make([]int64, len(shape))
		for i := range dims {
			dims[i] = int64(len(shape) - 1 - i)
		}
		t = t.Permute(dims)
	}
	return t, err
}

// Write writes a tensor as a .npy file, with the bytes of numpy.save for the same array in C's
// order. bfloat16 has no type of numpy, and is an error.
func Write(w io.Writer, t torch.Tensor) error {
	if l := t.Layout(); l != torch.Strided {
		return fmt.Errorf("numpy has no arrays of layout %v; call ToDense", l)
	}
	b, err := Header{DType: t.DType(), Shape: t.Shape()}.Encode()
	if err != nil {
		return err
	}
	if _, err := w.Write(b); err != nil || t.Numel() == 0 {
		return err
	}
	flat := t.Detach().ResolveConj().ResolveNeg().To(torch.WithDevice(torch.CPU)).Contiguous().View([]int64{-1}).ViewDType(torch.Uint8)
	torch.Data(flat, func(b []uint8) { _, err = w.Write(b) })
	return err
}

// Load reads a .npy file as a CPU tensor; see [Read]. It must be called in a scope.
func Load(path string) (t torch.Tensor, err error) {
	f, err := regular.Open(path)
	if err != nil {
		return t, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil {
		t, err = Read(f, info.Size())
	}
	if err != nil {
		return t, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// Save writes a tensor to a .npy file; see [Write]. A file at path is replaced once the new one
// is complete.
func Save(ctx context.Context, path string, t torch.Tensor) error {
	return atomicfile.Write(ctx, path, func(w io.Writer) error { return Write(w, t) })
}
