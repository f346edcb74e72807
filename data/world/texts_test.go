package world

import (
	"path/filepath"
	"testing"

	"cyclecap/data/coco"

	"github.com/google/go-cmp/cmp"
)

// TestTexts checks that the captions without photos are those of the photos.
func TestTexts(t *testing.T) {
	dir := t.TempDir()
	c := Config{Seed: 5, Size: 32, Train: 7, Val: 2}
	if err := Write(t.Context(), dir, c, nil); err != nil {
		t.Fatal(err)
	}
	set, err := coco.Read(filepath.Join(dir, "annotations", "captions_train2014.json"))
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, a := range set.Annotations {
		want = append(want, a.Caption)
	}
	got, err := c.Texts(7)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	more, err := c.Texts(9)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, more[:len(want)]); diff != "" || len(more) != 9*CaptionsEach {
		t.Errorf("%d texts; %s", len(more), diff)
	}
	bare := c
	bare.Bare = true
	if less, err := bare.Texts(7); err != nil || cmp.Equal(less, want) {
		t.Errorf("captions mention what a bare photo leaves out (%v)", err)
	}
	if _, err := (Config{Size: 32}).Texts(0); err == nil {
		t.Error("no texts are no error")
	}
}
