// libcyclecap_torch_cuda.so: what libtorch offers for CUDA devices only. The
// shim opens it when it is first needed.
#include "cuda.h"

#include <ATen/Context.h>
#include <ATen/cuda/CUDAGraph.h>
#include <ATen/cuda/jiterator.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <memory>
#include <optional>
#include <sstream>

namespace {

using c10::cuda::CUDAGuard;

c10::DeviceIndex index_of(int i) { return static_cast<c10::DeviceIndex>(i); }

void memory(int index, ct_memory *m) {
  at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
  const CUDAGuard guard(index_of(index));
  const auto stats =
      c10::cuda::CUDACachingAllocator::getDeviceStats(index_of(index));
  const auto &allocated = stats.allocated_bytes[0];  // of all pools
  const auto &reserved = stats.reserved_bytes[0];
  size_t free = 0, total = 0;
  C10_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  *m = {allocated.current,          allocated.peak,
        reserved.current,           reserved.peak,
        static_cast<int64_t>(free), static_cast<int64_t>(total)};
}

void reset_peak_memory(int index) {
  at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
  c10::cuda::CUDACachingAllocator::resetPeakStats(index_of(index));
}

void empty_cache() {
  at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
  c10::cuda::CUDACachingAllocator::emptyCache();
}

std::string properties(int index) {
  cudaDeviceProp p;
  C10_CUDA_CHECK(cudaGetDeviceProperties(&p, index));
  int driver = 0;
  C10_CUDA_CHECK(cudaDriverGetVersion(&driver));
  std::ostringstream s;
  s << "name=" << p.name << "\ncapability=" << p.major << "." << p.minor
    << "\nmultiprocessors=" << p.multiProcessorCount
    << "\nmemory=" << p.totalGlobalMem << "\nl2=" << p.l2CacheSize
    << "\ndriver=" << driver / 1000 << "." << driver % 1000 / 10 << "\n";
  return s.str();
}

// A graph, and what its recording changes on this OS thread.
struct Graph {
  at::cuda::CUDAGraph graph;
  std::optional<c10::cuda::CUDAStream> before;  // during the recording
  c10::DeviceIndex device;
};

void *graph_begin(int index) {
  at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
  const CUDAGuard guard(index_of(index));
  auto g = std::make_unique<Graph>();
  g->device = index_of(index);
  // Nothing may be in flight that uses memory which the graph's pool could take
  // over; PyTorch's torch.cuda.graph waits here too.
  c10::cuda::device_synchronize();
  g->before = c10::cuda::getCurrentCUDAStream(g->device);
  c10::cuda::setCurrentCUDAStream(
      c10::cuda::getStreamFromPool(false, g->device));
  try {
    // Other OS threads may go on with work that a recording forbids: the
    // garbage collector frees tensors on a thread of its own.
    g->graph.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
  } catch (...) {
    c10::cuda::setCurrentCUDAStream(*g->before);
    throw;
  }
  return g.release();
}

void graph_end(void *graph) {
  std::unique_ptr<Graph> g(static_cast<Graph *>(graph));
  const CUDAGuard guard(g->device);
  const auto before = *g->before;
  g->before.reset();
  try {
    g->graph.capture_end();
  } catch (...) {
    c10::cuda::setCurrentCUDAStream(before);
    throw;
  }
  c10::cuda::setCurrentCUDAStream(before);
  g.release();
}

void graph_replay(void *graph) {
  auto *g = static_cast<Graph *>(graph);
  const CUDAGuard guard(g->device);
  g->graph.replay();
}

void graph_free(void *graph) {
  auto *g = static_cast<Graph *>(graph);
  const CUDAGuard guard(g->device);
  delete g;
}

// GPT-2's activation in one kernel instead of eight. Each operation rounds as
// the kernel of its operator does: to f32, where without the intrinsics the
// compiler would contract products and sums, or to bf16.
const std::string gelu_f32 = R"(
template <typename T> T gelu_new(T x) {
  const float cube = __fmul_rn(__fmul_rn(x, x), x);
  const float inner = __fmul_rn(__fadd_rn(x, __fmul_rn(cube, 0.044715f)), 0.7978845608028654f);
  return __fmul_rn(__fadd_rn(tanhf(inner), 1.0f), __fmul_rn(x, 0.5f));
})";
const std::string gelu_bf16 = R"(
__device__ inline float bf16(float x) {
  if (x != x) return x;
  const unsigned int bits = __float_as_uint(x);
  return __uint_as_float((bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u);
}
template <typename T> T gelu_new(T v) {
  const float x = v;
  const float cube = bf16(__fmul_rn(bf16(__fmul_rn(x, x)), x));
  const float sum = bf16(__fadd_rn(x, bf16(__fmul_rn(cube, 0.044715f))));
  const float inner = bf16(tanhf(bf16(__fmul_rn(sum, 0.7978845608028654f))));
  return T(bf16(__fmul_rn(bf16(__fadd_rn(inner, 1.0f)), bf16(__fmul_rn(x, 0.5f)))));
})";

// The gradient of x, where g is that of the activation, in f32. Terms are added
// in the order in which autograd adds them; 1 - t * t is one operation in the
// kernel of tanh's gradient, which the compiler contracts.
const std::string gelu_grad = R"(
template <typename T> T gelu_new_grad(T x, T g) {
  const float square = __fmul_rn(x, x);
  const float cube = __fmul_rn(square, x);
  const float half = __fmul_rn(x, 0.5f);
  const float inner = __fmul_rn(__fadd_rn(x, __fmul_rn(cube, 0.044715f)), 0.7978845608028654f);
  const float t = tanhf(inner);
  const float d_half = __fmul_rn(g, __fadd_rn(t, 1.0f));
  const float d_t = __fmul_rn(g, half);
  const float d_inner = __fmul_rn(d_t, __fmaf_rn(-t, t, 1.0f));
  const float d_sum = __fmul_rn(d_inner, 0.7978845608028654f);
  const float d_cube = __fmul_rn(d_sum, 0.044715f);
  const float d_pow = __fmul_rn(d_cube, __fmul_rn(square, 3.0f));
  return __fadd_rn(__fadd_rn(d_sum, d_pow), __fmul_rn(d_half, 0.5f));
})";

at::Tensor gelu_new(const at::Tensor &x) {
  const CUDAGuard guard(x.device());
  const auto &code = x.scalar_type() == at::kFloat ? gelu_f32 : gelu_bf16;
  return at::cuda::CompileAndLaunchKernel(code, "gelu_new", 1, {x}, {},
                                          false)[0];
}

at::Tensor gelu_new_grad(const at::Tensor &x, const at::Tensor &g) {
  const CUDAGuard guard(x.device());
  return at::cuda::CompileAndLaunchKernel(gelu_grad, "gelu_new_grad", 1, {x, g},
                                          {}, false)[0];
}

}  // namespace

extern "C" CT_API const ct_cuda_functions *ct_cuda_functions_get() {
  static const ct_cuda_functions functions = {
      memory,    reset_peak_memory, empty_cache, properties, graph_begin,
      graph_end, graph_replay,      graph_free,  gelu_new,   gelu_new_grad};
  return &functions;
}
