package experiment

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cyclecap/data/clipcap"
	"cyclecap/data/coco"
	"cyclecap/data/features"
	"cyclecap/experiment/config"
)

// quiet is a UI that records its messages.
type quiet struct{ said []string }

func (q *quiet) Say(format string, args ...any) {
	q.said = append(q.said, fmt.Sprintf(format, args...))
}
func (q *quiet) Bar(string, int, int) Bar      { return noBar{} }
func (q *quiet) Atomic(f func() error) error   { return f() }
func (q *quiet) has(t *testing.T, want string) { t.Helper(); has(t, strings.Join(q.said, "\n"), want) }
func has(t *testing.T, text, want string) {
	t.Helper()
	if !strings.Contains(text, want) {
		t.Errorf("%q is not in:\n%s", want, text)
	}
}
func wants(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error; want %s", want)
	} else {
		has(t, err.Error(), want)
	}
}

type noBar struct{}

func (noBar) Set(int, string) {}
func (noBar) Finish()         {}

func experiment(t *testing.T, c *config.Config) (*Experiment, *quiet) {
	t.Helper()
	q := &quiet{}
	dir := t.TempDir()
	return &Experiment{Config: c, Dir: dir, Seeds: 1, UI: q, contents: openContents(dir, q.Say), log: &stageLog{took: map[string]float64{}, skipped: map[string]bool{}}}, q
}

