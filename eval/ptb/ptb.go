// Package ptb splits captions into tokens like pycocoevalcap, which runs the
// PTBTokenizer of Stanford CoreNLP 3.4.1 on every caption as a line, converts to
// lower case, and removes a list of punctuation marks.
//
// The lists are measured: testdata/reference/ptb_words.py passes candidates to 3.4.1
// and writes what their tokens show to words.txt (abbreviations, file extensions,
// words that begin a sentence, contractions), as metrics.py does for the characters
// in classes.txt. The rules are implemented by a hand-written scanner. Their
// behaviour was learned from the tokenizer's lexer specification (PTBLexer.flex, GPL;
// versions before and after 3.4.1) and its documentation, and corrected by running
// 3.4.1 itself; eval/ptb/testdata contains strings with its output. At every position,
// the rule that reaches furthest wins, including the context that it requires after
// the token; of two equal rules, the one that comes first in (*scanner).next.
//
// There is one deliberate difference: a caption with \r, \v, \f, U+2028 or U+2029
// puts the reference out of step, so that it assigns every later caption of the set
// to the wrong image. Here these characters are spaces.
package ptb

import (
	"strings"
	"sync"
	"unicode/utf8"
)

// Tokenize returns the tokens of a caption, separated by single spaces. A token may
// contain U+00A0, between a whole number and its fraction and in phone numbers. The
// time is linear in the length of the caption; invalid UTF-8 separates tokens.
func Tokenize(caption string) string {
	s := pool.Get().(*scanner)
	defer pool.Put(s)
	s.reset(caption)
	for s.at < s.end {
		s.next()
	}
	if s.strip {
		return strings.TrimRightFunc(string(s.out), IsSpace)
	}
	return string(s.out)
}

// IsSpace reports whether Python's str.split and str.strip treat r as a space. Of the
// characters that occur in tokens, only U+00A0 is one.
func IsSpace(r rune) bool {
	switch {
	case '\t' <= r && r <= '\r', 0x1c <= r && r <= ' ', r == 0x85, r == 0xa0, r == 0x1680,
		0x2000 <= r && r <= 0x200a, r == 0x2028, r == 0x2029, r == 0x202f, r == 0x205f, r == 0x3000:
		return true
	}
	return false
}

var pool = sync.Pool{New: func() any { return new(scanner) }}

// scanner holds a caption and its tokens so far.
type scanner struct {
	text []rune // the caption, followed by newlines so that no rule has to check for the end
	end  int    // length of the caption
	at   int    // start of the next token
	out  []byte // the tokens so far
	// strip means that the last token is kept: the reference strips spaces from
	// the end of the line before it removes tokens.
	strip bool

	hasAt, hasHost bool // the caption contains an @, or .com or the like

	// The best rule so far at this position: how far it reaches, where its token
	// ends, and how the token is written.
	reach, stop int
	how         form

	// What is known about the text ahead, so that no stretch is scanned again for
	// every token in it.
	address struct{ until, at int }   // e-mail: end of the stretch, its last possible @
	host    struct{ until, stop int } // host name: end of the stretch, end of its last .com
	list    struct{ until int }       // end of a stretch of ASCII letters, digits, '.' and ','
	www     struct{ until, stop int } // host name with www: end of the stretch; it has no address after stop
	bracket struct{ until int }       // the next '>'
}

const behind = 8 // newlines after the caption

func (s *scanner) reset(caption string) {
	text := s.text[:0]
	s.hasAt, s.hasHost = false, false
	for i := 0; i < len(caption); i++ {
		c := caption[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(caption[i:])
			i += size - 1
			if r == '\u2028' || r == '\u2029' || r == utf8.RuneError && size == 1 {
				r = ' '
			}
			text = append(text, r)
			continue
		}
		switch c {
		case '\n', '\r', '\v', '\f':
			c = ' '
		case '@':
			s.hasAt = true
		case '.':
			if i+3 < len(caption) {
				switch caption[i+1] | 0x20 {
				case 'c', 'n', 'o', 'e':
					s.hasHost = true
				}
			}
		}
		text = append(text, rune(c))
	}
	s.end = len(text)
	for range behind {
		text = append(text, '\n')
	}
	if cap(text) > 1<<16 && len(text) < cap(text)/8 {
		text = append([]rune(nil), text...) // do not keep one huge buffer forever
	}
	s.text, s.at, s.out, s.strip = text, 0, s.out[:0], false
	s.address.until, s.host.until, s.list.until, s.www.until, s.bracket.until = 0, 0, 0, 0, 0
}

// A form is a way to write a token.
type form uint8

