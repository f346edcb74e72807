#include "resample.h"

#include <string.h>

/* This is C because it is the hot loop and Go's compiler does not vectorise:
   compare BenchmarkResize with BenchmarkResizePlain. All sums are exact integer
   sums (they fit 32 bits, and intermediate wrap-around is harmless), so every
   version returns the same bytes. */

#if defined(__x86_64__) && defined(__GNUC__)
#define X86 1
#include <immintrin.h>
#endif

/* Compiled twice, for plain x86-64 and for AVX2; the loader selects one. */
#if defined(X86) && defined(__gnu_linux__) && !defined(__clang__)
#define TWICE __attribute__((target_clones("avx2", "default")))
#else
#define TWICE
#endif

enum { BITS = 32 - 8 - 2, HALF = 1 << (BITS - 1) };

static inline uint8_t to_byte(uint32_t total) {
  int32_t v = (int32_t)total >> BITS;
  return v < 0 ? 0 : v > 255 ? 255 : (uint8_t)v;
}

static void rows4_plain(uint8_t *dst, size_t dst_stride, const uint8_t *src,
                        size_t src_stride, int rows, const int32_t *first,
                        const int16_t *packed, int count, int groups) {
  for (int y = 0; y < rows; y++) {
    const int16_t *k = packed;
    for (int x = 0; x < count; x++) {
      const uint8_t *in = src + (size_t)y * src_stride + (size_t)first[x] * 4;
      uint32_t sum[4] = {HALF, HALF, HALF, HALF};
      for (int g = 0; g < groups; g++, k += 8) {
        for (int t = 0; t < 4; t++, in += 4) {
          uint32_t w = ((uint32_t)k[t + 4] << 15) + (uint32_t)k[t];
          for (int c = 0; c < 4; c++) sum[c] += in[c] * w;
        }
      }
      for (int c = 0; c < 4; c++)
        dst[(size_t)y * dst_stride + 4 * (size_t)x + c] = to_byte(sum[c]);
    }
  }
}

#ifdef X86
/* The processor multiplies pairs of 16-bit numbers and adds each pair in one
   step, much faster than it multiplies 32-bit numbers. A weight has 23 bits and
   a sign, so its two halves, 15 bits apart, are summed separately. Two rows
   share a register, 4 pixels of each:

     shuffled   R0 R1  G0 G1  B0 B1  X0 X1   (and 2 and 3 likewise)
     times      w0 w1  w0 w1  w0 w1  w0 w1
     added      R      G      B      X */
__attribute__((target("avx2"))) static void rows4_avx2(
    uint8_t *dst, size_t dst_stride, const uint8_t *src, size_t src_stride,
    int rows, const int32_t *first, const int16_t *packed, int count,
    int groups) {
  const __m256i pick01 = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, -1, 4, -1, 1, -1, 5, -1, 2, -1, 6, -1, 3, -1, 7, -1));
  const __m256i pick23 = _mm256_broadcastsi128_si256(_mm_setr_epi8(
      8, -1, 12, -1, 9, -1, 13, -1, 10, -1, 14, -1, 11, -1, 15, -1));
  for (int y = 0; y < rows; y += 2) {
    /* The last of an odd number of rows is paired with itself. */
    size_t pair = y + 1 < rows ? 1 : 0;
    const uint8_t *upper = src + (size_t)y * src_stride;
    const uint8_t *lower = upper + pair * src_stride;
    uint8_t *out = dst + (size_t)y * dst_stride;
    uint8_t *below = out + pair * dst_stride;
    const int16_t *k = packed;
    for (int x = 0; x < count; x++, out += 4, below += 4) {
      size_t at = (size_t)first[x] * 4;
      __m256i low = _mm256_set1_epi32(HALF), high = _mm256_setzero_si256();
      for (int g = 0; g < groups; g++, at += 16, k += 8) {
        __m256i p = _mm256_inserti128_si256(
            _mm256_castsi128_si256(
                _mm_loadu_si128((const __m128i *)(upper + at))),
            _mm_loadu_si128((const __m128i *)(lower + at)), 1);
        __m256i w =
            _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)k));
        __m256i p01 = _mm256_shuffle_epi8(p, pick01);
        __m256i p23 = _mm256_shuffle_epi8(p, pick23);
        low = _mm256_add_epi32(
            low, _mm256_madd_epi16(p01, _mm256_shuffle_epi32(w, 0x00)));
        low = _mm256_add_epi32(
            low, _mm256_madd_epi16(p23, _mm256_shuffle_epi32(w, 0x55)));
        high = _mm256_add_epi32(
            high, _mm256_madd_epi16(p01, _mm256_shuffle_epi32(w, 0xaa)));
        high = _mm256_add_epi32(
            high, _mm256_madd_epi16(p23, _mm256_shuffle_epi32(w, 0xff)));
      }
      low = _mm256_add_epi32(low, _mm256_slli_epi32(high, 15));
      low = _mm256_srai_epi32(low, BITS);
      low = _mm256_packs_epi32(low, low);
      low = _mm256_packus_epi16(low, low);
      int32_t v = _mm_cvtsi128_si32(_mm256_castsi256_si128(low));
      memcpy(out, &v, 4);
      v = _mm_cvtsi128_si32(_mm256_extracti128_si256(low, 1));
      memcpy(below, &v, 4);
    }
  }
}
#endif

