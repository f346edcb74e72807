package cli_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tarOf packs photos as img2dataset does: 000000000.jpg, 000000000.txt, 000000000.json, …
func tarOf(t *testing.T, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i, path := range files {
		for _, m := range []struct {
			ext  string
			data []byte
		}{{"jpg", must[[]byte](t)(os.ReadFile(path))}, {"txt", fmt.Appendf(nil, "caption %d", i)}, {"json", []byte(`{}`)}} {
			if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("%09d.%s", i, m.ext), Mode: 0o644, Size: int64(len(m.data))}); err != nil {
				t.Fatal(err)
			}
			w.Write(m.data)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func inputsOf(t *testing.T, f featureFile) (list []string) {
	t.Helper()
	if err := json.Unmarshal([]byte(f.meta["inputs"]), &list); err != nil {
		t.Fatal(err)
	}
	return list
}

// A tar, a pattern of tars and a list on standard input stand for the photos in them.
func TestPhotosOfTars(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "x.safetensors")
	a := put(t, filepath.Join(dir, "00000.tar"), tarOf(t, photos[:2]...))
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	w.Write(tarOf(t, photos[2:4]...))
	w.Close()
	b := put(t, filepath.Join(dir, "00001.tar"), z.Bytes())
	// A batch ends with a tar.
	want := slices.Concat(imageFeatures(t, photos[:2]), imageFeatures(t, photos[2:4]), imageFeatures(t, photos[4:]))
	names := []string{a + "/000000000.jpg", a + "/000000001.jpg", b + "/000000000.jpg", b + "/000000001.jpg", photos[4]}
	for what, c := range map[string]struct {
		stdin string
		args  []string
	}{
		"paths":          {"", []string{a, b, photos[4]}},
		"pattern":        {"", []string{filepath.Join(dir, "{00000..00001}.tar"), photos[4]}},
		"standard input": {a + "\r\n\n" + b + "\n" + photos[4], []string{"-"}},
		"both":           {b + "\n", []string{a, "-", photos[4]}},
	} {
		r := run(c.stdin, append([]string{"features", "--clip", clipF, "--batch", "5", "-o", out, "--images"}, c.args...)...)
		if r.code != 0 || r.err != "" {
			t.Fatalf("%s: exit code %d\n%s", what, r.code, r.err)
		}
		got := readFeatures(t, out)
		if d := cmp.Diff(want, got.values); d != "" {
			t.Errorf("%s: features differ:\n%s", what, d)
		}
		if d := cmp.Diff(names, inputsOf(t, got)); d != "" {
			t.Errorf("%s: inputs (-want +got):\n%s", what, d)
		}
	}
	var files []string
	for _, l := range captionLines(t, ok(t, caption("--json", a)...)) {
		files = append(files, l.File)
	}
	if d := cmp.Diff(names[:2], files); d != "" {
		t.Errorf("files of captions (-want +got):\n%s", d)
	}
	run("", "features", "--clip", clipF, "--images", "-", "-o", out).fails(t, 1, "standard input lists no paths")
	run("", "features", "--clip", clipF, "--images", filepath.Join(dir, "{2..1}.tar"), "-o", out).fails(t, 1, "{2..1}", "ends before it begins")
	run("", "features", "--clip", clipF, "--images", dir, "-o", out).fails(t, 1, dir, "no photos in this folder", "passed over 2 tars", "name a tar")
}

// A damaged photo in a tar and the rest of a damaged tar are reported and skipped.
func TestDamagedTars(t *testing.T) {
	dir := t.TempDir()
	bad := put(t, filepath.Join(dir, "bad.jpg"), []byte("no photo"))
	data := tarOf(t, photos[0], bad, photos[1])
	whole := put(t, filepath.Join(dir, "whole.tar"), data)
	cut := put(t, filepath.Join(dir, "cut.tar"), data[:len(data)-10000])
	gone := filepath.Join(dir, "gone.tar")
	out := filepath.Join(t.TempDir(), "x.safetensors")
	r := run("", "features", "--clip", clipF, "--batch", "2", "-o", out, "--images", cut, whole, gone)
	if r.code != 1 || r.out != "" {
		t.Errorf("exit code %d, output %q", r.code, r.out)
	}
	r.says(t, 5, cut+"/000000001.jpg: not a JPEG", cut+": damaged at or after its member 000000002.jpg, at byte ", "2 photos of this file were read",
		whole+"/000000001.jpg: not a JPEG", gone+": no such file", "2 of 5 photos could not be read, and 2 files were not read to the end", out)
	got := inputsOf(t, readFeatures(t, out))
	if d := cmp.Diff([]string{cut + "/000000000.jpg", whole + "/000000000.jpg", whole + "/000000002.jpg"}, got); d != "" {
		t.Errorf("inputs (-want +got):\n%s", d)
	}
	r = run("", caption(gone)...)
	if r.code != 1 || strings.Count(r.err, "\n") != 2 {
		t.Errorf("exit code %d\n%s", r.code, r.err)
	}
	r.says(t, 2, gone+": no such file", "1 file was not read to the end")
}
