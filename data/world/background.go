package world

import (
	"math"
	"math/rand/v2"
)

// background describes a background.
type background struct {
	horizon float64
	hides   []Colour // colours that would not be visible on it
	draw    func(c *canvas, s *Scene, rng *rand.Rand)
}

// In the order of the constants.
var backgrounds = [backgroundCount]background{
	Beach:     {horizon: .5, draw: drawBeach},
	Meadow:    {horizon: .52, draw: drawMeadow},
	Street:    {horizon: .6, draw: drawStreet},
	Room:      {horizon: .66, draw: drawRoom},
	Night:     {horizon: .64, hides: []Colour{Black}, draw: drawNight},
	Snow:      {horizon: .52, hides: []Colour{White}, draw: drawSnow},
	Desert:    {horizon: .52, draw: drawDesert},
	Sea:       {horizon: .45, draw: drawSea},
	Mountains: {horizon: .58, draw: drawMountains},
	Forest:    {horizon: .6, draw: drawForest},
}

// jitter returns a colour close to c, so that no two photos use the same one.
func jitter(rng *rand.Rand, c rgb, by float64) rgb {
	for i := range c {
		c[i] += float32(span(rng, -by, by))
	}
	return c
}

// sky draws the sky and everything in it, down to the horizon.
func sky(c *canvas, s *Scene, rng *rand.Rand) {
	top, low := rgb{96, 158, 222}, rgb{196, 224, 244}
	switch s.Light {
	case Sunny:
		top, low = rgb{64, 142, 226}, rgb{178, 220, 248}
	case Cloudy:
		top, low = rgb{150, 162, 176}, rgb{204, 210, 216}
	case Sunset:
		top, low = rgb{98, 92, 150}, rgb{250, 178, 116}
	}
	c.bands(0, s.Horizon+.12, jitter(rng, top, 10), jitter(rng, low, 8))
	sunX, sunY := float32(span(rng, .08, .92)), float32(span(rng, .08, .2))
	switch s.Light {
	case Sunny:
		c.ellipse(glass(rgb{255, 248, 200}, .3), sunX, sunY, .085, .085)
		c.ellipse(flat(rgb{255, 244, 170}), sunX, sunY, .055, .055)
	case Sunset:
		y := float32(s.Horizon) - float32(span(rng, .03, .08))
		c.ellipse(glass(rgb{255, 220, 150}, .35), sunX, y, .12, .12)
		c.ellipse(flat(rgb{255, 206, 110}), sunX, y, .075, .075)
	}
	clouds := rng.IntN(3)
	white, alpha := rgb{255, 255, 255}, float32(.75)
	switch s.Light {
	case Cloudy:
		clouds, white, alpha = 5+rng.IntN(3), rgb{226, 230, 234}, .6
	case Sunset:
		white, alpha = rgb{250, 190, 160}, .55
	}
	for range clouds {
		cloud(c, rng, float32(span(rng, 0, 1)), float32(span(rng, .05, s.Horizon*.6)), float32(span(rng, .05, .1)), glass(white, alpha))
	}
}

func cloud(c *canvas, rng *rand.Rand, x, y, r float32, p paint) {
	n := 3 + rng.IntN(3)
	for i := range n { // one shape, so that the overlaps are invisible
		t := float32(i)/float32(n-1)*2 - 1
		ry := r * (1 - .45*t*t) * float32(span(rng, .75, 1)) * .62
		c.addEllipse(x+t*r*1.4, y-ry*.5, r*.75, ry)
	}
	c.fill(p)
}

// ridge fills everything below a wavy line.
func ridge(c *canvas, rng *rand.Rand, y, swing float64, p paint) {
	const n = 6
	c.move(-.1, 1.1)
	last := float32(y + span(rng, -swing, swing))
	c.line(-.1, last)
	for i := range n {
		x := -.1 + 1.2*float32(i)/n
		next := float32(y + span(rng, -swing, swing))
		c.cube(x+.07, last, x+.13, next, x+.2, next)
		last = next
	}
	c.line(1.1, 1.1)
	c.fill(p)
}

// specks scatters small marks over the ground, larger ones closer to the viewer.
func specks(c *canvas, rng *rand.Rand, n int, y0 float64, mark func(x, y, scale float32)) {
	for range n {
		t := math.Sqrt(rng.Float64())
		mark(float32(rng.Float64()), float32(y0+(1-y0)*t), float32(.35+.65*t))
	}
}

func ground(s *Scene, c rgb) rgb {
	switch s.Light {
	case Cloudy:
		return c.lit(-.1)
	case Sunset:
		return c.mix(rgb{214, 140, 90}, .18)
	}
	return c
}

