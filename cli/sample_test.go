package cli_test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"cyclecap/data/coco"

	"github.com/google/go-cmp/cmp"
)

// world --sample writes photos and their captions, which eval reads beside caption's
// results.
func TestWorldSample(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "photos")
	for range 2 {
		d := json.NewDecoder(strings.NewReader(ok(t, "world", dir, "--sample", "2", "--seed", "5", "--size", "48", "--json")))
		d.DisallowUnknownFields()
		var got struct {
			Dir                          string
			Photos, Captions, Seed, Size int
			Seconds                      float64
		}
		if err := d.Decode(&got); err != nil {
			t.Fatal(err)
		}
		if got.Dir != dir || got.Photos != 2 || got.Captions != 10 || got.Seed != 5 || got.Size != 48 {
			t.Errorf("got %+v", got)
		}
		if diff := cmp.Diff([]string{"000040000001.jpg", "000040000002.jpg", "captions.json"}, listing(t, dir)); diff != "" {
			t.Errorf("files:\n%s", diff)
		}
	}
	captions := filepath.Join(dir, "captions.json")
	if d := must[*coco.Dataset](t)(coco.Read(captions)); len(d.Images) != 2 || len(d.Annotations) != 10 {
		t.Errorf("%d images, %d captions", len(d.Images), len(d.Annotations))
	}
	results := put(t, filepath.Join(t.TempDir(), "results.jsonl"), []byte(ok(t, caption("--json", dir)...)))
	if out := ok(t, "eval", "--annotations", captions, "--results", results, "--metrics", "bleu", "--json"); !strings.Contains(out, `"images":2`) && !strings.Contains(out, `"images": 2`) {
		t.Errorf("eval: %s", out)
	}
	run("", "world", "--sample", "2", dir).fails(t, 1, captions, "belongs to another sample", "delete")
}

func TestWorldSampleErrors(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		args []string
		says string
	}{
		{nil, "one DIR"},
		{[]string{dir, dir}, "one DIR"},
		{[]string{"--sample", "0", dir}, "sample must be between 1 and 10000 photos, got 0"},
		{[]string{"--size", "5", dir}, "must be between 32 and 1024"},
		{[]string{"--train", "5", dir}, "--train cannot be used with --sample"},
		{[]string{"--pretrain", "0", dir}, "--pretrain cannot be used with --sample"},
	} {
		run("", append([]string{"world", "--sample", "2"}, c.args...)...).fails(t, 2, c.says)
	}
	empty(t, dir)
	put(t, filepath.Join(dir, "mine.txt"), nil)
	run("", "world", "--sample", "2", dir).fails(t, 1, dir, "contains other files (mine.txt)", "empty folder")
}
