package world

import (
	"image"
	"image/color"
	"image/draw"
	"math"

	"golang.org/x/image/vector"
)

// rgb is a colour. Each component is between 0 and 255; intermediate results may
// lie outside that range.
type rgb [3]float32

func (c rgb) mix(d rgb, t float32) rgb {
	for i := range c {
		c[i] += (d[i] - c[i]) * t
	}
	return c
}

// lit makes a colour lighter (f > 0, up to white at 1) or darker (f < 0).
func (c rgb) lit(f float32) rgb {
	if f < 0 {
		return c.mix(rgb{}, -f)
	}
	return c.mix(rgb{255, 255, 255}, f)
}

func (c rgb) luma() float32 { return .3*c[0] + .59*c[1] + .11*c[2] }

// paint describes how a shape is filled.
type paint struct {
	colour  rgb
	second  rgb     // the other colour of the texture
	texture Texture // in local coordinates, so it turns and grows with the object
	pitch   float32 // period of the texture, in local units
	// Shading: the colour is lit by these amounts at the top and at the bottom
	// of the shape.
	top, bottom float32
	alpha       float32 // 0 means opaque, so that paint{colour: c} is a plain colour
}

func flat(c rgb) paint                { return paint{colour: c} }
func glass(c rgb, a float32) paint    { return paint{colour: c, alpha: a} }
func shaded(c rgb, f float32) paint   { return paint{colour: c, top: f, bottom: -f} }
func (p paint) lit(f float32) paint   { p.colour, p.second = p.colour.lit(f), p.second.lit(f); return p }
func (p paint) plain() paint          { p.texture = Plain; return p }
func (p paint) shade(f float32) paint { p.top, p.bottom = f, -f; return p }

// matrix maps local to picture coordinates: x' = a x + c y + e, y' = b x + d y + f.
type matrix struct{ a, b, c, d, e, f float32 }

// at returns the matrix of an object whose foot is at x, y; in local
// coordinates its head is at y = -1.
func at(x, y, height, angle float64, flip bool) matrix {
	sin, cos := math.Sincos(angle)
	h := float32(height)
	m := matrix{h * float32(cos), h * float32(sin), -h * float32(sin), h * float32(cos), float32(x), float32(y)}
	if flip {
		m.a, m.b = -m.a, -m.b
	}
	return m
}

type point struct{ x, y float32 }

type segment struct {
	verb byte // 'M', 'L', 'Q', 'C'
	p    [3]point
}

// canvas draws anti-aliased shapes onto a picture. Coordinates are local; the
// matrix maps them to pixels.
type canvas struct {
	img  *image.RGBA
	size float32
	m    matrix
	ras  *vector.Rasterizer
	mask *image.Alpha
	path []segment
}

func newCanvas(size int) *canvas {
	box := image.Rect(0, 0, size, size)
	return &canvas{
		img: image.NewRGBA(box), size: float32(size), m: matrix{a: float32(size), d: float32(size)},
		ras: vector.NewRasterizer(size, size), mask: image.NewAlpha(box),
	}
}

// clear makes the whole picture black and opaque.
func (c *canvas) clear() {
	c.bands(0, 1, rgb{}, rgb{})
}

// with runs f with another matrix, in units of the picture's side.
func (c *canvas) with(m matrix, f func()) {
	old := c.m
	s := c.size
	c.m = matrix{m.a * s, m.b * s, m.c * s, m.d * s, m.e * s, m.f * s}
	f()
	c.m = old
}

func (c *canvas) to(x, y float32) point {
	return point{c.m.a*x + c.m.c*y + c.m.e, c.m.b*x + c.m.d*y + c.m.f}
}

func (c *canvas) move(x, y float32) {
	c.path = append(c.path, segment{'M', [3]point{c.to(x, y)}})
}
func (c *canvas) line(x, y float32) {
	c.path = append(c.path, segment{'L', [3]point{c.to(x, y)}})
}
func (c *canvas) quad(x1, y1, x, y float32) {
	c.path = append(c.path, segment{'Q', [3]point{c.to(x1, y1), c.to(x, y)}})
}
func (c *canvas) cube(x1, y1, x2, y2, x, y float32) {
	c.path = append(c.path, segment{'C', [3]point{c.to(x1, y1), c.to(x2, y2), c.to(x, y)}})
}

