package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cyclecap/data/coco"
)

func TestWorld(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "world")
	args := []string{"world", "--size", "32", "--pretrain", "6", "--train", "4", dir, "--val", "2", "--seed", "5", "--json"}
	for range 2 {
		d := json.NewDecoder(strings.NewReader(ok(t, args...)))
		d.DisallowUnknownFields()
		var got struct {
			Dir                                                      string
			Photos, Captions, Seed, Size, Pretrain, Train, Val, Tune int
			Seconds                                                  float64
		}
		if err := d.Decode(&got); err != nil {
			t.Fatal(err)
		}
		if got.Dir != dir || got.Photos != 12 || got.Captions != 60 || got.Seed != 5 || got.Size != 32 || got.Pretrain != 6 || got.Train != 4 || got.Val != 2 {
			t.Errorf("got %+v", got)
		}
	}
	data := must[*coco.Dataset](t)(coco.Read(filepath.Join(dir, "annotations", "captions_val2014.json")))
	for _, image := range data.Images {
		if _, err := os.Stat(filepath.Join(dir, "val2014", image.FileName)); err != nil {
			t.Error(err)
		}
	}

	run("", "world", "--size", "32", "--seed", "6", dir).fails(t, 1, dir, "seed 5", "seed 6", "delete")
}

func TestWorldErrors(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		args []string
		says string
	}{
		{nil, "one DIR"},
		{[]string{dir, dir}, "one DIR"},
		{[]string{"--size", "5", dir}, "must be between 32 and 1024"},
		{[]string{"--val", "-1", dir}, "val must be between 0 and"},
		{[]string{"--pretrain", "0", "--train", "0", "--val", "0", dir}, "nothing to write"},
		{[]string{"--seed", "x", dir}, "--seed"},
	} {
		run("", append([]string{"world"}, c.args...)...).fails(t, 2, c.says)
	}
	empty(t, dir)
}
