// Linear layers with packed weights, for inference on the CPU, as other kernels
// use them.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>

#include "common.h"
#include "tiles.h"

namespace ct {

// A layer in f32 (panels.cpp), or in 8 bits (int8.cpp) if it has scales.
struct Linear {
  at::Tensor weight, scales, sums;  // packed
  at::Tensor bias;                  // [out] or undefined
  int64_t in, out;
};

// The order in which the products of a sum are added up. The inputs are divided
// into parts of the same size, and each part into blocks of so many inputs, of
// which the last may be shorter. A block is a sum of its own, in the order of
// the inputs. The blocks of a part are added up, and then the parts.
struct Order {
  int64_t block = 384;  // 96 KiB of a panel, which the second-level cache keeps
  int64_t parts = 1;    // a divisor of the number of inputs
  bool bias_first = false;  // it is added to the first block, not to the sum
};

// Throw unless the tensors are those of a layer of this kind and size.
void check_panels(const Linear &l);
void check_int8(const Linear &l);

// Compute y [m, out], whose rows are y_stride numbers apart, of x [m, in].
// plain asks for the kernel that needs no instructions.
void panels_linear(const Linear &l, const float *x, int64_t m,
                   ct_activation activation, float *y, int64_t y_stride,
                   const Order &order = {});
void int8_linear(const Linear &l, const float *x, int64_t m,
                 ct_activation activation, bool plain, float *y,
                 int64_t y_stride);

// A product of matrices in f32: y = activation(x w + bias).
struct Product {
  const float *x;    // [m, k]
  int64_t x_stride;  // between the rows, in numbers
  int64_t m, k;
  const float *w;     // the panels
  const float *bias;  // [n], or nullptr
  int64_t n;
  ct_activation activation;
  float *y;  // [m, n]
  int64_t y_stride;
  Order order{};
  // [order.parts - 1, m, n], for all parts but the first. With parts, there is
  // no activation.
  float *parts = nullptr;
};

constexpr int64_t panel_width = lanes * tile_vectors;

// The number of panels of n outputs, and of vectors of 16 outputs in one.
inline int64_t panels_of(int64_t n) {
  return (n + panel_width - 1) / panel_width;
}
inline int64_t vectors_of(int64_t n, int64_t panel) {
  return std::min(tile_vectors, (n - panel * panel_width + lanes - 1) / lanes);
}

// The size of the panels of n outputs with k inputs.
inline int64_t packed_size(int64_t n, int64_t k) {
  return (n + lanes - 1) / lanes * lanes * k;
}

// The panels of a weight [n, k].
at::Tensor pack_panels(const at::Tensor &weight);
// Writes a panel of the weights w [n, k], whose rows are stride apart, to its
// place in to. It uses AVX-512 if the processor has it.
void pack_panel(const float *w, int64_t stride, int64_t n, int64_t k,
                int64_t panel, float *to);
// Computes a panel for the rows from begin to end - 1. Needs AVX-512.
void panel_product(const Product &p, int64_t panel, int64_t begin, int64_t end);

}  // namespace ct
