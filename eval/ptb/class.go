package ptb

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"
)

// What a character is to the rules. ASCII is below, the rest in classes.txt.
const (
	letter = 1 << iota // Unicode letter, as the reference's tables have it
	digit              // decimal digit of any script
	mark               // counts as a letter inside of a word, but not of a compound
	symbol             // a token by itself
	ascii              // ASCII letter
	upper              // ASCII capital
	label              // may be in a host name that doesn't begin with www
	inURL              // may be in a URL's path
	endURL             // may end it
)

var classes [1 << 16]uint16

// class gives the class of a character; those above U+FFFF are nothing but
// parts of URLs and addresses.
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

// isHyphen are the characters between the parts of a compound.
func isHyphen(r rune) bool {
	return r == '-' || r == '_' || r == '\u058A' || r == '\u2010' || r == '\u2011'
}

// isSpace are the characters that the rules call space; of the rest of the
// separators nothing is said but that they are no tokens.
func isSpace(r rune) bool {
	return r == ' ' || r == '\t' || r == '\u00A0' || '\u2000' <= r && r <= '\u200A' || r == '\u3000'
}

func isASCIIDigit(r rune) bool { return '0' <= r && r <= '9' }
