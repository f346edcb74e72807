package world

import (
	"math"
	"math/rand/v2"
	"slices"
)

// The parts of a scene. Each value has a name, which also represents it in JSON.
type (
	Kind       uint8
	Colour     uint8
	Texture    uint8
	Size       uint8
	Background uint8
	Light      uint8
	Relation   uint8
	Side       uint8
)

const (
	Ball Kind = iota
	Box
	Car
	Bus
	House
	Tree
	Boat
	Cat
	Dog
	Bird
	Cup
	Kite
	Chair
	Lamp
	Clock
	Flower
	Fish
	Star
	Umbrella
	Book
	Balloon
	Table
	Hat
	Bottle
	kindCount
)

const (
	Red Colour = iota
	Orange
	Yellow
	Green
	Blue
	Purple
	Pink
	Brown
	Black
	White
	Gray
	colourCount
)

const (
	Plain Texture = iota
	Striped
	Dotted
	Chequered
)

const (
	Medium Size = iota
	Small
	Large
)

const (
	Beach Background = iota
	Meadow
	Street
	Room
	Night
	Snow
	Desert
	Sea
	Mountains
	Forest
	backgroundCount
)

const (
	Day Light = iota
	Sunny
	Cloudy
	Sunset
	Dim // indoors only
)

// How a scene's first group of objects relates to its second. Three groups are
// not related and stand side by side.
const (
	Alone Relation = iota
	NextTo
	InFrontOf
	Above
	On
	Under
	relationCount
)

// The position of the only object of a scene, or of the first of two objects
// next to each other.
const (
	Anywhere Side = iota
	Left
	Middle
	Right
)

