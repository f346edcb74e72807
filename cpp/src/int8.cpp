// Linear layers with weights of 8 bits, for inference on the CPU.
//
// The weights of an output are integers from -127 to 127 with one scale. Each
// row of the input is made integers from 0 to 255, with a scale and a zero
// point of its own, so that its results do not depend on the other rows. The
// sums of products are integers and therefore exact: the bits of a result
// depend neither on the number of rows, nor on the threads, nor on the kernel.
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <limits>
#include <vector>

#include "activation.h"
#include "common.h"
#include "linear.h"
#include "parallel.h"

#if defined(__x86_64__)
#define VNNI \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#endif

namespace {

using ct::lanes;
using ct::tile_vectors;
using ct::worth_threads;

// The instruction adds products of 4 neighbours for each of 16 outputs.
constexpr int64_t depth = 4;
// With more inputs, a sum could exceed 32 bits: 255 * 127 * 65536 < 2^31.
constexpr int64_t most_inputs = 65536;
// Smaller scales have no reciprocal in f32. Numbers of this size count as zero.
constexpr float least_scale = 1e-37f;

int64_t up(int64_t n, int64_t by) { return (n + by - 1) / by * by; }

// The nearest integer, the even one of two, for |x| < 2^22: the sum has no bits
// left for a fraction.
int32_t nearest(float x) {
  const float sum = x + 12582912.0f;
  int32_t bits;
  std::memcpy(&bits, &sum, sizeof bits);
  return bits - 0x4b400000;
}

// What makes a row of integers numbers again: x = scale * (q - zero). The scale
// is 0 if the row is, and NaN if a number in it is not finite.
struct Row {
  float scale;
  int32_t zero;
};

Row row_of(float lo, float hi, bool finite) {
  if (!finite) return {std::numeric_limits<float>::quiet_NaN(), 0};
  const auto scale = static_cast<float>(
      (static_cast<double>(hi) - static_cast<double>(lo)) / 255);
  if (scale < least_scale) return {0, 0};
  return {scale, nearest(-lo * (1 / scale))};
}

void quantize_plain(const float *x, int64_t n, uint8_t *q, int64_t width,
                    Row &row) {
  float lo = 0, hi = 0;
  bool finite = true;
  for (int64_t i = 0; i < n; i++) {
    finite = finite && std::isfinite(x[i]);
    lo = std::min(lo, x[i]);
    hi = std::max(hi, x[i]);
  }
  row = row_of(lo, hi, finite);
  std::memset(q, 0, width);
  if (!(row.scale > 0)) return;
  const float inverse = 1 / row.scale;
  for (int64_t i = 0; i < n; i++)
    q[i] = static_cast<uint8_t>(
        std::clamp(nearest(x[i] * inverse) + row.zero, 0, 255));
}

// Makes the weights of an output integers. Loops that compilers can vectorize:
// a model has a hundred million weights.
void quantize_weights(const float *w, int64_t n, int8_t *q, float &scale,
                      int32_t &sum) {
  int32_t most = 0;  // of the bits, which are in the order of the magnitudes
  for (int64_t k = 0; k < n; k++) {
    int32_t bits;
    std::memcpy(&bits, w + k, sizeof bits);
    bits &= 0x7fffffff;
    most = bits > most ? bits : most;
  }
  std::memcpy(&scale, &most, sizeof scale);
  scale = std::isfinite(scale) ? scale / 127
                               : std::numeric_limits<float>::quiet_NaN();
  sum = 0;
  if (!(scale >= least_scale)) {
    if (!std::isnan(scale)) scale = 0;
    std::memset(q, 0, n);
    return;
  }
  // At most 127 after rounding, since the scale is that of the largest.
  const float inverse = 1 / scale;
  for (int64_t k = 0; k < n; k++) {
    const int32_t v = nearest(w[k] * inverse);
    q[k] = static_cast<int8_t>(v);
    sum += v;
  }
}

// Takes weights of an output that are integers already, with the scale 1.
void copy_weights(const int8_t *w, int64_t n, int8_t *q, float &scale,
                  int32_t &sum) {
  std::memcpy(q, w, n);
  scale = 1;
  sum = 0;
  for (int64_t k = 0; k < n; k++) sum += w[k];
}

// A layer, and the integers of its input.
struct Problem {
  const uint8_t *x;  // [m, width]
  const Row *rows;   // [m]
  int64_t m, width, steps;
  const int8_t *w;  // [ceil(n / lanes), steps, lanes, depth]
  const float *scales;
  const int32_t *sums;
  const float *bias;  // or nullptr
  int64_t n;
  ct_activation activation;
  float *y;  // [m, n]
  int64_t y_stride;
};

// The sum of (q - zero) * w, from that of q * w. The difference fits into 32
// bits, but neither of the terms has to once they are multiplied.
int32_t centred(int32_t sum, int32_t zero, int32_t weights) {
  return static_cast<int32_t>(static_cast<uint32_t>(sum) -
                              static_cast<uint32_t>(zero) *
                                  static_cast<uint32_t>(weights));
}

void tile_plain(const Problem &p, int64_t row, int64_t rows, int64_t block,
                int64_t blocks) {
  for (int64_t b = block; b < block + blocks; b++)
    for (int64_t r = row; r < row + rows; r++) {
      int32_t sum[lanes] = {};
      const int8_t *w = p.w + b * p.steps * lanes * depth;
      const uint8_t *x = p.x + r * p.width;
      for (int64_t k = 0; k < p.steps; k++, x += depth)
        for (int64_t i = 0; i < lanes; i++)
          for (int64_t d = 0; d < depth; d++) sum[i] += x[d] * *w++;
      for (int64_t i = 0; i < std::min(lanes, p.n - b * lanes); i++) {
        const int64_t j = b * lanes + i;
        // Explicitly fused, as the other kernel does it.
        const float y = std::fma(
            p.rows[r].scale * p.scales[j],
            static_cast<float>(centred(sum[i], p.rows[r].zero, p.sums[j])),
            p.bias ? p.bias[j] : 0.0f);
        p.y[r * p.y_stride + j] = ct::activate(p.activation, y);
      }
    }
}

#ifdef VNNI

VNNI void quantize_vnni(const float *x, int64_t n, uint8_t *q, int64_t width,
                        Row &row) {
  __m512 lo = _mm512_setzero_ps(), hi = lo;
  __m512i bits = _mm512_setzero_si512();
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  for (int64_t i = 0; i < n; i += 16) {
    const __m512 v = _mm512_maskz_loadu_ps(ct::first(n - i), x + i);
    lo = _mm512_min_ps(lo, v);
    hi = _mm512_max_ps(hi, v);
    bits = _mm512_max_epu32(
        bits, _mm512_and_si512(magnitude, _mm512_castps_si512(v)));
  }
  row = row_of(_mm512_reduce_min_ps(lo), _mm512_reduce_max_ps(hi),
               _mm512_reduce_max_epu32(bits) < 0x7f800000);
  if (!(row.scale > 0)) {
    std::memset(q, 0, width);
    return;
  }
  const __m512 inverse = _mm512_set1_ps(1 / row.scale);
  const __m512i zero = _mm512_set1_epi32(row.zero);
  // A row is padded to whole vectors. Weights of 0 meet the padding.
  for (int64_t i = 0; i < n; i += 16) {
    const __m512 v = _mm512_maskz_loadu_ps(ct::first(n - i), x + i);
    const __m512i k = _mm512_max_epi32(
        _mm512_setzero_si512(),
        _mm512_add_epi32(zero, _mm512_cvtps_epi32(_mm512_mul_ps(v, inverse))));
    _mm_storeu_si128(reinterpret_cast<__m128i *>(q + i),
                     _mm512_cvtusepi32_epi8(k));
  }
}

// Writes the results of 16 outputs of a row.
VNNI CT_INLINE void store(const Problem &p, int64_t row, int64_t block,
                          __m512i sum) {
  const int64_t j = block * lanes;
  const __mmask16 mask = ct::first(p.n - j);
  const Row &of = p.rows[row];
  const __m512i centred = _mm512_sub_epi32(
      sum, _mm512_mullo_epi32(_mm512_set1_epi32(of.zero),
                              _mm512_maskz_loadu_epi32(mask, p.sums + j)));
  const __m512 scale = _mm512_mul_ps(_mm512_set1_ps(of.scale),
                                     _mm512_maskz_loadu_ps(mask, p.scales + j));
  const __m512 bias =
      p.bias ? _mm512_maskz_loadu_ps(mask, p.bias + j) : _mm512_setzero_ps();
  const __m512 y = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(centred), bias);
  _mm512_mask_storeu_ps(p.y + row * p.y_stride + j, mask,
                        ct::activate(p.activation, y));
}