const (
	plain    form = iota
	soft          // without soft hyphens
	quotes        // quotation marks as ` and '
	spaced        // spaces as U+00A0
	brackets      // the same, and brackets as -lrb- and -rrb-
	amp           // &amp; as &
	fixed         // the value of fixedText
	nothing       // no token
	removed       // a token that is removed
)

// try records a rule that reaches to reach, with a token that ends at stop, if it is
// better than the best one so far.
func (s *scanner) try(reach, stop int, how form) {
	if reach > s.reach {
		s.reach, s.stop, s.how = reach, stop, how
	}
}

// next consumes one token, or text that is not a token.
func (s *scanner) next() {
	i, t := s.at, s.text
	c := t[i]
	k := class(c)
	if c == ' ' {
		s.at = s.spaces(i)
		return
	}
	if k&ascii != 0 {
		// The most common case: a word of ASCII letters followed by a space. Except
		// for some words, no rule reaches further.
		j := i + 1
		for class(t[j])&ascii != 0 {
			j++
		}
		if t[j] == ' ' || t[j] == '\n' {
			if cut := assimilation(t[i:j]); cut > 0 {
				s.emit(i, i+cut, plain)
				s.at = i + cut
				return
			}
			s.emit(i, j, plain)
			s.at = j
			return
		}
	}
	s.reach, s.stop, s.how = i, i+1, nothing
	if isSpace(c) {
		s.try(s.spaces(i), s.spaces(i), nothing)
	}
	if k&(letter|mark) != 0 || c == '&' {
		s.words(i)
	}
	if s.hasHost && k&label != 0 {
		s.hostName(i)
	}
	if s.hasAt && (k&ascii != 0 || isASCIIDigit(c) || c == '<' || c == '&') {
		s.email(i)
	}
	if k&ascii != 0 {
		s.abbreviation(i)
	}
	if k&(letter|mark|digit) != 0 || c == '&' {
		s.fileName(i)
	}
	if k&(letter|digit) != 0 && k&(ascii|digit) == 0 {
		s.compounds(i)
	} else if k&(ascii|digit) != 0 {
		s.compounds(i)
		s.codes(i)
	}
	if k&digit != 0 || strings.ContainsRune("+-.,:(\u00AD\u066B\u066C", c) {
		s.numbers(i)
	}
	switch {
	case k&symbol != 0:
		s.symbols(i)
	case c < utf8.RuneSelf && k&(ascii|digit) == 0:
		s.punctuation(i)
	case c == 'x':
		s.asianSmiley(i)
	}
	s.emit(i, s.stop, s.how)
	s.at = s.stop
}

// spaces returns the end of the spaces at i.
func (s *scanner) spaces(i int) int {
	for isSpace(s.text[i]) {
		i++
	}
	return i
}

// is reports whether the text at i is word, a lower-case ASCII word, in any case.
func (s *scanner) is(i int, word string) bool {
	for k := range len(word) {
		if small(s.text[i]) != rune(word[k]) {
			return false
		}
		i++
	}
	return true
}

// small returns the lower-case form of an ASCII letter, and of the few characters
// whose lower-case or upper-case form is one.
func small(r rune) rune {
	switch {
	case 'A' <= r && r <= 'Z':
		return r + 'a' - 'A'
	case r == '\u0130', r == '\u0131':
		return 'i'
	case r == '\u017F':
		return 's'
	case r == '\u212A':
		return 'k'
	}
	return r
}

// apostrophe returns the length of the apostrophe at i, or 0.
func (s *scanner) apostrophe(i int) int {
	switch s.text[i] {
	case '\'', '\u0092', '\u2019':
		return 1
	case '&':
		if s.is(i, "&apos;") {
			return 6
		}
	}
	return 0
}

// anyApostrophe is like apostrophe but also accepts what replaces one by mistake.
func (s *scanner) anyApostrophe(i int) int {
	switch s.text[i] {
	case '`', '\u0091', '\u2018', '\u201B':
		return 1
	}
	return s.apostrophe(i)
}

// auxiliary returns the length of 's, 'm, 'd, 're, 've or 'll at i, or 0.
func (s *scanner) auxiliary(i int) int {
	n := s.apostrophe(i)
	if n == 0 {
		return 0
	}
	switch s.text[i+n] {
	case 's', 'S', 'm', 'M', 'd', 'D':
		return n + 1
	}
	if s.is(i+n, "re") || s.is(i+n, "ve") || s.is(i+n, "ll") {
		return n + 2
	}
	return 0
}

// negation returns the length of n't at i, or 0.
func (s *scanner) negation(i int) int {
	if !s.is(i, "n") {
		return 0
	}
	if n := s.anyApostrophe(i + 1); n > 0 && s.is(i+1+n, "t") {
		return n + 2
	}
	return 0
}

