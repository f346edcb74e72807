// Products of rows with a few vectors, and the squares of the rows, in one pass
// over them. A product of matrices and a norm read rows of a large file twice,
// and take several times as long as the memory needs to deliver them.
#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cstring>

#include "common.h"
#include "parallel.h"

#define INLINED __attribute__((always_inline))
#define INLINE inline INLINED

namespace {

// GCC's and clang's vectors: one source for all instructions. Functions of them
// are always inlined, into functions for the instructions.
typedef float Four __attribute__((vector_size(16)));
typedef float Eight __attribute__((vector_size(32)));
typedef float Sixteen __attribute__((vector_size(64)));

template <class V>
constexpr int64_t lanes = sizeof(V) / sizeof(float);

template <class V>
INLINE V load(const float *p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

// The first n numbers of a vector, and zeros.
template <class V>
INLINE V load(const float *p, int64_t n) {
  V v = {};
  std::memcpy(&v, p, n * sizeof(float));
  return v;
}

INLINE Four fold(Four v) { return v; }
INLINE Four fold(Eight v) {
  return __builtin_shufflevector(v, v, 0, 1, 2, 3) +
         __builtin_shufflevector(v, v, 4, 5, 6, 7);
}
INLINE Four fold(Sixteen v) {
  return fold(__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
              __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15));
}

INLINE float total(Four v) {
  v += __builtin_shufflevector(v, v, 2, 3, 0, 1);
  return v[0] + v[1];
}

// The totals of four vectors, in the order of total.
INLINE Four pairs(Four a, Four b) {
  return __builtin_shufflevector(a, b, 0, 4, 1, 5) +
         __builtin_shufflevector(a, b, 2, 6, 3, 7);
}
INLINE Four totals(Four a, Four b, Four c, Four d) {
  a = pairs(a, b);
  c = pairs(c, d);
  return __builtin_shufflevector(a, c, 0, 1, 4, 5) +
         __builtin_shufflevector(a, c, 2, 3, 6, 7);
}

struct Problem {
  const float *x;  // [m, k]
  int64_t m, k;
  const float *w;  // [n, k]
  int64_t n;
  float *products;  // [m, n]
  float *squares;   // [m]
};

// The products of R rows with Q vectors. Loops over sums are unrolled, so that
// each sum stays in a register. Each step asks for a line of the cache at
// ahead.
template <class V, int R, int Q>
INLINE void tile(const float *x, const float *w, int64_t k, float *y, int64_t n,
                 const float *ahead, int64_t stride) {
  V sum[R][Q] = {};
  const auto add = [&](const auto &at) INLINED {
    V b[Q];
#pragma GCC unroll 8
    for (int q = 0; q < Q; q++) b[q] = at(w + q * k);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      const V a = at(x + r * k);
#pragma GCC unroll 8
      for (int q = 0; q < Q; q++) sum[r][q] += a * b[q];
    }
  };
  int64_t i = 0;
  for (; i + lanes<V> <= k; i += lanes<V>, ahead += stride) {
    __builtin_prefetch(ahead);
    add([&](const float *p) INLINED { return load<V>(p + i); });
  }
  if (i < k) add([&](const float *p) INLINED { return load<V>(p + i, k - i); });
#pragma GCC unroll 8
  for (int r = 0; r < R; r++, y += n)
    if constexpr (Q == 4) {
      const Four t = totals(fold(sum[r][0]), fold(sum[r][1]), fold(sum[r][2]),
                            fold(sum[r][3]));
      std::memcpy(y, &t, sizeof t);
    } else {
      static_assert(Q == 1);
      *y = total(fold(sum[r][0]));
    }
}

template <class V>
INLINE float square(const float *x, int64_t k) {
  V a = {}, b = {};
  int64_t i = 0;
  for (; i + 2 * lanes<V> <= k; i += 2 * lanes<V>) {
    const V u = load<V>(x + i), v = load<V>(x + i + lanes<V>);
    a += u * u;
    b += v * v;
  }
  for (; i < k; i += lanes<V>) {
    const V u = load<V>(x + i, std::min(lanes<V>, k - i));
    a += u * u;
  }
  return total(fold(a + b));
}