func drawBeach(c *canvas, s *Scene, rng *rand.Rand) {
	sky(c, s, rng)
	shore := s.Horizon + span(rng, .08, .13)
	water := ground(s, jitter(rng, rgb{52, 140, 178}, 14))
	c.bands(s.Horizon, shore+.05, water.lit(-.1), water.lit(.25))
	sand := ground(s, jitter(rng, rgb{232, 208, 152}, 12))
	ridge(c, rng, shore-.006, .008, glass(rgb{250, 252, 250}, .8))
	ridge(c, rng, shore+.01, .01, paint{colour: sand, top: -.08, bottom: .1})
	specks(c, rng, 45, shore+.03, func(x, y, k float32) {
		c.ellipse(glass(sand.lit(-.3), .5), x, y, .006*k, .0035*k)
	})
}

func grass(c *canvas, s *Scene, rng *rand.Rand, from float64, base rgb) {
	specks(c, rng, 60, from, func(x, y, k float32) {
		tone := base.lit(float32(span(rng, -.3, .25)))
		c.move(x-.006*k, y)
		c.line(x+float32(span(rng, -.012, .012))*k, y-.035*k)
		c.line(x+.006*k, y)
		c.fill(flat(tone))
	})
}

func drawMeadow(c *canvas, s *Scene, rng *rand.Rand) {
	sky(c, s, rng)
	base := ground(s, jitter(rng, rgb{112, 172, 78}, 14))
	ridge(c, rng, s.Horizon-.03, .03, flat(base.mix(rgb{150, 190, 190}, .45)))
	ridge(c, rng, s.Horizon+.02, .02, paint{colour: base, top: .12, bottom: -.14})
	grass(c, s, rng, s.Horizon+.06, base)
}

func drawStreet(c *canvas, s *Scene, rng *rand.Rand) {
	sky(c, s, rng)
	x := float32(-.02)
	y := float32(s.Horizon)
	for x < 1 {
		w, h := float32(span(rng, .11, .22)), float32(span(rng, .18, .42))
		wall := ground(s, pick(rng, []rgb{{176, 150, 136}, {160, 164, 172}, {190, 176, 150}, {142, 134, 140}}))
		wall = jitter(rng, wall, 10).mix(rgb{200, 210, 220}, .25)
		c.rect(paint{colour: wall, top: .06, bottom: -.06}, x, y-h, w, h+.02, 0)
		cols := int(w / .05)
		gap := w / float32(cols)
		lit := wall.lit(-.25).mix(rgb{110, 140, 170}, .4)
		for i := range cols {
			for r := float32(0); r < h-.09; r += .065 {
				c.rect(flat(lit), x+gap*(float32(i)+.25), y-h+.03+r, gap*.5, .035, 0)
			}
		}
		x += w + .004
	}
	pavement := ground(s, jitter(rng, rgb{188, 184, 178}, 8))
	c.bands(s.Horizon, s.Horizon+.07, pavement.lit(-.1), pavement)
	c.bands(s.Horizon+.07, s.Horizon+.085, pavement.lit(-.35), pavement.lit(-.3))
	road := ground(s, jitter(rng, rgb{112, 114, 120}, 8))
	c.bands(s.Horizon+.085, 1, road, road.lit(-.1))
	mid := float32(s.Horizon) + .085 + (1-float32(s.Horizon)-.085)*.55
	shift := float32(span(rng, -.2, 0))
	for i := range 6 {
		x := shift + .24*float32(i)
		c.poly(flat(rgb{232, 230, 220}), x, mid, x+.12, mid, x+.11, mid+.02, x-.012, mid+.02)
	}
}

