package serve

import (
	"bytes"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cyclecap/data/world"
	"cyclecap/eval/geometry"
	worldmodels "cyclecap/models/world"
	"cyclecap/pipeline"
)

// get reads a page.
func get(t *testing.T, url string, headers ...string) (*http.Response, string) {
	t.Helper()
	return exchange(t, http.MethodGet, url, nil, headers...)
}

// TestGap sends photos of the picture of the gap: their features must lie where the picture has
// them. A model without a picture has none to send.
func TestGap(t *testing.T) {
	url, _, _ := start(t, func(o *Options) {
		without := worldModel()
		without.Name, without.Gap = "without", ""
		o.Models = append(o.Models, without)
	})
	answer, text := get(t, url+"/gap?model=world")
	cloud, err := geometry.ReadCloud([]byte(text))
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatal(answer.Status, err)
	}
	if file, _ := worldmodels.FS.ReadFile("gap.json"); strings.TrimSpace(text) != strings.TrimSpace(string(file)) {
		t.Error("/gap does not send gap.json")
	}
	// Point i of the 150 is photo i*500/150 of the validation set of configs/demo.toml.
	set := world.Config{Seed: 1, Size: 224, Val: 500}.Drawn(world.Val)
	points := []int{0, 1, 50, 149}
	var list [][]byte
	for _, i := range points {
		if err := set.Photo(i*500/150, func(file []byte) error { list = append(list, bytes.Clone(file)); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	type answered struct {
		Photos []struct{ Gap *ownGap }
	}
	body, kind := form(t, list, "gap", "true")
	_, text = post(t, url+"/caption", kind, body)
	got := decode[answered](t, text)
	near := func(a, b [2]float64) bool { return math.Abs(a[0]-b[0]) < 3e-4 && math.Abs(a[1]-b[1]) < 3e-4 }
	for k, i := range points {
		g := got.Photos[k].Gap
		if g == nil || g.Textualised == nil || !near(g.Image, cloud.Images[i]) || !near(*g.Textualised, cloud.Textualised[i]) {
			t.Errorf("photo %d is at %+v; in the picture it is at %v, textualised %v", i, g, cloud.Images[i], cloud.Textualised[i])
		}
	}
	body, kind = form(t, list[:1])
	if _, text := post(t, url+"/caption", kind, body); strings.Contains(text, "gap") {
		t.Errorf("gap without being asked: %s", text)
	}
	for _, path := range []string{"/gap?model=without", "/gap?model=unknown"} {
		if answer, text := get(t, url+path); answer.StatusCode != http.StatusNotFound || !strings.Contains(text, "without") {
			t.Errorf("%s: %s %s", path, answer.Status, text)
		}
	}
	body, kind = form(t, list[:1], "gap", "true", "model", "without")
	if answer, text := post(t, url+"/caption", kind, body); answer.StatusCode != http.StatusNotFound || !strings.Contains(text, "no_gap") {
		t.Errorf("%s %s", answer.Status, text)
	}
}

// TestGapFile loads a user's models with a picture of the gap. A file that does not suit them is
// an error that names it.
func TestGapFile(t *testing.T) {
	whole, err := worldmodels.FS.ReadFile("gap.json")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, test := range []struct{ name, contents, says string }{
		{"gap.json", string(whole), ""},
		{"missing.json", "", "no such file"},
		{"cut.json", string(whole[:len(whole)/2]), "broken JSON"},
		{"wide.json", `{"mean": [0, 1], "axes": [[0, 1], [1, 0]], "images": [[0, 0]], "texts": [[0, 0]], "textualised": [[0, 0]]}`, "width 2, but the model's have width 512"},
		{"empty.json", "{}", "mean is empty"},
	} {
		path := filepath.Join(dir, test.name)
		if test.contents != "" {
			if err := os.WriteFile(path, []byte(test.contents), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		o, err := config(t, fmt.Sprintf("[[model]]\nname = \"mine\"\nclip = \"../models/world/clip.safetensors\"\ngap = %q", path))
		if err != nil {
			t.Fatal(err)
		}
		m, err := load(o.Models[0])
		if err == nil {
			m.close()
		}
		switch {
		case test.says == "" && (err != nil || m.gap == nil):
			t.Errorf("%s: %v", test.name, err)
		case test.says != "" && (err == nil || !strings.Contains(err.Error(), "model mine: gap: "+path+": ") || !strings.Contains(err.Error(), test.says)):
			t.Errorf("%s: got %v, want %q", test.name, err, test.says)
		}
	}
}

// TestModels reads what the page needs to know.
func TestModels(t *testing.T) {
	url, s, _ := start(t, func(o *Options) {
		features := worldModel()
		features.Name, features.Gap, features.Files = "features", "", pipeline.Files{CLIP: "../models/world/clip.safetensors"}
		o.Models = append(o.Models, features)
	})
	type answered struct {
		Models []struct {
			Name      string
			BuiltIn   bool `json:"built_in"`
			Pipelines []string
			Texts     bool
			Gap       bool
			Decode    string
			Beam      int
		}
		Limits struct{ Body, Items, Beam int64 }
	}
	_, text := get(t, url+"/models")
	got := decode[answered](t, text)
	if len(got.Models) != 2 || got.Limits.Body != 32<<20 || got.Limits.Items != 256 {
		t.Fatal(text)
	}
	a, b := got.Models[0], got.Models[1]
	if a.Name != "world" || !a.BuiltIn || !slices.Equal(a.Pipelines, []string{"direct", "textualised"}) || !a.Texts || !a.Gap || a.Decode != "greedy" || a.Beam != 5 {
		t.Errorf("%+v", a)
	}
	if b.Name != "features" || b.Pipelines == nil || len(b.Pipelines) != 0 || b.Gap || b.BuiltIn || b.Decode != "" {
		t.Errorf("%+v", b)
	}
	s.models.replace(nil)
	if answer, text := get(t, url+"/models"); answer.StatusCode != http.StatusServiceUnavailable {
		t.Error(answer.Status, text)
	}
}
