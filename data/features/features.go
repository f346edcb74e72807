// Package features stores CLIP features that were computed once: a folder with a
// manifest, which describes the inputs and what computed the features, and shards
// in safetensors format, of which only the requested rows are read.
//
//	features/train-images/
//	    manifest.json
//	    features-00001.safetensors    "features" f32 [n, width], "ids" int64 [n]
//	    …
//
// Writing survives interruptions: a shard counts once the manifest names it, and
// a new Writer continues after the last shard. A shard always ends at the end of
// an Add, so a resumed run computes the same batches as an uninterrupted one, and
// its features are bit-identical.
//
// Rows are read from the files on each call rather than from a memory map: memory
// use does not grow with the number of rows read, and a failing disk causes an
// error instead of killing the process. Reading 64 random rows of 512 takes 0.06
// to 0.12 ms from the page cache, for sets of 10,000 and of 414,000 rows.
package features

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"cyclecap/internal/atomicfile"
	"cyclecap/internal/jsonerror"
	"cyclecap/internal/regular"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/weights"
)

// A Spec describes the inputs of features and what computed them. Features with
// a different Spec are different features.
type Spec struct {
	Kind       string `json:"kind"`       // "images" or "texts"
	Model      string `json:"model"`      // identifies CLIP's weights
	Process    string `json:"process"`    // how inputs are processed: preprocessing, tokenizer, precision
	Batch      int    `json:"batch"`      // batch size; the low-order bits depend on it
	Width      int    `json:"width"`      // length of a feature
	Normalized bool   `json:"normalized"` // scaled to unit length
	Inputs     string `json:"inputs"`     // identifies the list of inputs; see Hash
	Count      int    `json:"count"`      // number of inputs
}

// Hash returns a hash that identifies a list of texts.
func Hash(list ...string) string {
	h := sha256.New()
	for _, s := range list {
		fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// differences describes the fields in which two Specs differ.
func (s Spec) differences(t Spec) string {
	var list []string
	add := func(name string, a, b any) {
		if a != b {
			list = append(list, fmt.Sprintf("%s: %v there, %v here", name, b, a))
		}
	}
	add("kind", s.Kind, t.Kind)
	add("model", s.Model, t.Model)
	add("process", s.Process, t.Process)
	add("batch", s.Batch, t.Batch)
	add("width", s.Width, t.Width)
	add("normalized", s.Normalized, t.Normalized)
	add("inputs", s.Inputs, t.Inputs)
	add("count", s.Count, t.Count)
	return strings.Join(list, "; ")
}

// A Skip is an input without features, and the reason.
type Skip struct {
	ID    int64  `json:"id"`
	Name  string `json:"name"`
	Error string `json:"error"`
}

// manifest is manifest.json.
type manifest struct {
	Version int     `json:"version"`
	Spec    Spec    `json:"spec"`
	Done    int     `json:"done"` // inputs finished, with or without features
	Shards  []shard `json:"shards"`
	Skipped []Skip  `json:"skipped"`
	// Sum is the SHA-256 of the manifest without it, so that damage does not pass as
	// other features; the manifests of earlier versions have none.
	Sum string `json:"sha256,omitempty"`
}

// sum returns the value of Sum.
func (m manifest) sum() (string, error) {
	m.Sum = ""
	b, err := json.Marshal(m)
	if err != nil {
		return "", err
	}
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:]), nil
}

type shard struct {
	File  string `json:"file"`
	Count int    `json:"count"` // number of rows
	Bytes int64  `json:"bytes"`
}

// maxManifest limits the size of a manifest, which lists shards and photos that
// could not be read.
const maxManifest = 1 << 30

const (
	version      = 1
	manifestFile = "manifest.json"
	lockFile     = ".lock"
)

