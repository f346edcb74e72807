// Package cuda provides what torch.cuda offers beyond tensors: memory figures,
// streams, events, graphs, and PyTorch's switches for precision and determinism.
//
// Functions of a device return an error, not a panic, where there is no such
// device, or where the library for CUDA is missing: it is built if libtorch has
// CUDA and CUDA's headers are found (see docs/torch/devices.md).
package cuda

import (
	"fmt"
	"strconv"

	"cyclecap/torch"
	"cyclecap/torch/internal/shim"
)

// Memory holds memory figures of a device, in bytes.
type Memory struct {
	Allocated    int64 // torch.cuda.memory_allocated: in tensors
	MaxAllocated int64 // torch.cuda.max_memory_allocated
	Reserved     int64 // torch.cuda.memory_reserved: held by the caching allocator
	MaxReserved  int64 // torch.cuda.max_memory_reserved
	Free, Total  int64 // torch.cuda.mem_get_info: of the whole card
}

// check returns an error unless d is an available CUDA device.
func check(op string, d torch.Device) error {
	if d.Type != torch.CUDADevice {
		return &torch.Error{Kind: torch.ValueError, Op: op, Text: fmt.Sprintf("the device must be a CUDA device, got %v", d)}
	}
	n, why := torch.CUDADevices()
	if n == 0 {
		return &torch.Error{Kind: torch.RuntimeError, Op: op, Text: why.Error()}
	}
	if d.Index < 0 || d.Index >= n {
		return &torch.Error{Kind: torch.ValueError, Op: op, Text: fmt.Sprintf("%v is not available; there are %d CUDA devices", d, n)}
	}
	return nil
}

// MemoryOf returns the memory figures of a device.
func MemoryOf(d torch.Device) (Memory, error) {
	if err := check("cuda.memory", d); err != nil {
		return Memory{}, err
	}
	m, err := shim.CUDAMemory(d.Index)
	return Memory(m), wrap("cuda.memory", err)
}

// ResetPeakMemory is torch.cuda.reset_peak_memory_stats: the maxima start anew at
// the present values.
func ResetPeakMemory(d torch.Device) error {
	if err := check("cuda.reset_peak_memory", d); err != nil {
		return err
	}
	return wrap("cuda.reset_peak_memory", shim.CUDAResetPeakMemory(d.Index))
}

// EmptyCache is torch.cuda.empty_cache: it returns memory that the caching
// allocator holds and no tensor uses to the driver.
func EmptyCache() error {
	if _, why := torch.CUDADevices(); why != nil {
		return nil // nothing is cached
	}
	return wrap("cuda.empty_cache", shim.CUDAEmptyCache())
}

// Properties describes a device.
type Properties struct {
	Name            string // "NVIDIA H100 80GB HBM3"
	Capability      string // compute capability: "9.0"
	Multiprocessors int
	Memory          int64  // bytes
	L2Cache         int64  // bytes
	Driver          string // version of CUDA that the driver supports: "13.0"
}

// PropertiesOf describes a device, as torch.cuda.get_device_properties does.
func PropertiesOf(d torch.Device) (Properties, error) {
	if err := check("cuda.properties", d); err != nil {
		return Properties{}, err
	}
	v, err := shim.CUDAProperties(d.Index)
	if err != nil {
		return Properties{}, wrap("cuda.properties", err)
	}
	number := func(key string) int64 {
		n, _ := strconv.ParseInt(v[key], 10, 64)
		return n
	}
	return Properties{Name: v["name"], Capability: v["capability"], Multiprocessors: int(number("multiprocessors")),
		Memory: number("memory"), L2Cache: number("l2"), Driver: v["driver"]}, nil
}

// AllowTF32 allows TensorFloat-32, which rounds the factors of f32 products to 10
// bits, in matrix products (torch.backends.cuda.matmul.allow_tf32) and in cuDNN's
// convolutions (torch.backends.cudnn.allow_tf32). As in PyTorch, the defaults are
// false and true.
func AllowTF32(matmul, cudnn bool) {
	must("cuda.allow_tf32", shim.SetSwitch(shim.TF32Matmul, matmul))
	must("cuda.allow_tf32", shim.SetSwitch(shim.TF32CuDNN, cudnn))
}

// TF32Allowed returns the settings of AllowTF32.
func TF32Allowed() (matmul, cudnn bool) {
	matmul, err := shim.Switch(shim.TF32Matmul)
	must("cuda.allow_tf32", err)
	cudnn, err = shim.Switch(shim.TF32CuDNN)
	must("cuda.allow_tf32", err)
	return matmul, cudnn
}

// BenchmarkCuDNN is torch.backends.cudnn.benchmark: cuDNN tries its algorithms for
// each new shape and keeps the fastest. The default is false.
func BenchmarkCuDNN(on bool) { must("cuda.benchmark_cudnn", shim.SetSwitch(shim.CuDNNBenchmark, on)) }

func wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	e := err.(*shim.Error)
	return &torch.Error{Kind: torch.Kind(e.Kind), Op: op, Text: e.Text}
}

func must(op string, err error) {
	if err != nil {
		panic(wrap(op, err))
	}
}
