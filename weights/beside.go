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
	path = filepath.Join(filepath.Dir(f.Path), name)
	data, err = regular.Read(path, maxBeside)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, path, nil
	}
	return data, path, err
}
