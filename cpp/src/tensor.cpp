// Tensor lifetime and data.
#include <c10/core/GradMode.h>

#include <atomic>

#include "common.h"

namespace {
std::atomic<int64_t> alive{0};

// Whether the elements in memory are not yet conjugated or negated.
bool lazy(const at::Tensor &t) { return t.is_conj() || t.is_neg(); }
}  // namespace

namespace ct {
ct_tensor own(at::Tensor t) {
  if (!t.defined()) return nullptr;
  alive.fetch_add(1, std::memory_order_relaxed);
  return reinterpret_cast<ct_tensor>(t.unsafeReleaseTensorImpl());
}
}  // namespace ct

extern "C" {

void ct_free(void *p) { std::free(p); }

void ct_tensors_free(const ct_tensor *t, int n) {
  int64_t freed = 0;
  for (int i = 0; i < n; i++) {
    if (t[i] == nullptr) continue;
    c10::intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>::reclaim(
        reinterpret_cast<c10::TensorImpl *>(t[i]));
    freed++;
  }
  alive.fetch_sub(freed, std::memory_order_relaxed);
}

ct_tensor ct_tensor_ref(ct_tensor t) { return ct::own(ct::borrow(t)); }

int64_t ct_tensors_alive(void) { return alive.load(); }

ct_error ct_tensor_info(ct_tensor h, ct_info *info, int64_t *sizes,
                        int64_t *strides, int max) {
  return ct::guard([&] {
    at::Tensor t = ct::borrow(h);
    info->numel = t.numel();
    info->storage_offset = t.storage_offset();
    info->nbytes = static_cast<int64_t>(t.nbytes());
    // Opaque tensors (oneDNN's packed weights) have no storage.
    const bool plain = t.has_storage();
    info->storage_nbytes =
        plain ? static_cast<int64_t>(t.storage().nbytes()) : 0;
    info->data = plain && !t.device().is_meta() ? t.data_ptr() : nullptr;
    info->storage = plain ? t.storage().unsafeGetStorageImpl() : nullptr;
    info->dtype = static_cast<int32_t>(t.scalar_type());
    info->device_type = static_cast<int32_t>(t.device().type());
    info->device_index = t.device().index();
    info->dim = static_cast<int32_t>(t.dim());
    info->requires_grad = t.requires_grad();
    info->is_leaf = t.is_leaf();
    info->is_contiguous = t.is_contiguous();
    info->is_inference = t.is_inference();
    info->is_lazy = lazy(t);
    for (int i = 0; i < info->dim && i < max; i++) {
      sizes[i] = t.size(i);
      strides[i] = t.stride(i);
    }
  });
}

ct_error ct_tensor_write(ct_tensor h, const void *src, size_t nbytes) {
  return ct::guard([&] {
    at::Tensor t = ct::borrow(h);
    TORCH_CHECK(t.device().is_cpu(), "expected a CPU tensor, got one on ",
                t.device());
    TORCH_CHECK(t.is_contiguous() && !lazy(t), "the tensor is not contiguous");
    TORCH_CHECK(nbytes == t.nbytes(), "expected ", t.nbytes(), " bytes, got ",
                nbytes);
    if (nbytes > 0) std::memcpy(t.data_ptr(), src, nbytes);
  });
}

ct_error ct_tensor_read(ct_tensor h, int dtype, void *dst, size_t nbytes) {
  return ct::guard([&] {
    const c10::NoGradGuard no_grad;
    const auto type = static_cast<at::ScalarType>(dtype);
    const at::Tensor t = ct::borrow(h)
                             .detach()
                             .to(at::TensorOptions(at::kCPU).dtype(type))
                             .resolve_conj()
                             .resolve_neg()
                             .contiguous();
    TORCH_CHECK(nbytes == t.nbytes(), "expected ", t.nbytes(), " bytes, got ",
                nbytes);
    if (nbytes == 0) return;
    const auto *from = static_cast<const unsigned char *>(t.const_data_ptr());
    if (type != at::kBool) {
      std::memcpy(dst, from, nbytes);
      return;
    }
    // A file can contain a bool that is neither 0 nor 1.
    auto *to = static_cast<unsigned char *>(dst);
    for (size_t i = 0; i < nbytes; i++) to[i] = from[i] != 0;
  });
}

}  // extern "C"
