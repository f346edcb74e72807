/* The two passes of the resampling rule over 8-bit samples, for resize.go.
   Weights are in units of 2^-22. */
#ifndef PHOTO_RESAMPLE_H
#define PHOTO_RESAMPLE_H

#include <stddef.h>
#include <stdint.h>

/* Along rows, pixels of 4 bytes. Output position i of count is the sum over the
   4*groups source pixels starting at first[i]. Their weights are in packed, 8
   numbers for 4 pixels: the four low halves w & 0x7fff, then the four high
   halves w >> 15. If plain is not 0, the portable code runs even if the
   processor supports better; the results are the same. */
void photo_rows4(uint8_t *dst, size_t dst_stride, const uint8_t *src,
                 size_t src_stride, int rows, const int32_t *first,
                 const int16_t *packed, int count, int groups, int plain);

/* Along rows, pixels of 1 byte. Output position i is the sum over t in [0,
   span[2i+1]) of weight[i*width + t] * source[span[2i] + t]. */
void photo_rows1(uint8_t *dst, size_t dst_stride, const uint8_t *src,
                 size_t src_stride, int rows, const int32_t *span,
                 const int32_t *weight, int count, int width);

/* Down columns, with weights as in photo_rows1: every byte of a row is a
   separate column. */
void photo_columns(uint8_t *dst, size_t dst_stride, const uint8_t *src,
                   size_t src_stride, int bytes, const int32_t *span,
                   const int32_t *weight, int count, int width);

#endif
