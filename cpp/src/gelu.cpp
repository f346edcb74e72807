// GPT-2's and CLIP's activations, using less memory than their sequences of
// operators.
#include <ATen/TensorIterator.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/mul.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/ScopeExit.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>

#include "common.h"
#include "cuda.h"
#include "parallel.h"

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

const double root = std::sqrt(2.0 / M_PI);

// Applies f(x, y), a sequence of operators on each element that writes y. On
// the CPU it does so to blocks that stay in the cache of a core until all
// operators have run, with the same bits. An operator gives each thread one
// chunk of x. What remains of a chunk after its last whole vector goes through
// other functions, and the low bits of sigmoid depend on that; blocks therefore
// end where chunks do. The threads would share a few blocks unevenly.
template <class F>
at::Tensor in_blocks(const at::Tensor &x, const F &f) {
  constexpr int64_t block = 65536;
  auto y = at::empty_like(x);
  if (!x.is_cpu() || !x.is_contiguous() || !y.is_contiguous() ||
      x.numel() < 4 * block || !ct::has_threads() ||
      at::autocast::is_autocast_enabled(at::kCPU)) {
    f(x, y);
    return y;
  }
  const auto from = x.view(-1), to = y.view(-1);
  const int64_t n = x.numel();
  // As in at::parallel_for.
  const int64_t threads = std::min<int64_t>(
      at::get_num_threads(), at::divup(n, at::internal::GRAIN_SIZE));
  const int64_t chunk = at::divup(n, threads);
  const int64_t blocks = at::divup(chunk, block);  // of one chunk
  ct::each(threads * blocks, true, [&](int64_t i) {
    at::AutoDispatchBelowADInplaceOrView below;
    const int64_t begin = i / blocks * chunk + i % blocks * block;
    const int64_t end = std::min({begin + block, (i / blocks + 1) * chunk, n});
    if (begin >= end) return;
    f(from.narrow(0, begin, end - begin), to.narrow(0, begin, end - begin));
  });
  return y;
}

at::Tensor quick_gelu(const at::Tensor &x) {
  return x.mul(x.mul(1.702).sigmoid());
}

// The order of the operators matters: backward sums the gradients of x in the
// reverse order.
at::Tensor written_out(const at::Tensor &x) {
  const auto half = x.mul(0.5);
  const auto inner = x.add(x.pow(3.0).mul(0.044715)).mul(root);
  return half.mul(inner.tanh().add(1.0));
}

// With separate operators, backward needs four tensors of x's size. Here only x
// is saved, and backward recomputes the others with the same operators.
struct GeluNew : torch::autograd::Function<GeluNew> {
  static at::Tensor forward(AutogradContext *ctx, const at::Tensor &x) {
    ctx->save_for_backward({x});
    const auto d = x.device().type();
    if (at::autocast::is_autocast_available(d)) {
      ctx->saved_data["autocast"] = at::autocast::is_autocast_enabled(d);
      ctx->saved_data["dtype"] =
          static_cast<int64_t>(at::autocast::get_autocast_dtype(d));
    }
    // In place where that does not change the bits; mul_ with a number would
    // first round it to bf16.
    return in_blocks(x, [](const at::Tensor &x, const at::Tensor &y) {
      const auto t = x.pow(3.0).mul(0.044715).add_(x).mul(root).tanh_();
      at::mul_out(const_cast<at::Tensor &>(y), t.add_(1.0), x.mul(0.5));
    });
  }

  static variable_list backward(AutogradContext *ctx, variable_list grads) {
    const bool again = c10::GradMode::is_enabled();  // create_graph
    auto x = ctx->get_saved_variables()[0];
    if (!again) x = x.detach();
    c10::AutoGradMode on(true);
    if (!again) x.requires_grad_();
    const auto y = as_forward(ctx, x);
    return torch::autograd::grad({y}, {x}, {grads[0]}, std::nullopt, again);
  }

  static at::Tensor as_forward(AutogradContext *ctx, const at::Tensor &x) {
    const auto d = x.device().type();
    if (!at::autocast::is_autocast_available(d)) return written_out(x);
    const auto set = [d](bool on, at::ScalarType dtype) {
      at::autocast::set_autocast_enabled(d, on);
      at::autocast::set_autocast_dtype(d, dtype);
    };
    const auto back = c10::make_scope_exit(
        [set, on = at::autocast::is_autocast_enabled(d),
         dtype = at::autocast::get_autocast_dtype(d)] { set(on, dtype); });
    set(ctx->saved_data["autocast"].toBool(),
        static_cast<at::ScalarType>(ctx->saved_data["dtype"].toInt()));
    return written_out(x);
  }
};

