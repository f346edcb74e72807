package world

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"unicode"
)

// What a caption can say something about. Lights are those of the weather and the time of
// day, Sides the parts of the picture in which an object is.
const (
	Objects Subject = iota
	Colours
	Numbers
	Textures
	Sizes
	Places
	Lights
	Relations
	Sides
)

// A Subject is what a claim is about.
type Subject uint8

// Subjects lists all subjects.
var Subjects = []Subject{Objects, Colours, Numbers, Textures, Sizes, Places, Lights, Relations, Sides}

var subjectNames = []string{"objects", "colours", "numbers", "textures", "sizes", "places", "light", "relations", "sides"}

func (s Subject) String() string               { return subjectNames[s] }
func (s Subject) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A Claim is something that a caption says about its photo.
type Claim struct {
	// Start and End are the words that say it: caption[Start:End].
	Start   int     `json:"start"`
	End     int     `json:"end"`
	Subject Subject `json:"subject"`
	// Right is true if the photo shows it. It is false for a second mention of objects
	// that are named already ("a bird next to a bird" where there is one).
	Right bool `json:"right"`
	// Object is the object that the claim is about, by its index in Photo.Objects. It is -1
	// for one of Photo.Others, for what the photo does not show, and for places, light,
	// relations and sides.
	Object int `json:"object"`
	// Absent is true for a claim about an object of a kind that the photo does not show.
	Absent bool `json:"absent,omitempty"`
}

// Claims returns what a caption says about a photo, in the order of its words. It reads
// the words with the meanings that they have in the captions of this package; other words
// claim nothing.
//
//   - An object is right if the photo shows one of its kind.
//   - A colour, number, texture or size is right if the object that it describes is right
//     and has it. One that describes nothing ("a green tiny.") is wrong.
//   - A place, light, relation or side is right if a caption of the photo could name it so.
//     A relation is between the objects named before and after it. Relations to one of
//     Photo.Others are not claims, because nothing is known about them.
func (p Photo) Claims(caption string) []Claim {
	r := reader{photo: p, words: split(caption)}
	r.read()
	r.relations()
	slices.SortStableFunc(r.claims, func(a, b Claim) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.End, b.End))
	})
	return r.claims
}

// phrases finds the longest of many phrases, and what it means.
type phrases[T any] struct {
	of      map[string]T
	longest int // in words
}

func (p *phrases[T]) add(phrase string, merge func(T) T) {
	if p.of == nil {
		p.of = map[string]T{}
	}
	p.of[phrase] = merge(p.of[phrase])
	p.longest = max(p.longest, strings.Count(phrase, " ")+1)
}

// at returns the longest phrase that begins with words[i], by its number of words.
func (p *phrases[T]) at(words []word, i int) (meaning T, n int) {
	for n := min(p.longest, len(words)-i); n > 0; n-- {
		if m, ok := p.of[text(words[i:i+n])]; ok {
			return m, n
		}
	}
	return meaning, 0
}

// before returns the longest phrase that ends before words[end] and begins at or after
// words[start].
func (p *phrases[T]) before(words []word, start, end int) (meaning T, n int) {
	for n := min(p.longest, end-start); n > 0; n-- {
		if m, ok := p.of[text(words[end-n:end])]; ok {
			return m, n
		}
	}
	return meaning, 0
}

// meanings are the words of the grammar, by what they mean. A word may mean any of several
// things.
type meanings struct {
	nouns    phrases[nounMeaning]
	colours  phrases[Colour]
	textures phrases[Texture]
	sizes    phrases[Size]
	numbers  phrases[[]int]
	places   phrases[[]Background]
	lights   phrases[[]Light]
	sides    phrases[Side]
	together phrases[bool]
	with     phrases[Relation]
	relation phrases[[]relationMeaning]
}

