// Devices, threads, and information about libtorch.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/ones.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <dlfcn.h>
#include <torch/version.h>
#include <unistd.h>

#include <sstream>

#include "common.h"
#include "cuda.h"
#include "parallel.h"

namespace {

c10::Device device(int type, int index) {
  return c10::Device(static_cast<c10::DeviceType>(type),
                     static_cast<c10::DeviceIndex>(index));
}

const c10::impl::DeviceGuardImplInterface *guard_of(const c10::Device &d) {
  return c10::impl::getDeviceGuardImpl(d.type());
}

ct_stream flat(const c10::Stream &s) {
  return {s.id(), static_cast<int32_t>(s.device_type()), s.device_index()};
}

c10::Stream of(const ct_stream &s) {
  return c10::Stream(c10::Stream::UNSAFE, device(s.device_type, s.device_index),
                     s.id);
}

c10::Event &event(ct_event e) { return *reinterpret_cast<c10::Event *>(e); }

// The path of the libtorch_cpu in use, determined from one of its symbols.
std::string libtorch_path() {
  Dl_info info;
  if (dladdr(reinterpret_cast<void *>(&at::show_config), &info) == 0 ||
      info.dli_fname == nullptr)
    return "";
  return info.dli_fname;
}

std::string sibling(const char *name) {
  std::string p = libtorch_path();
  const auto slash = p.rfind('/');
  return slash == std::string::npos ? name : p.substr(0, slash + 1) + name;
}

// The version that the library itself reports, as opposed to that of the
// headers.
std::string runtime_version() {
  const std::string config = at::show_config();
  const std::string key = "TORCH_VERSION=";
  const auto at = config.find(key);
  if (at == std::string::npos) return "";
  const auto from = at + key.size();
  return config.substr(from, config.find_first_of(",\n", from) - from);
}

bool has_symbol(const char *mangled) {
  return dlsym(RTLD_DEFAULT, mangled) != nullptr;
}

void *cuda_library = nullptr;

std::string loader_error() {
  const char *why = dlerror();
  return why != nullptr ? why : "dlopen failed";
}

struct CudaLibrary {
  bool found;       // the file exists
  std::string why;  // why it is not open; "" if it is, or does not exist
};

// Without a driver libtorch_cuda.so is of no use, and loading it and the
// libraries that it needs would make every program start 0.1 s later.
CudaLibrary open_cuda() {
  const std::string path = sibling("libtorch_cuda.so");
  if (access(path.c_str(), R_OK) != 0) return {false, ""};
  if (dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL) == nullptr)
    return {true, "no NVIDIA driver was found (" + loader_error() + ")"};
  cuda_library = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (cuda_library != nullptr) return {true, ""};
  return {true, "cannot load libtorch_cuda.so: " + loader_error()};
}

// The folder of the shim, with a slash.
std::string shim_folder() {
  Dl_info info;
  TORCH_CHECK(dladdr(reinterpret_cast<void *>(&ct_build_info), &info) != 0 &&
                  info.dli_fname != nullptr,
              "cannot find the folder of the shim");
  const std::string path = info.dli_fname;
  return path.substr(0, path.rfind('/') + 1);
}

template <class F>
ct_error with_cuda(F &&f) {
  return ct::guard([&] { f(ct::cuda_functions()); });
}

}  // namespace

bool ct::has_part(const std::string &name) {
  FILE *f = std::fopen((shim_folder() + name).c_str(), "rb");
  if (f != nullptr) std::fclose(f);
  return f != nullptr;
}

const void *ct::part(const std::string &name, const char *table,
                     const char *without) {
  TORCH_CHECK(cuda_library != nullptr, "libtorch's CUDA part is not loaded");
  const std::string path = shim_folder() + name;
  TORCH_CHECK(has_part(name), path, " is missing: the shim was built without ",
              without);
  void *library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  TORCH_CHECK(library != nullptr, loader_error());
  auto get = reinterpret_cast<const void *(*)()>(dlsym(library, table));
  TORCH_CHECK(get != nullptr, path, " does not belong to this shim");
  return get();
}

const ct_cuda_functions *ct::cuda_functions() {
  static const auto *functions = static_cast<const ct_cuda_functions *>(
      part("libcyclecap_torch_cuda.so", "ct_cuda_functions_get",
           "CUDA's headers (pip's nvidia-cuda-runtime, or a CUDA toolkit)"));
  return functions;
}

namespace {
// MKL's vector functions (exp, log, sin and others), which libtorch calls on
// several threads for a large tensor, choose their kernels in the first call of
// a process. If it comes from two threads at once, the results of one can be
// wrong by 1e-5 of their size: so it was in 1 of 170 processes of PyTorch 2.11
// whose first call was that of logsumexp. Here it is made by one thread, while
// the shim is loaded.
[[maybe_unused]] const bool called = at::ones({1}).exp().defined();
}  // namespace

