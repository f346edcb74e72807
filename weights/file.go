// Package weights reads and writes weights files: PyTorch's .pt and .bin (the
// zip format and the older one), TorchScript archives, and safetensors, as a
// single file or sharded.
//
// # Reading
//
// [Open] reads only the list of tensors in a file, not their elements.
// [File.Load] creates the tensors as views of the memory-mapped file, without
// copying, except for tensors that are not aligned the way libtorch aligns its
// own: it reads those into memory. Files are not trusted: no code in them is
// executed (a pickle may refer only to what a state dict needs), every offset
// and shape is checked against the file, and memory and time are in proportion
// to its size. Do not truncate a file while its tensors are in use, because
// their memory is the file itself.
//
// Open also finds models by the name that they have on the Hugging Face Hub, in
// its cache on this machine; see [Find]. [OpenFS] opens files that are not on disk.
//
// If a checkpoint nests its state dict (under "state_dict", "model", "module" or
// "net"), Open finds it there. The other contents are not silently dropped:
// [File.Ignored] and [File.Meta] list them. If the names of all tensors begin
// with the prefix of a wrapper, such as "module.", it is removed; [File.Prefix]
// and [File.Notes] say so.
//
// # Names
//
// [Detect] identifies a model by the names of its tensors. [LoadCLIP],
// [LoadGPT2], [LoadDecoder] and [LoadGenerator] each read one kind of model and
// rename its tensors to the names that package nets uses, whichever library
// wrote the file. Each kind has its list of names in a file of its own.
//
// # Weights of 8 bits
//
// The linear layers of a model may have integers of 8 bits as weights, with a scale for
// each output in a tensor of its own ([Quantize]). The functions above keep them as they
// are, under the new names; [Dequantize] makes them f32.
//
// # Writing
//
// [Save] writes files that torch.load(weights_only=True) and the safetensors
// library can read. It replaces an existing file only once the new one is
// complete and on disk, so a failed write never damages the existing file.
package weights

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"cyclecap/internal/atomicfile"
	"cyclecap/torch"
	"cyclecap/torch/nn"

	"github.com/edsrzf/mmap-go"
)

// Format is a file format.
type Format string

// The supported file formats.
const (
	Zip         Format = "PyTorch (zip)"
	Legacy      Format = "PyTorch (before 1.6)"
	TorchScript Format = "TorchScript"
	Safetensors Format = "safetensors"
)

// Entry describes one tensor in a file.
type Entry struct {
	Name    string
	DType   torch.DType
	Shape   []int64
	Strides []int64 // in elements
	// Path is the file that contains the first element, and Offset is the
	// element's position in bytes. Storage identifies the storage that the
	// tensor is a view of, which begins at Start; tied weights have the same
	// Storage.
	Path    string
	Offset  int64
	Storage string
	Start   int64
}

// Numel returns the number of elements.
func (e Entry) Numel() int64 { return numel(e.Shape) }

func numel(shape []int64) int64 {
	n := int64(1)
	for _, d := range shape {
		n *= d
	}
	return n
}

// span returns the number of storage elements from the first element of the
// tensor through its last.
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

// contiguous returns the strides of a row-major tensor.
func contiguous(shape []int64) []int64 {
	s := make([]int64, len(shape))
	n := int64(1)
	for i := len(shape) - 1; i >= 0; i-- {
		s[i] = n
		n *= max(1, shape[i])
	}
	return s
}

// File is a weights file whose list of tensors has been read, but not their
// elements.
type File struct {
	Path    string
	Format  Format
	Entries []Entry // in file order
	// Root is the checkpoint key under which the state dict was found, such
	// as "state_dict". Ignored lists the names of tensors outside it.
	Root    string
	Ignored []string
	// Prefix is what was removed from the beginning of all tensor names, such as
	// "module.", because the rest are the names of a known model.
	Prefix string
	// Notes lists, in a sentence each, what was assumed or changed in reading the
	// file, for the user to know.
	Notes []string
	// Meta contains values that are not tensors, such as safetensors metadata
	// or a checkpoint's epoch.
	Meta map[string]string

	small []sum // of the entries of a zip file that are not storages
	// The checksums of storages, by Entry.Storage, and of files, by Entry.Path.
	sums map[string]sum
	// The file system of a file that OpenFS opened, and its contents.
	fsys fs.FS
	data []byte
}

