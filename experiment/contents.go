package experiment

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"cyclecap/data/features"
	"cyclecap/internal/atomicfile"
	"cyclecap/internal/jsonerror"
	"cyclecap/internal/regular"
)

// contents are hashes of files. They are remembered with the files' sizes and times, so that
// a second run reads only files that have changed. The keys of stages are made of the hashes
// alone: a copy of a file is the same input.
type contents struct {
	path string // where they are stored; "" means nowhere

	mu    sync.Mutex
	known map[string]known // by absolute path
	dirty bool
}

// known is what is known about a file. A change of the file changes one of the others.
type known struct {
	Size     int64  `json:"size"`
	Modified int64  `json:"modified"` // ns
	Changed  int64  `json:"changed"`  // ns; also set by a change of the name or the permissions
	Inode    uint64 `json:"inode"`
	SHA256   string `json:"sha256"`
}

// hashesFile is the name of the file with contents.
const hashesFile = "hashes.json"

// openContents returns the hashes that are stored in a folder.
func openContents(dir string, say func(string, ...any)) *contents {
	c := &contents{path: filepath.Join(dir, hashesFile), known: map[string]known{}}
	if err := readChecked(c.path, &c.known); err != nil && !errors.Is(err, fs.ErrNotExist) {
		say("%v; hashing all files again", err)
		c.known = map[string]known{}
	}
	return c
}

// save stores new hashes.
func (c *contents) save() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.dirty || c.path == "" {
		return nil
	}
	maps.DeleteFunc(c.known, func(path string, _ known) bool {
		_, err := os.Lstat(path)
		return errors.Is(err, fs.ErrNotExist)
	})
	if err := writeChecked(c.path, c.known); err != nil {
		return err
	}
	c.dirty = false
	return nil
}

// of returns the hash of a file.
func (c *contents) of(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	now, err := knownOf(abs)
	if err != nil {
		return "", err
	}
	c.mu.Lock()
	before := c.known[abs]
	c.mu.Unlock()
	now.SHA256 = before.SHA256
	if now == before {
		return now.SHA256, nil
	}
	if now.SHA256, err = hashFile(abs); err != nil {
		return "", err
	}
	c.mu.Lock()
	c.known[abs], c.dirty = now, true
	c.mu.Unlock()
	return now.SHA256, nil
}

// knownOf returns the size and times of a file.
func knownOf(path string) (k known, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return k, err
	}
	k.Size, k.Modified = info.Size(), info.ModTime().UnixNano()
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		k.Changed, k.Inode = s.Ctim.Nano(), s.Ino
	}
	return k, nil
}

// hashFile reads a file and returns its SHA-256.
func hashFile(path string) (string, error) {
	f, err := regular.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// weights returns a hash of a weights file, or of the files in a folder with their names.
func (c *contents) weights(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		return c.of(path)
	}
	list, err := os.ReadDir(path)
	if err != nil {
		return "", err
	}
	var parts []string
	for _, e := range list {
		// In the Hugging Face cache the files of a folder are links.
		file := filepath.Join(path, e.Name())
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
			hash, err := c.of(file)
			if err != nil {
				return "", err
			}
			parts = append(parts, e.Name(), hash)
		}
	}
	return features.Hash(parts...), nil
}

// all returns the hashes of files, "missing" for those that cannot be read. It calls done
// with the number of files that it has hashed.
func (c *contents) all(ctx context.Context, paths []string, done func(n int)) ([]string, error) {
	hashes := make([]string, len(paths))
	var next, finished atomic.Int64
	var workers sync.WaitGroup
	var bar sync.Mutex
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1) - 1)
				if i >= len(paths) {
					return
				}
				hash, err := c.of(paths[i])
				if err != nil {
					hash = "missing"
				}
				hashes[i] = hash
				bar.Lock()
				done(int(finished.Add(1)))
				bar.Unlock()
			}
		})
	}
	workers.Wait()
	return hashes, ctx.Err()
}

// A checked file is a JSON object or array in an envelope with its checksum, so that
// damage does not pass as other contents.
const (
	checkedHead   = "{\n\"sha256\": \""
	checkedMiddle = "\",\n\"contents\": "
	checkedTail   = "\n}\n"
)

// writeChecked writes v to a checked file atomically.
func writeChecked(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	sum := sha256.Sum256(b)
	return atomicfile.WriteBytes(path, []byte(checkedHead+hex.EncodeToString(sum[:])+checkedMiddle+string(b)+checkedTail))
}

// readChecked reads a checked file.
func readChecked(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text, ok := strings.CutPrefix(string(b), checkedHead)
	sum, text, found := strings.Cut(text, checkedMiddle)
	text, complete := strings.CutSuffix(text, checkedTail)
	have := sha256.Sum256([]byte(text))
	if !ok || !found || !complete || sum != hex.EncodeToString(have[:]) {
		return &damagedError{path}
	}
	if err := json.Unmarshal([]byte(text), v); err != nil {
		return fmt.Errorf("%s: %w", path, jsonerror.Words(err))
	}
	return nil
}

// A damagedError reports a file whose contents are not those that were written.
type damagedError struct{ path string }

func (e *damagedError) Error() string { return e.path + " is damaged" }