func readManifest(dir string) (m manifest, err error) {
	path := filepath.Join(dir, manifestFile)
	b, err := regular.Read(path, maxManifest)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("%s: damaged: %w; remove its folder to recompute the features", path, jsonerror.Words(err))
	}
	if m.Version != version {
		return m, fmt.Errorf("%s: version %d, but this program reads version %d", path, m.Version, version)
	}
	if want, err := m.sum(); err != nil || m.Sum != "" && m.Sum != want {
		return m, fmt.Errorf("%s: damaged: its checksum does not match; remove its folder to recompute the features", path)
	}
	if err := m.check(); err != nil {
		return m, fmt.Errorf("%s: damaged: %w; remove its folder to recompute the features", path, err)
	}
	return m, nil
}

// check returns an error if the manifest contradicts itself.
func (m *manifest) check() error {
	if m.Spec.Width < 1 || m.Spec.Width > 1<<20 {
		return fmt.Errorf("invalid width %d", m.Spec.Width)
	}
	rows := 0
	for i, s := range m.Shards {
		if s.File != shardFile(i) || s.Count < 1 || s.Count > m.Done {
			return fmt.Errorf("invalid shard %d: %q with %d rows", i+1, s.File, s.Count)
		}
		rows += s.Count
	}
	if rows+len(m.Skipped) != m.Done || m.Done > m.Spec.Count {
		return fmt.Errorf("%d rows and %d skipped inputs do not add up to %d of %d inputs", rows, len(m.Skipped), m.Done, m.Spec.Count)
	}
	return nil
}

func shardFile(i int) string { return fmt.Sprintf("features-%05d.safetensors", i+1) }

// A ChangedError reports a folder that holds features with a different Spec.
type ChangedError struct {
	Dir     string
	Changes string
}

func (e *ChangedError) Error() string {
	return fmt.Sprintf("%s holds different features (%s): remove the folder to recompute them", e.Dir, e.Changes)
}

// A shard ends after this many inputs (16 MiB at a width of 512) or after this
// much time: this is the most that a crash can cost.
const (
	shardInputs = 1 << 13
	shardTime   = time.Minute
)

// A Writer writes features in the order of their inputs. Until it is closed, no
// other process can write to its folder.
type Writer struct {
	dir    string
	lock   *os.File
	m      manifest
	rows   []float32
	ids    []int64
	skips  []Skip
	inputs int       // in rows and skips together
	since  time.Time // time of the last shard
}

// Create starts writing features to a folder, or resumes where an earlier Writer
// with the same Spec was interrupted. If the folder holds features with a
// different Spec, the error is a *ChangedError. It is an error if another process
// is writing to the folder.
func Create(dir string, s Spec) (_ *Writer, err error) {
	if s.Width < 1 || s.Count < 0 {
		return nil, fmt.Errorf("features: invalid number of inputs %d or width %d", s.Count, s.Width)
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	w := &Writer{dir: dir, m: manifest{Version: version, Spec: s}, since: time.Now()}
	if w.lock, err = os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o666); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			w.unlock()
		}
	}()
	// The kernel releases the lock when the process ends, for whatever reason.
	if err := syscall.Flock(int(w.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: another run is computing features in this folder: wait for it, or use another folder", dir)
		}
		return nil, fmt.Errorf("cannot lock %s: %w", w.lock.Name(), err)
	}
	m, err := readManifest(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case m.Spec != s:
		return nil, &ChangedError{dir, s.differences(m.Spec)}
	default:
		w.m = m
	}
	// Temporary files left by a process that was killed.
	left, err := filepath.Glob(filepath.Join(globbed(dir), ".*.tmp"))
	if err != nil {
		return nil, err
	}
	for _, path := range left {
		os.Remove(path)
	}
	return w, nil
}

// globbed escapes a path for filepath.Glob.
func globbed(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}

func (w *Writer) unlock() {
	w.lock.Close()
	w.lock = nil
}

// Done returns the number of inputs that need not be computed again: those in
// complete shards.
func (w *Writer) Done() int { return w.m.Done }

// Skipped returns the inputs among those that have no features.
func (w *Writer) Skipped() []Skip { return w.m.Skipped }

