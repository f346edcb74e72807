package torch

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"cyclecap/torch/internal/libtorch"
	"cyclecap/torch/internal/shim"
)

// Device is where a tensor lives. The zero value is the CPU.
type Device struct {
	Type  DeviceType
	Index int // of a CUDA device; 0 elsewhere
}

// DeviceType is libtorch's DeviceType.
type DeviceType int8

// The device types that cyclecap knows.
const (
	CPUDevice  DeviceType = 0
	CUDADevice DeviceType = 1
	// MetaDevice has shapes and dtypes but no data: a step that runs there
	// has left nothing behind on another device.
	MetaDevice DeviceType = 14
)

// CPU and Meta are the devices that are always there.
var (
	CPU  = Device{Type: CPUDevice}
	Meta = Device{Type: MetaDevice}
)

// CUDA is the CUDA device with an index.
func CUDA(index int) Device { return Device{Type: CUDADevice, Index: index} }

// String gives PyTorch's name: "cpu", "cuda:0", "meta".
func (d Device) String() string {
	switch d.Type {
	case CPUDevice:
		return "cpu"
	case CUDADevice:
		return "cuda:" + strconv.Itoa(d.Index)
	case MetaDevice:
		return "meta"
	}
	return fmt.Sprintf("device(%d):%d", d.Type, d.Index)
}

// ParseDevice reads "cpu", "cuda", "cuda:N" or "meta", and reports a device
// that isn't there together with those that are.
func ParseDevice(s string) (Device, error) {
	kind, number, numbered := strings.Cut(s, ":")
	index := 0
	if numbered {
		n, err := strconv.Atoi(number)
		if err != nil || n < 0 {
			return Device{}, fmt.Errorf("device %q: the index %q is not a number", s, number)
		}
		index = n
	}
	switch kind {
	case "cpu":
		if index != 0 {
			return Device{}, fmt.Errorf("device %q: there is one cpu device, cpu", s)
		}
		return CPU, nil
	case "meta":
		return Meta, nil
	case "cuda":
		n, why := CUDADevices()
		if index < n {
			return CUDA(index), nil
		}
		if n > 0 {
			return Device{}, fmt.Errorf("device %q is not there; there are cpu and cuda:0 to cuda:%d", s, n-1)
		}
		return Device{}, fmt.Errorf("device %q is not there (%v); there is cpu; `cyclecap doctor` tells more", s, why)
	}
	return Device{}, fmt.Errorf("unknown device %q; there are cpu, cuda:N and meta", s)
}

var cuda struct {
	once  sync.Once
	count int
	why   error
}

// CUDADevices counts the CUDA devices that can be used. Where there are none
// the error says which it is: a CPU-only libtorch, a CUDA library that can't
// be loaded (and why), or no driver.
func CUDADevices() (int, error) {
	cuda.once.Do(func() {
		// The library must be open before the first CUDA question: libtorch
		// remembers the answer, and a question asked too early makes CUDA
		// unusable for the rest of the process.
		found, err := shim.CUDAOpen()
		switch {
		case !found:
			cuda.why = fmt.Errorf("this libtorch has no CUDA part (libtorch_cuda.so); %s", libtorch.CUDAAdvice())
		case err != nil:
			cuda.why = fmt.Errorf("libtorch_cuda.so can't be loaded: %v; %s", err, libtorch.CUDAAdvice())
		default:
			cuda.count, err = shim.CUDADeviceCount()
			if cuda.count == 0 {
				cuda.why = fmt.Errorf("libtorch's CUDA part is loaded, but no NVIDIA driver or device was found")
				if err != nil {
					cuda.why = fmt.Errorf("libtorch's CUDA part is loaded, but: %v", err)
				}
			}
		}
	})
	return cuda.count, cuda.why
}

// Synchronize waits until a device has done all that was asked of it.
func Synchronize(d Device) error {
	if d.Type != CUDADevice {
		return nil
	}
	return wrap("synchronize", shim.CUDASynchronize(d.Index))
}

// SetNumThreads sets how many threads one operator may use. Call it once,
// before the first operator: libtorch's pool belongs to an OS thread, and
// low-order bits of results may depend on the number.
func SetNumThreads(n int) { shim.SetNumThreads(n) }

// NumThreads gives how many threads one operator may use.
func NumThreads() int { return shim.NumThreads() }

// Build says which libtorch is in use.
type Build struct {
	Compiled   string // version of the headers that the shim was built with
	Version    string // version that the loaded library reports
	Path       string // the libtorch_cpu in use
	Capability string // instruction set that libtorch picked: "AVX512"
	MKL        bool
	MKLDNN     bool
	OpenMP     bool
	Gloo       bool
	NCCL       bool
	GoVersion  string
}

// Libraries are the files that package torch loads at the first operator.
type Libraries struct {
	Libtorch string // its folder
	Version  string // "2.11.0+cu130", "" where no file tells
	Shim     string // the library between Go and libtorch
}

// FindLibraries says which they are, and loads nothing. The error is that of
// the first operator: it says what is missing and how to get it.
func FindLibraries() (Libraries, error) {
	f, err := shim.Find()
	if err != nil {
		return Libraries{}, err
	}
	return Libraries{Libtorch: f.Libtorch.Dir, Version: f.Libtorch.Version, Shim: f.Shim}, nil
}

// BuildInfo says which libtorch is in use, and fails where it is not the one
// that the shim was built for.
func BuildInfo() (Build, error) {
	text, err := shim.BuildInfo()
	if err != nil {
		return Build{}, wrap("", err)
	}
	v := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		v[key] = value
	}
	b := Build{
		Compiled: v["compiled"], Version: v["runtime"], Path: v["path"], Capability: v["capability"],
		MKL: v["mkl"] == "1", MKLDNN: v["mkldnn"] == "1", OpenMP: v["openmp"] == "1",
		Gloo: v["gloo"] == "1", NCCL: v["nccl"] == "1", GoVersion: runtime.Version(),
	}
	if b.Version != "" && b.Version != b.Compiled {
		return b, fmt.Errorf("the shim was built for libtorch %s, but %s is libtorch %s; %s builds one for it", b.Compiled, b.Path, b.Version, libtorch.BuildCommand())
	}
	return b, nil
}

// ReleaseMemory gives the memory of freed CPU tensors back to the system.
// libtorch's allocator keeps it for the next ones, which is faster; call it
// once a large model has been closed that no other will follow.
func ReleaseMemory() { shim.TrimMemory() }
