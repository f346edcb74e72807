// Package embeddings reads and writes features in the files of other programs, numpy's .npy
// and the folders of clip-retrieval, and searches them. It also searches the safetensors
// files of cyclecap features.
package embeddings

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"cyclecap/internal/jsonerror"
	"cyclecap/internal/regular"
	"cyclecap/torch"
	"cyclecap/weights"
)

// Kind says of what features are: it is the name of their folder in clip-retrieval's layout.
type Kind string

// The kinds of features.
const (
	Images Kind = "img_emb"
	Texts  Kind = "text_emb"
)

// metadataFolder is the folder of the tables of inputs in clip-retrieval's layout.
const metadataFolder = "metadata"

// maxWidth limits the width of features.
const maxWidth = 1 << 20

// nameColumns are the columns of the names of inputs, in the order in which they are looked for.
var nameColumns = map[Kind][]string{
	Images: {"image_path", "key", "url", "caption"},
	Texts:  {"caption", "image_path", "key", "url"},
}

// A Table is features open for reading, [Len, Width]. The features stay in their files.
type Table struct {
	Path  string
	Width int
	Model string // which computed them, or ""
	parts []part
	names []string // of a safetensors file
}

// part is a file with features.
type part struct {
	array
	file  *os.File
	first int64   // number of its first row
	names *column // or nil
}

// Open opens features: a safetensors file of cyclecap features, a .npy file (with the names of
// the rows in the .parquet file beside it, if there is one), a folder of clip-retrieval (its
// img_emb, or text_emb if there is none), or a folder of .npy files.
func Open(path string) (_ *Table, err error) {
	t := &Table{Path: path}
	defer func() {
		if err != nil {
			t.Close()
		}
	}()
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		err = t.openFolder(path)
	case strings.ToLower(filepath.Ext(path)) == ".npy":
		names := beside(path)
		if _, err := os.Stat(names); err != nil {
			names = ""
		}
		err = t.openNPY(path, names, Images)
	default:
		err = t.openSafetensors(path)
	}
	if err != nil {
		return nil, err
	}
	if t.Len() == 0 {
		return nil, fmt.Errorf("%s has no features", path)
	}
	return t, nil
}

// numbered is the number at the end of a file name: metadata_007.parquet.
var numbered = regexp.MustCompile(`([0-9]{1,15})\.[a-z]+$`)

// partNumber returns the number in the name of a file, or -1.
func partNumber(path string) int64 {
	m := numbered.FindStringSubmatch(path)
	if m == nil {
		return -1
	}
	n, _ := strconv.ParseInt(m[1], 10, 64) // of at most 15 digits
	return n
}

