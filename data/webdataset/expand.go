package webdataset

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
)

// numbers is a range in a pattern: {00000..00999}.
var numbers = regexp.MustCompile(`\{([0-9]{1,12})\.\.([0-9]{1,12})\}`)

// maxExpanded limits the number of names that a mistyped pattern can stand for.
const maxExpanded = 1_000_000

// Expand returns the names that a pattern stands for: each range of numbers in it, such as
// {00000..00999}, is replaced with each of its numbers, as a shell does. Zeros at the beginning
// of the first number give all the same width. A name without ranges, or of a file that exists,
// stands for itself.
func Expand(pattern string) ([]string, error) {
	if _, err := os.Stat(pattern); err == nil {
		return []string{pattern}, nil
	}
	names := []string{""}
	rest := pattern
	for {
		m := numbers.FindStringSubmatchIndex(rest)
		if m == nil {
			for i := range names {
				names[i] += rest
			}
			return names, nil
		}
		before, first, last := rest[:m[0]], rest[m[2]:m[3]], rest[m[4]:m[5]]
		a, _ := strconv.Atoi(first) // of at most 12 digits
		b, _ := strconv.Atoi(last)
		if b < a {
			return nil, fmt.Errorf("%s: the range {%s..%s} ends before it begins", pattern, first, last)
		}
		if n := b - a + 1; n > maxExpanded/len(names) {
			return nil, fmt.Errorf("%s stands for more than %d files", pattern, maxExpanded)
		}
		var more []string
		for _, name := range names {
			for i := a; i <= b; i++ {
				more = append(more, fmt.Sprintf("%s%s%0*d", name, before, len(first), i))
			}
		}
		names, rest = more, rest[m[1]:]
	}
}
