package report

import (
	"fmt"
	"strings"

	"cyclecap/data/world"
)

// checkClaims returns an error unless the claims lie in the caption.
func checkClaims(c Caption) error {
	for _, m := range c.Claims {
		if m.Start < 0 || m.End <= m.Start || m.End > len(c.Text) {
			return fmt.Errorf("a claim at [%d, %d] is not inside %q", m.Start, m.End, c.Text)
		}
	}
	return nil
}

// A span is a part of a caption, to be shown as "right", "invented" or, if Kind is empty,
// without a mark.
type span struct{ Text, Kind string }

// spans splits a caption at its claims, which are in the order of their words. Claims of
// the same kind that only a space separates become one span, so that "red cup" is one line
// and not two.
func spans(text string, claims []world.Claim) (list []span) {
	at := 0
	for i := 0; i < len(claims); i++ {
		start, end, right := max(claims[i].Start, at), claims[i].End, claims[i].Right
		for i+1 < len(claims) && claims[i+1].Right == right && claims[i+1].Start >= end && strings.TrimSpace(text[end:claims[i+1].Start]) == "" {
			i++
			end = claims[i].End
		}
		if end <= start {
			continue // inside another claim
		}
		if start > at {
			list = append(list, span{Text: text[at:start]})
		}
		kind := "invented"
		if right {
			kind = "right"
		}
		list = append(list, span{text[start:end], kind})
		at = end
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
	Right, Invented int // claims
}
