package world

import (
	"math/rand/v2"
	"strings"
)

// The lengths of most COCO captions are in this range, in words.
const minWords, maxWords = 6, 20

// places lists phrases that describe a background.
type places struct {
	on    []string // where an object stands
	over  []string // where an object flies
	scene []string // the place as the subject: "… with a car"
}

// In the order of the constants. These phrases name no kind and no colour,
// because in a caption those words describe the objects.
var placeWords = [backgroundCount]places{
	Beach: {
		[]string{"on the beach", "on a sandy beach", "at the beach", "on the sand by the ocean", "on the sand near the water"},
		[]string{"over the beach", "above a sandy beach", "in the sky over the beach", "in the air at the beach"},
		[]string{"a sandy beach", "a beach by the ocean", "a beach"}},
	Meadow: {
		[]string{"in a meadow", "in a grassy field", "on the grass", "in the grass", "in an open field"},
		[]string{"over a grassy field", "above a meadow", "in the sky over a field", "in the air above the grass"},
		[]string{"a grassy field", "a meadow", "an open field"}},
	Street: {
		[]string{"on the street", "on a city street", "on the road", "in front of some buildings", "on the side of the road"},
		[]string{"over the street", "above a city street", "in the air over the road", "in front of some buildings"},
		[]string{"a city street", "a street in the city", "a road in the city"}},
	Room: {
		[]string{"in a room", "in a living room", "on a wooden floor", "on the floor of a room", "inside a room with a window"},
		[]string{"in a room", "in the air in a living room", "near the window of a room", "above the floor of a room"},
		[]string{"a living room", "a room", "the floor of a room"}},
	Night: {
		[]string{"at night", "outside at night", "under the night sky", "outside in the dark", "under a full moon"},
		[]string{"in the night sky", "in the dark sky", "in the sky at night", "under a full moon"},
		[]string{"a dark landscape", "a night scene", "a moonlit night"}},
	Snow: {
		[]string{"in the snow", "on the snow", "in a snowy field", "on the snowy ground", "outside in winter"},
		[]string{"over the snow", "above a snowy field", "in the sky over the snow", "in the cold winter sky"},
		[]string{"a snowy field", "a winter scene", "a snowy landscape"}},
	Desert: {
		[]string{"in the desert", "in a dry desert", "on the sand in the desert", "near some cactus plants", "on the desert sand"},
		[]string{"over the desert", "above the desert sand", "in the sky over a desert", "above some cactus plants"},
		[]string{"a dry desert", "a desert scene", "a desert landscape"}},
	Sea: {
		[]string{"in the water", "on the water", "in the ocean", "in the sea", "on the waves of the ocean"},
		[]string{"over the water", "above the sea", "over the ocean", "in the sky above the waves"},
		[]string{"the open ocean", "a large body of water", "the sea"}},
	Mountains: {
		[]string{"in the mountains", "near some mountains", "with mountains in the background", "in front of snowy mountains", "at the foot of the mountains"},
		[]string{"over the mountains", "in the sky near some mountains", "with mountains in the background", "in front of snowy mountains"},
		[]string{"a mountain landscape", "a valley in the mountains", "a mountain scene"}},
	Forest: {
		[]string{"in the forest", "in the woods", "in a thick forest", "on the forest floor", "outside in the woods"},
		[]string{"in the forest", "in the air in the woods", "above the forest floor", "in the middle of the woods"},
		[]string{"a thick forest", "a forest scene", "a forest"}},
}

var lightWords = map[Light][]string{
	Sunny:  {"on a sunny day", "in the bright sun", "in the sunshine", "on a bright day"},
	Cloudy: {"on a cloudy day", "under a cloudy sky", "under heavy clouds"},
	Sunset: {"at sunset", "as the sun goes down", "in the evening", "with the sun setting"},
	Dim:    {"in dim light", "in the dim evening light", "with little light"},
}

