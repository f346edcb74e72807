package weights

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"path/filepath"
	"strings"

	"cyclecap/internal/atomicfile"
	"cyclecap/torch"
	"cyclecap/torch/nn"
)

// Save writes tensors in the format given by the extension of path: .safetensors,
// or .pt, .pth or .bin for PyTorch's format. meta becomes the File.Meta of the
// file; it may be nil. An existing file is replaced only once the new one is
// complete. If ctx is canceled before that, Save leaves no file behind.
func Save(ctx context.Context, path string, sd *nn.StateDict, meta map[string]string) error {
	format, err := formatOf(path)
	if err != nil {
		return err
	}
	if format == Safetensors {
		all := map[string]string{"format": "pt"} // transformers requires it
		maps.Copy(all, meta)
		return SaveSafetensors(ctx, path, sd, all)
	}
	return savePT(ctx, path, sd, meta)
}

// CheckSave returns an error if Save cannot write to path: an unknown extension,
// a missing folder or no permission. Call it before work whose result is to be
// saved.
func CheckSave(path string) error {
	if _, err := formatOf(path); err != nil {
		return err
	}
	return atomicfile.Check(path)
}

func formatOf(path string) (Format, error) {
	switch ext := strings.ToLower(filepath.Ext(path)); ext {
	case ".safetensors":
		return Safetensors, nil
	case ".pt", ".pth", ".bin":
		return Zip, nil
	default:
		return "", fmt.Errorf("%s: unknown extension %q; use .safetensors or .pt", path, ext)
	}
}

var storageNames = func() map[torch.DType]string {
	m := map[torch.DType]string{}
	for name, d := range storageTypes {
		if name != "UntypedStorage" {
			m[d] = name
		}
	}
	return m
}()

// metaFile is the entry of a zip file that contains Save's meta. It is not part
// of the pickle, where it would be a state dict key that load_state_dict does
// not expect; torch.load ignores such entries.
const metaFile = "cyclecap.json"

// savePT writes a state dict that torch.load(path, weights_only=True) can read:
// PyTorch's zip format, uncompressed, with storages at multiples of 64 bytes.
// Tensors that share memory share a storage in the file, as torch.save writes
// them, and a tensor keeps its strides.
func savePT(ctx context.Context, path string, sd *nn.StateDict, meta map[string]string) error {
	storages, views, err := storagesOf(path, sd)
	if err != nil {
		return err
	}
	var p pickler
	p.op(0x80, 2)
	p.global("collections", "OrderedDict")
	p.op(')', 'R')
	p.op('(')
	for _, v := range views {
		p.text(v.name)
		p.tensor(v)
	}
	p.op('u', '.')
	var about []byte
	if len(meta) > 0 {
		var err error
		if about, err = json.Marshal(meta); err != nil {
			return err
		}
	}
	return writeZip(ctx, path, p.Bytes(), storages, about)
}

// view is a tensor of a file that savePT writes.
type view struct {
	member
	of      *extent
	storage int // the number of its extent
}

// storagesOf returns the storages of the file for sd, and its tensors, in order.
func storagesOf(path string, sd *nn.StateDict) ([]*extent, []view, error) {
	if err := checkLayouts(sd); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	storages := extents(sd)
	views := make([]view, sd.Len())
	for i, x := range storages {
		if _, ok := storageNames[x.dtype]; !ok {
			return nil, nil, fmt.Errorf("%s: tensor %q: PyTorch's format does not support dtype %v", path, x.members[0].name, x.dtype)
		}
		for _, m := range x.members {
			views[m.at] = view{m, x, i}
		}
	}
	return storages, views, nil
}

// writeZip writes PyTorch's zip format with a pickle, the storages to which it refers, and the
// contents of metaFile or nil.
func writeZip(ctx context.Context, path string, value []byte, storages []*extent, about []byte) error {
	return atomicfile.Write(ctx, path, func(out io.Writer) error {
		w := &counter{w: out}
		z := zip.NewWriter(w)
		if err := stored(z, w, "archive/data.pkl", value); err != nil {
			return err
		}
		if err := stored(z, w, "archive/byteorder", []byte("little")); err != nil {
			return err
		}
		for i, x := range storages {
			err := withBytes(x.contents, func(b []byte) error { return stored(z, w, fmt.Sprintf("archive/data/%d", i), b) })
			if err != nil {
				return err
			}
		}
		if err := stored(z, w, "archive/version", []byte("3\n")); err != nil {
			return err
		}
		if about != nil {
			if err := stored(z, w, "archive/"+metaFile, about); err != nil {
				return err
			}
		}
		return z.Close()
	})
}

// counter counts the bytes written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// stored adds an entry whose data starts at a multiple of 64. Like PyTorch, it
// pads the header with an extra field "FB".
func stored(z *zip.Writer, w *counter, name string, data []byte) error {
	if err := z.Flush(); err != nil {
		return err
	}
	const header, extraHead = 30, 4
	start := w.n + header + int64(len(name)) + extraHead
	padding := (64 - start%64) % 64
	extra := make([]byte, extraHead+padding)
	copy(extra, "FB")
	binary.LittleEndian.PutUint16(extra[2:], uint16(padding))
	for i := range padding {
		extra[extraHead+i] = 'Z'
	}
	e, err := z.CreateRaw(&zip.FileHeader{
		Name: name, Method: zip.Store, Extra: extra,
		CRC32: crc32.ChecksumIEEE(data), CompressedSize64: uint64(len(data)), UncompressedSize64: uint64(len(data)),
	})
	if err != nil {
		return err
	}
	_, err = e.Write(data)
	return err
}

// pickler writes the few opcodes of protocol 2 that a state dict requires.
type pickler struct{ bytes.Buffer }

func (p *pickler) op(codes ...byte) { p.Write(codes) }

func (p *pickler) global(module, name string) { fmt.Fprintf(p, "c%s\n%s\n", module, name) }

func (p *pickler) text(s string) {
	p.WriteByte('X')
	binary.Write(p, binary.LittleEndian, uint32(len(s)))
	p.WriteString(s)
}

func (p *pickler) int(v int64) {
	if v == int64(int32(v)) {
		p.WriteByte('J')
		binary.Write(p, binary.LittleEndian, int32(v))
		return
	}
	p.op(0x8a, 8)
	binary.Write(p, binary.LittleEndian, v)
}

func (p *pickler) ints(l []int64) {
	p.op('(')
	for _, v := range l {
		p.int(v)
	}
	p.op('t')
}

// tensor writes what builds a tensor from its storage.
func (p *pickler) tensor(v view) {
	p.global("torch._utils", "_rebuild_tensor_v2")
	p.op('(')
	p.op('(')
	p.text("storage")
	p.global("torch", storageNames[v.of.dtype])
	p.text(fmt.Sprint(v.storage))
	p.text("cpu")
	p.int(v.of.n)
	p.op('t', 'Q')
	p.int(v.offset)
	p.ints(v.shape)
	p.ints(v.strides)
	p.op(0x89)
	p.global("collections", "OrderedDict")
	p.op(')', 'R')
	p.op('t', 'R')
}
