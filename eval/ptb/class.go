package ptb

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"
)

// The classes of characters in the rules. ASCII is below, the rest in classes.txt.
const (
	letter = 1 << iota // Unicode letter, according to the reference's tables
	digit              // decimal digit in any script
	mark               // counts as a letter inside a word, but not inside a compound
	symbol             // a token on its own
	ascii              // ASCII letter
	upper              // ASCII capital
	label              // allowed in a host name that does not begin with www
	inURL              // allowed in the path of a URL
	endURL             // allowed at the end of a path
)

var classes [1 << 16]uint16

// class returns the class of a character. Characters above U+FFFF only occur in URLs
// and addresses.
func class(r rune) uint16 {
	if r < 1<<16 {
		return classes[r]
	}
	return label | inURL | endURL
}

//go:embed classes.txt
var classText string

func init() {
	for r := range rune(len(classes)) {
		if !strings.ContainsRune(" \t\n\f\r\"<>|()", r) {
			classes[r] |= inURL
			if !strings.ContainsRune(".!?{},-", r) {
				classes[r] |= endURL
			}
			if !strings.ContainsRune("`'.!?{}$", r) && (r < ',' || r > '_') {
				classes[r] |= label
			}
		}
		switch {
		case '0' <= r && r <= '9':
			classes[r] |= digit
		case 'A' <= r && r <= 'Z':
			classes[r] |= letter | ascii | upper
		case 'a' <= r && r <= 'z':
			classes[r] |= letter | ascii
		}
	}
	classes[softHyphen] |= mark
	names := map[string]uint16{"letter": letter, "digit": digit, "mark": mark, "symbol": symbol}
	for line := range strings.Lines(classText) {
		name, list, _ := strings.Cut(strings.TrimSpace(line), " ")
		bit, ok := names[name]
		if !ok {
			continue // a comment
		}
		for item := range strings.FieldsSeq(list) {
			from, to, isRange := strings.Cut(item, "-")
			if !isRange {
				to = from
			}
			a, err := strconv.ParseUint(from, 16, 16)
			b, err2 := strconv.ParseUint(to, 16, 16)
			if err != nil || err2 != nil || a > b {
				panic(fmt.Sprintf("ptb: classes.txt: bad range %q", item)) // a build with a broken file
			}
			for r := a; r <= b; r++ {
				classes[r] |= bit
			}
		}
	}
}

const softHyphen = '\u00AD'

// isHyphen reports whether r separates the parts of a compound.
func isHyphen(r rune) bool {
	return r == '-' || r == '_' || r == '\u058A' || r == '\u2010' || r == '\u2011'
}

// isSpace reports whether the rules treat r as a space; the remaining separators are
// merely not tokens.
func isSpace(r rune) bool {
	return r == ' ' || r == '\t' || r == '\u00A0' || '\u2000' <= r && r <= '\u200A' || r == '\u3000'
}

func isASCIIDigit(r rune) bool { return '0' <= r && r <= '9' }
