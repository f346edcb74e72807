// Package world writes a small world: a data set of drawn photos with human-like
// captions in COCO's format, on which the whole experiment runs in minutes.
//
// A photo shows one to four objects of 24 kinds, in 11 colours and 4 textures,
// small or large, near or far, on one of 10 backgrounds, alone, in numbers or
// related to others, under changing light, and with a camera's blur, noise and
// JPEG artefacts. Around them are up to four smaller things, which most captions
// leave out. Each photo has five captions from a grammar of sentence plans
// and synonyms. Captions are always true but never complete.
//
// # Parts and held-out combinations
//
// There are four parts, which share no photo: pretrain, for the CLIP and the
// GPT-2 that stand in for OpenAI's; train; val; and tune, which is like val, for
// choosing settings. Every kind, colour,
// background and relation occurs in each part, but some combinations occur only
// in val and tune, so that no model can caption them from memory. With kinds, colours,
// backgrounds and relations numbered in the order of their constants, these are
//
//   - kind k in colour c,          if (3k + 5c) mod 8 = 2
//   - kind k on background b,      if (2k + b) mod 7 = 3
//   - kind j in relation r to k,   if (j + 2r + 3k) mod 6 = 1
//     (with j < k if the relation is NextTo, which is symmetric)
//
// One in five photos in val and tune, chosen at random, contains at least one, and the
// others none. The entry of each photo in the JSON lists them as "held_out" in "world",
// together with everything that the photo shows.
package world

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"cyclecap/internal/atomicfile"
	"cyclecap/internal/jsonerror"
	"cyclecap/internal/regular"
)

// Config determines a data set completely: the same Config gives the same bytes.
type Config struct {
	Seed     uint64 `json:"seed"`
	Size     int    `json:"size"`     // side of the photos in pixels, 32 to 1024
	Pretrain int    `json:"pretrain"` // number of photos per part; a part of 0 is not written
	Train    int    `json:"train"`
	Val      int    `json:"val"`
	Tune     int    `json:"tune"`
	// Bare leaves out the other things around those that a photo is of. Everything else in
	// the photos stays as it is.
	Bare bool `json:"bare,omitempty"`
}

// CaptionsEach is the number of captions per photo, as in COCO.
const CaptionsEach = 5

// maxPart keeps the ids of the parts from overlapping.
const maxPart = 10_000_000

// Version changes when the same Config gives different bytes than before.
const Version = 3

// The manifest and its name until everything else is written.
const (
	manifestName = "world.json"
	unfinished   = ".world.unfinished.json"
)

// A Manifest is the file world.json in the folder of a finished data set.
type Manifest struct {
	Version int    `json:"version"` // version of the drawings and the grammar
	Config  Config `json:"config"`
}

// Check returns an error if a Config is invalid.
func (c Config) Check() error {
	if c.Size < 32 || c.Size > 1024 {
		return fmt.Errorf("world: size must be between 32 and 1024 pixels, got %d", c.Size)
	}
	for _, p := range []struct {
		name string
		n    int
	}{{"pretrain", c.Pretrain}, {"train", c.Train}, {"val", c.Val}, {"tune", c.Tune}} {
		if p.n < 0 || p.n >= maxPart {
			return fmt.Errorf("world: %s must be between 0 and %d photos, got %d", p.name, maxPart-1, p.n)
		}
	}
	if c.Photos() == 0 {
		return errors.New("world: pretrain, train, val and tune are all 0: there is nothing to write")
	}
	return nil
}

// Photos returns the number of photos in all parts.
func (c Config) Photos() int { return c.Pretrain + c.Train + c.Val + c.Tune }

// part describes how a part is stored.
type part struct {
	part     Part
	n        int
	photos   string // folder
	prefix   string // prefix of the photos' names
	captions string // file
	firstID  int64
}

func (c Config) parts() []part {
	var out []part
	for _, p := range []part{
		{Pretrain, c.Pretrain, "pretrain", "pretrain_", "pretrain/captions_pretrain.json", 2*maxPart + 1},
		{Train, c.Train, "train2014", "COCO_train2014_", "annotations/captions_train2014.json", 1},
		{Val, c.Val, "val2014", "COCO_val2014_", "annotations/captions_val2014.json", maxPart + 1},
		{Tune, c.Tune, "tune2014", "COCO_tune2014_", "annotations/captions_tune2014.json", 3*maxPart + 1},
	} {
		if p.n > 0 {
			out = append(out, p)
		}
	}
	return out
}

