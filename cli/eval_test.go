package cli_test

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const metricsF = "../eval/testdata/fakecap/"

func TestEval(t *testing.T) {
	out := filepath.Join(t.TempDir(), "images.json")
	r := run("", "eval", "--annotations", metricsF+"captions_val2014.json", "--results", metricsF+"results.json", "--json", "--per-image", out,
		"--meteor-data", t.TempDir())
	if r.code != 0 {
		t.Fatal(r.err)
	}
	r.says(t, 1, "METEOR is not computed", "make meteor-data")
	var got struct {
		Corpus map[string]float64
		Images int
	}
	if err := json.Unmarshal([]byte(r.out), &got); err != nil {
		t.Fatal(err)
	}
	var want struct {
		Corpus map[string]float64
		Images []struct {
			ImageID int64 `json:"image_id"`
			Scores  map[string]float64
			Tokens  struct {
				Candidate  string
				References []string
			}
		}
	}
	read := func(path string, v any) {
		t.Helper()
		data, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(data, v)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	read(metricsF+"scores.json", &want)
	near := func(got, want map[string]float64) {
		t.Helper()
		for _, name := range []string{"BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE_L", "CIDEr"} {
			if v, ok := got[name]; !ok || math.Abs(v-want[name]) > 1e-12 {
				t.Errorf("%s is %v, want %v", name, v, want[name])
			}
		}
	}
	near(got.Corpus, want.Corpus)
	images := want.Images
	want.Images = nil
	read(out, &want.Images)
	if got.Images != len(images) || len(want.Images) != len(images) {
		t.Fatalf("%d and %d images, want %d", got.Images, len(want.Images), len(images))
	}
	for i, image := range want.Images {
		if image.ImageID != images[i].ImageID {
			t.Fatalf("image %d is %d, want %d", i, image.ImageID, images[i].ImageID)
		}
		near(image.Scores, images[i].Scores)
		if diff := cmp.Diff(images[i].Tokens, image.Tokens); diff != "" {
			t.Errorf("image %d (-want +got):\n%s", image.ImageID, diff)
		}
	}

	// the table, and a comparison of the results with themselves
	table := ok(t, "eval", "--annotations", metricsF+"captions_val2014.json", "--results", metricsF+"results.json", "--metrics", "BLEU,CIDEr")
	if !strings.Contains(table, "CIDEr") || !strings.Contains(table, "120 images") || strings.Contains(table, "ROUGE") {
		t.Errorf("table:\n%s", table)
	}
	same := ok(t, "eval", "--annotations", metricsF+"captions_val2014.json", "--results", metricsF+"results.json",
		"--compare", metricsF+"results.json", "--metrics", "ROUGE_L", "--json")
	var compared struct {
		Compare []struct {
			Score            string
			Difference, P    float64
			Low, High, A, B_ float64
		}
	}
	if err := json.Unmarshal([]byte(same), &compared); err != nil {
		t.Fatal(err)
	}
	if len(compared.Compare) != 1 || compared.Compare[0].Difference != 0 || compared.Compare[0].P != 1 {
		t.Errorf("compared with itself: %s", same)
	}
}

// TestEvalCHAIR: the scores of the published code.
func TestEvalCHAIR(t *testing.T) {
	args := []string{"eval", "--annotations", metricsF + "captions_val2014.json", "--results", metricsF + "results.json", "--metrics", "repetition", "--json", "--instances"}
	var got struct{ Corpus map[string]float64 }
	if err := json.Unmarshal([]byte(ok(t, append(args, "../eval/chair/testdata/fakecap/instances_val2014.json")...)), &got); err != nil {
		t.Fatal(err)
	}
	if math.Abs(got.Corpus["CHAIRi"]-.4639) > 1e-4 || math.Abs(got.Corpus["CHAIRs"]-.5667) > 1e-4 || len(got.Corpus) != 4 {
		t.Errorf("%v", got.Corpus)
	}
	run("", append(args, metricsF+"captions_val2014.json")...).fails(t, 1, "captions_val2014.json", "is this an instances file")
}

func TestEvalBadInput(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string { return put(t, filepath.Join(dir, name), []byte(text)) }
	set := file("set.json", `{"images":[{"id":1},{"id":2},{"id":3}],"annotations":[{"id":1,"image_id":1,"caption":"a dog"},{"id":2,"image_id":2,"caption":"a cat"}]}`)
	good := file("good.json", `[{"image_id":1,"caption":"a dog"},{"image_id":2,"caption":"a cat"}]`)
	for name, c := range map[string]struct {
		results string
		flags   []string
		words   []string
	}{
		"unknown image":    {`[{"image_id":1,"caption":"a"},{"image_id":9,"caption":"b"}]`, nil, []string{"image 9", "annotations"}},
		"without captions": {`[{"image_id":3,"caption":"a"}]`, nil, []string{"image 3", "no caption"}},
		"without result":   {`[{"image_id":1,"caption":"a"}]`, nil, []string{"1 of", "is image 2", "--partial"}},
		"twice":            {`[{"image_id":1,"caption":"a"},{"image_id":1,"caption":"b"}]`, nil, []string{"image 1", "0 and 1"}},
		"empty":            {`[]`, nil, []string{"no results"}},
		"not JSON":         {"[\n {\"image_id\":1,\n \"caption\":}]", nil, []string{":3:12", "broken JSON"}},
		"NaN":              {`[{"image_id":NaN,"caption":"a"}]`, nil, []string{":1:14", "broken JSON"}},
		"wrong type":       {`[{"image_id":1,"caption":5}]`, nil, []string{"caption: got a number, want a string"}},
		"not UTF-8":        {"[{\"image_id\":1,\n\"caption\":\"a \xff\"}]", nil, []string{":2:14", "invalid UTF-8", "0xff"}},
		"control":          {"[{\"image_id\":1,\"caption\":\"a \x01\"}]", nil, []string{":1:29", "broken JSON"}},
		"an object":        {`{"images":[]}`, nil, []string{`want a list of {"image_id"`, "object"}},
		"unwritable":       {`[{"image_id":1,"caption":"a"}]`, []string{"--partial", "--per-image", filepath.Join(dir, "no", "out.json")}, []string{"out.json"}},
		"other images":     {`[{"image_id":1,"caption":"a"}]`, []string{"--partial", "--compare", good}, []string{"cannot compare"}},
	} {
		t.Run(name, func(t *testing.T) {
			results := file("results.json", c.results)
			args := append([]string{"eval", "--annotations", set, "--results", results, "--metrics", "BLEU,ROUGE_L,CIDEr", "--json"}, c.flags...)
			run("", args...).fails(t, 1, c.words...)
		})
	}
	run("", "eval", "--annotations", set).fails(t, 2, "--results")
	run("", "eval", "--annotations", set, "--results", good, "--metrics", "SPICE").fails(t, 2, "SPICE", "CIDEr")
	run("", "eval", "--annotations", set, "--results", good, "more").fails(t, 2, "more")
	run("", "eval", "--annotations", set, "--results", good, "--clip", clipF).fails(t, 2, "--images")
	run("", "eval", "--annotations", set, "--results", good, "--metrics", "BLEU", "--clip", clipF, "--images", ".").fails(t, 1, "256 tokens")

	// one result is enough with --partial, and escaped control characters are not text
	one := file("one.json", "[{\"image_id\":1,\"caption\":\"a\\u0000 \\u0007dog\\n\"}]")
	out := ok(t, "eval", "--annotations", set, "--results", one, "--metrics", "ROUGE_L", "--partial", "--json")
	if diff := cmp.Diff("{\"corpus\":{\"ROUGE_L\":1},\"images\":1}\n", out); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Scoring a caption of 100,000 words against another takes bounded work.
func TestEvalLongCaption(t *testing.T) {
	dir := t.TempDir()
	words := strings.Repeat("a dog and the cat ", 20000)
	set := put(t, filepath.Join(dir, "set.json"), []byte(`{"images":[{"id":1}],"annotations":[{"id":1,"image_id":1,"caption":"`+words+`"}]}`))
	results := put(t, filepath.Join(dir, "results.json"), []byte(`[{"image_id":1,"caption":"the `+words+`"}]`))
	out := ok(t, "eval", "--annotations", set, "--results", results, "--metrics", "BLEU,ROUGE_L,CIDEr", "--json")
	if !strings.Contains(out, `"ROUGE_L":0.99999`) {
		t.Errorf("got %s", out)
	}
}
