package photo

/*
#cgo CFLAGS: -O3
#include "resample.h"
*/
import "C"

import (
	"math"
	"unsafe"
)

// resizeCrop resizes the image to width by height and returns the cw by ch pixels at x0, y0,
// without computing any others. It follows Pillow's resize(size, filter) pixel for pixel.
//
// Each axis is a separate convolution, rows first. When the image shrinks, the filter is
// stretched by the ratio of the sizes. It is cut off at the borders and normalised to a sum of
// one. Samples
// of 8 bits are rounded to 8 bits between the axes, and their weights are integers in units of
// 2^-22; samples of 16 bits are summed in float64. Colours with alpha are multiplied by it
// before and divided by it after. Black-and-white and palette images, whose samples cannot be
// averaged, take the nearest pixel.
func (m *Image) resizeCrop(filter Filter, width, height, x0, y0, cw, ch int) *Image {
	switch {
	case width == m.Width && height == m.Height:
		return m.crop(x0, y0, cw, ch)
	case m.Mode == Mode1 || m.Mode == ModeP:
		return m.nearest(width, height, x0, y0, cw, ch)
	}
	across := newAxis(filter, m.Width, width, x0, cw)
	down := newAxis(filter, m.Height, height, y0, ch)
	// Since version 13, Pillow starts with the columns if that removes more pixels, where those
	// removed from the height count half. Up to version 12 it always started with the rows. For
	// CLIP's input, this changed only photos more than twice as tall as wide.
	downFirst := height < m.Height && 2*(m.Width-width) < m.Height-height
	if m.Mode != ModeLA && m.Mode != ModeRGBA {
		return m.resample(across, down, downFirst)
	}
	// Only the part that is needed.
	xs, ys := across.reach(), down.reach()
	part := m.crop(xs.from, ys.from, xs.to-xs.from, ys.to-ys.from)
	across.shift(xs.from)
	down.shift(ys.from)
	premultiply(part.Pix)
	out := part.resample(across, down, downFirst)
	unmultiply(out.Pix)
	return out
}

// nearest takes, for each pixel, the source pixel under its centre. The positions are sums of
// steps, not products, because their rounding decides ties.
func (m *Image) nearest(width, height, x0, y0, cw, ch int) *Image {
	xs := nearestPositions(m.Width, width, x0, cw)
	ys := nearestPositions(m.Height, height, y0, ch)
	out := newImage(m.Mode, cw, ch)
	out.Palette = m.Palette
	for i, y := range ys {
		if y < 0 {
			continue
		}
		from, to := m.row(y), out.row(i)
		for j, x := range xs {
			if x >= 0 {
				to[j] = from[x]
			}
		}
	}
	return out
}

// nearestPositions returns the source positions of n output positions starting at first, or -1
// where rounding leads past the end.
func nearestPositions(source, size, first, n int) []int {
	step := float64(float32(source)) / float64(size)
	at := step * 0.5
	for range first {
		at += step
	}
	out := make([]int, n)
	for i := range out {
		out[i] = int(at)
		if out[i] >= source {
			out[i] = -1
		}
		at += step
	}
	return out
}

// axis holds the weights for a run of output positions along one axis.
type axis struct {
	count int     // number of output positions
	width int     // number of weights stored per position
	span  []int32 // for each position, the first source position and the number of them
	exact []float64
	fixed []int32 // exact in units of 2^-22
	same  bool    // the axis keeps its size: samples are only moved
}

// reach is the range of source positions that an axis uses.
type reach struct{ from, to int }

// precision is the number of fractional bits in a weight: of 32 bits, 8 are used by the
// sample, and two are reserved for sums beyond one and for the sign.
const precision = 32 - 8 - 2

