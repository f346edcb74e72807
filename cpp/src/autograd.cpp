// Backward, gradients, and the modes that are per OS thread in libtorch.
#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/variable.h>

#include "common.h"
#include "parallel.h"

namespace {

torch::autograd::variable_list list_of(const ct_tensor *t, int n) {
  torch::autograd::variable_list l;
  l.reserve(n);
  for (int i = 0; i < n; i++) l.push_back(ct::borrow(t[i]));
  return l;
}

// The gradients with respect to outputs; none stands for the 1 of a scalar.
torch::autograd::variable_list grads_of(
    const ct_tensor *t, int n, const torch::autograd::variable_list &outputs) {
  const auto n_out = outputs.size();
  if (n == 0) return torch::autograd::variable_list(n_out);
  TORCH_CHECK_VALUE(static_cast<size_t>(n) == n_out, "expected ", n_out,
                    " gradients, one for each output, got ", n);
  auto l = list_of(t, n);
  for (size_t i = 0; i < n_out; i++)
    TORCH_CHECK(!l[i].defined() || l[i].sizes() == outputs[i].sizes(),
                "gradient ", i, " has shape ", l[i].sizes(), ", but output ", i,
                " has shape ", outputs[i].sizes());
  return l;
}

}  // namespace

extern "C" {

ct_error ct_backward(const ct_tensor *outputs, int n_out,
                     const ct_tensor *grads, int n_grads, int retain_graph,
                     int create_graph) {
  return ct::guard([&] {
    const auto out = list_of(outputs, n_out);
    torch::autograd::backward(out, grads_of(grads, n_grads, out),
                              retain_graph != 0, create_graph != 0);
  });
}

ct_error ct_grad(const ct_tensor *outputs, int n_out, const ct_tensor *grads,
                 int n_grads, const ct_tensor *inputs, int n_in,
                 int retain_graph, int create_graph, int allow_unused,
                 ct_tensor *grads_out) {
  return ct::guard([&] {
    const auto out = list_of(outputs, n_out);
    auto g = torch::autograd::grad(
        out, list_of(inputs, n_in), grads_of(grads, n_grads, out),
        retain_graph != 0, create_graph != 0, allow_unused != 0);
    for (int i = 0; i < n_in; i++) grads_out[i] = ct::own(g[i]);
  });
}

ct_error ct_tensor_grad(ct_tensor t, ct_tensor *grad) {
  return ct::guard([&] { *grad = ct::own(ct::borrow(t).grad()); });
}

ct_error ct_tensor_set_grad(ct_tensor t, ct_tensor grad) {
  return ct::guard([&] {
    const at::Tensor x = ct::borrow(t), g = ct::borrow(grad);
    if (g.defined()) {
      TORCH_CHECK(!g.is_same(x), "a tensor cannot be its own gradient");
      TORCH_CHECK_TYPE(g.scalar_type() == x.scalar_type(),
                       "the gradient has dtype ", g.scalar_type(),
                       ", but the tensor has dtype ", x.scalar_type());
      TORCH_CHECK(g.sizes() == x.sizes(), "the gradient has shape ", g.sizes(),
                  ", but the tensor has shape ", x.sizes());
      TORCH_CHECK(g.device() == x.device(), "the gradient is on ", g.device(),
                  ", but the tensor is on ", x.device());
    }
    x.mutable_grad() = g;
  });
}

ct_error ct_tensor_set_requires_grad(ct_tensor t, int on) {
  return ct::guard([&] {
    at::Tensor x = ct::borrow(t);
    TORCH_CHECK(x.is_leaf() || on,
                "you can only change requires_grad flags of leaf variables");
    TORCH_CHECK(!on || at::isFloatingType(x.scalar_type()) ||
                    at::isComplexType(x.scalar_type()),
                "only Tensors of floating point and complex dtype can require "
                "gradients");
    x.set_requires_grad(on != 0);
  });
}

ct_error ct_tensor_grad_fn(ct_tensor t, char **name) {
  return ct::guard([&] {
    const auto fn = ct::borrow(t).grad_fn();
    *name = fn == nullptr ? nullptr : ct::copy_string(fn->name());
  });
}

ct_error ct_tensor_set_data(ct_tensor t, ct_tensor other) {
  return ct::guard([&] { ct::borrow(t).set_data(ct::borrow(other)); });
}

int ct_grad_mode(int on) {
  const bool was = c10::GradMode::is_enabled();
  c10::GradMode::set_enabled(on != 0);
  return was;
}

void *ct_inference_enter(int on) { return new c10::InferenceMode(on != 0); }

void ct_inference_leave(void *guard) {
  delete static_cast<c10::InferenceMode *>(guard);
}

ct_error ct_autocast_enter(int device_type, int on, int dtype, int *was_on,
                           int *was_dtype) {
  return ct::guard([&] {
    const auto d = static_cast<c10::DeviceType>(device_type);
    *was_on = at::autocast::is_autocast_enabled(d);
    *was_dtype = static_cast<int>(at::autocast::get_autocast_dtype(d));
    at::autocast::set_autocast_enabled(d, on != 0);
    if (on)
      at::autocast::set_autocast_dtype(d, static_cast<at::ScalarType>(dtype));
    at::autocast::increment_nesting();
  });
}

ct_error ct_autocast_leave(int device_type, int was_on, int was_dtype) {
  return ct::guard([&] {
    const auto d = static_cast<c10::DeviceType>(device_type);
    // The cache contains low-precision copies of weights, which must not
    // outlive the outermost region (as in Python's autocast.__exit__).
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(d, was_on != 0);
    at::autocast::set_autocast_dtype(d, static_cast<at::ScalarType>(was_dtype));
  });
}

int64_t ct_scope_get(void) { return ct::thread.scope; }

int64_t ct_scope_set(int64_t id) {
  // In OpenMP the number of threads is per OS thread. libtorch sets it lazily,
  // and at::set_num_threads changes the calling thread's and that of threads
  // that have none. An operation with another number of threads, such as a
  // matrix product in MKL, would return different low-order bits.
  static thread_local uint64_t settings = 0;
  if (const uint64_t now = ct::thread_settings; settings != now) {
    at::init_num_threads();
    settings = now;
  }
  const int64_t was = ct::thread.scope;
  ct::thread.scope = id;
  return was;
}

}  // extern "C"
