package photo

import "fmt"

// bmpLayout describes where the samples of a BMP pixel are and how they are decoded.
type bmpLayout struct {
	mode Mode
	bits int
	// at holds the byte offsets of red, green, blue and alpha within a pixel of 24 or 32 bits;
	// -1 means absent. It is unused for 16-bit layouts.
	at [4]int
	// green is the number of green bits in a 16-bit pixel: 5 or 6.
	green int
}

// bmpMasks lists the bit field layouts that Pillow supports, keyed by bits per pixel and the
// masks of red, green, blue and alpha.
var bmpMasks = map[[5]uint32]bmpLayout{
	{32, 0xff0000, 0xff00, 0xff, 0}:          {mode: ModeRGB, at: [4]int{2, 1, 0, -1}},
	{32, 0xff000000, 0xff0000, 0xff00, 0}:    {mode: ModeRGB, at: [4]int{3, 2, 1, -1}},
	{32, 0xff000000, 0xff00, 0xff, 0}:        {mode: ModeRGB, at: [4]int{3, 1, 0, -1}},
	{32, 0xff000000, 0xff0000, 0xff00, 0xff}: {mode: ModeRGBA, at: [4]int{3, 2, 1, 0}},
	{32, 0xff, 0xff00, 0xff0000, 0xff000000}: {mode: ModeRGBA, at: [4]int{0, 1, 2, 3}},
	{32, 0xff0000, 0xff00, 0xff, 0xff000000}: {mode: ModeRGBA, at: [4]int{2, 1, 0, 3}},
	{32, 0xff000000, 0xff00, 0xff, 0xff0000}: {mode: ModeRGBA, at: [4]int{3, 1, 0, 2}},
	{32, 0, 0, 0, 0}:                         {mode: ModeRGBA, at: [4]int{2, 1, 0, 3}},
	{24, 0xff0000, 0xff00, 0xff, 0}:          {mode: ModeRGB, at: [4]int{2, 1, 0, -1}},
	{16, 0xf800, 0x7e0, 0x1f, 0}:             {mode: ModeRGB, green: 6},
	{16, 0x7c00, 0x3e0, 0x1f, 0}:             {mode: ModeRGB, green: 5},
}

