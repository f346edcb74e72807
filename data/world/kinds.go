package world

import (
	"math"
	"slices"
)

// noun is a word for a kind, in the singular and in the plural.
type noun struct{ one, many string }

type airs uint8

const (
	never airs = iota
	sometimes
	always
)

// kind describes a kind of object.
type kind struct {
	nouns    []noun // the first is the one that most people use
	height   float64
	width    float64 // in units of the height
	tilt     float64 // largest angle at which it stands or hangs
	air      airs
	small    bool    // may stand on or under others
	tall     bool    // others may stand in front of it
	top      float64 // height at which others stand on it, in units of its height; 0: none can
	flat     float64 // width of the space for them, in units of the height
	clear    float64 // largest height of others under it
	textured bool
	colours  []Colour
	except   []Background // where it does not occur; for Sea, see method at
	sea      bool         // it swims in or flies over the sea
	poses    []string     // what it does, as a participle without "being"
	airPoses []string     // what it does in the air
	draw     func(c *canvas, l look)
}

func (k *kind) at(b Background) bool {
	if b == Sea {
		return k.sea
	}
	return !slices.Contains(k.except, b)
}

// look describes how an object is painted.
type look struct {
	main paint // its colour and texture
	base rgb
	air  bool
}

var (
	allColours = []Colour{Red, Orange, Yellow, Green, Blue, Purple, Pink, Brown, Black, White, Gray}
	vivid      = []Colour{Red, Orange, Yellow, Green, Blue, Purple, Pink, White}
	furs       = []Colour{Orange, Brown, Black, White, Gray}
	stands     = []string{"standing", "sitting", "placed"}
	lies       = []string{"lying", "sitting", "placed", "resting"}
	flies      = []string{"flying", "floating"}
)

