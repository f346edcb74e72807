package photo

/*
#cgo pkg-config: libwebp libwebpdemux
#include "webp_lib.h"
*/
import "C"

import (
	"fmt"
	"unsafe"
)

// decodeWebP uses libwebp, the decoder inside Pillow. The colours of golang.org/x/image/webp
// differ, because it repeats chroma samples where libwebp interpolates them.
func decodeWebP(data []byte, limit int) (*Image, error) {
	var info C.photo_webp_info
	in := (*C.uint8_t)(unsafe.Pointer(&data[0]))
	if err := webpError(C.photo_webp_header(in, C.size_t(len(data)), &info)); err != nil {
		return nil, err
	}
	width, height := int(info.width), int(info.height)
	if err := checkSize(width, height, limit); err != nil {
		return nil, err
	}
	mode := ModeRGB
	if info.has_alpha != 0 {
		mode = ModeRGBA
	}
	m := newImage(mode, width, height)
	canvas := (*C.uint8_t)(unsafe.Pointer(&m.Pix[0]))
	if err := webpError(C.photo_webp_decode(in, C.size_t(len(data)), &info, canvas)); err != nil {
		return nil, err
	}
	return m, nil
}

func webpError(rc C.int) error {
	switch rc {
	case C.PHOTO_WEBP_OK:
		return nil
	case C.PHOTO_WEBP_TRUNCATED:
		return fmt.Errorf("%w: the WebP file ends before its image does", ErrTruncated)
	case C.PHOTO_WEBP_MEMORY:
		return fmt.Errorf("%w: libwebp ran out of memory", ErrTooLarge)
	default:
		return fmt.Errorf("%w: libwebp cannot decode the data", ErrBroken)
	}
}
