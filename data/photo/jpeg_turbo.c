#include "jpeg_turbo.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

/* jpeglib.h requires stdio.h. */
#include <jerror.h>
#include <jpeglib.h>

#ifndef JCS_EXTENSIONS
#error "this needs libjpeg-turbo (Debian: libjpeg62-turbo-dev), not IJG libjpeg"
#endif

/* Progressive files in the wild have about ten scans. A file of a few hundred
   kilobytes can hold a hundred thousand empty scans, each of which processes
   the whole image. */
#define MAX_SCANS 1000

/* All state of a decode. Because no local variable lives across the jump,
   setjmp's rule about modified locals does not matter. */
typedef struct {
  struct jpeg_decompress_struct cinfo;
  struct jpeg_error_mgr errors;
  struct jpeg_source_mgr source;
  struct jpeg_progress_mgr progress;
  jmp_buf escape;
  char *message;
} decoder;

/* libjpeg's own error_exit ends the process. This one returns to our frame
   that called libjpeg; there are only C frames in between. */
static void on_error(j_common_ptr cinfo) {
  decoder *d = cinfo->client_data;
  char text[JMSG_LENGTH_MAX];
  (*cinfo->err->format_message)(cinfo, text);
  snprintf(d->message, sizeof(((photo_jpeg_info *)0)->message), "%s", text);
  longjmp(d->escape, 1);
}

/* Like Pillow, ignore libjpeg's warnings (corrupt data inside a scan is decoded
   as well as possible), and never print anything. */
static void on_message(j_common_ptr cinfo) { (void)cinfo; }

static void on_progress(j_common_ptr cinfo) {
  if (((j_decompress_ptr)cinfo)->input_scan_number > MAX_SCANS) {
    decoder *d = cinfo->client_data;
    snprintf(d->message, sizeof(((photo_jpeg_info *)0)->message),
             "more than %d scans: possible denial-of-service attack",
             MAX_SCANS);
    longjmp(d->escape, 1);
  }
}

/* The source is the whole file in memory. At its end libjpeg is told to wait
   for more data: each call then reports that it is suspended, which is how a
   truncated file is recognised. (libjpeg's own memory source inserts an end
   marker and fills the rest with grey.) */
static void source_nothing(j_decompress_ptr cinfo) { (void)cinfo; }
static boolean source_fill(j_decompress_ptr cinfo) {
  (void)cinfo;
  return FALSE;
}
static void source_skip(j_decompress_ptr cinfo, long n) {
  struct jpeg_source_mgr *s = cinfo->src;
  if (n <= 0) return;
  if ((size_t)n > s->bytes_in_buffer) n = (long)s->bytes_in_buffer;
  s->next_input_byte += n;
  s->bytes_in_buffer -= n;
}

static void open_decoder(decoder *d, const uint8_t *data, size_t size,
                         char *message) {
  memset(d, 0, sizeof *d);
  d->message = message;
  d->cinfo.err = jpeg_std_error(&d->errors);
  d->errors.error_exit = on_error;
  d->errors.output_message = on_message;
  d->cinfo.client_data = d;
  d->source.init_source = source_nothing;
  d->source.fill_input_buffer = source_fill;
  d->source.skip_input_data = source_skip;
  d->source.resync_to_restart = jpeg_resync_to_restart;
  d->source.term_source = source_nothing;
  d->source.next_input_byte = data;
  d->source.bytes_in_buffer = size;
}

/* jpeg_create_decompress clears the struct except for err and client_data. It
   may itself fail (out of memory, or a different library version), so it runs
   under setjmp like everything else. */
static int read_header(decoder *d) {
  int got;
  jpeg_create_decompress(&d->cinfo);
  d->cinfo.src = &d->source;
  d->progress.progress_monitor = on_progress;
  d->cinfo.progress = &d->progress;
  do {
    got = jpeg_read_header(&d->cinfo, FALSE);
  } while (got == JPEG_HEADER_TABLES_ONLY);
  return got == JPEG_SUSPENDED ? PHOTO_JPEG_TRUNCATED : PHOTO_JPEG_OK;
}

static int decode_rows(decoder *d, photo_jpeg_info *info, uint8_t *out,
                       size_t stride) {
  struct jpeg_decompress_struct *c = &d->cinfo;
  int rc = read_header(d);
  if (rc != PHOTO_JPEG_OK) return rc;
  if ((int)c->image_width != info->width ||
      (int)c->image_height != info->height ||
      c->num_components != info->components)
    return PHOTO_JPEG_CHANGED;
  switch (c->num_components) {
    case 1:
      c->out_color_space = JCS_GRAYSCALE;
      break;
    case 3:
      c->out_color_space = JCS_EXT_RGBX;
      break;
    case 4:
      c->out_color_space = JCS_CMYK;
      break;
    default:
      return PHOTO_JPEG_CHANGED;
  }
  /* These are libjpeg's defaults, which Pillow keeps; they are set explicitly
     because the pixels depend on them. */
  c->dct_method = JDCT_ISLOW;
  c->do_fancy_upsampling = TRUE;
  c->do_block_smoothing = TRUE;
  if (!jpeg_start_decompress(c)) return PHOTO_JPEG_TRUNCATED;
  if ((int)c->output_width != info->width ||
      (int)c->output_height != info->height)
    return PHOTO_JPEG_CHANGED;
  while (c->output_scanline < c->output_height) {
    JSAMPROW rows[16];
    unsigned i, left = c->output_height - c->output_scanline;
    if (left > 16) left = 16;
    for (i = 0; i < left; i++)
      rows[i] = out + (size_t)(c->output_scanline + i) * stride;
    if (jpeg_read_scanlines(c, rows, left) == 0) return PHOTO_JPEG_TRUNCATED;
  }
  /* What follows the last row (a missing end marker, say) no longer matters,
     but an error there is an error in Pillow too. */
  (void)jpeg_finish_decompress(c);
  return PHOTO_JPEG_OK;
}

int photo_jpeg_header(const uint8_t *data, size_t size, photo_jpeg_info *info) {
  decoder d;
  int rc;
  memset(info, 0, sizeof *info);
  open_decoder(&d, data, size, info->message);
  if (setjmp(d.escape)) {
    jpeg_destroy_decompress(&d.cinfo);
    return PHOTO_JPEG_BROKEN;
  }
  rc = read_header(&d);
  info->width = (int)d.cinfo.image_width;
  info->height = (int)d.cinfo.image_height;
  info->components = d.cinfo.num_components;
  jpeg_destroy_decompress(&d.cinfo);
  return rc;
}

int photo_jpeg_decode(const uint8_t *data, size_t size, photo_jpeg_info *info,
                      uint8_t *out, size_t stride) {
  decoder d;
  int rc;
  open_decoder(&d, data, size, info->message);
  if (setjmp(d.escape)) {
    jpeg_destroy_decompress(&d.cinfo);
    return PHOTO_JPEG_BROKEN;
  }
  rc = decode_rows(&d, info, out, stride);
  jpeg_destroy_decompress(&d.cinfo);
  return rc;
}