// In the order of the constants, on which the held-out combinations depend.
var kinds = [kindCount]kind{
	Ball:     {nouns: []noun{{"ball", "balls"}}, height: .27, width: 1, tilt: .5, small: true, textured: true, colours: allColours, sea: true, poses: lies, draw: drawBall},
	Box:      {nouns: []noun{{"box", "boxes"}}, height: .3, width: 1.1, small: true, top: .87, flat: .8, textured: true, colours: allColours, poses: lies, draw: drawBox},
	Car:      {nouns: []noun{{"car", "cars"}, {"vehicle", "vehicles"}}, height: .25, width: 2.05, tall: true, top: .98, flat: .8, colours: allColours, except: []Background{Room}, poses: []string{"parked", "stopped"}, draw: drawCar},
	Bus:      {nouns: []noun{{"bus", "buses"}}, height: .33, width: 1.95, tall: true, colours: allColours, except: []Background{Room, Forest}, poses: []string{"parked", "stopped"}, draw: drawBus},
	House:    {nouns: []noun{{"house", "houses"}, {"home", "homes"}}, height: .5, width: 1.05, tall: true, colours: allColours, except: []Background{Room, Street}, poses: []string{"standing", "built"}, draw: drawHouse},
	Tree:     {nouns: []noun{{"tree", "trees"}}, height: .56, width: .72, tall: true, clear: .4, colours: []Colour{Green, Yellow, Orange, Red, Pink, White, Brown}, except: []Background{Room, Forest}, poses: []string{"standing", "growing"}, draw: drawTree},
	Boat:     {nouns: []noun{{"boat", "boats"}, {"sailboat", "sailboats"}}, height: .46, width: .95, tall: true, colours: allColours, except: []Background{Room, Street, Forest, Meadow}, sea: true, poses: []string{"resting", "sitting"}, draw: drawBoat},
	Cat:      {nouns: []noun{{"cat", "cats"}}, height: .36, width: .84, small: true, colours: furs, poses: []string{"sitting", "resting"}, draw: drawCat},
	Dog:      {nouns: []noun{{"dog", "dogs"}}, height: .34, width: 1.2, small: true, colours: furs, poses: []string{"standing", "waiting"}, draw: drawDog},
	Bird:     {nouns: []noun{{"bird", "birds"}}, height: .24, width: 1.35, air: sometimes, small: true, colours: allColours, sea: true, poses: []string{"standing", "sitting", "perched"}, airPoses: []string{"flying", "soaring"}, draw: drawBird},
	Cup:      {nouns: []noun{{"cup", "cups"}, {"mug", "mugs"}}, height: .24, width: 1.16, small: true, textured: true, colours: allColours, poses: stands, draw: drawCup},
	Kite:     {nouns: []noun{{"kite", "kites"}}, height: .42, width: .62, tilt: .35, air: always, textured: true, colours: vivid, except: []Background{Room}, sea: true, airPoses: flies, draw: drawKite},
	Chair:    {nouns: []noun{{"chair", "chairs"}}, height: .42, width: .58, top: .52, flat: .42, tall: true, colours: allColours, poses: stands, draw: drawChair},
	Lamp:     {nouns: []noun{{"lamp", "lamps"}}, height: .44, width: .64, tall: true, small: true, textured: true, colours: vivid, poses: stands, draw: drawLamp},
	Clock:    {nouns: []noun{{"clock", "clocks"}, {"alarm clock", "alarm clocks"}}, height: .3, width: .95, small: true, colours: allColours, poses: stands, draw: drawClock},
	Flower:   {nouns: []noun{{"flower", "flowers"}}, height: .38, width: .5, tilt: .08, small: true, colours: vivid, poses: []string{"growing", "blooming", "standing"}, draw: drawFlower},
	Fish:     {nouns: []noun{{"fish", "fish"}}, height: .2, width: 1.75, tilt: .12, small: true, textured: true, colours: allColours, sea: true, poses: []string{"lying", "resting"}, draw: drawFish},
	Star:     {nouns: []noun{{"star", "stars"}}, height: .28, width: 1.05, tilt: .3, air: always, textured: true, colours: vivid, except: []Background{Room, Street}, sea: true, airPoses: []string{"hanging", "floating", "shining"}, draw: drawStar},
	Umbrella: {nouns: []noun{{"umbrella", "umbrellas"}}, height: .46, width: .98, tilt: .1, tall: true, clear: .5, textured: true, colours: allColours, poses: []string{"standing", "opened", "placed"}, draw: drawUmbrella},
	Book:     {nouns: []noun{{"book", "books"}}, height: .3, width: .82, small: true, textured: true, colours: allColours, poses: stands, draw: drawBook},
	Balloon:  {nouns: []noun{{"balloon", "balloons"}}, height: .44, width: .56, tilt: .12, air: always, textured: true, colours: vivid, sea: true, airPoses: flies, draw: drawBalloon},
	Table:    {nouns: []noun{{"table", "tables"}}, height: .3, width: 1.75, tall: true, top: .99, flat: 1.55, clear: .8, colours: allColours, poses: stands, draw: drawTable},
	Hat:      {nouns: []noun{{"hat", "hats"}}, height: .2, width: 1.7, small: true, textured: true, colours: allColours, poses: lies, draw: drawHat},
	Bottle:   {nouns: []noun{{"bottle", "bottles"}}, height: .38, width: .36, small: true, textured: true, colours: allColours, sea: true, poses: stands, draw: drawBottle},
}

var colours = [colourCount]rgb{
	Red: {208, 44, 44}, Orange: {238, 132, 36}, Yellow: {246, 208, 52}, Green: {62, 150, 66}, Blue: {48, 100, 200},
	Purple: {128, 66, 168}, Pink: {242, 142, 180}, Brown: {128, 82, 48}, Black: {42, 42, 46}, White: {244, 243, 238}, Gray: {142, 144, 148},
}

// second returns the other colour of a texture, one that is visible next to c.
func second(c Colour) rgb {
	switch c {
	case White:
		return rgb{120, 128, 140}
	case Yellow, Pink, Orange:
		return colours[c].lit(-.42)
	}
	return rgb{248, 246, 238}
}

var (
	ink   = rgb{38, 36, 40}
	paper = rgb{246, 242, 230}
	wood  = rgb{122, 84, 52}
	steel = rgb{176, 180, 186}
	pane  = rgb{176, 214, 234}
	beak  = rgb{240, 160, 40}
)

// In all drawings, the foot is at 0, 0, up is -y, and the height is 1.

