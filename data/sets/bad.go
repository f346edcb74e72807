package sets

import (
	"fmt"
	"strings"
)

// Bad counts the entries of a set that cannot be used and remembers the first of
// them. A few bad entries among many are skipped; more than a given share stop
// the work, because then something else is wrong (the wrong folder, or a
// truncated file).
type Bad struct {
	Of    string  // what is counted, for messages: "photos of val2014"
	Max   float64 // the largest fraction that may be bad, from 0 to 1
	Count int
	First []string // at most maxExamples
}

const maxExamples = 5

// Add counts one bad entry and keeps it as an example while there are few.
func (b *Bad) Add(example string) {
	b.Count++
	if len(b.First) < maxExamples {
		b.First = append(b.First, example)
	}
}

// Check returns a *BadError if more than the fraction Max of total is bad. While
// the total is not known yet, the caller must not pass too small a number.
func (b *Bad) Check(total int) error {
	if b.Count == 0 || float64(b.Count) <= b.Max*float64(total) {
		return nil
	}
	return &BadError{Bad: *b, Total: total}
}

// A BadError reports that too large a share of a set cannot be used.
type BadError struct {
	Bad
	Total int
}

func (e *BadError) Error() string {
	s := fmt.Sprintf("%d of %d %s cannot be used, but at most %.4g %% may be bad: %s",
		e.Count, e.Total, e.Of, 100*e.Max, strings.Join(e.First, "; "))
	if more := e.Count - len(e.First); more > 0 {
		s += fmt.Sprintf("; and %d more", more)
	}
	return s
}
