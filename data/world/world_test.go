package world_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"image/jpeg"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"cyclecap/data/coco"
	"cyclecap/data/world"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var small = world.Config{Seed: 3, Size: 40, Pretrain: 30, Train: 20, Val: 20}

func write(t *testing.T, dir string, c world.Config) {
	t.Helper()
	if err := world.Write(t.Context(), dir, c, nil); err != nil {
		t.Fatal(err)
	}
}

// files returns the hashes of all files below a folder.
func files(t *testing.T, dir string) map[string][32]byte {
	t.Helper()
	out := map[string][32]byte{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		out[rel] = sha256.Sum256(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestWriteIsReproducible(t *testing.T) {
	a, b, other := t.TempDir(), filepath.Join(t.TempDir(), "new", "folder"), t.TempDir()
	write(t, a, small)
	was := runtime.GOMAXPROCS(1)
	write(t, b, small)
	runtime.GOMAXPROCS(was)
	first := files(t, a)
	if diff := cmp.Diff(first, files(t, b)); diff != "" {
		t.Errorf("a second run wrote other files (-first +second):\n%s", diff)
	}
	if n := len(first); n != 70+3+1 {
		t.Errorf("%d files", n)
	}
	// No photo occurs twice.
	seen := map[[32]byte]string{}
	for name, sum := range first {
		if twin, ok := seen[sum]; ok {
			t.Errorf("%s and %s are equal", name, twin)
		}
		seen[sum] = name
	}
	// Another seed changes everything; another size of a part leaves the rest unchanged.
	c := small
	c.Seed++
	write(t, other, c)
	for name, sum := range files(t, other) {
		if sum == first[name] {
			t.Errorf("%s doesn't depend on the seed", name)
		}
	}
	c, other = small, t.TempDir()
	c.Pretrain, c.Train = 0, 30
	write(t, other, c)
	for name, sum := range files(t, other) {
		if strings.HasPrefix(name, "pretrain") {
			t.Errorf("%s is of a part of 0", name)
		}
		if want, ok := first[name]; ok && sum != want && name != "world.json" && name != "annotations/captions_train2014.json" {
			t.Errorf("%s depends on the size of another part", name)
		}
	}
}

func TestFilesAreCOCO(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, small)
	ids, annotations := map[coco.ID]bool{}, map[coco.ID]bool{}
	for _, p := range []struct {
		photos, captions, first string
		n                       int
	}{
		{"pretrain", "pretrain/captions_pretrain.json", "pretrain_000020000001.jpg", 30},
		{"train2014", "annotations/captions_train2014.json", "COCO_train2014_000000000001.jpg", 20},
		{"val2014", "annotations/captions_val2014.json", "COCO_val2014_000010000001.jpg", 20},
	} {
		d, err := coco.Read(filepath.Join(dir, p.captions))
		if err != nil {
			t.Fatal(err)
		}
		if len(d.Images) != p.n || len(d.Annotations) != 5*p.n || d.Images[0].FileName != p.first {
			t.Errorf("%s has %d images, the first %s, and %d captions", p.captions, len(d.Images), d.Images[0].FileName, len(d.Annotations))
		}
		captions := d.Captions()
		for _, image := range d.Images {
			if ids[image.ID] {
				t.Errorf("image %s occurs twice", image.ID)
			}
			ids[image.ID] = true
			if len(captions[image.ID]) != 5 {
				t.Errorf("image %s has %d captions", image.ID, len(captions[image.ID]))
			}
			f, err := os.Open(filepath.Join(dir, p.photos, image.FileName))
			if err != nil {
				t.Fatal(err)
			}
			photo, err := jpeg.Decode(f)
			f.Close()
			if err != nil || photo.Bounds().Dx() != 40 || photo.Bounds().Dy() != 40 {
				t.Errorf("%s: %v, %v", image.FileName, photo, err)
			}
		}
		for _, a := range d.Annotations {
			if annotations[a.ID] {
				t.Errorf("annotation %s occurs twice", a.ID)
			}
			annotations[a.ID] = true
		}
	}

	// The entries in addition to COCO's keys.
	data, err := os.ReadFile(filepath.Join(dir, "annotations/captions_val2014.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Images []struct {
			World *struct {
				Objects []struct {
					Kind, Colour, Texture, Size string
					Count                       int
				}
				Relation, Background, Light string
				HeldOut                     []string `json:"held_out"`
			}
		}
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	held := 0
	for i, image := range file.Images {
		w := image.World
		if w == nil || len(w.Objects) == 0 || w.Objects[0].Kind == "" || w.Objects[0].Colour == "" || w.Objects[0].Count < 1 || w.Relation == "" || w.Background == "" || w.HeldOut == nil {
			t.Fatalf("image %d: %+v", i, w)
		}
		if len(w.HeldOut) > 0 {
			held++
		}
	}
	if held < 1 || held > 10 {
		t.Errorf("%d of 20 photos of val have held-out combinations", held)
	}
}

// An interrupted run leaves no manifest; the next run resumes and ends with the same files.
// A third run does nothing.
func TestResume(t *testing.T) {
	want, dir := t.TempDir(), t.TempDir()
	write(t, want, small)
	ctx, cancel := context.WithCancel(t.Context())
	last := 0
	err := world.Write(ctx, dir, small, func(done, total int) {
		if done != last+1 || total != 70 {
			t.Errorf("progress %d of %d after %d", done, total, last)
		}
		last = done
		if done == 25 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("interrupted: %v", err)
	}
	if last < 25 || last > 25+runtime.GOMAXPROCS(0) {
		t.Errorf("%d photos were made after the interruption at 25", last)
	}
	for name := range files(t, dir) {
		if name == "world.json" || strings.HasSuffix(name, ".tmp") {
			t.Errorf("%s is there", name)
		}
	}
	c := small
	c.Val++
	if err := world.Write(t.Context(), dir, c, nil); err == nil || !strings.Contains(err.Error(), "val 20") || !strings.Contains(err.Error(), "val 21") {
		t.Errorf("another config in an unfinished folder: %v", err)
	}

	// One photo was truncated by a power failure, and a process was killed while writing
	// another.
	pretrain := filepath.Join(dir, "pretrain")
	cut := filepath.Join(pretrain, "pretrain_000020000002.jpg")
	if err := os.Truncate(cut, 100); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(pretrain, ".pretrain_000020000029.jpg.tmp"), []byte("half"), 0o666); err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(pretrain, "pretrain_000020000001.jpg")
	before, err := os.Stat(kept)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, small)
	if diff := cmp.Diff(files(t, want), files(t, dir)); diff != "" {
		t.Errorf("after resuming (-want +got):\n%s", diff)
	}
	after, err := os.Stat(kept)
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("a whole photo was written again (%v)", err)
	}

	err = world.Write(t.Context(), dir, small, func(int, int) { t.Error("a finished folder was worked on") })
	if err != nil {
		t.Errorf("a finished folder: %v", err)
	}
	if err := world.Write(t.Context(), dir, c, nil); err == nil || !strings.Contains(err.Error(), "val 20") {
		t.Errorf("another config in a finished folder: %v", err)
	}
}

func TestWriteErrors(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(c *world.Config)
		says   string
	}{
		{"small", func(c *world.Config) { c.Size = 31 }, "size must be between 32 and 1024 pixels, got 31"},
		{"large", func(c *world.Config) { c.Size = 1025 }, "size must be between 32 and 1024 pixels, got 1025"},
		{"negative", func(c *world.Config) { c.Train = -1 }, "train must be between 0 and 9999999 photos, got -1"},
		{"many", func(c *world.Config) { c.Val = 10_000_000 }, "val must be between 0 and 9999999 photos, got 10000000"},
		{"none", func(c *world.Config) { c.Pretrain, c.Train, c.Val = 0, 0, 0 }, "nothing to write"},
	} {
		config := small
		c.change(&config)
		dir := filepath.Join(t.TempDir(), "new")
		err := world.Write(t.Context(), dir, config, nil)
		if err == nil || !strings.Contains(err.Error(), c.says) || !strings.HasPrefix(err.Error(), "world: ") {
			t.Errorf("%s: %v, want one that says %q", c.name, err, c.says)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s: a folder was made", c.name)
		}
	}

	for name, c := range map[string]struct{ file, content, says string }{
		"used":    {"notes.txt", "mine", "notes.txt"},
		"foreign": {"world.json", "[1, 2", "not the manifest"},
		"version": {"world.json", `{"version": 99, "config": {"seed": 3, "size": 40, "pretrain": 30, "train": 20, "val": 20}}`, "version 99"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, c.file), []byte(c.content), 0o666); err != nil {
			t.Fatal(err)
		}
		if err := world.Write(t.Context(), dir, small, nil); err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", name, err)
		}
		if n := len(files(t, dir)); n != 1 {
			t.Errorf("%s: %d files", name, n)
		}
	}

	// A file instead of the folder, and one instead of a folder inside it.
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := world.Write(t.Context(), path, small, nil); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a file instead of a folder: %v", err)
	}

	// Two writers at once.
	dir = t.TempDir()
	one := small
	one.Pretrain, one.Val = 0, 0
	var second error
	err := world.Write(t.Context(), dir, one, func(done, _ int) {
		if done == 1 {
			second = world.Write(t.Context(), dir, one, nil)
		}
	})
	if err != nil || second == nil || !strings.Contains(second.Error(), "another process") {
		t.Errorf("two at once: %v and %v", err, second)
	}
}