func drawBall(c *canvas, l look) {
	m := l.main
	m.pitch = .34
	c.ellipse(m.shade(.06), 0, -.5, .5, .5)
	c.move(.5, -.5) // the shadowed side
	c.cube(.5, -.22, .28, 0, 0, 0)
	c.cube(-.22, 0, -.4, -.14, -.47, -.34)
	c.cube(-.2, -.06, .3, -.1, .5, -.5)
	c.fill(glass(rgb{}, .16))
	c.tilted(glass(rgb{255, 255, 255}, .42), -.19, -.72, .13, .08, -.7)
}

func drawBox(c *canvas, l look) {
	m := l.main
	m.pitch = .26
	c.poly(m.lit(.18), -.55, -.76, -.3, -1, .55, -1, .32, -.76)
	c.poly(m.lit(-.26), .32, -.76, .55, -1, .55, -.24, .32, 0)
	c.poly(m.shade(.05), -.55, -.76, .32, -.76, .32, 0, -.55, 0)
	tape := l.base.lit(.4)
	if l.base.luma() > 150 {
		tape = l.base.lit(-.3)
	}
	c.poly(flat(tape), -.18, -.76, -.05, -.76, .19, -1, .06, -1)
	c.poly(flat(tape), -.18, -.76, -.05, -.76, -.05, -.56, -.18, -.56)
}

func wheel(c *canvas, x, r float32) {
	c.ellipse(flat(ink), x, -r, r, r)
	c.ellipse(flat(steel), x, -r, r*.55, r*.55)
	c.ellipse(flat(ink), x, -r, r*.18, r*.18)
}

func drawCar(c *canvas, l look) {
	m := l.main.shade(.12)
	c.move(-1, -.22)
	c.quad(-1.02, -.52, -.86, -.58)
	c.line(-.62, -.62)
	c.cube(-.42, -.98, -.4, -1, -.2, -1)
	c.line(.2, -1)
	c.cube(.38, -1, .46, -.84, .62, -.62)
	c.quad(.98, -.58, 1, -.4)
	c.line(1, -.24)
	c.quad(1, -.16, .92, -.16)
	c.line(-.92, -.16)
	c.quad(-1, -.16, -1, -.22)
	c.fill(m)
	glassy := paint{colour: pane, top: .3, bottom: -.1}
	c.poly(glassy, -.5, -.62, -.34, -.9, -.03, -.9, -.03, -.62)
	c.poly(glassy, .05, -.62, .05, -.9, .24, -.9, .46, -.62)
	c.stroke(flat(l.base.lit(-.3)), .022, .01, -.9, .01, -.2)
	c.stroke(flat(l.base.lit(-.3)), .03, -.14, -.52, -.06, -.52)
	c.ellipse(flat(rgb{255, 240, 170}), .93, -.42, .06, .07)
	c.ellipse(flat(rgb{190, 30, 30}), -.95, -.44, .04, .07)
	wheel(c, -.56, .2)
	wheel(c, .56, .2)
}

func drawBus(c *canvas, l look) {
	c.rect(l.main.shade(.1), -.96, -1, 1.92, .88, .1)
	glassy := paint{colour: pane, top: .3, bottom: -.1}
	for i := range 4 {
		c.rect(glassy, -.86+.36*float32(i), -.86, .3, .3, .04)
	}
	c.rect(glassy, .6, -.86, .3, .62, .04)
	c.stroke(flat(l.base.lit(-.35)), .02, .75, -.86, .75, -.24)
	stripe := l.base.lit(.55)
	if l.base.luma() > 200 {
		stripe = l.base.lit(-.3)
	}
	c.rect(flat(stripe), -.96, -.42, 1.5, .07, .02)
	c.ellipse(flat(rgb{255, 240, 170}), .93, -.26, .04, .05)
	wheel(c, -.56, .16)
	wheel(c, .36, .16)
}

