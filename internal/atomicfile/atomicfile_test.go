package atomicfile_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cyclecap/internal/atomicfile"
)

// TestLinks: a link is written through, also if it points nowhere yet.
func TestLinks(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := os.Mkdir(in("sub"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(in("sub/old"), []byte("old"), 0o666); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{
		"exists":   "sub/old",
		"dangling": "sub/new",
		"chain":    "sub/link",
		"sub/link": "newer",
		"folder":   in("sub"),
		"nowhere":  "none/file",
		"circle":   "circle",
	} {
		if err := os.Symlink(to, in(link)); err != nil {
			t.Fatal(err)
		}
	}
	for name, file := range map[string]string{"exists": "sub/old", "dangling": "sub/new", "chain": "sub/newer", "folder/x": "sub/x"} {
		if err := atomicfile.Check(in(name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := atomicfile.WriteBytes(in(name), []byte(name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if text, err := os.ReadFile(in(file)); err != nil || string(text) != name {
			t.Errorf("%s: %s contains %q (%v)", name, file, text, err)
		}
		if info, err := os.Lstat(in(name)); err != nil || name != "folder/x" && info.Mode()&os.ModeSymlink == 0 {
			t.Errorf("%s is no longer a link (%v)", name, err)
		}
	}
	for name, want := range map[string]string{"nowhere": "no such file", "circle": "symbolic links", "folder": "a folder"} {
		if err := atomicfile.WriteBytes(in(name), nil); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), in(name)) {
			t.Errorf("%s: want %q: %v", name, want, err)
		}
	}
}

// TestDevices: what has the name of a device, or is beside one, is refused.
func TestDevices(t *testing.T) {
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/dev/cyclecap-none", link); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/dev/full":                      "not a regular file",
		"/dev/null":                      "not a regular file",
		"/dev/full.safetensors":          "/dev is for devices",
		"/dev/../dev/none.safetensors":   "/dev is for devices",
		"/dev/none/cyclecap.safetensors": "/dev is for devices",
		link:                             "/dev is for devices",
	} {
		err := atomicfile.WriteBytes(path, nil)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: want %q: %v", path, want, err)
		}
		if atomicfile.Check(path) == nil {
			t.Errorf("Check(%q) finds nothing wrong", path)
		}
	}
	if _, err := os.Stat("/dev/full.safetensors"); err == nil {
		t.Error("/dev/full.safetensors was written")
	}
}
