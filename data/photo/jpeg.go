package photo

/*
#cgo pkg-config: libjpeg
#include "jpeg_turbo.h"
*/
import "C"

import (
	"fmt"
	"unsafe"
)

// decodeJPEG uses libjpeg-turbo, the decoder inside Pillow, with Pillow's settings. Any other
// conforming decoder could return different pixels: the standard does not specify the rounding
// of the inverse cosine transform or the chroma upsampling.
func decodeJPEG(data []byte, limit int) (*Image, error) {
	var info C.photo_jpeg_info
	in := (*C.uint8_t)(unsafe.Pointer(&data[0]))
	if err := jpegError(C.photo_jpeg_header(in, C.size_t(len(data)), &info), &info); err != nil {
		return nil, err
	}
	width, height := int(info.width), int(info.height)
	var mode Mode
	switch info.components {
	case 1:
		mode = ModeL
	case 3:
		mode = ModeRGB
	case 4:
		mode = ModeCMYK
	default:
		return nil, fmt.Errorf("%w: JPEG with %d components, want 1 (grey), 3 (colour) or 4 (CMYK)",
			ErrUnsupported, int(info.components))
	}
	if err := checkSize(width, height, limit); err != nil {
		return nil, err
	}
	m := newImage(mode, width, height)
	out := (*C.uint8_t)(unsafe.Pointer(&m.Pix[0]))
	stride := C.size_t(width * mode.BytesPerPixel())
	if err := jpegError(C.photo_jpeg_decode(in, C.size_t(len(data)), &info, out, stride), &info); err != nil {
		return nil, err
	}
	if mode == ModeCMYK {
		// Adobe's programs, which write nearly all CMYK JPEGs, store ink inverted: Pillow inverts
		// every CMYK JPEG, whether or not it is marked as Adobe's.
		for i, v := range m.Pix {
			m.Pix[i] = ^v
		}
	}
	return m, nil
}

func jpegError(rc C.int, info *C.photo_jpeg_info) error {
	switch rc {
	case C.PHOTO_JPEG_OK:
		return nil
	case C.PHOTO_JPEG_TRUNCATED:
		return fmt.Errorf("%w: the JPEG data ends before its last row", ErrTruncated)
	case C.PHOTO_JPEG_BROKEN:
		return fmt.Errorf("%w: libjpeg: %s", ErrBroken, C.GoString(&info.message[0]))
	default:
		return fmt.Errorf("%w: two JPEG headers disagree about the size", ErrBroken)
	}
}
