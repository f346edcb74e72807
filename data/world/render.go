package world

import (
	"image"
	"math/rand/v2"
)

// Render draws a scene.
func Render(s Scene) *image.RGBA {
	c := newCanvas(s.Pixels)
	s.render(c)
	return c.img
}

// render draws a scene over the contents of a canvas of the same size.
func (s Scene) render(c *canvas) {
	c.clear()
	rng := rand.New(rand.NewPCG(s.Seed, 1))
	backgrounds[s.Background].draw(c, &s, rng)
	for _, it := range s.Items {
		s.draw(c, it, rng)
	}
	s.photograph(c.img, rng)
}

// draw draws an object and its shadow.
func (s *Scene) draw(c *canvas, it Item, rng *rand.Rand) {
	g := s.group(it)
	k := &kinds[g.Kind]
	x, y, h := float32(it.X), float32(it.Y), float32(it.Height)
	w := h * float32(k.width) / 2
	swims := s.Background == Sea && !g.Air
	if !g.Air && !swims {
		c.ellipse(glass(rgb{20, 20, 40}, .2), x+.03*h, y, w*.98, .07*h)
		c.ellipse(glass(rgb{20, 20, 40}, .16), x+.02*h, y, w*.75, .04*h)
	}
	base := jitter(rng, colours[g.Colour], 7)
	l := look{base: base, air: g.Air, main: paint{colour: base, second: second(g.Colour), texture: g.Texture, pitch: .2}}
	c.with(at(it.X, it.Y, it.Height, it.Angle, it.Flip), func() { k.draw(c, l) })
	if swims {
		// The water covers its foot.
		water := rgb{58, 122, 158}
		c.ellipse(glass(water, .6), x, y+.01, w*.95, .05*h+.008)
		for i := range 3 {
			d := float32(i-1) * w * .5
			c.ellipse(glass(rgb{240, 248, 252}, .5), x+d, y-.012+.012*abs(float32(i-1)), w*.28, .006)
		}
	}
}

// photograph turns a drawing into a photo: light, blur and noise of a camera.
func (s *Scene) photograph(img *image.RGBA, rng *rand.Rand) {
	cam, n := s.Camera, img.Rect.Dx()
	if cam.Blur > 0 {
		blur(img, cam.Blur)
	}
	// Noise from a table is fast, and its repetition is invisible.
	var noise [1024]int16
	for i := range noise {
		noise[i] = int16(rng.NormFloat64() * cam.Noise * 16)
	}
	var gain [3]int32
	column := make([]int32, n)
	for x := range column {
		column[x] = int32(1024 * cam.Gradient[0] * (float64(x)/float64(n) - .5))
	}
	for y := range n {
		light := 1 + cam.Gradient[1]*(float64(y)/float64(n)-.5)
		for i := range gain {
			gain[i] = int32(1024 * cam.Brightness * cam.Cast[i] * light)
		}
		row := img.Pix[y*img.Stride:][: 4*n : 4*n]
		random := rng.Uint64()
		for x := 0; x < n; x++ {
			if x%6 == 0 {
				random = random*6364136223846793005 + 1442695040888963407
			}
			at := random >> (uint(x%6) * 5 & 63) >> 24
			for i := range gain {
				v := (int32(row[4*x+i])*(gain[i]+column[x]) + int32(noise[(at+uint64(i)*337)&1023])*64 + 512) >> 10
				row[4*x+i] = uint8(min(max(v, 0), 255))
			}
		}
	}
}

// blur mixes each pixel with the mean of its two neighbours, first along rows
// and then along columns.
func blur(img *image.RGBA, share float64) {
	n := img.Rect.Dx()
	side := int32(share * 256 / 4) // weight of each neighbour
	mid := 256 - 2*side
	line := make([]uint8, 4*(n+2))
	pass := func(start, step int) {
		for x := range n {
			copy(line[4*(x+1):4*(x+2)], img.Pix[start+x*step:])
		}
		copy(line[:4], line[4:8])
		copy(line[4*(n+1):], line[4*n:4*(n+1)])
		for x := range n {
			p := img.Pix[start+x*step:][:3]
			for i := range p {
				j := 4*x + i
				p[i] = uint8((int32(line[j])*side + int32(line[j+4])*mid + int32(line[j+8])*side + 128) >> 8)
			}
		}
	}
	for y := range n {
		pass(y*img.Stride, 4)
	}
	for x := range n {
		pass(4*x, img.Stride)
	}
}
