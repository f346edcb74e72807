package experiment

import (
	"context"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cyclecap/experiment/config"
	"cyclecap/experiment/report"
)

// few runs the small experiment with two bridges.
func few(t *testing.T, dir string, change func(*Experiment), last string, sets ...string) (*Experiment, *quiet, error) {
	t.Helper()
	return variantsOf(t, dir, "", last, change, append([]string{"bridges.use=[direct,cyclegan,meanshift]"}, sets...)...)
}

// TestWorlds runs two worlds with two seeds after a run with one of each, which must be
// continued in the same folders.
func TestWorlds(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := few(t, dir, func(*Experiment) {}, "caption"); err != nil {
		t.Fatal(err)
	}
	two := func(x *Experiment) { x.Seeds, x.Worlds = 2, 2 }
	_, q, err := few(t, dir, two, "features")
	if err != nil {
		t.Fatal(err)
	}
	said := strings.Join(q.said, "\n")
	for _, s := range []string{"world", "clip", "gpt2", "features/val-texts"} {
		q.has(t, s+": unchanged, skipped")
		q.has(t, "world-1/"+s)
		if strings.Contains(said, "world-1/"+s+": unchanged") {
			t.Errorf("%s of the second world did not run", s)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "world-1", "seed-0")); err == nil {
		t.Error("the run did not stop after the features")
	}
	x, q, err := few(t, dir, two, "")
	if err != nil {
		t.Fatal(err)
	}
	q.has(t, "seed-0/captions-cyclegan: unchanged, skipped")
	q.has(t, "world-1/features/train-images: unchanged, skipped")
	q.has(t, "world-1/seed-1/captions-cyclegan")

	var scores struct {
		Bridges     map[string]map[string]report.Score
		Differences []report.Difference
		Images      int
	}
	if err := readJSON(filepath.Join(dir, "evaluate", "scores.json"), &scores); err != nil {
		t.Fatal(err)
	}
	s := scores.Bridges["cyclegan"]["BLEU-1"]
	if len(s.Seeds) != 4 || len(s.Worlds) != 2 || scores.Images != 12 || s.Interval == nil {
		t.Fatalf("%+v of %d photos", s, scores.Images)
	}
	if math.Abs(s.Worlds[1]-(s.Seeds[2]+s.Seeds[3])/2) > 1e-15 || s.Value() < s.Interval.Low || s.Value() > s.Interval.High {
		t.Errorf("%+v", s)
	}
	// Every two of three bridges, in six metrics.
	if len(scores.Differences) != 18 {
		t.Errorf("%d differences", len(scores.Differences))
	}
	for _, d := range scores.Differences {
		if d.Holm < d.P || d.P <= 0 || d.Holm > 1 || d.Bridge == "direct" {
			t.Errorf("%+v", d)
		}
	}
	table, err := os.ReadFile(filepath.Join(dir, "table.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"2 rendered worlds (seeds 0 to 1, 6 validation photos each) · 12 evaluated images", "the mean over 2 worlds with 2 seeds each", " ± "} {
		has(t, string(table), want)
	}

	// The plan has the work of all worlds and seeds.
	_, lines, err := x.plan(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range lines {
		want := map[string]int{"clip": 2, "gpt2": 2, "features": 2, "decoder": 4, "cyclegan": 4, "caption": 12}[p.name]
		if p.times != want {
			t.Errorf("%s: %d times, want %d", p.name, p.times, want)
		}
	}

	// Existing data are the same in every world.
	for _, sets := range [][]string{{"data.val_annotations=x.json", "data.val_images=x"}, {"data.photos=p", "data.captions=c"}} {
		_, _, err := few(t, t.TempDir(), two, "", append(sets, "bridges.use=[direct,cyclegan]")...)
		wants(t, err, "not part of the rendered data set")
	}
	none, _ := experiment(t, plain(t))
	none.Worlds = 2
	wants(t, none.Plan(context.Background(), io.Discard, ""), "2 worlds: the configuration has no [world]")
}

// TestOtherTexts trains on the captions of other scenes, more than there are photos.
func TestOtherTexts(t *testing.T) {
	dir := t.TempDir()
	x, _, err := few(t, dir, func(*Experiment) {}, "caption", "world.texts=30", "world.text_seed=2", "data.caption_limit=100", "data.photo_limit=20")
	if err != nil {
		t.Fatal(err)
	}
	if n := len(x.data.train.texts); n != 150 || x.data.paired() || len(x.data.train.photos) != 24 {
		t.Errorf("%d captions and %d photos, paired: %v", n, len(x.data.train.photos), x.data.paired())
	}
	_, q, err := few(t, dir, func(*Experiment) {}, "caption", "world.texts=30", "world.text_seed=2", "data.caption_limit=100", "data.photo_limit=22")
	if err != nil {
		t.Fatal(err)
	}
	// Another number of photos concerns no text decoder and renders no world again.
	for _, s := range []string{"world", "clip", "features/train-images", "seed-0/decoder-texts"} {
		q.has(t, s+": unchanged, skipped")
	}
	q.has(t, "seed-0/cyclegan: settings or inputs have changed")
}

// TestSelections checks the photos and captions for unpaired training.
func TestSelections(t *testing.T) {
	ids := func(rows []int32) map[int32]bool {
		m := map[int32]bool{}
		for _, r := range rows {
			m[r] = true
		}
		return m
	}
	split := func(change func(*config.Data)) (images, texts map[int32]bool) {
		c := plain(t)
		change(&c.Data)
		x, _ := experiment(t, c)
		x.data = &data{}
		f := &featureSets{}
		for i := range 41 {
			x.data.train.photos = append(x.data.train.photos, photoFile{id: int64(i)})
			x.data.train.texts = append(x.data.train.texts, "")
			x.data.train.textImage = append(x.data.train.textImage, int64(i))
			f.trainImageIDs = append(f.trainImageIDs, int64(i))
		}
		f.trainImages, f.trainTexts = noise(41, 2), noise(41, 2)
		x.split(f)
		return ids(f.imageRows), ids(f.textRows)
	}
	common := func(a, b map[int32]bool) (n int) {
		for i := range a {
			if b[i] {
				n++
			}
		}
		return n
	}
	first, _ := split(func(d *config.Data) { d.Pairing = "disjoint" })
	for overlap, want := range map[float64]int{0: 0, 0.25: 5, 0.5: 10, 1: 20} {
		images, texts := split(func(d *config.Data) { d.Pairing, d.Overlap = "disjoint", overlap })
		if len(images) != 20 || len(texts) != 21 || common(images, texts) != want || common(images, first) != 20 {
			t.Errorf("overlap %g: %d images, %d texts, %d of both", overlap, len(images), len(texts), common(images, texts))
		}
	}
	images, texts := split(func(d *config.Data) { d.PhotoLimit, d.CaptionLimit = 7, 9 })
	if len(images) != 7 || len(texts) != 9 {
		t.Errorf("%d images, %d texts", len(images), len(texts))
	}
	images, texts = split(func(d *config.Data) { d.Pairing, d.PhotoLimit, d.CaptionLimit = "disjoint", 7, 9 })
	if len(images) != 7 || len(texts) != 9 || common(images, texts) != 0 || common(images, first) != 7 {
		t.Errorf("disjoint: %d images, %d texts, %d of both", len(images), len(texts), common(images, texts))
	}
	if images, texts := split(func(*config.Data) {}); len(images)+len(texts) != 0 {
		t.Error("a selection without settings")
	}
}

// TestWorldsVocabulary checks that the GPT-2 of each world has the words of its own captions.
func TestWorldsVocabulary(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "x.toml"), "[world]\nsize = 32\npretrain = 130\ntrain = 10\nval = 4\n")
	in := func(seed string) *Experiment {
		c, err := config.Load(path, []string{"output=" + t.TempDir(), "train.decoder.batch=8", "train.cyclegan.batch=8", "world.seed=" + seed})
		if err != nil {
			t.Fatal(err)
		}
		x, _ := experiment(t, c)
		return x
	}
	x := in("5")
	x.Worlds = 2
	first := x.vocabulary().Fingerprint()
	second, err := x.inWorld(1)
	if err != nil {
		t.Fatal(err)
	}
	if want := in("6").vocabulary().Fingerprint(); second.vocabulary().Fingerprint() != want || want == first {
		t.Errorf("the second world has the vocabulary %s, want %s; the first has %s", second.vocabulary().Fingerprint(), want, first)
	}
}
