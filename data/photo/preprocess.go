package photo

import (
	"fmt"
	"math"
)

// Preprocess describes how a photo becomes the input of a network: the shorter side is resized
// to Size, the central Size by Size pixels are cropped, converted to RGB, scaled to [0, 1] and
// normalised with a mean and a standard deviation per channel. These are the steps of OpenAI's
// CLIP, and of torchvision's Resize (bicubic), CenterCrop, ToTensor and Normalize, in order.
type Preprocess struct {
	Size      int
	Mean, Std [3]float32
}

// CLIP returns the preprocessing of OpenAI's CLIP models at a size of 224 (ViT-B/32, B/16,
// L/14) or 336 (L/14@336px). Mean and standard deviation are those of the CLIP repository.
func CLIP(size int) Preprocess {
	return Preprocess{
		Size: size,
		Mean: [3]float32{0.48145466, 0.4578275, 0.40821073},
		Std:  [3]float32{0.26862954, 0.26130258, 0.27577711},
	}
}

// Len returns the number of values that a photo becomes: 3*Size*Size.
func (p Preprocess) Len() int { return 3 * p.Size * p.Size }

func (p Preprocess) check() error {
	// The bound prevents an overflow of Len; no network comes near it.
	if p.Size < 1 || p.Size > 1<<14 {
		return fmt.Errorf("photo: preprocessing to size %d: must be between 1 and %d", p.Size, 1<<14)
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
			table[c][v] = (float32(v)/255 - p.Mean[c]) / p.Std[c]
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
	width, height := p.Size, p.Size
	if m.Width <= m.Height {
		height = longSide(p.Size, m.Height, m.Width)
	} else {
		width = longSide(p.Size, m.Width, m.Height)
	}
	return m.resizeCrop(width, height, middle(width, p.Size), middle(height, p.Size), p.Size, p.Size).RGB()
}

// longSide is Python's int(size*long/short).
func longSide(size, long, short int) int {
	return int(float64(size*long) / float64(short))
}

// middle returns where a crop of size begins: Python's round((length-size)/2), half to even.
func middle(length, size int) int {
	return int(math.RoundToEven(float64(length-size) / 2))
}
