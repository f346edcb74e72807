// What the shim calls in libcyclecap_torch_nccl.so. The functions may throw:
// both libraries are built together.
#pragma once

#include <chrono>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

struct ct_nccl_functions {
  c10::intrusive_ptr<c10d::Backend> (*create)(
      const c10::intrusive_ptr<c10d::Store> &store, int rank, int size,
      std::chrono::milliseconds timeout);
  // Ends a group before it is freed. After a failed operation, it does not wait
  // for the other processes.
  void (*end)(c10d::Backend *group, bool failed);
};
