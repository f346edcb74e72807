package ptb

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// compounds implements the rules for words and numbers joined by hyphens.
func (s *scanner) compounds(i int) {
	t := s.text
	e := s.part(i)
	for isHyphen(t[e]) {
		next := s.part(e + 1)
		if next == e+1 {
			break
		}
		e = next
	}
	if t[e] == '.' && isInner(t[e+1]) {
		s.try(e+2, e+1, plain)
	}
	s.try(e, e, plain)
}

// part returns the end of letters and digits, optionally preceded by d', o' or l'.
func (s *scanner) part(i int) int {
	t := s.text
	switch t[i] {
	case 'd', 'D', 'o', 'O', 'l', 'L':
		if n := s.anyApostrophe(i + 1); n > 0 {
			b := i + 1 + n
			e := b
			for class(t[e])&(letter|digit) != 0 {
				e++
			}
			if e >= b+2 {
				return e
			}
		}
	}
	for class(t[i])&(letter|digit) != 0 {
		i++
	}
	return i
}

// fileName implements the rule for names such as 2.png before a space or a mark.
func (s *scanner) fileName(i int) {
	t := s.text
	run := func(i int) int {
		for {
			if class(t[i])&digit != 0 {
				i++
			} else if n := s.letterAt(i); n > 0 {
				i += n
			} else {
				return i
			}
		}
	}
	e := run(i)
	for t[e] == '.' {
		next := run(e + 1)
		if next == e+1 {
			return
		}
		if r := t[next]; next-e <= 6 && (isSpace(r) || strings.ContainsRune("\n.?!,", r)) && extensions[lowerASCII(t[e+1:next])] {
			s.try(next+1, next, plain)
		}
		e = next
	}
}

// isPlainAlnum reports whether there is an ASCII letter or digit at i.
func (s *scanner) isPlainAlnum(i int) bool {
	return class(s.text[i])&ascii != 0 || isASCIIDigit(s.text[i])
}

// codes implements the rules for ASCII words and numbers with slashes, hyphens,
// periods, commas and ampersands.
func (s *scanner) codes(i int) {
	t := s.text
	if !s.isPlainAlnum(i) {
		return
	}
	// and/or, he/she/it, with up to two hyphens before each slash
	segment := func(i int) int {
		e := i
		for s.isPlainAlnum(e) {
			e++
		}
		if e == i {
			return i
		}
		for range 2 {
			next := e + 1
			for class(t[next])&ascii != 0 {
				next++
			}
			if t[e] != '-' || next == e+1 {
				break
			}
			e = next
		}
		return e
	}
	e, parts := segment(i), 0
	for parts < 2 {
		slash := e
		if t[slash] == '\\' {
			slash++
		}
		if t[slash] != '/' {
			break
		}
		next := segment(slash + 1)
		if next == slash+1 {
			break
		}
		e = next
		parts++
	}
	if parts > 0 {
		s.try(e, e, plain)
	}
	// 1,200-strong, U.S.-based
	if i >= s.list.until {
		e := i
		for s.isPlainAlnum(e) || t[e] == '.' || t[e] == ',' || t[e] == softHyphen {
			e++
		}
		s.list.until = e
	}
	if e := s.list.until; t[e] == '-' {
		end := e
		for t[e] == '-' {
			next := e + 1
			for s.isPlainAlnum(next) || t[next] == softHyphen {
				next++
			}
			if acronym := e + 1; class(t[acronym])&ascii != 0 {
				for t[acronym+1] == '.' && class(t[acronym+2])&ascii != 0 {
					acronym += 2
					if t[acronym+1] == '.' {
						next = acronym + 2
					}
				}
			}
			if next == e+1 {
				break
			}
			e = next
			end = e
		}
		if end > s.list.until {
			if t[end] == '.' && isInner(t[end+1]) {
				s.try(end+2, end+1, soft)
			}
			s.try(end, end, soft)
		}
	}
	// AT&T, R+B
	if class(t[i])&upper != 0 {
		e := i
		for class(t[e])&upper != 0 {
			e++
		}
		end := 0
		for {
			next := e
			if t[e] == '+' || t[e] == '&' {
				next = e + 1
				if s.is(e, "&amp;") {
					next = e + 5
				}
			}
			b := next
			for class(t[next])&upper != 0 {
				next++
			}
			if next == b {
				break
			}
			e = next
			end = e
		}
		if end > 0 {
			if t[end] == '.' && isInner(t[end+1]) {
				s.try(end+2, end+1, amp)
			}
			s.try(end, end, amp)
		}
	}
}

