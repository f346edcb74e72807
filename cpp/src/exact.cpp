// Linear layers with packed weights that have the bits of PyTorch's operators.
//
// For f32, linear and addmm call MKL's sgemm, which puts the weights in order
// anew in each call. That is most of the time where the input has few rows, as
// one photo has, or some captions. Its sums have an order: for most shapes,
// that of the inputs in blocks of some hundred, and with several threads in
// parts of the same size. The panels of panels.cpp can be added up in the same
// order, and have the same bits then.
//
// Nobody documents that order. It depends on the shape, the threads and the
// processor. It is therefore not assumed but found: the first calls of a shape
// are MKL's; then candidates are compared with it on random inputs, bit by bit.
// If one agrees, and is faster, it computes the calls that follow. If none
// does, everything stays as it is.
#include <ATen/autocast_mode.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>

#include <chrono>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "common.h"
#include "linear.h"
#include "parallel.h"

namespace {

using ct::Order;

struct Layer {
  at::Tensor weight;  // [out, in], or transposed
  bool transposed;
  at::Tensor bias;    // or undefined, with a weight that is not transposed
  at::Tensor packed;  // or undefined
  int64_t in, out;

  // What PyTorch computes.
  at::Tensor plain(const at::Tensor &x) const {
    if (!transposed) return at::linear(x, weight, bias);
    auto sizes = x.sizes().vec();
    sizes.back() = out;
    return at::addmm(bias, x.reshape({-1, in}), weight).view(sizes);
  }
};

// Calls of a shape with as many threads and weights in the same order have sums
// in the same order.
using Key = std::tuple<int64_t, int64_t, int64_t, int64_t, bool, bool>;
struct Shape {
  int64_t calls = 0;
  bool searched = false, found = false;
  Order order{};
  int64_t saved = 0;  // in a call, in ns
};

std::mutex mutex;
std::map<Key, Shape> shapes;

// Before that many calls of a shape, finding its order would cost more than it
// might gain: it takes about as long as ten calls and packing.
constexpr int64_t calls_before_search = 32;
// Elements of a result for which the search would need too much memory.
constexpr int64_t most_elements = 16 << 20;
// With fewer, sums in different orders are often the same.
constexpr int64_t fewest_inputs = 16;

// Numbers between -1 and 1 with all bits of a float, which do not touch
// libtorch's generators.
void fill(const at::Tensor &t, uint64_t &state) {
  auto *p = t.mutable_data_ptr<float>();
  for (int64_t i = 0; i < t.numel(); i++) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    p[i] = static_cast<float>(static_cast<int32_t>(state >> 32)) * 0x1p-31f;
  }
}

at::Tensor panels(const Layer &l, const at::Tensor &x, const Order &order) {
  const auto y = ct::result_of(x, l.out);
  ct::panels_linear({l.packed, {}, {}, l.bias, l.in, l.out},
                    x.const_data_ptr<float>(), x.numel() / l.in, CT_IDENTITY,
                    y.mutable_data_ptr<float>(), l.out, order);
  return y;
}

bool same_bits(const at::Tensor &a, const at::Tensor &b) {
  return std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) == 0;
}

// Whether an order gives the first and the last row of y in the first and the
// last panel. It rules out other orders at little cost.
bool may_be(const Layer &l, const at::Tensor &x, const at::Tensor &y,
            const Order &order) {
  const int64_t m = x.size(0), last = ct::panels_of(l.out) - 1;
  const auto got = at::empty({2, l.out}, at::kFloat),
             parts = at::empty({order.parts, 2, l.out}, at::kFloat);
  const ct::Product p{
      x.const_data_ptr<float>(),
      l.in * (m - 1),
      2,
      l.in,
      l.packed.const_data_ptr<float>(),
      l.bias.defined() ? l.bias.const_data_ptr<float>() : nullptr,
      l.out,
      CT_IDENTITY,
      got.mutable_data_ptr<float>(),
      l.out,
      order,
      parts.mutable_data_ptr<float>()};
  const auto *want = y.const_data_ptr<float>();
  for (const int64_t panel : {int64_t{0}, last}) {
    ct::panel_product(p, panel, 0, 2);
    const int64_t j = panel * ct::panel_width;
    const size_t bytes = std::min(ct::panel_width, l.out - j) * sizeof(float);
    if (std::memcmp(p.y + j, want + j, bytes) != 0 ||
        std::memcmp(p.y + l.out + j, want + (m - 1) * l.out + j, bytes) != 0)
      return false;
  }
  return true;
}

