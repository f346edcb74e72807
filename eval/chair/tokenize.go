package chair

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// tokenize returns a caption's words and punctuation marks, in lower case, as nltk's
// word_tokenize does wherever that changes which words there are. Every token between two
// words separates them.
func tokenize(caption string) (tokens []string) {
	for field := range strings.FieldsSeq(strings.ToLower(caption)) {
		start := 0
		for i := 0; i < len(field); {
			n := mark(field, i)
			if n == 0 {
				_, size := utf8.DecodeRuneInString(field[i:])
				i += size
				continue
			}
			tokens = piece(tokens, field[start:i], closes(field[i:]))
			tokens = append(tokens, field[i:i+n])
			i += n
			start = i
		}
		tokens = piece(tokens, field[start:], true)
	}
	return tokens
}

// mark returns the length of the punctuation mark at field[i:] that is a token of its own
// wherever it stands, or 0.
func mark(field string, i int) int {
	r, size := utf8.DecodeRuneInString(field[i:])
	switch {
	case strings.ContainsRune(";@#$%&?![](){}<>\"*`«»“”‘’„", r):
		return size
	case r == ':' || r == ',':
		if next, _ := utf8.DecodeRuneInString(field[i+1:]); i+1 < len(field) && unicode.IsDigit(next) {
			return 0 // 10:30
		}
		return size
	case r == '.' || r == '-':
		n := 1
		for i+n < len(field) && field[i+n] == field[i] {
			n++
		}
		if n > 1 {
			return n - n%2*int(r&1) // "--" is a token, "..." is one
		}
	}
	return 0
}

// closes reports whether only quotes and brackets follow.
func closes(rest string) bool { return strings.Trim(rest, "])}>\"'»”’") == "" }

// ends are tokens that are attached to a word.
var ends = []string{"'s", "'m", "'d", "'ll", "'re", "'ve", "n't", "'"}

// piece adds what stands between two marks: a word with what is attached to its end. last
// reports whether a period at its end may end a sentence.
func piece(tokens []string, s string, last bool) []string {
	if s == "" {
		return tokens
	}
	if len(s) > 1 && s[0] == '\'' && !slices.Contains(ends, s) {
		tokens, s = append(tokens, "'"), s[1:]
	}
	var after []string
	cut := func(n int) {
		after = append(after, s[len(s)-n:])
		s = s[:len(s)-n]
	}
	if last && len(s) > 1 && strings.HasSuffix(s, ".") {
		cut(1)
	}
	for _, end := range ends {
		if len(s) > len(end) && strings.HasSuffix(s, end) {
			cut(len(end))
			break
		}
	}
	tokens = append(tokens, s)
	return append(tokens, after...)
}