func drawHouse(c *canvas, l look) {
	roof := rgb{110, 62, 50}
	if l.base.luma() < 90 {
		roof = rgb{168, 150, 140}
	}
	c.rect(flat(roof.lit(-.2)), .2, -.98, .12, .3, .01)
	c.rect(l.main.shade(.08), -.43, -.58, .86, .58, .005)
	c.poly(paint{colour: roof, top: .12, bottom: -.1}, -.52, -.54, 0, -1, .52, -.54)
	c.rect(flat(rgb{92, 62, 44}), -.09, -.32, .18, .32, .02)
	c.ellipse(flat(rgb{230, 190, 80}), .055, -.15, .015, .015)
	for _, x := range []float32{-.35, .17} {
		c.rect(flat(paper), x-.015, -.455, .21, .21, .01)
		c.rect(paint{colour: pane, top: .2, bottom: -.15}, x, -.44, .18, .18, 0)
		c.stroke(flat(paper), .014, x+.09, -.44, x+.09, -.26)
		c.stroke(flat(paper), .014, x, -.35, x+.18, -.35)
	}
}

func drawTree(c *canvas, l look) {
	c.move(-.07, 0)
	c.quad(-.04, -.2, -.045, -.5)
	c.line(.045, -.5)
	c.quad(.04, -.2, .075, 0)
	c.fill(shaded(rgb{112, 76, 48}, -.1))
	dark, mid, light := l.main.lit(-.2), l.main, l.main.lit(.16)
	c.ellipse(dark, -.17, -.52, .19, .15)
	c.ellipse(dark, .17, -.52, .19, .15)
	c.ellipse(dark, 0, -.48, .2, .12)
	c.ellipse(mid, -.16, -.65, .2, .18)
	c.ellipse(mid, .16, -.64, .2, .18)
	c.ellipse(mid, 0, -.58, .2, .16)
	c.ellipse(mid, 0, -.8, .22, .2)
	c.ellipse(light, -.07, -.85, .13, .11)
	c.ellipse(light, -.2, -.7, .09, .07)
	c.ellipse(light, .12, -.68, .09, .07)
}

func drawBoat(c *canvas, l look) {
	c.stroke(flat(wood), .025, 0, -.2, 0, -.98)
	sail := paint{colour: paper, top: .1, bottom: -.08}
	if l.base.luma() > 225 {
		sail.colour = rgb{226, 214, 190}
	}
	c.move(.03, -.96)
	c.quad(.34, -.6, .36, -.3)
	c.line(.03, -.3)
	c.fill(sail)
	c.move(-.03, -.88)
	c.quad(-.26, -.55, -.3, -.3)
	c.line(-.03, -.3)
	c.fill(sail.lit(-.1))
	c.poly(l.main.lit(-.05), 0, -1, .14, -.96, 0, -.92)
	c.move(-.48, -.25)
	c.line(.48, -.25)
	c.quad(.42, -.04, .28, 0)
	c.line(-.3, 0)
	c.quad(-.44, -.06, -.48, -.25)
	c.fill(l.main.shade(.14))
	c.stroke(flat(l.base.lit(-.3)), .022, -.47, -.24, .47, -.24)
}

// eye draws a white eye with a pupil or, if it is small, a plain one.
func eye(c *canvas, x, y, r float32, white rgb) {
	c.ellipse(flat(white), x, y, r, r)
	c.ellipse(flat(rgb{20, 20, 24}), x, y, r*.55, r*.8)
	c.ellipse(flat(rgb{255, 255, 255}), x+r*.25, y-r*.3, r*.2, r*.2)
}

func drawCat(c *canvas, l look) {
	line := l.base.lit(-.4)
	if l.base.luma() < 70 {
		line = l.base.lit(.3)
	}
	belly := l.base.lit(.35)
	c.curve(l.main.lit(-.1), .075, .16, -.06, .46, -.02, .32, -.34)
	c.move(-.22, 0)
	c.cube(-.28, -.3, -.16, -.52, 0, -.55)
	c.cube(.16, -.52, .28, -.3, .22, 0)
	c.fill(l.main.shade(.05))
	c.ellipse(flat(belly), 0, -.2, .1, .16)
	c.ellipse(l.main, -.1, -.035, .085, .04)
	c.ellipse(l.main, .1, -.035, .085, .04)
	c.stroke(flat(line), .012, -.02, -.05, -.02, -.22)
	c.stroke(flat(line), .012, .02, -.05, .02, -.22)
	for _, s := range []float32{-1, 1} {
		c.poly(l.main, s*.2, -.7, s*.19, -1, s*.03, -.88)
		c.poly(flat(rgb{232, 160, 160}), s*.17, -.8, s*.17, -.93, s*.09, -.87)
	}
	c.ellipse(l.main.shade(.06), 0, -.7, .22, .19)
	c.ellipse(flat(belly), 0, -.625, .1, .07)
	eye(c, -.09, -.73, .048, rgb{190, 220, 110})
	eye(c, .09, -.73, .048, rgb{190, 220, 110})
	c.poly(flat(rgb{214, 110, 120}), -.025, -.665, .025, -.665, 0, -.64)
	for _, s := range []float32{-1, 1} {
		c.stroke(flat(line), .009, s*.08, -.64, s*.27, -.67)
		c.stroke(flat(line), .009, s*.08, -.62, s*.27, -.61)
	}
}

