package weights_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/weights"

	"github.com/google/go-cmp/cmp"
)

// TestOpenFS: a file in a file system of Go has the tensors that it has on disk,
// aligned like those of libtorch, whatever its format.
func TestOpenFS(t *testing.T) {
	for _, name := range []string{"zip.pt", "legacy.pt", "script.pt", "checkpoint.pt", "single.safetensors"} {
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join("testdata", name))
			if err != nil {
				t.Fatal(err)
			}
			// Nothing of the same name is on disk.
			f, err := weights.OpenFS(fstest.MapFS{"folder/" + name: {Data: data}, "folder/config.json": {Data: []byte("{}")}}, "folder/"+name)
			if err != nil {
				t.Fatal(err)
			}
			disk, err := weights.Open(filepath.Join("testdata", name))
			if err != nil {
				t.Fatal(err)
			}
			if f.Path != "folder/"+name || f.Format != disk.Format || f.Root != disk.Root || !cmp.Equal(f.Meta, disk.Meta) {
				t.Errorf("%s, %s, root %q, metadata %v", f.Path, f.Format, f.Root, f.Meta)
			}
			if data, path, err := f.Beside("config.json"); string(data) != "{}" || path != "folder/config.json" || err != nil {
				t.Errorf("config.json: %q, %s, %v", data, path, err)
			}
			if data, _, err := f.Beside("vocab.json"); data != nil || err != nil {
				t.Errorf("vocab.json: %q, %v", data, err)
			}
			got, err := f.Load()
			if err != nil {
				t.Fatal(err)
			}
			defer got.Close()
			want, err := disk.Load()
			if err != nil {
				t.Fatal(err)
			}
			defer want.Close()
			if diff := cmp.Diff(contents(t, want), contents(t, got)); diff != "" {
				t.Errorf("(-disk +FS):\n%s", diff)
			}
			aligned(t, want, got)
		})
	}
}

// aligned checks that tensors have the same alignment, except integers of 8 bits, which may
// have any.
func aligned(t *testing.T, want, got *nn.StateDict) {
	t.Helper()
	for _, name := range want.Names() {
		a, _ := want.Get(name)
		b, _ := got.Get(name)
		if a.DType() != torch.Int8 && a.DataPtr()%64 != b.DataPtr()%64 {
			t.Errorf("%s is at %d, want %d (mod 64)", name, b.DataPtr()%64, a.DataPtr()%64)
		}
	}
}

// TestOpenFSOnly: with LoadOnly, the other tensors are not read.
func TestOpenFSOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.safetensors")
	err := torch.Scope(func() error {
		sd := nn.NewStateDict()
		sd.Add("a", torch.FromSlice([]float32{1, 2, 3}))
		sd.Add("b", torch.FromSlice([]float32{4, 5}))
		return weights.Save(context.Background(), path, sd, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	f, err := weights.OpenFS(os.DirFS(filepath.Dir(path)), "x.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	sd, err := f.LoadOnly(func(name string) bool { return name == "b" })
	if err != nil {
		t.Fatal(err)
	}
	defer sd.Close()
	a, _ := sd.Get("a")
	b, _ := sd.Get("b")
	if a.Device() != torch.Meta || b.Device() != torch.CPU {
		t.Errorf("a is on %v, b on %v", a.Device(), b.Device())
	}
	if got := torch.ToSlice[float32](b); !cmp.Equal(got, []float32{4, 5}) {
		t.Errorf("b is %v", got)
	}
}

func TestOpenFSErrors(t *testing.T) {
	fsys := fstest.MapFS{"empty.pt": {}, "text.pt": {Data: []byte("This is a text of some length.")}, "cut.safetensors": {Data: []byte("\xff\x00\x00\x00\x00\x00\x00\x00{}")}}
	for name, want := range map[string]string{"empty.pt": "the file is empty", "text.pt": "a text file", "cut.safetensors": "truncated", "none.pt": "not exist"} {
		_, err := weights.OpenFS(fsys, name)
		var e *weights.Error
		if !errors.As(err, &e) || !strings.HasPrefix(err.Error(), name+": ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	if _, err := weights.OpenFS(fsys, "none.pt"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none.pt: %v", err)
	}
}