void photo_rows4(uint8_t *dst, size_t dst_stride, const uint8_t *src,
                 size_t src_stride, int rows, const int32_t *first,
                 const int16_t *packed, int count, int groups, int plain) {
#ifdef X86
  if (!plain && __builtin_cpu_supports("avx2")) {
    rows4_avx2(dst, dst_stride, src, src_stride, rows, first, packed, count,
               groups);
    return;
  }
#endif
  (void)plain;
  rows4_plain(dst, dst_stride, src, src_stride, rows, first, packed, count,
              groups);
}

TWICE void photo_rows1(uint8_t *dst, size_t dst_stride, const uint8_t *src,
                       size_t src_stride, int rows, const int32_t *span,
                       const int32_t *weight, int count, int width) {
  for (int y = 0; y < rows; y++) {
    uint8_t *out = dst + (size_t)y * dst_stride;
    const uint8_t *row = src + (size_t)y * src_stride;
    for (int x = 0; x < count; x++) {
      const uint8_t *in = row + span[2 * x];
      const int32_t *k = weight + (size_t)x * (size_t)width;
      uint32_t sum = HALF;
      for (int t = 0; t < span[2 * x + 1]; t++) sum += in[t] * (uint32_t)k[t];
      out[x] = to_byte(sum);
    }
  }
}

/* Columns are processed in blocks small enough to keep their sums in the cache
   while the source rows pass by. */
TWICE void photo_columns(uint8_t *dst, size_t dst_stride, const uint8_t *src,
                         size_t src_stride, int bytes, const int32_t *span,
                         const int32_t *weight, int count, int width) {
  enum { BLOCK = 64 };
  for (int y = 0; y < count; y++) {
    uint8_t *out = dst + (size_t)y * dst_stride;
    const uint8_t *in = src + (size_t)span[2 * y] * src_stride;
    const int32_t *k = weight + (size_t)y * (size_t)width;
    int n = span[2 * y + 1], x = 0;
    for (; x + BLOCK <= bytes; x += BLOCK) {
      uint32_t sum[BLOCK];
      for (int i = 0; i < BLOCK; i++) sum[i] = HALF;
      for (int t = 0; t < n; t++) {
        const uint8_t *p = in + (size_t)t * src_stride + x;
        for (int i = 0; i < BLOCK; i++) sum[i] += p[i] * (uint32_t)k[t];
      }
      for (int i = 0; i < BLOCK; i++) out[x + i] = to_byte(sum[i]);
    }
    for (; x < bytes; x++) {
      uint32_t sum = HALF;
      for (int t = 0; t < n; t++)
        sum += in[(size_t)t * src_stride + x] * (uint32_t)k[t];
      out[x] = to_byte(sum);
    }
  }
}