// assimilation returns how many letters of words such as cannot and gonna form the
// first token, or 0 for other words.
func assimilation(word []rune) int {
	if len(word) != 5 && len(word) != 6 {
		return 0
	}
	return assimilations[lowerASCII(word)]
}

func lowerASCII(word []rune) string {
	var b [8]byte
	if len(word) > len(b) {
		return ""
	}
	for i, r := range word {
		r = small(r)
		if r >= utf8.RuneSelf {
			return ""
		}
		b[i] = byte(r)
	}
	return string(b[:len(word)])
}

// entityLetter returns the length of an entity such as &eacute; at i, or 0.
func (s *scanner) entityLetter(i int) int {
	if s.text[i] != '&' {
		return 0
	}
	switch s.text[i+1] {
	case 'a', 'e', 'i', 'o', 'u', 'A', 'E', 'I', 'O', 'U':
		for _, name := range [...]string{"acute;", "grave;", "uml;"} {
			if s.is(i+2, name) {
				return 2 + len(name)
			}
		}
	}
	return 0
}

// letterAt returns the length of the word letter at i, or 0.
func (s *scanner) letterAt(i int) int {
	if class(s.text[i])&(letter|mark) != 0 {
		return 1
	}
	return s.entityLetter(i)
}

// words implements the rules for words with letters, apostrophes and periods.
func (s *scanner) words(i int) {
	t := s.text
	for _, name := range [...]string{"c++", "c#", "f#"} {
		if s.is(i, name) {
			s.try(i+len(name), i+len(name), plain)
		}
	}
	// A word consists of letters and digits; a '.', '!' or '?' between letters joins two.
	run := i // end of the letters
	for n := s.letterAt(run); n > 0; n = s.letterAt(run) {
		run += n
	}
	if run == i {
		return
	}
	if cut := assimilation(t[i:run]); cut > 0 {
		s.try(run, i+cut, plain)
	}
	word := run
	for {
		if class(t[word])&digit != 0 {
			word++
		} else if n := s.letterAt(word); n > 0 {
			word += n
		} else if n := s.letterAt(word + 1); n > 0 && (t[word] == '.' || t[word] == '!' || t[word] == '?') {
			word += 1 + n
		} else {
			break
		}
	}
	if n := s.auxiliary(word); n > 0 {
		s.try(word+n, word, soft)
	}
	// n't after ASCII letters that do not end in n
	e := i
	for class(t[e])&ascii != 0 || t[e] == softHyphen {
		e++
	}
	if e-1 > i {
		if n := s.negation(e - 1); n > 0 {
			b := e - 2
			for b > i && t[b] == softHyphen {
				b--
			}
			if class(t[b])&ascii != 0 && t[b]|0x20 != 'n' {
				s.try(e-1+n, e-1, soft)
			}
		}
	}
	s.try(word, word, soft)
	s.apostropheWords(i)
	s.urls(i)
	if n := s.negation(i); n > 0 {
		s.try(i+n, i+n, quotes)
	}
	// fixed words
	for _, name := range [...]string{"c.d.s", "pro-", "anti-", "s&p-500", "s&ls"} {
		if s.is(i, name) {
			s.try(i+len(name), i+len(name), plain)
		}
	}
	for _, name := range [...]string{"s&amp;p-500", "s&amp;ls"} {
		if s.is(i, name) {
			s.try(i+len(name), i+len(name), amp)
		}
	}
	// US$
	if class(t[i])&upper != 0 {
		e := i
		for class(t[e])&upper != 0 {
			e++
		}
		if t[e] == '$' {
			s.try(e+1, e+1, plain)
		}
	}
	if t[word] == '.' && isInner(t[word+1]) {
		s.try(word+2, word+1, soft)
	}
}

// isInner reports whether r is a mark inside a sentence; a word before one keeps its period.
func isInner(r rune) bool { return r == ',' || r == ';' || r == ':' || r == '\u3001' }