func drawDog(c *canvas, l look) {
	dark := l.base.lit(-.3)
	if l.base.luma() < 70 {
		dark = l.base.lit(.22)
	}
	c.curve(l.main, .07, -.4, -.5, -.56, -.6, -.56, -.8)
	for _, x := range []float32{-.32, .2} {
		c.rect(l.main.lit(-.14), x+.07, -.3, .1, .3, .04)
	}
	c.rect(l.main.shade(.06), -.44, -.6, .74, .34, .15)
	for _, x := range []float32{-.4, .14} {
		c.rect(l.main, x, -.36, .11, .36, .04)
	}
	c.poly(l.main, .06, -.56, .2, -.84, .42, -.7, .3, -.4)
	c.stroke(flat(rgb{200, 50, 50}), .05, .13, -.64, .31, -.54)
	c.ellipse(l.main.shade(.05), .3, -.8, .19, .17)
	c.rect(l.main.lit(.1), .34, -.83, .26, .15, .07)
	c.ellipse(flat(rgb{24, 22, 24}), .585, -.8, .035, .032)
	c.stroke(flat(dark), .014, .44, -.71, .57, -.715)
	c.tilted(flat(dark), .18, -.78, .075, .17, .2)
	eye(c, .36, -.86, .04, rgb{240, 240, 235})
}

func drawBird(c *canvas, l look) {
	wing := l.main.lit(-.2)
	if l.base.luma() < 70 {
		wing = l.main.lit(.2)
	}
	if l.air {
		c.poly(l.main.lit(-.12), -.3, -.4, -.68, -.52, -.64, -.34, -.26, -.28)
		c.move(-.02, -.42) // the far wing
		c.quad(.12, -.8, .34, -.94)
		c.quad(.3, -.6, .2, -.4)
		c.fill(wing.lit(-.15))
	} else {
		for _, x := range []float32{-.03, .09} {
			c.stroke(flat(beak), .025, x, -.2, x, -.015, x+.06, -.015)
		}
		c.poly(l.main.lit(-.12), -.3, -.36, -.68, -.26, -.64, -.13, -.22, -.2)
	}
	c.poly(flat(beak), .5, -.62, .68, -.54, .5, -.48)
	c.move(-.42, -.34)
	c.cube(-.3, -.62, .1, -.52, .2, -.62)
	c.cube(.24, -.84, .56, -.8, .54, -.56)
	c.cube(.52, -.3, .3, -.12, .02, -.13)
	c.cube(-.2, -.14, -.36, -.22, -.42, -.34)
	c.fill(l.main.shade(.1))
	c.ellipse(flat(l.base.lit(.4)), .2, -.25, .17, .08)
	if l.air {
		c.move(-.18, -.42)
		c.quad(-.3, -.8, -.5, -1)
		c.quad(.06, -.9, .16, -.4)
		c.quad(0, -.28, -.18, -.42)
		c.fill(wing)
	} else {
		c.move(-.46, -.26)
		c.cube(-.24, -.56, .06, -.56, .14, -.4)
		c.cube(.06, -.24, -.2, -.2, -.46, -.26)
		c.fill(wing)
	}
	eye(c, .4, -.63, .05, rgb{250, 250, 245})
}