// lexicon returns the meanings. They are collected when they are first needed, since most
// commands read no captions of a world.
var lexicon = sync.OnceValue(func() *meanings {
	x := &meanings{}

	for k := range kindCount {
		for _, n := range kinds[k].nouns {
			x.nouns.add(n.many, func(nounMeaning) nounMeaning { return nounMeaning{k, true} })
			x.nouns.add(n.one, func(nounMeaning) nounMeaning { return nounMeaning{k, n.one == n.many} })
		}
	}
	for c := range colourCount {
		x.colours.add(c.String(), func(Colour) Colour { return c })
	}
	x.colours.add("grey", func(Colour) Colour { return Gray })
	for t, words := range textureWords {
		for _, w := range words {
			x.textures.add(w, func(Texture) Texture { return t })
		}
	}
	for s, words := range sizeWords {
		for _, w := range words {
			x.sizes.add(w, func(Size) Size { return s })
		}
	}
	for n, w := range numbers {
		x.numbers.add(w, func([]int) []int { return []int{n} })
	}
	for _, w := range pairWords {
		x.numbers.add(w, func([]int) []int { return []int{2} })
	}
	for _, w := range severalWords {
		x.numbers.add(w, func([]int) []int { return []int{3, 4} })
	}
	for _, w := range []string{"a", "an"} {
		x.numbers.add(w, func([]int) []int { return []int{1} })
	}
	collect(&x.places, placeNouns, func(yield func(Background, string)) {
		for b, w := range placeWords {
			for _, phrase := range slices.Concat(w.on, w.over, w.scene) {
				yield(Background(b), phrase)
			}
		}
	})
	collect(&x.lights, lightNouns, func(yield func(Light, string)) {
		for l, list := range lightWords {
			for _, phrase := range list {
				yield(l, phrase)
			}
		}
	})
	for s, list := range sideWords {
		for _, w := range list {
			x.sides.add(w, func(Side) Side { return s })
		}
	}
	for _, w := range slices.Concat(togetherWords, rowWords) {
		x.together.add(w, func(bool) bool { return true })
	}
	for r, list := range withWords {
		for _, w := range list {
			x.with.add(w, func(Relation) Relation { return r })
		}
	}
	relation := func(w string, m relationMeaning) {
		x.relation.add(w, func(old []relationMeaning) []relationMeaning { return append(old, m) })
	}
	for r, w := range relationWords {
		for _, w := range w.a {
			relation(w, relationMeaning{relation: Relation(r)})
		}
		for _, w := range w.b {
			relation(w, relationMeaning{relation: Relation(r), inverse: true})
		}
	}
	for s, list := range besideWords {
		for _, w := range list {
			relation(w, relationMeaning{relation: NextTo, side: s})
		}
	}
	return x
})

type nounMeaning struct {
	kind Kind
	many bool // it may be the plural
}

// relationMeaning is what a phrase says about the object named before it: that it is in
// the relation to the object named after it, or the inverse.
type relationMeaning struct {
	relation Relation
	inverse  bool
	side     Side // on which it is next to the other; Anywhere if not said
}

// placeNouns and lightNouns are the words of the phrases for places and light that mean
// something by themselves, for captions that put a phrase together differently. A word
// means what the phrases with it mean.
var (
	placeNouns = []string{"beach", "sandy", "sand", "ocean", "water", "meadow", "grassy", "grass", "field", "street", "city", "road", "buildings",
		"room", "floor", "window", "night", "dark", "moon", "moonlit", "snow", "snowy", "winter", "desert", "cactus", "sea", "waves",
		"mountain", "mountains", "valley", "forest", "woods"}
	lightNouns = []string{"sunny", "sun", "sunshine", "bright", "cloudy", "clouds", "sunset", "evening", "dim", "light"}
)

// collect adds phrases, and the single words of a list with the meanings of all phrases
// that contain them.
func collect[T comparable](p *phrases[[]T], single []string, each func(yield func(T, string))) {
	add := func(phrase string, m T) {
		p.add(phrase, func(old []T) []T {
			if slices.Contains(old, m) {
				return old
			}
			return append(old, m)
		})
	}
	each(func(m T, phrase string) {
		add(phrase, m)
		for w := range strings.FieldsSeq(phrase) {
			if slices.Contains(single, w) {
				add(w, m)
			}
		}
	})
}

// A word of a caption, in lower case, or a punctuation mark.
type word struct {
	text       string
	start, end int
}

func split(caption string) (list []word) {
	start := -1
	end := func(at int) {
		if start >= 0 {
			list = append(list, word{strings.ToLower(caption[start:at]), start, at})
			start = -1
		}
	}
	for i, r := range caption {
		switch {
		case unicode.IsLetter(r) || unicode.IsDigit(r):
			if start < 0 {
				start = i
			}
		default:
			end(i)
			if !unicode.IsSpace(r) {
				list = append(list, word{string(r), i, i + len(string(r))})
			}
		}
	}
	end(len(caption))
	return list
}

func text(words []word) string {
	switch len(words) {
	case 0:
		return ""
	case 1:
		return words[0].text
	}
	var b strings.Builder
	for i, w := range words {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(w.text)
	}
	return b.String()
}

// others stands for one of Photo.Others and absent for what is not in the photo, in place
// of an index in Photo.Objects.
const others, absent = -1, -2

// name is a noun phrase of a caption that names objects.
type name struct {
	start, end int // words
	kind       Kind
	object     int // index in Photo.Objects, others or absent
	group      Group
}

