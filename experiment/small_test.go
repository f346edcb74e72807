package experiment

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cyclecap/data/coco"
	"cyclecap/eval/geometry"
	"cyclecap/experiment/config"
	"cyclecap/experiment/report"
	"cyclecap/internal/experimenttest"
	"cyclecap/train"
	"cyclecap/train/bridge"

	"github.com/google/go-cmp/cmp"
)

// small is an experiment of a few steps.
var small = experimenttest.Small

// smallRun runs an experiment of a few steps with every bridge.
func smallRun(t *testing.T, dir string, sets ...string) (*Experiment, *quiet) {
	t.Helper()
	path := write(t, filepath.Join(t.TempDir(), "small.toml"), small)
	var names []string
	for _, b := range bridge.All() {
		names = append(names, b.Name)
	}
	c, err := config.Load(path, append([]string{"output=" + dir, "bridges.use=[" + strings.Join(names, ",") + "]"}, sets...))
	if err != nil {
		t.Fatal(err)
	}
	q := &quiet{}
	x := &Experiment{Config: c, Dir: c.Output, Seeds: 1, UI: q}
	done, err := x.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	if err := x.Execute(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	return x, q
}

// TestSmall runs all stages in seconds. Nothing is learned, but there must be results of
// every bridge, including one that is added by a single file of this test.
func TestSmall(t *testing.T) {
	dir := t.TempDir()
	x, _ := smallRun(t, dir)
	checkPlan(t, x)
	var table map[string]map[string]struct {
		Value *float64
		Low   *float64
	}
	if err := readJSON(filepath.Join(dir, "table.json"), &table); err != nil {
		t.Fatal(err)
	}
	if len(x.bridges) != 10 || len(table) != 10 {
		t.Fatalf("%d bridges and %d rows", len(x.bridges), len(table))
	}
	data, err := os.ReadFile(filepath.Join(dir, "report", gapFile))
	if err != nil {
		t.Fatal(err)
	}
	if cloud, err := geometry.ReadCloud(data); err != nil || len(cloud.Images) != 6 {
		t.Errorf("%s: %v, %.200s", gapFile, err, data)
	}
	page, err := os.ReadFile(filepath.Join(dir, "report.html"))
	if err != nil {
		t.Fatal(err)
	}
	markdown, err := os.ReadFile(filepath.Join(dir, "table.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range x.bridges {
		results, err := coco.ReadResults(filepath.Join(dir, "seed-0", "captions-"+b.Name, "results.json"))
		if err != nil || len(results) != 6 {
			t.Errorf("%s: %d captions (%v)", b.Name, len(results), err)
		}
		for _, m := range []string{"BLEU-1", "BLEU-4", "ROUGE_L", "CIDEr"} {
			if c := table[b.Name][m]; c.Value == nil || c.Low == nil {
				t.Errorf("%s has no %s", b.Name, m)
			}
		}
		for name, text := range map[string]string{"report.html": string(page), "table.md": string(markdown)} {
			if !strings.Contains(text, b.Title) {
				t.Errorf("%s lacks %q", name, b.Title)
			}
		}
	}
	// Every bridge has a cost. Those with a decoder of their own and the CycleGAN count
	// its training.
	for _, b := range x.bridges {
		n, s := table[b.Name]["parameters"].Value, table[b.Name]["fit_seconds"].Value
		if n == nil || s == nil || (*n > 0) != (b.Parameters != nil) {
			t.Errorf("%s: cost %v, %v", b.Name, n, s)
			continue
		}
		training := ""
		if b.CycleGAN {
			training = "cyclegan"
		} else if b.Decoder != bridge.OfTexts {
			training = "decoder-" + b.Decoder.Name
		}
		if training == "" {
			continue
		}
		if trained, err := trainedFor(filepath.Join(dir, "seed-0", training)); err != nil || trained <= 0 || *s < trained {
			t.Errorf("%s: %g seconds to fit, and %g to train (%v)", b.Name, *s, trained, err)
		}
	}
	for name := range table {
		delete(table[name], "fit_seconds")
	}
	checkClaims(t, dir, len(x.bridges))
	// With a factor of 1, the added bridge equals direct.
	if diff := cmp.Diff(table["direct"], table["scaled"]); diff != "" {
		t.Error(diff)
	}

	// The second run repeats only the stages whose settings or inputs have changed.
	x, q := smallRun(t, dir, "bridges.scaled_factor=0.5", "bridges.capdec_variance=0.1")
	if x.Config.Bridges.Settings["scaled_factor"] != 0.5 {
		t.Errorf("settings %v", x.Config.Bridges.Settings)
	}
	said := strings.Join(q.said, "\n")
	for stage, done := range map[string]bool{"world": false, "clip": false, "gpt2": false, "features/val-texts": false,
		"seed-0/decoder-texts": false, "seed-0/decoder-images": false, "seed-0/decoder-noisy-texts": true, "seed-0/decoder-centered-noisy-texts": false, "seed-0/cyclegan": false,
		"seed-0/captions-direct": false, "seed-0/captions-whitening": false, "seed-0/captions-scaled": true, "seed-0/captions-capdec": true,
		// The captions are the same words, so that evaluate may be skipped.
		"report": true} {
		if skipped := strings.Contains(said, stage+": unchanged, skipped"); skipped == done {
			t.Errorf("%s: repeated: %v", stage, !skipped)
		}
	}
}

// checkClaims checks that the files of a run have the scores of what captions say.
func checkClaims(t *testing.T, dir string, bridges int) {
	t.Helper()
	var scores struct {
		Claims     map[string]*report.Claims
		References *report.Claims
	}
	if err := readJSON(filepath.Join(dir, "evaluate", "scores.json"), &scores); err != nil {
		t.Fatal(err)
	}
	var table map[string]report.Claims
	if err := readJSON(filepath.Join(dir, "table.json"), &table); err != nil {
		t.Fatal(err)
	}
	if len(scores.Claims) != bridges {
		t.Errorf("scores.json has claims of %d bridges", len(scores.Claims))
	}
	for name, c := range scores.Claims {
		if c.Truth == nil || c.Truth.Objects.Recall == nil || c.Truth.ChairS.High > 1 {
			t.Errorf("%s: %+v", name, c)
		}
		if diff := cmp.Diff(*c, table[name]); diff != "" {
			t.Error(diff)
		}
	}
	// The photos' own captions are right.
	if own := scores.References; own == nil || own.Truth.Objects.Precision.Mean != 1 || own.Truth.ChairI.Mean != 0 || own.Truth.Objects.Recall.Mean < .5 {
		t.Errorf("%+v", own)
	}
	markdown, err := os.ReadFile(filepath.Join(dir, "table.md"))
	if err != nil {
		t.Fatal(err)
	}
	has(t, string(markdown), "| *reference captions* | 1.000 / ")
	has(t, string(markdown), "| captions | name the main object with its colour | the same, held-out combinations | CHAIRi | CHAIRs | repeat a bigram | repeat a word |")
}

// checkPlan compares the plan of a finished run with what the run left on the disk.
func checkPlan(t *testing.T, x *Experiment) {
	t.Helper()
	if _, lines, err := x.plan(t.Context(), ""); err != nil || len(lines) > 0 {
		t.Errorf("the plan of a finished run has %v (%v)", lines, err)
	}
	fresh := *x
	fresh.Dir, fresh.contents = t.TempDir(), nil
	if _, lines, err := fresh.plan(t.Context(), "gpt2"); err != nil || len(lines) != 2 {
		t.Errorf("the plan until gpt2 has %v (%v)", lines, err)
	}
	n, lines, err := fresh.plan(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for name, log := range map[string]string{"clip": "clip", "gpt2": "gpt2", "decoder": "seed-0/decoder-texts", "cyclegan": "seed-0/cyclegan"} {
		b, err := os.ReadFile(filepath.Join(x.Dir, log, train.MetricsFile))
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(lines, func(p planned) bool { return p.name == name })
		if steps := strings.Count(string(b), `"seconds"`); lines[i].amount != steps {
			t.Errorf("%s: %d steps were planned, %d were run", name, lines[i].amount, steps)
		}
	}
	if n.photos != 24 || n.valPhotos != 6 || n.captions != 5*24 || n.width != 32 {
		t.Errorf("sizes %+v", n)
	}
	disk := map[string]int64{}
	var names []string
	for _, p := range lines {
		disk[p.name] += p.disk
		names = append(names, p.name)
		if p.amount < 1 || p.seconds <= 0 || p.memory == 0 {
			t.Errorf("%+v", p)
		}
	}
	if diff := cmp.Diff([]string{"clip", "gpt2", "features", "features", "decoder", "cyclegan", "caption"}, names); diff != "" {
		t.Error(diff)
	}
	for name, pattern := range map[string]string{"clip": "clip/*", "gpt2": "gpt2/*", "features": "features/*/*", "decoder": "seed-0/decoder-*/*", "cyclegan": "seed-0/cyclegan/*"} {
		files, err := filepath.Glob(filepath.Join(x.Dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		var want int64
		for _, f := range files {
			info, err := os.Stat(f)
			if err != nil {
				t.Fatal(err)
			}
			want += info.Size()
		}
		// Names and shapes in the files, which are as long as those of large models.
		if got := disk[name]; got > want*105/100 || got < want*3/4-50_000 {
			t.Errorf("%s: the plan says %d bytes, the files have %d", name, got, want)
		}
	}
}

// TestAlignment checks that alignment detects features of another CLIP by their captions.
func TestAlignment(t *testing.T) {
	const n, width = 64, 16
	rng := rand.New(rand.NewPCG(3, 0))
	random := func() train.Matrix {
		m := train.Matrix{Data: make([]float32, n*width), Cols: width}
		for i := range m.Data {
			m.Data[i] = float32(rng.NormFloat64())
		}
		return m
	}
	images, other := random(), random()
	texts := random()
	for i := range texts.Data { // captions are near their photos, but across a gap
		texts.Data[i] = images.Data[i] + texts.Data[i] + 2*float32(i%width%2)
	}
	rows := span(0, n)
	own, err := alignment(images, texts, rows, rows)
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := alignment(other, texts, rows, rows)
	if err != nil {
		t.Fatal(err)
	}
	if own < 3 || wrong > 3 {
		t.Errorf("t is %.1f for the same CLIP and %.1f for another", own, wrong)
	}
}

func span(from, to int) []int32 {
	rows := make([]int32, to-from)
	for i := range rows {
		rows[i] = int32(from + i)
	}
	return rows
}
