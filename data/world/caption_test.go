package world

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// words of the captions and what they claim, written down apart from the
// grammar.
var (
	kindOf = map[string]Kind{"vehicle": Car, "home": House, "sailboat": Boat, "mug": Cup}
	sizeOf = map[string]Size{"small": Small, "little": Small, "tiny": Small, "big": Large, "huge": Large, "large": Large}
	textOf = map[string]Texture{"striped": Striped, "stripy": Striped, "dotted": Dotted, "spotted": Dotted, "polka": Dotted, "checkered": Chequered, "checked": Chequered}
	countO = map[string][]int{"two": {2}, "pair": {2}, "couple": {2}, "three": {3}, "four": {4}, "several": {3, 4}, "group": {3, 4}}
	lightO = map[string]Light{"sunny": Sunny, "sunshine": Sunny, "cloudy": Cloudy, "clouds": Cloudy, "sunset": Sunset, "setting": Sunset, "dim": Dim}
	backOf = map[string]Background{"beach": Beach, "sandy": Beach, "meadow": Meadow, "grassy": Meadow, "grass": Meadow, "street": Street, "road": Street,
		"buildings": Street, "room": Room, "window": Room, "night": Night, "moon": Night, "dark": Night, "snow": Snow, "winter": Snow, "desert": Desert, "cactus": Desert,
		"waves": Sea, "sea": Sea, "mountains": Mountains, "mountain": Mountains, "forest": Forest, "woods": Forest}
	colourO = map[string]Colour{}
)

func init() {
	for k := range kindCount {
		kindOf[k.String()] = k
	}
	for one, k := range kindOf {
		switch one {
		case "box", "bus":
			one += "es"
		case "fish":
		default:
			one += "s"
		}
		kindOf[one] = k
	}
	for c := range colourCount {
		colourO[c.String()] = c
	}
}

// subject splits a caption into its groups: the words between two nouns belong to the
// second noun.
func claims(t *testing.T, s Scene, text string, others *int) {
	words := strings.Fields(strings.ToLower(strings.NewReplacer(".", "", ",", " ").Replace(text)))
	bad := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%q: "+format+"; the scene has %v %s on %s, %s", append(append([]any{text}, args...), s.Groups, s.Relation, s.Background, s.Light)...)
	}
	// Only the adjectives directly before a noun describe it.
	var pending []string
	mentioned := 0
	var order []Kind
	for i, w := range words {
		if w == "a" || w == "an" || w == "of" {
			if w != "of" || i == 0 || countO[words[i-1]] == nil {
				pending = nil
			}
		}
		pending = append(pending, w)
		k, noun := kindOf[w]
		if w == "large" && i+1 < len(words) && words[i+1] == "body" {
			pending = nil // a large body of water
		}
		if !noun {
			continue
		}
		same := func(g Group) bool { return g.Kind == k }
		var g Group
		if at := slices.IndexFunc(s.Groups, same); at >= 0 {
			g = s.Groups[at]
			mentioned++
			order = append(order, k)
		} else if at := slices.IndexFunc(s.Others, same); at >= 0 {
			g = s.Others[at]
			*others++
		} else {
			bad("%q isn't there", w)
			continue
		}
		if (g.Count > 1) != (w != k.String() && strings.HasSuffix(w, "s")) && k != Fish && !(g.Count == 1 && kindOf[w] == k && (!strings.HasSuffix(w, "s") || k == Bus)) {
			bad("%q are %d", w, g.Count)
		}
		one := true
		for _, a := range pending {
			if c, ok := colourO[a]; ok && c != g.Colour {
				bad("the %s isn't %s", k, a)
			}
			if c, ok := textOf[a]; ok && c != g.Texture {
				bad("the %s isn't %s", k, a)
			}
			if c, ok := sizeOf[a]; ok && c != g.Size {
				bad("the %s isn't %s", k, a)
			}
			if c, ok := countO[a]; ok {
				one = false
				if !slices.Contains(c, g.Count) {
					bad("the %s are not %s", k, a)
				}
			}
		}
		if one != (g.Count == 1) {
			bad("the number of %s isn't said", k)
		}
		pending = nil
	}
	// The second group may be left out where the first one is clearly the subject.
	alone := mentioned == 1 && len(order) == 1 && order[0] == s.Groups[0].Kind && (s.Relation == InFrontOf || s.Relation == Above)
	if mentioned != len(s.Groups) && !alone {
		bad("%d things of %d are spoken of", mentioned, len(s.Groups))
	}
	for i, w := range words {
		if b, ok := backOf[w]; ok && b != s.Background && !(w == "dark" && s.Light == Dim) {
			bad("it isn't at %q", w)
		}
		if l, ok := lightO[w]; ok && l != s.Light {
			bad("the light isn't %q", w)
		}
		if c, ok := colourO[w]; ok && !slices.ContainsFunc(slices.Concat(s.Groups, s.Others), func(g Group) bool { return g.Colour == c }) {
			bad("nothing is %s", w)
		}
		if w == "left" && words[max(i-1, 0)] != "has" || w == "right" && i+1 < len(words) && words[i+1] != "in" {
			want := map[string]Side{"left": Left, "right": Right}[w]
			if s.Where != want {
				bad("it isn't %s", w)
			}
		}
		if slices.Contains([]string{"distance", "far"}, w) && !s.Groups[0].Far {
			bad("it isn't far")
		}
	}
	if len(order) != 2 {
		return
	}
	checkRelation(t, s, text, words, order[0] == s.Groups[0].Kind)
}

