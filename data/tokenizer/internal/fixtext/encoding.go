package fixtext

import (
	"bytes"
	"slices"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
)

// A charset is a single-byte character set.
type charset struct {
	decode [256]rune
	encode map[rune]byte
	sloppy bool
}

// newCharset takes a character set from x/text. A sloppy character set decodes
// each byte that the standard leaves undefined as the control character with that
// number, as browsers do, and encodes U+FFFD as byte 0x1A (SUBSTITUTE): text whose
// undefined bytes were already lost can then still be fixed around them.
func newCharset(m *charmap.Charmap, sloppy bool) *charset {
	c := &charset{encode: make(map[rune]byte, 256), sloppy: sloppy}
	for b := range 256 {
		r := m.DecodeByte(byte(b))
		if r == utf8.RuneError {
			r = rune(b)
		}
		if sloppy && b == substitute {
			r = utf8.RuneError
		}
		c.decode[b] = r
		c.encode[r] = byte(b)
	}
	return c
}

const substitute = 0x1A

var (
	latin1      = newCharset(charmap.ISO8859_1, false)
	windows1252 = newCharset(charmap.Windows1252, true)
	windows1251 = newCharset(charmap.Windows1251, true)
	windows1250 = newCharset(charmap.Windows1250, true)
	windows1253 = newCharset(charmap.Windows1253, true)
	windows1254 = newCharset(charmap.Windows1254, true)
	windows1257 = newCharset(charmap.Windows1257, true)
	macRoman    = newCharset(charmap.Macintosh, false)
)

// charsets lists those that UTF-8 may have been mistaken for, the likeliest first.
var charsets = []*charset{
	latin1, windows1252, windows1251, windows1250, windows1253, windows1254, windows1257,
	newCharset(charmap.ISO8859_2, false), macRoman, newCharset(charmap.CodePage437, false),
}

// bytes encodes text in the character set, if it has all of its characters.
func (c *charset) bytes(text []rune) ([]byte, bool) {
	out := make([]byte, len(text))
	for i, r := range text {
		b, ok := c.encode[r]
		if !ok {
			return nil, false
		}
		out[i] = b
	}
	return out, true
}

func isASCII(text []rune) bool {
	return !slices.ContainsFunc(text, func(r rune) bool { return r >= utf8.RuneSelf })
}

// fixEncoding fixes UTF-8 that was decoded as another character set, even several
// times over. Text that does not look like that (see isBad) stays as it is.
func fixEncoding(text []rune) []rune {
	for !isASCII(text) && isBad(text) {
		fixed := fixEncodingOnce(text)
		if slices.Equal(fixed, text) {
			break
		}
		text = fixed
	}
	return text
}

func fixEncodingOnce(text []rune) []rune {
	var asLatin1 []byte
	for _, c := range charsets {
		encoded, ok := c.bytes(text)
		if !ok {
			continue
		}
		if c == latin1 {
			asLatin1 = encoded
		}
		// Not in MacRoman, where this would match a dash before a space.
		if c != macRoman {
			encoded = restoreNoBreakSpaces(encoded)
		}
		if c.sloppy {
			encoded = markLosses(encoded)
		}
		if fixed, ok := decodeVariant(encoded); ok {
			return fixed
		}
	}

	// No character set contains the whole text: fix the parts that are UTF-8.
	if fixed := fixParts(text); !slices.Equal(fixed, text) {
		return fixed
	}
	if asLatin1 != nil {
		if fixed, ok := decodeStrict1252(asLatin1); ok {
			return fixed
		}
	}
	return fixC1(text)
}

// decodeStrict1252 decodes b as Windows-1252, unless it contains a byte that the
// standard leaves undefined.
func decodeStrict1252(b []byte) ([]rune, bool) {
	out := make([]rune, len(b))
	for i, c := range b {
		r := windows1252.decode[c]
		if c == substitute {
			r = substitute
		} else if c >= 0x80 && c < 0xA0 && r == rune(c) {
			return nil, false
		}
		out[i] = r
	}
	return out, true
}

// fixC1 replaces C1 control characters with the characters that their bytes
// represent in Windows-1252.
func fixC1(text []rune) []rune {
	out := slices.Clone(text)
	for i, r := range out {
		if 0x80 <= r && r < 0xA0 {
			out[i] = windows1252.decode[r]
		}
	}
	return out
}