var relationWords = [relationCount]struct{ a, b []string }{
	// First the phrases for the first group to the second, then the reverse.
	NextTo:    {[]string{"next to", "beside", "near", "by"}, []string{"next to", "beside", "near", "by"}},
	InFrontOf: {[]string{"in front of", "right in front of", "just in front of"}, []string{"behind", "in back of", "behind"}},
	Above:     {[]string{"above", "over", "high above"}, []string{"below", "under", "beneath"}},
	On:        {[]string{"on", "on top of", "on", "up on"}, []string{"under", "holding", "supporting"}},
	Under:     {[]string{"under", "underneath", "beneath", "below"}, []string{"above", "over"}},
}

// What a caption says about the number, size and texture of objects, and about where
// they are. A word that stands twice is twice as frequent.
var (
	numbers      = []string{"zero", "one", "two", "three", "four"}
	pairWords    = []string{"two", "two", "two", "a pair of", "a couple of"}
	severalWords = []string{"several", "a group of"} // three or four
	sizeWords    = map[Size][]string{
		Small: {"small", "small", "little", "tiny"},
		Large: {"large", "big", "big", "huge"},
	}
	textureWords = map[Texture][]string{
		Striped:   {"striped", "striped", "stripy"},
		Dotted:    {"dotted", "spotted", "polka dot"},
		Chequered: {"checkered", "checkered", "checked"},
	}
	sideWords = map[Side][]string{
		Left:   {"on the left", "on the left side of the picture", "to the left side", "on the left of the photo"},
		Middle: {"in the middle of the picture", "in the center of the photo", "in the middle", "in the center"},
		Right:  {"on the right", "on the right side of the picture", "to the right side", "on the right of the photo"},
	}
	// besideWords are relations to something that an object is next to, by its side.
	besideWords = map[Side][]string{
		Left:  {"to the left of", "on the left of"},
		Right: {"to the right of", "on the right of"},
	}
	togetherWords = []string{"side by side", "together", "next to each other"}
	rowWords      = []string{"side by side", "together", "in a row", "next to each other"}
	// withWords end a sentence that names the second group first: "a table with a cup on it".
	withWords = map[Relation][]string{
		InFrontOf: {"behind it", "in the background", "in back"},
		On:        {"on it", "on top", "on top of it"},
		Under:     {"under it", "beneath it", "underneath"},
	}
)

// speaker writes captions of a scene.
type speaker struct {
	s   *Scene
	rng *rand.Rand
}

// Captions returns n differently worded captions, as if n people had described
// the photo. Each has 6 to 20 words and is true to the scene, and none is
// complete. Up to 20 captions are guaranteed to be distinct.
func (s Scene) Captions(rng *rand.Rand, n int) []string {
	sp := speaker{&s, rng}
	plans := sp.plans()
	rng.Shuffle(len(plans), func(i, j int) { plans[i], plans[j] = plans[j], plans[i] })
	out := make([]string, 0, n)
	seen := map[string]bool{}
	for try := 0; len(out) < n; try++ {
		// Each caption uses a sentence plan that no other has, as long as there
		// are unused ones.
		text := plans[(len(out)+try/8)%len(plans)]()
		text = strings.Join(strings.Fields(text), " ")
		words := strings.Count(text, " ") + 1
		if words < minWords || words > maxWords || seen[text] && try < 1000*n {
			continue
		}
		seen[text] = true
		out = append(out, sp.write(text))
	}
	return out
}

// write formats text the way someone might type it.
func (p speaker) write(text string) string {
	if chance(p.rng, .92) {
		text = strings.ToUpper(text[:1]) + text[1:]
	}
	if chance(p.rng, .92) {
		text += "."
	}
	return text
}

func (p speaker) pick(of ...string) string { return pick(p.rng, of) }

// maybe returns one of the phrases or the empty string.
func (p speaker) maybe(chances float64, of ...string) string {
	if len(of) == 0 || !chance(p.rng, chances) {
		return ""
	}
	return pick(p.rng, of)
}

func join(parts ...string) string { return strings.Join(parts, " ") }