// numbers implements the rules for numbers, times, dates, fractions and phone numbers.
func (s *scanner) numbers(i int) {
	t := s.text
	if end := s.number(i); end > i {
		s.try(end, end, soft)
	}
	if class(t[i])&digit != 0 {
		if end := s.date(i); end > 0 {
			s.try(end, end, plain)
		}
		if end := s.fraction(i); end > 0 {
			s.try(end, end, spaced)
		}
	}
	if end := s.phone(i); end > 0 {
		s.try(end, end, brackets)
	}
}

// digits returns the end of the digits at i.
func (s *scanner) digits(i int) int {
	for class(s.text[i])&digit != 0 {
		i++
	}
	return i
}

func (s *scanner) number(i int) int {
	t := s.text
	b := i
	if t[b] == '-' || t[b] == '+' {
		b++
	}
	e := s.digits(b)
	for {
		switch t[e] {
		case '.', ':', ',', softHyphen, '\u066B', '\u066C':
			if next := s.digits(e + 1); next > e+1 {
				e = next
				continue
			}
		}
		break
	}
	if e == b {
		return i
	}
	return e
}

func (s *scanner) date(i int) int {
	t := s.text
	for range 2 {
		e := s.digits(i)
		if e-i < 1 || e-i > 2 || t[e] != '-' && t[e] != '/' {
			return 0
		}
		i = e + 1
	}
	e := min(s.digits(i), i+4)
	if e < i+2 {
		return 0
	}
	return e
}

// fraction handles 1/2, and 5-1/2 and 5 1/2 with a whole number.
func (s *scanner) fraction(i int) int {
	t := s.text
	part := func(i int) int {
		e := s.digits(i)
		if e-i < 1 || e-i > 4 {
			return 0
		}
		if t[e] == '\\' && t[e+1] == '/' {
			e++
		}
		if t[e] != '/' && t[e] != '\u2044' {
			return 0
		}
		b := e + 1
		if s.digits(b) == b {
			return 0
		}
		return min(s.digits(b), b+4)
	}
	e := s.digits(i)
	if e-i <= 4 && (t[e] == '-' || t[e] == ' ' || t[e] == '\u00A0') {
		if end := part(e + 1); end > 0 {
			return end
		}
	}
	return part(i)
}

// phone handles phone numbers: groups of ASCII digits of these lengths, where [] marks
// an optional part and _ is a hyphen, a space or, in brackets, nothing:
//
//	(2-3)[space] 3-4 [_] 3-5
//	[+[+]] [2-4 _] 2-4 _ 3-4 [_] 3-5
//	[[+[+]] 2-4 .] 2-4 . 3-4 . 3-5
func (s *scanner) phone(i int) int {
	t := s.text
	blank := func(r rune) bool { return r == ' ' || r == '\u00A0' }
	sep := func(r rune) bool { return r == '-' || blank(r) }
	run := func(i int) int { // number of digits at i; more than 9 are too many for any group
		n := 0
		for n < 10 && isASCIIDigit(t[i+n]) {
			n++
		}
		return n
	}
	// tail returns the furthest end of the last two groups, 3-4 [_] 3-5.
	tail := func(i int) int {
		n := run(i)
		best := 0
		for first := 3; first <= 4 && first <= n; first++ {
			b := i + first
			if m := n - first; m >= 3 {
				best = max(best, b+min(m, 5))
			} else if m == 0 && sep(t[b]) {
				if m := run(b + 1); m >= 3 {
					best = max(best, b+1+min(m, 5))
				}
			}
		}
		return best
	}
	if t[i] == '(' {
		n := run(i + 1)
		if n < 2 || n > 3 || t[i+1+n] != ')' {
			return 0
		}
		b := i + 2 + n
		best := tail(b)
		if blank(t[b]) {
			best = max(best, tail(b+1))
		}
		return best
	}
	b := i
	for b < i+2 && t[b] == '+' {
		b++
	}
	n := run(b)
	if n < 2 || n > 4 {
		return 0
	}
	best := 0
	c := b + n
	if sep(t[c]) {
		best = tail(c + 1)
		if m := run(c + 1); 2 <= m && m <= 4 && sep(t[c+1+m]) {
			best = max(best, tail(c+2+m))
		}
	}
	// groups with periods: three, or four, which a plus requires
	if m := run(c + 1); t[c] == '.' && 2 <= m && m <= 4 && t[c+1+m] == '.' {
		d := c + 2 + m
		if k := run(d); (k == 3 || k == 4) && t[d+k] == '.' {
			if l := run(d + k + 1); l >= 3 {
				best = max(best, d+k+1+min(l, 5))
			}
		}
		if k := run(d); b == i && m >= 3 && k >= 3 {
			best = max(best, d+min(k, 5))
		}
	}
	return best
}

