package fixtext

import (
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// maxSegment is the longest segment, in characters, that is fixed as a unit.
const maxSegment = 1_000_000

// Fix fixes text, which must be valid UTF-8. It works line by line, because each
// line may have been damaged differently.
//
// From the first line that contains a "<", HTML entities are left alone: such
// text is HTML, and the entities are intended.
func Fix(text string) string {
	if isSound(text) {
		return text
	}
	entities := true
	var out []rune
	for rest := []rune(text); len(rest) > 0; {
		n := slices.Index(rest, '\n') + 1
		if n == 0 {
			n = len(rest)
		}
		n = min(n, maxSegment)
		line := rest[:n]
		rest = rest[n:]
		entities = entities && !slices.Contains(line, '<')
		out = append(out, fixLine(line, entities)...)
	}
	return string(out)
}

// isSound is a quick test that holds for most text: it reports whether text is
// ASCII without entities and control characters, which needs no fixing.
func isSound(text string) bool {
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\t' || c == '\n' || c == '\f':
		case c < ' ' || c == '&' || c >= 0x7F:
			return false
		}
	}
	return true
}

// fixLine applies all fixes in order until nothing changes, because one fix may
// expose more damage. Each round takes linear time; only text that nests entities
// thousands deep ("&amp;amp;amp;…") needs many rounds.
func fixLine(line []rune, entities bool) []rune {
	for {
		text := line
		if entities {
			text = unescapeEntities(text)
		}
		text = fixEncoding(text)
		text = respell(text)
		text = dropEscapes(text)
		text = nfc(text)
		if slices.Equal(text, line) {
			return text
		}
		line = text
	}
}

// respell replaces single characters with what they represent.
func respell(text []rune) []rune {
	if !slices.ContainsFunc(text, needsRespelling) {
		return text
	}
	out := make([]rune, 0, len(text)+8)
	for i, r := range text {
		switch {
		case !needsRespelling(r):
			out = append(out, r)
		case r == '\r':
			if i+1 == len(text) || text[i+1] != '\n' {
				out = append(out, '\n')
			}
		default:
			out = append(out, respelt(r)...)
		}
	}
	return out
}

// needsRespelling reports whether respelt may change a character.
func needsRespelling(r rune) bool {
	return r == '\r' || 0x80 <= r && r < 0xA0 || 0x132 <= r && r < 0x1F4 || r == 0x2BC ||
		0x2018 <= r && r < 0x202A || r == 0x3000 || 0xFB00 <= r && r < 0xFB07 || 0xFF01 <= r && r < 0xFFF0
}

// respelt returns the replacement of a single character.
func respelt(r rune) []rune {
	if 0x80 <= r && r < 0xA0 {
		// A C1 control character is a byte of Windows-1252, as in HTML.
		r = windows1252.decode[r]
	}
	switch {
	case r == 0x2028 || r == 0x2029: // line and paragraph separator
		return []rune{'\n'}
	case r == 0x2BC || 0x2018 <= r && r <= 0x201B:
		return []rune{'\''}
	case 0x201C <= r && r <= 0x201F:
		return []rune{'"'}
	case r == 0x3000: // ideographic space
		return []rune{' '}
	case 0xFF01 <= r && r < 0xFFF0: // full-width and half-width forms
		return []rune(norm.NFKC.String(string(r)))
	}
	if letters, ok := ligatures[r]; ok {
		return []rune(letters)
	}
	return []rune{r}
}

// ligatures lists the Latin ligatures and digraphs that are decomposed: those
// made for fonts and old character sets, not letters in their own right such as æ.
var ligatures = map[rune]string{
	'ﬀ': "ff", 'ﬁ': "fi", 'ﬂ': "fl", 'ﬃ': "ffi", 'ﬄ': "ffl", 'ﬅ': "ſt", 'ﬆ': "st",
	'Ĳ': "IJ", 'ĳ': "ij", // Dutch
	'ŉ': "'n",                       // Afrikaans
	'Ǆ': "DŽ", 'ǅ': "Dž", 'ǆ': "dž", // Croatian, one per Serbian letter
	'Ǉ': "LJ", 'ǈ': "Lj", 'ǉ': "lj",
	'Ǌ': "NJ", 'ǋ': "Nj", 'ǌ': "nj",
	'Ǳ': "DZ", 'ǲ': "Dz", 'ǳ': "dz",
}

// dropEscapes removes terminal colour escapes (ESC, "[", digits and semicolons,
// a letter), and then invisible control characters.
func dropEscapes(text []rune) []rune {
	if !slices.ContainsFunc(text, isDropped) {
		return text
	}
	out := make([]rune, 0, len(text))
	for i := 0; i < len(text); {
		if n := escapeLen(text[i:]); n > 0 {
			i += n
			continue
		}
		if !isDropped(text[i]) {
			out = append(out, text[i])
		}
		i++
	}
	return out
}

func escapeLen(text []rune) int {
	if len(text) < 3 || text[0] != 0x1B || text[1] != '[' {
		return 0
	}
	i := 2
	for i < len(text) && (text[i] == ';' || unicode.IsDigit(text[i])) {
		i++
	}
	if i < len(text) && isASCIILetter(text[i]) {
		return i + 1
	}
	return 0
}

// isDropped reports whether a control character is removed: those of ASCII except
// white space, the deprecated format characters, annotation marks, the object
// replacement character, and the byte order mark.
func isDropped(r rune) bool {
	return r < ' ' && r != '\t' && r != '\n' && r != '\f' && r != '\r' || r == 0x7F ||
		0x206A <= r && r <= 0x206F || 0xFFF9 <= r && r <= 0xFFFC || r == 0xFEFF
}

func isASCIILetter(r rune) bool { return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' }

func isASCIIDigit(r rune) bool { return '0' <= r && r <= '9' }

// isSpace is like Python's str.isspace: white space, and the four ASCII
// separators 0x1C to 0x1F.
func isSpace(r rune) bool { return unicode.IsSpace(r) || 0x1C <= r && r <= 0x1F }

// Strip is equivalent to Python's str.strip.
func Strip(text string) string { return strings.TrimFunc(text, isSpace) }