// name returns a noun phrase for a group, with what the speaker says about it.
func (p speaker) name(i int) string {
	g := p.s.Groups[i]
	var words []string
	switch {
	case g.Size == Small:
		words = append(words, p.maybe(.55, sizeWords[Small]...))
	case g.Size == Large:
		words = append(words, p.maybe(.55, sizeWords[Large]...))
	}
	coloured := chance(p.rng, .88)
	if coloured {
		words = append(words, g.Colour.String())
	}
	if g.Texture != Plain && chance(p.rng, .8) {
		words = append(words, p.pick(textureWords[g.Texture]...))
	}
	nouns := kinds[g.Kind].nouns
	n := nouns[0]
	if len(nouns) > 1 && chance(p.rng, .25) {
		n = pick(p.rng, nouns[1:])
	}
	if g.Count == 1 {
		return p.article(join(append(words, n.one)...))
	}
	count := numbers[g.Count]
	switch {
	case g.Count == 2:
		count = p.pick(pairWords...)
	case chance(p.rng, .2):
		count = p.pick(severalWords...)
	}
	return join(append(append([]string{count}, words...), n.many)...)
}

func (p speaker) article(text string) string {
	text = strings.TrimSpace(text)
	if strings.ContainsRune("aeiou", rune(text[0])) {
		return "an " + text
	}
	return "a " + text
}

func (p speaker) is(i int) string {
	if p.s.Groups[i].Count > 1 {
		return "are"
	}
	return "is"
}

// pose returns what a group is doing, as a participle.
func (p speaker) pose(i int) string {
	g := p.s.Groups[i]
	k := &kinds[g.Kind]
	switch {
	case g.Air:
		return p.pick(k.airPoses...)
	case p.s.Background == Sea && g.Kind == Boat:
		return p.pick("sailing", "floating", "drifting")
	case p.s.Background == Sea && g.Kind == Fish:
		return p.pick("swimming", "floating")
	case p.s.Background == Sea:
		return p.pick("floating", "drifting")
	}
	return p.pick(k.poses...)
}

// stay returns a pose that can end a sentence, or the empty string.
func (p speaker) stay(i int) string {
	switch g := p.s.Groups[i]; {
	case g.Air, p.s.Background == Sea, g.Kind == Cat, g.Kind == Dog:
		return p.maybe(.6, p.pose(i))
	}
	return ""
}

// place returns where a scene takes place, or the empty string.
func (p speaker) place(chances float64, air bool) string {
	w := placeWords[p.s.Background]
	if air {
		return p.maybe(chances, w.over...)
	}
	return p.maybe(chances, w.on...)
}

func (p speaker) scene() string { return p.pick(placeWords[p.s.Background].scene...) }
func (p speaker) light(chances float64) string {
	return p.maybe(chances, lightWords[p.s.Light]...)
}
func (p speaker) photo() string {
	return p.pick("a photo of", "a picture of", "a view of", "this is a picture of", "an image of", "a photograph of")
}

func (p speaker) side() string { return p.pick(sideWords[p.s.Where]...) }

func (p speaker) plans() []func() string {
	switch len(p.s.Groups) {
	case 1:
		return p.one()
	case 2:
		return p.two()
	}
	return p.three()
}

func (p speaker) one() []func() string {
	g := p.s.Groups[0]
	air := g.Air
	far := func() string {
		if g.Far {
			return p.maybe(.7, "in the distance", "far away", "in the background")
		}
		return ""
	}
	plans := []func() string{
		func() string { return join(p.name(0), p.pose(0), p.place(1, air), far(), p.light(.3)) },
		func() string { return join(p.name(0), far(), p.place(1, air), p.light(.5)) },
		func() string {
			return join("there", p.is(0), p.name(0), p.maybe(.5, p.pose(0)), p.place(.95, air), far())
		},
		func() string { return join(p.name(0), p.is(0), p.pose(0), p.place(1, air), far(), p.light(.3)) },
		func() string {
			return join(p.photo(), p.name(0), p.maybe(.5, p.pose(0)), p.place(.9, air), p.light(.2))
		},
		func() string { return join(p.scene(), "with", p.name(0), p.stay(0), far(), p.light(.3)) },
		func() string {
			return join(p.name(0), p.pick("can be seen", "is seen", "is shown"), p.place(1, air), p.light(.3))
		},
	}
	if g.Count > 1 {
		plans = plans[:6]
		plans = append(plans,
			func() string { return join(p.name(0), "can be seen", p.place(1, air), p.light(.3)) },
			func() string {
				return join(p.name(0), p.pick(togetherWords...), p.place(1, air))
			})
	}
	if p.s.Where != Anywhere {
		plans = append(plans,
			func() string { return join(p.name(0), p.maybe(.5, p.pose(0)), p.side(), p.place(.5, air)) },
			func() string { return join(p.scene(), "with", p.name(0), p.side()) })
	}
	if g.Kind == Kite {
		plans = append(plans, func() string {
			return join(p.name(0), p.is(0), "being flown", p.place(1, air), p.light(.4))
		})
	}
	if k := kinds[g.Kind]; k.small && !air && g.Kind != Cat && g.Kind != Dog && g.Kind != Bird && g.Kind != Fish {
		plans = append(plans, func() string {
			return join(p.pick("someone has left", "somebody put", "someone placed"), p.name(0), p.place(1, air))
		})
	}
	return plans
}

