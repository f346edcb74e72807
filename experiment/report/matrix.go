package report

import (
	"fmt"
	"slices"
	"strings"
)

// A matrix is the differences of all bridges in one metric: the row's bridge minus the
// column's.
type matrix struct {
	Metric  string
	Columns []string
	Rows    []matrixRow
}

type matrixRow struct {
	Name  string
	Cells []matrixCell
}

type matrixCell struct {
	Value    string // empty if the two were not compared
	Interval string
	Verdict  string // "better", "worse", "unclear", "self" or "none"
	Mark     string
}

// matrices returns a matrix for each metric in which bridges were compared, with the
// headline's metric first.
func (e *Experiment) matrices() (list []matrix) {
	for _, metric := range leading(Metrics) {
		m := matrix{Metric: metric}
		var used []Bridge
		for _, b := range e.Bridges {
			if slices.ContainsFunc(e.Differences, func(d Difference) bool { return d.Score == metric && (d.Bridge == b.ID || d.Baseline == b.ID) }) {
				used = append(used, b)
				m.Columns = append(m.Columns, b.name())
			}
		}
		for _, a := range used {
			r := matrixRow{Name: a.name()}
			for _, b := range used {
				c := matrixCell{Verdict: "none"}
				if d, ok := e.between(a.ID, b.ID, metric); a.ID == b.ID {
					c.Verdict = "self"
				} else if ok {
					c.Value, c.Interval = signed(d.Difference.Difference), "["+signed(d.Low)+", "+signed(d.High)+"]"
					switch d.sign() {
					case 1:
						c.Verdict, c.Mark = "better", "▲"
					case -1:
						c.Verdict, c.Mark = "worse", "▼"
					default:
						c.Verdict = "unclear"
					}
				}
				r.Cells = append(r.Cells, c)
			}
			m.Rows = append(m.Rows, r)
		}
		if len(used) > 0 {
			list = append(list, m)
		}
	}
	return list
}

// differencesTable returns the matrix of the headline's metric in Markdown, or "".
func (e *Experiment) differencesTable() string {
	list := e.matrices()
	if len(list) == 0 {
		return ""
	}
	m := list[0]
	var b strings.Builder
	fmt.Fprintf(&b, "\n| %s: row minus column |", markdown(m.Metric))
	for _, name := range m.Columns {
		fmt.Fprintf(&b, " %s |", markdown(name))
	}
	b.WriteString("\n| --- |" + strings.Repeat(" ---: |", len(m.Columns)) + "\n")
	for _, r := range m.Rows {
		fmt.Fprintf(&b, "| %s |", markdown(r.Name))
		for _, c := range r.Cells {
			switch {
			case c.Verdict == "self":
				b.WriteString(" |")
			case c.Value == "":
				b.WriteString(" – |")
			default:
				fmt.Fprintf(&b, " %s |", strings.TrimSpace(c.Value+c.Mark+" "+c.Interval))
			}
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "\n%s table.json has the other metrics and the p-values.\n", markdown(e.criterion()))
	return b.String()
}

// leading returns the metrics with the one of the headline, CIDEr, first.
func leading(metrics []string) []string {
	list := slices.Clone(metrics)
	if i := slices.Index(list, preferred[0]); i > 0 {
		list = slices.Insert(slices.Delete(list, i, i+1), 0, preferred[0])
	}
	return list
}

// criterion says what the marks of the matrix mean.
func (e *Experiment) criterion() string {
	s := "Each cell is the score of its row minus that of its column, over the same images, with its 95% bootstrap interval. " +
		"▲: the row is better; ▼: the row is worse; no mark: the difference may be chance"
	if slices.ContainsFunc(e.Differences, func(d Difference) bool { return d.Holm > 0 }) {
		return s + fmt.Sprintf(". A mark requires an interval without 0 and p < %g after Holm's correction for %d comparisons.", significant, len(e.Differences))
	}
	return s + ", because its interval contains 0."
}
