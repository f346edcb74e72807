package webdataset

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// packed returns a tar of members, which are pairs of a name and its contents.
func packed(t testing.TB, members ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(members); i += 2 {
		h := &tar.Header{Name: members[i], Mode: 0o644, Size: int64(len(members[i+1]))}
		if strings.HasSuffix(members[i], "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, members[i+1])
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(data)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func put(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// read returns the members of a tar, as "name: contents", and the error at its end.
func read(path string) (list []string, err error) {
	for m, err := range Members(path) {
		if err != nil {
			return list, err
		}
		data, err := io.ReadAll(m)
		if err == nil {
			list = append(list, m.Name+": "+string(data))
		} else if !m.Cut() {
			return list, fmt.Errorf("Cut does not report %w", err)
		}
	}
	return list, nil
}

func TestMembers(t *testing.T) {
	data := packed(t, "a.jpg", "photo", "sub/", "", "sub/b.txt", "a caption\n", "../c.json", "{}")
	want := []string{"a.jpg: photo", "sub/b.txt: a caption\n", "../c.json: {}"}
	for name, data := range map[string][]byte{"a.tar": data, "a.tar.gz": zipped(t, data), "zipped.tar": zipped(t, data)} {
		got, err := read(put(t, name, data))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s:\n%s", name, d)
		}
	}
	// What was not read of a member is passed over.
	names := 0
	for _, err := range Members(put(t, "a.tar", data)) {
		if err != nil {
			t.Fatal(err)
		}
		names++
	}
	if names != 3 {
		t.Errorf("%d members", names)
	}
}

// A damaged tar gives the members before the damage, and an error with its place.
func TestDamage(t *testing.T) {
	long := strings.Repeat("x", 2000)
	data := packed(t, "a.jpg", long, "b.jpg", long) // 512 + 2048, 512 + 2048, 1024
	header := bytes.Clone(data)
	copy(header[2560+100:], "not a number")
	for name, c := range map[string]struct {
		data   []byte
		read   int
		member string
		offset int64
		says   string
	}{
		"empty":               {nil, 0, "", 0, "the file is empty"},
		"text":                {[]byte(strings.Repeat("no tar ", 100)), 0, "", 512, "not the header of a member"},
		"in the first":        {data[:1000], 0, "a.jpg", 1000, "ends there"},
		"in a header":         {data[:2700], 1, "a.jpg", 2700, "ends there"},
		"in the second":       {data[:4000], 1, "b.jpg", 4000, "ends there"},
		"between members":     {data[:2560], 1, "a.jpg", 2560, "the end of the tar is missing"},
		"without an end":      {data[:5120], 2, "b.jpg", 5120, "the end of the tar is missing"},
		"damaged header":      {header, 1, "a.jpg", 3072, "not the header of a member"},
		"zipped and cut":      {zipped(t, data)[:40], 0, "", 0, ""},
		"damaged when zipped": {append(zipped(t, data)[:60], "damage"...), 0, "", 0, ""},
	} {
		path := put(t, "x.tar", c.data)
		got, err := read(path)
		of := (*Error)(nil)
		if !errors.As(err, &of) {
			t.Errorf("%s: error %v", name, err)
			continue
		}
		if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		if strings.Contains(name, "zipped") {
			continue
		}
		if len(got) != c.read || of.Member != c.member || of.Offset != c.offset {
			t.Errorf("%s: %d members were read, error after %q at byte %d (%v)", name, len(got), of.Member, of.Offset, err)
		}
	}
	for _, path := range []string{t.TempDir(), filepath.Join(t.TempDir(), "none.tar"), "/dev/zero"} {
		if _, err := read(path); err == nil || strings.Count(err.Error(), path) != 1 {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestExpand(t *testing.T) {
	for pattern, want := range map[string][]string{
		"a.tar":               {"a.tar"},
		"a{8..10}.tar":        {"a8.tar", "a9.tar", "a10.tar"},
		"{08..10}.tar":        {"08.tar", "09.tar", "10.tar"},
		"{0..1}/x{000..001}y": {"0/x000y", "0/x001y", "1/x000y", "1/x001y"},
		"{a..b}.tar":          {"{a..b}.tar"},
	} {
		got, err := Expand(pattern)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s:\n%s", pattern, d)
		}
	}
	for _, pattern := range []string{"{5..4}.tar", "{0..999999999999}.tar", "{0..9999}{0..9999}.tar"} {
		if got, err := Expand(pattern); err == nil || !strings.Contains(err.Error(), pattern) {
			t.Errorf("%s: %d names, %v", pattern, len(got), err)
		}
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]bool{"a.tar": true, "a.TAR": true, "a.tar.gz": true, "a.tgz": true, "a.gz": false, "tar": false, "a.jpg": false} {
		if IsTar(name) != want {
			t.Errorf("IsTar(%q) = %v", name, !want)
		}
	}
	for name, want := range map[string]string{"0001.jpg": "0001", "a.b/0001.seg.png": "a.b/0001", "plain": "plain"} {
		if got := Key(name); got != want {
			t.Errorf("Key(%q) = %q, want %q", name, got, want)
		}
	}
}

// Any bytes give members or an error, in memory that is bounded.
func FuzzMembers(f *testing.F) {
	data := packed(f, "a.jpg", "photo", "a.txt", "a caption")
	f.Add(data)
	f.Add(data[:700])
	f.Add(zipped(f, data))
	path := filepath.Join(f.TempDir(), "x.tar")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		for m, err := range Members(path) {
			if err != nil {
				if !strings.HasPrefix(err.Error(), path+": ") {
					t.Errorf("an error without its path: %v", err)
				}
				break
			}
			io.Copy(io.Discard, io.LimitReader(m, 1<<20))
		}
	})
}