// Whether CUDA computes it in one kernel with the same bits. The kernel is
// compiled at the first call, for which NVRTC may be missing, and then compared
// with the operators: on every bf16, and on as many f32 between -16 and 16.
bool one_kernel(at::ScalarType dtype) {
  const auto check = [](at::ScalarType dtype) {
    try {
      const c10::InferenceMode guard;
      const auto cuda = at::device(at::kCUDA);
      const auto x =
          dtype == at::kFloat
              ? at::linspace(-16, 16, 65536, cuda.dtype(at::kFloat))
              : at::arange(-32768, 32768, cuda.dtype(at::kShort)).view(dtype);
      return at::allclose(ct::cuda_functions()->gelu_new(x), written_out(x), 0,
                          0, /*equal_nan=*/true);
    } catch (const std::exception &) {
      return false;
    }
  };
  if (dtype == at::kFloat) {
    static const bool f32 = check(at::kFloat);
    return f32;
  }
  if (dtype == at::kBFloat16) {
    static const bool bf16 = check(at::kBFloat16);
    return bf16;
  }
  return false;
}

// The same in one kernel for each direction, on CUDA in f32: the operators read
// and write x's memory two dozen times.
struct GeluKernel : torch::autograd::Function<GeluKernel> {
  static at::Tensor forward(AutogradContext *ctx, const at::Tensor &x) {
    ctx->save_for_backward({x});
    return ct::cuda_functions()->gelu_new(x);
  }

  static variable_list backward(AutogradContext *ctx, variable_list grads) {
    const auto x = ctx->get_saved_variables()[0];
    if (!c10::GradMode::is_enabled())
      return {ct::cuda_functions()->gelu_new_grad(x, grads[0])};
    // create_graph: the gradient is differentiated in turn.
    return torch::autograd::grad({written_out(x)}, {x}, {grads[0]},
                                 std::nullopt, true);
  }
};

// Whether CUDA computes the gradient in one kernel with the same bits, tried on
// numbers between -16 and 16.
bool one_kernel_grad() {
  static const bool able = [] {
    if (!one_kernel(at::kFloat)) return false;
    try {
      const c10::AutoGradMode on(true);
      const auto cuda = at::device(at::kCUDA).dtype(at::kFloat);
      auto x = at::linspace(-16, 16, 1 << 18, cuda);
      const auto g = x.mul(7).cos();
      x.requires_grad_();
      const auto want =
          torch::autograd::grad({written_out(x)}, {x}, {g}, std::nullopt);
      return at::equal(ct::cuda_functions()->gelu_new_grad(x.detach(), g),
                       want[0]);
    } catch (const std::exception &) {
      return false;
    }
  }();
  return able;
}

}  // namespace

extern "C" {

ct_error ct_gelu_new(ct_tensor x, ct_tensor *y) {
  return ct::guard([&] {
    const auto t = ct::borrow(x);
    if (!t.is_cuda()) {
      *y = ct::own(GeluNew::apply(t));
      return;
    }
    const bool plain = !at::autocast::is_autocast_enabled(at::kCUDA);
    const bool records = c10::GradMode::is_enabled() && t.requires_grad();
    if (plain && !records && one_kernel(t.scalar_type()))
      *y = ct::own(ct::cuda_functions()->gelu_new(t));
    else if (plain && records && t.scalar_type() == at::kFloat &&
             one_kernel_grad())
      *y = ct::own(GeluKernel::apply(t));
    else
      // A GPU has the memory, and recomputing would cost time there.
      *y = ct::own(written_out(t));
  });
}

ct_error ct_quick_gelu(ct_tensor x, ct_tensor *y) {
  return ct::guard([&] {
    const auto t = ct::borrow(x);
    const bool records = c10::GradMode::is_enabled() && t.requires_grad();
    if (!t.is_cpu() || records || at::autocast::is_autocast_enabled(at::kCPU)) {
      *y = ct::own(quick_gelu(t));
      return;
    }
    *y = ct::own(in_blocks(t, [](const at::Tensor &x, const at::Tensor &y) {
      at::mul_out(const_cast<at::Tensor &>(y), x, x.mul(1.702).sigmoid_());
    }));
  });
}

}  // extern "C"
