// Linear layers in f32 with weights in the order in which AVX-512 reads them,
// for inference on the CPU.
//
// A panel has the weights of 64 outputs: for each input, those of all outputs
// side by side. The last panel has the fewest vectors of 16 that hold the rest.
// A sum adds the products of one output in the order of the inputs, so that the
// bits of a result depend neither on the number of rows nor on the threads.
#include <ATen/ops/empty.h>

#include "activation.h"
#include "common.h"
#include "linear.h"
#include "parallel.h"

namespace {

using ct::lanes;
using ct::Product;
using ct::tile_rows;
using ct::tile_vectors;

constexpr int64_t width = ct::panel_width;
// Weights that a tile asks for while it computes: lines of the cache out of the
// tile_vectors that it reads itself for each input.
struct Ahead {
  int64_t distance;  // in numbers
  int first, last;
};
// The inputs from from to to - 1, the first or last block of a part, or not.
struct Block {
  int64_t from, to;
  bool first, last;
};

#if defined(__x86_64__)

// Writes the results of 16 outputs of a row, or adds to what is there.
CT_AVX512 CT_INLINE void store(const Product &p, int64_t row, int64_t j,
                               const Block &b, __m512 sum) {
  const __mmask16 mask = ct::first(p.n - j);
  float *y = p.y + row * p.y_stride + j;
  if (!b.first) sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y), sum);
  if (p.bias && (p.order.bias_first ? b.first : b.last))
    sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, p.bias + j));
  if (b.last) sum = ct::activate(p.activation, sum);
  _mm512_mask_storeu_ps(y, mask, sum);
}

