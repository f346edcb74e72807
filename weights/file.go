// Package weights reads and writes files of weights: PyTorch's .pt and .bin
// (zip and the older form), TorchScript archives, and safetensors, single or
// sharded. Reading maps the file, so that tensors are views of it and no
// second copy is made; and it runs nothing: a pickle in it can only name what
// a state dict needs.
package weights

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cyclecap/torch"
	"cyclecap/torch/nn"

	"github.com/edsrzf/mmap-go"
)

// Format is how a file stores its tensors.
type Format string

// The formats.
const (
	Zip         Format = "PyTorch (zip)"
	Legacy      Format = "PyTorch (before 1.6)"
	TorchScript Format = "TorchScript"
	Safetensors Format = "safetensors"
)

// Entry is one tensor of a file.
type Entry struct {
	Name    string
	DType   torch.DType
	Shape   []int64
	Strides []int64 // in elements
	// Path and Offset say where its first element is; Storage tells tensors
	// of one storage, such as tied weights.
	Path    string
	Offset  int64
	Storage string
}

// Numel gives the number of elements.
func (e Entry) Numel() int64 { return numel(e.Shape) }

func numel(shape []int64) int64 {
	n := int64(1)
	for _, d := range shape {
		n *= d
	}
	return n
}

// span gives the number of elements from the first to behind the last.
func (e Entry) span() int64 {
	if e.Numel() == 0 {
		return 0
	}
	n := int64(1)
	for i, d := range e.Shape {
		n += (d - 1) * e.Strides[i]
	}
	return n
}

// contiguous gives the strides of a row-major tensor.
func contiguous(shape []int64) []int64 {
	s := make([]int64, len(shape))
	n := int64(1)
	for i := len(shape) - 1; i >= 0; i-- {
		s[i] = n
		n *= max(1, shape[i])
	}
	return s
}

// File is a file of weights whose directory has been read; tensors are not.
type File struct {
	Path    string
	Format  Format
	Entries []Entry // in the file's order
	// Root is the key of a checkpoint under which the state dict was found,
	// such as "state_dict"; Ignored are names of tensors beside it.
	Root    string
	Ignored []string
	// Meta has the plain values beside the tensors: safetensors' metadata, a
	// checkpoint's epoch.
	Meta map[string]string
}

// Error is a file that can't be read, and why.
type Error struct {
	Path string
	Err  error
}

func (e *Error) Error() string { return e.Path + ": " + e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Open reads the directory of a file of weights, of an index of shards
// (*.index.json), or of a folder as transformers' save_pretrained writes it.
func Open(path string) (*File, error) {
	f, err := open(path)
	if err != nil {
		var e *Error
		if errors.As(err, &e) {
			return nil, err
		}
		return nil, &Error{path, plain(err)}
	}
	return f, nil
}

func open(path string) (*File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		for _, name := range []string{"model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json", "pytorch_model.bin"} {
			if _, err := os.Stat(filepath.Join(path, name)); err == nil {
				return Open(filepath.Join(path, name))
			}
		}
		return nil, fmt.Errorf("a folder without model.safetensors or pytorch_model.bin (or their index)")
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("not a regular file")
	}
	if strings.HasSuffix(path, ".index.json") {
		return openIndex(path)
	}
	if info.Size() == 0 {
		return nil, fmt.Errorf("the file is empty")
	}
	h, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	in, err := mmap.Map(h, mmap.RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("it can't be mapped: %w", err)
	}
	defer in.Unmap()
	f, err := parse(path, in)
	if err != nil {
		return nil, err
	}
	f.Path = path
	return f, nil
}

// parse tells the format by the first bytes.
func parse(path string, in []byte) (*File, error) {
	switch {
	case bytes.HasPrefix(in, []byte("PK\x03\x04")):
		return parseZip(path, in)
	case len(in) > 10 && in[0] == 0x80 && (in[2] == 0x8a || in[2] == 0x95):
		return parseLegacy(path, in)
	case len(in) > 9 && in[8] == '{':
		return parseSafetensors(path, in)
	}
	return nil, fmt.Errorf("%s; a PyTorch file (.pt, .bin), a TorchScript archive or a safetensors file is needed", looksLike(in))
}

