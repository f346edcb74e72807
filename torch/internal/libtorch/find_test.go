package libtorch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// world is a file system for a search: shims and libtorchs that nobody could
// load, and what they say of themselves.
type world struct {
	t      *testing.T
	root   string
	abouts map[string]About
	search search
}

const needed = 3 // the ABI of the program

func newWorld(t *testing.T) *world {
	w := &world{t: t, root: t.TempDir(), abouts: map[string]About{}}
	w.search = search{
		beside: w.path("app/bin"), checkout: w.path("checkout"), cache: w.path("cache"),
		about: func(file string) (About, error) {
			if a, ok := w.abouts[file]; ok {
				return a, nil
			}
			return About{}, fmt.Errorf("%s is not a shared library", file)
		},
		python: func() (Libtorch, bool) { return Libtorch{}, false },
	}
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.root, name) }

func (w *world) write(name, text string) string {
	w.t.Helper()
	file := w.path(name)
	if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
		w.t.Fatal(err)
	}
	return file
}

// shim makes one that was built with a libtorch in a folder.
func (w *world) shim(name string, abi int, release, built string) string {
	w.t.Helper()
	file := w.write(name, "")
	w.abouts[file] = About{abi, release}
	if built != "" {
		w.write(filepath.Join(filepath.Dir(name), PathName), w.path(built)+"\n")
	}
	return file
}