// urls implements the rules for addresses that begin with a scheme or with www.
func (s *scanner) urls(i int) {
	t := s.text
	for _, scheme := range [...]string{"http://", "https://"} {
		if s.is(i, scheme) {
			if end := s.path(i+len(scheme), true); end > 0 {
				s.try(end, end, plain)
			}
		}
	}
	if !s.is(i, "www.") || s.www.stop <= i && i < s.www.until {
		return
	}
	in := func(r rune) bool { return class(r)&endURL != 0 || r == '-' }
	best, tail := 0, -1
	e := i + 4
	for {
		b := e
		for in(t[e]) {
			e++
		}
		if e == b || t[e] != '.' {
			break
		}
		e++
		n := 0
		for n < 5 && class(t[e+n])&ascii != 0 {
			n++
		}
		if n < 2 {
			continue
		}
		best = max(best, e+min(n, 4))
		if n <= 4 && t[e+n] == '/' {
			if tail < 0 {
				tail = s.path(e+n+1, false) // the same for all later ones
			}
			best = max(best, tail)
		}
	}
	s.www.until, s.www.stop = e, best
	s.try(best, best, plain)
}

// path returns the end of the rest of a URL, which must be at least two characters
// long, or 0. After a scheme it contains no braces.
func (s *scanner) path(i int, scheme bool) int {
	e := i
	for class(s.text[e])&inURL != 0 && !(scheme && (s.text[e] == '{' || s.text[e] == '}')) {
		e++
	}
	for e > i+1 {
		if class(s.text[e-1])&endURL != 0 {
			return e
		}
		e--
	}
	return 0
}

// hostName implements the rule for a name that ends in .com, .net, .org or .edu, and its path.
func (s *scanner) hostName(i int) {
	t := s.text
	if i >= s.host.until {
		e := i
		s.host.stop = 0
		for {
			b := e
			for class(t[e])&label != 0 {
				e++
			}
			if e == b || t[e] != '.' {
				break
			}
			e++
			if s.is(e, "com") || s.is(e, "net") || s.is(e, "org") || s.is(e, "edu") {
				s.host.stop = e + 3
			}
		}
		s.host.until = max(e, i+1)
	}
	end := s.host.stop
	if end-4 <= i {
		return
	}
	if t[end] == '/' {
		end = max(end, s.path(end+1, false))
	}
	s.try(end, end, plain)
}

// email implements the rules for addresses, with or without angle brackets.
func (s *scanner) email(i int) {
	t := s.text
	b := i
	if t[b] == '<' {
		b++
	} else if s.is(b, "&lt;") {
		b += 4
		s.emailAt(i, b)
		b = i
	}
	if class(t[b])&ascii != 0 || isASCIIDigit(t[b]) {
		s.emailAt(i, b)
	}
}

func (s *scanner) emailAt(i, b int) {
	t := s.text
	if class(t[b])&ascii == 0 && !isASCIIDigit(t[b]) {
		return
	}
	in := func(r rune) bool { return !strings.ContainsRune(" \t\n\f\r\"<>|()\u00A0{}", r) }
	host := func(r rune) bool { return in(r) && r != '.' }
	if b >= s.address.until {
		e := b
		s.address.at = -1
		for in(t[e]) {
			if t[e] == '@' && host(t[e+1]) {
				s.address.at = e
			}
			e++
		}
		s.address.until = e
	}
	at := s.address.at
	if at <= b {
		return
	}
	best := at + 1 // parts with periods between them
	for host(t[best]) {
		for host(t[best]) {
			best++
		}
		if t[best] == '.' && host(t[best+1]) {
			best++
		}
	}
	if t[best] == '>' {
		best++
	} else if s.is(best, "&gt;") {
		best += 4
	}
	s.try(best, best, plain)
}

