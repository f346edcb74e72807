package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cyclecap/torch/internal/libtorch"
)

// python stands for python3: it makes virtual environments that hold itself,
// and installs a torch that nobody could load. FAIL makes pip fail.
const python = `#!/bin/sh
echo "$*" >>"$CALLS"
case "$*" in
-c*) ;; # where torch is: nowhere
"-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
"-m pip --version") ;;
"-m pip install "*)
  [ -z "$FAIL" ] || { echo "no space left" >&2; exit 1; }
  to=$(dirname "$0")/../lib/python3.11/site-packages/torch
  mkdir -p "$to/lib" "$to/include/ATen"
  touch "$to/lib/libtorch_cpu.so" "$to/include/ATen/ATen.h"
  echo "__version__ = '` + torchVersion + `+cu130'" >"$to/version.py" ;;
*) echo "unexpected: $*" >&2; exit 1 ;;
esac
`

// cmake makes the folder that the real one would.
const cmake = `#!/bin/sh
echo "cmake $*" >>"$CALLS"
case "$*" in
-S*) [ -f "$2/include/cyclecap_torch.h" ] && [ -f "$2/src/op.cpp" ] && [ -f "$2/CMakeLists.txt" ] && mkdir -p "$4/lib" ;;
--build*)
  [ -z "$FAIL" ] || { echo "op.cpp:1: error: this compiler is too old"; exit 1; }
  [ -z "$NCCL" ] || echo nccl >"$2/lib/libcyclecap_torch_nccl.so"
  echo shim >"$2/lib/libcyclecap_torch.so" && echo "path of libtorch" >"$2/lib/libtorch.path" ;;
esac
`

// house is a machine with these programs and an empty cache.
type house struct {
	t     *testing.T
	s     setup
	calls string
	said  strings.Builder
}

func newHouse(t *testing.T, programs map[string]string) *house {
	t.Helper()
	bin, cache := t.TempDir(), t.TempDir()
	for name, text := range programs {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	h := &house{t: t, calls: filepath.Join(t.TempDir(), "calls")}
	h.s = setup{cache: cache, venv: filepath.Join(cache, "libtorch-"+torchVersion)}
	h.s.log = func(format string, args ...any) { fmt.Fprintf(&h.said, format+"\n", args...) }
	for name, value := range map[string]string{"PATH": bin + ":/usr/bin:/bin", "CALLS": h.calls, "FAIL": "", "NCCL": "", "LIBTORCH": "", "XDG_CACHE_HOME": cache} {
		t.Setenv(name, value)
	}
	return h
}

// called gives the calls since the last time that match a word.
func (h *house) called(word string) int {
	h.t.Helper()
	text, err := os.ReadFile(h.calls)
	if err != nil && !os.IsNotExist(err) {
		h.t.Fatal(err)
	}
	os.Remove(h.calls)
	n := 0
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, word) {
			n++
		}
	}
	return n
}

func (h *house) want(err error, texts ...string) {
	h.t.Helper()
	if err == nil {
		h.t.Fatal("no error")
	}
	for _, s := range texts {
		if !strings.Contains(err.Error(), s) {
			h.t.Errorf("the error lacks %q: %v", s, err)
		}
	}
}

func TestInstall(t *testing.T) {
	h := newHouse(t, map[string]string{"python3": python})
	t.Setenv("FAIL", "1")
	_, err := h.s.libtorch(t.Context())
	h.want(err, "pip could not install libtorch "+torchVersion, "LIBTORCH")
	t.Setenv("FAIL", "")
	h.called("")
	for i, installs := range []int{1, 0} {
		l, err := h.s.libtorch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if l.Release() != torchVersion || !strings.HasPrefix(l.Dir, h.s.venv) {
			t.Errorf("libtorch is %v", l)
		}
		if n := h.called("pip install"); n != installs {
			t.Errorf("call %d ran pip %d times, want %d", i, n, installs)
		}
		// What was removed is installed again.
		if i == 1 {
			if err := os.RemoveAll(l.Dir); err != nil {
				t.Fatal(err)
			}
			if l, err = h.s.libtorch(t.Context()); err != nil || h.called("--force-reinstall") != 1 {
				t.Errorf("after its folder was removed: %v, %v", l, err)
			}
		}
	}
	h.s.cuda = true
	if _, err := h.s.libtorch(t.Context()); err != nil || h.called("pip install") != 1 {
		t.Errorf("-cuda should run pip once: %v", err)
	}
}