// fill paints the path and clears it.
func (c *canvas) fill(p paint) {
	path := c.path
	c.path = c.path[:0]
	inf := float32(math.Inf(1))
	x0, y0, x1, y1 := inf, inf, -inf, -inf
	for _, s := range path {
		n := 1
		switch s.verb {
		case 'Q':
			n = 2
		case 'C':
			n = 3
		}
		for _, q := range s.p[:n] {
			x0, y0, x1, y1 = min(x0, q.x), min(y0, q.y), max(x1, q.x), max(y1, q.y)
		}
	}
	top, bottom := y0, y1
	box := image.Rect(int(math.Floor(float64(x0))), int(math.Floor(float64(y0))),
		int(math.Ceil(float64(x1)))+1, int(math.Ceil(float64(y1)))+1).Intersect(c.img.Rect)
	if box.Empty() {
		return
	}
	w, h := box.Dx(), box.Dy()
	c.ras.Reset(w, h)
	c.ras.DrawOp = draw.Src
	dx, dy := float32(box.Min.X), float32(box.Min.Y)
	for _, s := range path {
		a, b, d := s.p[0], s.p[1], s.p[2]
		switch s.verb {
		case 'M':
			c.ras.ClosePath()
			c.ras.MoveTo(a.x-dx, a.y-dy)
		case 'L':
			c.ras.LineTo(a.x-dx, a.y-dy)
		case 'Q':
			c.ras.QuadTo(a.x-dx, a.y-dy, b.x-dx, b.y-dy)
		case 'C':
			c.ras.CubeTo(a.x-dx, a.y-dy, b.x-dx, b.y-dy, d.x-dx, d.y-dy)
		}
	}
	c.ras.ClosePath()
	mask := &image.Alpha{Pix: c.mask.Pix[:w*h], Stride: w, Rect: image.Rect(0, 0, w, h)}
	c.ras.Draw(mask, mask.Rect, image.Opaque, image.Point{})

	alpha := p.alpha
	if alpha == 0 {
		alpha = 1
	}
	// The inverse of the matrix maps a pixel to its place in the texture.
	det := c.m.a*c.m.d - c.m.b*c.m.c
	ia, ib, ic, id := c.m.d/det, -c.m.b/det, -c.m.c/det, c.m.a/det
	pixels := float32(math.Sqrt(math.Abs(float64(det)))) // pixels per local unit
	for y := range h {
		row := c.img.Pix[(box.Min.Y+y)*c.img.Stride+4*box.Min.X:][: 4*w : 4*w]
		cover := mask.Pix[y*w:][:w:w]
		t := (float32(y) + dy - top) / max(bottom-top, 1)
		f := p.top + (p.bottom-p.top)*min(max(t, 0), 1)
		colour, second := p.colour.lit(f), p.second.lit(f)
		for x, a := range cover {
			if a == 0 {
				continue
			}
			q := colour
			if p.texture != Plain {
				px, py := float32(x)+dx+.5-c.m.e, float32(y)+dy+.5-c.m.f
				q = colour.mix(second, p.texture.weight((ia*px+ic*py)/p.pitch, (ib*px+id*py)/p.pitch, pixels*p.pitch))
			}
			k := alpha * float32(a) / 255
			for i := range q {
				v := float32(row[4*x+i])
				row[4*x+i] = uint8(v + (q[i]-v)*k + .5)
			}
		}
	}
}

// weight returns the weight of the second colour of a texture at u, v, in units
// of its pitch. The pitch is given in pixels, so that edges are one pixel soft.
func (t Texture) weight(u, v, pixels float32) float32 {
	// wave returns the distance to the nearest edge of a stripe, in pitches.
	wave := func(u float32) float32 {
		u -= float32(math.Floor(float64(u)))
		if u > .5 {
			u = 1 - u
		}
		return u - .25
	}
	d := float32(0)
	switch t {
	case Striped:
		d = wave(u)
	case Dotted:
		// Every other row is shifted by half a pitch.
		row := float32(math.Floor(float64(v)))
		if int(row)&1 != 0 {
			u += .5
		}
		x, y := u-float32(math.Floor(float64(u)))-.5, v-row-.5
		d = .29 - float32(math.Hypot(float64(x), float64(y)))
	case Chequered:
		a, b := wave(u), wave(v)
		d = min(abs(a), abs(b))
		if (a > 0) != (b > 0) {
			d = -d
		}
	default:
		return 0
	}
	return min(max(d*pixels+.5, 0), 1)
}

func abs(x float32) float32 { return max(x, -x) }

// The functions below draw and fill a shape.

func (c *canvas) poly(p paint, xy ...float32) {
	c.move(xy[0], xy[1])
	for i := 2; i < len(xy); i += 2 {
		c.line(xy[i], xy[i+1])
	}
	c.fill(p)
}

