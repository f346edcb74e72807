package libtorch

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"cyclecap/cpp"
)

const (
	// ShimName is the file name of the shim.
	ShimName = "libcyclecap_torch.so"
	// PathName is the name of a file in the folder of the shim. It contains the
	// folder of the libtorch that the shim was built with.
	PathName = "libtorch.path"
)

// About is the information about a shim in its file: cpp/src/about.cpp.
type About struct {
	ABI     int
	Release string // version of the libtorch that it was built with: "2.11.0"
}

// ReadAbout reads the information from a shim without loading it.
func ReadAbout(file string) (About, error) {
	f, err := elf.Open(file)
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return About{}, err
	}
	if err != nil {
		return About{}, fmt.Errorf("%s is not a shared library", file)
	}
	defer f.Close()
	section := f.Section(".cyclecap")
	if section == nil {
		return About{}, fmt.Errorf("%s is not a cyclecap shim, or is one from an older version", file)
	}
	text, err := section.Data()
	if err != nil {
		return About{}, fmt.Errorf("%s: %w", file, err)
	}
	var a About
	for line := range strings.Lines(strings.TrimRight(string(text), "\x00")) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "abi":
			a.ABI, err = strconv.Atoi(value)
		case "libtorch":
			a.Release = value
		}
		if err != nil {
			return About{}, fmt.Errorf("%s: %s must be a number, got %q", file, key, value)
		}
	}
	return a, nil
}

// Cache returns the folder in which `torch/setup` installs libtorch and builds
// the shim.
func Cache() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("cannot determine the user's cache folder: %w", err)
	}
	return filepath.Join(dir, "cyclecap"), nil
}

var key = sync.OnceValue(cpp.Key)

// CachedShim returns the file of the shim for a libtorch in the cache. Each
// version of the sources and of libtorch has its own file.
func CachedShim(cache string, l Libtorch) string {
	return filepath.Join(cache, "shim", key()+"-"+l.Version, ShimName)
}

// Module returns the path of this module, which a release may have changed.
func Module() string {
	return strings.TrimSuffix(reflect.TypeFor[About]().PkgPath(), "/torch/internal/libtorch")
}

// checkout returns the folder of this module's sources, or "" if the program was
// built with -trimpath.
var checkout = sync.OnceValue(func() string {
	_, file, _, ok := runtime.Caller(0)
	if !ok || !filepath.IsAbs(file) {
		return ""
	}
	return filepath.Clean(filepath.Join(filepath.Dir(file), "..", "..", ".."))
})

// BuildCommand returns the command that builds the shim, for messages: make in a
// checkout of this module, and the setup command in a module that requires it.
func BuildCommand() string {
	if inCheckout() {
		return "`make build`"
	}
	return "`go run " + Module() + "/torch/setup`"
}

// CUDAAdvice says how to install the CUDA libraries of libtorch.
func CUDAAdvice() string {
	if inCheckout() {
		return "run `make setup CUDA=1` to install it"
	}
	return "run `go run " + Module() + "/torch/setup -cuda`, or `pip install torch` with its dependencies, to install it"
}

func inCheckout() bool {
	dir := checkout()
	if dir == "" {
		return false
	}
	_, err := os.Stat(filepath.Join(dir, "build"))
	return err == nil
}
