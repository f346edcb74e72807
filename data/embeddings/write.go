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
	"cyclecap/torch/npy"

	"golang.org/x/sys/unix"
)

// A Writer writes features with their inputs. Both are kept on disk, in files without names,
// until they are saved, so memory does not grow with them.
type Writer struct {
	kind         Kind
	dtype        torch.DType
	width, n     int
	out          string   // a .npy file or a folder
	rows, inputs *os.File // without names
	buffer       *bufio.Writer
	add          func([]Input) error
	note         func(string)
	end          func() error
}

// IsFolder reports whether an output path stands for a folder: it is one, or ends with a slash.
func IsFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir() || strings.HasSuffix(path, string(filepath.Separator))
}

// Create starts writing features of a width to out. If out is a .npy file, Save writes the
// features as float32, and the inputs to the .parquet file beside it. If out is a folder (see
// IsFolder), SavePart writes the files of clip-retrieval, with features as float16:
//
//	img_emb/img_emb_0.npy or text_emb/text_emb_0.npy
//	metadata/metadata_0.parquet
//
// Create returns an error if out cannot be written.
func Create(out string, kind Kind, width int) (_ *Writer, err error) {
	w := &Writer{kind: kind, dtype: torch.Float32, width: width, out: out}
	spool := filepath.Dir(out)
	if IsFolder(out) {
		w.dtype = torch.Float16
		spool = out
		if _, err := os.Stat(out); errors.Is(err, fs.ErrNotExist) {
			spool = filepath.Dir(filepath.Clean(out))
		}
	} else {
		for _, path := range []string{out, beside(out)} {
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
	w.add, w.note, w.end = newInputs(kind, w.buffer)
	return w, nil
}

// beside returns the name of the file of the inputs of a .npy file.
func beside(npy string) string { return strings.TrimSuffix(npy, filepath.Ext(npy)) + ".parquet" }

// nameless creates a file that disappears when it is closed, or when the process ends.
func nameless(dir string) (*os.File, error) {
	// Without a name from the beginning, so that a process that is killed leaves nothing. Not every
	// file system can do that.
	if f, err := os.OpenFile(dir, os.O_RDWR|unix.O_TMPFILE, 0o600); err == nil {
		return f, nil
	}
	f, err := os.CreateTemp(dir, ".features.*.tmp")
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
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
		return fmt.Errorf("cannot write %s: %w", w.out, atomicfile.Plain(err))
	}
	w.n += len(inputs)
	return nil
}

// Note sets a text about the features, which the table of inputs carries in its metadata.
func (w *Writer) Note(text string) { w.note(text) }

// Save writes the .npy file and the table of inputs. Each replaces an existing one when it is
// complete.
func (w *Writer) Save(ctx context.Context) error { return w.save(ctx, w.out, beside(w.out)) }

// SavePart writes the files of a number in the folder. The features come last: where they are, the
// part is complete, and features without a table are not ours.
func (w *Writer) SavePart(ctx context.Context, number int) error {
	npy, table := partFiles(w.out, w.kind, number)
	for _, path := range []string{npy, table} {
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			return err
		}
	}
	return w.save(ctx, npy, table)
}

func (w *Writer) save(ctx context.Context, rows, table string) error {
	header, err := npy.Header{DType: w.dtype, Shape: []int64{int64(w.n), int64(w.width)}}.Encode()
	if err == nil {
		err = w.end()
	}
	if err == nil {
		err = w.buffer.Flush()
	}
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", table, atomicfile.Plain(err))
	}
	for _, f := range []struct {
		path   string
		header []byte
		from   *os.File
	}{{table, nil, w.inputs}, {rows, header, w.rows}} {
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
