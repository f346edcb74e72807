// Package regular opens files for reading, but only regular ones: a device such as
// /dev/zero never ends, and opening a named pipe waits until somebody writes to it.
package regular

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"cyclecap/internal/atomicfile"
)

// Open opens a regular file. Other files are not opened, not even to look at them.
func Open(path string) (*os.File, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, &fs.PathError{Op: "open", Path: path, Err: atomicfile.Plain(err)}
	case info.IsDir():
		return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("is a folder, not a file")}
	case !info.Mode().IsRegular():
		return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("is not a regular file")}
	}
	return os.Open(path)
}

// Read returns the contents of a regular file of at most so many bytes.
func Read(path string, most int64) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	tooLarge := &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("the file has more than %d bytes, the limit for files of this kind", most)}
	if info.Size() > most {
		return nil, tooLarge
	}
	// Files in /proc have size 0, and a file may grow.
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = tooLarge
	}
	return data, err
}