func drawCup(c *canvas, l look) {
	old := c.m
	defer func() { c.m = old }()
	o := c.to(-.09, 0) // leave room for the handle
	c.m.e, c.m.f = o.x, o.y
	m := l.main
	m.pitch = .24
	c.curve(l.main.plain().lit(-.12), .1, .36, -.78, .78, -.66, .32, -.26)
	c.curve(l.main.plain().lit(-.12), .1, .36, -.78, .7, -.9, .56, -.5)
	c.move(-.46, -.88)
	c.line(.46, -.88)
	c.quad(.42, -.12, .34, -.05)
	c.quad(0, .05, -.34, -.05)
	c.quad(-.42, -.12, -.46, -.88)
	c.fill(m.shade(.1))
	c.ellipse(flat(l.base.lit(.3)), 0, -.88, .46, .11)
	c.ellipse(flat(rgb{92, 58, 38}), 0, -.865, .39, .075)
	c.rect(glass(rgb{255, 255, 255}, .22), -.33, -.72, .1, .5, .05)
}

func drawKite(c *canvas, l look) {
	m := l.main
	m.pitch = .17
	c.curve(flat(paper), .014, 0, -.34, .2, -.2, -.02, 0)
	for i, y := range []float32{-.27, -.18, -.09} {
		x := .06 + .03*float32(i%2)
		c.poly(l.main.plain(), x-.05, y-.025, x, y, x-.05, y+.025)
		c.poly(l.main.plain().lit(.25), x+.05, y-.025, x, y, x+.05, y+.025)
	}
	c.poly(m.lit(.08), 0, -1, .3, -.7, 0, -.7)
	c.poly(m.lit(-.06), 0, -1, -.3, -.7, 0, -.7)
	c.poly(m.lit(-.12), -.3, -.7, 0, -.34, 0, -.7)
	c.poly(m, .3, -.7, 0, -.34, 0, -.7)
	c.stroke(glass(ink, .7), .012, 0, -1, 0, -.34)
	c.stroke(glass(ink, .7), .012, -.3, -.7, .3, -.7)
}

func drawChair(c *canvas, l look) {
	leg := l.main.lit(-.25)
	c.rect(leg, -.16, -.5, .05, .44, .01)
	c.rect(leg, .19, -.5, .05, .44, .01)
	c.rect(l.main, -.24, -1, .06, 1, .02)
	c.rect(l.main, .12, -1, .06, .56, .02)
	c.rect(l.main.shade(.08), -.24, -.98, .42, .12, .03)
	c.rect(l.main, -.22, -.8, .38, .07, .02)
	c.rect(l.main, -.22, -.67, .38, .07, .02)
	c.poly(l.main.lit(.14), -.26, -.46, -.16, -.56, .26, -.56, .22, -.46)
	c.rect(l.main.lit(-.1), -.27, -.47, .5, .06, .02)
	c.rect(l.main, .16, -.42, .06, .42, .02)
}

func drawLamp(c *canvas, l look) {
	m := l.main
	m.pitch = .13
	c.ellipse(glass(rgb{255, 236, 150}, .22), 0, -.71, .33, .3)
	c.ellipse(flat(steel.lit(-.45)), 0, -.03, .18, .035)
	c.rect(flat(steel.lit(-.35)), -.02, -.62, .04, .6, .01)
	c.ellipse(flat(rgb{255, 246, 200}), 0, -.56, .16, .045)
	c.move(-.13, -1)
	c.line(.13, -1)
	c.line(.25, -.56)
	c.quad(0, -.52, -.25, -.56)
	c.fill(paint{colour: m.colour, second: m.second, texture: m.texture, pitch: m.pitch, top: -.05, bottom: .22})
	c.stroke(flat(ink), .01, .12, -.54, .12, -.42)
}

func drawClock(c *canvas, l look) {
	for _, s := range []float32{-1, 1} {
		c.stroke(l.main.lit(-.2), .06, s*.22, -.2, s*.32, -.03)
		c.tilted(l.main.lit(.05), s*.24, -.88, .17, .1, s*.6)
	}
	c.stroke(l.main.lit(-.2), .05, -.1, -.97, .1, -.97)
	c.ellipse(l.main.shade(.12), 0, -.46, .44, .44)
	c.ellipse(flat(rgb{252, 250, 242}), 0, -.46, .35, .35)
	for i := range 12 {
		sin, cos := math.Sincos(float64(i) * math.Pi / 6)
		x, y := float32(sin), float32(cos)
		c.stroke(flat(ink), .02, x*.28, -.46+y*.28, x*.32, -.46+y*.32)
	}
	c.stroke(flat(ink), .035, 0, -.46, -.12, -.6)
	c.stroke(flat(ink), .025, 0, -.46, .19, -.6)
	c.ellipse(flat(ink), 0, -.46, .03, .03)
}