// Whether an order gives all bits of some results. The inputs are random, until
// each row and column of the results has had a number that another order would
// have given other bits, and zeros of both signs.
bool agrees(const Layer &l, int64_t m, const Order &order, uint64_t &state) {
  Order other = order;
  other.block = std::min(order.block, l.in / order.parts) / 2;
  std::vector<char> rows(m), columns(l.out);
  // Two trials at least, with inputs in other places of a page: results of MKL
  // that depend on them are nothing to agree with.
  constexpr int64_t line = 64 / sizeof(float);
  const auto memory = at::empty({m * l.in + 3 * line}, at::kFloat);
  at::Tensor x;
  bool seen = false;
  for (int trial = 0; trial < 16 && (trial < 2 || !seen); trial++) {
    x = memory.narrow(0, trial % 4 * line, m * l.in).view({m, l.in});
    fill(x, state);
    const auto want = l.plain(x);
    if (!same_bits(want, panels(l, x, order))) return false;
    const auto different = panels(l, x, other);
    const auto *a = want.const_data_ptr<float>(),
               *b = different.const_data_ptr<float>();
    for (int64_t i = 0; i < m; i++)
      for (int64_t j = 0; j < l.out; j++)
        if (a[i * l.out + j] != b[i * l.out + j]) rows[i] = columns[j] = 1;
    const auto all = [](const std::vector<char> &v) {
      return std::find(v.begin(), v.end(), 0) == v.end();
    };
    seen = all(rows) && all(columns);
  }
  if (!seen) return false;
  auto *p = x.mutable_data_ptr<float>();
  for (int64_t i = 0; i < x.numel(); i++) p[i] = i % 3 == 0 ? -0.0f : 0.0f;
  return same_bits(l.plain(x), panels(l, x, order));
}

// MKL's blocks have a multiple of 32 inputs, or all. The first ones are those
// of its kernels for AVX-512 and AVX2.
template <class F>
bool candidates(int64_t k, const F &f) {
  const int64_t threads = at::get_num_threads();
  for (int64_t parts = 1; parts <= std::min<int64_t>(threads, 8); parts++) {
    if (k % parts != 0) continue;
    const int64_t size = k / parts;
    const auto is = [&](int64_t block) {
      return block <= size && f(Order{block, parts, true});
    };
    if (is(384) || is(size) || is(256) || is(192)) return true;
    for (int64_t block = 32; block < std::min<int64_t>(size, 1024); block += 32)
      if (is(block)) return true;
  }
  return false;
}

// How long a call takes, in ns.
template <class F>
int64_t time_of(const F &f) {
  const auto begin = std::chrono::steady_clock::now();
  f();
  const std::chrono::nanoseconds t = std::chrono::steady_clock::now() - begin;
  return t.count();
}

