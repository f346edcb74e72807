package torch_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cyclecap/torch"
)

// early are uses of libtorch after which it would no longer find CUDA, if its CUDA
// library were opened only then.
var early = map[string]func(){
	"nothing":     func() {},
	"ManualSeed":  func() { torch.ManualSeed(0) },
	"BuildInfo":   func() { torch.BuildInfo() },
	"Synchronize": func() { torch.Synchronize(torch.CUDA(0)) },
	"Backward": func() {
		x := torch.Ones([]int64{2}).SetRequiresGrad(true)
		x.Mul(x).Sum().Backward()
	},
	"BatchNorm": func() {
		x, one := torch.Ones([]int64{2, 2, 4, 4}), torch.Ones([]int64{2})
		torch.BatchNorm(x, one, one, one.Clone(), one.Clone(), true, 0.1, 1e-5, true)
	},
}

// TestCUDAComesEarly asks for the number of CUDA devices after other uses of libtorch,
// each in a process of its own, whose libtorch has a pretend CUDA library.
func TestCUDAComesEarly(t *testing.T) {
	if name := os.Getenv("EARLY_USE"); name != "" {
		run(t, early[name])
		n, why := torch.CUDADevices()
		fmt.Printf("devices: %d %v\n", n, why)
		return
	}
	if testing.Short() {
		t.Skip("compiles a library")
	}
	real, err := torch.FindLibraries()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	lib := filepath.Join(dir, "site", "torch", "lib")
	compile := func(out string, args ...string) {
		t.Helper()
		if text, err := exec.Command("g++", append(args, "-shared", "-o", out)...).CombinedOutput(); err != nil {
			t.Fatalf("g++: %v\n%s", err, text)
		}
	}
	link := func(from, to string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(from, to); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(filepath.Join(real.Libtorch, "lib", "*.so*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !strings.Contains(f, "cuda") {
			link(f, filepath.Join(lib, filepath.Base(f)))
		}
	}
	if nvidia := filepath.Join(real.Libtorch, "..", "nvidia"); exists(nvidia) {
		link(nvidia, filepath.Join(dir, "site", "nvidia")) // libtorch_cpu of a CUDA build needs some of it
	}
	devices := func(t *testing.T, use string, env ...string) string {
		t.Helper()
		c := exec.Command(os.Args[0], "-test.run=^TestCUDAComesEarly$", "-test.count=1")
		c.Env = append(os.Environ(), "EARLY_USE="+use, "LIBTORCH="+filepath.Dir(lib), "CYCLECAP_SHIM="+real.Shim)
		c.Env = append(c.Env, env...)
		text, err := c.CombinedOutput()
		_, answer, ok := strings.Cut(string(text), "devices: ")
		if err != nil || !ok {
			t.Fatalf("%v\n%s", err, text)
		}
		answer, _, _ = strings.Cut(answer, "\n")
		return answer
	}
	driver := filepath.Join(dir, "driver")
	if err := os.Mkdir(driver, 0o777); err != nil {
		t.Fatal(err)
	}
	compile(filepath.Join(driver, "libcuda.so.1"), "-x", "c++", os.DevNull)
	withDriver := "LD_LIBRARY_PATH=" + driver

	if got := devices(t, "nothing", "LIBTORCH="+dir); !strings.Contains(got, "0 cannot load libtorch: ") {
		t.Errorf("without libtorch: %s", got)
	}
	if got := devices(t, "ManualSeed", withDriver); !strings.Contains(got, "0 this libtorch is built without CUDA") {
		t.Errorf("without libtorch_cuda.so: %s", got)
	}
	pretend := filepath.Join(lib, "libtorch_cuda.so")
	if err := os.WriteFile(pretend, []byte("not a library"), 0o666); err != nil {
		t.Fatal(err)
	}
	if got := devices(t, "ManualSeed", withDriver); !strings.Contains(got, "0 cannot load libtorch_cuda.so: ") || !strings.Contains(got, "to install it") {
		t.Errorf("with a broken libtorch_cuda.so: %s", got)
	}
	os.Remove(pretend)
	include := filepath.Join(real.Libtorch, "include")
	compile(pretend, "-std=c++20", "-fPIC", "-w", "-isystem", include, "testdata/pretend_cuda.cpp", "-L"+lib, "-lc10", "-ltorch_cpu", "-Wl,--unresolved-symbols=ignore-in-shared-libs")
	if !exists("/proc/driver/nvidia") {
		if got := devices(t, "ManualSeed"); !strings.Contains(got, "0 no NVIDIA driver was found (libcuda.so.1") {
			t.Errorf("without a driver: %s", got)
		}
	}
	for use := range early {
		t.Run(use, func(t *testing.T) {
			if got := devices(t, use, withDriver); got != "2 <nil>" {
				t.Errorf("devices after %s: %s", use, got)
			}
		})
	}
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}