// reader reads a caption.
type reader struct {
	photo  Photo
	words  []word
	names  []name
	claims []Claim
}

// claim adds a claim made by words[start:end].
func (r *reader) claim(start, end int, s Subject, right bool, object int) {
	r.claims = append(r.claims, Claim{Start: r.words[start].start, End: r.words[end-1].end, Subject: s, Right: right,
		Object: max(object, -1), Absent: object == absent && s < Places})
}

// read finds the claims about single objects, places, light and sides, and the names.
func (r *reader) read() {
	for i := 0; i < len(r.words); {
		if n := r.name(i); n > 0 {
			i += n
		} else if n := r.dangling(i); n > 0 {
			i += n
		} else if n := setting(r, i, &lexicon().places, Places, r.photo.Background); n > 0 {
			i += n
		} else if n := setting(r, i, &lexicon().lights, Lights, r.photo.Light); n > 0 {
			i += n
		} else if n := r.side(i); n > 0 {
			i += n
		} else if _, n := lexicon().together.at(r.words, i); n > 0 {
			r.together(i, n)
			i += n
		} else {
			i++
		}
	}
}

// An attribute is a word before a noun, and whether an object has it.
type attribute struct {
	start, end int
	subject    Subject
	fits       func(Group) bool
}

// attributes reads the words before a noun. Equal ones count once.
func (r *reader) attributes(i int) (list []attribute, next int) {
	said := map[string]bool{}
	add := func(n int, s Subject, fits func(Group) bool) {
		if phrase := text(r.words[i : i+n]); !said[phrase] {
			said[phrase] = true
			list = append(list, attribute{i, i + n, s, fits})
		}
		i += n
	}
	for i < len(r.words) {
		if count, n := lexicon().numbers.at(r.words, i); n > 0 {
			add(n, Numbers, func(g Group) bool { return slices.Contains(count, g.Count) })
		} else if c, n := lexicon().colours.at(r.words, i); n > 0 {
			add(n, Colours, func(g Group) bool { return g.Colour == c })
		} else if t, n := lexicon().textures.at(r.words, i); n > 0 {
			add(n, Textures, func(g Group) bool { return g.Texture == t })
		} else if s, n := lexicon().sizes.at(r.words, i); n > 0 {
			add(n, Sizes, func(g Group) bool { return g.Size == s })
		} else if w := r.words[i].text; (w == "and" || w == ",") && len(list) > 0 && r.adjective(i+1) && list[len(list)-1].subject != Numbers {
			i++ // "red and white"
		} else {
			break
		}
	}
	return list, i
}

// adjective reports whether a word describes an object.
func (r *reader) adjective(i int) bool {
	_, colour := lexicon().colours.at(r.words, i)
	_, texture := lexicon().textures.at(r.words, i)
	_, size := lexicon().sizes.at(r.words, i)
	return colour+texture+size > 0
}

// name reads a name that begins with words[i], and returns its number of words.
func (r *reader) name(i int) int {
	list, at := r.attributes(i)
	noun, n := lexicon().nouns.at(r.words, at)
	if n == 0 {
		return 0
	}
	kind := func(g Group) bool { return g.Kind == noun.kind }
	object, group := absent, Group{}
	if k := slices.IndexFunc(r.photo.Objects, kind); k >= 0 {
		object, group = k, r.photo.Objects[k]
	} else if k := slices.IndexFunc(r.photo.Others, kind); k >= 0 {
		object, group = others, r.photo.Others[k]
	}
	the := i > 0 && r.words[i-1].text == "the"
	again := object != absent && slices.ContainsFunc(r.names, func(n name) bool { return n.kind == noun.kind })
	right := object != absent && (!again || the)
	if !again || !the {
		r.claim(at, at+n, Objects, right, object)
	}
	for _, a := range list {
		if a.subject == Numbers && noun.many && isArticle(r.words[a.start].text) && a.end == a.start+1 {
			if noun.kind != Fish { // "a cats" says nothing certain
				continue
			}
		}
		r.claim(a.start, a.end, a.subject, right && a.fits(group), object)
	}
	start := i
	if the {
		start--
	}
	r.names = append(r.names, name{start, at + n, noun.kind, object, group})
	return at + n - i
}

func isArticle(w string) bool { return w == "a" || w == "an" }

// dangling reads words that describe an object without a noun after them: "the cup is red",
// or one that is not named at all. Sizes and numbers also describe other things ("a large
// body of water").
func (r *reader) dangling(i int) int {
	if !r.adjective(i) {
		return 0
	}
	list, at := r.attributes(i)
	object, group := absent, Group{}
	if last := len(r.names) - 1; last >= 0 && r.names[last].end == i-1 && (r.words[i-1].text == "is" || r.words[i-1].text == "are") {
		object, group = r.names[last].object, r.names[last].group
	}
	for _, a := range list {
		if object != absent || a.subject == Colours || a.subject == Textures {
			r.claim(a.start, a.end, a.subject, object != absent && a.fits(group), object)
		}
	}
	return at - i
}

