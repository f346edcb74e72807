package report

import (
	"fmt"
	"strings"
)

// A Mark is a part of a caption that claims something: what the photo shows (right) or
// what it does not (invented).
type Mark struct {
	// Start and End are the offsets of the part in bytes, as in Text[Start:End].
	Start int  `json:"start"`
	End   int  `json:"end"`
	Right bool `json:"right"`
}

// checkMarks returns an error unless the marks lie in text, in order, without overlaps.
func checkMarks(text string, marks []Mark) error {
	at := 0
	for _, m := range marks {
		if m.Start < at || m.End <= m.Start || m.End > len(text) {
			return fmt.Errorf("mark [%d, %d] of %q must be in order, without overlaps and inside the caption", m.Start, m.End, text)
		}
		at = m.End
	}
	return nil
}

// A span is a part of a caption, to be shown as "right", "invented" or, if Kind is empty,
// without a mark.
type span struct{ Text, Kind string }

// spans splits a caption at its marks. Marks of the same kind that only a space separates
// become one span, so that "red cup" is one line and not two.
func spans(text string, marks []Mark) (list []span) {
	at := 0
	for i := 0; i < len(marks); i++ {
		m := marks[i]
		for i+1 < len(marks) && marks[i+1].Right == m.Right && strings.TrimSpace(text[m.End:marks[i+1].Start]) == "" {
			i++
			m.End = marks[i].End
		}
		if m.Start > at {
			list = append(list, span{Text: text[at:m.Start]})
		}
		kind := "invented"
		if m.Right {
			kind = "right"
		}
		list = append(list, span{text[m.Start:m.End], kind})
		at = m.End
	}
	if at < len(text) {
		list = append(list, span{Text: text[at:]})
	}
	return list
}

// A said is a caption as the page shows it.
type said struct {
	Name            string
	Role            string
	Supervised      bool
	Spans           []span
	Right, Invented int // marks
}
