// Autocast, with the CPU's lists of operators instead of CUDA's, because
// results are compared with the CPU's.
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <string>
#include <unordered_set>

#include "device.h"

namespace testdevice {

namespace {

constexpr auto type = c10::DeviceType::PrivateUse1;

// The operators that compute in the lower precision, and those that compute in
// the widest type of their arguments. The CPU's other operators with autocast
// compute in float32.
const std::unordered_set<std::string> lower = {"_addmm_activation",
                                               "_convolution",
                                               "_native_multi_head_attention",
                                               "addbmm",
                                               "addmm",
                                               "baddbmm",
                                               "bmm",
                                               "conv1d",
                                               "conv2d",
                                               "conv3d",
                                               "conv_tbc",
                                               "conv_transpose1d",
                                               "conv_transpose2d",
                                               "conv_transpose3d",
                                               "linalg_vecdot",
                                               "linear",
                                               "matmul",
                                               "mkldnn_rnn_layer",
                                               "mm",
                                               "prelu",
                                               "scaled_dot_product_attention"};
const std::unordered_set<std::string> widest = {"cat", "index_copy", "stack"};

template <class F>
void each_tensor(torch::jit::Stack *stack, size_t n, F f) {
  for (size_t i = stack->size() - n; i < stack->size(); i++) {
    c10::IValue &v = (*stack)[i];
    if (v.isTensor()) {
      v = f(v.toTensor());
    } else if (v.isTensorList()) {
      c10::List<at::Tensor> l;
      for (const at::Tensor &t : v.toTensorVector()) l.push_back(f(t));
      v = l;
    }
  }
}

void cast(const c10::OperatorHandle &op, torch::jit::Stack *stack,
          at::ScalarType to) {
  const c10::impl::ExcludeDispatchKeyGuard guard(
      c10::DispatchKey::AutocastPrivateUse1);
  each_tensor(stack, op.schema().arguments().size(), [to](const at::Tensor &t) {
    return at::autocast::cached_cast(to, t, type);
  });
  op.callBoxed(stack);
}

void to_lower(const c10::OperatorHandle &op, torch::jit::Stack *stack) {
  cast(op, stack, at::autocast::get_autocast_dtype(type));
}

void to_float(const c10::OperatorHandle &op, torch::jit::Stack *stack) {
  cast(op, stack, at::kFloat);
}

void to_widest(const c10::OperatorHandle &op, torch::jit::Stack *stack) {
  auto to = at::autocast::get_autocast_dtype(type);
  each_tensor(stack, op.schema().arguments().size(), [&](const at::Tensor &t) {
    if (t.defined() && t.scalar_type() == at::kFloat) to = at::kFloat;
    return t;
  });
  cast(op, stack, to);
}

}  // namespace

void open_autocast() {
  const auto key = c10::DispatchKey::AutocastPrivateUse1;
  static torch::Library others(torch::Library::IMPL, "_", key, __FILE__,
                               __LINE__);
  others.fallback(torch::CppFunction::makeFallthrough());
  static torch::Library aten(torch::Library::IMPL, "aten", key, __FILE__,
                             __LINE__);
  auto &dispatcher = c10::Dispatcher::singleton();
  for (const auto &name : dispatcher.getAllOpNames()) {
    if (name.getNamespace() != std::string("aten")) continue;
    const auto op = dispatcher.findSchema(name);
    if (!op.has_value() ||
        !op->hasKernelForDispatchKey(c10::DispatchKey::AutocastCPU))
      continue;
    const std::string base = name.name.substr(6);  // without "aten::"
    std::string full = name.name;
    if (!name.overload_name.empty()) full += "." + name.overload_name;
    if (lower.count(base) != 0)
      aten.impl(full.c_str(),
                torch::CppFunction::makeFromBoxedFunction<&to_lower>());
    else if (widest.count(base) != 0)
      aten.impl(full.c_str(),
                torch::CppFunction::makeFromBoxedFunction<&to_widest>());
    else
      aten.impl(full.c_str(),
                torch::CppFunction::makeFromBoxedFunction<&to_float>());
  }
}

}  // namespace testdevice
