package eval_test

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"cyclecap/data/coco"
	"cyclecap/eval"

	"github.com/google/go-cmp/cmp"
)

// reference holds pycocoevalcap's results for a set (testdata/reference/metrics.py).
type reference struct {
	Corpus map[string]float64
	Images []struct {
		ImageID coco.ID `json:"image_id"`
		Scores  map[string]float64
		Tokens  struct {
			Candidate  string
			References []string
		}
	}
}

func read[T any](t testing.TB, path string) (v T) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &v)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// items reads a folder in testdata.
func items(t testing.TB, dir string) []eval.Item {
	t.Helper()
	set, err := coco.Read(filepath.Join(dir, "captions_val2014.json"))
	if err != nil {
		t.Fatal(err)
	}
	results, err := coco.ReadResults(filepath.Join(dir, "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	list, err := eval.Pair(set, results, false)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestReference(t *testing.T) {
	dirs := []string{"testdata/fakecap", "testdata/hard", "testdata/hard_more", "testdata/people"}
	if more := os.Getenv("CYCLECAP_METRICS"); more != "" { // other folders in the same format
		dirs = append(dirs, filepath.SplitList(more)...)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			want := read[reference](t, filepath.Join(dir, "scores.json"))
			got, err := eval.Evaluate(context.Background(), items(t, dir), eval.Options{})
			if err != nil {
				t.Fatal(err)
			}
			worst := 0.0
			near := func(where, name string, got, want float64) {
				t.Helper()
				worst = max(worst, math.Abs(got-want))
				if math.IsNaN(got) || math.Abs(got-want) > 1e-12 {
					t.Errorf("%s: %s is %.17g, want %.17g", where, name, got, want)
				}
			}
			for name, v := range got.Corpus {
				near("corpus", name, v, want.Corpus[name])
			}
			if len(got.Corpus) != 6 || len(got.Images) != len(want.Images) {
				t.Fatalf("%d scores of %d images, want 6 of %d", len(got.Corpus), len(got.Images), len(want.Images))
			}
			byID := map[coco.ID]eval.ImageScores{}
			for _, image := range got.Images {
				byID[image.ImageID] = image
			}
			for _, w := range want.Images {
				g := byID[w.ImageID]
				if diff := cmp.Diff(w.Tokens.Candidate, g.Candidate); diff != "" {
					t.Errorf("image %s: candidate (-want +got):\n%s", w.ImageID, diff)
				}
				if diff := cmp.Diff(w.Tokens.References, g.References); diff != "" {
					t.Errorf("image %s: references (-want +got):\n%s", w.ImageID, diff)
				}
				for name, v := range g.Scores {
					near("image", name, v, w.Scores[name])
				}
			}
			t.Logf("%d images, largest difference %.1g", len(want.Images), worst)
		})
	}
}
