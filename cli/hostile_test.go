package cli_test

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"testing"
)

// pickled writes the opcodes of Python's pickle that these tests need.
type pickled struct{ bytes.Buffer }

func newPickle() *pickled {
	p := &pickled{}
	p.WriteString("\x80\x02")
	return p
}

func (p *pickled) global(module, name string) { fmt.Fprintf(p, "c%s\n%s\n", module, name) }

func (p *pickled) text(s string) {
	p.WriteByte('X')
	binary.Write(p, binary.LittleEndian, uint32(len(s)))
	p.WriteString(s)
}

func (p *pickled) int(v int64) {
	p.Write([]byte{0x8a, 8})
	binary.Write(p, binary.LittleEndian, v)
}

func (p *pickled) tuple(list []int64) {
	p.WriteByte('(')
	for _, v := range list {
		p.int(v)
	}
	p.WriteByte('t')
}

// tensor is a tensor of a state dict, with everything that a file may lie about.
type tensor struct {
	storage        string
	numel          int64 // of the storage, in f32 elements
	offset         int64
	shape, strides []int64
}

// stateDict pickles {name: tensor}, as torch.save does.
func stateDict(name string, t tensor) []byte {
	p := newPickle()
	p.WriteString("}(")
	p.text(name)
	p.global("torch._utils", "_rebuild_tensor_v2")
	p.WriteString("((")
	p.text("storage")
	p.global("torch", "FloatStorage")
	p.text(t.storage)
	p.text("cpu")
	p.int(t.numel)
	p.WriteString("tQ")
	p.int(t.offset)
	p.tuple(t.shape)
	p.tuple(t.strides)
	p.WriteString("\x89}tRu.")
	return p.Bytes()
}

// entry is a file in a zip archive.
type entry struct {
	name     string
	data     []byte
	deflated bool
	zeros    int64 // instead of data
}

// ptFile returns a file in PyTorch's zip format.
func ptFile(t *testing.T, pickle []byte, more ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.BestSpeed) })
	list := append([]entry{{name: "data.pkl", data: pickle}, {name: "version", data: []byte("3\n")}}, more...)
	for _, e := range list {
		if e.data == nil && e.zeros == 0 {
			continue
		}
		h := &zip.FileHeader{Name: "archive/" + e.name, Method: zip.Store}
		if e.deflated {
			h.Method = zip.Deflate
		}
		w, err := z.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.data); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(w, zeros{}, e.zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// safetensors returns a file with a header and data. size, if it is not 0, is the
// header length that the file claims.
func safetensors(header string, data int, size uint64) []byte {
	if size == 0 {
		size = uint64(len(header))
	}
	b := binary.LittleEndian.AppendUint64(nil, size)
	return append(append(b, header...), make([]byte, data)...)
}

// hugePNG returns a PNG that claims this size in pixels of 8-bit RGB; its data end
// early.
func hugePNG(width, height uint32) []byte {
	b := []byte("\x89PNG\r\n\x1a\n")
	chunk := func(kind string, data []byte) {
		b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
		at := len(b)
		b = append(append(b, kind...), data...)
		b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[at:]))
	}
	head := binary.BigEndian.AppendUint32(nil, width)
	head = binary.BigEndian.AppendUint32(head, height)
	chunk("IHDR", append(head, 8, 2, 0, 0, 0))
	var z bytes.Buffer
	w, _ := flate.NewWriter(&z, flate.BestSpeed)
	w.Write(make([]byte, 1<<20))
	w.Close()
	chunk("IDAT", append([]byte{0x78, 0x01}, z.Bytes()...))
	chunk("IEND", nil)
	return b
}

// hugeJPEG changes the size in the frame header of a JPEG.
func hugeJPEG(t *testing.T, data []byte, side uint16) []byte {
	t.Helper()
	b := bytes.Clone(data)
	for i := 2; i+9 < len(b) && b[i] == 0xff; {
		if m := b[i+1]; m == 0xc0 || m == 0xc2 {
			binary.BigEndian.PutUint16(b[i+5:], side)
			binary.BigEndian.PutUint16(b[i+7:], side)
			return b
		}
		i += 2 + int(binary.BigEndian.Uint16(b[i+2:]))
	}
	t.Fatal("a JPEG without a frame header")
	return nil
}
