package meteor

import "strings"

// A normaliser does what METEOR's -norm option does to a line: it separates
// punctuation from words, joins acronyms, and unifies the kinds of quotes, dashes and
// spaces. The passes were found by observing the reference's output for each code
// point between letters, digits and punctuation.
type normaliser struct {
	// prefixes holds the words that keep a following period ("mr"); the value is
	// true if they do so only before a number ("no. 5").
	prefixes map[string]bool
}

// dots represents one period of a run of two or more, which stays together.
const dots rune = -1

// words returns the tokens of a line.
func (n *normaliser) words(line string) []string {
	if plain(line) {
		return strings.Fields(line)
	}
	text := make([]rune, 0, len(line)+8)
	text = append(text, ' ')
	for _, r := range line {
		switch {
		case r == '\t' || r == '\n' || r == '\f' || r == '\r' || r == ' ':
			text = append(text, ' ')
		case r == '“' || r == '”':
			text = append(text, ' ', '"', ' ')
		case r == '‘' || r == '’' || r == '`':
			text = append(text, '\'')
		case r == '–':
			text = append(text, ' ', '-', ' ')
		default:
			text = append(text, r)
		}
	}
	text = append(text, ' ')
	text = separate(text)

	letter, digit := isLetter, isDigit
	text = between(text, ',', " , ", func(a, b rune) bool { return !digit(a) && !digit(b) })
	text = between(text, ',', " , ", func(a, b rune) bool { return digit(a) && !digit(b) })
	text = between(text, ',', " , ", func(a, b rune) bool { return !digit(a) && digit(b) })
	text = pairs(text, '-', "-")
	text = between(text, '-', " ", func(a, b rune) bool { return (isAlnum(a) || a == '.') && isAlnum(b) })
	text = pairs(text, '\'', " \" ")
	text = between(text, '\'', " ' ", func(a, b rune) bool { return !letter(a) && !letter(b) })
	text = between(text, '\'', " ' ", func(a, b rune) bool { return !letter(a) && !digit(a) && letter(b) })
	text = between(text, '\'', " ' ", func(a, b rune) bool { return letter(a) && !letter(b) })
	text = between(text, '\'', " '", func(a, b rune) bool { return letter(a) && letter(b) })
	text = between(text, '\'', " '", func(a, b rune) bool { return digit(a) && b == 's' })
	words := n.periods(text)
	// Characters below the space are trimmed from the ends of the line.
	for len(words) > 0 {
		if words[0] = strings.TrimLeftFunc(words[0], isLow); words[0] != "" {
			break
		}
		words = words[1:]
	}
	for len(words) > 0 {
		last := len(words) - 1
		if words[last] = strings.TrimRightFunc(words[last], isLow); words[last] != "" {
			break
		}
		words = words[:last]
	}
	return words
}

func isLow(r rune) bool { return r <= ' ' }

// periods splits the text into words and decides about the period at the end of
// each: an acronym loses all its periods, an abbreviation keeps its period, and any
// other word is separated from it.
func (n *normaliser) periods(text []rune) []string {
	var words [][]rune
	start := -1
	for i, r := range text {
		if r == ' ' {
			if start >= 0 {
				words = append(words, text[start:i])
			}
			start = -1
		} else if start < 0 {
			start = i
		}
	}
	out := make([]string, 0, len(words)+4)
	for i, word := range words {
		last := len(word) - 1
		if last == 0 && isSpace(word[0]) {
			continue // only punctuation so far
		}
		if last == 0 || word[last] != '.' {
			out = append(out, text2string(word))
			continue
		}
		stem := word[:last]
		var next rune
		if i+1 < len(words) {
			next = words[i+1][0]
		}
		periods, letters := false, false
		for _, r := range stem {
			periods = periods || r == '.'
			letters = letters || isLetter(r)
		}
		onlyNumber, known := n.prefixes[string(stem)]
		switch {
		case periods && letters:
			out = append(out, strings.ReplaceAll(string(stem), ".", ""))
		case known && !onlyNumber, 'a' <= next && next <= 'z', known && isDigit(next):
			out = append(out, text2string(word))
		default:
			out = append(out, text2string(stem), ".")
		}
	}
	return out
}

func text2string(word []rune) string {
	var b strings.Builder
	for _, r := range word {
		if r == dots {
			r = '.'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// separate puts spaces around every character that is not part of a word and around
// every run of periods.
func separate(text []rune) []rune {
	out := make([]rune, 0, len(text)+len(text)/4)
	for i := 0; i < len(text); i++ {
		r := text[i]
		switch {
		case r == '.' && text[i+1] == '.':
			out = append(out, ' ')
			for ; text[i] == '.'; i++ {
				out = append(out, dots)
			}
			out = append(out, ' ')
			i--
		case r == ' ' || r == '.' || r == '\'' || r == ',' || r == '-' || r == '\v' || isAlnum(r):
			out = append(out, r)
		default:
			out = append(out, ' ', r, ' ')
		}
	}
	return out
}

// between replaces mid with the string with wherever its neighbours satisfy wanted.
// A neighbour is used only once: in a-b-c, only the first - is replaced.
func between(text []rune, mid rune, with string, wanted func(before, after rune) bool) []rune {
	var out []rune // allocated when there is something to replace
	kept := 0
	for i := 1; i+1 < len(text); i++ {
		if text[i] != mid || !wanted(text[i-1], text[i+1]) {
			continue
		}
		out = append(append(out, text[kept:i]...), []rune(with)...)
		kept = i + 1
		i += 2
	}
	if kept == 0 {
		return text
	}
	return append(out, text[kept:]...)
}

// pairs replaces every two consecutive r with the string with.
func pairs(text []rune, r rune, with string) []rune {
	var out []rune
	kept := 0
	for i := 0; i+1 < len(text); i++ {
		if text[i] == r && text[i+1] == r {
			out = append(append(out, text[kept:i]...), []rune(with)...)
			i++
			kept = i + 1
		}
	}
	if kept == 0 {
		return text
	}
	return append(out, text[kept:]...)
}

// plain reports whether a line needs no normalisation.
func plain(line string) bool {
	for i := range len(line) {
		c := line[i]
		if c != ' ' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// isSpace reports whether r is a space outside ASCII.
func isSpace(r rune) bool {
	return r == 0xa0 || 0x2000 <= r && r <= 0x200a || r == 0x202f || r == 0x205f || r == 0x3000
}

// isLetter reports whether r is a Latin or Cyrillic letter; METEOR treats all others
// as punctuation.
func isLetter(r rune) bool {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z':
		return true
	case r < 0xc0:
		return false
	case r <= 0x17e:
		return r != 0xd7 && r != 0xf7
	}
	return 0x400 <= r && r <= 0x527 || 0x1d00 <= r && r <= 0x1d7f ||
		0xa640 <= r && r <= 0xa66e || 0xa67e <= r && r <= 0xa697
}

func isDigit(r rune) bool { return '0' <= r && r <= '9' }

func isAlnum(r rune) bool { return isDigit(r) || isLetter(r) }