// symbols implements the rules for non-ASCII characters that are tokens, alone or in runs.
func (s *scanner) symbols(i int) {
	t := s.text
	c := t[i]
	switch c {
	case '\u207A', '\u207B', '\u208A', '\u208B':
		if e := s.subscripts(i + 1); e > i+1 {
			s.try(e, e, plain)
		}
	}
	if e := s.subscripts(i); e > i {
		s.try(e, e, plain)
	}
	switch {
	case c == '\u0092' || c == '\u2019':
		s.quote(i)
	case isQuote(c):
		if isQuote(t[i+1]) {
			s.try(i+2, i+2, quotes)
		}
		s.try(i+1, i+1, quotes)
	case c == '\u0085', c == '\u2026', c == '\u0096', c == '\u0097', c == '\u2013', c == '\u2014', c == '\u2015':
		s.try(i+1, i+1, removed)
	case written[c] != "":
		s.try(i+1, i+1, fixed)
	default:
		s.try(i+1, i+1, plain)
	}
}

func (s *scanner) subscripts(i int) int {
	t := s.text
	e := i
	for t[e] == '\u2070' || t[e] == '\u00B9' || t[e] == '\u00B2' || t[e] == '\u00B3' || '\u2074' <= t[e] && t[e] <= '\u2079' {
		e++
	}
	if e == i {
		for '\u2080' <= t[e] && t[e] <= '\u2089' {
			e++
		}
	}
	return e
}

// written maps characters to the text that represents them.
var written = map[rune]string{
	'\u00A2': "cents", '\u00A3': "#", '\u0080': "$", '\u00A4': "$", '\u20A0': "$", '\u20AC': "$",
	'(': "-lrb-", ')': "-rrb-", '[': "-lsb-", ']': "-rsb-", '{': "-lcb-", '}': "-rcb-",
	'\u00BC': "1/4", '\u00BD': "1/2", '\u00BE': "3/4", '\u2153': "1/3", '\u2154': "2/3",
}

// isQuote reports whether r is a quotation mark that occurs in pairs.
func isQuote(r rune) bool {
	switch r {
	case '`', '\u2018', '\u2019', '\u201A', '\u201B', '\u201C', '\u201D', '\u201E', '\u201F', '\u2039', '\u203A', '\u00AB', '\u00BB',
		'\u0091', '\u0092', '\u0093', '\u0094':
		return true
	}
	return false
}

// quote implements the rules for what begins with an apostrophe.
func (s *scanner) quote(i int) {
	t := s.text
	n := s.apostrophe(i)
	if n == 0 {
		return
	}
	e := i + n
	if t[i] == '\'' {
		if s.is(e, "twas") || s.is(e, "tis") {
			end := e + 3
			if t[end]|0x20 == 's' && s.is(e, "twas") {
				end++
			}
			s.try(end, e+1, plain)
		}
	}
	if s.is(e, "n") {
		end := e + 1
		if m := s.apostrophe(end); m > 0 {
			s.try(end+m, end+m, plain)
		}
		s.try(end, end, plain)
	}
	for _, w := range [...]string{"em", "til", "till", "cause"} {
		if s.is(e, w) {
			s.try(e+len(w), e+len(w), plain)
		}
	}
	if '2' <= t[e] && t[e] <= '9' && t[e+1] == '0' && t[e+2]|0x20 == 's' {
		s.try(e+3, e+3, plain)
	}
	m := s.auxiliary(i)
	if m > 0 && class(t[i+m])&ascii == 0 {
		s.try(i+m+1, i+m, quotes)
	}
	if isASCIIDigit(t[e]) && isASCIIDigit(t[e+1]) && (isSpace(t[e+2]) || t[e+2] == '\n') {
		s.try(e+3, e+2, plain)
	}
	if t[i] == '\'' && class(t[e])&ascii != 0 && t[e+1] != ' ' && t[e+1] != '\t' && t[e+1] != '\n' && t[e+1] != '\u00A0' {
		s.try(e+2, e, removed)
	}
	if m > 0 {
		s.try(i+m, i+m, quotes)
	}
	if t[i] == '\'' && t[e] == '\'' {
		s.try(e+1, e+1, removed)
	}
	if isQuote(t[i]) && isQuote(t[e]) {
		s.try(e+1, e+1, quotes)
	}
	s.try(e, e, removed)
}

