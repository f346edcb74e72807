// Package atomicfile writes files that appear whole or not at all: a failure, or
// a context that is done, leaves what was there and nothing else.
package atomicfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// Check reports a path that can't be written: a missing folder, no permission.
func Check(path string) error {
	f, _, err := create(path)
	if err != nil {
		return err
	}
	f.Close()
	return os.Remove(f.Name())
}

// Plain takes the path of a temporary file out of an error.
func Plain(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	var l *os.LinkError
	if errors.As(err, &l) {
		return l.Err
	}
	return err
}

// create makes a temporary file beside the one that will be written, with the
// permissions that any new file gets. A link is followed: its target is what
// will be replaced.
func create(path string) (f *os.File, target string, err error) {
	target = path
	if to, err := filepath.EvalSymlinks(path); err == nil {
		target = to
	}
	if info, err := os.Stat(target); err == nil && !info.Mode().IsRegular() {
		what := "not a regular file"
		if info.IsDir() {
			what = "a folder"
		}
		return nil, "", fmt.Errorf("%s can't be written: it is %s", path, what)
	}
	dir, name := filepath.Split(target)
	for {
		temp := filepath.Join(dir, fmt.Sprintf(".%.100s.%08x.tmp", name, rand.Uint32()))
		f, err = os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if !errors.Is(err, os.ErrExist) {
			break
		}
	}
	if err != nil {
		return nil, "", fmt.Errorf("%s can't be written: %w", path, Plain(err))
	}
	return f, target, nil
}

// untilDone writes until a context is done, in pieces, so that it is looked at
// within a large tensor too.
type untilDone struct {
	ctx context.Context
	w   io.Writer
}

func (u untilDone) Write(b []byte) (n int, err error) {
	const piece = 16 << 20
	for n < len(b) || len(b) == 0 {
		if err := u.ctx.Err(); err != nil {
			return n, err
		}
		m, err := u.w.Write(b[n:min(len(b), n+piece)])
		n += m
		if err != nil || len(b) == 0 {
			return n, err
		}
	}
	return n, nil
}

// Write writes a file through a temporary one beside it, which takes its name
// only once it is whole and on disk. Errors name path.
func Write(ctx context.Context, path string, write func(io.Writer) error) (err error) {
	f, target, err := create(path)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			if ctx.Err() == nil {
				err = fmt.Errorf("%s: %w", path, Plain(err))
			}
		}
	}()
	if err := write(untilDone{ctx, f}); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), target); err != nil {
		return err
	}
	// The new name is on disk when its folder is. Some file systems can't
	// sync a folder; the file is whole in any case.
	if d, err := os.Open(filepath.Dir(target)); err == nil {
		d.Sync()
		d.Close()
	}
	return nil
}

// WriteBytes is Write of b.
func WriteBytes(path string, b []byte) error {
	return Write(context.Background(), path, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}
