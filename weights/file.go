// Package weights reads and writes files of weights: PyTorch's .pt and .bin
// (zip and the older form), TorchScript archives, and safetensors, single or
// sharded.
//
// # Reading
//
// [Open] reads a file's directory, never its elements; [File.Load] makes the
// tensors as views of the mapped file, so that there is no second copy, or
// reads those that are not aligned as libtorch would have them. A file is not
// trusted: nothing in it is run (its pickle may name only what a state dict
// needs), every offset and shape is checked against the file, and memory and
// time are bounded. Do not shorten a file while its tensors are in use: they
// are the file.
//
// The elements of a checkpoint that nests its state dict ("state_dict",
// "model") are found by themselves; what stands beside it is listed in
// [File.Ignored] and [File.Meta], not dropped in silence.
//
// # Names
//
// [Detect] tells what a file is by the names of its tensors. [LoadCLIP],
// [LoadGPT2], [LoadDecoder] and [LoadGenerator] read a file as one thing and
// give it with the one set of names that package nets uses, whoever wrote it;
// the lists of names are in names.go.
//
// # Writing
//
// [Save] writes files that torch.load(weights_only=True) and the safetensors
// library read. A file takes its name when it is whole and on disk, so that
// no failure harms the one that was there.
package weights

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"cyclecap/internal/atomicfile"
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
	// Path and Offset (in bytes) say where its first element is. Storage
	// names the storage that it is a view of, which begins at Start: tied
	// weights have the same.
	Path    string
	Offset  int64
	Storage string
	Start   int64
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
		return nil, &Error{path, atomicfile.Plain(err)}
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
			file := filepath.Join(path, name)
			if info, err := os.Stat(file); err == nil && !info.IsDir() {
				return Open(file)
			}
		}
		return nil, fmt.Errorf("a folder without model.safetensors or pytorch_model.bin (or their index)")
	}
	if strings.HasSuffix(path, ".index.json") {
		return openIndex(path)
	}
	return openFile(path)
}

// openFile reads the directory of one file.
func openFile(path string) (f *File, err error) {
	err = mapped(path, func(in []byte) error {
		f, err = parse(path, in)
		return err
	})
	if err != nil {
		return nil, err
	}
	f.Path = path
	return f, nil
}

// mapped gives the bytes of a file, mapped, to f, which must not keep them.
func mapped(path string, f func(in []byte) error) (err error) {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("not a regular file")
	}
	if info.Size() == 0 {
		return fmt.Errorf("the file is empty")
	}
	h, err := os.Open(path)
	if err != nil {
		return err
	}
	defer h.Close()
	in, err := mmap.Map(h, mmap.RDONLY, 0)
	if err != nil {
		return fmt.Errorf("it can't be mapped: %w", err)
	}
	defer in.Unmap()
	// A page of the map that can't be read (the file was cut meanwhile, the
	// disk fails) is a fault, which would end the process.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			fault, ok := p.(interface {
				error
				Addr() uintptr
			})
			if !ok {
				panic(p)
			}
			err = fmt.Errorf("the file changed or its disk failed while it was read (%w)", fault)
		}
	}()
	return f(in)
}

// parse tells the format by the first bytes.
func parse(path string, in []byte) (*File, error) {
	switch {
	case bytes.HasPrefix(in, []byte("PK\x03\x04")):
		return parseZip(path, in)
	case len(in) > 10 && in[0] == 0x80 && in[1] <= 5 && (in[2] == 0x8a || in[2] == 0x95):
		return parseLegacy(path, in)
	case len(in) > 9 && in[8] == '{':
		return parseSafetensors(path, in)
	}
	what := looksLike(in)
	if strings.HasSuffix(path, ".safetensors") {
		what += " and not safetensors, as its ending says"
	}
	return nil, fmt.Errorf("%s; a PyTorch file (.pt, .bin), a TorchScript archive or a safetensors file is needed", what)
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
// to, or where their storage is not aligned. They are kept; the caller closes
// the StateDict. Tensors of one storage (tied weights) share it.
func (f *File) Load() (*nn.StateDict, error) { return f.LoadOnly(nil) }

// LoadOnly is Load for the tensors that keep accepts by name. The others are on
// the meta device: their shapes are there, and nothing is read of them. A nil
// keep accepts all.
func (f *File) LoadOnly(keep func(name string) bool) (*nn.StateDict, error) {
	wanted := *f
	if keep != nil {
		wanted.Entries = slices.DeleteFunc(slices.Clone(f.Entries), func(e Entry) bool { return !keep(e.Name) })
	}
	sd := nn.NewStateDict()
	err := torch.Scope(func() error {
		bases, err := wanted.storages()
		if err != nil {
			return err
		}
		for _, e := range f.Entries {
			if keep != nil && !keep(e.Name) {
				sd.Add(e.Name, torch.Empty(e.Shape, torch.WithDType(e.DType), torch.WithDevice(torch.Meta)).Keep())
				continue
			}
			sd.Add(e.Name, e.view(bases[e.Storage]).Keep())
		}
		return nil
	})
	if err != nil {
		sd.Close()
		return nil, &Error{f.Path, atomicfile.Plain(err)}
	}
	return sd, nil
}

// base is the part of a storage that tensors use, as bytes.
type base struct {
	t        torch.Tensor
	from, to int64 // in the file
}

// storages maps or reads the storages of a file's tensors.
func (f *File) storages() (map[string]*base, error) {
	bases := map[string]*base{}
	for _, e := range f.Entries {
		size := e.span() * e.DType.Size()
		if size == 0 {
			continue
		}
		// What is cut off in front keeps the alignment to the storage.
		from := e.Start + (e.Offset-e.Start)/alignment*alignment
		b, ok := bases[e.Storage]
		if !ok {
			b = &base{from: from}
			bases[e.Storage] = b
		}
		b.from, b.to = min(b.from, from), max(b.to, e.Offset+size)
	}
	maps := map[string]torch.Tensor{}
	for _, e := range f.Entries {
		b := bases[e.Storage]
		if b == nil || b.t.Defined() {
			continue
		}
		if b.from%alignment != 0 {
			t, err := read(e.Path, b.from, b.to-b.from)
			if err != nil {
				return nil, err
			}
			b.t = t
			continue
		}
		file, ok := maps[e.Path]
		if !ok {
			info, err := os.Stat(e.Path)
			if err != nil {
				return nil, err
			}
			file = torch.FromFile(e.Path, torch.WithShared(false), torch.WithSize(info.Size()), torch.WithDType(torch.Uint8))
			maps[e.Path] = file
		}
		if size := file.Numel(); size < b.to {
			return nil, fmt.Errorf("the file has become shorter since it was opened: %d bytes", size)
		}
		b.t = file.Narrow(0, b.from, b.to-b.from)
	}
	return bases, nil
}

// view makes the tensor of an entry.
func (e Entry) view(b *base) (t torch.Tensor) {
	torch.NoGrad(func() {
		t = torch.Tidy(func() torch.Tensor {
			span := e.span()
			if span == 0 {
				return torch.Empty(e.Shape, torch.WithDType(e.DType), torch.WithDevice(torch.CPU))
			}
			v := b.t.Narrow(0, e.Offset-b.from, span*e.DType.Size())
			if e.DType != torch.Uint8 {
				v = v.ViewDType(e.DType)
			}
			return v.AsStrided(e.Shape, e.Strides).Detach()
		})
	})
	return t
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