var (
	colourNames     = []string{"red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "gray"}
	textureNames    = []string{"plain", "striped", "dotted", "checkered"}
	sizeNames       = []string{"medium", "small", "large"}
	backgroundNames = []string{"beach", "meadow", "street", "room", "night", "snow", "desert", "sea", "mountains", "forest"}
	lightNames      = []string{"day", "sunny", "cloudy", "sunset", "dim"}
	relationNames   = []string{"alone", "next to", "in front of", "above", "on", "under"}
	sideNames       = []string{"", "left", "middle", "right"}
)

func (k Kind) String() string       { return kinds[k].nouns[0].one }
func (c Colour) String() string     { return colourNames[c] }
func (t Texture) String() string    { return textureNames[t] }
func (s Size) String() string       { return sizeNames[s] }
func (b Background) String() string { return backgroundNames[b] }
func (l Light) String() string      { return lightNames[l] }
func (r Relation) String() string   { return relationNames[r] }
func (s Side) String() string       { return sideNames[s] }

func (k Kind) MarshalText() ([]byte, error)       { return []byte(k.String()), nil }
func (c Colour) MarshalText() ([]byte, error)     { return []byte(c.String()), nil }
func (t Texture) MarshalText() ([]byte, error)    { return []byte(t.String()), nil }
func (s Size) MarshalText() ([]byte, error)       { return []byte(s.String()), nil }
func (b Background) MarshalText() ([]byte, error) { return []byte(b.String()), nil }
func (l Light) MarshalText() ([]byte, error)      { return []byte(l.String()), nil }
func (r Relation) MarshalText() ([]byte, error)   { return []byte(r.String()), nil }
func (s Side) MarshalText() ([]byte, error)       { return []byte(s.String()), nil }

// A Group is one object or several identical ones.
type Group struct {
	Kind    Kind    `json:"kind"`
	Colour  Colour  `json:"colour"`
	Texture Texture `json:"texture"`
	Size    Size    `json:"size"`
	Count   int     `json:"count"`
	Air     bool    `json:"air,omitempty"` // flies or hangs in the air
	Far     bool    `json:"far,omitempty"` // looks small because it is far away
}

// An Item is a drawn object.
type Item struct {
	Group  int     // index into Scene.Groups, continued by Scene.Others
	X, Y   float64 // position of the foot from the upper left, in units of the picture's side
	Height float64 // in units of the picture's side
	Angle  float64 // radians
	Flip   bool    // mirrored
}

// A Camera holds the properties of a photo other than its subject.
type Camera struct {
	Brightness float64    // factor
	Cast       [3]float64 // factors for red, green and blue
	Gradient   [2]float64 // change of brightness from left to right and from top to bottom
	Noise      float64    // standard deviation, on a scale of 0 to 255
	Blur       float64    // weight of the neighbours in a pixel, 0 to 1
	Quality    int        // JPEG quality
}

// A Scene describes a picture completely: rendering it twice gives the same image.
type Scene struct {
	Pixels     int // side of the picture
	Groups     []Group
	Others     []Group  // smaller things of other kinds, which most captions leave out
	Relation   Relation // of the first group to the second
	Where      Side     // of the first group; Anywhere if undefined
	Background Background
	Light      Light
	Horizon    float64 // in units of the picture's side, from its top
	Items      []Item  // in drawing order
	Camera     Camera
	Seed       uint64 // seed of the details: clouds, waves, noise
}

// group returns the group of an item.
func (s *Scene) group(it Item) *Group {
	if k := it.Group - len(s.Groups); k >= 0 {
		return &s.Others[k]
	}
	return &s.Groups[it.Group]
}

// A Part is one of the parts of the data set.
type Part int

const (
	Pretrain Part = iota
	Train
	Val
	Tune // drawn like Val, for choosing settings
)

// Held-out combinations. Every kind, colour, background and relation occurs in
// every part, but these combinations of them occur only in Val and Tune. The factors
// spread them evenly: about 1 in 8 pairs of kind and colour, 1 in 7 of kind and
// background, and 1 in 6 of two kinds and their relation.

func heldColour(k Kind, c Colour) bool         { return (3*int(k)+5*int(c))%8 == 2 }
func heldBackground(k Kind, b Background) bool { return (2*int(k)+int(b))%7 == 3 }

func heldRelation(a Kind, r Relation, b Kind) bool {
	if r == NextTo && a > b {
		a, b = b, a // the relation is symmetric
	}
	return (int(a)+2*int(r)+3*int(b))%6 == 1
}

// HeldOut lists the combinations in a scene that occur in no training
// part, written like "blue fish", "cat in snow" and "cup on box", with words
// joined by "+".
func (s Scene) HeldOut() []string {
	out := []string{}
	pairs := func(g Group) {
		if heldColour(g.Kind, g.Colour) {
			out = append(out, g.Colour.String()+"+"+g.Kind.String())
		}
		if heldBackground(g.Kind, s.Background) {
			out = append(out, g.Kind.String()+"+"+s.Background.String())
		}
	}
	for _, g := range s.Others {
		pairs(g)
	}
	for i, g := range s.Groups {
		pairs(g)
		for j, h := range s.Groups[:i] {
			r := NextTo
			if j == 0 && i == 1 {
				r = s.Relation
			}
			if heldRelation(h.Kind, r, g.Kind) {
				out = append(out, h.Kind.String()+"+"+r.String()+"+"+g.Kind.String())
			}
		}
	}
	return out
}

func pick[T any](rng *rand.Rand, of []T) T      { return of[rng.IntN(len(of))] }
func chance(rng *rand.Rand, p float64) bool     { return rng.Float64() < p }
func span(rng *rand.Rand, a, b float64) float64 { return a + (b-a)*rng.Float64() }

// A plan determines how many objects a scene has and how they are related.
type plan struct {
	first    int // number of objects in the first group
	groups   int
	relation Relation
}

func sketch(rng *rand.Rand) plan {
	switch p := rng.Float64(); {
	case p < .3:
		return plan{1, 1, Alone}
	case p < .45:
		return plan{2 + rng.IntN(3), 1, Alone}
	case p < .55:
		return plan{1, 2, NextTo}
	case p < .6:
		return plan{2, 2, NextTo}
	case p < .9:
		return plan{1, 2, InFrontOf + Relation(rng.IntN(int(relationCount-InFrontOf)))}
	}
	return plan{1, 3, NextTo}
}

// Sample returns a random scene of 224 pixels. Scenes of Pretrain and Train
// contain no held-out combination; of the scenes of Val and Tune, one in five does,
// chosen at random.
func Sample(rng *rand.Rand, part Part) Scene {
	p := sketch(rng)
	held := (part == Val || part == Tune) && chance(rng, .2)
	for {
		s, ok := compose(rng, p)
		if !ok {
			continue
		}
		if (len(s.HeldOut()) > 0) != held {
			continue
		}
		s.light(rng)
		return s
	}
}

// compose chooses what a scene shows. It fails if the choices do not fit
// together.
func compose(rng *rand.Rand, p plan) (s Scene, ok bool) {
	s = Scene{Pixels: 224, Relation: p.relation, Background: Background(rng.IntN(int(backgroundCount)))}
	back := &backgrounds[s.Background]
	s.Horizon = span(rng, back.horizon-.05, back.horizon+.05)
	for i := range p.groups {
		g, ok := group(rng, s.Background)
		if !ok || slices.ContainsFunc(s.Groups, func(h Group) bool { return h.Kind == g.Kind }) {
			return s, false
		}
		if i == 0 {
			g.Count = p.first
		}
		s.Groups = append(s.Groups, g)
	}
	if !s.layout(rng) {
		return s, false
	}
	// The size is the visible one: a relation may have made an object smaller.
	for _, it := range s.Items {
		g := &s.Groups[it.Group]
		switch f := it.Height / kinds[g.Kind].height; {
		case g.Far:
		case f < .72:
			g.Size = Small
		case f > 1.2:
			g.Size = Large
		default:
			g.Size = Medium
		}
	}
	s.surround(rng)
	return s, true
}

// surround adds up to four more things where there is room for them. They are small,
// so that there is no doubt about what the photo is of.
func (s *Scene) surround(rng *rand.Rand) {
	type box struct{ x0, y0, x1, y1 float64 }
	around := func(x, y, h, w float64) box {
		const margin = .015
		return box{x - w/2 - margin, y - h - margin, x + w/2 + margin, y + margin}
	}
	var taken []box
	for _, it := range s.Items {
		taken = append(taken, around(it.X, it.Y, it.Height, it.Height*s.group(it).width()))
	}
	from := s.Horizon + .06
	if s.Background == Beach {
		from += .08 // farther up is the water
	}
	used := slices.Clone(s.Groups)
	for range 2 + rng.IntN(3) {
		g, ok := group(rng, s.Background)
		if !ok || slices.ContainsFunc(used, func(h Group) bool { return h.Kind == g.Kind }) {
			continue
		}
		k := &kinds[g.Kind]
		g.Size = Small
		h := max(.08, k.height*span(rng, .28, .4))
		w := h * g.width()
		for range 12 {
			x := span(rng, w/2+.02, 1-w/2-.02)
			y := span(rng, max(from, h+.02), .97)
			if g.Air {
				y = span(rng, h+.02, max(h+.04, s.Horizon))
			}
			b := around(x, y, h, w)
			if slices.ContainsFunc(taken, func(o box) bool { return b.x0 < o.x1 && o.x0 < b.x1 && b.y0 < o.y1 && o.y0 < b.y1 }) {
				continue
			}
			s.Items = append(s.Items, Item{len(s.Groups) + len(s.Others), x, y, h, span(rng, -k.tilt, k.tilt), chance(rng, .5)})
			s.Others = append(s.Others, g)
			used, taken = append(used, g), append(taken, b)
			break
		}
	}
}

// kindsAt lists the kinds that occur on each background.
var kindsAt = func() (at [backgroundCount][]Kind) {
	for b := range at {
		for k := range kinds {
			if kinds[k].at(Background(b)) {
				at[b] = append(at[b], Kind(k))
			}
		}
	}
	return at
}()

// group chooses the properties of a group. It fails if the background would
// hide the object.
func group(rng *rand.Rand, b Background) (g Group, ok bool) {
	g = Group{Kind: pick(rng, kindsAt[b]), Count: 1}
	k := &kinds[g.Kind]
	g.Colour = pick(rng, k.colours)
	if slices.Contains(backgrounds[b].hides, g.Colour) {
		return g, false
	}
	if k.textured && chance(rng, .45) {
		g.Texture = 1 + Texture(rng.IntN(3))
	}
	switch p := rng.Float64(); {
	case p < .2:
		g.Size = Small
	case p < .4:
		g.Size = Large
	}
	g.Air = k.air == always || k.air == sometimes && (b == Sea || chance(rng, .5))
	return g, true
}

func (g Group) height() float64 {
	h := kinds[g.Kind].height
	switch g.Size {
	case Small:
		h *= .62
	case Large:
		h *= 1.32
	}
	return h
}

func (g Group) width() float64 { return kinds[g.Kind].width }

// layout places the objects. It fails if the relation does not suit them.
func (s *Scene) layout(rng *rand.Rand) bool {
	a := &s.Groups[0]
	ka := &kinds[a.Kind]
	turn := func(g Group) float64 {
		k := &kinds[g.Kind]
		return span(rng, -k.tilt, k.tilt)
	}
	put := func(group int, x, y, h float64) {
		g := s.Groups[group]
		w := h * g.width()
		x = min(max(x, w/2+.02), 1-w/2-.02)
		y = min(max(y, h+.02), .97)
		s.Items = append(s.Items, Item{group, x, y, h, turn(g), chance(rng, .5)})
	}
	ground := func() float64 { return span(rng, max(s.Horizon+.22, .78), .93) }
	// sky returns the foot of an object in the air.
	sky := func(h float64) float64 { return span(rng, h+.04, max(h+.06, s.Horizon+.05)) }

	switch {
	case len(s.Groups) == 1 && a.Count == 1:
		h := a.height()
		y := ground()
		if a.Air {
			y = sky(h)
		}
		if s.Background != Room && chance(rng, .15) {
			a.Far, a.Size = true, Medium
			h = .5 * a.height()
			if !a.Air {
				y = s.Horizon + span(rng, .08, .13)
				if s.Background == Beach {
					y += .1 // farther up is the water
				}
			}
		}
		x := span(rng, .4, .6)
		if side := rng.IntN(3); side == 0 {
			x = span(rng, .15, .3)
		} else if side == 1 {
			x = span(rng, .7, .85)
		}
		put(0, x, y, h)
		switch x := s.Items[0].X; {
		case x < .36:
			s.Where = Left
		case x > .64:
			s.Where = Right
		case x > .42 && x < .58:
			s.Where = Middle
		}

	case len(s.Groups) == 1 || s.Relation == NextTo:
		if s.Relation == NextTo {
			for _, g := range s.Groups[1:] {
				if g.Air != a.Air {
					return false
				}
			}
		}
		var list []int
		total := 0.
		for i, g := range s.Groups {
			for range g.Count {
				list = append(list, i)
				total += g.height() * g.width()
			}
		}
		// As large as the width allows; too small would not be visible.
		scale := min(1, .92/(total+.03*float64(len(list)-1)))
		if scale < .62 {
			return false
		}
		mirrored := chance(rng, .5)
		if mirrored {
			slices.Reverse(list)
		}
		if len(s.Groups) == 2 {
			s.Where = Left
			if mirrored {
				s.Where = Right
			}
		}
		gap := (1 - total*scale) / float64(len(list)+1)
		y, x := ground(), 0.
		for _, i := range list {
			g := s.Groups[i]
			h := g.height() * scale
			w := h * g.width()
			x += gap
			foot := y + span(rng, -.025, .025)
			if a.Air {
				foot = sky(h)
			}
			put(i, x+w/2+span(rng, -.2, .2)*max(gap, 0), foot, h)
			x += w
		}

	case s.Relation == InFrontOf:
		b := s.Groups[1]
		if a.Air || b.Air || !kinds[b.Kind].tall || b.Size == Small || s.Background == Sea && a.Kind == Boat {
			return false
		}
		hb := b.height()
		ha := min(a.height(), .55*hb)
		if ha < .12 || ha*ka.width > hb*b.width() {
			return false
		}
		x := span(rng, .35, .65)
		y := max(s.Horizon+.18, hb+.03)
		if y > .88 {
			return false
		}
		put(1, x, y, hb)
		put(0, x+span(rng, -.3, .3)*hb*b.width(), min(y+span(rng, .06, .12), .96), ha)

	case s.Relation == Above:
		b := s.Groups[1]
		if !a.Air || b.Air {
			return false
		}
		hb, ha := min(b.height(), .42), min(a.height(), .34)
		y := span(rng, .86, .95)
		x := span(rng, .3, .7)
		put(1, x, y, hb)
		put(0, x+span(rng, -.06, .06), y-hb-span(rng, .05, .12), ha)

	case s.Relation == On:
		b := s.Groups[1]
		kb := &kinds[b.Kind]
		if !ka.small || kb.top == 0 || a.Air || b.Air || b.Size == Small || a.Size == Large {
			return false
		}
		hb := min(b.height(), .5)
		ha := min(a.height(), .36)
		if ha*ka.width > hb*kb.width*.9 {
			return false
		}
		x, y := span(rng, .35, .65), span(rng, max(s.Horizon+.22, .8), .95)
		put(1, x, y, hb)
		s.Items[0].Angle = 0
		base := s.Items[0]
		slack := max(0, hb*kb.flat-ha*ka.width) / 2
		put(0, base.X+span(rng, -slack, slack), base.Y-hb*kb.top, ha)
		if s.Items[1].Y != base.Y-hb*kb.top {
			return false // it would extend beyond the picture
		}
		s.Items[1].Angle = 0

	case s.Relation == Under:
		b := s.Groups[1]
		kb := &kinds[b.Kind]
		if kb.clear == 0 || a.Air || b.Air || kb.width*b.height() < .2 || !ka.small && a.Kind != Chair {
			return false
		}
		hb := map[Kind]float64{Tree: .82, Umbrella: .8, Table: .5}[b.Kind]
		b.Size = Large
		s.Groups[1].Size = Large
		ha := min(a.height(), kb.clear*hb)
		if ha < .12 {
			return false
		}
		x, y := span(rng, .4, .6), span(rng, .9, .95)
		put(1, x, y, hb)
		s.Items[0].Angle = 0
		off := span(rng, .06, .12) * math.Copysign(1, rng.Float64()-.5)
		if b.Kind == Table {
			off /= 2
		}
		put(0, s.Items[0].X+off, y+.015, ha)
	}
	return true
}

// light chooses what the captions hardly mention.
func (s *Scene) light(rng *rand.Rand) {
	c := &s.Camera
	c.Brightness = span(rng, .9, 1.08)
	c.Cast = [3]float64{span(rng, .96, 1.04), 1, span(rng, .96, 1.04)}
	c.Gradient = [2]float64{span(rng, -.08, .08), span(rng, -.06, .06)}
	c.Noise = span(rng, 1, 4)
	if chance(rng, .5) {
		c.Blur = span(rng, .1, .55)
	}
	c.Quality = 80 + rng.IntN(15)
	s.Seed = rng.Uint64()
	switch {
	case s.Background == Night:
	case s.Background == Room:
		s.Light = []Light{Day, Day, Dim}[rng.IntN(3)]
	default:
		s.Light = []Light{Day, Sunny, Cloudy, Sunset}[rng.IntN(4)]
	}
	switch s.Light {
	case Sunny:
		c.Brightness *= 1.05
	case Cloudy:
		c.Brightness *= .93
	case Sunset:
		c.Cast[0] *= 1.06
		c.Cast[2] *= .88
	case Dim:
		c.Brightness *= .74
		c.Cast[2] *= .93
	}
}
