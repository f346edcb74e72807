package embeddings

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"cyclecap/internal/atomicfile"
	"cyclecap/internal/regular"
)

// A Part is a pair of files with a number, in a folder as clip-retrieval writes it.
type Part struct {
	Number int
	Table  string // path of the table of inputs
	Note   string // that of Writer.Note, or ""
	// Complete says that the features are there too. SavePart writes them after the table.
	Complete bool
}

// partFiles returns the names of the files of a part of a folder.
func partFiles(dir string, kind Kind, number int) (npy, table string) {
	return filepath.Join(dir, string(kind), fmt.Sprintf("%s_%d.npy", kind, number)),
		filepath.Join(dir, metadataFolder, fmt.Sprintf("%s_%d.parquet", metadataFolder, number))
}

// Parts returns the parts of a folder, in the order of their numbers. A folder with features of
// another kind, without a table, or in files whose names are not those of SavePart, is an error:
// parts beside them would not be told apart. A folder that does not exist has no parts.
func Parts(dir string, kind Kind) ([]Part, error) {
	npys := map[int]string{}
	var tables []int
	others := map[Kind]Kind{Images: Texts, Texts: Images}[kind]
	// Features before tables: what another process completes in the meantime has its table then.
	for _, sub := range []struct{ folder, ext string }{{string(others), ".npy"}, {string(kind), ".npy"}, {metadataFolder, ".parquet"}} {
		files, err := filesIn(filepath.Join(dir, sub.folder), sub.ext)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, f := range files {
			n := int(partNumber(f))
			switch npy, table := partFiles(dir, kind, n); f {
			case npy:
				npys[n] = f
			case table:
				tables = append(tables, n)
			default:
				return nil, otherFeatures(dir, f)
			}
		}
	}
	for n, f := range npys {
		if _, found := slices.BinarySearch(tables, n); !found {
			return nil, otherFeatures(dir, f)
		}
	}
	var list []Part
	for _, n := range tables {
		_, table := partFiles(dir, kind, n)
		note, err := noteOf(table)
		if err != nil {
			return nil, err
		}
		_, complete := npys[n]
		list = append(list, Part{n, table, note, complete})
	}
	return list, nil
}

func otherFeatures(dir, file string) error {
	return fmt.Errorf("%s has other features, such as %s: choose another folder", dir, filepath.Join(filepath.Base(filepath.Dir(file)), filepath.Base(file)))
}

// noteOf returns the text of Writer.Note in a table of inputs, or "".
func noteOf(path string) (text string, err error) {
	f, err := regular.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	c := &column{path: path, file: f}
	err = c.safe(func() error {
		if err := c.open(); err != nil {
			return err
		}
		text, _ = c.table.Lookup(noteKey)
		return nil
	})
	return text, err
}

// RemoveStale removes what processes that were killed have left of parts. No other process may be
// writing those parts.
func RemoveStale(dir string, kind Kind, numbers []int) error {
	of := map[string]bool{}
	for _, n := range numbers {
		npy, table := partFiles(dir, kind, n)
		of[npy], of[table] = true, true
	}
	for _, folder := range []string{filepath.Join(dir, string(kind)), filepath.Join(dir, metadataFolder)} {
		list, err := os.ReadDir(folder)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, e := range list {
			if target := atomicfile.Target(e.Name()); target == "" || !of[filepath.Join(folder, target)] {
				continue
			}
			if err := os.Remove(filepath.Join(folder, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}
