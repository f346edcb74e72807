// Package libtorch finds the two libraries that package torch needs, without
// loading them: libtorch itself and the shim, which calls it. docs/torch.md
// describes where it looks.
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

// Minimum is the oldest libtorch version that the shim can be built with.
const Minimum = "2.6"

// Libtorch is a folder that contains libtorch: lib/ and, for building, include/.
// It is the package torch that pip installs, or an unpacked archive.
type Libtorch struct {
	Dir     string
	Version string // such as "2.11.0+cu130"; "" if unknown
}

// CPU returns the path of the main library, libtorch_cpu.so.
func (l Libtorch) CPU() string { return filepath.Join(l.Dir, "lib", "libtorch_cpu.so") }

// Release returns the version without the "+" and what follows it.
func (l Libtorch) Release() string {
	v, _, _ := strings.Cut(l.Version, "+")
	return v
}

// String returns a description for messages.
func (l Libtorch) String() string {
	if l.Version == "" {
		return "libtorch at " + l.Dir
	}
	return fmt.Sprintf("libtorch %s at %s", l.Version, l.Dir)
}

// Older reports whether version a is older than b. It compares the parts up to
// the first that is not a number. (It avoids a dependency: package torch and its
// setup command require no other module.)
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

// At returns the libtorch in a folder.
func At(dir string) (Libtorch, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Libtorch{}, err
	}
	l := Libtorch{Dir: abs}
	if _, err := os.Stat(l.CPU()); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return Libtorch{}, fmt.Errorf("%s does not contain libtorch: lib/libtorch_cpu.so is missing", dir)
		}
		return Libtorch{}, err
	}
	l.Version = version(abs)
	return l, nil
}

// The files that contain the version: that of pip's torch, that of the archive,
// and the headers of both, new and old.
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

// FromEnvironment returns the libtorch that LIBTORCH specifies. ok is false if
// LIBTORCH is not set.
func FromEnvironment() (l Libtorch, ok bool, err error) {
	dir := os.Getenv("LIBTORCH")
	if dir == "" {
		return Libtorch{}, false, nil
	}
	l, err = At(dir)
	if err != nil {
		return Libtorch{}, true, fmt.Errorf("LIBTORCH: %w", err)
	}
	return l, true, nil
}

// python prints the folder of the torch that Python would import. It imports
// nothing, and ignores the working folder.
const python = `
import importlib.util, pathlib, sys
sys.path = [p for p in sys.path if p]
spec = importlib.util.find_spec("torch")
if spec is not None and spec.origin:
    print(pathlib.Path(spec.origin).parent)
`

// FromPython returns the torch of the python3 on the PATH, which is that of the
// active virtual environment, if any.
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
