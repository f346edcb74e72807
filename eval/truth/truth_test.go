package truth_test

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cyclecap/data/coco"
	"cyclecap/data/world"
	"cyclecap/eval"
	"cyclecap/eval/truth"
)

func score(t *testing.T, photos map[coco.ID]world.Photo, items []eval.Item) *truth.Scores {
	t.Helper()
	m, err := truth.Metric(photos, items)
	if err != nil {
		t.Fatal(err)
	}
	r, err := eval.Evaluate(t.Context(), items, eval.Options{Metrics: []eval.Metric{m}})
	if err != nil {
		t.Fatal(err)
	}
	shares, err := r.Shares(t.Context(), eval.Bootstrap{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	s := truth.Of(shares, truth.ContentsOf(photos, items))
	return s
}

// A few captions whose claims are counted here by hand.
func TestCounts(t *testing.T) {
	photo := world.Photo{Relation: world.On, Background: world.Room, Objects: []world.Group{
		{Kind: world.Cup, Colour: world.Red, Texture: world.Striped, Count: 1}, {Kind: world.Table, Colour: world.Brown, Count: 1}},
		Others: []world.Group{{Kind: world.Hat, Colour: world.Blue, Count: 1}}}
	captions := []string{
		"A red striped cup on a brown table in a room.", // all is right, nothing is left out
		"A blue cup and a hat.",                         // wrong colour; the rest is left out
		"A dog under a red table in the forest.",        // invented: dog and its number, under, red, forest
		"It says nothing at all.",
	}
	photos := map[coco.ID]world.Photo{}
	var items []eval.Item
	for i, c := range captions {
		id := coco.Int(int64(i))
		photos[id] = photo
		if i < 2 {
			held := photo
			held.HeldOut = []string{"red cup"}
			photos[id] = held
		}
		items = append(items, eval.Item{ImageID: id, Candidate: c, References: []string{c}})
	}
	s := score(t, photos, items)
	for _, c := range []struct {
		name      string
		got, want float64
	}{
		{"objects precision", s.Objects.Precision.Mean, 5. / 6}, {"objects recall", s.Objects.Recall.Mean, 4. / 8},
		{"colours precision", s.Colours.Precision.Mean, 2. / 4}, {"colours recall", s.Colours.Recall.Mean, 2. / 8},
		{"numbers precision", s.Numbers.Precision.Mean, 5. / 6}, {"numbers recall", s.Numbers.Recall.Mean, 4. / 8},
		{"textures precision", s.Textures.Precision.Mean, 1}, {"textures recall", s.Textures.Recall.Mean, 1. / 4},
		{"places precision", s.Places.Precision.Mean, 1. / 2}, {"places recall", s.Places.Recall.Mean, 1. / 4},
		{"relations precision", s.Relations.Precision.Mean, 1. / 2}, {"relations recall", s.Relations.Recall.Mean, 1. / 4},
		{"chair_i", s.ChairI.Mean, 1. / 6}, {"chair_s", s.ChairS.Mean, 1. / 4}, {"main", s.MainObjectColour.Mean, 1. / 4},
		{"main, held out", s.HeldOutMainObjectColour.Mean, 1. / 2},
		{"sizes precision", s.Sizes.Precision.Mean, 0},
	} {
		if math.Abs(c.got-c.want) > 1e-12 {
			t.Errorf("%s is %v, want %v", c.name, c.got, c.want)
		}
	}
	if s.Sizes.Recall != nil || s.Light.Recall != nil || s.Sides.Recall != nil {
		t.Error("there is recall of what no photo has")
	}
	if i := s.ChairS; i.Low != 0 || i.High < .5 || i.High > 1 {
		t.Errorf("interval %+v", i)
	}
}

// The captions of a world are right, and name nearly everything; those of other photos of
// the same world are not right.
func TestWorld(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "world")
	if err := world.Write(t.Context(), dir, world.Config{Seed: 3, Size: 32, Val: 300}, nil); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "annotations", "captions_val2014.json")
	photos, err := truth.Read(path)
	if err != nil || len(photos) != 300 {
		t.Fatalf("%d photos, %v", len(photos), err)
	}
	set, err := coco.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	var own, other []eval.Item
	for i, image := range set.Images {
		refs := set.Captions()[image.ID]
		own = append(own, eval.Item{ImageID: image.ID, Candidate: refs[0], References: refs})
		other = append(other, eval.Item{ImageID: image.ID, Candidate: set.Captions()[set.Images[(i+1)%300].ID][0], References: refs})
	}
	s := score(t, photos, own)
	data, _ := json.Marshal(s)
	t.Logf("own captions: %s", data)
	for name, of := range map[string]truth.Subject{"objects": s.Objects, "colours": s.Colours, "numbers": s.Numbers, "textures": s.Textures, "sizes": s.Sizes,
		"places": s.Places, "light": s.Light, "relations": s.Relations, "sides": s.Sides} {
		if of.Precision.Mean != 1 || of.Precision.Low != 1 || of.Recall.Mean < .01 {
			t.Errorf("%s: %+v", name, of)
		}
	}
	if s.ChairI.Mean != 0 || s.ChairS.Mean != 0 || s.Objects.Recall.Mean < .5 || s.MainObjectColour.Mean < .5 {
		t.Errorf("%s", data)
	}
	s = score(t, photos, other)
	data, _ = json.Marshal(s)
	t.Logf("captions of other photos: %s", data)
	if s.Objects.Precision.Mean > .3 || s.Colours.Precision.Mean > .1 || s.Places.Precision.Mean > .3 || s.ChairI.Mean < .7 || s.MainObjectColour.Mean > .1 {
		t.Errorf("%s", data)
	}
}

func TestRead(t *testing.T) {
	photos, err := truth.Read("../testdata/fakecap/captions_val2014.json")
	if photos != nil || err != nil {
		t.Errorf("COCO: %d photos, %v", len(photos), err)
	}
	for _, c := range []struct{ images, want string }{
		{`[{"id": 1, "world": {"objects": [{"kind": "cup", "colour": "red"}]}}, {"id": 2}]`, "image 2 has no \"world\""},
		{`[{"id": 1, "world": {"objects": [{"kind": "teapot"}]}}]`, `images[0]: world: unknown kind "teapot"`},
		{`[{"id": 1, "world": {"objects": []}}]`, `images[0]: "world" has no "objects"`},
	} {
		path := filepath.Join(t.TempDir(), "captions.json")
		if err := os.WriteFile(path, []byte(`{"images": `+c.images+`, "annotations": []}`), 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := truth.Read(path); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
	if _, err := truth.Metric(nil, []eval.Item{{ImageID: coco.Int(7)}}); err == nil || !strings.Contains(err.Error(), "image 7") {
		t.Errorf("%v", err)
	}
}
