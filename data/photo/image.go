package photo

import "fmt"

// Mode describes the layout of the bytes of an [Image]. The modes are those in which Pillow
// keeps the images that it reads. They matter because a resize works on the stored samples:
// the same photo saved in another mode yields different pixels.
type Mode uint8

const (
	Mode1    Mode = iota + 1 // black and white, one byte per pixel, 0 or 255
	ModeL                    // grey, one byte per pixel
	ModeI16                  // grey, two bytes per pixel, little-endian
	ModeP                    // one byte per pixel: an index into Image.Palette
	ModeLA                   // grey and straight alpha, four bytes per pixel: L L L A
	ModeRGB                  // four bytes per pixel: R G B and an unused byte
	ModeRGBA                 // red, green, blue and straight alpha, four bytes per pixel
	ModeCMYK                 // ink, 0 for none, four bytes per pixel
)

// String returns Pillow's name for the mode.
func (m Mode) String() string {
	switch m {
	case Mode1:
		return "1"
	case ModeL:
		return "L"
	case ModeI16:
		return "I;16"
	case ModeP:
		return "P"
	case ModeLA:
		return "LA"
	case ModeRGB:
		return "RGB"
	case ModeRGBA:
		return "RGBA"
	case ModeCMYK:
		return "CMYK"
	}
	return fmt.Sprintf("Mode(%d)", uint8(m))
}

// BytesPerPixel returns the number of bytes that a pixel takes in [Image].Pix.
func (m Mode) BytesPerPixel() int {
	switch m {
	case Mode1, ModeL, ModeP:
		return 1
	case ModeI16:
		return 2
	case ModeLA, ModeRGB, ModeRGBA, ModeCMYK:
		return 4
	}
	return 0
}

// An Image is a decoded photo.
type Image struct {
	Mode          Mode
	Width, Height int
	// Pix holds the rows from top to bottom, without padding:
	// Width*Height*Mode.BytesPerPixel() bytes.
	Pix []byte
	// Palette holds the 256 R G B colours of ModeP, 768 bytes; colours that the file does not
	// define are black. It is nil in other modes.
	Palette []byte
}

func newImage(mode Mode, width, height int) *Image {
	return &Image{
		Mode: mode, Width: width, Height: height,
		Pix: make([]byte, width*height*mode.BytesPerPixel()),
	}
}

// check rejects images that a caller has constructed incorrectly.
func (m *Image) check() error {
	switch {
	case m == nil:
		return fmt.Errorf("photo: the image is nil")
	case m.Mode.BytesPerPixel() == 0:
		return fmt.Errorf("photo: the image has unknown mode %v", m.Mode)
	case m.Width < 1 || m.Height < 1:
		return fmt.Errorf("photo: the image size is %dx%d, want at least 1x1", m.Width, m.Height)
	case len(m.Pix) != m.Width*m.Height*m.Mode.BytesPerPixel():
		return fmt.Errorf("photo: a %dx%d image in mode %v needs %d bytes, but Pix has %d",
			m.Width, m.Height, m.Mode, m.Width*m.Height*m.Mode.BytesPerPixel(), len(m.Pix))
	case m.Mode == ModeP && len(m.Palette) != 768:
		return fmt.Errorf("photo: an image in mode P needs a palette of 768 bytes, got %d", len(m.Palette))
	}
	return nil
}

// row returns the bytes of row y.
func (m *Image) row(y int) []byte {
	n := m.Width * m.Mode.BytesPerPixel()
	return m.Pix[y*n : (y+1)*n : (y+1)*n]
}

// RGB returns the pixels as Pillow's convert("RGB") does, as Height*Width*3 bytes: alpha is
// dropped, not blended; 16-bit grey is clamped to 255, not scaled; ink is subtracted from
// white without a colour profile.
func (m *Image) RGB() ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	out := make([]byte, 0, m.Width*m.Height*3)
	p := m.Pix
	switch m.Mode {
	case Mode1, ModeL:
		for _, v := range p {
			out = append(out, v, v, v)
		}
	case ModeI16:
		for i := 0; i+1 < len(p); i += 2 {
			v := grey16(p[i], p[i+1])
			out = append(out, v, v, v)
		}
	case ModeP:
		for _, v := range p {
			out = append(out, m.Palette[3*int(v):3*int(v)+3]...)
		}
	case ModeCMYK:
		for i := 0; i+3 < len(p); i += 4 {
			white := 255 - p[i+3]
			out = append(out, ink(p[i], white), ink(p[i+1], white), ink(p[i+2], white))
		}
	default:
		for i := 0; i+3 < len(p); i += 4 {
			out = append(out, p[i], p[i+1], p[i+2])
		}
	}
	return out, nil
}

// onWhite returns the image in mode RGB, with transparent pixels blended onto white, as
// transformers' convert_to_rgb does with Pillow's alpha_composite.
func (m *Image) onWhite() *Image {
	if m.Mode == ModeRGB {
		return m
	}
	out := newImage(ModeRGB, m.Width, m.Height)
	if m.Mode == ModeRGBA || m.Mode == ModeLA {
		for i := 0; i < len(m.Pix); i += 4 {
			for c := range 3 {
				out.Pix[i+c] = overWhite(m.Pix[i+c], m.Pix[i+3])
			}
		}
		return out
	}
	rgb, err := m.RGB()
	if err != nil {
		return m // the caller has checked the image
	}
	for i := range m.Width * m.Height {
		copy(out.Pix[4*i:], rgb[3*i:3*i+3])
	}
	return out
}

// overWhite blends v, of opacity a, with white. It keeps 7 bits more than the result.
func overWhite(v, a byte) byte {
	const bits = 7
	of := uint32(a) << bits
	sum := uint32(v)*of + 255*(255<<bits-of) + 0x80<<bits
	return byte((sum>>8 + sum) >> 8 >> bits)
}

// grey16 clamps a 16-bit sample to 255.
func grey16(low, high byte) byte {
	if high != 0 {
		return 255
	}
	return low
}

// ink returns how much of the light white, which is 255 minus black, passes an ink of amount v.
func ink(v, white byte) byte { return white - mul255(v, white) }

// mul255 returns a*b/255, rounded to nearest, without a division.
func mul255(a, b byte) byte {
	t := uint(a)*uint(b) + 128
	return byte((t + t>>8) >> 8)
}

// crop copies the w by h pixels at x, y, which must lie within the image.
func (m *Image) crop(x, y, w, h int) *Image {
	out := newImage(m.Mode, w, h)
	out.Palette = m.Palette
	n := m.Mode.BytesPerPixel()
	for i := range h {
		copy(out.row(i), m.row(y + i)[x*n:(x+w)*n])
	}
	return out
}
