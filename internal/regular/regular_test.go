package regular_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"cyclecap/internal/regular"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	file, link, fifo, sparse := filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "fifo"), filepath.Join(dir, "sparse")
	if err := errors.Join(os.WriteFile(file, []byte("text"), 0o666), os.Symlink(file, link), syscall.Mkfifo(fifo, 0o666), os.WriteFile(sparse, nil, 0o666), os.Truncate(sparse, 1<<40)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link} {
		if data, err := regular.Read(path, 4); err != nil || string(data) != "text" {
			t.Errorf("%s: %q, %v", path, data, err)
		}
	}
	for path, want := range map[string]string{
		file: "more than 3 bytes", sparse: "more than 3 bytes", "/proc/self/status": "more than 3 bytes",
		dir: "is a folder", fifo: "not a regular file", "/dev/zero": "not a regular file",
	} {
		if _, err := regular.Read(path, 3); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: want %q: %v", path, want, err)
		}
	}
	if _, err := regular.Open(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