// checkRelation checks the words between two names, and those after the second name.
// forward reports whether the first group is named first.
func checkRelation(t *testing.T, s Scene, text string, words []string, forward bool) {
	t.Helper()
	low := " " + strings.Join(words, " ") + " "
	phrases := slices.Concat(placeWords[s.Background].on, placeWords[s.Background].over, lightWords[s.Light])
	slices.SortFunc(phrases, func(a, b string) int { return len(b) - len(a) }) // some are substrings of others
	for _, phrase := range phrases {
		low = strings.ReplaceAll(low, " "+phrase+" ", " ")
	}
	var names []int // the words that are nouns
	words = strings.Fields(low)
	for i, w := range words {
		if _, ok := kindOf[w]; ok {
			names = append(names, i)
		}
	}
	between := " " + strings.Join(words[names[0]+1:names[1]], " ") + " "
	behind := " " + strings.Join(words[names[1]+1:], " ") + " "
	has := func(text string, list ...string) bool {
		return slices.ContainsFunc(list, func(w string) bool { return strings.Contains(text, " "+w+" ") })
	}
	said := map[Relation]bool{ // of the group named first to the other
		InFrontOf: has(between, "in front of") || has(behind, "behind it", "in the background", "in back"),
		Above:     has(between, "above", "over"),
		On:        has(between, "on", "on top of", "up on"),
		Under:     has(between, "under", "underneath", "beneath", "below"),
	}
	inverse := map[Relation]bool{
		InFrontOf: has(between, "behind", "in back of"),
		Above:     said[Under],
		On:        has(behind, "on it", "on top", "on top of it") || has(between, "holding", "supporting", "under"),
		Under:     said[Above] || has(behind, "under it", "beneath it", "underneath"),
	}
	ok := true
	for r := InFrontOf; r < relationCount; r++ {
		switch {
		case s.Relation == NextTo:
			// "on the left of" means next to.
			ok = ok && (r == On || !said[r] && !inverse[r])
		case r == s.Relation:
			ok = ok && !(said[r] && !forward) && !(inverse[r] && forward)
		case said[r]:
			// The same relation in other words: being below means that the other is above.
			ok = ok && inverse[s.Relation] && !forward
		}
	}
	if !ok {
		t.Errorf("%q: it is %s %s %s", text, s.Groups[0].Kind, s.Relation, s.Groups[1].Kind)
	}
}

func TestCaptionsAreTrue(t *testing.T) {
	shape := regexp.MustCompile(`^[A-Za-z]+(,? [a-z]+)+\.?$`)
	openings := map[string]bool{}
	distinct := map[string]bool{}
	total, stops, capitals, others := 0, 0, 0, 0
	vocabulary := map[string]bool{}
	for _, s := range append(samples(Val, 1500), samples(Train, 1500)...) {
		rng := source(s.Seed)
		captions := s.Captions(rng, 5)
		if again := s.Captions(source(s.Seed), 5); !slices.Equal(captions, again) {
			t.Fatalf("the same source gave %q and %q", captions, again)
		}
		if len(captions) != 5 {
			t.Fatalf("%d captions", len(captions))
		}
		same := map[string]bool{}
		for _, text := range captions {
			total++
			if !shape.MatchString(text) {
				t.Errorf("not a sentence: %q", text)
			}
			if strings.HasSuffix(text, ".") {
				stops++
			}
			if text[0] >= 'A' && text[0] <= 'Z' {
				capitals++
			}
			low := strings.ToLower(strings.TrimSuffix(text, "."))
			if same[low] {
				t.Errorf("twice: %q", text)
			}
			same[low], distinct[low] = true, true
			words := strings.Fields(strings.ReplaceAll(low, ",", ""))
			if n := len(words); n < 6 || n > 20 {
				t.Errorf("%d words: %q", n, text)
			}
			openings[words[0]] = true
			for i, w := range words {
				vocabulary[w] = true
				if i+1 < len(words) {
					if w == words[i+1] {
						t.Errorf("a word twice: %q", text)
					}
					if vowel := strings.ContainsRune("aeiou", rune(words[i+1][0])); w == "a" && vowel || w == "an" && !vowel {
						t.Errorf("%s %s: %q", w, words[i+1], text)
					}
				}
			}
			claims(t, s, text, &others)
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	if len(distinct) < total*9/10 {
		t.Errorf("%d of %d captions are distinct", len(distinct), total)
	}
	if stops < total*8/10 || stops == total || capitals < total*8/10 || capitals == total {
		t.Errorf("of %d captions %d end in a full stop and %d begin with a capital", total, stops, capitals)
	}
	if others < total/10 || others > total/3 {
		t.Errorf("%d of %d captions speak of other things", others, total)
	}
	if len(vocabulary) < 200 || len(openings) < 10 {
		t.Errorf("%d words, %d of them at the start", len(vocabulary), len(openings))
	}
}

// One scene has many captions, all distinct.
func TestManyCaptions(t *testing.T) {
	for _, s := range samples(Train, 100) {
		seen := map[string]bool{}
		for _, c := range s.Captions(source(1), 20) {
			seen[strings.ToLower(strings.TrimSuffix(c, "."))] = true
		}
		if len(seen) != 20 {
			t.Errorf("%d distinct captions of 20", len(seen))
		}
	}
}