// Error reports a file that cannot be read, and why.
type Error struct {
	Path string
	Err  error
}

// Error returns the path and the cause. A name in the file can make the cause as
// long as the file; then it is cut.
func (e *Error) Error() string {
	text := e.Err.Error()
	if len(text) > maxError {
		text = strings.ToValidUTF8(text[:maxError/2], "") + " … " + strings.ToValidUTF8(text[len(text)-maxError/2:], "")
	}
	return e.Path + ": " + text
}

const maxError = 2000

func (e *Error) Unwrap() error { return e.Err }

// Open reads the list of tensors in a weights file, in the shards of an index
// (*.index.json), or in a folder written by transformers' save_pretrained or
// open_clip. path may also be the name of a model; see [Find].
func Open(path string) (*File, error) {
	found, err := Find(path)
	if err != nil {
		return nil, err
	}
	f, err := open(found)
	if err != nil {
		var e *Error
		if errors.As(err, &e) {
			return nil, e
		}
		return nil, &Error{path, atomicfile.Plain(err)}
	}
	f.unwrap()
	return f, nil
}

// OpenFS is like Open for a file in fsys, such as an embed.FS. It reads the whole
// file, and takes what lies beside the weights from fsys too. The file may not be an
// index of shards.
func OpenFS(fsys fs.FS, path string) (*File, error) {
	in, err := fs.ReadFile(fsys, path)
	if err == nil && len(in) == 0 {
		err = errors.New("the file is empty")
	}
	var f *File
	if err == nil {
		f, err = parse(path, in)
	}
	if err != nil {
		return nil, &Error{path, atomicfile.Plain(err)}
	}
	f.Path, f.fsys, f.data = path, fsys, in
	f.unwrap()
	return f, nil
}

func open(path string) (*File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		file, err := inFolder(path)
		if err != nil {
			return nil, err
		}
		f, err := open(file)
		if err != nil {
			return nil, &Error{file, atomicfile.Plain(err)}
		}
		return f, nil
	}
	if strings.HasSuffix(path, ".index.json") {
		return openIndex(path)
	}
	return openFile(path)
}

// openFile reads the list of tensors in one file.
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

// mapped calls f with the memory-mapped contents of a file. f must not retain
// them.
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
		return fmt.Errorf("cannot map the file into memory: %w", err)
	}
	defer in.Unmap()
	// Reading a mapped page fails with a fault if the file has been truncated
	// in the meantime or the disk fails. That would terminate the process.
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
			err = fmt.Errorf("the file was changed, or the disk failed, while it was being read (%w)", fault)
		}
	}()
	return f(in)
}

// parse recognizes the format by the first bytes.
func parse(path string, in []byte) (*File, error) {
	switch {
	case bytes.HasPrefix(in, []byte("PK\x03\x04")):
		f, err := parseZip(path, in)
		if err == nil {
			err = checkSmall(f, in)
		}
		return f, err
	case len(in) > 10 && in[0] == 0x80 && in[1] <= 5 && (in[2] == 0x8a || in[2] == 0x95):
		return parseLegacy(path, in)
	case len(in) > 9 && in[8] == '{':
		return parseSafetensors(path, in)
	}
	what := looksLike(in)
	if strings.HasSuffix(path, ".safetensors") {
		what += ", not safetensors as its extension suggests"
	}
	return nil, fmt.Errorf("%s; expected a PyTorch file (.pt, .bin), a TorchScript archive or a safetensors file", what)
}

