// Functions whose forward and backward passes are Go's,
// torch.autograd.Function.
#include <torch/csrc/autograd/custom_function.h>

#include "common.h"

struct ct_context_s {
  torch::autograd::AutogradContext *autograd;
  torch::autograd::variable_list results;
};

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

ct_pass forward_pass, backward_pass;

// Holds an object of Go until the graph is freed.
struct Held : torch::CustomClassHolder {
  const uintptr_t id;
  explicit Held(uintptr_t id) : id(id) {}
  ~Held() override { ct::drop(id); }
};

[[noreturn]] void fail(char kind, const std::string &what) {
  const c10::SourceLocation here{__func__, __FILE__, __LINE__};
  switch (kind) {
    case CT_ERR_INDEX:
      throw c10::IndexError(here, what);
    case CT_ERR_VALUE:
      throw c10::ValueError(here, what);
    case CT_ERR_TYPE:
      throw c10::TypeError(here, what);
    case CT_ERR_NOT_IMPLEMENTED:
      throw c10::NotImplementedError(here, what);
    case CT_ERR_MEMORY:
      throw c10::OutOfMemoryError(here, what);
    case CT_ERR_DISTRIBUTED:
      throw c10::DistError(here, what);
    default:
      throw c10::Error(here, what);
  }
}

variable_list list_of(const ct_tensor *t, int n) {
  variable_list l;
  l.reserve(n);
  for (int i = 0; i < n; i++) l.push_back(ct::borrow(t[i]));
  return l;
}

// The caller frees the block with ct_free and owns its tensors.
ct_tensor *block_of(const variable_list &l) {
  // Not malloc(0), which may be NULL.
  auto *block =
      static_cast<ct_tensor *>(std::malloc((l.size() + 1) * sizeof(ct_tensor)));
  if (block == nullptr) throw std::bad_alloc();
  for (size_t i = 0; i < l.size(); i++) block[i] = ct::own(l[i]);
  return block;
}

variable_list run(ct_pass pass, uintptr_t id, AutogradContext *autograd,
                  at::TensorList inputs) {
  ct_context_s c{autograd, {}};
  std::vector<ct_tensor> l;
  l.reserve(inputs.size());
  for (const auto &t : inputs) l.push_back(ct::own(t));
  const ct_error e = pass(id, &c, l.data(), static_cast<int>(l.size()));
  if (e != nullptr) {
    const char kind = e[0];
    const std::string what = kind == '\0' ? "" : e + 1;
    std::free(e);
    fail(kind, what);
  }
  return std::move(c.results);
}

void check_started() {
  TORCH_CHECK_NOT_IMPLEMENTED(
      !ct::thread.calling,
      "a backward pass through a function or a hook of Go must be started by "
      "Backward or GradOf, not by an operator");
}

struct GoFunction : torch::autograd::Function<GoFunction> {
  static variable_list forward(AutogradContext *ctx,
                               const c10::intrusive_ptr<Held> &held,
                               at::TensorList inputs) {
    ctx->saved_data["held"] = c10::IValue::make_capsule(held);
    return run(forward_pass, held->id, ctx, inputs);
  }

  static variable_list backward(AutogradContext *ctx, variable_list grads) {
    check_started();
    const auto held = ctx->saved_data["held"].toCapsule();
    const auto id = static_cast<const Held *>(held.get())->id;
    auto results = run(backward_pass, id, ctx, grads);
    results.insert(results.begin(), at::Tensor());  // of held
    return results;
  }
};

}  // namespace

extern "C" {

void ct_function_passes(ct_pass forward, ct_pass backward) {
  forward_pass = forward;
  backward_pass = backward;
}

ct_error ct_function_apply(uintptr_t id, const ct_tensor *inputs, int n,
                           ct_tensor **outputs, int *n_out) {
  const auto held = c10::make_intrusive<Held>(id);
  return ct::guard([&] {
    const auto in = list_of(inputs, n);
    const auto out = GoFunction::apply(held, at::TensorList(in));
    *n_out = static_cast<int>(out.size());
    *outputs = block_of(out);
  });
}

ct_error ct_register_hook(ct_tensor t, uintptr_t id, unsigned *at) {
  const auto held = c10::make_intrusive<Held>(id);
  return ct::guard([&] {
    *at = ct::borrow(t).register_hook([held](const at::Tensor &grad) {
      if (!grad.defined()) return at::Tensor();
      check_started();
      return run(backward_pass, held->id, nullptr, {grad}).at(0);
    });
  });
}

ct_error ct_remove_hook(ct_tensor t, unsigned at) {
  return ct::guard([&] { ct::borrow(t).remove_hook(at); });
}

ct_error ct_context_return(ct_context c, const ct_tensor *results, int n) {
  return ct::guard([&] { c->results = list_of(results, n); });
}

ct_error ct_context_save(ct_context c, const ct_tensor *t, int n) {
  return ct::guard([&] { c->autograd->save_for_backward(list_of(t, n)); });
}

ct_error ct_context_mark_dirty(ct_context c, const ct_tensor *t, int n) {
  return ct::guard([&] { c->autograd->mark_dirty(list_of(t, n)); });
}

ct_error ct_context_mark_non_differentiable(ct_context c, const ct_tensor *t,
                                            int n) {
  return ct::guard(
      [&] { c->autograd->mark_non_differentiable(list_of(t, n)); });
}

ct_error ct_context_saved(ct_context c, ct_tensor **t, int *n) {
  return ct::guard([&] {
    const auto saved = c->autograd->get_saved_variables();
    *n = static_cast<int>(saved.size());
    *t = block_of(saved);
  });
}

ct_error ct_context_needs(ct_context c, int input, int *needed) {
  return ct::guard([&] {
    *needed = c->autograd->needs_input_grad(static_cast<size_t>(input));
  });
}

}  // extern "C"