func drawFlower(c *canvas, l look) {
	stem := rgb{64, 132, 58}
	c.curve(flat(stem), .035, 0, 0, .05, -.3, 0, -.7)
	c.tilted(flat(stem), .11, -.2, .12, .045, -.6)
	c.tilted(flat(stem.lit(.1)), -.09, -.3, .12, .045, .6)
	for i := range 8 {
		a := float64(i) * math.Pi / 4
		sin, cos := math.Sincos(a)
		m := l.main
		if i%2 == 0 {
			m = m.lit(-.1)
		}
		c.tilted(m, .15*float32(cos), -.74+.15*float32(sin), .12, .065, float32(a))
	}
	heart := rgb{244, 200, 60}
	if l.base[0] > 235 && l.base[1] > 190 && l.base[2] < 120 {
		heart = rgb{120, 74, 40}
	}
	c.ellipse(shaded(heart, .1), 0, -.74, .085, .085)
}

func drawFish(c *canvas, l look) {
	m := l.main
	m.pitch = .3
	c.move(-.4, -.5)
	c.quad(-.66, -.86, -.86, -.92)
	c.quad(-.72, -.5, -.86, -.08)
	c.quad(-.66, -.14, -.4, -.5)
	c.fill(l.main.plain().lit(-.15))
	c.move(-.2, -.84)
	c.quad(.04, -1.06, .3, -.86)
	c.fill(l.main.plain().lit(-.2))
	c.move(-.08, -.18)
	c.quad(-.02, .02, .2, .0)
	c.line(.2, -.2)
	c.fill(l.main.plain().lit(-.2))
	c.move(-.55, -.5)
	c.cube(-.3, -.95, .5, -1.1, .86, -.5)
	c.cube(.5, .06, -.3, -.08, -.55, -.5)
	c.fill(m.shade(.12))
	c.curve(glass(ink, .45), .03, .42, -.76, .3, -.5, .42, -.24)
	c.tilted(l.main.plain().lit(-.12), .12, -.42, .15, .08, .4)
	eye(c, .6, -.6, .09, rgb{250, 250, 245})
	c.curve(glass(ink, .6), .03, .84, -.44, .76, -.38, .72, -.4)
}

func drawStar(c *canvas, l look) {
	m := l.main
	m.pitch = .24
	c.ellipse(glass(l.base.lit(.5), .18), 0, -.48, .52, .5)
	for i := range 10 {
		r := .52
		if i%2 == 1 {
			r = .23
		}
		sin, cos := math.Sincos(float64(i) * math.Pi / 5)
		x, y := float32(r*sin), -.48-float32(r*cos)
		if i == 0 {
			c.move(x, y)
		} else {
			c.line(x, y)
		}
	}
	c.fill(m.shade(.12))
}

func drawUmbrella(c *canvas, l look) {
	m := l.main
	m.pitch = .2
	c.stroke(flat(steel.lit(-.4)), .022, 0, -.97, 0, -.06)
	c.curve(flat(wood), .032, 0, -.1, 0, .02, .05, -.01)
	c.curve(flat(wood), .032, .03, -.005, .1, -.01, .09, -.07)
	c.stroke(flat(steel.lit(-.4)), .022, 0, -1, 0, -.94)
	c.move(-.48, -.5)
	c.cube(-.46, -.8, -.22, -.96, 0, -.96)
	c.cube(.22, -.96, .46, -.8, .48, -.5)
	c.quad(.4, -.57, .3, -.5)
	c.quad(.15, -.58, 0, -.5)
	c.quad(-.15, -.58, -.3, -.5)
	c.quad(-.4, -.57, -.48, -.5)
	c.fill(m.shade(.12))
	for _, x := range []float32{-.3, 0, .3} {
		c.curve(glass(ink, .3), .01, x, -.5, x*.85, -.8, 0, -.96)
	}
}

