// Activations that the kernels of linear layers apply to a result before they
// write it. The vectors and the numbers go through the same operations, and
// have the same bits.
#pragma once

#include <cmath>
#include <iterator>

#include "cyclecap_torch.h"
#include "tiles.h"

namespace ct {

// e^x = 2^n e^r with |r| <= ln 2 / 2, by Taylor's series. ln 2 has two parts,
// so that n times the first is exact.
constexpr float log2_e = 1.44269504f, ln2_high = 0.693359375f,
                ln2_low = -2.12194440e-4f;
constexpr float taylor[] = {1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24,
                            1.0f / 6,    1.0f / 2,   1.0f,       1.0f};
// Larger exponents give infinity, and smaller ones 0.
constexpr float most_exponent = 128;
// gelu(approximate="tanh") is x / (1 + e^-u) with u = x (tanh_1 + tanh_3 x^2).
constexpr float tanh_1 = 1.59576912f, tanh_3 = 0.0713548163f;
// The normal distribution's tail below -a is e^(-a^2 / 2) times this polynomial
// of 1 / (1 + 0.3 a), fitted to it with a relative error of 4e-8.
constexpr float tail_scale = 0.3f;
constexpr float tail[] = {
    3.621358788e-02f,  -1.583558705e-01f, 2.056190847e-01f,
    -4.917779013e-02f, 1.228403225e-01f,  1.035007931e-01f,
    1.195289525e-01f,  1.198465775e-01f,  -1.563762562e-05f};

inline float exponential(float x) {
  if (std::isnan(x)) return x;
  x = std::clamp(x, -most_exponent, most_exponent);
  const float n = std::nearbyint(x * log2_e);
  const float r = std::fma(n, -ln2_low, std::fma(n, -ln2_high, x));
  float p = taylor[0];
  for (size_t i = 1; i < std::size(taylor); i++) p = std::fma(p, r, taylor[i]);
  return std::ldexp(p, static_cast<int>(n));
}

inline float activate(ct_activation f, float x) {
  switch (f) {
    case CT_RELU:
      return x < 0 ? 0.0f : x;
    case CT_SILU:
      return x / (1 + exponential(-x));
    case CT_GELU: {
      const float a = std::fabs(x) > 64 ? 64 : std::fabs(x);
      const float t = 1 / std::fma(tail_scale, a, 1.0f);
      float p = tail[0];
      for (size_t i = 1; i < std::size(tail); i++) p = std::fma(p, t, tail[i]);
      const float e = exponential(-0.5f * a * a);
      return std::fma(-a, p * e, x < 0 ? 0.0f : x);
    }
    case CT_GELU_TANH: {
      const float u = x * std::fma(tanh_3, x * x, tanh_1);
      return x / (1 + exponential(-u));
    }
    case CT_QUICK_GELU:
      return x / (1 + exponential(-(1.702f * x)));
    default:
      return x;
  }
}

#if defined(__x86_64__)

#define CT_AVX512 __attribute__((target("avx512f")))

CT_AVX512 CT_INLINE __m512 exponential(__m512 x) {
  const __m512 limit = _mm512_set1_ps(most_exponent);
  // Of a NaN and a number, these return the second.
  x = _mm512_min_ps(limit, x);
  x = _mm512_max_ps(_mm512_sub_ps(_mm512_setzero_ps(), limit), x);
  const __m512 n = _mm512_roundscale_ps(
      _mm512_mul_ps(x, _mm512_set1_ps(log2_e)), _MM_FROUND_TO_NEAREST_INT);
  const __m512 r =
      _mm512_fmadd_ps(n, _mm512_set1_ps(-ln2_low),
                      _mm512_fmadd_ps(n, _mm512_set1_ps(-ln2_high), x));
  __m512 p = _mm512_set1_ps(taylor[0]);
  for (size_t i = 1; i < std::size(taylor); i++)
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(taylor[i]));
  return _mm512_scalef_ps(p, n);
}

// x / (1 + e^-u)
CT_AVX512 CT_INLINE __m512 gated(__m512 x, __m512 u) {
  const __m512 e = exponential(_mm512_sub_ps(_mm512_setzero_ps(), u));
  return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1), e));
}

CT_AVX512 CT_INLINE __m512 activate(ct_activation f, __m512 x) {
  switch (f) {
    case CT_RELU:
      return _mm512_max_ps(_mm512_setzero_ps(), x);
    case CT_SILU:
      return gated(x, x);
    case CT_GELU: {
      const __m512 a = _mm512_min_ps(_mm512_set1_ps(64), _mm512_abs_ps(x));
      const __m512 t = _mm512_div_ps(
          _mm512_set1_ps(1),
          _mm512_fmadd_ps(_mm512_set1_ps(tail_scale), a, _mm512_set1_ps(1)));
      __m512 p = _mm512_set1_ps(tail[0]);
      for (size_t i = 1; i < std::size(tail); i++)
        p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(tail[i]));
      const __m512 e = exponential(
          _mm512_mul_ps(_mm512_mul_ps(_mm512_set1_ps(-0.5f), a), a));
      return _mm512_fnmadd_ps(a, _mm512_mul_ps(p, e),
                              _mm512_max_ps(_mm512_setzero_ps(), x));
    }
    case CT_GELU_TANH:
      return gated(
          x, _mm512_mul_ps(
                 x, _mm512_fmadd_ps(_mm512_set1_ps(tanh_3), _mm512_mul_ps(x, x),
                                    _mm512_set1_ps(tanh_1))));
    case CT_QUICK_GELU:
      return gated(x, _mm512_mul_ps(_mm512_set1_ps(1.702f), x));
    default:
      return x;
  }
}

#endif

}  // namespace ct
