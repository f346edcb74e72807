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

// Device is the device on which a tensor is allocated. The zero value is the
// CPU.
type Device struct {
	Type  DeviceType
	Index int // index of a CUDA or PrivateUse1 device; otherwise 0
}

// DeviceType is a type of device; its values are those of libtorch's DeviceType.
type DeviceType int8

// The supported device types.
const (
	CPUDevice  DeviceType = 0
	CUDADevice DeviceType = 1
	// MetaDevice tensors have a shape and a dtype but no data. They cannot be
	// mixed with tensors on other devices, so a training step that runs on the
	// meta device is known to create no tensor elsewhere.
	MetaDevice DeviceType = 14
	// PrivateUse1Device is a type that a library outside libtorch registers, and
	// that this package does not load. The tests use it for a pretend accelerator.
	PrivateUse1Device DeviceType = 20
)

// CPU and Meta are the devices that are always available.
var (
	CPU  = Device{Type: CPUDevice}
	Meta = Device{Type: MetaDevice}
)

// CUDA returns the CUDA device with the given index.
func CUDA(index int) Device { return Device{Type: CUDADevice, Index: index} }

// String returns PyTorch's name of the device: "cpu", "cuda:0", "meta".
func (d Device) String() string {
	switch d.Type {
	case CPUDevice:
		return "cpu"
	case CUDADevice:
		return "cuda:" + strconv.Itoa(d.Index)
	case MetaDevice:
		return "meta"
	case PrivateUse1Device:
		return "privateuseone:" + strconv.Itoa(d.Index)
	}
	return fmt.Sprintf("device(%d):%d", d.Type, d.Index)
}

// ParseDevice parses "cpu", "cuda", "cuda:N" or "meta", or "privateuseone:N" if a
// library has registered that type. If the device is not available, the error lists
// those that are.
func ParseDevice(s string) (Device, error) {
	kind, number, numbered := strings.Cut(s, ":")
	index := 0
	if numbered {
		n, err := strconv.Atoi(number)
		if err != nil || n < 0 {
			return Device{}, fmt.Errorf("device %q: the index must be a non-negative integer, got %q", s, number)
		}
		index = n
	}
	switch kind {
	case "cpu":
		if index != 0 {
			return Device{}, fmt.Errorf("device %q: the only CPU device is cpu", s)
		}
		return CPU, nil
	case "meta":
		return Meta, nil
	case "privateuseone":
		d := Device{Type: PrivateUse1Device, Index: index}
		err := Scope(func() error { Empty([]int64{0}, WithDevice(d)); return nil })
		if err != nil {
			return Device{}, fmt.Errorf("device %q is not available: no library has registered it", s)
		}
		return d, nil
	case "cuda":
		n, why := CUDADevices()
		if index < n {
			return CUDA(index), nil
		}
		if n > 0 {
			return Device{}, fmt.Errorf("device %q is not available; available devices are cpu and cuda:0 to cuda:%d", s, n-1)
		}
		return Device{}, fmt.Errorf("device %q is not available (%v); the only available device is cpu; run `cyclecap doctor` for details", s, why)
	}
	return Device{}, fmt.Errorf("unknown device %q; must be cpu, cuda, cuda:N or meta", s)
}

var cuda struct {
	once  sync.Once
	count int
	why   error
}

// CUDADevices returns the number of usable CUDA devices. If there are none, the
// error says why: libtorch cannot be loaded or is CPU-only, its CUDA library cannot
// be loaded, or a driver is missing.
func CUDADevices() (int, error) {
	cuda.once.Do(func() {
		// The library was opened, or not, when libtorch was loaded.
		found, err := shim.CUDAOpen()
		switch {
		case !found && err != nil:
			cuda.why = err
		case !found:
			cuda.why = fmt.Errorf("this libtorch is built without CUDA (libtorch_cuda.so is missing); %s", libtorch.CUDAAdvice())
		case err != nil && strings.HasPrefix(err.Error(), "cannot load"):
			cuda.why = fmt.Errorf("%v; %s", err, libtorch.CUDAAdvice())
		case err != nil:
			cuda.why = err
		default:
			cuda.count, err = shim.CUDADeviceCount()
			if cuda.count == 0 {
				cuda.why = fmt.Errorf("libtorch_cuda.so is loaded, but no NVIDIA driver or device was found")
				if err != nil {
					cuda.why = fmt.Errorf("libtorch_cuda.so is loaded, but CUDA reports: %v", err)
				}
			}
		}
	})
	return cuda.count, cuda.why
}

// Synchronize waits until all work submitted to a device is complete.
func Synchronize(d Device) error {
	switch d.Type {
	case CUDADevice:
		return wrap("synchronize", shim.CUDASynchronize(d.Index))
	case PrivateUse1Device: // has one stream
		s, err := shim.CurrentStream(int(d.Type), d.Index)
		if err == nil {
			err = shim.SynchronizeStream(s)
		}
		return wrap("synchronize", err)
	}
	return nil
}