// apostropheWords implements the rules for words that contain an apostrophe, or letters before one.
func (s *scanner) apostropheWords(i int) {
	t := s.text
	if n := s.apostrophe(i + 1); n > 0 {
		switch t[i] | 0x20 {
		case 'l', 'd', 'j':
			if t[i] < utf8.RuneSelf {
				s.try(i+1+n, i+1+n, plain)
			}
		case 'y':
			if class(t[i+1+n])&letter != 0 {
				s.try(i+2+n, i+1+n, plain)
			}
		}
	}
	for _, w := range [...]string{"dunkin", "somethin", "ol"} {
		if s.is(i, w) {
			if n := s.apostrophe(i + len(w)); n > 0 {
				s.try(i+len(w)+n, i+len(w)+n, plain)
			}
		}
	}
	// N'Sync, n'ts
	if c := t[i]; c == 'n' || 'A' <= c && c <= 'Z' && c != 'I' && c != 'Y' {
		if n := s.anyApostrophe(i + 1); n > 0 {
			e := i + 1 + n
			for class(t[e])&letter != 0 {
				e++
			}
			if e >= i+3+n {
				s.try(e, e, plain)
			}
		}
	}
	// ma'am: a vowel, an apostrophe, a vowel or a capital
	e := i
	for class(t[e])&letter != 0 {
		e++
	}
	if e >= i+2 && strings.ContainsRune("aeiouyAEIOUY", t[e-1]) {
		if n := s.anyApostrophe(e); n > 0 && (class(t[e+n])&upper != 0 || strings.ContainsRune("aeiou", t[e+n])) {
			e += n
			for class(t[e])&letter != 0 {
				e++
			}
			s.try(e, e, plain)
		}
	}
	for _, w := range contractions {
		if e := s.contraction(i, w); e > 0 {
			s.try(e, e, plain)
		}
	}
	if t[i]|0x20 == 'o' {
		if n := s.anyApostrophe(i + 1); n > 0 && s.is(i+1+n, "o") {
			s.try(i+2+n, i+2+n, plain)
		}
	}
}

// contraction returns the end of the word with an apostrophe at i, or 0 if the text at
// i is another word.
func (s *scanner) contraction(i int, w contraction) int {
	if !s.is(i, w.before) {
		return 0
	}
	i += len(w.before)
	n := 0
	switch {
	case w.any:
		n = s.apostrophe(i)
	case s.text[i] == '\'':
		n = 1
	}
	if n == 0 || !s.is(i+n, w.behind) {
		return 0
	}
	return i + n + len(w.behind)
}

// abbreviation implements the rules for words with periods.
func (s *scanner) abbreviation(i int) {
	t := s.text
	e := i
	for class(t[e])&ascii != 0 {
		e++
	}
	if e == i {
		return
	}
	if t[e] == '.' && e-i <= 8 {
		flags := abbreviations[lowerASCII(t[i:e])]
		if flags&capital != 0 && class(t[i])&upper == 0 || flags&small0 != 0 && class(t[i])&upper != 0 || flags&small1 != 0 && class(t[i+1])&upper != 0 ||
			flags&small2 != 0 && class(t[i+2])&upper != 0 || flags&small3 != 0 && class(t[i+3])&upper != 0 {
			flags = 0
		}
		if flags&beforeNumber != 0 {
			next := e + 1
			if isSpace(t[next]) {
				next++
			}
			if class(t[next])&digit != 0 {
				s.try(next+1, e+1, plain)
			}
		}
		if flags&twoFollow != 0 {
			s.try(e+3, e+1, plain)
		}
		if flags&always != 0 {
			s.try(e+1, e+1, plain)
		}
	}
	for _, w := range [...]string{"ed.d.", "ph.d."} {
		if s.is(i, w) {
			s.try(i+len(w)+2, i+len(w), plain)
		}
	}
	// acronyms: letters with periods between them
	if e == i+1 {
		last := e
		for t[last] == '.' && class(t[last+1])&ascii != 0 {
			last += 2
		}
		if t[last] == '.' {
			if last == e && s.opener(last+1) {
				s.try(last+3, i+1, plain)
			}
			s.try(last+1, last+1, plain)
		}
		if isSpace(t[last]) || t[last] == '\n' {
			s.try(last+1, last, plain)
		}
	}
	for _, w := range acronymPairs {
		if s.is(i, w) {
			e := i + len(w)
			if t[e] == '.' {
				s.try(e+1, e+1, plain)
			} else if isSpace(t[e]) || t[e] == '\n' {
				s.try(e+1, e, plain)
			}
		}
	}
}

// opener reports whether the text at i consists of spaces, a tag or a word that begins
// a sentence, and a space or the end.
func (s *scanner) opener(i int) bool {
	t := s.text
	j := i
	for isSpace(t[j]) {
		j++
	}
	if j == i {
		return false
	}
	if t[j] == '<' {
		e := s.tag(j)
		return e > 0 && (isSpace(t[e]) || t[e] == '\n')
	}
	if class(t[j])&upper == 0 {
		return false
	}
	e := j
	for class(t[e])&ascii != 0 || t[e] == '.' {
		e++
		if e-j > 12 {
			return false
		}
	}
	return (isSpace(t[e]) || t[e] == '\n') && openers[strings.ToLower(string(t[j:e]))]
}
