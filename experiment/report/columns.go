package report

import (
	"fmt"
	"math"

	"cyclecap/eval"
	"cyclecap/eval/truth"
)

// A column is a column of a table, and a panel of the chart.
type column struct {
	title string
	// lower is true if less is better.
	lower bool
	// share is true for shares, which are shown in percent.
	share bool
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

// claimColumns returns a column for each score of what captions say that any bridge has:
// those of the whole caption, followed by the subjects' precision in the chart only.
func (e *Experiment) claimColumns() (list []column) {
	truthOf := func(of func(*truth.Scores) eval.Share) func(*Claims) (eval.Share, bool) {
		return func(c *Claims) (eval.Share, bool) {
			if c.Truth == nil {
				return eval.Share{}, false
			}
			return of(c.Truth), true
		}
	}
	for _, c := range []struct {
		title string
		lower bool
		of    func(*Claims) (eval.Share, bool)
	}{
		{"main object with its colour", false, truthOf(func(s *truth.Scores) eval.Share { return s.MainObjectColour })},
		{"the same, held-out combinations", false, func(c *Claims) (eval.Share, bool) {
			if c.Truth == nil || c.Truth.HeldOutMainObjectColour == nil {
				return eval.Share{}, false
			}
			return *c.Truth.HeldOutMainObjectColour, true
		}},
		{"invented objects", true, truthOf(func(s *truth.Scores) eval.Share { return s.ChairI })},
		{"captions that invent", true, truthOf(func(s *truth.Scores) eval.Share { return s.ChairS })},
		{"captions that repeat a bigram", true, func(c *Claims) (eval.Share, bool) { return c.Repetition, true }},
		{"captions that repeat a word", true, func(c *Claims) (eval.Share, bool) { return c.RepeatedWord, true }},
	} {
		column := column{title: c.title, lower: c.lower, share: true, of: func(b *Bridge) (float64, *float64, *float64, bool) {
			if b.Claims == nil {
				return 0, nil, nil, false
			}
			s, ok := c.of(b.Claims)
			return s.Mean, &s.Low, &s.High, ok
		}}
		if e.has(column) {
			list = append(list, column)
		}
	}
	return list
}

// claimTables returns the table of the columns of claimColumns, and the table of precision
// and recall by subject. Their last row is that of people's captions.
func (e *Experiment) claimTables() (whole, bySubject table) {
	columns := e.claimColumns()
	if len(columns) == 0 {
		return whole, bySubject
	}
	whole = e.extra(columns)
	if e.References != nil {
		people := &Bridge{Claims: e.References}
		r := row{Name: "people's captions", Paper: true}
		for _, c := range columns {
			x := cell{Metric: c.title}
			if v, low, high, ok := c.of(people); ok {
				x.Value, x.Interval = c.format(v), "["+c.format(*low)+", "+c.format(*high)+"]"
			}
			r.Cells = append(r.Cells, x)
		}
		whole.Rows = append(whole.Rows, r)
	}
	for _, s := range subjects {
		bySubject.Heads = append(bySubject.Heads, s.name)
	}
	add := func(r row, c *Claims) {
		if c == nil || c.Truth == nil {
			return
		}
		for _, s := range subjects {
			of := s.of(c.Truth)
			x := cell{Metric: s.name, Value: shortPercent(of.Precision.Mean), Std: shortPercent(of.Precision.Low) + " … " + shortPercent(of.Precision.High)}
			if of.Recall != nil {
				x.Value += " / " + shortPercent(of.Recall.Mean)
				x.Interval = shortPercent(of.Recall.Low) + " … " + shortPercent(of.Recall.High)
			} else {
				x.Value += " / –"
			}
			r.Cells = append(r.Cells, x)
		}
		bySubject.Rows = append(bySubject.Rows, r)
	}
	for _, b := range e.Bridges {
		add(row{Name: b.name(), Supervised: b.Supervised}, b.Claims)
	}
	add(row{Name: "people's captions", Paper: true}, e.References)
	return whole, bySubject
}

func shortPercent(v float64) string { return fmt.Sprintf("%.0f%%", 100*v) }

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