// decodeBMP reads Windows bitmaps without run-length compression.
func decodeBMP(data []byte, limit int) (*Image, error) {
	cut := fmt.Errorf("%w: the BMP ends inside its header", ErrTruncated)
	if len(data) < 18 {
		return nil, cut
	}
	start := int(le32(data[10:]))
	size := int(le32(data[14:]))
	if size != 12 && size != 40 && size != 52 && size != 56 && size != 64 && size != 108 && size != 124 {
		return nil, fmt.Errorf("%w: BMP with a header of %d bytes", ErrUnsupported, size)
	}
	if len(data) < 14+size {
		return nil, cut
	}
	h := data[14 : 14+size]
	rest := data[14+size:]
	var (
		width, height, colours int
		layout                 bmpLayout
		compression            uint32
		topDown                bool
		entry                  = 4 // bytes per palette colour
	)
	if size == 12 {
		width, height, layout.bits = le16(h[4:]), le16(h[6:]), le16(h[10:])
		entry = 3
	} else {
		width, height = int(le32(h[4:])), int(le32(h[8:]))
		if topDown = h[11] == 0xff; topDown {
			height = 1<<32 - height
		}
		layout.bits = le16(h[14:])
		compression = le32(h[16:])
		colours = int(le32(h[32:]))
	}
	if err := checkSize(width, height, limit); err != nil {
		return nil, err
	}
	switch layout.bits {
	case 1, 4, 8:
		layout.mode = ModeP
	case 16:
		layout.mode, layout.green = ModeRGB, 5
	case 24, 32:
		layout.mode, layout.at = ModeRGB, [4]int{2, 1, 0, -1}
	default:
		return nil, fmt.Errorf("%w: BMP with %d bits per pixel", ErrUnsupported, layout.bits)
	}
	switch compression {
	case 0:
	case 1, 2:
		return nil, fmt.Errorf("%w: run-length compressed BMP", ErrUnsupported)
	case 3:
		masks := h[min(size, 40):]
		if len(masks) < 12 {
			if len(rest) < 12 {
				return nil, cut
			}
			masks, rest = rest[:12], rest[12:]
		}
		key := [5]uint32{uint32(layout.bits), le32(masks), le32(masks[4:]), le32(masks[8:]), 0}
		if len(masks) >= 16 && layout.bits == 32 {
			key[4] = le32(masks[12:])
		}
		known, ok := bmpMasks[key]
		if !ok {
			return nil, fmt.Errorf("%w: BMP with bit fields %x and %d bits per pixel", ErrUnsupported, key[1:], layout.bits)
		}
		known.bits = layout.bits
		layout = known
	default:
		return nil, fmt.Errorf("%w: BMP compression %d", ErrUnsupported, compression)
	}

	var palette []byte
	if layout.mode == ModeP {
		if colours == 0 {
			colours = 1 << layout.bits
		}
		if colours > 1<<16 {
			return nil, fmt.Errorf("%w: BMP with a palette of %d colours", ErrUnsupported, colours)
		}
		if start == 14+size {
			start += entry * colours // some files do not count their palette
		}
		stored := rest[:min(entry*colours, len(rest))]
		rest = rest[len(stored):]
		if bmpGrey(stored, entry, colours) {
			layout.mode = ModeL
			if colours <= 2 {
				layout.mode = Mode1
			}
			if layout.mode == Mode1 != (layout.bits == 1) || layout.bits == 4 {
				return nil, fmt.Errorf("%w: BMP with %d bits per pixel and a palette of %d greys", ErrUnsupported, layout.bits, colours)
			}
		} else {
			if len(stored)/entry > 256 {
				return nil, fmt.Errorf("%w: BMP with a palette of %d colours", ErrUnsupported, len(stored)/entry)
			}
			palette = make([]byte, 768)
			for i := range len(stored) / entry {
				c := stored[i*entry:]
				palette[3*i], palette[3*i+1], palette[3*i+2] = c[2], c[1], c[0]
			}
		}
	}
	if start == 0 {
		start = len(data) - len(rest)
	}

	// Rows are padded to four bytes; the padding of the last row may be missing.
	row := (width*layout.bits + 7) / 8
	stride := (width*layout.bits + 31) / 32 * 4
	if need := stride*(height-1) + row; start > len(data) || need > len(data)-start {
		return nil, fmt.Errorf("%w: the BMP needs %d bytes of pixel data, but has %d",
			ErrTruncated, need, max(0, len(data)-start))
	}
	m := newImage(layout.mode, width, height)
	m.Palette = palette
	for y := range height {
		to := height - 1 - y
		if topDown {
			to = y
		}
		layout.unpack(m.row(to), data[start+y*stride:][:row], width)
	}
	return m, nil
}

// bmpGrey reports whether a palette is black and white, or the identity grey ramp.
func bmpGrey(stored []byte, entry, colours int) bool {
	for i := range colours {
		want := byte(i)
		if colours == 2 && i == 1 {
			want = 255
		}
		if len(stored) < i*entry+3 || i > 255 {
			return false
		}
		for _, v := range stored[i*entry : i*entry+3] {
			if v != want {
				return false
			}
		}
	}
	return true
}

func (l bmpLayout) unpack(out, raw []byte, n int) {
	switch {
	case l.bits < 8 && l.mode == Mode1:
		unpackBits(out, raw, n, 1, l.bits, 255)
	case l.bits < 8:
		unpackBits(out, raw, n, 1, l.bits, 1)
	case l.bits == 8:
		copy(out, raw[:n])
	case l.bits == 16:
		// 5-bit and 6-bit samples are scaled to 8 bits.
		full := 1<<l.green - 1
		for i := range n {
			v := le16(raw[2*i:])
			out[4*i] = byte(v >> (5 + l.green) & 31 * 255 / 31)
			out[4*i+1] = byte(v >> 5 & full * 255 / full)
			out[4*i+2] = byte(v & 31 * 255 / 31)
		}
	default:
		pixel := l.bits / 8
		for i := range n {
			for c, at := range l.at {
				if at >= 0 {
					out[4*i+c] = raw[pixel*i+at]
				}
			}
		}
	}
}
