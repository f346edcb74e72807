package fixtext

import (
	"slices"
	"strings"
	"unicode"
)

// Lower is equivalent to Python's str.lower: full case mapping, in which "İ"
// becomes two characters and a capital sigma at the end of a word becomes "ς".
func Lower(s string) string {
	if !strings.ContainsAny(s, "İΣ") {
		return strings.ToLower(s)
	}
	text := []rune(s)
	var b strings.Builder
	for i, r := range text {
		switch {
		case r == 'İ':
			b.WriteString("i\u0307")
		case r == 'Σ' && endsWord(text, i):
			b.WriteRune('ς')
		default:
			b.WriteRune(unicode.ToLower(r))
		}
	}
	return b.String()
}

// endsWord reports whether the condition Final_Sigma of the Unicode Standard
// (3.13) holds: there is a cased letter before text[i] and none after it, where
// characters without case of their own (accents, apostrophes) do not count.
func endsWord(text []rune, i int) bool {
	before := i - 1
	for before >= 0 && ignoresCase(text[before]) {
		before--
	}
	if before < 0 || !isCased(text[before]) {
		return false
	}
	after := i + 1
	for after < len(text) && ignoresCase(text[after]) {
		after++
	}
	return after == len(text) || !isCased(text[after])
}

func isCased(r rune) bool {
	return unicode.In(r, unicode.Lu, unicode.Ll, unicode.Lt, unicode.Other_Lowercase, unicode.Other_Uppercase)
}

// caseIgnorable lists the characters with the property Case_Ignorable that do not
// follow from a general category.
var caseIgnorable = []rune("'.:·\u0387\u055F\u05F4\u2018\u2019\u2024\u2027\uFE13\uFE52\uFE55\uFF07\uFF0E\uFF1A")

func ignoresCase(r rune) bool {
	return unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf, unicode.Lm, unicode.Sk) || slices.Contains(caseIgnorable, r)
}
