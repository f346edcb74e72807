package serve

import (
	"io/fs"
	"strings"
	"testing"

	worldmodels "cyclecap/models/world"
	"cyclecap/pipeline"
)

// A countingFS counts how often each file is opened.
type countingFS struct {
	fs.FS
	opened map[string]int
}

func (f countingFS) Open(name string) (fs.File, error) {
	f.opened[name]++
	return f.FS.Open(name)
}

// TestLoadOnce: files are read once, also if one of them is missing.
func TestLoadOnce(t *testing.T) {
	for _, missing := range []string{"", "missing.safetensors"} {
		c := worldModel()
		files := countingFS{worldmodels.FS, map[string]int{}}
		c.Files.FS = files
		if missing != "" {
			c.Files.Generator = missing
		}
		m, err := load(c)
		if missing == "" && err == nil {
			m.close()
		} else if missing == "" || err == nil || !strings.Contains(err.Error(), missing) {
			t.Errorf("missing %q: %v", missing, err)
		}
		for _, name := range []string{c.Files.CLIP, c.Files.Decoder, c.Files.GPT2, c.Files.Generator} {
			if n := files.opened[name]; n != 1 {
				t.Errorf("missing %q: %s was opened %d times", missing, name, n)
			}
		}
	}
}

// TestLoadImages loads a file with an image encoder alone: photos have features, texts have none.
func TestLoadImages(t *testing.T) {
	c := worldModel()
	c.Files, c.Gap = pipeline.Files{CLIP: "../pipeline/testdata/siglip/vision"}, ""
	m, err := load(c)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	if m.texts || m.ways() != nil {
		t.Errorf("texts %v, pipelines %v", m.texts, m.ways())
	}
}
