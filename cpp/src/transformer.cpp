// A layer of a transformer with packed weights, for inference on the CPU: what
// would be about 25 operators for GPT-2, most of which take less time than
// their calls when it writes a token.
//
// Every position of every sequence is computed by the same operations in the
// same order, so that the bits of a sequence depend neither on the others nor
// on the threads.
#include <ATen/ops/empty.h>

#include <cmath>
#include <memory>
#include <vector>

#include "activation.h"
#include "common.h"
#include "linear.h"
#include "parallel.h"

namespace {

using ct::lanes;
using ct::worth_threads;

#if defined(__x86_64__)

// Adds a row to x.
void add(float *x, const float *row, int64_t n) {
  for (int64_t i = 0; i < n; i++) x[i] += row[i];
}

struct Norm {
  const float *weight, *bias;  // [n]
  int64_t n;
  float epsilon;
};

// Writes the normalized row x to y.
CT_AVX512 void normalize(const Norm &l, const float *x, float *y) {
  const auto size = static_cast<float>(l.n);
  __m512 sum = _mm512_setzero_ps();
  for (int64_t i = 0; i < l.n; i += lanes)
    sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(ct::first(l.n - i), x + i));
  const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / size);
  __m512 squares = _mm512_setzero_ps();
  for (int64_t i = 0; i < l.n; i += lanes) {
    const __mmask16 mask = ct::first(l.n - i);
    const __m512 v =
        _mm512_maskz_sub_ps(mask, _mm512_maskz_loadu_ps(mask, x + i), mean);
    squares = _mm512_fmadd_ps(v, v, squares);
  }
  const __m512 scale = _mm512_set1_ps(
      1 / std::sqrt(_mm512_reduce_add_ps(squares) / size + l.epsilon));
  for (int64_t i = 0; i < l.n; i += lanes) {
    const __mmask16 mask = ct::first(l.n - i);
    const __m512 v = _mm512_mul_ps(
        _mm512_sub_ps(_mm512_maskz_loadu_ps(mask, x + i), mean), scale);
    _mm512_mask_storeu_ps(
        y + i, mask,
        _mm512_fmadd_ps(v, _mm512_maskz_loadu_ps(mask, l.weight + i),
                        _mm512_maskz_loadu_ps(mask, l.bias + i)));
  }
}

// Softmax of scale times the first n of the scores. The others become 0.
CT_AVX512 void softmax(float *scores, int64_t n, int64_t all, float scale) {
  __m512 most = _mm512_set1_ps(-INFINITY);
  for (int64_t i = 0; i < n; i += lanes) {
    const __mmask16 mask = ct::first(n - i);
    most = _mm512_mask_max_ps(most, mask, most,
                              _mm512_maskz_loadu_ps(mask, scores + i));
  }
  most = _mm512_set1_ps(_mm512_reduce_max_ps(most));
  const __m512 by = _mm512_set1_ps(scale);
  __m512 sum = _mm512_setzero_ps();
  for (int64_t i = 0; i < n; i += lanes) {
    const __mmask16 mask = ct::first(n - i);
    const __m512 v =
        _mm512_sub_ps(_mm512_maskz_loadu_ps(mask, scores + i), most);
    const __m512 e =
        _mm512_maskz_mov_ps(mask, ct::exponential(_mm512_mul_ps(v, by)));
    sum = _mm512_add_ps(sum, e);
    _mm512_mask_storeu_ps(scores + i, mask, e);
  }
  const __m512 one = _mm512_set1_ps(1 / _mm512_reduce_add_ps(sum));
  for (int64_t i = 0; i < n; i += lanes) {
    const __mmask16 mask = ct::first(n - i);
    _mm512_mask_storeu_ps(
        scores + i, mask,
        _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, scores + i), one));
  }
  for (int64_t i = n; i < all; i++) scores[i] = 0;
}

// A head of a sequence. Rows are a number of floats apart.
struct Head {
  int64_t size;
  const float *q, *k, *v;
  int64_t q_stride, k_stride, v_stride;
  int64_t queries, positions;
  // The first query attends to so many positions, and each of the others to
  // one more, up to all.
  int64_t reach, more;
  float scale;
  float *y;  // of the first query
  int64_t y_stride;