// Adds the products of a block for a tile.
template <int R, int V>
CT_AVX512 void tile(const Product &p, int64_t row, int64_t panel,
                    const Block &b, Ahead ahead) {
#define CT_ZERO(r, v) __m512 sum##r##v = _mm512_setzero_ps();
  CT_TILE(CT_ZERO)
  const float *x = p.x + row * p.x_stride + b.from;
  const float *w = p.w + panel * width * p.k + b.from * V * lanes;
  for (int64_t i = b.from; i < b.to; i++, x++, w += V * lanes) {
#define CT_LOAD(v) \
  const __m512 w##v = _mm512_loadu_ps(w + (v < V ? v : 0) * lanes);
    CT_LOAD(0)
    CT_LOAD(1)
    CT_LOAD(2)
    CT_LOAD(3)
    for (int v = ahead.first; v < ahead.last; v++)
      _mm_prefetch(
          reinterpret_cast<const char *>(w + v * lanes + ahead.distance),
          R < 4 ? _MM_HINT_T0 : _MM_HINT_T1);
#define CT_ADD(r, v)             \
  if constexpr (r < R && v < V)  \
    sum##r##v = _mm512_fmadd_ps( \
        _mm512_set1_ps(x[(r < R ? r : 0) * p.x_stride]), w##v, sum##r##v);
    CT_TILE(CT_ADD)
  }
#define CT_STORE(r, v)          \
  if constexpr (r < R && v < V) \
    store(p, row + r, panel * width + v * lanes, b, sum##r##v);
  CT_TILE(CT_STORE)
}

// Writes 16 rows of 16 numbers, which are stride apart, as columns: two rows
// are interleaved, then two such pairs, then four, then all.
CT_AVX512 void transpose(const float *from, int64_t stride, float *to,
                         int64_t to_stride) {
  __m512 r[lanes], t[lanes];
#pragma GCC unroll 16
  for (int i = 0; i < lanes; i++) r[i] = _mm512_loadu_ps(from + i * stride);
#pragma GCC unroll 8
  for (int i = 0; i < lanes; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < lanes; i += 4) {
    r[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
    r[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  // r[4 a + b] has, for the rows from 4 a, the columns b, b + 4, b + 8 and
  // b + 12.
#pragma GCC unroll 4
  for (int b = 0; b < 4; b++) {
    const __m512 low = _mm512_shuffle_f32x4(r[b], r[4 + b], 0x88),
                 low2 = _mm512_shuffle_f32x4(r[8 + b], r[12 + b], 0x88),
                 high = _mm512_shuffle_f32x4(r[b], r[4 + b], 0xdd),
                 high2 = _mm512_shuffle_f32x4(r[8 + b], r[12 + b], 0xdd);
    _mm512_storeu_ps(to + b * to_stride, _mm512_shuffle_f32x4(low, low2, 0x88));
    _mm512_storeu_ps(to + (b + 4) * to_stride,
                     _mm512_shuffle_f32x4(high, high2, 0x88));
    _mm512_storeu_ps(to + (b + 8) * to_stride,
                     _mm512_shuffle_f32x4(low, low2, 0xdd));
    _mm512_storeu_ps(to + (b + 12) * to_stride,
                     _mm512_shuffle_f32x4(high, high2, 0xdd));
  }
}

// Adds n numbers to others.
CT_AVX512 void add(float *to, const float *y, int64_t n) {
  for (int64_t j = 0; j < n; j++) to[j] += y[j];
}

using Tile = void (*)(const Product &, int64_t row, int64_t panel,
                      const Block &, Ahead);
constexpr Tile kernels[] = CT_TILES(tile);

bool has_avx512() {
  static const bool has = __builtin_cpu_supports("avx512f");
  return has;
}

#else

void transpose(const float *, int64_t, float *, int64_t) {}
void add(float *, const float *, int64_t) {}

using Tile = void (*)(const Product &, int64_t, int64_t, const Block &, Ahead);
constexpr Tile kernels[tile_rows * tile_vectors] = {};

bool has_avx512() { return false; }

#endif

// Writes a panel of the weights w [k, n] to its place in to.
void copy_panel(const float *w, int64_t n, int64_t k, int64_t panel,
                float *to) {
  const int64_t wide = ct::vectors_of(n, panel) * lanes, j = panel * width,
                outputs = std::min(wide, n - j);
  to += j * k;
  for (int64_t i = 0; i < k; i++, to += wide) {
    std::copy_n(w + i * n + j, outputs, to);
    std::fill(to + outputs, to + wide, 0.0f);
  }
}

// The lines of the cache that the first t of n tiles ask for.
int share(int64_t t, int64_t n) {
  const int64_t each = (tile_vectors + n - 1) / n;
  return static_cast<int>(std::min(tile_vectors, t * each));
}

// Computes a panel with the inputs of a part, from from to end_of_part - 1.
void part_product(const Product &p, int64_t panel, int64_t begin, int64_t end,
                  int64_t from, int64_t end_of_part) {
  const int64_t vectors = ct::vectors_of(p.n, panel);
  const int64_t n = ct::tiles_of(end - begin);
  Block b{from, from, true, false};
  do {
    b.to = std::min(b.from + p.order.block, end_of_part);
    b.last = b.to == end_of_part;
    int64_t t = 0;
    ct::tiles(begin, end, [&](int64_t row, int64_t next) {
      // The weights come from memory once. Between them, the tiles ask for
      // those of the next inputs or panel, so that they arrive while others are
      // in use. A single tile has to ask for its own.
      Ahead ahead{(b.to - b.from) * vectors * lanes, share(t, n),
                  share(t + 1, n)};
      if (n == 1) ahead = {4096 / sizeof(float), 0, static_cast<int>(vectors)};
      kernels[ct::tile_of(next - row, vectors)](p, row, panel, b, ahead);
      t++;
    });
    b.from = b.to;
    b.first = false;
  } while (!b.last);
}

}  // namespace

namespace ct {

void pack_panel(const float *w, int64_t stride, int64_t n, int64_t k,
                int64_t panel, float *to) {
  const int64_t wide = vectors_of(n, panel) * lanes;
  const int64_t outputs = std::min(wide, n - panel * width);
  w += panel * width * stride;
  to += panel * width * k;
  // Some inputs at a time: lines of the cache on one side, and on the other
  // lines that are complete before they leave it.
  for (int64_t from = 0; from < k; from += lanes) {
    const int64_t end = std::min(from + lanes, k);
    int64_t j = 0;
    if (has_avx512() && end - from == lanes)
      for (; j + lanes <= outputs; j += lanes)
        transpose(w + j * stride + from, stride, to + from * wide + j, wide);
    for (; j < wide; j++)
      for (int64_t i = from; i < end; i++)
        to[i * wide + j] = j < outputs ? w[j * stride + i] : 0;
  }
}

at::Tensor pack_panels(const at::Tensor &weight) {
  const int64_t n = weight.size(0), k = weight.size(1);
  // A transposed matrix has the outputs side by side already.
  const bool transposed = weight.t().is_contiguous();
  const auto w = transposed ? weight : weight.contiguous();
  const auto packed = large(packed_size(n, k), at::kFloat);
  auto *to = packed.mutable_data_ptr<float>();
  const auto *from = w.const_data_ptr<float>();
  each(panels_of(n), n * k >= worth_threads, [&](int64_t panel) {
    if (transposed)
      copy_panel(from, n, k, panel, to);
    else
      pack_panel(from, k, n, k, panel, to);
  });
  return packed;
}

void panel_product(const Product &p, int64_t panel, int64_t begin,
                   int64_t end) {
  const int64_t size = p.k / p.order.parts;
  part_product(p, panel, begin, end, 0, size);
  for (int64_t part = 1; part < p.order.parts; part++) {
    Product q = p;
    q.bias = nullptr;
    q.y = p.parts + (part - 1) * p.m * p.n;
    q.y_stride = p.n;
    part_product(q, panel, begin, end, part * size, (part + 1) * size);
    const int64_t j = panel * width;
    for (int64_t row = begin; row < end; row++)
      add(p.y + row * p.y_stride + j, q.y + row * p.n + j,
          std::min(width, p.n - j));
  }
}

void check_panels(const Linear &l) {
  check(l.weight, "packed", at::kFloat, 1);
  TORCH_CHECK(has_avx512(), "this processor does not have AVX-512");
  TORCH_CHECK(
      l.weight.is_contiguous() && l.weight.numel() == packed_size(l.out, l.in),
      "an input of width ", l.in, " and ", l.out,
      " outputs do not fit packed weights of size ", l.weight.numel());
}

void panels_linear(const Linear &l, const float *x, int64_t m,
                   ct_activation activation, float *y, int64_t y_stride,
                   const Order &order) {
  Product p{x,
            l.in,
            m,
            l.in,
            l.weight.const_data_ptr<float>(),
            l.bias.defined() ? l.bias.const_data_ptr<float>() : nullptr,
            l.out,
            activation,
            y,
            y_stride,
            order};
  at::Tensor parts;
  if (order.parts > 1) {
    parts = at::empty({order.parts - 1, m, l.out}, at::kFloat);
    p.parts = parts.mutable_data_ptr<float>();
  }
  panels(m, l.out, l.in * sizeof(float), m * l.out * l.in,
         [&](int64_t panel, int64_t begin, int64_t end) {
           panel_product(p, panel, begin, end);
         });
}

}  // namespace ct

extern "C" {

int ct_panels_able(void) { return has_avx512(); }

ct_error ct_panels_pack(ct_tensor weight, ct_tensor *packed) {
  return ct::guard([&] {
    const auto given = ct::borrow(weight);
    ct::check(given, "weight", at::kFloat, 2);
    *packed = ct::own(ct::pack_panels(given));
  });
}

ct_error ct_panels_linear(ct_tensor x, ct_tensor packed, int64_t out,
                          ct_tensor bias, enum ct_activation activation,
                          ct_tensor *y) {
  return ct::guard([&] {
    const auto given = ct::borrow(x), b = ct::borrow(bias);
    ct::check_layer(given, b, out);
    const ct::Linear l{ct::borrow(packed), {}, {}, b, given.size(-1), out};
    ct::check_panels(l);
    const auto result = ct::result_of(given, out);
    *y = nullptr;
    if (result.numel() > 0)
      ct::panels_linear(l, given.contiguous().const_data_ptr<float>(),
                        result.numel() / out, activation,
                        result.mutable_data_ptr<float>(), out);
    *y = ct::own(result);
  });
}

}  // extern "C"
