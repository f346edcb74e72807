package geometry

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestCloud compares the picture with the points that Measure computes for a report, at another
// scale of the features, and after a round trip through JSON.
func TestCloud(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	images, texts, bridged := random(r, 40, 12), random(r, 40, 12), random(r, 40, 12)
	for i := range texts {
		texts[i][3] += 2
		bridged[i][3]++
	}
	g, err := Measure(images, texts, []Set{{"bridge", bridged}}, 10)
	if err != nil {
		t.Fatal(err)
	}
	made, err := NewCloud(images, texts, bridged, 10)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(made)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ReadCloud(b)
	if err != nil {
		t.Fatal(err)
	}
	within := cmpopts.EquateApprox(0, 1e-4)
	for _, s := range []struct {
		name      string
		got, want any
	}{
		{"images", c.Images, g.Sides[0].Across}, {"texts", c.Texts, g.TextsAcross}, {"textualised", c.Textualised, g.Sides[1].Across},
		{"gaps", []float64{c.ImageGap, c.TextualisedGap}, []float64{g.Sides[0].Gap, g.Sides[1].Gap}},
	} {
		if diff := cmp.Diff(s.want, s.got, within); diff != "" {
			t.Errorf("%s (-want +got):\n%s", s.name, diff)
		}
	}
	row := make([]float32, 12)
	for j, v := range bridged[0] {
		row[j] = 7 * v
	}
	if got := c.Project(row); !cmp.Equal(got, g.Sides[1].Across[0], within) {
		t.Errorf("a longer feature is at %v, want %v", got, g.Sides[1].Across[0])
	}
}

func TestCloudErrors(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	if _, err := NewCloud(random(r, 4, 3), random(r, 4, 3), random(r, 4, 2), 4); err == nil || !strings.Contains(err.Error(), "textualised") {
		t.Error(err)
	}
	for text, says := range map[string]string{
		`{`:                                    "JSON",
		`{}`:                                   "mean",
		`{"mean": [1], "axes": [[1], [1, 2]]}`: "axes[1]",
		`{"mean": [1], "axes": [[1], [1]], "images": [[0, 0]], "texts": [[0, 0]]}`:                    "same number",
		`{"mean": [1], "axes": [[1], [1]], "images": [], "texts": [], "textualised": []}`:             "same number",
		`{"mean": ["a"], "axes": [[1], [1]], "images": [[0, 0]], "texts": [[0, 0]], "textualised":1}`: "mean",
	} {
		if _, err := ReadCloud([]byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", text, err, says)
		}
	}
}
