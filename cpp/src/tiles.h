// What the kernels of linear layers share: a tile is a part of the result whose
// sums stay in the registers of AVX-512, some rows by some vectors of 16
// outputs.
#pragma once

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/GradMode.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "common.h"
#include "parallel.h"

#if defined(__x86_64__)
// GCC 12 warns of its own header, where a vector is undefined on purpose.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#define CT_INLINE inline __attribute__((always_inline))
#endif

namespace ct {

constexpr int64_t lanes = 16, tile_rows = 6, tile_vectors = 4;

// Multiplications that take less time than waking the other threads.
constexpr int64_t worth_threads = 1 << 18;

// Each sum has a variable of its own: GCC writes the elements of an array to
// memory in every step.
#define CT_ROW(X, r) X(r, 0) X(r, 1) X(r, 2) X(r, 3)
#define CT_TILE(X) \
  CT_ROW(X, 0) CT_ROW(X, 1) CT_ROW(X, 2) CT_ROW(X, 3) CT_ROW(X, 4) CT_ROW(X, 5)

// The functions f<rows, vectors>, in the order of tile_of.
#define CT_TILES_OF(f, rows) f<rows, 1>, f<rows, 2>, f<rows, 3>, f<rows, 4>
#define CT_TILES(f)                                             \
  {                                                             \
    CT_TILES_OF(f, 1), CT_TILES_OF(f, 2), CT_TILES_OF(f, 3),    \
        CT_TILES_OF(f, 4), CT_TILES_OF(f, 5), CT_TILES_OF(f, 6) \
  }

inline int64_t tile_of(int64_t rows, int64_t vectors) {
  return (rows - 1) * tile_vectors + vectors - 1;
}

// Memory for packed weights of n elements, in large pages if the system has
// them: weights are read once for each token, and fewer pages are faster.
inline at::Tensor large(int64_t n, at::ScalarType dtype) {
  constexpr size_t page = 2 << 20;
  const size_t size = n * at::elementSize(dtype);
  void *p = nullptr;
  if (size < page || posix_memalign(&p, page, size) != 0)
    return at::empty({n}, dtype);
#ifdef MADV_HUGEPAGE
  madvise(p, size / page * page, MADV_HUGEPAGE);
#endif
  return at::from_blob(
      p, {n}, [](void *p) { std::free(p); }, dtype);
}

#if defined(__x86_64__)
// The first n of 16 numbers, or all.
CT_INLINE __mmask16 first(int64_t n) {
  return static_cast<__mmask16>(n < lanes ? (1u << n) - 1 : 0xffff);
}
#endif

// Checks what does not depend on the form of the weights: the input and the
// bias of a layer with n outputs.
inline void check_layer(const at::Tensor &x, const at::Tensor &bias,
                        int64_t n) {
  check(x, "x", at::kFloat, -1);
  TORCH_CHECK(!(c10::GradMode::is_enabled() && x.requires_grad()),
              "autograd does not support packed weights; use them without "
              "gradients");
  TORCH_CHECK(x.dim() > 0, "x must have at least 1 dimension");
  if (!bias.defined()) return;
  check(bias, "bias", at::kFloat, 1);
  TORCH_CHECK(bias.numel() == n && bias.is_contiguous(), "bias must have ", n,
              " elements, got ", bias.numel());
}

// An empty result of n outputs for the input x.
inline at::Tensor result_of(const at::Tensor &x, int64_t n) {
  auto sizes = x.sizes().vec();
  sizes.back() = n;
  return at::empty(sizes, at::kFloat);
}

inline int64_t tiles_of(int64_t rows) {
  return (rows + tile_rows - 1) / tile_rows;
}

// Calls f(begin, end) for tiles of about the same height: 4 and 3 rows instead
// of 6 and 1.
template <class F>
void tiles(int64_t begin, int64_t end, const F &f) {
  const int64_t n = tiles_of(end - begin);
  for (int64_t t = 0; t < n; t++)
    f(begin + (end - begin) * t / n, begin + (end - begin) * (t + 1) / n);
}

// Calls f(panel, begin, end) for each panel of n outputs and some of m rows, of
// which each has an input of so many bytes. Rows are divided so that their
// inputs stay in the second-level cache for all panels, and so that every
// thread has enough to do.
template <class F>
void panels(int64_t m, int64_t n, int64_t bytes, int64_t multiplications,
            const F &f) {
  constexpr int64_t width = tile_vectors * lanes, cache = 768 << 10;
  const auto over = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  const int64_t threads = at::get_num_threads(), count = over(n, width);
  const int64_t most = over(m, 8 * tile_rows);
  const int64_t chunks = std::min(
      most, std::max(over(4 * threads, count), over(m * bytes, cache)));
  // Neighbours in one task, since the weights of one follow those of the other.
  const int64_t tasks = std::min(count, 8 * threads);
  each(tasks * chunks, multiplications >= worth_threads, [&](int64_t i) {
    const int64_t c = i / tasks, t = i % tasks;
    for (int64_t p = count * t / tasks; p < count * (t + 1) / tasks; p++)
      f(p, m * c / chunks, m * (c + 1) / chunks);
  });
}

}  // namespace ct
