package world_test

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

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
	if all > 24e6 {
		t.Errorf("the models have %d bytes", all)
	}
}