// What is there is taken, if the shim can be built with it.
func TestExisting(t *testing.T) {
	h := newHouse(t, map[string]string{"python3": python})
	there := t.TempDir()
	for name, text := range map[string]string{"lib/libtorch_cpu.so": "", "include/ATen/ATen.h": "", "build-version": "2.9.1+cpu\n"} {
		file := filepath.Join(there, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("LIBTORCH", there)
	l, err := h.s.libtorch(t.Context())
	if err != nil || l.Dir != there || l.Version != "2.9.1+cpu" {
		t.Errorf("libtorch is %v, %v", l, err)
	}
	if err := os.WriteFile(filepath.Join(there, "build-version"), []byte("2.4.1\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	_, err = h.s.libtorch(t.Context())
	h.want(err, "LIBTORCH", "2.4.1", "too old", "2.6")
	if err := os.Remove(filepath.Join(there, "include/ATen/ATen.h")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(there, "build-version"), []byte("2.11.0\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	_, err = h.s.libtorch(t.Context())
	h.want(err, "no headers")
	t.Setenv("LIBTORCH", there+"x")
	_, err = h.s.libtorch(t.Context())
	h.want(err, "LIBTORCH: "+there+"x", "lib/libtorch_cpu.so")
	if n := h.called("pip"); n != 0 {
		t.Errorf("pip was called %d times", n)
	}
}

func TestShim(t *testing.T) {
	h := newHouse(t, map[string]string{"cmake": cmake, "make": "", "g++": ""})
	l := libtorch.Libtorch{Dir: "/opt/torch", Version: "2.11.0+cpu"}
	file := libtorch.CachedShim(h.s.cache, l)
	t.Setenv("FAIL", "1")
	h.want(h.s.shim(t.Context(), l), "could not be built", "2.11.0+cpu")
	if _, err := os.Stat(filepath.Dir(file)); !os.IsNotExist(err) {
		t.Errorf("a failed build left %s: %v", filepath.Dir(file), err)
	}
	t.Setenv("FAIL", "")
	h.called("")
	for i, want := range []int{2, 0} { // configure and build
		if err := h.s.shim(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		if n := h.called("cmake"); n != want {
			t.Errorf("setup %d called cmake %d times, want %d", i, n, want)
		}
		if text, err := os.ReadFile(file); err != nil || string(text) != "shim\n" {
			t.Errorf("the shim: %q, %v", text, err)
		}
	}
	if !strings.Contains(h.said.String(), "already built: "+file) {
		t.Errorf("it says %q", h.said.String())
	}
	// The same version in another place needs no other shim.
	l.Dir = "/home/user/torch"
	if err := h.s.shim(t.Context(), l); err != nil || h.called("cmake") != 0 {
		t.Errorf("built again for a moved libtorch: %v", err)
	}
	if text, err := os.ReadFile(filepath.Join(filepath.Dir(file), libtorch.PathName)); err != nil || string(text) != l.Dir+"\n" {
		t.Errorf("%s: %q, %v", libtorch.PathName, text, err)
	}
	l.Version = "2.12.0"
	if err := h.s.shim(t.Context(), l); err != nil || h.called("cmake") != 2 {
		t.Errorf("not built for another version: %v", err)
	}
	// With CUDA's headers there is a part for NCCL, which the shim lacks so far.
	h.s.cuda = true
	t.Setenv("NCCL", "1")
	for i, want := range []int{2, 0} {
		if err := h.s.shim(t.Context(), l); err != nil || h.called("cmake") != want {
			t.Errorf("setup %d with -cuda: %v; want %d calls of cmake", i, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(libtorch.CachedShim(h.s.cache, l)), ncclName)); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(h.s.cache)
	if err != nil || len(left) != 1 {
		t.Errorf("the cache has %v, %v; want the shims only", left, err)
	}
}

func TestMissingPrograms(t *testing.T) {
	h := newHouse(t, nil)
	t.Setenv("PATH", t.TempDir())
	h.want(h.s.shim(t.Context(), libtorch.Libtorch{Dir: "/opt/torch", Version: "2.11.0"}), "no cmake and no make and no g++", "apt-get install")
	_, err := h.s.libtorch(t.Context())
	h.want(err, "no python3", "apt-get install python3 python3-venv", "LIBTORCH")
}
