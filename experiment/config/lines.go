package config

import (
	"strings"

	"github.com/BurntSushi/toml"
)

// keyLines returns the line, counted from 1, of every key and table heading in TOML
// text. The keys of the map are paths joined by joinPath. A path that occurs several
// times (a table and the keys below it) has the line of its first occurrence. Keys
// inside lists are not included. This scanner exists because the toml package does not
// report the positions of keys. That package has accepted the text before, so only
// valid TOML has to be understood here; the scan ends at anything else.
func keyLines(text string) map[string]int {
	s := &scan{text: text, line: 1, lines: map[string]int{}}
	s.document()
	return s.lines
}

// joinPath joins a path into a key for maps. No TOML key contains a NUL.
func joinPath(path []string) string { return strings.Join(path, "\x00") }

type scan struct {
	text  string // remaining text
	line  int
	lines map[string]int
}

// take consumes n bytes and returns them.
func (s *scan) take(n int) string {
	n = min(n, len(s.text))
	taken := s.text[:n]
	s.line += strings.Count(taken, "\n")
	s.text = s.text[n:]
	return taken
}

// peek returns the next byte, or 0 at the end.
func (s *scan) peek() byte {
	if s.text == "" {
		return 0
	}
	return s.text[0]
}

func (s *scan) blanks() { s.take(len(s.text) - len(strings.TrimLeft(s.text, " \t"))) }

// space skips blanks, line ends and comments.
func (s *scan) space() {
	for {
		s.take(len(s.text) - len(strings.TrimLeft(s.text, " \t\r\n")))
		if s.peek() != '#' {
			return
		}
		s.until("\n")
	}
}

// until advances to the first byte in stops, or to the end.
func (s *scan) until(stops string) {
	n := strings.IndexAny(s.text, stops)
	if n < 0 {
		n = len(s.text)
	}
	s.take(n)
}

func (s *scan) note(path []string) {
	for n := range path {
		p := joinPath(path[:n+1])
		if s.lines[p] == 0 {
			s.lines[p] = s.line
		}
	}
}

func (s *scan) document() {
	var table []string
	for {
		s.space()
		switch s.peek() {
		case 0:
			return
		case '[':
			for s.peek() == '[' {
				s.take(1)
				s.blanks()
			}
			path, ok := s.key()
			if !ok {
				return
			}
			table = path
			s.note(table)
			s.blanks()
			for s.peek() == ']' {
				s.take(1)
				s.blanks()
			}
		default:
			if !s.assignment(table) {
				return
			}
		}
	}
}

// assignment reads "key = value" below a table.
func (s *scan) assignment(table []string) bool {
	path, ok := s.key()
	if !ok {
		return false
	}
	path = append(table[:len(table):len(table)], path...)
	s.note(path)
	s.blanks()
	if s.peek() != '=' {
		return false
	}
	s.take(1)
	s.blanks()
	switch s.peek() {
	case '{':
		return s.inlineTable(path)
	case '[':
		return s.list()
	case '"', '\'':
		return s.quoted()
	}
	s.until(",]}#\n")
	return true
}

// key reads a dotted key.
func (s *scan) key() (path []string, ok bool) {
	for {
		s.blanks()
		word := ""
		if c := s.peek(); c == '"' || c == '\'' {
			from := s.text
			if !s.quoted() {
				return nil, false
			}
			// The toml package resolves escapes.
			var v struct{ K string }
			if _, err := toml.Decode("K = "+from[:len(from)-len(s.text)], &v); err != nil {
				return nil, false
			}
			word = v.K
		} else {
			n := strings.IndexAny(s.text, " \t\r\n.=]#")
			if n <= 0 {
				return nil, false
			}
			word = s.take(n)
		}
		path = append(path, word)
		s.blanks()
		if s.peek() != '.' {
			return path, true
		}
		s.take(1)
	}
}

// quoted skips a string of any of TOML's four kinds.
func (s *scan) quoted() bool {
	quote := s.text[:1]
	multi := strings.HasPrefix(s.text, strings.Repeat(quote, 3))
	if multi {
		s.take(3)
	} else {
		s.take(1)
	}
	for {
		s.until(quote + `\`)
		switch {
		case s.text == "":
			return false
		case s.peek() == '\\':
			s.take(1)
			if quote == `"` {
				s.take(1) // the escaped character
			}
		case !multi:
			s.take(1)
			return true
		case strings.HasPrefix(s.text, strings.Repeat(quote, 3)):
			// Up to two quotes may precede the three that end the string.
			n := len(s.text) - len(strings.TrimLeft(s.text, quote))
			s.take(min(n, 5))
			return true
		default:
			s.take(1)
		}
	}
}

// list skips a list and its contents.
func (s *scan) list() bool {
	for depth := 0; ; {
		s.until("[]{}#\"'")
		switch s.peek() {
		case 0:
			return false
		case '#':
			s.until("\n")
		case '"', '\'':
			if !s.quoted() {
				return false
			}
		case '[', '{':
			depth++
			s.take(1)
		default:
			depth--
			s.take(1)
			if depth == 0 {
				return true
			}
		}
	}
}

func (s *scan) inlineTable(path []string) bool {
	s.take(1)
	for {
		s.space()
		switch s.peek() {
		case 0:
			return false
		case '}':
			s.take(1)
			return true
		case ',':
			s.take(1)
		default:
			if !s.assignment(path) {
				return false
			}
		}
	}
}