// The squares bring R rows into the first-level cache, from which the products
// read them. Meanwhile the next R rows are on their way, a line for each step.
template <class V, int R>
INLINE void some_rows(const Problem &p, int64_t row) {
  constexpr int64_t line = 16;  // numbers
  const int64_t k = p.k, n = p.n;
  const float *x = p.x + row * k, *ahead = x + R * k;
  float *y = p.products + row * n;
  for (int r = 0; r < R; r++) p.squares[row + r] = square<V>(x + r * k, k);
  int64_t q = 0;
  for (; q + 4 <= n; q += 4, ahead += k / lanes<V> * line)
    tile<V, R, 4>(x, p.w + q * k, k, y + q, n, ahead,
                  ahead < x + 2 * R * k ? line : 0);
  for (; q < n; q++) tile<V, R, 1>(x, p.w + q * k, k, y + q, n, ahead, 0);
}

template <class V, int R>
INLINE void rows(const Problem &p, int64_t begin, int64_t end) {
  for (; begin + R <= end; begin += R) some_rows<V, R>(p, begin);
  for (; begin < end; begin++) some_rows<V, 1>(p, begin);
}

// 24 sums, 4 vectors and a row fit into 32 registers, and 8 sums into 16.
#if defined(__x86_64__)
__attribute__((target("avx512f"))) void rows_avx512(const Problem &p,
                                                    int64_t begin,
                                                    int64_t end) {
  rows<Sixteen, 6>(p, begin, end);
}
__attribute__((target("avx2,fma"))) void rows_avx2(const Problem &p,
                                                   int64_t begin, int64_t end) {
  rows<Eight, 2>(p, begin, end);
}
#endif
void rows_plain(const Problem &p, int64_t begin, int64_t end) {
  rows<Four, 2>(p, begin, end);
}

using Kernel = void (*)(const Problem &, int64_t begin, int64_t end);

// The kernel with vectors of so many numbers, or the best one for 0.
Kernel kernel_of(int width) {
#if defined(__x86_64__)
  static const bool avx512 = __builtin_cpu_supports("avx512f"),
                    avx2 = __builtin_cpu_supports("avx2") &&
                           __builtin_cpu_supports("fma");
  if (avx512 && (width == 0 || width == 16)) return rows_avx512;
  if (avx2 && (width == 0 || width == 8)) return rows_avx2;
#endif
  TORCH_CHECK(width == 0 || width == 4, "this processor has no vectors of ",
              width, " numbers");
  return rows_plain;
}

}  // namespace

extern "C" {

ct_error ct_row_products(ct_tensor x, ct_tensor w, int width,
                         ct_tensor *products, ct_tensor *squares) {
  return ct::guard([&] {
    const auto given = ct::borrow(x), vectors = ct::borrow(w);
    ct::check(given, "x", at::kFloat, 2);
    ct::check(vectors, "w", at::kFloat, 2);
    TORCH_CHECK(given.size(1) == vectors.size(1), "x has rows of ",
                given.size(1), " numbers, but w of ", vectors.size(1));
    TORCH_CHECK(!(c10::GradMode::is_enabled() &&
                  (given.requires_grad() || vectors.requires_grad())),
                "autograd does not support row_products; use it without "
                "gradients");
    const auto from = given.contiguous(), with = vectors.contiguous();
    const int64_t m = from.size(0), k = from.size(1), n = with.size(0);
    const auto y = at::empty({m, n}, at::kFloat),
               s = at::empty({m}, at::kFloat);
    const Problem p{
        from.const_data_ptr<float>(), m, k,
        with.const_data_ptr<float>(), n, y.mutable_data_ptr<float>(),
        s.mutable_data_ptr<float>()};
    const Kernel kernel = kernel_of(width);
    constexpr int64_t some = 96;  // rows of a thread at a time
    ct::each((m + some - 1) / some, m * k * (n + 1) >= 1 << 18, [&](int64_t i) {
      kernel(p, i * some, std::min((i + 1) * some, m));
    });
    *products = ct::own(y);
    *squares = ct::own(s);
  });
}

}  // extern "C"
