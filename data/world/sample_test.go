package world_test

import (
	"context"
	"encoding/json"
	"errors"
	"image/jpeg"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"cyclecap/data/coco"
	"cyclecap/data/world"

	"github.com/google/go-cmp/cmp"
)

func sample(t *testing.T, dir string, seed uint64, size, n int) map[string][32]byte {
	t.Helper()
	if err := world.WriteSample(t.Context(), dir, seed, size, n); err != nil {
		t.Fatal(err)
	}
	return files(t, dir)
}

func TestSampleIsReproducible(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "folder")
	first := sample(t, dir, 3, 40, 20)
	if len(first) != 21 {
		t.Fatalf("%d files", len(first))
	}
	was := runtime.GOMAXPROCS(1)
	if diff := cmp.Diff(first, sample(t, t.TempDir(), 3, 40, 20)); diff != "" {
		t.Errorf("a second run wrote other files (-first +second):\n%s", diff)
	}
	runtime.GOMAXPROCS(was)
	// An unfinished sample is completed, and a finished one left as it is.
	for _, name := range []string{"000040000003.jpg", "000040000020.jpg"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "000040000001.jpg"), []byte{0xff, 0xd8}, 0o666); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if diff := cmp.Diff(first, sample(t, dir, 3, 40, 20)); diff != "" {
			t.Errorf("completed (-first +completed):\n%s", diff)
		}
	}
	// A smaller sample has the same photos; another seed has others.
	smaller := sample(t, t.TempDir(), 3, 40, 5)
	other := sample(t, t.TempDir(), 4, 40, 20)
	for name, sum := range first {
		if s, ok := smaller[name]; ok && s != sum && name != "captions.json" {
			t.Errorf("%s depends on the size of the sample", name)
		}
		if other[name] == sum {
			t.Errorf("%s does not depend on the seed", name)
		}
	}
	// No photo is one of a data set with the same seed.
	all := t.TempDir()
	write(t, all, small)
	sums := map[[32]byte]string{}
	for name, sum := range files(t, all) {
		sums[sum] = name
	}
	for name, sum := range first {
		if twin, ok := sums[sum]; ok {
			t.Errorf("%s is %s of the data set", name, twin)
		}
	}
}

func TestSampleIsCOCO(t *testing.T) {
	dir := t.TempDir()
	sample(t, dir, 0, 48, 40)
	d, err := coco.Read(filepath.Join(dir, "captions.json"))
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Images) != 40 || len(d.Annotations) != 40*world.CaptionsEach {
		t.Errorf("%d images, %d captions", len(d.Images), len(d.Annotations))
	}
	for _, image := range d.Images {
		if id, ok := coco.FileID(image.FileName); !ok || id != image.ID {
			t.Errorf("%s does not have the id of image %s", image.FileName, image.ID)
		}
		f, err := os.Open(filepath.Join(dir, image.FileName))
		if err != nil {
			t.Fatal(err)
		}
		size, err := jpeg.DecodeConfig(f)
		f.Close()
		if err != nil || size.Width != 48 || size.Height != 48 {
			t.Errorf("%s: %d x %d (%v)", image.FileName, size.Width, size.Height, err)
		}
	}
	// Scenes of the training parts never have a combination that is held out.
	data, err := os.ReadFile(filepath.Join(dir, "captions.json"))
	if err != nil {
		t.Fatal(err)
	}
	var with struct {
		Images []struct {
			World struct {
				HeldOut []string `json:"held_out"`
			}
		}
	}
	if err := json.Unmarshal(data, &with); err != nil {
		t.Fatal(err)
	}
	unseen := 0
	for _, image := range with.Images {
		if len(image.World.HeldOut) > 0 {
			unseen++
		}
	}
	if unseen < 3 || unseen > 16 {
		t.Errorf("%d of 40 scenes contain a combination that is held out", unseen)
	}
}

func TestSampleErrors(t *testing.T) {
	dir := t.TempDir()
	sample(t, dir, 1, 32, 2)
	before := files(t, dir)
	full := t.TempDir()
	write(t, full, small)
	file := filepath.Join(dir, "000040000001.jpg")
	for _, c := range []struct {
		dir     string
		seed    uint64
		size, n int
		want    string
	}{
		{dir, 2, 32, 2, "belongs to another sample"},
		{dir, 1, 32, 3, "belongs to another sample"},
		{full, 1, 32, 2, "contains other files"},
		{file, 1, 32, 2, file},
		{dir, 1, 32, 0, "sample must be between 1 and 10000 photos, got 0"},
		{dir, 1, 32, 10001, "got 10001"},
		{dir, 1, 31, 2, "size must be between 32 and 1024"},
	} {
		if err := world.WriteSample(t.Context(), c.dir, c.seed, c.size, c.n); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if diff := cmp.Diff(before, files(t, dir)); diff != "" {
		t.Errorf("a refused sample changed the folder:\n%s", diff)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := world.WriteSample(ctx, filepath.Join(dir, "sub"), 1, 32, 2); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
