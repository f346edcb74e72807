package chair_test

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cyclecap/data/coco"
	"cyclecap/eval"
	"cyclecap/eval/chair"
)

// TestReference compares with the published code (testdata/reference/chair.py).
func TestReference(t *testing.T) {
	type result struct {
		CHAIRi, CHAIRs float64
		Images         []struct {
			ImageID         coco.ID `json:"image_id"`
			Words, Invented []string
			CHAIRi          float64
		}
	}
	var want struct{ Sets map[string]result }
	data, err := os.ReadFile("testdata/scores.json")
	if err == nil {
		err = json.Unmarshal(data, &want)
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, captions := range map[string]string{"fakecap": "../testdata/fakecap", "people": "../testdata/people", "stress": "testdata/stress"} {
		want, ok := want.Sets[name]
		if !ok {
			t.Fatalf("no set %s", name)
		}
		set, err := coco.Read(filepath.Join(captions, "captions_val2014.json"))
		if err != nil {
			t.Fatal(err)
		}
		results, err := coco.ReadResults(filepath.Join(captions, "results.json"))
		if err != nil {
			t.Fatal(err)
		}
		var items []eval.Item
		for _, r := range results {
			refs := set.Captions()[r.ImageID]
			if refs == nil {
				refs = []string{""} // the code needs none
			}
			items = append(items, eval.Item{ImageID: r.ImageID, Candidate: r.Caption, References: refs})
		}
		instances, err := chair.ReadInstances(filepath.Join("testdata", name, "instances_val2014.json"))
		if err != nil {
			t.Fatal(err)
		}
		m, err := chair.Metric(items, instances)
		if err != nil {
			t.Fatal(err)
		}
		got, err := eval.Evaluate(t.Context(), items, eval.Options{Metrics: []eval.Metric{m}})
		if err != nil {
			t.Fatal(err)
		}
		differ := 0
		for _, w := range want.Images {
			i := slices.IndexFunc(items, func(item eval.Item) bool { return item.ImageID == w.ImageID })
			if words := chair.Objects(items[i].Candidate); !slices.Equal(words, w.Words) {
				t.Errorf("%s, image %s, %q: %q, want %q", name, w.ImageID, items[i].Candidate, words, w.Words)
				differ++
			} else if d := math.Abs(got.Images[i].Scores["CHAIRi"] - w.CHAIRi); d > 1e-15 {
				t.Errorf("%s, image %s: CHAIRi is %v, want %v", name, w.ImageID, got.Images[i].Scores["CHAIRi"], w.CHAIRi)
			}
			if s := got.Images[i].Scores["CHAIRs"]; (s == 1) != (len(w.Invented) > 0) {
				t.Errorf("%s, image %s: CHAIRs is %v, invented %q", name, w.ImageID, s, w.Invented)
			}
		}
		if got.Corpus["CHAIRi"] != want.CHAIRi || got.Corpus["CHAIRs"] != want.CHAIRs {
			t.Errorf("%s: %v, want %v and %v", name, got.Corpus, want.CHAIRi, want.CHAIRs)
		}
		t.Logf("%s: %d of %d captions differ", name, differ, len(want.Images))
		intervals, err := got.Intervals(t.Context(), eval.Bootstrap{Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		if i := intervals["CHAIRi"]; i.Low >= want.CHAIRi || i.High <= want.CHAIRi {
			t.Errorf("%s: interval %+v", name, i)
		}
	}
}

func TestObjects(t *testing.T) {
	for caption, want := range map[string]string{
		"":                                      "",
		"A man's dogs, and two buses.":          "person dog bus",
		"Hot dogs and a hot, dog":               "hot dog dog",
		"A toilet with its seat up":             "toilet",
		"A seat near a toilet seat":             "toilet",
		"A seat":                                "chair",
		"a baby elephant and a passenger train": "elephant train",
		"The people sit. A cat (asleep)":        "person cat",
		"a dog/cat-like thing 'cat cats'":       "cat cat",
		"glasses of wine, two wine glasses":     "wine glass",
	} {
		if got := strings.Join(chair.Objects(caption), " "); got != want {
			t.Errorf("%q: %q, want %q", caption, got, want)
		}
	}
}

func TestErrors(t *testing.T) {
	read := func(text string) error {
		path := filepath.Join(t.TempDir(), "instances.json")
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		_, err := chair.ReadInstances(path)
		if err != nil && !strings.Contains(err.Error(), path) {
			t.Errorf("%v does not name the file", err)
		}
		return err
	}
	for text, want := range map[string]string{
		`{"images": [], "annotations": []}`:                                                                                     `no "categories"`,
		`{"images": [], "categories": [{"id": 1, "name": "aardvark"}], "annotations": []}`:                                      `"aardvark" is not one of COCO's 80 objects`,
		`{"images": [{"id": 1}], "categories": [], "annotations": [{"image_id": 1, "caption": "a dog"}]}`:                       "is this an instances file",
		`{"images": [{"id": 1}], "categories": [], "annotations": [{"image_id": 1, "category_id": 3}]}`:                         "has category 3",
		`{"images": [{"id": 1}], "categories": [{"id": 3, "name": "dog"}], "annotations": [{"image_id": 2, "category_id": 3}]}`: "refers to image 2",
	} {
		if err := read(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	_, err := chair.Metric([]eval.Item{{ImageID: coco.Int(5)}}, map[coco.ID][]string{coco.Int(6): nil})
	if err == nil || !strings.Contains(err.Error(), "image 5 is not in the instances file") {
		t.Errorf("%v", err)
	}
}
