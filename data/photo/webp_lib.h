/* WebP decoding with libwebp and libwebpdemux, for webp.go. Every call is
   self-contained: no state is kept between calls. */
#ifndef PHOTO_WEBP_LIB_H
#define PHOTO_WEBP_LIB_H

#include <stddef.h>
#include <stdint.h>

enum {
  PHOTO_WEBP_OK = 0,
  PHOTO_WEBP_TRUNCATED = 1,
  PHOTO_WEBP_BROKEN = 2,
  PHOTO_WEBP_MEMORY = 3,
};

typedef struct {
  int width, height; /* of the canvas */
  int has_alpha;     /* decides between RGBA and RGB, as in Pillow */
} photo_webp_info;

/* Parses the container and checks that the bytes of every frame are present. */
int photo_webp_header(const uint8_t *data, size_t size, photo_webp_info *info);

/* Decodes the first frame into canvas, which must hold height rows of 4*width
   zero bytes (R G B A, straight alpha). If the frame is smaller than the
   canvas, the rest stays zero. */
int photo_webp_decode(const uint8_t *data, size_t size,
                      const photo_webp_info *info, uint8_t *canvas);

#endif
