package world_test

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"cyclecap/eval/geometry"
	"cyclecap/models/world"
)

// Every model is the one in SHA256SUMS, and nothing else is embedded. CLIP and GPT-2
// have at most 16 MB together, and all four at most 24 MB, since they are in every
// clone and in the program.
func TestFiles(t *testing.T) {
	sums := ""
	sizes := map[string]int{}
	all := 0
	names, err := fs.Glob(world.FS, "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		data, err := fs.ReadFile(world.FS, name)
		if err != nil {
			t.Fatal(err)
		}
		sums += fmt.Sprintf("%x  %s\n", sha256.Sum256(data), name)
		sizes[name] = len(data)
		all += len(data)
	}
	want, err := os.ReadFile("SHA256SUMS")
	if err != nil {
		t.Fatal(err)
	}
	if sums != string(want) {
		t.Errorf("SHA256SUMS has\n%s\nthe models have\n%s", want, sums)
	}
	if n := strings.Count(sums, ".safetensors\n"); n != 4 {
		t.Errorf("%d models, want 4", n)
	}
	if n := sizes["clip.safetensors"] + sizes["gpt2.safetensors"]; n > 16e6 {
		t.Errorf("CLIP and GPT-2 have %d bytes", n)
	}
	if sizes["gap.json"] > 100e3 {
		t.Errorf("gap.json has %d bytes", sizes["gap.json"])
	}
	if all > 24e6 {
		t.Errorf("the models have %d bytes", all)
	}
}

// TestGap reads the picture of the gap: the textualised features must lie nearer to the texts
// than the images do, by a lot.
func TestGap(t *testing.T) {
	data, err := world.FS.ReadFile("gap.json")
	if err != nil {
		t.Fatal(err)
	}
	c, err := geometry.ReadCloud(data)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Mean) != 512 || len(c.Images) != 150 {
		t.Errorf("%d wide, %d points; want 512 and 150", len(c.Mean), len(c.Images))
	}
	across := func(list [][2]float64) (mean float64) {
		for _, p := range list {
			mean += p[0] / float64(len(list))
		}
		return mean
	}
	images, texts, textualised := across(c.Images), across(c.Texts), across(c.Textualised)
	if texts-images < .2 || texts-textualised > (texts-images)/2 || c.TextualisedGap > c.ImageGap/2 {
		t.Errorf("the means are at %.3f (images), %.3f (textualised) and %.3f (texts); the gaps are %v and %v", images, textualised, texts, c.ImageGap, c.TextualisedGap)
	}
}