// Which character may represent which byte of UTF-8 that was decoded as Latin-1
// or a Windows character set.
const (
	leads2     = 1 << iota // the first of 2 bytes
	leads3                 // the first of 3
	leads4                 // the first of 4
	continues              // a later byte; also a space for the no-break space
	surelyCont             // the same, except for characters that often represent themselves: spaces, dashes, quotes, …
)

var utf8Roles = func() map[rune]uint8 {
	roles := make(map[rune]uint8)
	for _, c := range charsets[:7] {
		for b, r := range c.decode {
			switch {
			case b < 0x80:
			case b < 0xC0:
				roles[r] |= continues | surelyCont
			case 0xC2 <= b && b < 0xE0:
				roles[r] |= leads2
			case 0xE0 <= b && b < 0xF0:
				roles[r] |= leads3
			case b == 0xF0 || b == 0xF3: // all other characters of 4 bytes are unassigned
				roles[r] |= leads4
			}
		}
	}
	for _, r := range " –—―‘’‚“”„•…" {
		roles[r] = roles[r]&^surelyCont | continues
	}
	return roles
}()

// fixParts fixes those parts of text that on their own look like UTF-8 and bad. A
// part that is the whole text stays as it is, because it has already been tried.
func fixParts(text []rune) []rune {
	var out []rune
	for i := 0; i < len(text); {
		n := 0
		if i == 0 || utf8Roles[text[i-1]]&surelyCont == 0 {
			n = utf8Stretch(text[i:])
		}
		switch part := text[i : i+n]; {
		case n == 0:
			n = 1
			out = append(out, text[i])
		case n < len(text) && isBad(part):
			out = append(out, fixEncoding(part)...)
		default:
			out = append(out, part...)
		}
		i += n
	}
	return out
}

// utf8Stretch returns the length of the longest run of characters at the start of
// text that may be the bytes of complete UTF-8 characters.
func utf8Stretch(text []rune) int {
	i := 0
	for i < len(text) {
		size := 0
		switch role := utf8Roles[text[i]]; {
		case role&leads2 != 0:
			size = 2
		case role&leads3 != 0:
			size = 3
		case role&leads4 != 0:
			size = 4
		}
		if size == 0 || i+size > len(text) {
			return i
		}
		for _, r := range text[i+1 : i+size] {
			if utf8Roles[r]&continues == 0 {
				return i
			}
		}
		i += size
	}
	return i
}

func isCont(b byte) bool { return 0x80 <= b && b < 0xC0 }

// restoreNoBreakSpaces restores the byte A0 in UTF-8 characters in which a space
// has replaced it, the most likely alteration of mojibake, but only if the result
// is a character that people use.
func restoreNoBreakSpaces(b []byte) []byte {
	if !bytes.ContainsFunc(b, func(r rune) bool { return r == ' ' }) {
		return b
	}
	found := false
	for i := 0; i < len(b) && !found; i++ {
		found = blankedLen(b[i:]) > 0
	}
	if !found {
		return b
	}
	// "Ã " is usually the French or Portuguese word "à" whose no-break space and
	// following space became one: keep a space after it, unless the word
	// continues (às, àquele, àquela, àquilo).
	var out []byte
	for i := 0; i < len(b); {
		if b[i] == 0xC3 && i+1 < len(b) && b[i+1] == ' ' && !aGraveGoesOn(b[i+2:]) {
			out = append(out, 0xC3, 0xA0, ' ')
			i += 2
			continue
		}
		out = append(out, b[i])
		i++
	}
	for i := 0; i < len(out); {
		n := blankedLen(out[i:])
		for j := i; j < i+n; j++ {
			if out[j] == ' ' {
				out[j] = 0xA0
			}
		}
		i += max(n, 1)
	}
	return out
}

func aGraveGoesOn(rest []byte) bool {
	for _, word := range []string{" ", "s ", "quele", "quela", "quilo"} {
		if bytes.HasPrefix(rest, []byte(word)) {
			return true
		}
	}
	return false
}

