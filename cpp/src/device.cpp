// Devices, threads, and information about libtorch.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>
#include <torch/version.h>

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

}  // namespace

extern "C" {

ct_error ct_cuda_open(int *found) {
  return ct::guard([&] {
    const std::string path = sibling("libtorch_cuda.so");
    FILE *f = std::fopen(path.c_str(), "rb");
    *found = f != nullptr;
    if (f == nullptr) return;
    std::fclose(f);
    if (cuda_library != nullptr) return;
    cuda_library = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
    if (cuda_library == nullptr) {
      const char *why = dlerror();
      TORCH_CHECK(false, why != nullptr ? why : "dlopen failed");
    }
  });
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

ct_error ct_synchronize(int device_type, int index) {
  return ct::guard([&] {
    const auto type = static_cast<c10::DeviceType>(device_type);
    c10::impl::VirtualGuardImpl(type).synchronizeDevice(
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
