package photo

import (
	"fmt"
	"math"
)

// Preprocess says how a photo becomes a network's input: the shorter side is resized to
// Size, the middle Size by Size pixels are cut out, turned into R G B, scaled to 0..1 and
// normalised with a mean and a deviation for each colour. This is the order of OpenAI's
// CLIP, and of torchvision's Resize (bicubic), CenterCrop, ToTensor and Normalize.
type Preprocess struct {
	Size      int
	Mean, Std [3]float32
}

// CLIP gives the preprocessing of OpenAI's CLIP models at a size of 224 (ViT-B/32, B/16,
// L/14) or 336 (L/14@336px). Mean and deviation are those that the CLIP repository states.
func CLIP(size int) Preprocess {
	return Preprocess{
		Size: size,
		Mean: [3]float32{0.48145466, 0.4578275, 0.40821073},
		Std:  [3]float32{0.26862954, 0.26130258, 0.27577711},
	}
}

// Len gives the number of values that one photo becomes: 3*Size*Size.
func (p Preprocess) Len() int { return 3 * p.Size * p.Size }

func (p Preprocess) check() error {
	// The bound keeps Len far from overflow; no network comes near it.
	if p.Size < 1 || p.Size > 1<<14 {
		return fmt.Errorf("photo: preprocessing to size %d, want 1 to %d", p.Size, 1<<14)
	}
	for _, s := range p.Std {
		if s == 0 {
			return fmt.Errorf("photo: preprocessing with deviation %v: zero cannot be divided by", p.Std)
		}
	}
	return nil
}

// Into writes the photo as float32 values [3, Size, Size] into dst: all of red by rows,
// then green, then blue. dst must have exactly p.Len() values: a row of a batch, say.
func (p Preprocess) Into(dst []float32, m *Image) error {
	rgb, err := p.PixelsRGB(m)
	if err != nil {
		return err
	}
	if len(dst) != p.Len() {
		return fmt.Errorf("photo: preprocessing to size %d writes %d values, the destination has %d", p.Size, p.Len(), len(dst))
	}
	// A sample has 256 values, so each colour has: the divisions are done once for each.
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

// PixelsRGB gives the resized and cropped photo before it is normalised, [Size, Size, 3]
// bytes R G B. Comparing it beside [Image.RGB] tells differences of decoding from those of
// resizing.
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

// middle is where a crop of size begins: Python's round((length-size)/2), half to even.
func middle(length, size int) int {
	return int(math.RoundToEven(float64(length-size) / 2))
}
