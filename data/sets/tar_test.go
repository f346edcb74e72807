package sets

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"cyclecap/data/photo"

	"github.com/google/go-cmp/cmp"
)

// pack writes members, which are pairs of a name and its contents, to a tar in a folder.
func pack(t *testing.T, name string, members ...string) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(members); i += 2 {
		if err := w.WriteHeader(&tar.Header{Name: members[i], Mode: 0o644, Size: int64(len(members[i+1]))}); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, members[i+1])
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSources(t *testing.T) {
	jpeg, err := os.ReadFile("../../testdata/photos/000000084284.jpg")
	if err != nil {
		t.Fatal(err)
	}
	photos := pack(t, "x.tar", "./1.jpg", string(jpeg), "1.txt", "a caption", "1.json", "{}", "._2.jpg", "hidden", "2.JPG", "no photo", "sub/3.jpg", string(jpeg))
	none := pack(t, "none.tar", "1.txt", "a caption")
	cut := filepath.Join(t.TempDir(), "cut.tar")
	data, err := os.ReadFile(photos)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cut, data[:len(data)-len(jpeg)], 0o644); err != nil {
		t.Fatal(err)
	}
	type source struct {
		Path        string
		Data, Photo bool // whether there is data, and whether the error is of a photo
		Tar         int  // photos read, if the error is of the tar
	}
	sources, count := Sources([]string{"a.jpg", photos, none, cut, "b.jpg"})
	var got []source
	for s := range sources {
		one := source{Path: s.Path, Data: s.Data != nil, Photo: errors.Is(s.Err, photo.ErrFormat), Tar: -1}
		if of := (*ArchiveError)(nil); errors.As(s.Err, &of) {
			one.Tar = of.Read
		} else if s.Data != nil && !bytes.Equal(s.Data, jpeg) {
			t.Errorf("%s: other contents", s.Path)
		}
		got = append(got, one)
	}
	want := []source{{Path: "a.jpg", Tar: -1},
		{photos + "/1.jpg", true, false, -1}, {photos + "/2.JPG", false, true, -1}, {photos + "/sub/3.jpg", true, false, -1},
		{none, false, false, 0},
		{cut + "/1.jpg", true, false, -1}, {cut + "/2.JPG", false, true, -1}, {cut, false, false, 2},
		{Path: "b.jpg", Tar: -1}}
	if d := cmp.Diff(want, got); d != "" || count != -1 {
		t.Errorf("count %d, sources (-want +got):\n%s", count, d)
	}
	for range sources {
		break // ends the sequence inside a tar
	}
	if _, count := Sources([]string{"a.jpg", "b.jpg"}); count != 2 {
		t.Errorf("count %d of two files", count)
	}
}

// Memory does not grow with the number of photos in a tar.
func TestSourcesMemory(t *testing.T) {
	jpeg, err := os.ReadFile("../../testdata/photos/000000084284.jpg")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "x.tar")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	const n = 500
	for range n {
		if err := w.WriteHeader(&tar.Header{Name: "1.jpg", Mode: 0o644, Size: int64(len(jpeg))}); err != nil {
			t.Fatal(err)
		}
		w.Write(jpeg)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	inUse := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	sources, _ := Sources([]string{path})
	read, first := 0, int64(0)
	for b, err := range photo.LoadFrom(t.Context(), sources, photo.CLIP(16), 2, 10) {
		if err != nil {
			t.Fatal(err)
		}
		if read += len(b.Index); read == 50 {
			first = inUse()
		}
		if b.Last {
			if grown := inUse() - first; grown > 4<<20 {
				t.Errorf("%d bytes more after %d photos than after 50", grown, n)
			}
		}
	}
	if read != n {
		t.Errorf("%d of %d photos", read, n)
	}
}
