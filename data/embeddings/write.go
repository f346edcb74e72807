package embeddings

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"cyclecap/internal/atomicfile"
	"cyclecap/torch"
)

// A Writer writes features with their inputs. Both are kept on disk, in files without names,
// until they are saved, so memory does not grow with them.
type Writer struct {
	kind         Kind
	dtype        torch.DType
	width, n     int
	npy, parquet string   // the files to write
	rows, inputs *os.File // without names
	buffer       *bufio.Writer
	add          func([]Input) error
	end          func() error
	folders      []string // to create
}

// IsFolder reports whether an output path stands for a folder: it is one, or ends with a slash.
func IsFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir() || strings.HasSuffix(path, string(filepath.Separator))
}

// Create starts writing features of a width to out. If out is a .npy file, it gets the features
// as float32, and the inputs go to the .parquet file beside it. If out is a folder (see
// IsFolder), it gets the files of clip-retrieval, with features as float16:
//
//	img_emb/img_emb_0.npy or text_emb/text_emb_0.npy
//	metadata/metadata_0.parquet
//
// Create returns an error if out cannot be written, or is a folder with other features.
func Create(out string, kind Kind, width int) (_ *Writer, err error) {
	w := &Writer{kind: kind, dtype: torch.Float32, width: width, npy: out, parquet: beside(out)}
	spool := filepath.Dir(out)
	if IsFolder(out) {
		if err := onlyOurs(out, kind); err != nil {
			return nil, err
		}
		w.dtype = torch.Float16
		w.folders = []string{filepath.Join(out, string(kind)), filepath.Join(out, metadataFolder)}
		w.npy = filepath.Join(w.folders[0], string(kind)+"_0.npy")
		w.parquet = filepath.Join(w.folders[1], metadataFolder+"_0.parquet")
		spool = out
		if _, err := os.Stat(out); errors.Is(err, fs.ErrNotExist) {
			spool = filepath.Dir(filepath.Clean(out))
		}
	} else {
		for _, path := range []string{w.npy, w.parquet} {
			if err := atomicfile.Check(path); err != nil {
				return nil, err
			}
		}
	}
	defer func() {
		if err != nil {
			w.Close()
		}
	}()
	if w.rows, err = nameless(spool); err != nil {
		return nil, fmt.Errorf("cannot write %s: %w", out, atomicfile.Plain(err))
	}
	if w.inputs, err = nameless(spool); err != nil {
		return nil, fmt.Errorf("cannot write %s: %w", out, atomicfile.Plain(err))
	}
	w.buffer = bufio.NewWriterSize(w.inputs, 1<<20)
	w.add, w.end = newInputs(kind, w.buffer)
	return w, nil
}

// beside returns the name of the file of the inputs of a .npy file.
func beside(npy string) string { return strings.TrimSuffix(npy, filepath.Ext(npy)) + ".parquet" }

// nameless creates a file that disappears when it is closed, or when the process ends.
func nameless(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, ".features.*.tmp")
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

// onlyOurs returns an error if a folder has features that would no longer belong to the
// inputs in it, because they lie in files that are not replaced.
func onlyOurs(dir string, kind Kind) error {
	for _, sub := range []string{string(Images), string(Texts), metadataFolder} {
		list, err := os.ReadDir(filepath.Join(dir, sub))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		ours := map[string]string{string(kind): string(kind) + "_0.npy", metadataFolder: metadataFolder + "_0.parquet"}[sub]
		for _, e := range list {
			if ext := filepath.Ext(e.Name()); (ext == ".npy" || ext == ".parquet") && e.Name() != ours {
				return fmt.Errorf("%s has other features, such as %s: choose another folder", dir, filepath.Join(sub, e.Name()))
			}
		}
	}
	return nil
}

// Add adds rows [len(inputs), width].
func (w *Writer) Add(rows []float32, inputs []Input) error {
	if len(rows) != len(inputs)*w.width {
		return fmt.Errorf("embeddings: %d numbers for %d rows of width %d", len(rows), len(inputs), w.width)
	}
	if len(inputs) == 0 {
		return nil
	}
	var data []byte
	err := torch.Scope(func() error {
		data = torch.ToSlice[uint8](torch.FromSlice(rows).To(torch.WithDType(w.dtype)).ViewDType(torch.Uint8))
		return nil
	})
	if err == nil {
		_, err = w.rows.Write(data)
	}
	if err == nil {
		err = w.add(inputs)
	}
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", w.npy, atomicfile.Plain(err))
	}
	w.n += len(inputs)
	return nil
}

// Save writes the files. Each replaces an existing one when it is complete.
func (w *Writer) Save(ctx context.Context) error {
	err := w.end()
	if err == nil {
		err = w.buffer.Flush()
	}
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", w.parquet, atomicfile.Plain(err))
	}
	for _, dir := range w.folders {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		path   string
		header []byte
		from   *os.File
	}{{w.npy, formatNPY(w.dtype, w.n, w.width), w.rows}, {w.parquet, nil, w.inputs}} {
		err := atomicfile.Write(ctx, f.path, func(to io.Writer) error {
			if _, err := f.from.Seek(0, io.SeekStart); err != nil {
				return err
			}
			if _, err := to.Write(f.header); err != nil {
				return err
			}
			_, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{f.from}, make([]byte, 1<<20))
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Close forgets what was not saved.
func (w *Writer) Close() {
	if w.rows != nil {
		w.rows.Close()
	}
	if w.inputs != nil {
		w.inputs.Close()
	}
}