  int64_t reach_of(int64_t query) const {
    return std::min(positions, reach + query * more);
  }
};

// Attention of a single query. scores is memory for a number per position.
CT_AVX512 void attend_one(const Head &h, float *scores) {
  const int64_t n = h.reach_of(0);
  for (int64_t p = 0; p < n; p++) {
    const float *k = h.k + p * h.k_stride;
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < h.size; i += lanes) {
      const __mmask16 mask = ct::first(h.size - i);
      sum = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(mask, h.q + i),
                            _mm512_maskz_loadu_ps(mask, k + i), sum);
    }
    scores[p] = _mm512_reduce_add_ps(sum);
  }
  softmax(scores, n, n, h.scale);
  for (int64_t i = 0; i < h.size; i += 4 * lanes) {
    __m512 sum[4];
    __mmask16 mask[4];
    for (int64_t c = 0; c < 4; c++) {
      sum[c] = _mm512_setzero_ps();
      mask[c] = ct::first(std::max<int64_t>(0, h.size - i - c * lanes));
    }
    const float *v = h.v + i;
    for (int64_t p = 0; p < n; p++, v += h.v_stride) {
      const __m512 weight = _mm512_set1_ps(scores[p]);
#pragma GCC unroll 4
      for (int64_t c = 0; c < 4; c++)
        sum[c] = _mm512_fmadd_ps(
            weight, _mm512_maskz_loadu_ps(mask[c], v + c * lanes), sum[c]);
    }
    for (int64_t c = 0; c < 4; c++)
      _mm512_mask_storeu_ps(h.y + i + c * lanes, mask[c], sum[c]);
  }
}

// Queries at a time: their scores stay in the cache.
constexpr int64_t most_queries = 8 * ct::tile_rows;

// The memory that attend_many needs, in numbers.
int64_t scratch_of(int64_t size, int64_t positions) {
  return ct::packed_size(positions, size) + ct::packed_size(size, positions) +
         most_queries * positions;
}

// Attention of several queries, as two products of matrices.
void attend_many(const Head &h, float *scratch) {
  float *keys = scratch;
  float *values = keys + ct::packed_size(h.positions, h.size);
  float *scores = values + ct::packed_size(h.size, h.positions);
  for (int64_t p = 0; p < ct::panels_of(h.positions); p++)
    ct::pack_panel(h.k, h.k_stride, h.positions, h.size, p, keys);
  for (int64_t p = 0; p < ct::panels_of(h.size); p++) {
    const int64_t wide = ct::vectors_of(h.size, p) * lanes,
                  from = p * ct::panel_width, n = std::min(wide, h.size - from);
    float *to = values + from * h.positions;
    for (int64_t i = 0; i < h.positions; i++, to += wide) {
      std::copy_n(h.v + i * h.v_stride + from, n, to);
      std::fill(to + n, to + wide, 0.0f);
    }
  }
  for (int64_t begin = 0; begin < h.queries; begin += most_queries) {
    const int64_t m = std::min(most_queries, h.queries - begin);
    const ct::Product score{h.q + begin * h.q_stride,
                            h.q_stride,
                            m,
                            h.size,
                            keys,
                            nullptr,
                            h.positions,
                            CT_IDENTITY,
                            scores,
                            h.positions};
    for (int64_t p = 0; p < ct::panels_of(h.positions); p++)
      ct::panel_product(score, p, 0, m);
    for (int64_t i = 0; i < m; i++)
      softmax(scores + i * h.positions, h.reach_of(begin + i), h.positions,
              h.scale);
    const ct::Product sum{scores,      h.positions, m,
                          h.positions, values,      nullptr,
                          h.size,      CT_IDENTITY, h.y + begin * h.y_stride,
                          h.y_stride};
    for (int64_t p = 0; p < ct::panels_of(h.size); p++)
      ct::panel_product(sum, p, 0, m);
  }
}

#endif

