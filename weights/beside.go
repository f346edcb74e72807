package weights

import (
	"errors"
	"io/fs"
	"path/filepath"

	"cyclecap/internal/regular"
)

// maxBeside bounds the files that Beside reads. The largest, the tokenizer.json of a
// vocabulary of 256,000 tokens, has 34 MB.
const maxBeside = 64 << 20

// Beside returns the contents of the file of this name in the folder of the weights,
// such as config.json, and its path. It returns nil if there is no such file.
func (f *File) Beside(name string) (data []byte, path string, err error) {
	return f.beside(name, maxBeside)
}

// beside is Beside for a file of at most so many bytes.
func (f *File) beside(name string, most int64) (data []byte, path string, err error) {
	path = filepath.Join(filepath.Dir(f.Path), name)
	if f.fsys != nil {
		data, err = fs.ReadFile(f.fsys, path)
	} else {
		data, err = regular.Read(path, most)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, path, nil
	}
	return data, path, err
}
