#include "webp_lib.h"

#include <webp/decode.h>
#include <webp/demux.h>

static int from_status(VP8StatusCode status) {
  switch (status) {
    case VP8_STATUS_OK:
      return PHOTO_WEBP_OK;
    case VP8_STATUS_OUT_OF_MEMORY:
      return PHOTO_WEBP_MEMORY;
    case VP8_STATUS_SUSPENDED:
    case VP8_STATUS_NOT_ENOUGH_DATA:
      return PHOTO_WEBP_TRUNCATED;
    default:
      return PHOTO_WEBP_BROKEN;
  }
}

/* The demuxer for complete files rejects both truncated and damaged ones
   without saying which: the partial one tells them apart. */
static WebPDemuxer *open_demuxer(const uint8_t *data, size_t size, int *why) {
  WebPData all = {data, size};
  WebPDemuxState state;
  WebPDemuxer *demuxer = WebPDemux(&all);
  if (demuxer != NULL) return demuxer;
  demuxer = WebPDemuxPartial(&all, &state);
  *why = state == WEBP_DEMUX_PARSING_HEADER || state == WEBP_DEMUX_PARSED_HEADER
             ? PHOTO_WEBP_TRUNCATED
             : PHOTO_WEBP_BROKEN;
  WebPDemuxDelete(demuxer);
  return NULL;
}

int photo_webp_header(const uint8_t *data, size_t size, photo_webp_info *info) {
  WebPBitstreamFeatures features;
  int why = PHOTO_WEBP_BROKEN;
  WebPDemuxer *demuxer = open_demuxer(data, size, &why);
  if (demuxer == NULL) return why;
  info->width = (int)WebPDemuxGetI(demuxer, WEBP_FF_CANVAS_WIDTH);
  info->height = (int)WebPDemuxGetI(demuxer, WEBP_FF_CANVAS_HEIGHT);
  WebPDemuxDelete(demuxer);
  info->has_alpha = 1;
  if (WebPGetFeatures(data, size, &features) == VP8_STATUS_OK)
    info->has_alpha = features.has_alpha;
  return PHOTO_WEBP_OK;
}

int photo_webp_decode(const uint8_t *data, size_t size,
                      const photo_webp_info *info, uint8_t *canvas) {
  WebPDecoderConfig config;
  WebPIterator frame;
  int rc = PHOTO_WEBP_BROKEN;
  size_t stride = (size_t)info->width * 4;
  WebPDemuxer *demuxer = open_demuxer(data, size, &rc);
  if (demuxer == NULL) return rc;
  if (!WebPDemuxGetFrame(demuxer, 1, &frame)) {
    WebPDemuxDelete(demuxer);
    return PHOTO_WEBP_BROKEN;
  }
  /* libwebpdemux has checked that the frame lies within the canvas, but do not
     trust another library with writes to the caller's memory. */
  if (frame.x_offset >= 0 && frame.y_offset >= 0 && frame.width > 0 &&
      frame.height > 0 && frame.width <= info->width - frame.x_offset &&
      frame.height <= info->height - frame.y_offset &&
      WebPInitDecoderConfig(&config)) {
    config.output.colorspace = MODE_RGBA;
    config.output.is_external_memory = 1;
    config.output.u.RGBA.rgba =
        canvas + (size_t)frame.y_offset * stride + (size_t)frame.x_offset * 4;
    config.output.u.RGBA.stride = (int)stride;
    config.output.u.RGBA.size =
        stride * (size_t)(frame.height - 1) + (size_t)frame.width * 4;
    rc = from_status(
        WebPDecode(frame.fragment.bytes, frame.fragment.size, &config));
    WebPFreeDecBuffer(&config.output);
  }
  WebPDemuxReleaseIterator(&frame);
  WebPDemuxDelete(demuxer);
  return rc;
}
