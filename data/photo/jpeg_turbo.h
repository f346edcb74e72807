/* JPEG decoding with libjpeg-turbo, for jpeg.go. Every call is self-contained:
   no state is kept between calls, so nothing can leak or be freed twice. */
#ifndef PHOTO_JPEG_TURBO_H
#define PHOTO_JPEG_TURBO_H

#include <stddef.h>
#include <stdint.h>

enum {
  PHOTO_JPEG_OK = 0,
  PHOTO_JPEG_TRUNCATED = 1, /* the data ended before the last row */
  PHOTO_JPEG_BROKEN = 2,    /* libjpeg failed; message says why */
  PHOTO_JPEG_CHANGED = 3,   /* the size differs from the header */
};

typedef struct {
  int width, height;
  int components;    /* 1, 3 or 4 in files that are accepted */
  char message[256]; /* NUL-terminated, set with PHOTO_JPEG_BROKEN */
} photo_jpeg_info;

/* Reads up to the first scan. */
int photo_jpeg_header(const uint8_t *data, size_t size, photo_jpeg_info *info);

/* Decodes into out, rows of stride bytes: 1 byte per pixel for one component,
   otherwise 4 (R G B 255, or C M Y K exactly as stored). info holds the size
   from the header; rows that are not reached are left unchanged. */
int photo_jpeg_decode(const uint8_t *data, size_t size, photo_jpeg_info *info,
                      uint8_t *out, size_t stride);

#endif
