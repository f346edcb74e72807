package world

import (
	"image"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func source(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 42)) }

func samples(part Part, n int) []Scene {
	rng := source(uint64(part))
	out := make([]Scene, n)
	for i := range out {
		out[i] = Sample(rng, part)
	}
	return out
}

// combinations returns all pairs and triples in a scene, without using the code that
// implements the rule.
func combinations(s Scene) []string {
	var out []string
	for _, g := range s.Others {
		out = append(out, "colour "+g.Colour.String()+" "+g.Kind.String(), "background "+g.Kind.String()+" "+s.Background.String())
	}
	for i, g := range s.Groups {
		out = append(out, "colour "+g.Colour.String()+" "+g.Kind.String(), "background "+g.Kind.String()+" "+s.Background.String())
		for j, h := range s.Groups {
			switch {
			case j >= i:
			case s.Relation != NextTo:
				out = append(out, "relation "+h.Kind.String()+" "+s.Relation.String()+" "+g.Kind.String())
			default:
				names := []string{h.Kind.String(), g.Kind.String()}
				slices.Sort(names)
				out = append(out, "relation "+strings.Join(names, " next to "))
			}
		}
	}
	return out
}

// Held-out combinations never occur in training, their parts do, and there are enough of
// them to measure something.
func TestHeldOut(t *testing.T) {
	trained := map[string]bool{}
	parts := map[string]bool{}
	for _, p := range []Part{Pretrain, Train} {
		for _, s := range samples(p, 6000) {
			if h := s.HeldOut(); len(h) > 0 {
				t.Fatalf("part %d has %v", p, h)
			}
			for _, c := range combinations(s) {
				trained[c] = true
			}
			parts[s.Background.String()], parts[s.Relation.String()], parts[s.Light.String()] = true, true, true
			for _, g := range s.Groups {
				parts[g.Kind.String()], parts[g.Colour.String()], parts[g.Texture.String()], parts[g.Size.String()] = true, true, true, true
			}
		}
	}
	if want := int(kindCount) + int(colourCount) + int(backgroundCount) + int(relationCount) + 4 + 3 + 5; len(parts) != want {
		t.Errorf("training has %d of %d kinds, colours, backgrounds, relations, textures, sizes and lights", len(parts), want)
	}
	held, kindsHeld := 0, map[string]int{}
	scenes := samples(Val, 4000)
	for _, s := range scenes {
		h := s.HeldOut()
		fresh := 0
		for _, c := range combinations(s) {
			if !trained[c] {
				fresh++
				kindsHeld[strings.Fields(c)[0]]++
			}
		}
		// A rare pair of kinds may be missing from training by chance.
		if len(h) > fresh {
			t.Errorf("%v: it says that %v are held out, but training has some of them (%v)", s.Groups, h, combinations(s))
		}
		if len(h) > 0 {
			held++
		}
	}
	if share := float64(held) / float64(len(scenes)); share < .17 || share > .23 {
		t.Errorf("%.2f of val has held-out combinations", share)
	}
	for _, what := range []string{"colour", "background", "relation"} {
		if kindsHeld[what] < 60 {
			t.Errorf("%d held-out combinations with a %s in %d scenes", kindsHeld[what], what, len(scenes))
		}
	}
	for k := range kindCount {
		n := 0
		for _, c := range kinds[k].colours {
			if trained["colour "+c.String()+" "+k.String()] {
				n++
			}
		}
		if n < 3 || n < len(kinds[k].colours)/2 {
			t.Errorf("training has a %s in %d of its %d colours", k, n, len(kinds[k].colours))
		}
	}
}

