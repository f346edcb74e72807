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
	// ShimName is the file of the shim.
	ShimName = "libcyclecap_torch.so"
	// PathName is a file beside the shim: the folder of the libtorch that it
	// was built with.
	PathName = "libtorch.path"
)

// About is what a shim says of itself: cpp/src/about.cpp.
type About struct {
	ABI     int
	Release string // of the libtorch that it was built with: "2.11.0"
}

// ReadAbout reads it without loading the shim.
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
		return About{}, fmt.Errorf("%s is not a shim of cyclecap, or one of an older version", file)
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
			return About{}, fmt.Errorf("%s: %s=%s is not a number", file, key, value)
		}
	}
	return a, nil
}

// Cache is where `torch/setup` puts what it gets and builds.
func Cache() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("there is no folder for caches: %w", err)
	}
	return filepath.Join(dir, "cyclecap"), nil
}

var key = sync.OnceValue(cpp.Key)

// CachedShim is the file of the shim for a libtorch in the cache. Another state
// of the sources, or another libtorch, is another shim.
func CachedShim(cache string, l Libtorch) string {
	return filepath.Join(cache, "shim", key()+"-"+l.Version, ShimName)
}

// Module is the path of this module, which a release may have changed.
func Module() string {
	return strings.TrimSuffix(reflect.TypeFor[About]().PkgPath(), "/torch/internal/libtorch")
}

// checkout is the folder of this module's sources, "" where the program was
// built with -trimpath or elsewhere.
var checkout = sync.OnceValue(func() string {
	_, file, _, ok := runtime.Caller(0)
	if !ok || !filepath.IsAbs(file) {
		return ""
	}
	return filepath.Clean(filepath.Join(filepath.Dir(file), "..", "..", ".."))
})

// BuildCommand is what builds the shim, for messages: in a checkout make, and
// in a module that requires this one its setup command.
func BuildCommand() string {
	if inCheckout() {
		return "`make build`"
	}
	return "`go run " + Module() + "/torch/setup`"
}

// CUDAAdvice says what gets CUDA's part of libtorch.
func CUDAAdvice() string {
	if inCheckout() {
		return "`make setup CUDA=1` gets it"
	}
	return "`go run " + Module() + "/torch/setup -cuda`, or `pip install torch` with its dependencies, gets it"
}

func inCheckout() bool {
	dir := checkout()
	if dir == "" {
		return false
	}
	_, err := os.Stat(filepath.Join(dir, "build"))
	return err == nil
}