// newAxis computes the weights of n output positions, starting at first, of an axis resized
// from source to size positions. Float64 products are wrapped in conversions to keep the
// compiler from fusing them with an addition, which would round differently.
func newAxis(filter Filter, source, size, first, n int) *axis {
	a := &axis{count: n, span: make([]int32, 2*n), same: source == size}
	if a.same {
		a.width = 1
		a.exact, a.fixed = make([]float64, n), make([]int32, n)
		for i := range n {
			a.span[2*i], a.span[2*i+1] = int32(first+i), 1
			a.exact[i], a.fixed[i] = 1, 1<<precision
		}
		return a
	}
	scale := float64(float32(source)) / float64(size)
	stretch := max(scale, 1)
	support := filter.support() * stretch
	inverse := 1 / stretch
	a.width = int(math.Ceil(support))*2 + 1
	a.exact = make([]float64, n*a.width)
	a.fixed = make([]int32, n*a.width)
	for i := range n {
		centre := float64((float64(first+i) + 0.5) * scale)
		from := max(int(centre-support+0.5), 0)
		to := min(int(centre+support+0.5), source)
		w := a.exact[i*a.width:][:to-from]
		sum := 0.0
		for j := range w {
			w[j] = filter.at((float64(j+from) - centre + 0.5) * inverse)
			sum += w[j]
		}
		fixed := a.fixed[i*a.width:][:to-from]
		for j := range w {
			if sum != 0 {
				w[j] /= sum
			}
			v := float64(w[j] * (1 << precision))
			if v < 0 {
				fixed[j] = int32(v - 0.5)
			} else {
				fixed[j] = int32(v + 0.5)
			}
		}
		a.span[2*i], a.span[2*i+1] = int32(from), int32(to-from)
	}
	return a
}

func (a *axis) reach() reach {
	r := reach{from: int(a.span[0])}
	for i := range a.count {
		r.from = min(r.from, int(a.span[2*i]))
		r.to = max(r.to, int(a.span[2*i]+a.span[2*i+1]))
	}
	return r
}

// shift adapts the weights to a source without its first n positions.
func (a *axis) shift(n int) {
	for i := 0; i < len(a.span); i += 2 {
		a.span[i] -= int32(n)
	}
}

// resample applies the two passes, the first only to what the second needs.
func (m *Image) resample(across, down *axis, downFirst bool) *Image {
	if downFirst {
		xs := across.reach()
		across.shift(xs.from)
		return m.downwards(down, xs).alongRows(across, reach{0, down.count})
	}
	ys := down.reach()
	down.shift(ys.from)
	return m.alongRows(across, ys).downwards(down, reach{0, across.count})
}

// alongRows resamples the rows in ys. An axis that keeps its size is only cropped, because its
// samples would come out unchanged.
func (m *Image) alongRows(a *axis, ys reach) *Image {
	if a.same {
		return m.crop(int(a.span[0]), ys.from, a.count, ys.to-ys.from)
	}
	pixel := m.Mode.BytesPerPixel()
	out := newImage(m.Mode, a.count, ys.to-ys.from)
	if pixel == 4 {
		m.alongRows4(out, a, ys)
		return out
	}
	if m.Mode == ModeI16 {
		m.alongRows16(out, a, ys)
		return out
	}
	C.photo_rows1(cbytes(out.Pix), C.size_t(out.Width), cbytes(m.Pix[ys.from*m.Width:]), C.size_t(m.Width),
		C.int(out.Height), cints(a.span), cints(a.fixed), C.int(a.count), C.int(a.width))
	return out
}

// plainC makes the tests run the C code for processors without AVX2.
var plainC = false

