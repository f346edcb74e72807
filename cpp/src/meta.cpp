// Meta kernels, which compute only the shapes of results, for operators of our
// networks whose meta kernels libtorch has only in Python. They allow whole
// networks and training steps to run on the meta device, where mixing in a
// tensor from another device is an error.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "common.h"

namespace {

at::Tensor relu(const at::Tensor &self) { return at::empty_like(self); }

std::tuple<at::Tensor, at::Tensor, at::Tensor> layer_norm(
    const at::Tensor &input, at::IntArrayRef normalized_shape,
    const std::optional<at::Tensor> &, const std::optional<at::Tensor> &,
    double) {
  std::vector<int64_t> stats(input.sizes().begin(), input.sizes().end());
  for (size_t i = stats.size() - normalized_shape.size(); i < stats.size(); i++)
    stats[i] = 1;
  return {at::empty_like(input), at::empty(stats, input.options()),
          at::empty(stats, input.options())};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> layer_norm_backward(
    const at::Tensor &, const at::Tensor &input, at::IntArrayRef,
    const at::Tensor &, const at::Tensor &,
    const std::optional<at::Tensor> &weight,
    const std::optional<at::Tensor> &bias, std::array<bool, 3> mask) {
  auto like = [](bool wanted, const std::optional<at::Tensor> &t) {
    return wanted && t.has_value() ? at::empty_like(*t) : at::Tensor();
  };
  return {mask[0] ? at::empty_like(input) : at::Tensor(), like(mask[1], weight),
          like(mask[2], bias)};
}

at::Tensor convolution(const at::Tensor &input, const at::Tensor &weight,
                       const std::optional<at::Tensor> &,
                       at::IntArrayRef stride, at::IntArrayRef padding,
                       at::IntArrayRef dilation, bool transposed,
                       at::IntArrayRef, int64_t) {
  TORCH_CHECK_NOT_IMPLEMENTED(!transposed,
                              "transposed convolution on the meta device");
  std::vector<int64_t> size{input.size(0), weight.size(0)};
  for (int64_t i = 0; i + 2 < input.dim(); i++) {
    const int64_t kernel = dilation[i] * (weight.size(i + 2) - 1) + 1;
    size.push_back((input.size(i + 2) + 2 * padding[i] - kernel) / stride[i] +
                   1);
  }
  return at::empty(size, input.options());
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> convolution_backward(
    const at::Tensor &, const at::Tensor &input, const at::Tensor &weight,
    at::IntArrayRef, at::IntArrayRef, at::IntArrayRef, bool, at::IntArrayRef,
    int64_t, std::array<bool, 3> mask) {
  return {
      mask[0] ? at::empty_like(input) : at::Tensor(),
      mask[1] ? at::empty_like(weight) : at::Tensor(),
      mask[2] ? at::empty({weight.size(0)}, weight.options()) : at::Tensor()};
}

at::Tensor &where_out(const at::Tensor &condition, const at::Tensor &self,
                      const at::Tensor &other, at::Tensor &out) {
  out.resize_(at::infer_size(condition.sizes(),
                             at::infer_size(self.sizes(), other.sizes())));
  return out;
}

at::Tensor where(const at::Tensor &condition, const at::Tensor &self,
                 const at::Tensor &other) {
  return at::empty(at::infer_size(condition.sizes(),
                                  at::infer_size(self.sizes(), other.sizes())),
                   self.options().dtype(at::result_type(self, other)));
}

at::Tensor mse_loss_backward(const at::Tensor &, const at::Tensor &self,
                             const at::Tensor &, int64_t) {
  return at::empty_like(self);
}

at::Tensor &abs_out(const at::Tensor &self, at::Tensor &out) {
  out.resize_(self.sizes());
  return out;
}

at::Tensor index_select(const at::Tensor &self, int64_t dim,
                        const at::Tensor &index) {
  auto size = self.sizes().vec();
  if (!size.empty()) size[c10::maybe_wrap_dim(dim, self.dim())] = index.numel();
  return at::empty(size, self.options());
}

at::Tensor embedding_dense_backward(const at::Tensor &grad, const at::Tensor &,
                                    int64_t num_weights, int64_t, bool) {
  return at::empty({num_weights, grad.size(-1)}, grad.options());
}

// The loss of logits. The second result is scratch of the CPU's kernel.
std::tuple<at::Tensor, at::Tensor> log_sigmoid(const at::Tensor &self) {
  return {at::empty_like(self), at::empty_like(self)};
}

at::Tensor log_sigmoid_backward(const at::Tensor &, const at::Tensor &self,
                                const at::Tensor &) {
  return at::empty_like(self);
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, Meta, m) {
  m.impl("relu", TORCH_FN(relu));
  m.impl("native_layer_norm", TORCH_FN(layer_norm));
  m.impl("native_layer_norm_backward", TORCH_FN(layer_norm_backward));
  m.impl("convolution_overrideable", TORCH_FN(convolution));
  m.impl("convolution_backward_overrideable", TORCH_FN(convolution_backward));
  m.impl("where.self_out", TORCH_FN(where_out));
  m.impl("where.self", TORCH_FN(where));
  m.impl("mse_loss_backward", TORCH_FN(mse_loss_backward));
  m.impl("abs.out", TORCH_FN(abs_out));
  m.impl("index_select", TORCH_FN(index_select));
  m.impl("embedding_dense_backward", TORCH_FN(embedding_dense_backward));
  m.impl("log_sigmoid_forward", TORCH_FN(log_sigmoid));
  m.impl("log_sigmoid_backward", TORCH_FN(log_sigmoid_backward));
}
