package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/parquet-go/parquet-go"
)

// Photos in a Parquet table, with bytes or paths, have the features and captions that they have in files.
func TestTables(t *testing.T) {
	dir := t.TempDir()
	type inRows struct {
		Key string `parquet:"key"`
		Jpg []byte `parquet:"jpg,optional"`
	}
	type paths struct {
		Path string `parquet:"image_path"`
	}
	var bytes []inRows
	var names []paths
	for i, p := range photos {
		bytes = append(bytes, inRows{strings.TrimSuffix(filepath.Base(p), ".jpg"), must[[]byte](t)(os.ReadFile(p))})
		abs := must[string](t)(filepath.Abs(p))
		names = append(names, paths{abs})
		if i == 1 {
			bytes = append(bytes, inRows{"none", nil})
			names = append(names, paths{"no.jpg"})
		}
	}
	a, b := filepath.Join(dir, "bytes.parquet"), filepath.Join(dir, "paths.parquet")
	if err := parquet.WriteFile(a, bytes); err != nil {
		t.Fatal(err)
	}
	if err := parquet.WriteFile(b, names); err != nil {
		t.Fatal(err)
	}
	whole := filepath.Join(dir, "whole.safetensors")
	ok(t, append([]string{"features", "--clip", clipF, "--batch", "6", "-o", whole, "--images"}, photos...)...)
	want := readFeatures(t, whole)
	for path, says := range map[string]string{a: a + "/none: this row has no photo", b: filepath.Join(dir, "no.jpg") + ": no such file"} {
		out := filepath.Join(dir, "out.safetensors")
		r := run("", "features", "--clip", clipF, "--batch", "6", "-o", out, "--images", path)
		r.says(t, 2, says, "1 of 6 photos could not be read")
		got := readFeatures(t, out)
		if d := cmp.Diff(want.values, got.values); d != "" {
			t.Errorf("%s: %s", path, d)
		}
		if d := cmp.Diff([]int64{0, 1, 3, 4, 5}, got.ids); d != "" {
			t.Errorf("%s: ids: %s", path, d)
		}
		first := a + "/" + bytes[0].Key
		if path == b {
			first = names[0].Path
		}
		if !strings.HasPrefix(got.meta["inputs"], `["`+first+`"`) {
			t.Errorf("the inputs are %.100s, want %s first", got.meta["inputs"], first)
		}
	}
	// Each table is a part of its own, as a tar is.
	out := filepath.Join(dir, "index") + "/"
	run("", "features", "--clip", clipF, "-o", out, "--images", filepath.Join(dir, "{0..1}.parquet")).says(t, 3, "0.parquet: no such file", "1.parquet: no such file", "no photo could be read")
	run("", "features", "--clip", clipF, "-o", out, "--images", a, b).says(t, 3, "2 of 12 photos could not be read")
	if n := len(contentsOf(t, out)); n != 4 {
		t.Errorf("%d files, want two for each table", n)
	}
}
