// Package features keeps CLIP features that were computed once: a folder with a
// manifest, which says what they are of and what made them, and shards in
// safetensors form, which are mapped and not read into memory.
//
//	features/train-images/
//	    manifest.json
//	    features-00001.safetensors    "features" f32 [n, width], "ids" int64 [n]
//	    …
//
// Writing survives interruption: a shard counts once the manifest names it, and
// a second Writer goes on behind the last one.
package features

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/weights"
)

// Spec says what features are of and what made them. Features of another Spec
// are other features.
type Spec struct {
	Kind       string `json:"kind"`       // "images" or "texts"
	Model      string `json:"model"`      // identifies CLIP's weights
	Process    string `json:"process"`    // what was done to the inputs: preprocessing, tokenizer, precision
	Batch      int    `json:"batch"`      // inputs computed at once; low-order bits depend on it
	Width      int    `json:"width"`      // of a feature
	Normalized bool   `json:"normalized"` // at length 1
	Inputs     string `json:"inputs"`     // identifies the list of inputs: Hash
	Count      int    `json:"count"`      // inputs
}

// Hash identifies a list of texts.
func Hash(list ...string) string {
	h := sha256.New()
	for _, s := range list {
		fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// differences names the fields in which two Specs differ.
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

// Skip is an input that has no feature, and why.
type Skip struct {
	ID    int64  `json:"id"`
	Name  string `json:"name"`
	Error string `json:"error"`
}

// manifest is manifest.json.
type manifest struct {
	Version int     `json:"version"`
	Spec    Spec    `json:"spec"`
	Done    int     `json:"done"` // inputs that are dealt with
	Shards  []shard `json:"shards"`
	Skipped []Skip  `json:"skipped"`
}

type shard struct {
	File  string `json:"file"`
	Count int    `json:"count"` // rows
	Bytes int64  `json:"bytes"`
}

const (
	version      = 1
	manifestFile = "manifest.json"
)

func readManifest(dir string) (m manifest, err error) {
	path := filepath.Join(dir, manifestFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("%s: %w", path, err)
	}
	if m.Version != version {
		return m, fmt.Errorf("%s: version %d, and this program reads %d", path, m.Version, version)
	}
	return m, nil
}

// ChangedError is a folder with features of another Spec.
type ChangedError struct {
	Dir     string
	Changes string
}

func (e *ChangedError) Error() string {
	return fmt.Sprintf("%s holds other features (%s): remove the folder to compute them anew", e.Dir, e.Changes)
}

// shardRows is how many rows a shard has at least but the last: 128 MiB at a
// width of 512.
const shardRows = 1 << 16

// A Writer writes features in the order of their inputs.
type Writer struct {
	dir    string
	m      manifest
	rows   []float32
	ids    []int64
	skips  []Skip
	inputs int // in rows and skips
}

// Create begins to write features into a folder, or goes on where a former
// Writer of the same Spec was interrupted. A folder with features of another
// Spec is a *ChangedError.
func Create(dir string, s Spec) (*Writer, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	w := &Writer{dir: dir, m: manifest{Version: version, Spec: s}}
	m, err := readManifest(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return w, nil
	} else if err != nil {
		return nil, err
	}
	if m.Spec != s {
		return nil, &ChangedError{dir, s.differences(m.Spec)}
	}
	w.m = m
	return w, nil
}

// Done counts the inputs that need not be computed again: those of whole
// shards.
func (w *Writer) Done() int { return w.m.Done }

// Add writes the features of the next inputs: rows [len(ids), width], and the
// inputs without one.
func (w *Writer) Add(ctx context.Context, ids []int64, rows []float32, skips []Skip) error {
	if len(rows) != len(ids)*w.m.Spec.Width {
		return fmt.Errorf("features: %d numbers for %d rows of %d", len(rows), len(ids), w.m.Spec.Width)
	}
	w.ids = append(w.ids, ids...)
	w.rows = append(w.rows, rows...)
	w.skips = append(w.skips, skips...)
	w.inputs += len(ids) + len(skips)
	if w.inputs >= shardRows {
		return w.flush(ctx)
	}
	return nil
}

func (w *Writer) flush(ctx context.Context) error {
	m := w.m
	m.Done += w.inputs
	m.Skipped = append(m.Skipped[:len(m.Skipped):len(m.Skipped)], w.skips...)
	if len(w.ids) > 0 {
		s := shard{File: fmt.Sprintf("features-%05d.safetensors", len(m.Shards)+1), Count: len(w.ids)}
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
	w.ids, w.rows, w.skips, w.inputs = w.ids[:0], w.rows[:0], nil, 0
	return nil
}

// Close writes the last shard. Without it what was added since the last whole
// shard is lost, and nothing else.
func (w *Writer) Close(ctx context.Context) error {
	if err := w.flush(ctx); err != nil {
		return err
	}
	if w.m.Done != w.m.Spec.Count {
		return fmt.Errorf("features: %s has %d of %d inputs", w.dir, w.m.Done, w.m.Spec.Count)
	}
	return nil
}

func writeManifest(dir string, m manifest) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, manifestFile)
	f, err := os.CreateTemp(dir, ".manifest.*.tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// A Set is features that are open for reading. Rows are in the order of the
// inputs, without those that were skipped. It may be read by several
// goroutines at once.
type Set struct {
	Spec    Spec
	Skipped []Skip
	ids     []int64
	parts   []part
	total   int
}

type part struct {
	first int // row
	data  []float32
	owner *nn.StateDict
}

// Open maps the features of a folder. Close frees them.
func Open(dir string) (_ *Set, err error) {
	m, err := readManifest(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%s holds no features: %s is missing", dir, manifestFile)
		}
		return nil, err
	}
	if m.Done != m.Spec.Count {
		return nil, fmt.Errorf("%s holds features of %d of %d inputs: computing them was interrupted, and goes on when it is run again", dir, m.Done, m.Spec.Count)
	}
	s := &Set{Spec: m.Spec, Skipped: m.Skipped}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	for _, sh := range m.Shards {
		if filepath.Base(sh.File) != sh.File {
			return nil, fmt.Errorf("%s: the manifest names %q, which is no file of the folder", dir, sh.File)
		}
		path := filepath.Join(dir, sh.File)
		if info, err := os.Stat(path); err != nil {
			return nil, err
		} else if info.Size() != sh.Bytes {
			return nil, fmt.Errorf("%s has %d bytes instead of %d: it is damaged; remove its folder to compute the features anew", path, info.Size(), sh.Bytes)
		}
		f, err := weights.Open(path)
		if err != nil {
			return nil, err
		}
		sd, err := f.Load()
		if err != nil {
			return nil, err
		}
		s.parts = append(s.parts, part{first: s.total, owner: sd})
		x, ok := sd.Get("features")
		ids, ok2 := sd.Get("ids")
		if !ok || !ok2 || x.DType() != torch.Float32 || ids.DType() != torch.Int64 || x.Dim() != 2 || ids.Dim() != 1 ||
			x.Size(0) != int64(sh.Count) || x.Size(1) != int64(m.Spec.Width) || ids.Size(0) != int64(sh.Count) {
			return nil, fmt.Errorf("%s: features f32 [%d, %d] and ids int64 [%d] are not both there", path, sh.Count, m.Spec.Width, sh.Count)
		}
		s.parts[len(s.parts)-1].data = torch.Data[float32](x)
		s.ids = append(s.ids, torch.Data[int64](ids)...)
		s.total += sh.Count
	}
	return s, nil
}

// Close unmaps the features.
func (s *Set) Close() {
	for _, p := range s.parts {
		p.owner.Close()
	}
	s.parts = nil
}

// Len counts the rows.
func (s *Set) Len() int { return s.total }

// Width gives the length of a row.
func (s *Set) Width() int { return s.Spec.Width }

// IDs gives the rows' ids; they must not be changed.
func (s *Set) IDs() []int64 { return s.ids }

// Read copies rows into dst, [len(rows), Width].
func (s *Set) Read(rows []int32, dst []float32) error {
	w := s.Spec.Width
	if len(dst) < len(rows)*w {
		return fmt.Errorf("features: no room for %d rows of %d", len(rows), w)
	}
	for i, r := range rows {
		if r < 0 || int(r) >= s.total {
			return fmt.Errorf("features: row %d of %d", r, s.total)
		}
		k := sort.Search(len(s.parts), func(k int) bool { return s.parts[k].first > int(r) }) - 1
		p := s.parts[k]
		copy(dst[i*w:(i+1)*w], p.data[(int(r)-p.first)*w:])
	}
	return nil
}

// Check reports features that do not fit a CLIP.
func (s *Set) Check(model string, width int) error {
	if s.Spec.Model != model || s.Spec.Width != width {
		return fmt.Errorf("these features are of width %d from the CLIP %s, and %d from %s are needed", s.Spec.Width, s.Spec.Model, width, model)
	}
	return nil
}