// blankedLen returns the length of the UTF-8 character at the start of b in which
// one space replaces a byte A0, or 0.
func blankedLen(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	// In addition to A0, the byte that the space replaces, 0x85 is left out: it is an
	// ellipsis in Windows-1252 and not reliable next to a space.
	certain := func(c byte) bool { return isCont(c) && c != 0x85 && c != 0xA0 }
	switch lead := b[0]; lead {
	case 0xC2, 0xC3, 0xC5, 0xCE, 0xD0, 0xD9: // no-break space, à, Š, Π, Р, Arabic zero
		if b[1] == ' ' {
			return 2
		}
	case 0xE0, 0xE1, 0xE2, 0xE3: // later leads are CJK; E0 A0 and E1 A0 are rare scripts
		if len(b) < 3 {
			return 0
		}
		if lead >= 0xE2 && b[1] == ' ' && certain(b[2]) || certain(b[1]) && b[2] == ' ' {
			return 3
		}
	case 0xF0:
		if len(b) < 4 {
			return 0
		}
		blanks := 0
		for _, c := range b[1:4] {
			if c == ' ' {
				blanks++
			} else if !isCont(c) {
				return 0
			}
		}
		if blanks == 1 {
			return 4
		}
	}
	return 0
}

// markLosses replaces each UTF-8 character that has lost bytes with U+FFFD. A
// lost byte is 0x1A or, at most once per character, a question mark.
func markLosses(b []byte) []byte {
	if bytes.IndexByte(b, substitute) < 0 && bytes.IndexByte(b, '?') < 0 {
		return b
	}
	var out []byte
	for i := 0; i < len(b); {
		if n := lossyLen(b[i:]); n > 0 {
			out = append(out, "\uFFFD"...)
			i += n
			continue
		}
		out = append(out, b[i])
		i++
	}
	return out
}

// lossyLen returns the length of the character with lost bytes at the start of b,
// or 0.
func lossyLen(b []byte) int {
	lead := b[0]
	// count returns how many bytes of b[1:n] are lost, how many of those are
	// question marks, and whether the others are later bytes of a character.
	count := func(n int) (lost, asked int, ok bool) {
		if len(b) < n {
			return 0, 0, false
		}
		for _, c := range b[1:n] {
			switch {
			case c == substitute:
				lost++
			case c == '?':
				lost++
				asked++
			case !isCont(c):
				return 0, 0, false
			}
		}
		return lost, asked, true
	}
	switch {
	case lead == substitute:
		return 1
	case 0xC2 <= lead && lead < 0xE0:
		if len(b) > 1 && (b[1] == substitute || b[1] == '?' && lead <= 0xC3) {
			return 2
		}
	case 0xE0 <= lead && lead < 0xF0:
		if lead == 0xED && lossySurrogates(b) {
			return 6
		}
		if lost, asked, ok := count(3); ok && lost > 0 && asked <= 1 {
			return 3
		}
	case 0xF0 <= lead && lead < 0xF5:
		if lost, asked, ok := count(4); ok && lost > 0 && asked <= 1 {
			return 4
		}
	}
	return 0
}

// lossySurrogates reports whether b starts with two encoded surrogates of which
// one or both have lost their last byte.
func lossySurrogates(b []byte) bool {
	if len(b) < 6 || b[1] < 0xA0 || b[1] > 0xAF || b[3] != 0xED || b[4] < 0xB0 || b[4] > 0xBF {
		return false
	}
	lost := func(c byte) bool { return c == substitute || c == '?' }
	return lost(b[2]) && (lost(b[5]) || isCont(b[5])) || isCont(b[2]) && lost(b[5])
}

// decodeVariant decodes b as strict UTF-8, except for two variants that old
// programs write: a pair of surrogates, three bytes each (CESU-8), and C0 80 for
// the character 0 (Java).
func decodeVariant(b []byte) ([]rune, bool) {
	out := make([]rune, 0, len(b))
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		if r == utf8.RuneError && size == 1 {
			switch {
			// Here and below, a line feed at the very end counts as the missing
			// byte; that is an oversight in the reference, kept on purpose.
			case b[0] == 0xC0 && len(b) > 1 && (b[1] == 0x80 || len(b) == 2 && b[1] == '\n'):
				r, size = 0, 2
			case len(b) >= 6 && b[0] == 0xED && b[1]&0xF0 == 0xA0 && isCont(b[2]) &&
				b[3] == 0xED && b[4]&0xF0 == 0xB0 && (isCont(b[5]) || len(b) == 6 && b[5] == '\n'):
				r = 0x10000 + (rune(b[1]&0xF)<<16 | rune(b[2]&0x3F)<<10 | rune(b[4]&0xF)<<6 | rune(b[5]&0x3F))
				size = 6
			default:
				return nil, false
			}
		}
		out = append(out, r)
		b = b[size:]
	}
	return out, true
}