// looksLike describes a file that is not a weights file.
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
		return "an image"
	case len(head) > 262 && string(head[257:262]) == "ustar":
		return "a tar archive (the format of PyTorch before 0.4, which is not supported)"
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		return "a gzip file (decompress it first)"
	case len(head) > 1 && head[0] == 0x80 && head[1] <= 5:
		return "a Python pickle, but not a PyTorch file"
	}
	for _, c := range head {
		if c < 9 || c > 126 {
			return "an unknown binary file"
		}
	}
	return "a text file"
}

// has reports whether the file contains a tensor with the given name.
func (f *File) has(name string) bool {
	_, ok := f.Get(name)
	return ok
}

// Get returns the entry with the given name.
func (f *File) Get(name string) (Entry, bool) {
	i := slices.IndexFunc(f.Entries, func(e Entry) bool { return e.Name == name })
	if i < 0 {
		return Entry{}, false
	}
	return f.Entries[i], true
}

// alignment is the alignment of PyTorch's allocations and of the data in its zip
// files. The low-order bits of results depend on it (a matrix product with one
// row changes by an ulp), so a tensor with another alignment in its file, which
// safetensors permits, is read into newly allocated memory. Integers of 8 bits are
// packed or converted before they compute, and may have any.
const alignment = 64

// Load creates the tensors as views of the memory-mapped file, which are copied
// only on write or if their storage is not aligned. The tensors are kept (see
// torch.Tensor.Keep); the caller must close the StateDict. Tensors with the same
// storage (tied weights) share it.
func (f *File) Load() (*nn.StateDict, error) { return f.LoadOnly(nil) }

// LoadOnly is like Load, but reads only the tensors for whose names keep returns
// true. The others are created on the meta device: they have a shape and no
// data. A nil keep accepts all.
func (f *File) LoadOnly(keep func(name string) bool) (*nn.StateDict, error) {
	wanted := *f
	if keep != nil {
		wanted.Entries = slices.DeleteFunc(slices.Clone(f.Entries), func(e Entry) bool { return !keep(e.Name) })
	}
	sd := nn.NewStateDict()
	err := torch.Scope(func() error {
		bases, err := wanted.storages()
		if err == nil {
			err = f.check(wanted.Entries)
		}
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

// base is the part of a storage that the tensors use, as bytes.
type base struct {
	t        torch.Tensor
	from, to int64 // byte offsets in the file
}

// storages maps or reads the storages of a file's tensors into memory.
func (f *File) storages() (map[string]*base, error) {
	bases := map[string]*base{}
	for _, e := range f.Entries {
		size := e.span() * e.DType.Size()
		if size == 0 {
			continue
		}
		// Skip a multiple of the alignment, to keep the storage's alignment.
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
		if f.data != nil {
			b.t = torch.FromSlice(f.data[b.from:b.to])
			continue
		}
		if b.from%alignment != 0 && e.DType != torch.Int8 {
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
			return nil, fmt.Errorf("the file was truncated to %d bytes after it was opened", size)
		}
		b.t = file.Narrow(0, b.from, b.to-b.from)
	}
	return bases, nil
}

// view creates the tensor of an entry.
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
			// A tensor of its own, like those that PyTorch loads: views share one
			// version counter, and a change of one (by batch norm) would be an
			// error in the backward pass through another.
			own := torch.Empty([]int64{0}, torch.WithDType(e.DType), torch.WithDevice(torch.CPU))
			own.SetData(v.AsStrided(e.Shape, e.Strides))
			return own
		})
	})
	return t
}

// read copies part of a file without mapping it: mapped pages would count as
// memory of the process in addition to the copy.
func read(path string, offset, size int64) (torch.Tensor, error) {
	f, err := os.Open(path)
	if err != nil {
		return torch.Tensor{}, err
	}
	defer f.Close()
	t := torch.Empty([]int64{size}, torch.WithDType(torch.Uint8), torch.WithDevice(torch.CPU))
	torch.Data(t, func(data []uint8) { _, err = f.ReadAt(data, offset) })
	return t, err
}
