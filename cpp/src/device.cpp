// Devices, threads, and information about libtorch.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <dlfcn.h>
#include <torch/version.h>
#include <unistd.h>

#include <sstream>

#include "common.h"

namespace {

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
  std::string why;  // it is not open; "" if it is, or does not exist
};

// Without a driver libtorch_cuda.so is of no use, and loading it and the
// libraries that it needs would make every program start 0.1 s later.
CudaLibrary open_cuda() {
  const std::string path = sibling("libtorch_cuda.so");
  if (access(path.c_str(), R_OK) != 0) return {false, ""};
  if (dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL) == nullptr)
    return {true, "no NVIDIA driver: " + loader_error()};
  cuda_library = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
  return {true, cuda_library != nullptr ? "" : loader_error()};
}

}  // namespace

extern "C" {

ct_error ct_cuda_open(int *found) {
  static const CudaLibrary library = open_cuda();
  *found = library.found;
  return ct::guard([&] { TORCH_CHECK(library.why.empty(), library.why); });
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

void ct_set_num_threads(int n) { at::set_num_threads(n); }
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
      << "nccl=" << has_symbol("_ZTIN4c10d16ProcessGroupNCCLE") << "\n";
    *text = ct::copy_string(s.str());
  });
}

}  // extern "C"
