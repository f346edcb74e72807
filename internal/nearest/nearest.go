// Package nearest finds what was meant by a word that is not known.
package nearest

import (
	"strings"

	"github.com/xrash/smetrics"
)

// Enough is the least of Alike for a suggestion.
const Enough = 0.85

// Alike rates how alike two words are, from 0 to 1, by the measure and the
// settings that urfave/cli suggests commands by.
func Alike(a, b string) float64 {
	a, b = strings.ToLower(strings.ReplaceAll(a, "-", "_")), strings.ToLower(strings.ReplaceAll(b, "-", "_"))
	if a == b {
		return 1
	}
	if a == "" || b == "" || len(a) > 64 {
		return 0
	}
	return smetrics.JaroWinkler(a, b, 0.7, 4)
}

// Word gives the word that is meant, or "".
func Word(s string, words []string) string {
	best, most := "", Enough
	for _, w := range words {
		if x := Alike(s, w); x > most {
			best, most = w, x
		}
	}
	return best
}