// A scene is a function of its random source, and can be drawn.
func TestSample(t *testing.T) {
	for _, p := range []Part{Pretrain, Train, Val, Tune} {
		others := 0
		if !reflect.DeepEqual(samples(p, 50), samples(p, 50)) {
			t.Errorf("part %d: the same source gave other scenes", p)
		}
		for _, s := range samples(p, 2000) {
			n := 0
			for _, g := range s.Groups {
				n += g.Count
			}
			others += len(s.Others)
			if n+len(s.Others) != len(s.Items) || n < 1 || n > 4 || len(s.Others) > 4 || (len(s.Groups) == 1) != (s.Relation == Alone) {
				t.Fatalf("%d objects drawn of %d, relation %s: %+v", len(s.Items), n, s.Relation, s)
			}
			for _, it := range s.Items {
				w := it.Height * s.group(it).width()
				if it.X-w/2 < 0 || it.X+w/2 > 1 || it.Y > 1 || it.Y-it.Height < 0 || it.Height < .075 {
					t.Fatalf("%s is outside of the picture or can't be seen: %+v", s.group(it).Kind, it)
				}
			}
			checkLayout(t, s)
			checkOthers(t, s)
		}
		if others < 2000 || others > 6000 {
			t.Errorf("part %d: 2000 scenes have %d other things", p, others)
		}
	}
}

// checkOthers checks that the other things are of kinds of their own, smaller than the
// first group, and covered by nothing.
func checkOthers(t *testing.T, s Scene) {
	t.Helper()
	seen := map[Kind]bool{}
	for _, g := range append(slices.Clone(s.Groups), s.Others...) {
		if seen[g.Kind] {
			t.Errorf("%s occurs twice in %v and %v", g.Kind, s.Groups, s.Others)
		}
		seen[g.Kind] = true
	}
	n := len(s.Items) - len(s.Others)
	for i, it := range s.Items[n:] {
		if it.Group != len(s.Groups)+i || s.group(it).Count != 1 {
			t.Errorf("thing %d is of group %d of %d", i, it.Group, len(s.Groups))
		}
		for _, o := range s.Items[:n+i] {
			wide := (it.Height*s.group(it).width() + o.Height*s.group(o).width()) / 2
			if it.X-o.X < wide && o.X-it.X < wide && it.Y-it.Height < o.Y && o.Y-o.Height < it.Y {
				t.Errorf("%s covers %s: %+v", s.group(it).Kind, s.group(o).Kind, s.Items)
			}
		}
	}
}

// checkLayout checks that objects are drawn where the scene says.
func checkLayout(t *testing.T, s Scene) {
	t.Helper()
	box := func(group int) (x0, x1, foot, head float64) {
		x0, foot, head = 2, -1, 2
		for _, it := range s.Items {
			if it.Group == group {
				w := it.Height * s.Groups[group].width()
				x0, x1 = min(x0, it.X-w/2), max(x1, it.X+w/2)
				foot, head = max(foot, it.Y), min(head, it.Y-it.Height)
			}
		}
		return
	}
	a0, a1, aFoot, aHead := box(0)
	mid := (a0 + a1) / 2
	if len(s.Groups) == 1 {
		switch {
		case s.Where == Left && mid > .4, s.Where == Right && mid < .6, s.Where == Middle && (mid < .4 || mid > .6):
			t.Errorf("it is at %.2f, not %s", mid, s.Where)
		}
		return
	}
	b0, b1, bFoot, bHead := box(1)
	ok := true
	switch s.Relation {
	case NextTo:
		if len(s.Groups) == 2 {
			ok = (mid < (b0+b1)/2) == (s.Where == Left)
		}
	case InFrontOf:
		ok = aFoot > bFoot && aHead > bHead && a1 > b0 && a0 < b1 && s.Items[1].Group == 0
	case Above:
		ok = aFoot < bHead && mid > b0-.1 && mid < b1+.1
	case On:
		ok = aFoot <= bHead+.52*(bFoot-bHead) && aFoot >= bHead-.001 && mid > b0 && mid < b1
	case Under:
		ok = aHead > bHead && aFoot > bHead && mid > b0 && mid < b1
	}
	if !ok {
		t.Errorf("%s isn't %s %s: %+v", s.Groups[0].Kind, s.Relation, s.Groups[1].Kind, s.Items)
	}
}

