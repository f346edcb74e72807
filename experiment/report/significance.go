package report

import (
	"fmt"

	"cyclecap/eval"
)

// significant is the level of a corrected p-value below which a difference is marked.
const significant = 0.05

// Correct sets the corrected p-values of differences, by Holm's method over all of them.
func Correct(list []Difference) {
	p := make([]float64, len(list))
	for i, d := range list {
		p[i] = d.P
	}
	for i, corrected := range eval.Holm(p) {
		list[i].Holm = corrected
	}
}

// fromBaseline returns the difference of a bridge from the baseline in a metric, or nil.
func (e *Experiment) fromBaseline(bridge, metric string) *Difference {
	for i := range e.Differences {
		if d := &e.Differences[i]; d.Bridge == bridge && d.Baseline == e.Baseline && d.Score == metric {
			return d
		}
	}
	return nil
}

// mark returns the mark of a score that differs from the baseline's beyond doubt.
func (e *Experiment) mark(bridge, metric string) string {
	if d := e.fromBaseline(bridge, metric); d != nil && d.Holm < significant {
		return "†"
	}
	return ""
}

// marks explains the mark.
func (e *Experiment) marks() string {
	for _, b := range e.Bridges {
		if b.ID == e.Baseline {
			return fmt.Sprintf("†: differs from %s (p < %g, corrected by Holm's method for %d comparisons).", b.name(), significant, len(e.Differences))
		}
	}
	return ""
}
