package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"cyclecap/cpp"
	"cyclecap/torch/internal/libtorch"
)

// ncclName is the part of the shim that needs the most headers of CUDA.
const ncclName = "libcyclecap_torch_nccl.so"

// shim builds the shim for a libtorch, unless it is in the cache, and selects this
// libtorch for programs that run without LIBTORCH.
func (s *setup) shim(ctx context.Context, l libtorch.Libtorch) error {
	file := libtorch.CachedShim(s.cache, l)
	_, err := os.Stat(file)
	if err == nil && s.cuda {
		// It may have been built before CUDA's headers were installed.
		_, err = os.Stat(filepath.Join(filepath.Dir(file), ncclName))
	}
	if err == nil {
		s.log("the shim is already built: %s", file)
		return os.WriteFile(filepath.Join(filepath.Dir(file), libtorch.PathName), []byte(l.Dir+"\n"), 0o666)
	}
	var missing []string
	for _, tool := range []string{"cmake", "make", "g++"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing = append(missing, tool)
		}
	}
	if missing != nil {
		return fmt.Errorf("building the shim requires cmake, make and g++, but there is no %s: on Debian and Ubuntu, run `apt-get install cmake make g++`", strings.Join(missing, " and no "))
	}
	// Remove what is left of an interrupted build. The lock ensures that no
	// other build is using this folder.
	work := filepath.Join(s.cache, "building")
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	defer os.RemoveAll(work)
	source, build := filepath.Join(work, "cpp"), filepath.Join(work, "build")
	if err := os.MkdirAll(build, 0o777); err != nil {
		return err
	}
	if err := os.CopyFS(source, cpp.Sources); err != nil {
		return err
	}
	s.log("building the shim (a minute or two)")
	begin := time.Now()
	log := filepath.Join(work, "build.log")
	// Each compiler process takes about 1 GB.
	jobs := strconv.Itoa(min(runtime.NumCPU(), 4))
	for _, args := range [][]string{
		{"-S", source, "-B", build, "-DLIBTORCH=" + l.Dir},
		{"--build", build, "--parallel", jobs},
	} {
		if err := logged(ctx, log, "cmake", args...); err != nil {
			if ctx.Err() == nil {
				if text, readErr := os.ReadFile(log); readErr == nil {
					os.Stderr.Write(text)
				}
			}
			return fmt.Errorf("the shim could not be built for %v (see the output above)", l)
		}
	}
	// The folder contains only the libraries and the path of libtorch. The rename
	// makes them appear at once.
	to := filepath.Dir(file)
	if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
		return err
	}
	if err := os.Rename(to, filepath.Join(work, "old")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Rename(filepath.Join(build, "lib"), to); err != nil {
		return err
	}
	s.log("built %s in %.0f s", file, time.Since(begin).Seconds())
	return nil
}

func logged(ctx context.Context, log, name string, args ...string) error {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o666)
	if err != nil {
		return err
	}
	defer f.Close()
	c := command(ctx, name, args...)
	c.Stdout, c.Stderr = f, f
	return c.Run()
}