func (w *world) libtorch(name, version string) Libtorch {
	w.t.Helper()
	w.write(name+"/lib/libtorch_cpu.so", "")
	if version != "" {
		w.write(name+"/version.py", "from typing import Optional\n__version__ = '"+version+"'\n")
	}
	l, err := At(w.path(name))
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

func (w *world) finds(shim, libtorch string) {
	w.t.Helper()
	found, err := w.search.find(needed)
	if err != nil {
		w.t.Fatal(err)
	}
	if found.Shim != w.path(shim) || found.Libtorch.Dir != w.path(libtorch) {
		w.t.Errorf("found %s with %s, want %s with %s", found.Shim, found.Libtorch.Dir, shim, libtorch)
	}
}

func (w *world) fails(texts ...string) {
	w.t.Helper()
	found, err := w.search.find(needed)
	if err == nil {
		w.t.Fatalf("found %+v, want an error", found)
	}
	for _, s := range texts {
		if !strings.Contains(err.Error(), s) {
			w.t.Errorf("the error lacks %q: %v", s, err)
		}
	}
}

// The places, the first choice first: each is found once those before it are
// gone.
func TestOrderOfShims(t *testing.T) {
	w := newWorld(t)
	l := w.libtorch("torch", "2.11.0+cu130")
	cached, _ := filepath.Rel(w.root, CachedShim(w.search.cache, l))
	order := []string{"chosen/any-name.so", "app/bin/" + ShimName, "app/lib/" + ShimName, "app/build/lib/" + ShimName,
		"checkout/build/lib/" + ShimName, cached}
	for _, name := range order {
		w.shim(name, needed, "2.11.0", "torch")
	}
	w.search.shim = w.path(order[0])
	for _, name := range order {
		w.finds(name, "torch")
		w.search.shim = ""
		if err := os.Remove(w.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(w.search.cache); err != nil {
		t.Fatal(err)
	}
	w.fails("has not been built", "to build it", "CYCLECAP_SHIM")
}

func TestOrderOfLibtorchs(t *testing.T) {
	w := newWorld(t)
	const shim = "app/lib/" + ShimName
	w.shim(shim, needed, "2.11.0", "built")
	order := []string{"named", "built", "app/bin/libtorch", "app/libtorch", "python/torch"}
	var all []Libtorch
	for _, name := range order {
		all = append(all, w.libtorch(name, "2.11.0"))
	}
	w.search.libtorch, w.search.fixed = all[0], true
	asked := false
	w.search.python = func() (Libtorch, bool) { asked = true; return all[4], true }
	for i, name := range order {
		w.finds(shim, name)
		if asked != (i == 4) {
			t.Errorf("with libtorch at %s, Python was asked: %v", name, asked)
		}
		w.search.fixed = false
		if err := os.RemoveAll(w.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	w.search.python = func() (Libtorch, bool) { return Libtorch{}, false }
	w.fails(w.path(shim), "requires libtorch 2.11.0, but none was found", "pip install torch==2.11.0", "LIBTORCH")
}

// A shim runs with no other libtorch than the one it was built for.
func TestVersions(t *testing.T) {
	w := newWorld(t)
	const shim = "app/lib/" + ShimName
	w.shim(shim, needed, "2.11.0", "built")
	w.libtorch("built", "2.12.0+cpu") // upgraded since
	w.fails(w.path(shim), "requires libtorch 2.11.0", "but found only libtorch 2.12.0+cpu at "+w.path("built"))

	w.search.libtorch, w.search.fixed = w.libtorch("named", "2.6.0"), true
	w.fails(w.path(shim)+" was built for libtorch 2.11.0", "LIBTORCH is libtorch 2.6.0 at "+w.path("named"), "to build a matching shim")

	// The cache may have one for it.
	cached, _ := filepath.Rel(w.root, CachedShim(w.search.cache, w.search.libtorch))
	w.shim(cached, needed, "2.6.0", "named")
	w.finds(cached, "named")

	// No file tells a version: it is taken.
	w = newWorld(t)
	w.shim(shim, needed, "2.11.0", "built")
	w.libtorch("built", "")
	w.finds(shim, "built")
}

func TestABI(t *testing.T) {
	w := newWorld(t)
	w.libtorch("torch", "2.11.0")
	old := w.shim("app/lib/"+ShimName, needed-1, "2.11.0", "torch")
	w.fails(old+" has ABI 2, but this program needs ABI 3", "to build the required shim")
	// Another place may have the right one.
	w.shim("checkout/build/lib/"+ShimName, needed, "2.11.0", "torch")
	w.finds("checkout/build/lib/"+ShimName, "torch")
	// One that was asked for by name is not passed over.
	w.search.shim = old
	w.fails(old + " has ABI 2")
}

func TestChosenShim(t *testing.T) {
	w := newWorld(t)
	w.libtorch("torch", "2.11.0")
	w.shim("app/lib/"+ShimName, needed, "2.11.0", "torch")
	w.search.shim = w.path("nowhere.so")
	w.fails("CYCLECAP_SHIM is "+w.path("nowhere.so"), "no such file")
	w.search.shim = w.write("text.so", "not a library")
	w.fails(w.path("text.so") + " is not a shared library")
}

// Of several in the cache, the one that setup chose last.
func TestLastChosen(t *testing.T) {
	w := newWorld(t)
	var files []string
	for i, version := range []string{"2.10.0", "2.11.0", "2.9.0"} {
		l := w.libtorch("torch-"+version, version)
		name, _ := filepath.Rel(w.root, CachedShim(w.search.cache, l))
		w.shim(name, needed, version, "torch-"+version)
		files = append(files, name)
		when := time.Now().Add(time.Duration(i-10) * time.Hour)
		if err := os.Chtimes(w.path(filepath.Dir(name)+"/"+PathName), when, when); err != nil {
			t.Fatal(err)
		}
	}
	w.finds(files[2], "torch-2.9.0")
	now := time.Now()
	if err := os.Chtimes(w.path(filepath.Dir(files[0])+"/"+PathName), now, now); err != nil {
		t.Fatal(err)
	}
	w.finds(files[0], "torch-2.10.0")
	// A shim of other sources is none of ours.
	if err := os.RemoveAll(filepath.Join(w.search.cache, "shim")); err != nil {
		t.Fatal(err)
	}
	w.shim("cache/shim/000000000000-2.11.0/"+ShimName, needed, "2.11.0", "torch-2.11.0")
	w.fails("has not been built")
}

func TestVersionFiles(t *testing.T) {
	for name, c := range map[string]struct{ file, text, want string }{
		"pip":         {"version.py", "__all__ = []\n__version__ = '2.11.0+cu130'\ndebug = False\n", "2.11.0+cu130"},
		"archive":     {"build-version", "2.6.0+cpu\n", "2.6.0+cpu"},
		"headers":     {"include/torch/headeronly/version.h", "#define TORCH_VERSION_MAJOR 2\n\n#define TORCH_VERSION_MINOR 15\n\n#define TORCH_VERSION_PATCH 1\n", "2.15.1"},
		"old headers": {"include/torch/csrc/api/include/torch/version.h", "#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 6\n#define TORCH_VERSION_PATCH 0\n", "2.6.0"},
		"nothing":     {"version.txt", "2.11.0\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.write("l/"+c.file, c.text)
			if l := w.libtorch("l", ""); l.Version != c.want {
				t.Errorf("version %q, want %q", l.Version, c.want)
			}
		})
	}
	if _, err := At(t.TempDir()); err == nil || !strings.Contains(err.Error(), "lib/libtorch_cpu.so is missing") {
		t.Errorf("error of an empty folder: %v", err)
	}
}

func TestOlder(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{{"2.5.1", "2.6", true}, {"2.6.0", "2.6", false}, {"2.11.0", "2.6", false}, {"1.13.1", "2.6", true}, {"", "2.6", false}, {"2.10.0a0", "2.6", false}} {
		if got := Older(c.a, c.b); got != c.want {
			t.Errorf("Older(%q, %q) is %v", c.a, c.b, got)
		}
	}
}

func TestReadAbout(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ReadAbout(exe); err == nil || !strings.Contains(err.Error(), "is not a cyclecap shim") {
		t.Errorf("error of another ELF file: %v", err)
	}
	text := newWorld(t).write("x.so", "not a library")
	if _, err := ReadAbout(text); err == nil || !strings.Contains(err.Error(), "is not a shared library") {
		t.Errorf("error of a text: %v", err)
	}
	if _, err := ReadAbout(text + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error of no file: %v", err)
	}
	// The real one, built for the tests of everything else.
	a, err := ReadAbout(filepath.Join(checkout(), "build", "lib", ShimName))
	if err != nil {
		t.Fatal(err)
	}
	if a.ABI < 1 || Older(a.Release, Minimum) || a.Release == "" {
		t.Errorf("the shim says %+v", a)
	}
}

// A release has another path.
func TestModule(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(checkout(), "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if first, _, _ := strings.Cut(string(text), "\n"); first != "module "+Module() {
		t.Errorf("Module() is %q, go.mod says %q", Module(), first)
	}
}
