package report

import (
	"fmt"
	"strings"

	"cyclecap/eval"
	"cyclecap/eval/truth"
)

// Claims has the scores of what a bridge's captions say.
type Claims struct {
	// Truth is nil unless the photos are those of a world, which knows what they show.
	Truth *truth.Scores `json:"truth,omitempty"`
	// Repetition is the share of captions with a repeated bigram, RepeatedWord of those in
	// which a word follows itself.
	Repetition   eval.Share `json:"repetition"`
	RepeatedWord eval.Share `json:"repeated_word"`
}

// fields returns the claims by the names of their fields in JSON.
func (c *Claims) fields() map[string]any {
	m := map[string]any{}
	if c == nil {
		return m
	}
	if c.Truth != nil {
		m["truth"] = c.Truth
	}
	m["repetition"], m["repeated_word"] = c.Repetition, c.RepeatedWord
	return m
}

// subjects are the columns for truth in the table of claims, in order.
var subjects = []struct {
	name string
	of   func(*truth.Scores) truth.Subject
}{
	{"objects", func(s *truth.Scores) truth.Subject { return s.Objects }},
	{"colours", func(s *truth.Scores) truth.Subject { return s.Colours }},
	{"numbers", func(s *truth.Scores) truth.Subject { return s.Numbers }},
	{"textures", func(s *truth.Scores) truth.Subject { return s.Textures }},
	{"sizes", func(s *truth.Scores) truth.Subject { return s.Sizes }},
	{"places", func(s *truth.Scores) truth.Subject { return s.Places }},
	{"light", func(s *truth.Scores) truth.Subject { return s.Light }},
	{"relations", func(s *truth.Scores) truth.Subject { return s.Relations }},
	{"sides", func(s *truth.Scores) truth.Subject { return s.Sides }},
}

// shares returns all scores, by their names.
func (c *Claims) shares() map[string]eval.Share {
	m := map[string]eval.Share{}
	if c == nil {
		return m
	}
	m["repetition"], m["repeated_word"] = c.Repetition, c.RepeatedWord
	if t := c.Truth; t != nil {
		m["chair_i"], m["chair_s"], m["main_object_colour"] = t.ChairI, t.ChairS, t.MainObjectColour
		if s := t.HeldOutMainObjectColour; s != nil {
			m["held_out_main_object_colour"] = *s
		}
		for _, s := range subjects {
			of := s.of(t)
			m[s.name+" precision"] = of.Precision
			if of.Recall != nil {
				m[s.name+" recall"] = *of.Recall
			}
		}
	}
	return m
}

// share formats a share with its interval.
func share(s eval.Share) string {
	return number(s.Mean) + " [" + number(s.Low) + ", " + number(s.High) + "]"
}

// claimsTable returns the tables of claims and repetition in Markdown, or "".
func (e *Experiment) claimsTable() string {
	var b strings.Builder
	type row struct {
		name string
		*Claims
	}
	var rows []row
	known := false
	for _, x := range e.Bridges {
		if x.Claims != nil {
			rows = append(rows, row{markdown(x.name()), x.Claims})
			known = known || x.Truth != nil
		}
	}
	if len(rows) == 0 {
		return ""
	}
	if e.References != nil {
		rows = append(rows, row{"*reference captions*", e.References})
	}
	if known {
		b.WriteString("\n| what captions say |")
		for _, s := range subjects {
			b.WriteString(" " + s.name + " |")
		}
		b.WriteString("\n| --- |" + strings.Repeat(" ---: |", len(subjects)) + "\n")
		for _, x := range rows {
			if x.Truth == nil {
				continue
			}
			fmt.Fprintf(&b, "| %s |", x.name)
			for _, s := range subjects {
				of := s.of(x.Truth)
				recall := "–"
				if of.Recall != nil {
					recall = number(of.Recall.Mean)
				}
				fmt.Fprintf(&b, " %s / %s |", number(of.Precision.Mean), recall)
			}
			b.WriteString("\n")
		}
		b.WriteString("\nPrecision / recall: the share of what captions say that is right, and the share of what there is to say that they say rightly. table.json has the intervals.\n")
	}
	b.WriteString("\n| captions |")
	if known {
		b.WriteString(" name the main object with its colour | the same, held-out combinations | CHAIRi | CHAIRs |")
	}
	b.WriteString(" repeat a bigram | repeat a word |\n| --- |" + strings.Repeat(" ---: |", map[bool]int{true: 6, false: 2}[known]) + "\n")
	for _, x := range rows {
		fmt.Fprintf(&b, "| %s |", x.name)
		if t := x.Truth; t != nil {
			held := "–"
			if s := t.HeldOutMainObjectColour; s != nil {
				held = share(*s)
			}
			fmt.Fprintf(&b, " %s | %s | %s | %s |", share(t.MainObjectColour), held, share(t.ChairI), share(t.ChairS))
		} else if known {
			b.WriteString(" – | – | – | – |")
		}
		fmt.Fprintf(&b, " %s | %s |\n", share(x.Repetition), share(x.RepeatedWord))
	}
	if known {
		b.WriteString("\nHeld-out combinations: only the photos with a combination that occurs in no training photo, such as an object in a colour. CHAIRi: the share of mentioned objects that the photo does not show. CHAIRs: the share of captions that mention one.\n")
	}
	return b.String()
}
