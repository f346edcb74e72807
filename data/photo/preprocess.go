package photo

import (
	"fmt"
	"math"
)

// Preprocess describes how a photo becomes the square input of a network: it is resized and
// cropped, converted to RGB, scaled and normalised with a mean and a standard deviation per
// channel. The zero values of all fields but Size, Mean and Std are the steps of OpenAI's CLIP,
// which are torchvision's Resize (bicubic), CenterCrop, ToTensor and Normalize, in order.
//
// [CLIP] and [SigLIP] return the usual settings; [ParseTransformers] and [ParseOpenCLIP] read
// them from the files that come with weights.
type Preprocess struct {
	Size      int // side of the input
	Mean, Std [3]float32

	Resize Resize
	// Side is the side to which Resize resizes, if it is larger than Size; the crop removes the
	// rest. 0 stands for Size.
	Side   int
	Filter Filter
	Fill   uint8 // the samples around the photo, for Longest
	// Factor is multiplied with the samples, in float64 as transformers does. 0 stands for a
	// division by 255 in float32, as in ToTensor.
	Factor float64
	// Transformers selects the order of transformers' image processors: a photo becomes RGB
	// before it is resized, a transparent one on a white background, and where the crop leaves
	// an odd number of pixels, the smaller half is at the top or left. Otherwise the photo
	// becomes RGB last and drops its transparency, and half a pixel is rounded to even.
	Transformers bool
}

// Resize says which size a photo is given before the centre is cropped.
type Resize uint8

// The ways to resize. Their names are those of open_clip's resize_mode.
const (
	Shortest Resize = iota // the shorter side becomes Side
	Squash                 // both sides become Side; the photo is distorted
	Longest                // the longer side becomes Size; the rest is filled with Fill
)

// The mean and standard deviation of OpenAI's CLIP and of SigLIP.
var (
	clipMean = [3]float32{0.48145466, 0.4578275, 0.40821073}
	clipStd  = [3]float32{0.26862954, 0.26130258, 0.27577711}
	halves   = [3]float32{0.5, 0.5, 0.5}
)

// CLIP returns the preprocessing of OpenAI's CLIP models at a size of 224 (ViT-B/32, B/16,
// L/14) or 336 (L/14@336px). Mean and standard deviation are those of the CLIP repository.
func CLIP(size int) Preprocess {
	return Preprocess{Size: size, Mean: clipMean, Std: clipStd}
}

// SigLIP returns the preprocessing of transformers' SiglipImageProcessor without other settings.
func SigLIP(size int) Preprocess {
	return Preprocess{Size: size, Mean: halves, Std: halves, Resize: Squash, Factor: 1. / 255, Transformers: true}
}

// Len returns the number of values that a photo becomes: 3*Size*Size.
func (p Preprocess) Len() int { return 3 * p.Size * p.Size }

// maxSize bounds the sizes, to prevent an overflow of Len; no network comes near it.
const maxSize = 1 << 14

func (p Preprocess) check() error {
	if p.Size < 1 || p.Size > maxSize {
		return fmt.Errorf("photo: preprocessing to size %d: must be between 1 and %d", p.Size, maxSize)
	}
	if p.Side != 0 && (p.Side < p.Size || p.Side > maxSize || p.Resize == Longest) {
		return fmt.Errorf("photo: resizing to %d before a crop of %d: must be between %d and %d, and without Longest", p.Side, p.Size, p.Size, maxSize)
	}
	if p.Resize > Longest {
		return fmt.Errorf("photo: unknown way to resize %d", p.Resize)
	}
	if p.Filter > Hamming {
		return fmt.Errorf("photo: unknown filter %d", p.Filter)
	}
	if math.IsNaN(p.Factor) || math.IsInf(p.Factor, 0) {
		return fmt.Errorf("photo: the factor of the samples must be finite, got %v", p.Factor)
	}
	for _, s := range p.Std {
		if s == 0 {
			return fmt.Errorf("photo: the standard deviations must not be zero, got %v", p.Std)
		}
	}
	return nil
}