// Finds the order of a shape and what it saves, if it saves anything or eager
// is set.
Shape search(Layer l, int64_t m, bool eager) {
  const c10::InferenceMode inference;
  Shape s;
  s.searched = true;
  if (!l.packed.defined())
    l.packed = ct::pack_panels(l.transposed ? l.weight.t() : l.weight);
  uint64_t state = 1;
  const auto x = at::empty({m, l.in}, at::kFloat);
  fill(x, state);
  at::Tensor y;
  int64_t theirs = time_of([&] { y = l.plain(x); });
  s.found = candidates(l.in, [&](const Order &order) {
    s.order = order;
    return may_be(l, x, y, order);
  });
  if (!s.found) return s;
  const auto time_ours = [&] {
    return time_of([&] { panels(l, x, s.order); });
  };
  // The least of three times, unless the first says enough: for many rows, a
  // call takes long, and MKL is often faster.
  int64_t ours = time_ours();
  for (int i = 0; i < 2 && (eager || ours < theirs + theirs / 8); i++) {
    theirs = std::min(theirs, time_of([&] { l.plain(x); }));
    ours = std::min(ours, time_ours());
  }
  s.saved = theirs - ours;
  s.found = (s.saved > 0 || eager) && agrees(l, m, s.order, state);
  return s;
}

// Whether the operators would do nothing but call MKL, and panels can take
// their place.
bool replaceable(const Layer &l, const at::Tensor &x) {
  const auto simple = [](const at::Tensor &t) {
    return t.layout() == at::kStrided && t.device().is_cpu() &&
           t.scalar_type() == at::kFloat && t.is_contiguous() &&
           !(c10::GradMode::is_enabled() && t.requires_grad());
  };
  return ct_panels_able() && x.dim() > 1 && x.numel() > 0 && l.in > 0 &&
         simple(x) && x.size(-1) == l.in && simple(l.weight) &&
         (!l.bias.defined() ||
          (simple(l.bias) && l.bias.dim() == 1 && l.bias.numel() == l.out)) &&
         l.in >= fewest_inputs && x.numel() / l.in > 1 &&
         x.numel() / l.in * l.out <= most_elements &&
         !at::autocast::is_autocast_enabled(at::kCPU) &&
         !at::in_parallel_region() && ct::has_threads();
}

// What is known of the shape of a call; eager looks for it at once.
Shape shape_of(const Layer &l, int64_t m, bool eager) {
  const Key key{
      m, l.out, l.in, at::get_num_threads(), l.transposed, l.bias.defined()};
  {
    const std::lock_guard lock(mutex);
    Shape &s = shapes[key];
    if (s.searched || (!eager && ++s.calls != calls_before_search)) return s;
  }
  const Shape s = search(l, m, eager);
  const std::lock_guard lock(mutex);
  return shapes[key] = s;
}

}  // namespace

extern "C" {

ct_error ct_exact_linear(ct_tensor x, ct_tensor weight, int transposed,
                         ct_tensor bias, ct_tensor packed, int eager,
                         ct_tensor *y, int64_t *lost) {
  return ct::guard([&] {
    *y = nullptr;
    *lost = 0;
    const auto given = ct::borrow(x);
    Layer l{ct::borrow(weight),
            transposed != 0,
            ct::borrow(bias),
            ct::borrow(packed),
            0,
            0};
    TORCH_CHECK_TYPE(given.defined() && l.weight.defined(),
                     "expected tensors for x and weight, got none");
    TORCH_CHECK(l.weight.dim() == 2, "weight must have 2 dimensions, got ",
                l.weight.dim());
    TORCH_CHECK(!l.transposed || l.bias.defined(),
                "a transposed weight needs a bias");
    l.in = l.weight.size(l.transposed ? 0 : 1);
    l.out = l.weight.size(l.transposed ? 1 : 0);
    if (replaceable(l, given)) {
      const Shape s = shape_of(l, given.numel() / l.in, eager != 0);
      if (s.found && (s.saved > 0 || eager)) {
        if (l.packed.defined()) {
          ct::check_panels({l.packed, {}, {}, l.bias, l.in, l.out});
          *y = ct::own(panels(l, given, s.order));
          *lost = -1;
          return;
        }
        *lost = s.saved;
      }
    }
    *y = ct::own(l.plain(given));
  });
}

}  // extern "C"