// alongRows4 passes the C code weights in groups of four and halves of 15 bits (resample.h).
// The C code reads whole groups, so the last group of a position is moved left until it ends
// within the row, with zeros as its new first weights; an image narrower than its groups is
// widened.
func (m *Image) alongRows4(out *Image, a *axis, ys reach) {
	longest := 0
	for i := range a.count {
		longest = max(longest, int(a.span[2*i+1]))
	}
	groups := (longest + 3) / 4
	taps := groups * 4
	src, width := m.Pix[ys.from*m.Width*4:ys.to*m.Width*4], m.Width
	if width < taps {
		wide := make([]byte, out.Height*taps*4)
		for y := range out.Height {
			copy(wide[y*taps*4:], src[y*width*4:(y+1)*width*4])
		}
		src, width = wide, taps
	}
	first := make([]int32, a.count)
	packed := make([]int16, a.count*groups*8)
	for i := range a.count {
		from, n := int(a.span[2*i]), int(a.span[2*i+1])
		start := min(from, width-taps)
		first[i] = int32(start)
		halves := packed[i*groups*8:][:groups*8]
		for j, w := range a.fixed[i*a.width:][:n] {
			t := from - start + j
			halves[t/4*8+t%4] = int16(w & 0x7fff)
			halves[t/4*8+t%4+4] = int16(w >> 15)
		}
	}
	plain := C.int(0)
	if plainC {
		plain = 1
	}
	C.photo_rows4(cbytes(out.Pix), C.size_t(out.Width*4), cbytes(src), C.size_t(width*4), C.int(out.Height),
		cints(first), (*C.int16_t)(unsafe.Pointer(&packed[0])), C.int(a.count), C.int(groups), plain)
}

// downwards resamples the columns in xs.
func (m *Image) downwards(a *axis, xs reach) *Image {
	if a.same {
		return m.crop(xs.from, int(a.span[0]), xs.to-xs.from, a.count)
	}
	pixel := m.Mode.BytesPerPixel()
	out := newImage(m.Mode, xs.to-xs.from, a.count)
	if m.Mode == ModeI16 {
		m.downwards16(out, a, xs)
		return out
	}
	bytes := out.Width * pixel
	C.photo_columns(cbytes(out.Pix), C.size_t(bytes), cbytes(m.Pix[xs.from*pixel:]), C.size_t(m.Width*pixel),
		C.int(bytes), cints(a.span), cints(a.fixed), C.int(a.count), C.int(a.width))
	return out
}

func cbytes(b []byte) *C.uint8_t { return (*C.uint8_t)(unsafe.Pointer(&b[0])) }
func cints(v []int32) *C.int32_t { return (*C.int32_t)(unsafe.Pointer(&v[0])) }

// 16-bit samples are rare, so plain Go is fast enough.

func (m *Image) alongRows16(out *Image, a *axis, ys reach) {
	for y := range out.Height {
		from, to := m.row(ys.from+y), out.row(y)
		for x := range a.count {
			first, n := int(a.span[2*x]), int(a.span[2*x+1])
			sum := 0.0
			for i, w := range a.exact[x*a.width:][:n] {
				sum += float64(float64(le16(from[2*(first+i):])) * w)
			}
			put16(to[2*x:], sum)
		}
	}
}

func (m *Image) downwards16(out *Image, a *axis, xs reach) {
	for y := range a.count {
		first, n := int(a.span[2*y]), int(a.span[2*y+1])
		to := out.row(y)
		for x := range out.Width {
			sum := 0.0
			for i, w := range a.exact[y*a.width:][:n] {
				sum += float64(float64(le16(m.row(first + i)[2*(xs.from+x):])) * w)
			}
			put16(to[2*x:], sum)
		}
	}
}

// put16 rounds half away from zero, clamps to 0..65535 and stores the result.
func put16(b []byte, v float64) {
	n := min(max(int(v+0.5), 0), 0xffff)
	b[0], b[1] = byte(n), byte(n>>8)
}

// premultiply scales the colours of RGBA pixels by alpha.
func premultiply(p []byte) {
	for i := 0; i+3 < len(p); i += 4 {
		a := p[i+3]
		p[i], p[i+1], p[i+2] = mul255(p[i], a), mul255(p[i+1], a), mul255(p[i+2], a)
	}
}

// unmultiply inverts premultiply as far as possible: a fully transparent pixel stays as it is.
func unmultiply(p []byte) {
	for i := 0; i+3 < len(p); i += 4 {
		a := int(p[i+3])
		if a == 255 || a == 0 {
			continue
		}
		for c := i; c < i+3; c++ {
			p[c] = byte(min(255*int(p[c])/a, 255))
		}
	}
}
