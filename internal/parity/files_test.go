package parity

import (
	"context"
	"path/filepath"
	"slices"
	"testing"

	"cyclecap/torch/nn"
	"cyclecap/torch/torchtest"
	"cyclecap/weights"
)

// TestFiles writes every kind of weight file that is read, in both formats, and
// reads it again. `make parity` has Python read what is written.
func TestFiles(t *testing.T) {
	load := func(t *testing.T, path string) *nn.StateDict {
		f, err := weights.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		sd, err := f.Load()
		if err != nil {
			t.Fatal(err)
		}
		return sd
	}
	for _, name := range []string{"clip.pt", "gpt2-old.bin", "clip-archive.pt", "clip-transformers"} {
		for _, ext := range []string{".pt", ".safetensors"} {
			t.Run(name+" as "+ext, func(t *testing.T) {
				sd := load(t, filepath.Join("testdata/small", name))
				defer sd.Close()
				to := filepath.Join(t.TempDir(), "copy"+ext)
				if err := weights.Save(context.Background(), to, sd, nil); err != nil {
					t.Fatal(err)
				}
				back := load(t, to)
				defer back.Close()
				if a, b := sorted(sd.Names()), sorted(back.Names()); !slices.Equal(a, b) {
					t.Fatalf("%d tensors %q came back as %d tensors %q", len(a), a, len(b), b)
				}
				for _, key := range sd.Names() {
					a, _ := sd.Get(key)
					b, _ := back.Get(key)
					torchtest.Bits(t, b, a, key)
				}
			})
		}
	}
}

func sorted(s []string) []string { return slices.Sorted(slices.Values(s)) }
