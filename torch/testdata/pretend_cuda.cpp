// A libtorch_cuda.so that only says that there are two devices.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/CUDAHooksInterface.h>

namespace {

struct CUDAHooks : at::CUDAHooksInterface {
  explicit CUDAHooks(at::CUDAHooksArgs) {}
  bool hasCUDA() const override { return true; }
  void init() const override {}
  c10::DeviceIndex deviceCount() const override { return 2; }
  const at::Generator &getDefaultGenerator(c10::DeviceIndex) const override {
    static const at::Generator g = at::make_generator<at::CPUGeneratorImpl>();
    return g;
  }
};

using at::CUDAHooksRegistry;
using at::RegistererCUDAHooksRegistry;
REGISTER_CUDA_HOOKS(CUDAHooks);

}  // namespace
