package fixtext

import (
	"slices"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// nfc converts text to Unicode normalization form C. It implements the algorithm
// of the Unicode Standard (3.11) with the tables of x/text. That package's own
// normalization cannot be used: it produces the "stream-safe" format, which adds a
// character after every 30 marks on one letter, and real text stacks that many.
func nfc(text []rune) []rune {
	// Text without characters from U+0300 up is always in form C.
	if !slices.ContainsFunc(text, func(r rune) bool { return r >= 0x300 }) || norm.NFC.IsNormalString(string(text)) {
		return text
	}

	// Decompose the characters and sort each run of marks by combining class.
	type character struct {
		r     rune
		class uint8
	}
	parts := make([]character, 0, len(text)+16)
	for _, r := range text {
		if d := properties(r).Decomposition(); d != nil {
			for _, r := range string(d) {
				parts = append(parts, character{r, properties(r).CCC()})
			}
		} else {
			parts = append(parts, character{r, properties(r).CCC()})
		}
	}
	for i := 0; i < len(parts); i++ {
		start := i
		for i < len(parts) && parts[i].class != 0 {
			i++
		}
		slices.SortStableFunc(parts[start:i], func(a, b character) int { return int(a.class) - int(b.class) })
	}

	// Compose again: each character with the last starter before it, unless a
	// character of the same class (or another starter) lies between them.
	out := make([]rune, 0, len(parts))
	starter, last := -1, -1
	for _, c := range parts {
		if starter >= 0 && (starter == len(out)-1 || last < int(c.class)) {
			if r, ok := compose(out[starter], c.r); ok {
				out[starter] = r
				continue
			}
		}
		if c.class == 0 {
			starter = len(out)
		}
		out = append(out, c.r)
		last = int(c.class)
	}
	return out
}

func properties(r rune) norm.Properties {
	var b [utf8.UTFMax]byte
	return norm.NFC.Properties(b[:utf8.EncodeRune(b[:], r)])
}

// compose returns the single character that is canonically equivalent to a and b.
func compose(a, b rune) (rune, bool) {
	if properties(b).BoundaryBefore() {
		return 0, false
	}
	s := norm.NFC.String(string([]rune{a, b}))
	r, size := utf8.DecodeRuneInString(s)
	return r, size == len(s)
}