// plain returns a config of defaults, without [world].
func plain(t *testing.T) *config.Config {
	t.Helper()
	c, err := config.Load(write(t, filepath.Join(t.TempDir(), "plain.toml"), "[world]\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	c.World, c.Data.TrainAnnotations, c.Data.TrainImages, c.Data.ValAnnotations, c.Data.ValImages = nil, "", "", "", ""
	return c
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestStages checks that a stage runs once for its inputs, that other inputs move the old
// results to another folder, and that files of an interrupted run are removed unless the
// stage continues from them.
func TestStages(t *testing.T) {
	x, q := experiment(t, plain(t))
	runs := 0
	var fail error
	do := func(_ context.Context, dir string) error {
		runs++
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("run", runs)), nil, 0o666); err != nil {
			return err
		}
		return fail
	}
	stageOf := func(settings ...any) *stage { return &stage{name: "s", dir: "a/s", settings: settings, do: do} }
	ctx := context.Background()
	run := func(s *stage, want int) {
		t.Helper()
		if err := x.run(ctx, s); !errors.Is(err, fail) {
			t.Fatal(err)
		}
		if runs != want {
			t.Fatalf("it ran %d times, want %d", runs, want)
		}
	}
	there := func(path string, want bool) {
		t.Helper()
		if _, err := os.Stat(filepath.Join(x.Dir, path)); (err == nil) != want {
			t.Errorf("%s exists: %v", path, !want)
		}
	}
	run(stageOf(1, "a"), 1)
	run(stageOf(1, "a"), 1)
	q.has(t, "a/s: unchanged, skipped")
	run(stageOf(1, "b"), 2)
	q.has(t, "settings or inputs have changed")
	there("a/s.previous/run1", true)
	there("a/s/run1", false)
	fail = errors.New("broken")
	run(stageOf(2), 3)
	there("a/s/stage.json", false)
	run(stageOf(2), 4)
	there("a/s/run3", false)
	keeps := func() *stage {
		s := stageOf(2)
		s.keeps = true
		return s
	}
	run(keeps(), 5)
	there("a/s/run4", true)
	fail = nil
	run(keeps(), 6)
	there("a/s/stage.json", true)
	write(t, filepath.Join(x.Dir, "a/s/stage.json"), "{")
	run(keeps(), 7)
	q.has(t, "stage.json is damaged")
	there("a/s.previous/run6", true)
	over, cancel := context.WithCancel(ctx)
	cancel()
	if err := x.run(over, stageOf(3)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestTwoRunsInOneFolder(t *testing.T) {
	x, _ := experiment(t, plain(t))
	done, err := x.Open()
	if err != nil {
		t.Fatal(err)
	}
	_, err = x.Open()
	wants(t, err, "another run is using this folder")
	done()
	if done, err = x.Open(); err != nil {
		t.Fatal(err)
	}
	done()
	if b, err := os.ReadFile(filepath.Join(x.Dir, "config.toml")); err != nil || !strings.Contains(string(b), "[train.cyclegan]") {
		t.Errorf("the resolved config is %q (%v)", b, err)
	}
}

func cocoFile(images, captions int) string {
	type object = map[string]any
	var list, texts []object
	for i := range images {
		list = append(list, object{"id": i + 1, "file_name": fmt.Sprintf("%d.jpg", i+1)})
	}
	for i := range captions {
		texts = append(texts, object{"id": i, "image_id": i%images + 1, "caption": fmt.Sprintf("A caption %d.", i)})
	}
	b, _ := json.Marshal(object{"images": list, "annotations": texts})
	return string(b)
}

func TestData(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	train := write(t, at("train.json"), cocoFile(4, 10))
	val := write(t, at("val.json"), cocoFile(6, 12))
	karpathy := write(t, at("karpathy.json"), `{"dataset": "coco", "images": [
		{"filepath": "train2014", "filename": "a.jpg", "split": "train", "cocoid": 1, "sentences": [{"raw": "One."}, {"raw": " "}]},
		{"filepath": "val2014", "filename": "b.jpg", "split": "restval", "cocoid": 2, "sentences": [{"raw": "Two."}]},
		{"filepath": "val2014", "filename": "c.jpg", "split": "val", "cocoid": 3, "sentences": [{"raw": "Three."}]},
		{"filepath": "val2014", "filename": "d.jpg", "split": "test", "cocoid": 4, "sentences": [{"raw": "Four."}, {"raw": "Five."}]}]}`)
	write(t, at("photos/b.PNG"), "")
	write(t, at("photos/a.jpg"), "")
	write(t, at("photos/notes.txt"), "")
	lines := write(t, at("captions.txt"), "A dog.\n\n  A cat. \n")
	base := func() config.Data {
		return config.Data{TrainAnnotations: train, TrainImages: "t", ValAnnotations: val, ValImages: "v", MaxBad: 0.5}
	}
	load := func(change func(*config.Data)) (*data, error) {
		c := plain(t)
		c.Data = base()
		change(&c.Data)
		x, _ := experiment(t, c)
		return x.loadData()
	}

	d, err := load(func(*config.Data) {})
	if err != nil {
		t.Fatal(err)
	}
	if len(d.train.photos) != 4 || len(d.train.texts) != 10 || !d.paired() || d.train.photos[1].path != "t/2.jpg" || d.train.textImage[5] != 2 {
		t.Errorf("%+v", d.train)
	}
	if refs := d.val.references(); len(refs[coco.Int(1)]) != 2 || refs[coco.Int(1)][1] != "A caption 6." {
		t.Errorf("%v", refs)
	}

	d, err = load(func(c *config.Data) { c.ValLimit = 2 })
	if err != nil || len(d.val.photos) != 2 || len(d.val.texts) != 4 || d.val.photos[0].id >= d.val.photos[1].id {
		t.Errorf("%+v, %v", d.val, err)
	}

	d, err = load(func(c *config.Data) { c.Karpathy = karpathy })
	if err != nil {
		t.Fatal(err)
	}
	if len(d.train.photos) != 2 || d.train.photos[1].path != "v/b.jpg" || len(d.train.texts) != 2 || len(d.val.texts) != 2 || d.val.photos[0].id != 4 {
		t.Errorf("%+v", d)
	}

	table := write(t, at("captions.tsv"), "A dog.\thttp://a\nA cat.\thttp://b\n") // it has image ids, which are not those of the photos
	for _, captions := range []string{lines, table} {
		d, err = load(func(c *config.Data) { c.Photos, c.Captions = at("photos"), captions })
		if err != nil {
			t.Fatal(err)
		}
		if len(d.train.photos) != 2 || d.train.photos[1].path != at("photos/b.PNG") || d.train.texts[1] != "A cat." || d.paired() {
			t.Errorf("%s: %+v", captions, d.train)
		}
	}

	const pkl = "../data/clipcap/testdata/clipcap.pkl"
	d, err = load(func(c *config.Data) { c.ClipCap = pkl })
	if err != nil {
		t.Fatal(err)
	}
	read, err := clipcap.Open(pkl)
	if err != nil {
		t.Fatal(err)
	}
	unique := map[coco.ID]int{}
	for _, c := range slices.Backward(read.Captions) {
		unique[c.ImageID] = c.Row
	}
	if len(d.train.photos) != len(unique) || len(d.train.texts) != len(read.Captions) || !d.paired() {
		t.Errorf("%+v", d.train)
	}
	if err := copyStored(t.Context(), at("stored"), d.train, "model", "id", 0, nil); err != nil {
		t.Fatal(err)
	}
	stored, err := features.Open(at("stored"))
	if err != nil {
		t.Fatal(err)
	}
	for i, id := range stored.IDs() {
		have, want := make([]float32, stored.Width()), make([]float32, read.Width)
		if err := errors.Join(stored.Read([]int32{int32(i)}, have), read.Read(unique[coco.Int(id)], want)); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(have, want) {
			t.Errorf("photo %d: got %v, want %v", id, have, want)
		}
	}

	// One of the two photos has a feature that is NaN, the other one zeros.
	d, err = load(func(c *config.Data) { c.ClipCap = "../data/clipcap/testdata/clipcap-broken.pkl" })
	if err != nil {
		t.Fatal(err)
	}
	err = copyStored(t.Context(), at("broken"), d.train, "model", "id", 0.5, t.Logf)
	for _, want := range []string{"2 of 2 features", "data.max_bad = 0.5", "row 0 of", "image id 318556: value 5 of 6 is NaN", "row 1 of", "image id 116100: all 6 values are 0"} {
		wants(t, err, want)
	}
	var said string
	err = copyStored(t.Context(), at("broken"), d.train, "model", "id", 1, func(format string, args ...any) { said = fmt.Sprintf(format, args...) })
	if err != nil {
		t.Fatal(err)
	}
	skipped, err := features.Open(at("broken"))
	if err != nil {
		t.Fatal(err)
	}
	if skipped.Len() != 0 || len(skipped.Skipped) != 2 || !strings.Contains(said, "skipped 2 of 2 features") {
		t.Errorf("%d rows, %d skipped, said %q", skipped.Len(), len(skipped.Skipped), said)
	}
	if err := (normalized{zeros{}}).Read([]int32{4}, make([]float32, 3)); err == nil || !strings.Contains(err.Error(), "row 4 of the features") {
		t.Errorf("a feature of length 0 is normalized: %v", err)
	}

	bad := func(name, text string) string { return write(t, at(name), text) }
	for _, c := range []struct {
		change func(*config.Data)
		want   string
	}{
		{func(c *config.Data) { c.TrainAnnotations = bad("cut.json", cocoFile(4, 10)[:100]) }, "cut.json"},
		{func(c *config.Data) {
			c.MaxBad = 0.05
			c.TrainAnnotations = bad("unknown.json", strings.Replace(cocoFile(4, 10), `"image_id":3`, `"image_id":99`, 1))
		}, "1 of 10 captions"},
		{func(c *config.Data) { c.ValAnnotations = at("missing.json") }, "missing.json"},
		{func(c *config.Data) { c.Karpathy = bad("cut2.json", `{"images": [{"split": "train"`) }, "cut2.json:1:30: broken JSON: unexpected end"},
		{func(c *config.Data) { c.Karpathy = bad("no.json", `{"annotations": []}`) }, `no.json: no "images"`},
		{func(c *config.Data) { c.ClipCap = bad("cut.pkl", "\x80\x04") }, "cut.pkl"},
		{func(c *config.Data) { c.Photos, c.Captions = at("photos"), bad("empty.txt", "\n") }, "empty.txt: no captions in this file"},
	} {
		_, err := load(c.change)
		wants(t, err, c.want)
	}
}

// zeros is features of length 0.
type zeros struct{}

func (zeros) Len() int   { return 5 }
func (zeros) Width() int { return 3 }
func (zeros) Read(rows []int32, dst []float32) error {
	clear(dst[:3*len(rows)])
	return nil
}