func (p part) id(i int) int64    { return p.firstID + int64(i) }
func (p part) name(i int) string { return fmt.Sprintf("%s%012d.jpg", p.prefix, p.id(i)) }

// scene returns photo i of a part; it does not depend on the sizes of the parts.
func (c Config) scene(p part, i int) Scene {
	s := Sample(c.rng(p, i, 0), p.part)
	s.Pixels = c.Size
	if c.Bare {
		s.Items = slices.DeleteFunc(s.Items, func(it Item) bool { return it.Group >= len(s.Groups) })
		s.Others = nil
	}
	return s
}

// Write writes a data set to a folder, which it creates if necessary:
//
//	world.json                              the Config, written last
//	pretrain/pretrain_000020000001.jpg      photos
//	pretrain/captions_pretrain.json         their captions
//	train2014/COCO_train2014_000000000001.jpg
//	val2014/COCO_val2014_000010000001.jpg
//	annotations/captions_train2014.json
//	annotations/captions_val2014.json
//	tune2014/, annotations/captions_tune2014.json
//
// A data set without world.json is unfinished; calling Write again with the same
// Config resumes it. Write leaves a finished data set with the same Config as it
// is. A folder that holds a data set with another Config or any other files is
// an error, and so is one that another process is writing to.
//
// Write uses all cores. progress may be nil; otherwise it is called after every
// photo, never concurrently.
func Write(ctx context.Context, dir string, c Config, progress func(done, total int)) (err error) {
	if err := c.Check(); err != nil {
		return err
	}
	if progress == nil {
		progress = func(int, int) {}
	}
	manifest, err := json.MarshalIndent(Manifest{Version, c}, "", "  ")
	if err != nil {
		return err
	}
	manifest = append(manifest, '\n')
	finished, unlock, err := claim(dir, c, manifest)
	if err != nil || finished {
		return err
	}
	defer unlock()

	for _, p := range c.parts() {
		for _, d := range []string{p.photos, filepath.Dir(p.captions)} {
			if err := os.MkdirAll(filepath.Join(dir, d), 0o777); err != nil {
				return fmt.Errorf("world: %w", err)
			}
		}
	}
	if err := writePhotos(ctx, dir, c, progress); err != nil {
		return err
	}
	for _, p := range c.parts() {
		err := writeFile(filepath.Join(dir, p.captions), func(w io.Writer) error { return c.captions(ctx, p, w) })
		if err != nil {
			return err
		}
	}
	// The photos were not synced one by one, which would take longer than
	// drawing them. They must be on disk before the manifest says so.
	if err := syncAll(dir); err != nil {
		return fmt.Errorf("world: cannot sync %s to disk: %w", dir, err)
	}
	if err := os.Rename(filepath.Join(dir, unfinished), filepath.Join(dir, manifestName)); err != nil {
		return fmt.Errorf("world: %w", err)
	}
	return nil // if a power failure undoes the rename, the next run repeats it
}

// claim reserves a folder for a Config until unlock is called. finished means
// that there is nothing to do.
func claim(dir string, c Config, manifest []byte) (finished bool, unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return false, nil, fmt.Errorf("world: %w", err)
	}
	if finished, err = matches(filepath.Join(dir, manifestName), c); finished || err != nil {
		return finished, nil, err
	}
	path := filepath.Join(dir, unfinished)
	begun, err := matches(path, c)
	if err != nil {
		return false, nil, err
	}
	if !begun {
		list, err := os.ReadDir(dir)
		if err != nil {
			return false, nil, fmt.Errorf("world: %w", err)
		}
		// Left by a process that was killed at the start.
		list = slices.DeleteFunc(list, func(e fs.DirEntry) bool { return e.Name() == "."+unfinished+".tmp" })
		if len(list) > 0 {
			return false, nil, fmt.Errorf("world: %s contains other files (%s) but no %s: choose a new or empty folder", dir, list[0].Name(), manifestName)
		}
		err = writeFile(path, func(w io.Writer) error { _, err := w.Write(manifest); return err })
		if err != nil {
			return false, nil, err
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return false, nil, fmt.Errorf("world: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return false, nil, fmt.Errorf("world: %s is being written by another process: wait for it or choose another folder", dir)
	}
	return false, func() { f.Close() }, nil
}

// matches reports whether there is a manifest; one with another Config is an error.
func matches(path string, c Config) (bool, error) {
	data, err := regular.Read(path, 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("world: %w", err)
	}
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return false, fmt.Errorf("world: %s is not the manifest of a world (%w): choose another folder", path, jsonerror.Words(err))
	}
	switch {
	case m.Config != c:
		return false, fmt.Errorf("world: %s belongs to a different world (%v, want %v): delete the folder or choose another", path, m.Config, c)
	case m.Version != Version:
		return false, fmt.Errorf("world: %s has version %d of the drawings, but this program writes version %d: delete the folder or choose another", path, m.Version, Version)
	}
	return true, nil
}