// If a photo cannot be written, the error names it.
func TestWriteFails(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	world.Write(ctx, dir, small, func(int, int) { cancel() })
	blocked := filepath.Join(dir, "val2014", "COCO_val2014_000010000007.jpg")
	if err := os.Mkdir(blocked, 0o777); err != nil {
		t.Fatal(err)
	}
	err := world.Write(t.Context(), dir, small, nil)
	if err == nil || !strings.Contains(err.Error(), blocked) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "world.json")); err == nil {
		t.Error("there is a manifest")
	}
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	write(t, dir, small)
}

// TestDrawn compares photos and captions that are drawn in memory with the files.
func TestDrawn(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, small)
	drawn := small.Drawn(world.Pretrain)
	set, err := coco.Read(filepath.Join(dir, "pretrain", "captions_pretrain.json"))
	if err != nil {
		t.Fatal(err)
	}
	if drawn.Len() != len(set.Images) {
		t.Fatalf("%d photos, want %d", drawn.Len(), len(set.Images))
	}
	captions := set.Captions()
	var all sync.WaitGroup
	for i, m := range set.Images {
		if diff := cmp.Diff(captions[m.ID], drawn.Captions(i)); diff != "" {
			t.Errorf("captions of photo %d (-file +drawn):\n%s", i, diff)
		}
		all.Go(func() {
			err := drawn.Photo(i, func(file []byte) error {
				want, err := os.ReadFile(filepath.Join(dir, "pretrain", m.FileName))
				if err == nil && !bytes.Equal(file, want) {
					t.Errorf("photo %d differs from its file", i)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}
