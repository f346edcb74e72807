// What the shim calls in libcyclecap_torch_cuda.so. The functions may throw:
// both libraries are built together.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "cyclecap_torch.h"

struct ct_cuda_functions {
  void (*memory)(int index, ct_memory *m);
  void (*reset_peak_memory)(int index);
  void (*empty_cache)();
  std::string (*properties)(int index);
  void *(*graph_begin)(int index);
  void (*graph_end)(void *graph);
  void (*graph_replay)(void *graph);
  void (*graph_free)(void *graph);
  at::Tensor (*gelu_new)(const at::Tensor &x);  // float32 or bfloat16
  at::Tensor (*gelu_new_grad)(const at::Tensor &x, const at::Tensor &g);
};

namespace ct {

// Opens the library. It throws if that fails, once and for all.
const ct_cuda_functions *cuda_functions();

}  // namespace ct