// setting reads words about the place or the light.
func setting[T comparable](r *reader, i int, p *phrases[[]T], s Subject, is T) int {
	means, n := p.at(r.words, i)
	if n == 0 {
		return 0
	}
	end := i + n
	for n == 1 { // a single word: with others that agree with it, it says one thing
		next := end
		for next < len(r.words) && slices.Contains([]string{"of", "the", "a"}, r.words[next].text) {
			next++
		}
		more, n := p.at(r.words, next)
		both := slices.DeleteFunc(slices.Clone(means), func(m T) bool { return !slices.Contains(more, m) })
		if n != 1 || len(both) == 0 {
			break
		}
		means, end = both, next+1
	}
	r.claim(i, end, s, slices.Contains(means, is), -1)
	return end - i
}

// side reads words about where in the picture an object is.
func (r *reader) side(i int) int {
	side, n := lexicon().sides.at(r.words, i)
	if n == 0 || i+n < len(r.words) && r.words[i+n].text == "of" {
		return 0 // "on the left of a tree" is a relation, "in the middle of the woods" a place
	}
	object := 0
	if len(r.names) > 0 {
		object = r.names[len(r.names)-1].object
	}
	if object == others {
		return n
	}
	r.claim(i, i+n, Sides, object >= 0 && r.photo.sideOf(object) == side, -1)
	return n
}

// sideOf returns the side of an object, or Anywhere if it is not known.
func (p Photo) sideOf(object int) Side {
	switch {
	case object == 0:
		return p.Side
	case object == 1 && len(p.Objects) == 2 && p.Relation == NextTo && p.Side == Left:
		return Right
	case object == 1 && len(p.Objects) == 2 && p.Relation == NextTo && p.Side == Right:
		return Left
	}
	return Anywhere
}

// together reads words that say that all objects are next to each other.
func (r *reader) together(i, n int) {
	right := r.photo.Relation == NextTo
	for _, name := range r.names {
		if name.object == others {
			return
		}
		right = right || len(r.names) == 1 && name.object >= 0 && r.photo.Objects[name.object].Count > 1
	}
	right = right && !slices.ContainsFunc(r.names, func(n name) bool { return n.object == absent })
	r.claim(i, i+n, Relations, right, -1)
}

// relations finds the relations between names.
func (r *reader) relations() {
	for k := 1; k < len(r.names); k++ {
		a, b := r.names[k-1], r.names[k]
		if means, n := lexicon().relation.before(r.words, a.end, b.start); n > 0 {
			r.relation(b.start-n, b.start, a, b, means)
			continue
		}
		between := r.words[a.end:b.start]
		last := len(between) - 1
		if last >= 0 && between[last].text == "between" && k+1 < len(r.names) && text(r.words[b.end:r.names[k+1].start]) == "and" {
			// "a cat between a dog and a tree": the first of three.
			c := r.names[k+1]
			r.relation(b.start-1, b.start, a, b, []relationMeaning{{relation: NextTo}})
			if a.object >= 0 && (c.object == absent || c.object == a.object || a.object != 1) {
				r.claims[len(r.claims)-1].Right = false
			}
		}
		if last >= 0 && between[last].text == "with" {
			if rel, n := lexicon().with.at(r.words, b.end); n > 0 {
				// "a table with a cup on it", "a cup with a table behind it"
				m := relationMeaning{relation: rel, inverse: rel != InFrontOf}
				r.relation(b.end, b.end+n, a, b, []relationMeaning{m})
			}
		}
	}
}

// relation adds a claim that a is in a relation to b, in one of several meanings.
func (r *reader) relation(start, end int, a, b name, means []relationMeaning) {
	if a.object == others || b.object == others {
		return
	}
	right := false
	if a.object >= 0 && b.object >= 0 && a.object != b.object {
		for _, m := range means {
			first, second := a.object, b.object
			if m.inverse {
				first, second = second, first
			}
			if r.photo.Relation != m.relation {
				continue
			}
			switch {
			case m.side != Anywhere:
				if len(r.photo.Objects) > 2 {
					return // nothing is known about their order
				}
				right = right || r.photo.sideOf(first) == m.side
			case m.relation == NextTo:
				right = true
			default:
				right = right || first == 0 && second == 1
			}
		}
	}
	r.claim(start, end, Relations, right, -1)
}
