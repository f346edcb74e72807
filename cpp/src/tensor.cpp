// Tensor lifetime and data.
#include <ATen/SparseCsrTensorUtils.h>
#include <ATen/SparseTensorImpl.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <vector>

#include "common.h"

namespace {
std::atomic<int64_t> alive{0};

// The objects that libtorch no longer holds.
std::mutex dropped_mutex;
std::vector<uintptr_t> dropped;
std::atomic<int> n_dropped{0};

// Whether the elements in memory are not yet conjugated or negated.
bool lazy(const at::Tensor &t) { return t.is_conj() || t.is_neg(); }

// libtorch has no nbytes for sparse tensors.
int64_t bytes(const at::Tensor &t) {
  if (t.layout() == at::kSparse) {
    const auto *s =
        static_cast<const at::SparseTensorImpl *>(t.unsafeGetTensorImpl());
    return static_cast<int64_t>(s->indices().nbytes() + s->values().nbytes());
  }
  if (at::sparse_csr::is_sparse_compressed(t)) {
    const auto *s = at::sparse_csr::get_sparse_csr_impl(t);
    return static_cast<int64_t>(s->compressed_indices().nbytes() +
                                s->plain_indices().nbytes() +
                                s->values().nbytes());
  }
  return static_cast<int64_t>(t.nbytes());
}

// Copies the elements, converted to type.
void read(const at::Tensor &from, at::ScalarType type, void *dst,
          size_t nbytes) {
  const c10::NoGradGuard no_grad;
  const at::Tensor t = from.detach()
                           .to(at::TensorOptions(at::kCPU).dtype(type))
                           .resolve_conj()
                           .resolve_neg()
                           .contiguous();
  TORCH_CHECK(nbytes == t.nbytes(), "expected ", t.nbytes(), " bytes, got ",
              nbytes);
  if (nbytes == 0) return;
  const auto *data = static_cast<const unsigned char *>(t.const_data_ptr());
  if (type != at::kBool) {
    std::memcpy(dst, data, nbytes);
    return;
  }
  // A file can contain a bool that is neither 0 nor 1.
  auto *to = static_cast<unsigned char *>(dst);
  for (size_t i = 0; i < nbytes; i++) to[i] = data[i] != 0;
}
}  // namespace

namespace ct {
ct_tensor own(at::Tensor t) {
  if (!t.defined()) return nullptr;
  alive.fetch_add(1, std::memory_order_relaxed);
  return reinterpret_cast<ct_tensor>(t.unsafeReleaseTensorImpl());
}

void drop(uintptr_t id) noexcept {
  const std::lock_guard<std::mutex> lock(dropped_mutex);
  dropped.push_back(id);
  n_dropped = static_cast<int>(dropped.size());
}
}  // namespace ct

extern "C" {

void ct_free(void *p) { std::free(p); }

int ct_tensors_free(const ct_tensor *t, int n) {
  int64_t freed = 0;
  for (int i = 0; i < n; i++) {
    if (t[i] == nullptr) continue;
    c10::intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>::reclaim(
        reinterpret_cast<c10::TensorImpl *>(t[i]));
    freed++;
  }
  alive.fetch_sub(freed, std::memory_order_relaxed);
  return n_dropped;
}

int ct_dropped(uintptr_t *ids, int max) {
  const std::lock_guard<std::mutex> lock(dropped_mutex);
  const int n = std::min(max, static_cast<int>(dropped.size()));
  std::copy(dropped.end() - n, dropped.end(), ids);
  dropped.resize(dropped.size() - n);
  n_dropped = static_cast<int>(dropped.size());
  return n;
}

ct_tensor ct_tensor_ref(ct_tensor t) { return ct::own(ct::borrow(t)); }

int64_t ct_tensors_alive(void) { return alive.load(); }

ct_error ct_tensor_info(ct_tensor h, ct_info *info, int64_t *sizes,
                        int64_t *strides, int max) {
  return ct::guard([&] {
    at::Tensor t = ct::borrow(h);
    info->numel = t.numel();
    info->storage_offset = t.storage_offset();
    info->nbytes = bytes(t);
    info->layout = static_cast<int32_t>(t.layout());
    // Sparse and opaque tensors (oneDNN's packed weights) have no storage.
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
    // What is asked of a compressed sparse tensor for its strides throws.
    const bool compressed = at::sparse_csr::is_sparse_compressed(t);
    info->is_contiguous = !compressed && t.is_contiguous();
    info->is_inference = t.is_inference();
    info->is_lazy = lazy(t);
    for (int i = 0; i < info->dim && i < max; i++) {
      sizes[i] = t.size(i);
      strides[i] = compressed ? 0 : t.stride(i);
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
    read(ct::borrow(h), static_cast<at::ScalarType>(dtype), dst, nbytes);
  });
}

ct_error ct_tensor_item(ct_tensor h, int dtype, void *value, int *own) {
  return ct::guard([&] {
    at::Tensor t = ct::borrow(h);
    TORCH_CHECK(t.numel() == 1, "expected a tensor with one element");
    // As in Python, but in no other layout.
    if (t.is_sparse()) t = t.detach().to_dense();
    if (t.is_quantized()) t = t.detach().dequantize();
    TORCH_CHECK_TYPE(t.layout() == at::kStrided, "a tensor of layout ",
                     t.layout(), " has no elements to read; call ToDense");
    const auto from = t.scalar_type();
    *own = static_cast<int>(from);
    auto to = static_cast<at::ScalarType>(dtype);
    if (dtype < 0) {
      TORCH_CHECK_TYPE(
          !at::isComplexType(from),
          "a complex number is not a float64; call ItemOf[complex128]");
      to = from == at::kLong || from == at::kUInt64 ? from : at::kDouble;
    }
    if (t.device().is_cpu() && !lazy(t) && t.const_data_ptr() != nullptr) {
      // Without the operators of a conversion.
      if (from == to && from != at::kBool) {
        std::memcpy(value, t.const_data_ptr(), t.itemsize());
        return;
      }
      if (from == at::kFloat && to == at::kDouble) {
        *static_cast<double *>(value) = *t.const_data_ptr<float>();
        return;
      }
    }
    read(t, to, value, c10::elementSize(to));
  });
}

ct_error ct_from_blob(void *data, const int64_t *sizes, const int64_t *strides,
                      int dim, int dtype, uintptr_t id, ct_tensor *t) {
  return ct::guard([&] {
    *t = ct::own(at::from_blob(
        data, at::IntArrayRef(sizes, dim), at::IntArrayRef(strides, dim),
        [id](void *) { ct::drop(id); },
        at::device(at::kCPU).dtype(static_cast<at::ScalarType>(dtype))));
  });
}

}  // extern "C"