func drawRoom(c *canvas, s *Scene, rng *rand.Rand) {
	wall := jitter(rng, pick(rng, []rgb{{226, 214, 196}, {204, 216, 214}, {222, 204, 206}, {208, 210, 226}, {214, 222, 200}}), 8)
	floor := jitter(rng, pick(rng, []rgb{{168, 122, 84}, {188, 150, 110}, {138, 104, 80}}), 8)
	c.bands(0, s.Horizon, wall.lit(.06), wall.lit(-.06))
	h := float32(s.Horizon)
	// A window and a framed picture.
	x := float32(span(rng, .06, .6))
	view := rgb{170, 210, 240}
	if s.Light == Dim {
		view = rgb{70, 84, 124}
	}
	c.rect(flat(rgb{250, 248, 242}), x, .08, .3, .3, .008)
	c.rect(paint{colour: view, top: -.08, bottom: .25}, x+.02, .1, .26, .26, 0)
	c.rect(flat(rgb{250, 248, 242}), x+.142, .1, .016, .26, 0)
	c.rect(flat(rgb{250, 248, 242}), x+.02, .222, .26, .016, 0)
	px := x + .42
	if px > .8 {
		px = x - .26
	}
	if px > -.1 {
		c.rect(flat(rgb{104, 78, 58}), px, .13, .17, .2, .004)
		c.rect(flat(rgb{236, 232, 220}), px+.015, .145, .14, .17, 0)
		c.poly(flat(wall.lit(-.3)), px+.03, .3, px+.08, .21, px+.14, .3)
	}
	c.bands(s.Horizon, 1, floor.lit(-.08), floor.lit(.08))
	c.rect(flat(rgb{244, 240, 232}), -.01, h-.03, 1.02, .035, 0)
	for i := -4; i <= 14; i++ { // floorboards, towards a vanishing point
		bx := .5 + (float32(i)-5)*.12
		ex := .5 + (float32(i)-5)*.3
		c.stroke(glass(floor.lit(-.45), .5), .004, bx, h+.006, ex, 1.01)
	}
	if chance(rng, .6) {
		rug := jitter(rng, pick(rng, []rgb{{176, 168, 160}, {158, 172, 180}, {190, 172, 156}}), 10)
		y := (h + 1) / 2
		c.ellipse(flat(rug.lit(-.15)), .5, y+.05, .44, .13)
		c.ellipse(flat(rug), .5, y+.05, .4, .112)
	}
}

func drawNight(c *canvas, s *Scene, rng *rand.Rand) {
	c.bands(0, s.Horizon+.1, jitter(rng, rgb{14, 18, 48}, 5), jitter(rng, rgb{52, 60, 108}, 8))
	for range 55 {
		r := float32(span(rng, .0015, .0045))
		c.ellipse(glass(rgb{255, 250, 225}, float32(span(rng, .4, 1))), float32(rng.Float64()), float32(rng.Float64()*s.Horizon), r, r)
	}
	x, y := float32(span(rng, .08, .92)), float32(span(rng, .08, .2))
	c.ellipse(glass(rgb{250, 246, 215}, .12), x, y, .1, .1)
	c.ellipse(flat(rgb{248, 242, 208}), x, y, .05, .05)
	c.ellipse(flat(rgb{228, 220, 184}), x+.015, y-.01, .012, .012)
	hill := jitter(rng, rgb{44, 60, 66}, 6)
	ridge(c, rng, s.Horizon-.02, .035, flat(hill.lit(-.25)))
	ridge(c, rng, s.Horizon+.04, .02, paint{colour: hill, top: .05, bottom: .12})
}

func drawSnow(c *canvas, s *Scene, rng *rand.Rand) {
	sky(c, s, rng)
	snow := ground(s, jitter(rng, rgb{238, 243, 250}, 4))
	ridge(c, rng, s.Horizon-.03, .035, flat(snow.mix(rgb{150, 176, 206}, .45)))
	for range 7 { // distant fir trees
		x, y, k := float32(rng.Float64()), float32(s.Horizon+.02), float32(span(rng, .05, .09))
		fir := flat(rgb{88, 120, 118})
		c.poly(fir, x-k*.35, y, x, y-k*1.2, x+k*.35, y)
	}
	ridge(c, rng, s.Horizon+.02, .02, paint{colour: snow, top: -.05, bottom: .2})
	specks(c, rng, 40, s.Horizon+.06, func(x, y, k float32) {
		c.ellipse(glass(rgb{176, 198, 224}, .4), x, y, .02*k, .004*k)
	})
	if s.Light == Cloudy {
		for range 70 {
			r := float32(span(rng, .003, .007))
			c.ellipse(glass(rgb{255, 255, 255}, .85), float32(rng.Float64()), float32(rng.Float64()), r, r)
		}
	}
}

func drawDesert(c *canvas, s *Scene, rng *rand.Rand) {
	sky(c, s, rng)
	sand := ground(s, jitter(rng, rgb{216, 162, 96}, 10))
	ridge(c, rng, s.Horizon-.02, .05, flat(sand.mix(rgb{230, 200, 180}, .4)))
	ridge(c, rng, s.Horizon+.04, .035, paint{colour: sand.lit(-.08), top: .1, bottom: -.05})
	for range 2 + rng.IntN(2) { // cacti
		x, y, k := float32(span(rng, .03, .97)), float32(s.Horizon+span(rng, .05, .09)), float32(span(rng, .1, .16))
		p := flat(rgb{84, 124, 76})
		c.stroke(p, k*.22, x, y, x, y-k)
		c.stroke(p, k*.16, x, y-k*.4, x-k*.36, y-k*.45, x-k*.36, y-k*.75)
		c.stroke(p, k*.16, x, y-k*.55, x+k*.34, y-k*.6, x+k*.34, y-k*.9)
	}
	ridge(c, rng, s.Horizon+.14, .03, paint{colour: sand, top: .12, bottom: -.08})
	specks(c, rng, 30, s.Horizon+.2, func(x, y, k float32) {
		c.ellipse(glass(sand.lit(-.35), .5), x, y, .008*k, .004*k)
	})
}

