package experiment

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"cyclecap/data/coco"
	"cyclecap/eval"
	"cyclecap/experiment/config"
	"cyclecap/experiment/report"
)

// TestDemo runs the demo at a smaller size, from the photos to the report, and checks that
// its parts have learned: losses fall, and captions of validation photos with combinations
// that no training photo has score better than the same captions shuffled over the photos.
func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("trains for about two minutes")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	dir := t.TempDir()
	c, err := config.Load("../configs/demo.toml", []string{"output=" + dir, "world.train=1000", "world.val=150",
		"clip.weights=../models/world/clip.safetensors", "gpt2.weights=../models/world/gpt2.safetensors", "train.decoder.epochs=2", "train.decoder.warmup_steps=20", "train.cyclegan.epochs=8",
		"train.cyclegan.checkpoint_every=50", `bridges.use=["direct","cyclegan","meanshift"]`, `eval.metrics=["bleu","rouge","cider"]`, "eval.examples=3"})
	if err != nil {
		t.Fatal(err)
	}
	q := &quiet{}
	run := func() {
		t.Helper()
		x := &Experiment{Config: c, Dir: c.Output, Seeds: 1, UI: q}
		done, err := x.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer done()
		if err := x.Execute(context.Background(), ""); err != nil {
			t.Fatal(err)
		}
	}
	run()

	for folder, name := range map[string]string{"seed-0/decoder-texts": "loss", "seed-0/cyclegan": "cycle_image"} {
		series, err := losses(filepath.Join(dir, folder, "metrics.jsonl"), map[string]string{name: name})
		if err != nil {
			t.Fatal(err)
		}
		p := series[0].Points
		n := len(p) / 5
		first, last := meanOf(p[:n]), meanOf(p[len(p)-n:])
		t.Logf("%s: %s went from %.3f to %.3f in %d steps", folder, name, first, last, len(p))
		if !(last < 0.9*first) {
			t.Errorf("%s: %s went from %.3f to %.3f", folder, name, first, last)
		}
	}

	var world struct {
		Images []struct {
			ID    coco.ID `json:"id"`
			World struct {
				HeldOut []json.RawMessage `json:"held_out"`
			} `json:"world"`
		} `json:"images"`
	}
	if err := readJSON(c.Data.ValAnnotations, &world); err != nil {
		t.Fatal(err)
	}
	held := map[coco.ID]bool{}
	for _, m := range world.Images {
		held[m.ID] = len(m.World.HeldOut) > 0
	}
	set, err := coco.Read(c.Data.ValAnnotations)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range c.Bridges.Use {
		results, err := coco.ReadResults(filepath.Join(dir, "seed-0", "captions-"+b, "results.json"))
		if err != nil {
			t.Fatal(err)
		}
		own := heldCIDEr(t, set, results, held)
		// Each photo gets the caption of another photo, in nine ways.
		var other float64
		for shift := 10; shift < 100; shift += 10 {
			shuffled := append([]coco.Result(nil), results...)
			for i := range shuffled {
				shuffled[i].Caption = results[(i+shift)%len(results)].Caption
			}
			other += heldCIDEr(t, set, shuffled, held) / 9
		}
		t.Logf("%s: CIDEr of held-out combinations %.3f, shuffled %.3f", b, own, other)
		if !(own > other) {
			t.Errorf("%s: CIDEr of held-out combinations is %.3f, but %.3f if shuffled", b, own, other)
		}
	}

	var table map[string]map[string]struct{ Value float64 }
	if err := readJSON(filepath.Join(dir, "table.json"), &table); err != nil {
		t.Fatal(err)
	}
	if v := table["cyclegan"]["CIDEr"].Value; !(v > 0) {
		t.Errorf("table.json has a CIDEr of %g", v)
	}
	for _, name := range []string{"report.html", "table.md", "config.toml", "seed-0/decoder-texts/decoder.pt", "seed-0/cyclegan/image2text.pt"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}

	q.said = nil
	run()
	for _, s := range []string{"world", "features/train-images", "seed-0/decoder-texts", "seed-0/cyclegan", "seed-0/captions-direct", "evaluate", "report"} {
		q.has(t, s+": unchanged, skipped")
	}
}

func meanOf(p []report.Point) (m float64) {
	for _, x := range p {
		m += x.Value / float64(len(p))
	}
	return m
}

// heldCIDEr returns the mean CIDEr of the held-out photos, with the document frequencies of
// the whole set.
func heldCIDEr(t *testing.T, set *coco.Dataset, results []coco.Result, held map[coco.ID]bool) float64 {
	t.Helper()
	items, err := eval.Pair(set, results, false)
	if err != nil {
		t.Fatal(err)
	}
	r, err := eval.Evaluate(context.Background(), items, eval.Options{Metrics: []eval.Metric{eval.CIDEr{}}})
	if err != nil {
		t.Fatal(err)
	}
	var sum, n float64
	for _, m := range r.Images {
		if held[m.ImageID] {
			sum += m.Scores["CIDEr"]
			n++
		}
	}
	if n < 20 {
		t.Fatalf("got %g held-out photos, want at least 20", n)
	}
	if v := sum / n; !math.IsNaN(v) {
		return v
	}
	t.Fatal("CIDEr is NaN")
	return 0
}