// Add writes the features of the next inputs: rows has shape [len(ids), width],
// and skips lists the inputs without features.
func (w *Writer) Add(ctx context.Context, ids []int64, rows []float32, skips []Skip) error {
	if w.lock == nil {
		return fmt.Errorf("features: the writer of %s is closed", w.dir)
	}
	if len(rows) != len(ids)*w.m.Spec.Width {
		return fmt.Errorf("features: got %d values for %d rows of width %d", len(rows), len(ids), w.m.Spec.Width)
	}
	if n := len(ids) + len(skips); w.m.Done+w.inputs+n > w.m.Spec.Count {
		return fmt.Errorf("features: cannot add %d inputs: already have %d of %d", n, w.m.Done+w.inputs, w.m.Spec.Count)
	}
	w.ids = append(w.ids, ids...)
	w.rows = append(w.rows, rows...)
	w.skips = append(w.skips, skips...)
	w.inputs += len(ids) + len(skips)
	if w.inputs >= shardInputs || time.Since(w.since) >= shardTime {
		return w.flush(ctx)
	}
	return nil
}

func (w *Writer) flush(ctx context.Context) error {
	m := w.m
	m.Done += w.inputs
	m.Skipped = append(m.Skipped[:len(m.Skipped):len(m.Skipped)], w.skips...)
	if len(w.ids) > 0 {
		s := shard{File: shardFile(len(m.Shards)), Count: len(w.ids)}
		path := filepath.Join(w.dir, s.File)
		err := torch.Scope(func() error {
			sd := nn.NewStateDict()
			sd.Add("features", torch.FromSlice(w.rows, int64(len(w.ids)), int64(m.Spec.Width)))
			sd.Add("ids", torch.FromSlice(w.ids))
			return weights.SaveSafetensors(ctx, path, sd, nil)
		})
		if err != nil {
			return err
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		s.Bytes = info.Size()
		m.Shards = append(m.Shards[:len(m.Shards):len(m.Shards)], s)
	}
	if err := writeManifest(w.dir, m); err != nil {
		return err
	}
	w.m = m
	w.ids, w.rows, w.skips, w.inputs, w.since = w.ids[:0], w.rows[:0], nil, 0, time.Now()
	return nil
}

// Close writes the last shard. Fewer inputs than Spec.Count are an error, but
// what was added is kept for the next Writer.
func (w *Writer) Close(ctx context.Context) error {
	if w.lock == nil {
		return fmt.Errorf("features: the writer of %s is closed", w.dir)
	}
	defer w.unlock()
	if err := w.flush(ctx); err != nil {
		return err
	}
	if w.m.Done != w.m.Spec.Count {
		return fmt.Errorf("features: %s has %d of %d inputs", w.dir, w.m.Done, w.m.Spec.Count)
	}
	return nil
}

// Keep closes a writer whose work was cut short and keeps what was added for the
// next one. After Close it does nothing, so it can be deferred.
func (w *Writer) Keep() error {
	if w.lock == nil {
		return nil
	}
	defer w.unlock()
	if w.inputs == 0 {
		return nil
	}
	return w.flush(context.Background())
}

func writeManifest(dir string, m manifest) (err error) {
	if m.Sum, err = m.sum(); err != nil {
		return err
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.WriteBytes(filepath.Join(dir, manifestFile), append(b, '\n'))
}

// A Set is a set of features open for reading. Its rows are in the order of the
// inputs, without the inputs that were skipped. A Set is safe for concurrent use
// by multiple goroutines.
type Set struct {
	Spec    Spec
	Skipped []Skip
	ids     []int64
	parts   []part
	total   int
}

// part is an open shard.
type part struct {
	first int // number of its first row
	file  *os.File
	at    int64 // offset of its first row in the file
}

// Open opens the features in a folder. Close closes their files.
func Open(dir string) (_ *Set, err error) {
	m, err := readManifest(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%s holds no features: %s is missing", dir, manifestFile)
		}
		return nil, err
	}
	if m.Done != m.Spec.Count {
		return nil, fmt.Errorf("%s holds features of only %d of %d inputs: the computation was interrupted; run it again to resume", dir, m.Done, m.Spec.Count)
	}
	s := &Set{Spec: m.Spec, Skipped: m.Skipped}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	for _, sh := range m.Shards {
		if err := s.open(filepath.Join(dir, sh.File), sh); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *Set) open(path string, sh shard) error {
	f, err := regular.Open(path)
	if err != nil {
		return err
	}
	p := part{first: s.total, file: f}
	s.parts = append(s.parts, p)
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != sh.Bytes {
		return fmt.Errorf("%s is damaged: it has %d bytes, want %d; remove its folder to recompute the features", path, info.Size(), sh.Bytes)
	}
	w, err := weights.Open(path)
	if err == nil {
		err = w.Check()
	}
	if err != nil {
		return fmt.Errorf("%w; remove its folder to recompute the features", err)
	}
	if w.Format != weights.Safetensors { // another format has strides, and its shapes say nothing of its size
		return fmt.Errorf("%s: want a safetensors file, got %s", path, w.Format)
	}
	x, ok := w.Get("features")
	ids, ok2 := w.Get("ids")
	n, width := int64(sh.Count), int64(s.Spec.Width)
	if !ok || !ok2 || x.DType != torch.Float32 || ids.DType != torch.Int64 || !slices.Equal(x.Shape, []int64{n, width}) || !slices.Equal(ids.Shape, []int64{n}) {
		return fmt.Errorf("%s: want tensors features, float32 [%d, %d], and ids, int64 [%d]", path, n, width, n)
	}
	s.parts[len(s.parts)-1].at = x.Offset
	s.ids = append(s.ids, make([]int64, n)...)
	if err := readAt(f, s.ids[s.total:], ids.Offset); err != nil {
		return err
	}
	s.total += sh.Count
	return nil
}

// readAt reads numbers in their in-memory representation: libtorch supports only
// little-endian machines.
func readAt[T int64 | float32](f *os.File, dst []T, at int64) error {
	if len(dst) == 0 {
		return nil
	}
	_, err := f.ReadAt(unsafe.Slice((*byte)(unsafe.Pointer(&dst[0])), len(dst)*int(unsafe.Sizeof(dst[0]))), at)
	if err == io.EOF {
		err = fmt.Errorf("%s was truncated while it was in use", f.Name())
	}
	return err
}

// Close closes the files; afterwards rows can no longer be read.
func (s *Set) Close() {
	for _, p := range s.parts {
		p.file.Close()
	}
	s.parts = nil
}

// Len returns the number of rows.
func (s *Set) Len() int { return s.total }

// Width returns the length of a row.
func (s *Set) Width() int { return s.Spec.Width }

// IDs returns the ids of the rows. The caller must not modify the slice.
func (s *Set) IDs() []int64 { return s.ids }

// Read copies rows into dst, [len(rows), Width]. A row that is not finite is an error.
func (s *Set) Read(rows []int32, dst []float32) error {
	w := s.Spec.Width
	if len(dst) < len(rows)*w {
		return fmt.Errorf("features: the destination is too short for %d rows of width %d", len(rows), w)
	}
	for i, r := range rows {
		if r < 0 || int(r) >= s.total {
			return fmt.Errorf("features: row %d is out of range: there are %d", r, s.total)
		}
		k := sort.Search(len(s.parts), func(k int) bool { return s.parts[k].first > int(r) }) - 1
		if k < 0 {
			return fmt.Errorf("features: the set is closed")
		}
		p := s.parts[k]
		if err := readAt(p.file, dst[i*w:(i+1)*w], p.at+int64(int(r)-p.first)*int64(w)*4); err != nil {
			return err
		}
		if err := Check(dst[i*w:(i+1)*w], false); err != nil {
			return fmt.Errorf("%s: row %d, the feature of id %d: %w; remove its folder to recompute the features", p.file.Name(), int(r)-p.first, s.ids[r], err)
		}
	}
	return nil
}