func drawBook(c *canvas, l look) {
	m := l.main
	m.pitch = .19
	c.poly(flat(paper.lit(-.06)), .28, -.96, .4, -1, .4, -.06, .28, 0)
	for _, x := range []float32{.31, .34, .37} {
		c.stroke(glass(ink, .25), .006, x, -.97, x, -.04)
	}
	c.poly(flat(paper), -.36, -.95, -.24, -1, .41, -1, .3, -.95)
	c.rect(m.shade(.06), -.4, -.96, .7, .96, .02)
	c.rect(l.main.plain().lit(-.25), -.4, -.96, .09, .96, .02)
	c.rect(flat(paper), -.2, -.8, .4, .22, .01)
	c.stroke(flat(ink), .025, -.13, -.73, .13, -.73)
	c.stroke(flat(ink), .025, -.08, -.65, .08, -.65)
}

func drawBalloon(c *canvas, l look) {
	m := l.main
	m.pitch = .19
	c.curve(glass(ink, .75), .012, 0, -.36, .1, -.2, -.03, 0)
	c.poly(l.main.plain().lit(-.15), 0, -.41, .05, -.345, -.05, -.345)
	c.move(0, -1)
	c.cube(.2, -1, .28, -.84, .28, -.72)
	c.cube(.28, -.54, .1, -.42, 0, -.39)
	c.cube(-.1, -.42, -.28, -.54, -.28, -.72)
	c.cube(-.28, -.84, -.2, -1, 0, -1)
	c.fill(m.shade(.08))
	c.tilted(glass(rgb{255, 255, 255}, .45), -.12, -.85, .09, .045, -.8)
}

func drawTable(c *canvas, l look) {
	leg := l.main.lit(-.12)
	c.rect(l.main.lit(-.3), -.62, -.9, .08, .74, .02)
	c.rect(l.main.lit(-.3), .54, -.9, .08, .74, .02)
	c.rect(leg, -.8, -.9, .1, .9, .03)
	c.rect(leg, .7, -.9, .1, .9, .03)
	c.poly(l.main.lit(.16), -.87, -.92, -.7, -1.06, .7, -1.06, .87, -.92)
	c.rect(l.main.shade(.05), -.88, -.93, 1.76, .12, .03)
}

func drawHat(c *canvas, l look) {
	m := l.main
	m.pitch = .3
	c.ellipse(l.main.plain().lit(-.12), 0, -.18, .85, .18)
	c.ellipse(l.main.plain().lit(.05), 0, -.21, .85, .17)
	c.move(-.46, -.24)
	c.cube(-.46, -.8, -.4, -1, -.16, -.97)
	c.quad(0, -.9, .16, -.97)
	c.cube(.4, -1, .46, -.8, .46, -.24)
	c.quad(0, -.08, -.46, -.24)
	c.fill(m.shade(.1))
	band := l.base.lit(-.45)
	if l.base.luma() < 80 {
		band = l.base.lit(.5)
	}
	c.move(-.465, -.4)
	c.quad(0, -.24, .465, -.4)
	c.line(.46, -.24)
	c.quad(0, -.08, -.46, -.24)
	c.fill(flat(band))
}

func drawBottle(c *canvas, l look) {
	m := l.main
	m.pitch = .12
	c.rect(flat(rgb{150, 110, 70}), -.045, -1, .09, .1, .02)
	c.move(-.055, -.93)
	c.line(.055, -.93)
	c.cube(.06, -.68, .175, -.7, .175, -.54)
	c.line(.175, -.04)
	c.quad(.175, 0, .13, 0)
	c.line(-.13, 0)
	c.quad(-.175, 0, -.175, -.04)
	c.line(-.175, -.54)
	c.cube(-.175, -.7, -.06, -.68, -.055, -.93)
	c.fill(m.shade(.1))
	if m.texture == Plain {
		c.rect(flat(paper), -.175, -.42, .35, .22, 0)
		c.stroke(glass(ink, .6), .02, -.09, -.34, .09, -.34)
		c.stroke(glass(ink, .6), .02, -.06, -.28, .06, -.28)
	}
	c.rect(glass(rgb{255, 255, 255}, .3), -.12, -.6, .045, .5, .02)
}
