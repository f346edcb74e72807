package report

import (
	"fmt"
	"math"
)

// A column is a column of a table, and a panel of the chart.
type column struct {
	title string
	// lower is true if less is better.
	lower bool
	// share is true for shares, which are shown in percent.
	share bool
	text  string // explains it below the table
	of    func(b *Bridge) (value float64, low, high *float64, ok bool)
}

// scoreColumns returns a column for each metric that any bridge has, with the headline's first.
func (e *Experiment) scoreColumns() (list []column) {
	for _, m := range leading(Metrics) {
		c := column{title: m, of: func(b *Bridge) (float64, *float64, *float64, bool) {
			s := b.Scores[m]
			if len(s.Seeds) == 0 {
				return 0, nil, nil, false
			}
			if s.Interval == nil {
				return s.Value(), nil, nil, true
			}
			return s.Value(), &s.Interval.Low, &s.Interval.High, true
		}}
		if e.has(c) {
			list = append(list, c)
		}
	}
	return list
}

func (e *Experiment) has(c column) bool {
	for i := range e.Bridges {
		if _, _, _, ok := c.of(&e.Bridges[i]); ok {
			return true
		}
	}
	return false
}

// format returns a value as the page shows it.
func (c column) format(v float64) string {
	if c.share {
		return fmt.Sprintf("%.1f%%", 100*v)
	}
	return number(v)
}

// extra returns a table of columns.
func (e *Experiment) extra(columns []column) (t table) {
	for _, c := range columns {
		t.Heads = append(t.Heads, c.title)
	}
	best := make([]float64, len(columns))
	for i, c := range columns {
		best[i] = math.NaN()
		for k := range e.Bridges {
			b := &e.Bridges[k]
			v, _, _, ok := c.of(b)
			if ok && !b.Supervised && (math.IsNaN(best[i]) || c.lower && v < best[i] || !c.lower && v > best[i]) {
				best[i] = v
			}
		}
	}
	for k := range e.Bridges {
		b := &e.Bridges[k]
		r := row{Name: b.name(), Supervised: b.Supervised}
		any := false
		for i, c := range columns {
			x := cell{Metric: c.title}
			if v, low, high, ok := c.of(b); ok {
				any = true
				x.Value = c.format(v)
				x.Best = !b.Supervised && x.Value == c.format(best[i])
				if low != nil {
					x.Interval = "[" + c.format(*low) + ", " + c.format(*high) + "]"
				}
			}
			r.Cells = append(r.Cells, x)
		}
		if any {
			t.Rows = append(t.Rows, r)
		}
	}
	return t
}
