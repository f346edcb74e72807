package sets

import (
	"fmt"
	"strings"
)

// Bad counts what can't be used of a set, and remembers the first of them.
// A few broken entries among many are skipped; more than a share of all stop
// the work, since something else is wrong then (the wrong folder, a cut file).
type Bad struct {
	Of    string  // what is counted: "photos of val2014", for messages
	Max   float64 // the share of all that may be bad, 0 to 1
	Count int
	First []string // at most maxExamples
}

const maxExamples = 5

// Add counts one and keeps it as an example while there are few.
func (b *Bad) Add(example string) {
	b.Count++
	if len(b.First) < maxExamples {
		b.First = append(b.First, example)
	}
}

// Check gives a *BadError where more than the share Max of total is bad. A
// total that isn't known yet must not be given smaller than it is.
func (b *Bad) Check(total int) error {
	if b.Count == 0 || float64(b.Count) <= b.Max*float64(total) {
		return nil
	}
	return &BadError{Bad: *b, Total: total}
}

// BadError says that too much of a set can't be used.
type BadError struct {
	Bad
	Total int
}

func (e *BadError) Error() string {
	s := fmt.Sprintf("%d of %d %s can't be used, and at most %.4g %% may be bad: %s",
		e.Count, e.Total, e.Of, 100*e.Max, strings.Join(e.First, "; "))
	if more := e.Count - len(e.First); more > 0 {
		s += fmt.Sprintf("; and %d more", more)
	}
	return s
}