// punctuation implements the rules for what begins with an ASCII mark.
func (s *scanner) punctuation(i int) {
	t := s.text
	c := t[i]
	run := i + 1 // the end of a run of the same mark, for marks whose runs form one token
	for t[run] == c && (run < i+5 || strings.ContainsRune("-@#_*", c)) {
		run++
	}
	if e := s.smiley(i); e > 0 && !s.isPlainAlnum(e) {
		s.try(e+1, e, brackets)
	}
	s.asianSmiley(i)
	switch c {
	case '\'':
		s.quote(i)
	case '`':
		if isQuote(t[i+1]) {
			s.try(i+2, i+2, quotes)
		}
		s.try(i+1, i+1, removed)
	case '"', ',', ';':
		s.try(i+1, i+1, removed)
	case ':':
		s.try(i+1, i+1, removed)
	case '.':
		// "..." and ". . ." are removed like "."; only where they end matters
		if run >= i+3 {
			s.try(run, run, removed)
		}
		s.try(i+1, i+1, removed)
		e, n := i, 0
		for n < 4 && t[e] == '.' && (t[e+1] == ' ' || t[e+1] == '\u00A0') {
			e += 2
			n++
			if n >= 2 && t[e] == '.' {
				s.try(e+1, e+1, removed)
			}
		}
	case '?', '!':
		e := i + 1
		for t[e] == '?' || t[e] == '!' {
			e++
		}
		if e > i+1 {
			s.try(e, e, plain)
		}
		s.try(i+1, i+1, removed)
	case '-':
		for _, name := range [...]string{"-rrb-", "-lrb-", "-rcb-", "-lcb-", "-rsb-", "-lsb-"} {
			if s.is(i, name) {
				s.try(i+len(name), i+len(name), plain)
			}
		}
		if run-i > 4 {
			s.try(run, run, plain)
		}
		s.try(run, run, removed)
	case '(', ')', '[', ']', '{', '}':
		s.try(i+1, i+1, fixed)
	case '<':
		if e := s.tag(i); e > 0 {
			s.try(e, e, spaced)
		}
		if run > i+1 {
			s.try(i+2, i+2, plain)
		}
		s.try(i+1, i+1, plain)
	case '>':
		if run > i+1 {
			s.try(i+2, i+2, plain)
		}
		s.try(i+1, i+1, plain)
	case '&':
		s.entity(i)
		s.try(i+1, i+1, plain)
	case '@':
		if class(t[i+1])&ascii != 0 || t[i+1] == '_' {
			e := i + 1
			for s.isPlainAlnum(e) || t[e] == '_' {
				e++
			}
			s.try(e, e, plain)
		}
		s.try(run, run, plain)
	case '#':
		e := i + 1
		for n := s.letterAt(e); n > 0; n = s.letterAt(e) {
			e += n
		}
		if e > i+1 {
			s.try(e, e, plain)
		}
		s.try(run, run, plain)
	case '_', '*':
		s.try(run, run, plain)
	case '\\':
		e := i
		for e < i+6 && t[e] == '\\' && t[e+1] == '*' {
			e += 2
		}
		if e > i {
			s.try(e, e, plain)
		}
		s.try(i+1, i+1, plain)
	case '+', '%', '~', '^', '|', '=', '/', '$':
		s.try(i+1, i+1, plain)
	}
}

// smiley returns the end of the Western smiley at i, or 0.
func (s *scanner) smiley(i int) int {
	t := s.text
	if t[i] == '<' || t[i] == '>' {
		i++
	}
	if t[i] != ':' && t[i] != ';' && t[i] != '=' {
		return 0
	}
	i++
	best := 0
	mouth := func(i int) {
		if t[i] != '\n' && strings.ContainsRune(`()DPdpO\{@|[]`, t[i]) {
			best = i + 1
		}
	}
	mouth(i)
	if strings.ContainsRune("-o*'", t[i]) {
		mouth(i + 1)
	}
	return best
}