// looksLike says what a file is that is none of weights.
func looksLike(in []byte) string {
	head := in[:min(len(in), 512)]
	lower := bytes.ToLower(bytes.TrimSpace(head))
	switch {
	case bytes.HasPrefix(head, []byte("version https://git-lfs.github.com/spec/")):
		return "a Git LFS pointer, not the file itself (run `git lfs pull`)"
	case bytes.HasPrefix(lower, []byte("<!doctype html")), bytes.HasPrefix(lower, []byte("<html")):
		return "an HTML page, not weights (a failed download?)"
	case bytes.HasPrefix(head, []byte("GGUF")):
		return "a GGUF file, which is not supported"
	case bytes.HasPrefix(head, []byte("\x89HDF")):
		return "an HDF5 file (Keras or TensorFlow weights), which is not supported"
	case bytes.HasPrefix(head, []byte("\x93NUMPY")):
		return "a NumPy array"
	case bytes.HasPrefix(head, []byte("\xff\xd8\xff")), bytes.HasPrefix(head, []byte("\x89PNG")):
		return "a picture"
	case len(head) > 262 && string(head[257:262]) == "ustar":
		return "a tar archive (PyTorch files of that form are older than 0.4 and not supported)"
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		return "a gzip file: unpack it first"
	case len(head) > 1 && head[0] == 0x80 && head[1] <= 5:
		return "a Python pickle that is not a PyTorch file"
	}
	for _, c := range head {
		if c < 9 || c > 126 {
			return "an unknown binary file"
		}
	}
	return "a text file"
}

// Get finds an entry by name.
func (f *File) Get(name string) (Entry, bool) {
	i := slices.IndexFunc(f.Entries, func(e Entry) bool { return e.Name == name })
	if i < 0 {
		return Entry{}, false
	}
	return f.Entries[i], true
}

// alignment is that of PyTorch's own allocations and of its zip files. The
// kernels' low-order bits depend on it (a product with one row changes by an
// ulp), so a tensor that lies otherwise in its file, as safetensors' may, is
// read into memory of its own.
const alignment = 64

// Load makes the tensors: views of the mapped file, copied only when written
// to, or where they are not aligned. They are kept; the caller closes the
// StateDict. Tied weights share their storage.
func (f *File) Load() (*nn.StateDict, error) {
	sd := nn.NewStateDict()
	err := torch.Scope(func() error {
		maps := map[string]torch.Tensor{}
		for _, e := range f.Entries {
			base, ok := maps[e.Path]
			if !ok {
				info, err := os.Stat(e.Path)
				if err != nil {
					return err
				}
				base = torch.FromFile(e.Path, torch.WithShared(false), torch.WithSize(info.Size()), torch.WithDType(torch.Uint8))
				maps[e.Path] = base
			}
			t, err := view(base, e)
			if err != nil {
				return fmt.Errorf("tensor %s: %w", e.Name, err)
			}
			sd.Add(e.Name, t.Keep())
		}
		return nil
	})
	if err != nil {
		sd.Close()
		return nil, &Error{f.Path, err}
	}
	return sd, nil
}

func view(base torch.Tensor, e Entry) (t torch.Tensor, err error) {
	torch.NoGrad(func() {
		t = torch.Tidy(func() torch.Tensor {
			span := e.span()
			if span == 0 {
				return torch.Empty(e.Shape, torch.WithDType(e.DType), torch.WithDevice(torch.CPU))
			}
			var b torch.Tensor
			if size := span * e.DType.Size(); e.Offset%alignment == 0 {
				b = base.Narrow(0, e.Offset, size)
			} else if b, err = read(e.Path, e.Offset, size); err != nil {
				return torch.Tensor{}
			}
			if e.DType != torch.Uint8 {
				b = b.ViewDType(e.DType)
			}
			return b.AsStrided(e.Shape, e.Strides).Detach()
		})
	})
	return t, err
}

// read copies a part of a file, without mapping it: pages of the map would
// count as the process's memory beside the copy.
func read(path string, offset, size int64) (torch.Tensor, error) {
	f, err := os.Open(path)
	if err != nil {
		return torch.Tensor{}, err
	}
	defer f.Close()
	t := torch.Empty([]int64{size}, torch.WithDType(torch.Uint8), torch.WithDevice(torch.CPU))
	_, err = f.ReadAt(torch.Data[uint8](t), offset)
	return t, err
}

// CheckSave reports a path that can't be written, before the work for it is
// done: an ending that names no format, a missing folder, no permission.
func CheckSave(path string) error {
	if _, err := formatOf(path); err != nil {
		return err
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return fmt.Errorf("%s can't be written: it is a folder", path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".cyclecap.*.tmp")
	if err != nil {
		return fmt.Errorf("%s can't be written: %w", path, plain(err))
	}
	f.Close()
	return os.Remove(f.Name())
}

// plain takes the path of a temporary file out of an error.
func plain(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// untilDone writes until a context is done.
type untilDone struct {
	ctx context.Context
	w   io.Writer
}

func (u untilDone) Write(b []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.w.Write(b)
}

// atomically writes a file through a temporary one beside it, which takes its
// name only once it is whole and on disk: a failure leaves what was there.
// ctx ends it between two tensors.
func atomically(ctx context.Context, path string, write func(io.Writer) error) (err error) {
	dir, name := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	f, err := os.CreateTemp(dir, "."+name+".*.tmp")
	if err != nil {
		return fmt.Errorf("%s can't be written: %w", path, plain(err))
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := write(untilDone{ctx, f}); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := f.Chmod(0o644); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}