extern "C" {

ct_error ct_cuda_open(int *found) {
  static const CudaLibrary library = open_cuda();
  *found = library.found;
  return library.why.empty()
             ? nullptr
             : ct::make_error(CT_ERR_RUNTIME, library.why.c_str());
}

int ct_cuda_device_count(char **why) {
  *why = nullptr;
  int n = 0;
  ct_error err = ct::guard([&] {
    if (!at::Context::hasCUDA()) return;
    n = at::detail::getCUDAHooks().deviceCount();
  });
  if (err != nullptr) {
    *why = err;
    return 0;
  }
  return n;
}

ct_error ct_cuda_synchronize(int index) {
  return ct::guard([&] {
    at::detail::getCUDAHooks().deviceSynchronize(
        static_cast<c10::DeviceIndex>(index));
  });
}

ct_error ct_switch_get(int which, int *value) {
  return ct::guard([&] {
    const auto &c = at::globalContext();
    switch (which) {
      case CT_TF32_MATMUL:
        *value = c.allowTF32CuBLAS();
        return;
      case CT_TF32_CUDNN:
        *value = c.allowTF32CuDNN();
        return;
      case CT_CUDNN_BENCHMARK:
        *value = c.benchmarkCuDNN();
        return;
      case CT_DETERMINISTIC:
        *value = c.deterministicAlgorithms();
        return;
      case CT_FLASH_SDP:
        *value = c.userEnabledFlashSDP();
        return;
    }
    TORCH_CHECK(false, "unknown switch ", which);
  });
}

ct_error ct_switch_set(int which, int value) {
  return ct::guard([&] {
    auto &c = at::globalContext();
    switch (which) {
      case CT_TF32_MATMUL:
        return c.setAllowTF32CuBLAS(value != 0);
      case CT_TF32_CUDNN:
        return c.setAllowTF32CuDNN(value != 0);
      case CT_CUDNN_BENCHMARK:
        return c.setBenchmarkCuDNN(value != 0);
      case CT_DETERMINISTIC:
        return c.setDeterministicAlgorithms(value != 0, false);
      case CT_FLASH_SDP:
        return c.setSDPUseFlash(value != 0);
    }
    TORCH_CHECK(false, "unknown switch ", which);
  });
}

ct_error ct_stream_new(int type, int index, int high_priority, ct_stream *s) {
  return ct::guard([&] {
    const auto d = device(type, index);
    *s = flat(guard_of(d)->getStreamFromGlobalPool(d, high_priority != 0));
  });
}

ct_error ct_stream_current(int type, int index, ct_stream *s) {
  return ct::guard([&] {
    const auto d = device(type, index);
    *s = flat(guard_of(d)->getStream(d));
  });
}

ct_error ct_stream_set(const ct_stream *s) {
  return ct::guard([&] {
    const auto stream = of(*s);
    guard_of(stream.device())->exchangeStream(stream);
  });
}

ct_error ct_stream_synchronize(const ct_stream *s) {
  return ct::guard([&] { of(*s).synchronize(); });
}

ct_error ct_event_new(int type, int timing, ct_event *e) {
  return ct::guard([&] {
    *e = reinterpret_cast<ct_event>(
        new c10::Event(static_cast<c10::DeviceType>(type),
                       timing ? c10::EventFlag::BACKEND_DEFAULT
                              : c10::EventFlag::PYTORCH_DEFAULT));
  });
}

void ct_event_free(ct_event e) { delete reinterpret_cast<c10::Event *>(e); }

ct_error ct_event_record(ct_event e, const ct_stream *s) {
  return ct::guard([&] { event(e).record(of(*s)); });
}

ct_error ct_event_wait(ct_event e, const ct_stream *s) {
  return ct::guard([&] { event(e).block(of(*s)); });
}

ct_error ct_event_synchronize(ct_event e) {
  return ct::guard([&] { event(e).synchronize(); });
}

ct_error ct_event_elapsed(ct_event from, ct_event to, double *ms) {
  return ct::guard([&] { *ms = event(from).elapsedTime(event(to)); });
}

ct_error ct_cuda_memory(int index, ct_memory *m) {
  return with_cuda([&](const ct_cuda_functions *f) { f->memory(index, m); });
}

ct_error ct_cuda_reset_peak_memory(int index) {
  return with_cuda(
      [&](const ct_cuda_functions *f) { f->reset_peak_memory(index); });
}

ct_error ct_cuda_empty_cache(void) {
  return with_cuda([&](const ct_cuda_functions *f) { f->empty_cache(); });
}

ct_error ct_cuda_properties(int index, char **text) {
  return with_cuda([&](const ct_cuda_functions *f) {
    *text = ct::copy_string(f->properties(index));
  });
}

ct_error ct_graph_begin(int index, ct_graph *g) {
  return with_cuda([&](const ct_cuda_functions *f) {
    *g = static_cast<ct_graph>(f->graph_begin(index));
  });
}

ct_error ct_graph_end(ct_graph g) {
  return with_cuda([&](const ct_cuda_functions *f) { f->graph_end(g); });
}

ct_error ct_graph_replay(ct_graph g) {
  return with_cuda([&](const ct_cuda_functions *f) { f->graph_replay(g); });
}

void ct_graph_free(ct_graph g) {
  ct_free(with_cuda([&](const ct_cuda_functions *f) { f->graph_free(g); }));
}

void ct_set_num_threads(int n) {
  at::set_num_threads(n);
  ct::thread_settings++;
}
int ct_get_num_threads(void) { return at::get_num_threads(); }

ct_error ct_build_info(char **text) {
  return ct::guard([&] {
    std::ostringstream s;
    s << "compiled=" << TORCH_VERSION << "\n"
      << "runtime=" << runtime_version() << "\n"
      << "path=" << libtorch_path() << "\n"
      << "capability=" << at::get_cpu_capability() << "\n"
      << "mkl=" << at::hasMKL() << "\n"
      << "mkldnn=" << at::hasMKLDNN() << "\n"
      << "openmp=" << at::hasOpenMP() << "\n"
      << "gloo=" << has_symbol("_ZTIN4c10d16ProcessGroupGlooE") << "\n"
      << "nccl="
      << (has_symbol("_ZTIN4c10d16ProcessGroupNCCLE") &&
          ct::has_part("libcyclecap_torch_nccl.so"))
      << "\n";
    *text = ct::copy_string(s.str());
  });
}

}  // extern "C"