// asianSmiley implements the rules for faces such as ^_^ or (^.^).
func (s *scanner) asianSmiley(i int) {
	t := s.text
	eye := func(r rune) bool { return r == '^' || r == 'x' || r == '=' || r == '~' || r == '<' || r == '>' }
	more := func(r rune) bool { return eye(r) || r == '-' || r == '\'' }
	if eye(t[i]) && s.is(i+1, ".[^x=~<>]") {
		s.try(i+10, i+10, brackets)
	}
	if more(t[i]) && t[i+1] == '_' && more(t[i+2]) {
		s.try(i+3, i+3, brackets)
	}
	if t[i] != '(' {
		return
	}
	if more(t[i+1]) {
		e := i + 2
		if (t[e] == '_' || t[e] == '.') && more(t[e+1]) && t[e+2] == ')' {
			s.try(e+3, e+3, brackets)
		}
		if more(t[e]) && t[e+1] == ')' {
			s.try(e+2, e+2, brackets)
		}
	}
	if (eye(t[i+1]) || t[i+1] == '\'') && t[i+2] == '-' && (eye(t[i+3]) || t[i+3] == '\'' || t[i+3] == '`') && t[i+4] == ')' {
		s.try(i+5, i+5, brackets)
	}
}

// tag returns the end of the SGML tag, comment or declaration at i, or 0.
func (s *scanner) tag(i int) int {
	t := s.text
	e := i + 1
	if t[e] == '!' || t[e] == '?' {
		e++
		if class(t[e])&ascii == 0 && t[e] != '-' {
			return 0
		}
		if e >= s.bracket.until {
			s.bracket.until = e
			for s.bracket.until < s.end && t[s.bracket.until] != '>' {
				s.bracket.until++
			}
		}
		if e = s.bracket.until; e < s.end {
			return e + 1
		}
		return 0
	}
	name := func(i int) int {
		if class(t[i])&ascii == 0 {
			return i
		}
		for s.isPlainAlnum(i) || t[i] == '_' || t[i] == ':' || t[i] == '.' || t[i] == '-' {
			i++
		}
		return i
	}
	spaces := func(i int) int {
		for t[i] == ' ' {
			i++
		}
		return i
	}
	closing := t[e] == '/'
	if closing {
		e++
	}
	b := e
	if e = name(e); e == b {
		return 0
	}
	if !closing {
		for {
			b := spaces(e)
			if b == e {
				break
			}
			n := name(b)
			if n == b {
				break
			}
			e = n
			q := spaces(n)
			if t[q] != '=' {
				continue
			}
			q = spaces(q + 1)
			if t[q] != '\'' && t[q] != '"' {
				return 0
			}
			c := q + 1
			for c < s.end && t[c] != t[q] {
				c++
			}
			if c == s.end {
				return 0
			}
			e = c + 1
		}
		e = spaces(e)
		if t[e] == '/' {
			e++
		}
	}
	if e = spaces(e); t[e] == '>' {
		return e + 1
	}
	return 0
}

// entity implements the rules for entities that are tokens, and for those that are spaces.
func (s *scanner) entity(i int) {
	if s.is(i, "&nbsp;") {
		s.try(i+6, i+6, nothing)
	}
	for _, name := range [...]string{"&md;", "&mdash;", "&ndash;", "&quot;"} {
		if s.is(i, name) {
			s.try(i+len(name), i+len(name), removed)
		}
	}
	if s.is(i, "&amp;") {
		s.try(i+5, i+5, amp)
	}
	for _, name := range entities {
		if s.is(i, name) {
			s.try(i+len(name), i+len(name), plain)
		}
	}
	if s.text[i+1] == '#' {
		e := i + 2
		for isASCIIDigit(s.text[e]) {
			e++
		}
		if e > i+2 && s.text[e] == ';' {
			s.try(e+1, e+1, plain)
		}
	}
	for _, name := range [...]string{"&lt;", "&gt;"} {
		if s.is(i, name) {
			s.try(i+4, i+4, fixed)
		}
	}
	if s.apostrophe(i) > 0 {
		s.quote(i)
	}
}

