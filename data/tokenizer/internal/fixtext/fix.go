package fixtext

import (
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// maxSegment is the longest stretch in characters that is mended as one.
const maxSegment = 1_000_000

// Fix mends text (valid UTF-8). It works line by line, as the lines of a text
// may have been damaged in different ways.
//
// HTML entities are left alone from the first line on that has a "<": such text
// is HTML and means them.
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

// isSound says of most text, quickly, that nothing in it needs mending: ASCII
// without entities and control characters.
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

// fixLine applies all repairs in order, over and over until nothing changes:
// one repair may lay bare the next damage. Each round takes linear time; only
// text that nests entities thousands deep ("&amp;amp;amp;…") needs many rounds.
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

// respell replaces single characters by what they stand for.
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

// needsRespelling says which characters respelt may change.
func needsRespelling(r rune) bool {
	return r == '\r' || 0x80 <= r && r < 0xA0 || 0x132 <= r && r < 0x1F4 || r == 0x2BC ||
		0x2018 <= r && r < 0x202A || r == 0x3000 || 0xFB00 <= r && r < 0xFB07 || 0xFF01 <= r && r < 0xFFF0
}

// respelt gives what a single character is replaced by.
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

// ligatures lists the Latin ligatures and digraphs that are taken apart: those
// that fonts and old character sets made, not letters of their own such as æ.
var ligatures = map[rune]string{
	'ﬀ': "ff", 'ﬁ': "fi", 'ﬂ': "fl", 'ﬃ': "ffi", 'ﬄ': "ffl", 'ﬅ': "ſt", 'ﬆ': "st",
	'Ĳ': "IJ", 'ĳ': "ij", // Dutch
	'ŉ': "'n",                       // Afrikaans
	'Ǆ': "DŽ", 'ǅ': "Dž", 'ǆ': "dž", // Croatian, one for each Serbian letter
	'Ǉ': "LJ", 'ǈ': "Lj", 'ǉ': "lj",
	'Ǌ': "NJ", 'ǋ': "Nj", 'ǌ': "nj",
	'Ǳ': "DZ", 'ǲ': "Dz", 'ǳ': "dz",
}

// dropEscapes removes the escapes that colour a terminal (ESC, "[", digits and
// semicolons, a letter), and then control characters that do not show.
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

// isDropped says which control characters go: those of ASCII but white space,
// the deprecated format characters, annotation marks, the object replacement
// character, the byte order mark.
func isDropped(r rune) bool {
	return r < ' ' && r != '\t' && r != '\n' && r != '\f' && r != '\r' || r == 0x7F ||
		0x206A <= r && r <= 0x206F || 0xFFF9 <= r && r <= 0xFFFC || r == 0xFEFF
}

func isASCIILetter(r rune) bool { return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' }

func isASCIIDigit(r rune) bool { return '0' <= r && r <= '9' }

// isSpace is Python's str.isspace: white space, and the four ASCII
// separators 0x1C to 0x1F.
func isSpace(r rune) bool { return unicode.IsSpace(r) || 0x1C <= r && r <= 0x1F }

// Strip is Python's str.strip.
func Strip(text string) string { return strings.TrimFunc(text, isSpace) }