// kappa is the distance of the control points of a Bézier curve that
// approximates a quarter of a unit circle.
const kappa = .5523

// addEllipse adds an ellipse to the path.
func (c *canvas) addEllipse(x, y, rx, ry float32) {
	kx, ky := rx*kappa, ry*kappa
	c.move(x+rx, y)
	c.cube(x+rx, y+ky, x+kx, y+ry, x, y+ry)
	c.cube(x-kx, y+ry, x-rx, y+ky, x-rx, y)
	c.cube(x-rx, y-ky, x-kx, y-ry, x, y-ry)
	c.cube(x+kx, y-ry, x+rx, y-ky, x+rx, y)
}

func (c *canvas) ellipse(p paint, x, y, rx, ry float32) {
	c.addEllipse(x, y, rx, ry)
	c.fill(p)
}

// tilted draws an ellipse rotated by an angle.
func (c *canvas) tilted(p paint, x, y, rx, ry, angle float32) {
	old := c.m
	sin, cos := math.Sincos(float64(angle))
	s, k := float32(sin), float32(cos)
	o := c.to(x, y)
	c.m = matrix{old.a*k + old.c*s, old.b*k + old.d*s, old.c*k - old.a*s, old.d*k - old.b*s, o.x, o.y}
	c.ellipse(p, 0, 0, rx, ry)
	c.m = old
}

// rect draws a rectangle whose corner is at x, y, with rounded corners of radius r.
func (c *canvas) rect(p paint, x, y, w, h, r float32) {
	c.move(x+r, y)
	c.line(x+w-r, y)
	c.quad(x+w, y, x+w, y+r)
	c.line(x+w, y+h-r)
	c.quad(x+w, y+h, x+w-r, y+h)
	c.line(x+r, y+h)
	c.quad(x, y+h, x, y+h-r)
	c.line(x, y+r)
	c.quad(x, y, x+r, y)
	c.fill(p)
}

// stroke draws a line of the given width along points, with round joins and caps.
func (c *canvas) stroke(p paint, width float32, xy ...float32) {
	r := width / 2
	for i := 0; i+3 < len(xy); i += 2 {
		x0, y0, x1, y1 := xy[i], xy[i+1], xy[i+2], xy[i+3]
		n := float32(math.Hypot(float64(x1-x0), float64(y1-y0)))
		if n == 0 {
			continue
		}
		ux, uy := (x1-x0)/n*r, (y1-y0)/n*r
		// A single outline: overlapping parts with the same direction are filled only once.
		c.move(x0-uy, y0+ux)
		c.cube(x0-uy-1.33*ux, y0+ux-1.33*uy, x0+uy-1.33*ux, y0-ux-1.33*uy, x0+uy, y0-ux)
		c.line(x1+uy, y1-ux)
		c.cube(x1+uy+1.33*ux, y1-ux+1.33*uy, x1-uy+1.33*ux, y1+ux+1.33*uy, x1-uy, y1+ux)
	}
	c.fill(p)
}

// curve draws a quadratic Bézier curve of the given width.
func (c *canvas) curve(p paint, width, x0, y0, x1, y1, x2, y2 float32) {
	const n = 10
	xy := make([]float32, 0, 2*n+2)
	for i := range n + 1 {
		t := float32(i) / n
		a, b, d := (1-t)*(1-t), 2*t*(1-t), t*t
		xy = append(xy, a*x0+b*x1+d*x2, a*y0+b*y1+d*y2)
	}
	c.stroke(p, width, xy...)
}

// bands fills rows y0 to y1 of the picture (in units of its side) with a
// gradient from one colour to another.
func (c *canvas) bands(y0, y1 float64, from, to rgb) {
	a, b := int(math.Round(y0*float64(c.size))), int(math.Round(y1*float64(c.size)))
	for y := max(a, 0); y < min(b, c.img.Rect.Dy()); y++ {
		q := from.mix(to, (float32(y-a)+.5)/float32(b-a)).rgba()
		row := c.img.Pix[y*c.img.Stride:][:4*c.img.Rect.Dx()]
		for x := 0; x < len(row); x += 4 {
			row[x], row[x+1], row[x+2], row[x+3] = q.R, q.G, q.B, 255
		}
	}
}

func (c rgb) rgba() color.RGBA {
	return color.RGBA{clamp(c[0]), clamp(c[1]), clamp(c[2]), 255}
}

func clamp(v float32) uint8 { return uint8(min(max(v+.5, 0), 255)) }
