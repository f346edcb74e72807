// libcyclecap_torch_nccl.so: libtorch's process group for CUDA tensors. The
// shim opens it when a group first needs it.
#define USE_C10D_NCCL
#include "nccl.h"

#include <torch/csrc/cuda/nccl.h>

#include <cstdlib>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "cyclecap_torch.h"

namespace {

c10::intrusive_ptr<c10d::Backend> create(
    const c10::intrusive_ptr<c10d::Store> &store, int rank, int size,
    std::chrono::milliseconds timeout) {
  // The size of the options depends on NCCL's version: libtorch, NCCL and the
  // header that this file was compiled with have to agree.
  const auto version = torch::cuda::nccl::version();
  const auto major = version >> 32, minor = (version >> 16) & 0xffff;
  TORCH_CHECK(major == NCCL_MAJOR && minor == NCCL_MINOR, "NCCL ", major, ".",
              minor, " is loaded, but the shim was built with the header of ",
              NCCL_MAJOR, ".", NCCL_MINOR, "; build the shim again");
  // An operation then returns an error when another process has ended or is
  // late, as with Gloo. Otherwise libtorch ends this process.
  setenv("TORCH_NCCL_BLOCKING_WAIT", "1", /*replace=*/0);
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = timeout;
  return c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size,
                                                     options);
}

void end(c10d::Backend *group, bool failed) {
  auto *g = static_cast<c10d::ProcessGroupNCCL *>(group);
  if (failed)
    g->abort();
  else
    g->shutdown();
}

}  // namespace

extern "C" CT_API const ct_nccl_functions *ct_nccl_functions_get() {
  static const ct_nccl_functions functions = {create, end};
  return &functions;
}
