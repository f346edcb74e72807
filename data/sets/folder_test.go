package sets

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFolder(t *testing.T) {
	dir := t.TempDir()
	_, _, err := Folder(dir, false)
	checkError(t, err, []string{dir, "no photos"})
	for _, name := range []string{"b.JPG", "a.png", "c.txt", "d.webp", "e.jpg/f.jfif", "e.jpg/deep/g.gif", ".git/h.png", "._a.png", "i.HEIC", "j.tiff", "._i.heic", ".DS_Store"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		path      string
		recursive bool
		want      []string
		passed    string
	}{
		{dir, false, []string{"a.png", "b.JPG", "d.webp"}, `1 subfolder, 1 photo whose name begins with ".", 2 photos in formats that cannot be read, such as TIFF`},
		{dir, true, []string{"a.png", "b.JPG", "d.webp", "e.jpg/deep/g.gif", "e.jpg/f.jfif"}, `1 photo whose name begins with ".", 2 photos in formats that cannot be read, such as TIFF`},
		{filepath.Join(dir, "e.jpg/deep"), false, []string{"e.jpg/deep/g.gif"}, ""},
	} {
		photos, passed, err := Folder(test.path, test.recursive)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for i, p := range photos {
			name, err := filepath.Rel(dir, p.Path)
			if n, ok := p.ID.Int64(); err != nil || !ok || n != int64(i) {
				t.Errorf("photo %d: %+v (%v)", i, p, err)
			}
			got = append(got, filepath.ToSlash(name))
		}
		if diff := cmp.Diff(test.want, got); diff != "" || passed.String() != test.passed {
			t.Errorf("%s passed over %q", diff, passed)
		}
	}
	_, _, err = Folder(filepath.Join(dir, ".git", ".."), false)
	checkError(t, err, nil)
	only := t.TempDir()
	if err := os.MkdirAll(filepath.Join(only, "x"), 0o777); err != nil {
		t.Fatal(err)
	}
	_, _, err = Folder(only, false)
	checkError(t, err, []string{"no photos", "passed over 1 subfolder"})
}