// emit writes a token.
func (s *scanner) emit(from, to int, how form) {
	if how == nothing {
		return
	}
	s.strip = false
	if how == removed {
		return
	}
	begin := len(s.out)
	if begin > 0 {
		s.out = append(s.out, ' ')
	}
	start := len(s.out)
	token := s.text[from:to]
	switch how {
	case fixed:
		switch {
		case s.is(from, "&lt;"):
			s.out = append(s.out, '<')
		case s.is(from, "&gt;"):
			s.out = append(s.out, '>')
		default:
			s.out = append(s.out, written[token[0]]...)
		}
	case quotes:
		for k := 0; k < len(token); k++ {
			switch r := token[k]; r {
			case '\u0091', '\u2018', '\u201B', '\u2039':
				s.out = append(s.out, '`')
			case '\u0092', '\u2019', '\u203A':
				s.out = append(s.out, '\'')
			case '\u0093', '\u201C', '\u00AB':
				s.out = append(s.out, "``"...)
			case '\u0094', '\u201D', '\u00BB':
				s.out = append(s.out, "''"...)
			case '&':
				s.out = append(s.out, '\'')
				k += 5
			default:
				s.lower(token, k)
			}
		}
	default:
		for k, r := range token {
			switch {
			case how == soft && r == softHyphen:
			case (how == brackets || how == spaced) && r == ' ':
				s.out = append(s.out, "\u00A0"...)
			case how == brackets && r == '(':
				s.out = append(s.out, "-lrb-"...)
			case how == brackets && r == ')':
				s.out = append(s.out, "-rrb-"...)
			case how == amp && r == '&':
				s.out = append(s.out, '&')
			case how == amp && inAmp(token, k):
			case 'a' <= r && r <= 'z':
				s.out = append(s.out, byte(r))
			default:
				s.lower(token, k)
			}
		}
	}
	switch string(s.out[start:]) {
	case "", "''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";":
		s.out = s.out[:begin]
	default:
		s.strip = true
	}
}

// inAmp reports whether a character is part of an &amp; after its &.
func inAmp(token []rune, k int) bool {
	for n := 1; n <= 4 && k-n >= 0; n++ {
		if token[k-n] == '&' {
			return k-n+4 < len(token) && token[k-n+4] == ';'
		}
	}
	return false
}

// lower appends a character in lower case, like Java's String.toLowerCase.
func (s *scanner) lower(token []rune, k int) {
	r := token[k]
	switch {
	case r < utf8.RuneSelf:
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		s.out = append(s.out, byte(r))
		return
	case r == '\u0130': // capital I with a dot keeps its dot
		s.out = append(s.out, "i\u0307"...)
		return
	case r == '\u03A3': // capital sigma at the end of a word
		// Java looks at the rest of the word, which may contain single marks between letters.
		cased := func(r rune) bool { return unicode.IsUpper(r) || unicode.IsLower(r) || unicode.IsTitle(r) }
		part := func(j int) bool {
			return j >= 0 && j < len(token) && !unicode.In(token[j], unicode.Han, unicode.Hiragana, unicode.Katakana) &&
				(unicode.IsLetter(token[j]) || unicode.IsMark(token[j]))
		}
		number := func(j int) bool { return j >= 0 && j < len(token) && unicode.IsNumber(token[j]) }
		in := func(j int) bool {
			switch {
			case part(j), number(j):
				return true
			case j < 0 || j >= len(token):
				return false
			case unicode.Is(unicode.Pd, token[j]), token[j] == '_', token[j] == '\'', token[j] == '.' && !number(j-1):
				return part(j-1) && part(j+1)
			case token[j] == '.', token[j] == ',':
				return number(j-1) && number(j+1)
			}
			return unicode.Is(unicode.Cf, token[j])
		}
		before, after := false, false
		for j := k - 1; in(j) && !before; j-- {
			before = cased(token[j])
		}
		for j := k + 1; in(j) && !after; j++ {
			after = cased(token[j])
		}
		if before && !after {
			r = '\u03C2'
		} else {
			r = '\u03C3'
		}
	default:
		r = unicode.ToLower(r)
	}
	s.out = utf8.AppendRune(s.out, r)
}