ct::Linear linear_of(const ct_packed &l, const char *name, int64_t in,
                     int64_t out) {
  const ct::Linear r{ct::borrow(l.weight),
                     ct::borrow(l.scales),
                     ct::borrow(l.sums),
                     ct::borrow(l.bias),
                     in,
                     l.out};
  TORCH_CHECK(out < 0 || out == l.out, name, " must have ", out,
              " outputs, got ", l.out);
  if (r.bias.defined()) {
    ct::check(r.bias, "bias", at::kFloat, 1);
    TORCH_CHECK(r.bias.numel() == l.out && r.bias.is_contiguous(), name,
                " must have a bias of ", l.out, " elements, got ",
                r.bias.numel());
  }
  if (r.scales.defined())
    ct::check_int8(r);
  else
    ct::check_panels(r);
  return r;
}

void linear(const ct::Linear &l, const float *x, int64_t m,
            ct_activation activation, float *y, int64_t y_stride) {
  if (l.scales.defined())
    ct::int8_linear(l, x, m, activation, false, y, y_stride);
  else
    ct::panels_linear(l, x, m, activation, y, y_stride);
}

at::Tensor parameter_of(ct_tensor t, const char *name, int64_t n) {
  const auto p = ct::borrow(t);
  ct::check(p, name, at::kFloat, 1);
  TORCH_CHECK(p.numel() == n && p.is_contiguous(), name, " must have ", n,
              " elements, got ", p.numel());
  return p;
}

}  // namespace

