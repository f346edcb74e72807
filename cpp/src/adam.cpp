// A step of Adam on the CPU.
//
// The operators of PyTorch's loop (torch.optim, foreach=False) read and write
// the whole of a parameter, its gradient and its moments from memory nine
// times. Here they are the same operators in the same order, and so the same
// bits, but on blocks that stay in the cache of a core until all of them have
// run.
#include <ATen/core/LegacyTypeDispatch.h>

#include <algorithm>
#include <vector>

#include "common.h"
#include "parallel.h"

namespace {

// Elements of a block: five tensors of it fit into the second-level cache of a
// core.
constexpr int64_t block_size = 32768;

// What an update reads and writes: a whole parameter, or a block of it.
struct Part {
  at::Tensor param, grad, avg, avg_sq;
  double root, size;
};

void update(const ct_adam &o, const Part &t) {
  at::Tensor grad = t.grad;
  if (o.kind == CT_ADAM_TRANSFORMERS) {
    t.avg.mul_(o.beta1).add_(grad, 1 - o.beta1);
    t.avg_sq.mul_(o.beta2).addcmul_(grad, grad, 1 - o.beta2);
    t.param.addcdiv_(t.avg, t.avg_sq.sqrt().add_(o.eps), t.size);
    if (o.weight_decay > 0) t.param.add_(t.param, -o.lr * o.weight_decay);
    return;
  }
  if (o.weight_decay != 0) {
    if (o.kind == CT_ADAM_DECOUPLED)
      t.param.mul_(1 - o.lr * o.weight_decay);
    else
      grad = grad.add(t.param, o.weight_decay);
  }
  t.avg.lerp_(grad, 1 - o.beta1);
  t.avg_sq.mul_(o.beta2).addcmul_(grad, grad, 1 - o.beta2);
  t.param.addcdiv_(t.avg, t.avg_sq.sqrt().div_(t.root).add_(o.eps), t.size);
}

// Whether the blocks of t are the same elements in all four tensors.
bool divisible(const Part &t) {
  for (const auto *x : {&t.param, &t.grad, &t.avg, &t.avg_sq})
    if (!x->is_contiguous() || x->sizes() != t.param.sizes()) return false;
  return true;
}

}  // namespace

extern "C" {

ct_error ct_adam_step(const ct_adam *o, int n, const ct_tensor *params,
                      const ct_tensor *grads, const ct_tensor *avgs,
                      const ct_tensor *avg_sqs, const double *roots,
                      const double *sizes) {
  return ct::guard([&] {
    // Below autograd, which other threads than this one would need the mode of.
    // It would have counted the changes of the parameters.
    at::AutoDispatchBelowADInplaceOrView below;
    std::vector<Part> parts;
    for (int i = 0; i < n; i++) {
      const Part all{ct::borrow(params[i]),
                     ct::borrow(grads[i]),
                     ct::borrow(avgs[i]),
                     ct::borrow(avg_sqs[i]),
                     roots[i],
                     sizes[i]};
      for (const auto *x : {&all.param, &all.avg, &all.avg_sq})
        x->unsafeGetTensorImpl()->bump_version();
      if (!divisible(all)) {
        update(*o, all);
        continue;
      }
      const Part flat{all.param.view(-1),  all.grad.view(-1), all.avg.view(-1),
                      all.avg_sq.view(-1), all.root,          all.size};
      const int64_t length = flat.param.numel();
      for (int64_t at = 0; at < length; at += block_size) {
        const int64_t k = std::min(block_size, length - at);
        const auto block = [&](const at::Tensor &x) {
          return x.narrow(0, at, k);
        };
        parts.push_back({block(flat.param), block(flat.grad), block(flat.avg),
                         block(flat.avg_sq), flat.root, flat.size});
      }
    }
    ct::each(static_cast<int64_t>(parts.size()), true, [&](int64_t i) {
      at::AutoDispatchBelowADInplaceOrView below;
      update(*o, parts[i]);
    });
  });
}

}  // extern "C"
