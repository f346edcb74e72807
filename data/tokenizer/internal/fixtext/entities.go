package fixtext

import (
	"html"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// entity returns the characters of an HTML5 entity, given its name without the
// semicolon.
//
// The standard library has the table but does not export it:
// html.UnescapeString returns the value of "&name;", or something that ends in
// the semicolon if it knows only part of the name or none of it. (It leaves out
// two entities that are shorter than their value.)
func entity(name string) (string, bool) {
	switch name {
	case "nLt":
		return "\u226A\u20D2", true
	case "nGt":
		return "\u226B\u20D2", true
	}
	value := html.UnescapeString("&" + name + ";")
	return value, !strings.HasSuffix(value, ";") || name == "semi"
}

// legacyEntity is like entity, for the 106 names that HTML accepts without a
// semicolon. Each is a single character, which distinguishes it from a name that
// is only partly known.
func legacyEntity(name string) (string, bool) {
	value := html.UnescapeString("&" + name)
	return value, utf8.RuneCountInString(value) == 1
}

// longestLegacy is the length of the longest name that legacyEntity knows.
const longestLegacy = 6

// isName reports whether s can be the name of an entity: html.UnescapeString
// stops at the first character that cannot be part of one.
func isName(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := rune(s[i]); !isASCIILetter(c) && !isASCIIDigit(c) {
			return false
		}
	}
	return s != ""
}

// unescapeEntities replaces unambiguous entities, which are those that end in a
// semicolon, including entities in capitals ("&EACUTE;"), as found in databases
// that store only capital letters.
func unescapeEntities(text []rune) []rune {
	if !slices.Contains(text, '&') {
		return text
	}
	out := make([]rune, 0, len(text))
	for i := 0; i < len(text); {
		if text[i] == '&' {
			if n := entityLen(text[i:]); n > 0 {
				out = append(out, []rune(entityValue(string(text[i:i+n])))...)
				i += n
				continue
			}
		}
		out = append(out, text[i])
		i++
	}
	return out
}

// entityLen returns the length of what looks like an entity at the start of text:
// "&", optionally "#", 1 to 24 letters or digits, ";".
func entityLen(text []rune) int {
	i := 1
	if i < len(text) && text[i] == '#' {
		i++
	}
	start := i
	for i < len(text) && i-start <= 24 && (isASCIILetter(text[i]) || isASCIIDigit(text[i])) {
		i++
	}
	if n := i - start; n < 1 || n > 24 || i == len(text) || text[i] != ';' {
		return 0
	}
	return i + 1
}

// entityValue returns the value of an entity, or the entity itself.
func entityValue(text string) string {
	if text[1] == '#' {
		// A remaining semicolon means that only part of it was a number.
		if value := UnescapeHTML(text); !strings.Contains(value, ";") {
			return value
		}
		return text
	}
	name := text[1 : len(text)-1]
	if value, ok := entity(name); ok {
		return value
	}
	if strings.ToUpper(name) == name && UnescapeHTML(text) == text {
		if value, ok := entity(strings.ToLower(name)); ok {
			return upper(value)
		}
	}
	return text
}

// upper is Python's str.upper as far as entities need it: full case mapping, in
// which a capital may be more than one letter.
func upper(s string) string {
	var b strings.Builder
	for _, r := range s {
		if capital, ok := longCapitals[r]; ok {
			b.WriteString(capital)
		} else {
			b.WriteString(strings.ToUpper(string(r)))
		}
	}
	return b.String()
}

var longCapitals = map[rune]string{'ß': "SS", 'ŉ': "ʼN", 'ﬀ': "FF", 'ﬁ': "FI", 'ﬂ': "FL", 'ﬃ': "FFI", 'ﬄ': "FFL"}

// UnescapeHTML replaces HTML entities and character references as HTML5 does,
// even without a semicolon ("&notit" is "¬it"). It is equivalent to Python's
// html.unescape.
func UnescapeHTML(s string) string {
	at := strings.IndexByte(s, '&')
	if at < 0 {
		return s
	}
	var b strings.Builder
	for ; at >= 0; at = strings.IndexByte(s, '&') {
		b.WriteString(s[:at])
		s = s[at:]
		value, n := characterReference(s)
		b.WriteString(value)
		s = s[n:]
	}
	b.WriteString(s)
	return b.String()
}

// characterReference parses the reference at the start of s, which starts with
// "&", and returns its value and its length in s. The value of an "&" that starts
// no reference is "&".
func characterReference(s string) (value string, n int) {
	if strings.HasPrefix(s, "&#") {
		digits, base := s[2:], 10
		if digits != "" && (digits[0] == 'x' || digits[0] == 'X') {
			digits, base = digits[1:], 16
		}
		n := 0
		for n < len(digits) && isDigit(digits[n], base) {
			n++
		}
		if n == 0 {
			return "&", 1
		}
		value := numberedCharacter(digits[:n], base)
		if n < len(digits) && digits[n] == ';' {
			n++
		}
		return value, len(s) - len(digits) + n
	}

	// A name ends at white space, at another reference or after 32 characters.
	end := 1
	for count := 0; end < len(s) && count < 32 && !strings.ContainsRune("\t\n\f <&#;", rune(s[end])); count++ {
		_, size := utf8.DecodeRuneInString(s[end:])
		end += size
	}
	name := s[1:end]
	if name == "" {
		return "&", 1
	}
	if end < len(s) && s[end] == ';' && isName(name) {
		if value, ok := entity(name); ok {
			return value, end + 1
		}
	}
	for n := min(len(name), longestLegacy); n > 1; n-- {
		if isName(name[:n]) {
			if value, ok := legacyEntity(name[:n]); ok {
				return value, 1 + n
			}
		}
	}
	return "&", 1
}

func isDigit(c byte, base int) bool {
	return isASCIIDigit(rune(c)) || base == 16 && ('a' <= c|0x20 && c|0x20 <= 'f')
}

// numberedCharacter returns the character with a number, with the exceptions in
// HTML5: control characters and noncharacters are dropped, bytes of Windows-1252
// are decoded, and numbers that are not characters become U+FFFD.
func numberedCharacter(digits string, base int) string {
	n, err := strconv.ParseUint(digits, base, 32)
	switch {
	case err != nil || n == 0 || n > utf8.MaxRune || 0xD800 <= n && n < 0xE000:
		return "\uFFFD"
	case n == '\r':
		return "\r"
	case 0x80 <= n && n < 0xA0:
		return string(windows1252.decode[n])
	case n < ' ' && n != '\t' && n != '\n' && n != '\f', n == 0x7F, 0xFDD0 <= n && n < 0xFDF0, n&0xFFFE == 0xFFFE:
		return ""
	}
	return string(rune(n))
}