func (c Config) String() string {
	return fmt.Sprintf("seed %d, size %d, pretrain %d, train %d, val %d, tune %d", c.Seed, c.Size, c.Pretrain, c.Train, c.Val, c.Tune)
}

// writePhotos draws all photos, with one worker per core.
func writePhotos(ctx context.Context, dir string, c Config, progress func(done, total int)) error {
	total := c.Photos()
	parts := c.parts()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var mu sync.Mutex
	done := 0
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			e := &easel{canvas: newCanvas(c.Size)}
			for ctx.Err() == nil {
				i := int(next.Add(1) - 1)
				if i >= total {
					return
				}
				k := 0
				for i >= parts[k].n {
					i -= parts[k].n
					k++
				}
				if err := c.photo(filepath.Join(dir, parts[k].photos, parts[k].name(i)), parts[k], i, e); err != nil {
					cancel(err)
					return
				}
				mu.Lock()
				done++
				progress(done, total)
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return nil
}

// photo writes a photo, unless an interrupted run has already written it.
func (c Config) photo(path string, p part, i int, e *easel) error {
	if whole(path) {
		return nil
	}
	if err := e.draw(c.scene(p, i)); err != nil {
		return fmt.Errorf("world: %s: %w", path, err)
	}
	// The temporary name is always the same, so that a killed process leaves
	// nothing behind.
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp")
	err := os.WriteFile(temp, e.jpeg.Bytes(), 0o666)
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		os.Remove(temp)
		return fmt.Errorf("world: cannot write %s: %w", path, atomicfile.Plain(err))
	}
	return nil
}

// whole reports whether a photo exists and has both its start and its end: after
// a power failure a file may be shorter than what was written.
func whole(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var start, end [2]byte
	if _, err := f.ReadAt(start[:], 0); err != nil {
		return false
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil || size < 4 {
		return false
	}
	_, err = f.ReadAt(end[:], size-2)
	return err == nil && start == [2]byte{0xff, 0xd8} && end == [2]byte{0xff, 0xd9}
}

// imageEntry and annotationEntry are COCO's entries, with "world" added.
type imageEntry struct {
	ID       int64  `json:"id"`
	FileName string `json:"file_name"`
	Width    int    `json:"width"`
	Height   int    `json:"height"`
	World    Photo  `json:"world"`
}

type annotationEntry struct {
	ID      int64  `json:"id"`
	ImageID int64  `json:"image_id"`
	Caption string `json:"caption"`
}

// captions writes the captions file of a part. It generates the scenes again,
// which is fast, instead of keeping them.
func (c Config) captions(ctx context.Context, p part, w io.Writer) error {
	b := bufio.NewWriterSize(w, 1<<16)
	var failed error
	list := func(entries func(i int, entry func(v any))) {
		first := true
		for i := 0; i < p.n && failed == nil; i++ {
			failed = ctx.Err()
			entries(i, func(v any) {
				if !first {
					b.WriteString(",\n")
				}
				first = false
				data, err := json.Marshal(v)
				if err != nil {
					failed = err
				}
				b.Write(data)
			})
		}
	}
	fmt.Fprintf(b, "{\"info\": {\"description\": \"cyclecap's world: drawn photos with captions from a grammar\", \"version\": \"%d\", \"seed\": %d},\n\"images\": [\n", Version, c.Seed)
	list(func(i int, entry func(any)) {
		entry(imageEntry{p.id(i), p.name(i), c.Size, c.Size, c.scene(p, i).Photo()})
	})
	b.WriteString("\n],\n\"annotations\": [\n")
	list(func(i int, entry func(any)) {
		for k, caption := range c.scene(p, i).Captions(c.rng(p, i, 1), CaptionsEach) {
			entry(annotationEntry{p.id(i)*CaptionsEach + int64(k), p.id(i), caption})
		}
	})
	b.WriteString("\n]}\n")
	return errors.Join(failed, b.Flush())
}

// writeFile writes a file atomically.
func writeFile(path string, content func(w io.Writer) error) error {
	f, err := os.OpenFile(filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o666)
	if err != nil {
		return fmt.Errorf("world: cannot write %s: %w", path, atomicfile.Plain(err))
	}
	err = content(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("world: cannot write %s: %w", path, atomicfile.Plain(err))
	}
	return nil
}