// filesIn returns the files in a folder with an extension, by their numbers and then by name.
func filesIn(dir, ext string) ([]string, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, e := range list {
		if filepath.Ext(e.Name()) == ext && !strings.HasPrefix(e.Name(), ".") {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	slices.SortStableFunc(paths, func(a, b string) int { return int(max(-1, min(1, partNumber(a)-partNumber(b)))) })
	return paths, nil
}

func (t *Table) openFolder(dir string) error {
	features, kind := dir, Images
	for _, k := range []Kind{Texts, Images} {
		if info, err := os.Stat(filepath.Join(dir, string(k))); err == nil && info.IsDir() {
			features, kind = filepath.Join(dir, string(k)), k
		}
	}
	if abs, err := filepath.Abs(features); err == nil && filepath.Base(abs) == string(Texts) {
		kind = Texts
	}
	files, err := filesIn(features, ".npy")
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("%s has no features: want clip-retrieval's img_emb/img_emb_0.npy, or .npy files", dir)
	}
	tables, err := filesIn(filepath.Join(filepath.Dir(files[0]), "..", metadataFolder), ".parquet")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(tables) > 0 && len(tables) != len(files) {
		return fmt.Errorf("%s has %d files of features, but %d tables in %s: their rows have no certain names", dir, len(files), len(tables), metadataFolder)
	}
	for i, f := range files {
		names := ""
		if len(tables) > 0 {
			if names = tables[i]; partNumber(names) != partNumber(f) {
				return fmt.Errorf("%s has no table in %s for %s", dir, metadataFolder, f)
			}
		}
		if err := t.openNPY(f, names, kind); err != nil {
			return err
		}
	}
	return nil
}

// openNPY adds a .npy file. names is the table of its inputs, or "".
func (t *Table) openNPY(path, names string, kind Kind) error {
	f, err := regular.Open(path)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	a, err := readNPY(f, info.Size())
	if err != nil {
		f.Close()
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := t.add(part{array: a, file: f}); err != nil {
		return err
	}
	if names == "" {
		return nil
	}
	p := &t.parts[len(t.parts)-1]
	if p.names, err = openColumn(names, nameColumns[kind]); err != nil {
		return err
	}
	if p.names.rows != a.rows {
		return fmt.Errorf("%s has %d rows, but %s has %d: they do not belong together", path, a.rows, names, p.names.rows)
	}
	return nil
}

// add adds a file whose first row follows the others. The Table closes it.
func (t *Table) add(p part) error {
	p.first = int64(t.Len())
	t.parts = append(t.parts, p)
	if t.Width == 0 {
		t.Width = int(p.width)
	}
	if int(p.width) != t.Width {
		return fmt.Errorf("%s has features of width %d, but %s has features of width %d", p.file.Name(), p.width, t.parts[0].file.Name(), t.Width)
	}
	return nil
}

func (t *Table) openSafetensors(path string) error {
	if _, err := os.Stat(path); err != nil { // not the name of a model
		return err
	}
	w, err := weights.Open(path)
	if err != nil {
		return err
	}
	if err := w.Check(); err != nil {
		return err
	}
	x, ok := w.Get("features")
	if w.Format != weights.Safetensors || !ok || len(x.Shape) != 2 || x.DType != torch.Float32 || x.Shape[1] < 1 || x.Shape[1] > maxWidth {
		return fmt.Errorf("%s: want a file of cyclecap features, which has a tensor \"features\", float32 [n, width]", path)
	}
	f, err := regular.Open(path)
	if err != nil {
		return err
	}
	if err := t.add(part{array: array{x.DType, x.Shape[0], x.Shape[1], x.Offset}, file: f}); err != nil {
		return err
	}
	t.Model = w.Meta["model"]
	if list, ok := w.Meta["inputs"]; ok {
		if err := json.Unmarshal([]byte(list), &t.names); err != nil {
			return fmt.Errorf("%s: its metadata \"inputs\" are damaged: %w", path, jsonerror.Words(err))
		}
		if len(t.names) != t.Len() {
			return fmt.Errorf("%s: its metadata have %d inputs for %d rows", path, len(t.names), t.Len())
		}
	}
	return nil
}

// Len returns the number of rows.
func (t *Table) Len() int {
	if len(t.parts) == 0 {
		return 0
	}
	last := t.parts[len(t.parts)-1]
	return int(last.first + last.rows)
}

// Names returns the names of the inputs of rows, "" where the files do not say them.
func (t *Table) Names(rows []int) ([]string, error) {
	names := make([]string, len(rows))
	for _, p := range t.parts {
		var at []int // positions in rows
		var own []int64
		for i, row := range rows {
			if r := int64(row) - p.first; r >= 0 && r < p.rows {
				at, own = append(at, i), append(own, r)
			}
		}
		switch {
		case t.names != nil:
			for _, i := range at {
				names[i] = t.names[rows[i]]
			}
		case p.names != nil && len(own) > 0:
			texts, err := p.names.get(own)
			if err != nil {
				return nil, err
			}
			for k, i := range at {
				names[i] = texts[k]
			}
		}
	}
	return names, nil
}

// Close closes the files.
func (t *Table) Close() {
	for _, p := range t.parts {
		p.file.Close()
		if p.names != nil {
			p.names.file.Close()
		}
	}
	t.parts = nil
}
