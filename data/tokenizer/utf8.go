package tokenizer

import (
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// decodeUTF8 decodes b like Python's bytes.decode("utf-8", errors="replace"):
// each longest incomplete part of a character becomes one U+FFFD. (Go's own
// conversions return one for every byte.)
func decodeUTF8(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	var out strings.Builder
	out.Grow(len(b) + 8)
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		if r == utf8.RuneError && size == 1 {
			size = brokenLen(b)
		}
		out.WriteRune(r)
		b = b[size:]
	}
	return out.String()
}

// brokenLen returns the number of bytes at the start of b, which is not a
// complete character, that start one: at least 1. (Unicode Standard, table 3-7
// and "U+FFFD Substitution of Maximal Subparts".)
func brokenLen(b []byte) int {
	need, low, high := 0, byte(0x80), byte(0xBF)
	switch lead := b[0]; {
	case lead >= 0xC2 && lead <= 0xDF:
		need = 1
	case lead >= 0xE0 && lead <= 0xEF:
		need = 2
		switch lead {
		case 0xE0:
			low = 0xA0
		case 0xED:
			high = 0x9F
		}
	case lead >= 0xF0 && lead <= 0xF4:
		need = 3
		switch lead {
		case 0xF0:
			low = 0x90
		case 0xF4:
			high = 0x8F
		}
	}
	n := 1
	for n <= need && n < len(b) && b[n] >= low && b[n] <= high {
		low, high = 0x80, 0xBF
		n++
	}
	return n
}

// validText returns text as valid UTF-8. Surrogates encoded one by one are joined
// in pairs, and an unpaired one becomes U+FFFD; other invalid bytes are treated as
// in decodeUTF8.
func validText(text string) string {
	if utf8.ValidString(text) {
		return text
	}
	b := make([]byte, 0, len(text))
	for i := 0; i < len(text); {
		first, ok := surrogateAt(text, i)
		if !ok {
			b = append(b, text[i])
			i++
			continue
		}
		i += 3
		r := rune(utf8.RuneError)
		if second, ok := surrogateAt(text, i); ok {
			if r = utf16.DecodeRune(first, second); r != utf8.RuneError {
				i += 3
			}
		}
		b = utf8.AppendRune(b, r)
	}
	return decodeUTF8(b)
}

// surrogateAt decodes a surrogate encoded in three bytes at text[i:].
func surrogateAt(text string, i int) (rune, bool) {
	if i+3 > len(text) || text[i] != 0xED || text[i+1]&0xE0 != 0xA0 || text[i+2]&0xC0 != 0x80 {
		return 0, false
	}
	return 0xD000 | rune(text[i+1]&0x3F)<<6 | rune(text[i+2]&0x3F), true
}