extern "C" {

ct_error ct_transformer_layer(const ct_layer *l, ct_tensor x, int causal,
                              ct_tensor keys, ct_tensor values, int64_t first,
                              const int64_t *past, const int64_t *only,
                              ct_tensor *y) {
  return ct::guard([&] {
    const auto given = ct::borrow(x);
    ct::check(given, "x", at::kFloat, 3);
    TORCH_CHECK(!(c10::GradMode::is_enabled() && given.requires_grad()),
                "autograd does not support packed weights; use them without "
                "gradients");
    TORCH_CHECK(ct_panels_able(), "this processor does not have AVX-512");
    const int64_t n = given.size(0), t = given.size(1), d = given.size(2),
                  heads = l->heads;
    TORCH_CHECK(heads > 0 && d % heads == 0, "the width ", d,
                " must be divisible by the number of heads, ", heads);
    TORCH_CHECK(t > 0, "x must have at least 1 position");
    const int64_t size = d / heads;
    const auto norm1 = parameter_of(l->norm1_weight, "norm1's weight", d),
               bias1 = parameter_of(l->norm1_bias, "norm1's bias", d),
               norm2 = parameter_of(l->norm2_weight, "norm2's weight", d),
               bias2 = parameter_of(l->norm2_bias, "norm2's bias", d);
    TORCH_CHECK(l->qkv_layers >= 1 && l->qkv_layers <= 3,
                "query, key and value need 1 to 3 layers, got ", l->qkv_layers);
    std::vector<ct::Linear> qkv;
    int64_t outputs = 0;
    for (int i = 0; i < l->qkv_layers; i++) {
      qkv.push_back(linear_of(l->qkv[i], "qkv", d, -1));
      outputs += qkv.back().out;
    }
    TORCH_CHECK(outputs == 3 * d, "query, key and value must have ", 3 * d,
                " outputs, got ", outputs);
    const auto out =
                   linear_of(l->attention_out, "the attention's output", d, d),
               up = linear_of(l->up, "up", d, -1),
               down = linear_of(l->down, "down", up.out, d);
    const auto all_keys = ct::borrow(keys), all_values = ct::borrow(values);
    int64_t room = 0;
    if (past != nullptr) {
      for (const auto *c : {&all_keys, &all_values}) {
        ct::check(*c, "cache", at::kFloat, 4);
        TORCH_CHECK(c->is_contiguous() && c->sizes() == all_keys.sizes() &&
                        c->size(1) == heads && c->size(3) == size &&
                        first >= 0 && first + n <= c->size(0),
                    "a cache of shape ", c->sizes(), " has no rows from ",
                    first, " to ", first + n - 1, " of ", heads, " heads of ",
                    size);
      }
      room = all_keys.size(2);
      for (int64_t i = 0; i < n; i++)
        TORCH_CHECK(past[i] >= 0 && past[i] + t <= room, "row ", i, " needs ",
                    past[i] + t, " positions, but the cache has room for ",
                    room);
    }
    if (only != nullptr)
      for (int64_t i = 0; i < n; i++)
        TORCH_CHECK_INDEX(only[i] >= 0 && only[i] < t, "row ", i,
                          " has no position ", only[i]);
    const int64_t queries = only != nullptr ? 1 : t;
    const auto result = at::empty({n, queries, d}, at::kFloat);
    *y = nullptr;
#if defined(__x86_64__)
    if (n == 0) {
      *y = ct::own(result);
      return;
    }
    const auto in = given.contiguous();
    const auto *from = in.const_data_ptr<float>();
    auto *to = result.mutable_data_ptr<float>();
    const int64_t m = n * t, kept = n * queries;
    const auto wide =
        at::empty({std::max(m * 3 * d, kept * up.out)}, at::kFloat);
    const auto narrow = at::empty({std::max(m, 2 * kept) * d}, at::kFloat);
    auto *projected = wide.mutable_data_ptr<float>();
    auto *scratch = narrow.mutable_data_ptr<float>();

    const Norm first_norm{norm1.const_data_ptr<float>(),
                          bias1.const_data_ptr<float>(), d,
                          static_cast<float>(l->epsilon1)};
    ct::each(m, m * d >= worth_threads / 4, [&](int64_t r) {
      normalize(first_norm, from + r * d, scratch + r * d);
    });
    int64_t column = 0;
    for (const auto &part : qkv) {
      linear(part, scratch, m, CT_IDENTITY, projected + column, 3 * d);
      column += part.out;
    }

    auto *attended = scratch;  // the normalized rows are no longer needed
    const bool cached = past != nullptr;
    auto *k_cache = cached ? all_keys.mutable_data_ptr<float>() : nullptr;
    auto *v_cache = cached ? all_values.mutable_data_ptr<float>() : nullptr;
    ct::each(n * heads,
             m * d * (t + (cached ? *std::max_element(past, past + n) : 0)) >=
                 worth_threads / 4,
             [&](int64_t task) {
               const int64_t i = task / heads, head = task % heads;
               const float *q = projected + i * t * 3 * d + head * size;
               Head h{size,
                      q,
                      q + d,
                      q + 2 * d,
                      3 * d,
                      3 * d,
                      3 * d,
                      queries,
                      t,
                      t,
                      0,
                      static_cast<float>(l->scale),
                      attended + i * queries * d + head * size,
                      d};
               int64_t before = 0;
               if (cached) {
                 before = past[i];
                 const int64_t at = ((first + i) * heads + head) * room * size;
                 for (int64_t p = 0; p < t; p++) {
                   std::copy_n(h.k + p * 3 * d, size,
                               k_cache + at + (before + p) * size);
                   std::copy_n(h.v + p * 3 * d, size,
                               v_cache + at + (before + p) * size);
                 }
                 h.k = k_cache + at;
                 h.v = v_cache + at;
                 h.k_stride = h.v_stride = size;
                 h.positions = h.reach = before + t;
               }
               const int64_t begin = only != nullptr ? only[i] : 0;
               h.q += begin * 3 * d;
               if (causal) {
                 h.reach = before + begin + 1;
                 h.more = 1;
               }
               const auto memory = std::unique_ptr<float[]>(
                   new float[queries > 1 ? scratch_of(size, h.positions)
                                         : h.positions]);
               if (queries > 1)
                 attend_many(h, memory.get());
               else
                 attend_one(h, memory.get());
             });
    linear(out, attended, kept, CT_IDENTITY, to, d);

    auto *normed = scratch;
    const Norm second_norm{norm2.const_data_ptr<float>(),
                           bias2.const_data_ptr<float>(), d,
                           static_cast<float>(l->epsilon2)};
    ct::each(kept, kept * d >= worth_threads / 4, [&](int64_t r) {
      const int64_t row = only != nullptr ? r * t + only[r] : r;
      add(to + r * d, from + row * d, d);
      normalize(second_norm, to + r * d, normed + r * d);
    });
    linear(up, normed, kept, l->activation, projected, up.out);
    auto *more = scratch + kept * d;
    linear(down, projected, kept, CT_IDENTITY, more, d);
    ct::each(kept, kept * d >= worth_threads / 4,
             [&](int64_t r) { add(to + r * d, more + r * d, d); });
#else
    (void)causal;
#endif
    *y = ct::own(result);
  });
}

}  // extern "C"
