// Package libtorch finds, without loading anything, the two libraries that
// package torch is made of: libtorch itself and the shim, which calls it. Where
// it looks is described in docs/torch.md.
package libtorch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// Minimum is the oldest version that the shim can be built with.
const Minimum = "2.6"

// Libtorch is a folder with libtorch's lib/ and, to build with, include/: what
// pip installs as "torch", or an unpacked archive.
type Libtorch struct {
	Dir     string
	Version string // "2.11.0+cu130"; "" where no file tells
}

// CPU is the library that everything needs.
func (l Libtorch) CPU() string { return filepath.Join(l.Dir, "lib", "libtorch_cpu.so") }

// Release is the version without what follows the "+".
func (l Libtorch) Release() string {
	v, _, _ := strings.Cut(l.Version, "+")
	return v
}

// String is how messages name it.
func (l Libtorch) String() string {
	if l.Version == "" {
		return "libtorch at " + l.Dir
	}
	return fmt.Sprintf("libtorch %s at %s", l.Version, l.Dir)
}

// Older tells whether version a is older than b, as far as their parts are
// numbers. (Package torch and its setup need no other module.)
func Older(a, b string) bool {
	p, q := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(p), len(q)) {
		x, errX := strconv.Atoi(p[i])
		y, errY := strconv.Atoi(q[i])
		if errX != nil || errY != nil {
			break
		}
		if x != y {
			return x < y
		}
	}
	return false
}

// At gives the libtorch in a folder.
func At(dir string) (Libtorch, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Libtorch{}, err
	}
	l := Libtorch{Dir: abs}
	if _, err := os.Stat(l.CPU()); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return Libtorch{}, fmt.Errorf("there is no libtorch in %s: lib/libtorch_cpu.so is missing", dir)
		}
		return Libtorch{}, err
	}
	l.Version = version(abs)
	return l, nil
}

// The files that tell a version: pip's torch, the archive, and the headers of
// both, old and new.
var versionFiles = []struct {
	path string
	text *regexp.Regexp
}{
	{"version.py", regexp.MustCompile(`(?m)^__version__ = '([^'\s]+)'`)},
	{"build-version", regexp.MustCompile(`^(\d\S*)`)},
	{"include/torch/headeronly/version.h", versionMacro},
	{"include/torch/csrc/api/include/torch/version.h", versionMacro},
}

var versionMacro = regexp.MustCompile(`(?s)TORCH_VERSION_MAJOR (\d+).*?TORCH_VERSION_MINOR (\d+).*?TORCH_VERSION_PATCH (\d+)`)

func version(dir string) string {
	for _, f := range versionFiles {
		text, err := os.ReadFile(filepath.Join(dir, f.path))
		if err != nil {
			continue
		}
		if m := f.text.FindStringSubmatch(string(text)); m != nil {
			return strings.Join(m[1:], ".")
		}
	}
	return ""
}

// FromEnvironment gives the libtorch that LIBTORCH names; ok is false where it
// is not set.
func FromEnvironment() (l Libtorch, ok bool, err error) {
	dir := os.Getenv("LIBTORCH")
	if dir == "" {
		return Libtorch{}, false, nil
	}
	l, err = At(dir)
	if err != nil {
		return Libtorch{}, true, fmt.Errorf("LIBTORCH is %s, but %w", dir, err)
	}
	return l, true, nil
}

// python prints where the torch is that would be imported. It imports nothing,
// and leaves out the working folder.
const python = `
import importlib.util, pathlib, sys
sys.path = [p for p in sys.path if p]
spec = importlib.util.find_spec("torch")
if spec is not None and spec.origin:
    print(pathlib.Path(spec.origin).parent)
`

// FromPython gives the torch of the python3 on the PATH, which is that of the
// active environment, if any.
func FromPython() (l Libtorch, ok bool) {
	out, err := exec.Command("python3", "-c", python).Output()
	if err != nil {
		return Libtorch{}, false
	}
	dir := strings.TrimSpace(string(out))
	if dir == "" {
		return Libtorch{}, false
	}
	l, err = At(dir)
	return l, err == nil
}
