/* WebP through libwebp and libwebpdemux, for webp.go. One complete call each,
 * no state. */
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
  int has_alpha;     /* as Pillow tells RGBA from RGB */
} photo_webp_info;

/* Parses the container and checks that every frame's bytes are there. */
int photo_webp_header(const uint8_t *data, size_t size, photo_webp_info *info);

/* Decodes the first frame into canvas, which holds height rows of 4*width zero
   bytes (R G B A, straight alpha). A frame smaller than the canvas leaves the
   rest zero. */
int photo_webp_decode(const uint8_t *data, size_t size,
                      const photo_webp_info *info, uint8_t *canvas);

#endif