func (p speaker) two() []func() string {
	r := p.s.Relation
	air := p.s.Groups[0].Air && p.s.Groups[1].Air
	a := func() string { // relation of the first to the second
		if r == NextTo && chance(p.rng, .2) {
			return p.pick(besideWords[p.s.Where]...)
		}
		return p.pick(relationWords[r].a...)
	}
	place := func(chances float64) string { return p.place(chances, air) }
	plans := []func() string{
		func() string { return join(p.name(0), p.pose(0), a(), p.name(1), place(.6), p.light(.15)) },
		func() string { return join(p.name(0), p.is(0), p.maybe(.6, p.pose(0)), a(), p.name(1), place(.6)) },
		func() string { return join(p.name(0), a(), p.name(1), place(.7), p.light(.25)) },
		func() string { return join("there", p.is(0), p.name(0), a(), p.name(1), place(.6)) },
		func() string { return join(p.photo(), p.name(0), p.maybe(.3, p.pose(0)), a(), p.name(1), place(.4)) },
		func() string { return join(p.scene(), "with", p.name(0), a(), p.name(1), p.light(.2)) },
		func() string { return join(p.name(0), "can be seen", a(), p.name(1), place(.6)) },
		func() string { return join(p.name(0), "and", p.name(1), place(1), p.light(.2)) },
	}
	switch r {
	case On:
		plans = append(plans, func() string {
			return join(p.name(1), place(.6), "with", p.name(0), p.pick(withWords[On]...))
		}, func() string {
			return join(p.name(0), p.pick("has been placed on", "has been put on"), p.name(1), place(.5))
		})
		if k := p.s.Groups[0].Kind; k == Cat || k == Dog || k == Bird {
			plans = plans[:len(plans)-1]
		}
	case Under:
		plans = append(plans, func() string {
			return join(p.name(1), place(.6), "with", p.name(0), p.pick(withWords[Under]...))
		})
	default:
		plans = append(plans, func() string {
			return join(p.name(1), p.maybe(.5, p.pose(1)), p.pick(relationWords[r].b...), p.name(0), place(.6))
		})
	}
	if r == InFrontOf {
		plans = append(plans, func() string {
			return join(p.name(0), place(.5), "with", p.name(1), p.pick(withWords[InFrontOf]...))
		})
		if p.s.Groups[0].Count > 1 {
			plans = plans[:len(plans)-1]
		}
	}
	return plans
}

func (p speaker) three() []func() string {
	air := p.s.Groups[0].Air
	list := func() string {
		o := p.rng.Perm(3)
		return p.name(o[0]) + ", " + p.name(o[1]) + p.pick(" and ", ", and ", " and ") + p.name(o[2])
	}
	return []func() string{
		func() string { return join(list(), p.place(1, air), p.light(.2)) },
		func() string { return join("there is", list(), p.place(.7, air)) },
		func() string { return join(p.photo(), list(), p.place(.5, air)) },
		func() string { return join(p.scene(), "with", list()) },
		func() string {
			return join(list(), p.pick(rowWords...), p.place(.6, air))
		},
		func() string { return join(list(), "can be seen", p.place(1, air)) },
		func() string { return join(p.name(1), "between", p.name(0), "and", p.name(2), p.place(.6, air)) },
		func() string {
			return join(p.name(0), p.pose(0), "next to", p.name(1), "and", p.name(2), p.place(.5, air))
		},
	}
}