func drawSea(c *canvas, s *Scene, rng *rand.Rand) {
	sky(c, s, rng)
	water := ground(s, jitter(rng, rgb{44, 116, 158}, 12))
	if s.Light == Sunset {
		water = water.mix(rgb{240, 160, 110}, .25)
	}
	c.bands(s.Horizon, 1, water.lit(.22), water.lit(-.22))
	waves(c, rng, s.Horizon+.02, 55, glass(rgb{235, 246, 250}, .4))
}

func waves(c *canvas, rng *rand.Rand, from float64, n int, p paint) {
	specks(c, rng, n, from, func(x, y, k float32) {
		w := float32(span(rng, .02, .06)) * k
		c.move(x-w, y)
		c.quad(x-w*.5, y-.014*k, x, y)
		c.quad(x+w*.5, y-.014*k, x+w, y)
		c.quad(x+w*.5, y-.006*k, x, y+.004*k)
		c.quad(x-w*.5, y-.006*k, x-w, y)
		c.fill(p)
	})
}

func drawMountains(c *canvas, s *Scene, rng *rand.Rand) {
	sky(c, s, rng)
	for layer := range 2 {
		rock := ground(s, jitter(rng, rgb{112, 116, 136}, 8)).mix(rgb{190, 204, 224}, .45-.35*float32(layer))
		x := float32(span(rng, -.15, .05))
		for x < 1.1 {
			w, h := float32(span(rng, .22, .36)), float32(span(rng, .16, .38))*(1-.3*float32(layer))
			y := float32(s.Horizon) + .02
			c.poly(paint{colour: rock, top: .08, bottom: -.08}, x-w*.7, y, x, y-h, x+w*.7, y)
			c.poly(glass(rgb{}, .12), x, y-h, x+w*.7, y, x+w*.15, y)
			if layer == 0 || h > .2 { // the snow on the top
				t := float32(.3)
				c.poly(flat(rgb{246, 249, 252}), x, y-h, x+w*.7*t, y-h*(1-t), x+w*.08, y-h*(1-t*.7), x-w*.06, y-h*(1-t*1.1), x-w*.7*t, y-h*(1-t))
			}
			x += w * float32(span(rng, .7, 1.1))
		}
	}
	base := ground(s, jitter(rng, rgb{124, 158, 92}, 10))
	ridge(c, rng, s.Horizon+.02, .015, paint{colour: base, top: .05, bottom: -.15})
	grass(c, s, rng, s.Horizon+.1, base)
}

func drawForest(c *canvas, s *Scene, rng *rand.Rand) {
	deep := ground(s, jitter(rng, rgb{70, 112, 78}, 10))
	c.bands(0, s.Horizon+.1, deep.mix(rgb{200, 224, 190}, .35), deep.mix(rgb{190, 214, 170}, .55))
	for layer := range 2 {
		tone := deep.mix(rgb{176, 202, 164}, .5-.4*float32(layer))
		trunk := rgb{104, 82, 62}.mix(rgb{170, 190, 160}, .5-.4*float32(layer))
		x := float32(span(rng, -.05, .05))
		for x < 1.05 {
			w := float32(span(rng, .02, .035)) * (1 + .6*float32(layer))
			y := float32(s.Horizon) + .015 + .03*float32(layer)
			c.rect(paint{colour: trunk, top: -.1, bottom: .05}, x-w/2, -.01, w, y+.01, 0)
			x += float32(span(rng, .09, .17))
		}
		for range 9 {
			c.ellipse(glass(tone.lit(float32(span(rng, -.15, .1))), .85), float32(rng.Float64()), float32(span(rng, -.02, .1)), float32(span(rng, .08, .16)), float32(span(rng, .06, .11)))
		}
	}
	base := ground(s, jitter(rng, rgb{104, 122, 66}, 10))
	ridge(c, rng, s.Horizon+.03, .015, paint{colour: base, top: .02, bottom: .12})
	specks(c, rng, 50, s.Horizon+.06, func(x, y, k float32) {
		c.tilted(glass(pick(rng, []rgb{{150, 110, 56}, {84, 104, 50}, {130, 140, 70}}), .7), x, y, .012*k, .005*k, float32(span(rng, -.6, .6)))
	})
}