// Into writes the photo to dst as float32 values [3, Size, Size]: the red channel row by row,
// then green, then blue. dst must have exactly p.Len() values; it may be a row of a batch.
func (p Preprocess) Into(dst []float32, m *Image) error {
	rgb, err := p.PixelsRGB(m)
	if err != nil {
		return err
	}
	if len(dst) != p.Len() {
		return fmt.Errorf("photo: preprocessing to size %d writes %d values, but the destination has room for %d", p.Size, p.Len(), len(dst))
	}
	// A sample has only 256 values, so the divisions are done once per value and channel.
	var table [3][256]float32
	for c := range table {
		for v := range table[c] {
			x := float32(v) / 255
			if p.Factor != 0 {
				x = float32(float64(v) * p.Factor)
			}
			table[c][v] = (x - p.Mean[c]) / p.Std[c]
		}
	}
	n := p.Size * p.Size
	r, g, b := dst[:n], dst[n:2*n], dst[2*n:3*n]
	for i := range n {
		px := rgb[3*i : 3*i+3 : 3*i+3]
		r[i], g[i], b[i] = table[0][px[0]], table[1][px[1]], table[2][px[2]]
	}
	return nil
}

// PixelsRGB returns the resized and cropped photo before it is normalised, as [Size, Size, 3]
// R G B bytes. Comparing both this and [Image.RGB] with a reference shows whether a difference
// comes from decoding or from resizing.
func (p Preprocess) PixelsRGB(m *Image) ([]byte, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	if p.Transformers {
		m = m.onWhite()
	}
	if p.Resize == Longest {
		return p.fit(m)
	}
	side := max(p.Side, p.Size)
	width, height := side, side
	switch {
	case p.Resize == Squash:
	case m.Width <= m.Height:
		height = longSide(side, m.Height, m.Width)
	default:
		width = longSide(side, m.Width, m.Height)
	}
	x, y := middle(width, p.Size), middle(height, p.Size)
	if p.Transformers {
		x, y = (width-p.Size)/2, (height-p.Size)/2
	}
	return m.resizeCrop(p.Filter, width, height, x, y, p.Size, p.Size).RGB()
}

// fit resizes the photo until its longer side is p.Size and centres it on p.Fill, like
// open_clip's ResizeKeepRatio and CenterCropOrPad.
func (p Preprocess) fit(m *Image) ([]byte, error) {
	ratio := max(float64(m.Height)/float64(p.Size), float64(m.Width)/float64(p.Size))
	width := int(math.RoundToEven(float64(m.Width) / ratio))
	height := int(math.RoundToEven(float64(m.Height) / ratio))
	if width < 1 || height < 1 {
		return nil, fmt.Errorf("photo: a photo of %dx%d pixels is too narrow: resized until its longer side has %d, it has no pixels", m.Width, m.Height, p.Size)
	}
	small := m.resizeCrop(p.Filter, width, height, 0, 0, width, height)
	out := newImage(m.Mode, p.Size, p.Size)
	out.Palette = m.Palette
	pixel := m.Mode.BytesPerPixel()
	fill := p.Fill
	if m.Mode == Mode1 && fill != 0 {
		fill = 255
	}
	for i := range out.Pix {
		if m.Mode != ModeI16 || i%2 == 0 {
			out.Pix[i] = fill
		}
	}
	x, y := (p.Size-width)/2, (p.Size-height)/2
	for i := range height {
		copy(out.row(y + i)[x*pixel:], small.row(i))
	}
	return out.RGB()
}

// longSide is Python's int(size*long/short).
func longSide(size, long, short int) int {
	return int(float64(size*long) / float64(short))
}

// middle returns where a crop of size begins: Python's round((length-size)/2), half to even.
func middle(length, size int) int {
	return int(math.RoundToEven(float64(length-size) / 2))
}