// UseDeterministicAlgorithms is torch.use_deterministic_algorithms: operators that
// have a deterministic implementation use it, and the others fail. The default is
// false. On CUDA, matrix products also need the environment variable
// CUBLAS_WORKSPACE_CONFIG=:4096:8.
func UseDeterministicAlgorithms(on bool) {
	must("use_deterministic_algorithms", shim.SetSwitch(shim.Deterministic, on))
}

// DeterministicAlgorithms returns the setting of UseDeterministicAlgorithms.
func DeterministicAlgorithms() bool {
	on, err := shim.Switch(shim.Deterministic)
	must("use_deterministic_algorithms", err)
	return on
}

// EnableFlashSDP is torch.backends.cuda.enable_flash_sdp: ScaledDotProductAttention may
// use flash attention, on CUDA and on the CPU. The default is true. Without it the CPU
// computes attention with matrix products and a softmax, whose backward pass is several
// times as fast in bf16 for short sequences.
func EnableFlashSDP(on bool) { must("enable_flash_sdp", shim.SetSwitch(shim.FlashSDP, on)) }

// FlashSDPEnabled returns the setting of EnableFlashSDP.
func FlashSDPEnabled() bool {
	on, err := shim.Switch(shim.FlashSDP)
	must("enable_flash_sdp", err)
	return on
}

// SetNumThreads sets the number of threads that one operator may use, as
// torch.set_num_threads does. Call it once, before the first operator: each OS
// thread has its own libtorch thread pool, and low-order bits of results may
// depend on the number of threads. It holds for every [Scope] that begins
// afterwards; one that has begun on another OS thread keeps its number.
func SetNumThreads(n int) { shim.SetNumThreads(n) }

// NumThreads returns the number of threads that one operator may use.
func NumThreads() int { return shim.NumThreads() }

// Build describes the libtorch in use.
type Build struct {
	Compiled   string // version of the headers that the shim was built with
	Version    string // version that the loaded library reports
	Path       string // path of the libtorch_cpu in use
	Capability string // instruction set that libtorch uses: "AVX512"
	MKL        bool
	MKLDNN     bool
	OpenMP     bool
	Gloo       bool
	NCCL       bool // in libtorch, and in the shim
	GoVersion  string
}

// Libraries are the libraries that package torch loads when the first operator
// runs.
type Libraries struct {
	Libtorch string // the folder of libtorch
	Version  string // version of libtorch, such as "2.11.0+cu130"; "" if unknown
	Shim     string // the file of the library between Go and libtorch
}

// FindLibraries finds the libraries without loading them. The error is the one
// that the first operator would report: it says what is missing and how to get
// it.
func FindLibraries() (Libraries, error) {
	f, err := shim.Find()
	if err != nil {
		return Libraries{}, err
	}
	return Libraries{Libtorch: f.Libtorch.Dir, Version: f.Libtorch.Version, Shim: f.Shim}, nil
}

// BuildInfo describes the libtorch in use. It returns an error if its version is
// not the one that the shim was built for.
func BuildInfo() (Build, error) {
	v, err := shim.BuildInfo()
	if err != nil {
		return Build{}, wrap("", err)
	}
	b := Build{
		Compiled: v["compiled"], Version: v["runtime"], Path: v["path"], Capability: v["capability"],
		MKL: v["mkl"] == "1", MKLDNN: v["mkldnn"] == "1", OpenMP: v["openmp"] == "1",
		Gloo: v["gloo"] == "1", NCCL: v["nccl"] == "1", GoVersion: runtime.Version(),
	}
	if b.Version != "" && b.Version != b.Compiled {
		return b, fmt.Errorf("the shim was built for libtorch %s, but %s is libtorch %s; run %s to build a matching shim", b.Compiled, b.Path, b.Version, libtorch.BuildCommand())
	}
	return b, nil
}

// TuneAllocator makes the C library's allocator keep the memory of freed tensors for
// later ones. By default it returns the memory of large tensors to the operating
// system and asks for it again, zeroed, for the next one: with TuneAllocator, batches
// of 80 prefixes go through GPT-2 in two thirds of the time. In return the process
// stays as large as it ever was, until ReleaseMemory is called. It affects the whole
// process, so it is for a program's main function, before its first tensor, and not
// for packages. With another C library than glibc it does nothing.
func TuneAllocator() { shim.TuneMalloc() }

// ReleaseMemory returns the memory of freed CPU tensors to the operating system. In
// a program that calls TuneAllocator, call it after closing a large model if no other
// will be loaded. With another C library than glibc it does nothing.
func ReleaseMemory() { shim.TrimMemory() }