// The next 4 inputs of a row, for every output.
VNNI CT_INLINE __m512i four(const uint8_t *x) {
  int32_t bits;
  std::memcpy(&bits, x, sizeof bits);
  return _mm512_set1_epi32(bits);
}

// Adds the products of bytes x (unsigned) and w (signed) to sum. With the
// intrinsic, GCC 12 copies every sum twice in each step, and some to memory.
VNNI CT_INLINE void add(__m512i &sum, __m512i x, __m512i w) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w));
}

template <int R, int B>
VNNI void tile_vnni(const Problem &p, int64_t row, int64_t block) {
#define CT_ZERO(r, b) __m512i sum##r##b = _mm512_setzero_si512();
  CT_TILE(CT_ZERO)
  const int64_t size = p.steps * lanes * depth;
  const int8_t *w = p.w + block * size;
  const uint8_t *x = p.x + row * p.width;
  for (int64_t k = 0; k < p.steps; k++, w += lanes * depth, x += depth) {
#define CT_LOAD(b) \
  const __m512i v##b = _mm512_loadu_si512(w + (b < B ? b : 0) * size);
    CT_LOAD(0)
    CT_LOAD(1)
    CT_LOAD(2)
    CT_LOAD(3)
#define CT_ADD(r, b) \
  if constexpr (r < R && b < B) add(sum##r##b, four(x + r * p.width), v##b);
    CT_TILE(CT_ADD)
  }
#define CT_STORE(r, b) \
  if constexpr (r < R && b < B) store(p, row + r, block + b, sum##r##b);
  CT_TILE(CT_STORE)
}

void tile_vnni(const Problem &p, int64_t row, int64_t rows, int64_t block,
               int64_t blocks) {
  using Tile = void (*)(const Problem &, int64_t row, int64_t block);
  static constexpr Tile kernels[] = CT_TILES(tile_vnni);
  kernels[ct::tile_of(rows, blocks)](p, row, block);
}

#endif

struct Kernel {
  void (*quantize)(const float *x, int64_t n, uint8_t *q, int64_t width,
                   Row &row);
  void (*tile)(const Problem &p, int64_t row, int64_t rows, int64_t block,
               int64_t blocks);
};

bool has_vnni() {
#ifdef VNNI
  static const bool has = __builtin_cpu_supports("avx512f") &&
                          __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512vl") &&
                          __builtin_cpu_supports("avx512vnni");
  return has;
#else
  return false;
#endif
}

Kernel kernel_of(bool plain) {
#ifdef VNNI
  if (!plain && has_vnni()) return {quantize_vnni, tile_vnni};
#endif
  (void)plain;
  return {quantize_plain, tile_plain};
}

}  // namespace

namespace ct {

void check_int8(const Linear &l) {
  check(l.weight, "packed", at::kChar, 4);
  check(l.scales, "scales", at::kFloat, 1);
  check(l.sums, "sums", at::kInt, 1);
  const int64_t blocks = up(l.out, lanes) / lanes,
                steps = up(l.in, depth) / depth;
  TORCH_CHECK(
      l.weight.is_contiguous() && l.scales.is_contiguous() &&
          l.sums.is_contiguous() && l.scales.numel() == l.out &&
          l.sums.numel() == l.out && l.in <= most_inputs &&
          l.weight.sizes() == at::IntArrayRef({blocks, steps, lanes, depth}),
      "an input of width ", l.in, ", ", l.scales.numel(), " scales and ",
      l.sums.numel(), " sums do not fit packed weights of shape ",
      l.weight.sizes(), " with ", l.out, " outputs");
}

void int8_linear(const Linear &l, const float *x, int64_t m,
                 ct_activation activation, bool plain, float *y,
                 int64_t y_stride) {
  const int64_t k = l.in, n = l.out, blocks = up(n, lanes) / lanes,
                width = up(std::max<int64_t>(k, 1), 64);
  const auto integers = at::empty({m, width}, at::kByte);
  std::vector<Row> rows(m);
  auto *q = integers.mutable_data_ptr<uint8_t>();
  const Kernel kernel = kernel_of(plain);
  each(m, m * k >= worth_threads / 8, [&](int64_t r) {
    kernel.quantize(x + r * k, k, q + r * width, width, rows[r]);
  });
  const Problem p{q,
                  rows.data(),
                  m,
                  width,
                  up(k, depth) / depth,
                  l.weight.const_data_ptr<int8_t>(),
                  l.scales.const_data_ptr<float>(),
                  l.sums.const_data_ptr<int32_t>(),
                  l.bias.defined() ? l.bias.const_data_ptr<float>() : nullptr,
                  n,
                  activation,
                  y,
                  y_stride};
  // The weights of a panel are read from memory once and then from the
  // second-level cache.
  panels(m, n, width, m * n * k,
         [&](int64_t panel, int64_t begin, int64_t end) {
           const int64_t block = panel * tile_vectors;
           tiles(begin, end, [&](int64_t row, int64_t next) {
             kernel.tile(p, row, next - row, block,
                         std::min(tile_vectors, blocks - block));
           });
         });
}

}  // namespace ct

extern "C" {

int ct_int8_fast(void) { return has_vnni(); }

ct_error ct_int8_pack(ct_tensor weight, ct_tensor *packed, ct_tensor *scales,
                      ct_tensor *sums) {
  return ct::guard([&] {
    const auto given = ct::borrow(weight);
    const bool integers = given.scalar_type() == at::kChar;
    ct::check(given, "weight", integers ? at::kChar : at::kFloat, 2);
    const auto w = given.contiguous();
    const int64_t out = w.size(0), in = w.size(1);
    TORCH_CHECK(in <= most_inputs, "weight must have at most ", most_inputs,
                " inputs, got ", in);
    const int64_t blocks = up(out, lanes) / lanes,
                  steps = up(in, depth) / depth;
    const auto q = ct::large(blocks * steps * lanes * depth, at::kChar)
                       .zero_()
                       .view({blocks, steps, lanes, depth});
    const auto s = at::empty({out}, at::kFloat);
    const auto z = at::empty({out}, at::kInt);
    const auto *floats = integers ? nullptr : w.const_data_ptr<float>();
    const auto *bytes = integers ? w.const_data_ptr<int8_t>() : nullptr;
    auto *to = q.mutable_data_ptr<int8_t>();
    auto *scale = s.mutable_data_ptr<float>();
    auto *sum = z.mutable_data_ptr<int32_t>();
    // A row for each block, before its integers are put in order.
    const auto scratch = at::zeros({blocks, steps * depth}, at::kChar);
    auto *rows = scratch.mutable_data_ptr<int8_t>();
    ct::each(blocks, out * in >= worth_threads, [&](int64_t b) {
      int8_t *row = rows + b * steps * depth;
      int8_t *block = to + b * steps * lanes * depth;
      for (int64_t i = 0; i < std::min(lanes, out - b * lanes); i++) {
        const int64_t n = b * lanes + i;
        if (integers)
          copy_weights(bytes + n * in, in, row, scale[n], sum[n]);
        else
          quantize_weights(floats + n * in, in, row, scale[n], sum[n]);
        for (int64_t k = 0; k < steps; k++)
          std::memcpy(block + (k * lanes + i) * depth, row + k * depth, depth);
      }
    });
    *packed = ct::own(q);
    *scales = ct::own(s);
    *sums = ct::own(z);
  });
}

ct_error ct_int8_linear(ct_tensor x, ct_tensor packed, ct_tensor scales,
                        ct_tensor sums, ct_tensor bias,
                        enum ct_activation activation, int plain,
                        ct_tensor *y) {
  return ct::guard([&] {
    const auto given = ct::borrow(x), scale = ct::borrow(scales),
               b = ct::borrow(bias);
    ct::check(scale, "scales", at::kFloat, 1);
    const int64_t n = scale.numel();
    ct::check_layer(given, b, n);
    const ct::Linear l{ct::borrow(packed), scale, ct::borrow(sums), b,
                       given.size(-1),     n};
    ct::check_int8(l);
    const auto result = ct::result_of(given, n);
    *y = nullptr;
    if (result.numel() > 0)
      ct::int8_linear(l, given.contiguous().const_data_ptr<float>(),
                      result.numel() / n, activation, plain != 0,
                      result.mutable_data_ptr<float>(), n);
    *y = ct::own(result);
  });
}

}  // extern "C"