// Every kind in each of its colours is visible, and visibly has that colour.
func TestColoursAreSeen(t *testing.T) {
	nearest := func(q rgb) Colour {
		best, least := Colour(0), float32(1e9)
		for c, p := range colours {
			d := float32(0)
			for i := range p {
				d += (p[i] - q[i]) * (p[i] - q[i])
			}
			if d < least {
				best, least = Colour(c), d
			}
		}
		return best
	}
	back := rgb{1, 254, 253} // no drawing contains it
	for k := range kindCount {
		for _, colour := range kinds[k].colours {
			c := newCanvas(100)
			c.bands(0, 1, back, back)
			l := look{base: colours[colour], main: paint{colour: colours[colour], second: second(colour), pitch: .2}}
			h := min(.9, .9/kinds[k].width)
			c.with(at(.5, .95, h, 0, false), func() { kinds[k].draw(c, l) })
			count := map[Colour]int{}
			total := 0
			for y := range 100 {
				for x := range 100 {
					p := c.img.Pix[c.img.PixOffset(x, y):]
					if p[0] == 1 && p[1] == 254 && p[2] == 253 {
						continue
					}
					total++
					count[nearest(rgb{float32(p[0]), float32(p[1]), float32(p[2])})]++
					w := float64(h*kinds[k].width)*50 + 3
					if float64(x) < 50-w || float64(x) > 50+w || float64(y) < 95-100*h-4 || y > 99 {
						t.Fatalf("a %s has a part at %d, %d, which is outside of its box", k, x, y)
					}
				}
			}
			if total < 700 || count[colour] < total/8 {
				t.Errorf("a %s %s: %d pixels, of which %d are %s", colour, k, total, count[colour], colour)
			}
		}
	}
}

// Textures are visible, too.
func TestTextures(t *testing.T) {
	for k := range kindCount {
		if !kinds[k].textured {
			continue
		}
		var seen []*image.RGBA
		for _, texture := range []Texture{Plain, Striped, Dotted, Chequered} {
			s := Scene{Pixels: 96, Groups: []Group{{Kind: k, Colour: Red, Texture: texture, Count: 1}},
				Items: []Item{{X: .5, Y: .95, Height: .5}}, Horizon: .5, Camera: Camera{Brightness: 1, Cast: [3]float64{1, 1, 1}}}
			img := Render(s)
			for _, other := range seen {
				n := 0
				for i := range img.Pix {
					if d := int(img.Pix[i]) - int(other.Pix[i]); d > 60 || d < -60 {
						n++
					}
				}
				if n < 100 {
					t.Errorf("a %s that is %s is like another: %d values differ", k, texture, n)
				}
			}
			seen = append(seen, img)
		}
	}
}

func TestRender(t *testing.T) {
	scenes := samples(Val, 8)
	for i, s := range scenes {
		s.Pixels = 64
		a := Render(s)
		if a.Rect != image.Rect(0, 0, 64, 64) {
			t.Fatalf("the picture is %v", a.Rect)
		}
		if diff := cmp.Diff(a.Pix, Render(s).Pix); diff != "" {
			t.Errorf("scene %d: a second rendering differs", i)
		}
		for j := 3; j < len(a.Pix); j += 4 {
			if a.Pix[j] != 255 {
				t.Fatalf("scene %d is not opaque", i)
			}
		}
		s.Seed++
		if slices.Equal(a.Pix, Render(s).Pix) {
			t.Errorf("scene %d: another seed gave the same picture", i)
		}
	}
}

// TestBare checks that bare photos lack the other things and nothing else.
func TestBare(t *testing.T) {
	with := Config{Seed: 3, Size: 64, Pretrain: 40}
	without := with
	without.Bare = true
	others := 0
	for i := range with.Pretrain {
		s, bare := with.scene(with.parts()[0], i), without.scene(without.parts()[0], i)
		n := len(s.Items) - len(s.Others)
		others += len(s.Others)
		s.Items, s.Others = s.Items[:n], nil
		if diff := cmp.Diff(s, bare); diff != "" {
			t.Errorf("photo %d (-without the other things +bare):\n%s", i, diff)
		}
	}
	if others == 0 {
		t.Error("no photo has other things")
	}
}

func BenchmarkRender(b *testing.B) {
	rng := source(1)
	for b.Loop() {
		Render(Sample(rng, Train))
	}
}
