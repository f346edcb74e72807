// Package atomicfile writes files atomically: if a write fails or its context is
// canceled, an existing file is unchanged and no partial file remains. A symbolic
// link is written through. Devices, and new files in /dev, are refused.
package atomicfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

// Check returns an error if path cannot be written, for example because of a
// missing folder or permission.
func Check(path string) error {
	f, _, err := create(path)
	if err != nil {
		return err
	}
	f.Close()
	return os.Remove(f.Name())
}

// Plain returns the cause of a file system error without the path, which may be
// that of a temporary file.
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

// maxLinks is the number of symbolic links that are followed, as in the kernel.
const maxLinks = 40

// follow returns the file that path names after all symbolic links. The file need
// not exist: writing to a link that points nowhere creates the file it points to,
// as open(2) does.
func follow(path string) (string, error) {
	target := path
	for range maxLinks {
		if to, err := filepath.EvalSymlinks(target); err == nil {
			return to, nil
		}
		to, err := os.Readlink(target)
		if err != nil {
			return target, nil // not a link: a new file, or an error that creating it reports
		}
		if !filepath.IsAbs(to) {
			// Relative to the folder that holds the link, which may be a link itself.
			dir, err := filepath.EvalSymlinks(filepath.Dir(target))
			if err != nil {
				return target, nil
			}
			to = filepath.Join(dir, to)
		}
		target = to
	}
	return "", syscall.ELOOP
}

// inDev reports whether a file lies in /dev, where the names of devices are: a
// misspelled one would become a file. /dev/shm is for files.
func inDev(path string) bool {
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		path = filepath.Join(dir, filepath.Base(path))
	}
	path, err := filepath.Abs(path)
	return err == nil && strings.HasPrefix(path, "/dev/") && !strings.HasPrefix(path, "/dev/shm/")
}

// create creates a temporary file in the folder of the file to be written, with
// the default permissions of new files. It follows symbolic links: target is the
// file to be replaced.
func create(path string) (f *os.File, target string, err error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		what := "not a regular file"
		if info.IsDir() {
			what = "a folder"
		}
		return nil, "", fmt.Errorf("cannot write %s: it is %s", path, what)
	}
	target, err = follow(path)
	if err != nil {
		return nil, "", fmt.Errorf("cannot write %s: %w", path, err)
	}
	if inDev(target) {
		return nil, "", fmt.Errorf("cannot write %s: /dev is for devices, not for files", path)
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
		return nil, "", fmt.Errorf("cannot write %s: %w", path, Plain(err))
	}
	return f, target, nil
}

// untilDone writes until its context is done. It writes in pieces, to check the
// context also while it writes a large tensor.
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

// Write writes a file atomically: it writes to a temporary file in the same
// folder and renames it to path once it is complete and on disk. Errors contain
// path.
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
	// Sync the folder, so that the rename is on disk too. Some file systems
	// cannot sync a folder; the file is complete in any case.
	if d, err := os.Open(filepath.Dir(target)); err == nil {
		d.Sync()
		d.Close()
	}
	return nil
}

// WriteBytes writes b to a file atomically.
func WriteBytes(path string, b []byte) error {
	return Write(context.Background(), path, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}

// temporary is the name of a temporary file of create.
var temporary = regexp.MustCompile(`^\.(.+)\.[0-9a-f]{8}\.tmp$`)

// Target returns the name of the file that a temporary file was to become, or "" if it is not
// a temporary file. Names of more than 100 bytes are cut.
func Target(name string) string {
	if m := temporary.FindStringSubmatch(name); m != nil {
		return m[1]
	}
	return ""
}

// RemoveStale removes the temporary files in a folder, and in the folders in it, that a
// process left when it was killed. No other process may be writing there.
func RemoveStale(dir string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && e.Type().IsRegular() && strings.HasPrefix(e.Name(), ".") && strings.HasSuffix(e.Name(), ".tmp") {
			return os.Remove(path)
		}
		return err
	})
}
