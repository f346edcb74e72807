// Package report writes what an experiment found as a page for people
// (report.html, which stands alone: no script, no network), as a Markdown table
// and as JSON. It computes no score: the caller fills in an [Experiment].
package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"cyclecap/eval"
	"cyclecap/eval/geometry"
	"cyclecap/internal/atomicfile"
)

// Metrics are the columns of the table, in order, by the names that scores go by.
var Metrics = []string{"BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE_L", "METEOR", "CIDEr"}

// An Experiment is all that the report says. Whatever is empty is left out of
// it. It goes through JSON unharmed if its numbers are finite.
type Experiment struct {
	Name string `json:"name"`
	// Notes are what a reader must know first, a sentence or two each.
	Notes []string `json:"notes,omitempty"`
	// Data says what was evaluated on: "COCO val2014, Karpathy's test split".
	Data string `json:"data"`
	// Val2014 says that this is COCO val2014 as in the paper, which puts the
	// paper's own scores and the published ones beside the table.
	Val2014 bool `json:"val2014,omitempty"`
	// Images is the number of images evaluated.
	Images  int      `json:"images"`
	Bridges []Bridge `json:"bridges"`
	// Differences are those that the experiment is about.
	Differences []Difference `json:"differences,omitempty"`

	Examples []Example `json:"examples,omitempty"`
	// ExamplesNote says how the examples were chosen.
	ExamplesNote string             `json:"examples_note,omitempty"`
	Charts       []Chart            `json:"charts,omitempty"`
	Geometry     *geometry.Geometry `json:"geometry,omitempty"`

	// Config is the resolved configuration, as text.
	Config   string  `json:"config,omitempty"`
	Versions []Fact  `json:"versions,omitempty"`
	Counts   []Fact  `json:"counts,omitempty"`
	Stages   []Stage `json:"stages,omitempty"`
}

// A Bridge is a way from image features to captions, and its scores.
type Bridge struct {
	// ID names it in table.json and in the examples: "direct", "cyclegan".
	ID string `json:"id"`
	// Label is its name for people; empty: the ID.
	Label string `json:"label,omitempty"`
	// Supervised bridges were trained on pairs: they are a ceiling, and are
	// not marked as the best.
	Supervised bool `json:"supervised,omitempty"`
	// Paper is the paper's column that it is set beside, "direct" or
	// "textualised"; empty: none.
	Paper string `json:"paper,omitempty"`
	// Scores are by name of the metric. One that is missing wasn't computed.
	Scores map[string]Score `json:"scores"`
}

// A Score is one metric of one bridge over all images, as the metric's code
// gives it (0.247, not 24.7).
type Score struct {
	// Seeds are the scores of each run; one of a single run.
	Seeds []float64 `json:"seeds,omitempty"`
	// Interval is the 95 % bootstrap interval over images, of the mean over
	// seeds; nil: not computed.
	Interval *eval.Interval `json:"interval,omitempty"`
	// Missing is why the metric was not computed; then there are no seeds.
	Missing string `json:"missing,omitempty"`
}

// Value is the mean over seeds, NaN of none.
func (s Score) Value() float64 {
	var sum float64
	for _, v := range s.Seeds {
		sum += v
	}
	return sum / float64(len(s.Seeds))
}

// Std is the spread over seeds: the sample's standard deviation (n-1), NaN of
// fewer than two.
func (s Score) Std() float64 {
	if len(s.Seeds) < 2 {
		return math.NaN()
	}
	m, sum := s.Value(), 0.0
	for _, v := range s.Seeds {
		sum += (v - m) * (v - m)
	}
	return math.Sqrt(sum / float64(len(s.Seeds)-1))
}

// A Difference is a paired comparison over the same images: a bridge's score less
// that of the baseline.
type Difference struct {
	Bridge   string `json:"bridge"`
	Baseline string `json:"baseline"`
	eval.Difference
}

// An Example is one photo and what each bridge says of it.
type Example struct {
	ID int64 `json:"id"`
	// Photo is an image file's bytes, JPEG or PNG, of any size: the page gets a
	// smaller copy. Without any, or with bytes that can't be read, the page says so.
	Photo    []byte    `json:"photo,omitempty"`
	Truths   []string  `json:"truths,omitempty"`
	Captions []Caption `json:"captions"`
}

// A Caption is what the bridge with that ID says.
type Caption struct {
	Bridge string `json:"bridge"`
	Text   string `json:"text"`
}

// A Chart shows series over training steps: a decoder's loss, the generators'.
type Chart struct {
	Title string `json:"title"`
	// Y names the vertical axis; empty: "loss".
	Y string `json:"y,omitempty"`
	// Series are at most 8.
	Series []Series `json:"series"`
}

// A Series is a line of a chart. Points are in order of their steps; those that
// are not finite are left out of the line.
type Series struct {
	Name   string  `json:"name"`
	Points []Point `json:"points"`
}

// A Point is a value at a step.
type Point struct {
	Step  float64 `json:"step"`
	Value float64 `json:"value"`
}

// A Fact is a line of a table: a version, a count.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// A Stage is a part of the run and how long it took.
type Stage struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
	// Skipped stages had been done before; Seconds is what they took then.
	Skipped bool `json:"skipped,omitempty"`
}

// name is the bridge's name for people.
func (b Bridge) name() string {
	if b.Label != "" {
		return b.Label
	}
	return b.ID
}

// paper is Table 3 of the paper: COCO val2014, in the order of Metrics.
var paper = []struct {
	id     string
	scores []float64
}{
	{"direct", []float64{.281, .120, .047, .020, .239, .098, .064}},
	{"textualised", []float64{.407, .231, .121, .062, .341, .161, .247}},
}

func paperScores(id string) []float64 {
	for _, p := range paper {
		if p.id == id {
			return p.scores
		}
	}
	return nil
}

// published are scores on COCO from the papers of the other bridges.
const published = "Published elsewhere on COCO (BLEU-4 / METEOR / CIDEr): CapDec .264 / .251 / .918, " +
	"DeCap .247 / .250 / .912, ClipCap (supervised) .335 / .275 / 1.131. Their images and decoding are not all the paper's: set them beside these with care."

// check returns what is wrong with e, all of it.
func (e *Experiment) check() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf("report: "+format, a...)) }
	finite := func(vs ...float64) bool {
		for _, v := range vs {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return false
			}
		}
		return true
	}
	interval := func(what string, i eval.Interval) {
		if !finite(i.Low, i.High) || i.Low > i.High {
			bad("%s: the interval [%v, %v] is none", what, i.Low, i.High)
		}
	}
	seen := map[string]bool{}
	for i, b := range e.Bridges {
		if b.ID == "" || seen[b.ID] {
			bad("bridge %d: the ID %q is empty or another's too", i, b.ID)
		}
		seen[b.ID] = true
		if b.Paper != "" && paperScores(b.Paper) == nil {
			bad("bridge %q: the paper has no column %q, but direct and textualised", b.ID, b.Paper)
		}
		for m, s := range b.Scores {
			what := fmt.Sprintf("bridge %q, %s", b.ID, m)
			if !slices.Contains(Metrics, m) {
				bad("%s: no such metric; there are %s", what, strings.Join(Metrics, ", "))
			}
			if !finite(s.Seeds...) {
				bad("%s: a score of %v is not finite", what, s.Seeds)
			}
			if s.Missing != "" && len(s.Seeds) > 0 {
				bad("%s: has scores, and a reason why it has none", what)
			}
			if s.Interval != nil {
				interval(what, *s.Interval)
			}
		}
	}
	for _, d := range e.Differences {
		what := fmt.Sprintf("difference of %q and %q in %s", d.Bridge, d.Baseline, d.Score)
		if !seen[d.Bridge] || !seen[d.Baseline] {
			bad("%s: not both are bridges", what)
		}
		if !finite(d.Difference.Difference) {
			bad("%s: %v is not finite", what, d.Difference.Difference)
		}
		interval(what, eval.Interval{Low: d.Low, High: d.High})
	}
	for _, c := range e.Charts {
		if len(c.Series) > colours {
			bad("chart %q: %d series are more than the %d colours", c.Title, len(c.Series), colours)
		}
	}
	for _, s := range e.Stages {
		if !finite(s.Seconds) || s.Seconds < 0 {
			bad("stage %q: %v seconds", s.Name, s.Seconds)
		}
	}
	if g := e.Geometry; g != nil && len(g.Sides) == 0 {
		bad("the geometry has no sides; make it with geometry.Measure")
	}
	return errors.Join(errs...)
}

// Files are what Write writes.
var Files = []string{"table.json", "table.md", "report.html"}

// Write writes Files into dir, which is there. All three are made before the
// first is written, and each takes the place of an older one at once and whole.
func Write(dir string, e *Experiment) error {
	data := make([]bytes.Buffer, len(Files))
	for i, make := range []func(io.Writer, *Experiment) error{JSON, Markdown, HTML} {
		if err := make(&data[i], e); err != nil {
			return err
		}
	}
	for i, name := range Files {
		if err := atomicfile.WriteBytes(filepath.Join(dir, name), data[i].Bytes()); err != nil {
			return fmt.Errorf("report: %w", err)
		}
	}
	return nil
}

// JSON writes the table for machines: bridge -> metric -> {value, low, high,
// std, seeds}. low and high are null without an interval, std with fewer than
// two seeds; a metric that was not computed has null as its value, and why as
// "missing".
func JSON(w io.Writer, e *Experiment) error {
	if err := e.check(); err != nil {
		return err
	}
	type cell struct {
		Value   *float64  `json:"value"`
		Low     *float64  `json:"low"`
		High    *float64  `json:"high"`
		Std     *float64  `json:"std"`
		Seeds   []float64 `json:"seeds"`
		Missing string    `json:"missing,omitempty"`
	}
	table := map[string]map[string]cell{}
	for _, b := range e.Bridges {
		table[b.ID] = map[string]cell{}
		for _, m := range Metrics {
			s := b.Scores[m]
			c := cell{Seeds: append([]float64{}, s.Seeds...)}
			if v := s.Value(); len(s.Seeds) > 0 {
				c.Value = &v
				if s.Interval != nil {
					c.Low, c.High = &s.Interval.Low, &s.Interval.High
				}
			} else {
				c.Missing = why(s)
			}
			if v := s.Std(); !math.IsNaN(v) {
				c.Std = &v
			}
			table[b.ID][m] = c
		}
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(table)
}

func why(s Score) string {
	if s.Missing != "" {
		return s.Missing
	}
	return "not computed"
}

// A row is one of the table, for people.
type row struct {
	Name       string
	Paper      bool
	Supervised bool
	Cells      []cell
}

type cell struct {
	Metric   string
	Value    string // empty: not computed
	Interval string
	Std      string
	Best     bool
}

// A table is Table 3 as people read it.
type table struct {
	Rows []row
	// Missing are the metrics that were not computed, and why.
	Missing []string
	// Intervals, Spread and Best say whether any cell has one; Seeds is the
	// largest number of seeds.
	Intervals, Spread, Best bool
	Seeds                   int
}

func (e *Experiment) table() table {
	var t table
	// Scores that print alike are alike to a reader: all of them are marked.
	best := map[string]string{}
	rivals := 0
	for _, b := range e.Bridges {
		if b.Supervised {
			continue
		}
		rivals++
		for m, s := range b.Scores {
			if v := number(s.Value()); len(s.Seeds) > 0 && (best[m] == "" || s.Value() > parse(best[m])) {
				best[m] = v
			}
		}
	}
	missing := map[string][]string{}
	var reasons []string
	for _, b := range e.Bridges {
		r := row{Name: b.name(), Supervised: b.Supervised}
		for _, m := range Metrics {
			s, c := b.Scores[m], cell{Metric: m}
			if len(s.Seeds) == 0 {
				reason := m + ": " + why(s)
				if missing[reason] == nil {
					reasons = append(reasons, reason)
				}
				missing[reason] = append(missing[reason], b.name())
			} else {
				c.Value = number(s.Value())
				c.Best = rivals > 1 && !b.Supervised && c.Value == best[m]
				if s.Interval != nil {
					c.Interval = "[" + number(s.Interval.Low) + ", " + number(s.Interval.High) + "]"
				}
				if v := s.Std(); !math.IsNaN(v) {
					c.Std = "± " + number(v)
				}
			}
			t.Intervals = t.Intervals || c.Interval != ""
			t.Spread = t.Spread || c.Std != ""
			t.Best = t.Best || c.Best
			t.Seeds = max(t.Seeds, len(s.Seeds))
			r.Cells = append(r.Cells, c)
		}
		t.Rows = append(t.Rows, r)
		if e.Val2014 && b.Paper != "" {
			r := row{Name: "the paper: " + b.Paper, Paper: true}
			for i, v := range paperScores(b.Paper) {
				r.Cells = append(r.Cells, cell{Metric: Metrics[i], Value: number(v)})
			}
			t.Rows = append(t.Rows, r)
		}
	}
	for _, reason := range reasons {
		if who := missing[reason]; len(who) < len(e.Bridges) {
			reason += " (" + strings.Join(who, ", ") + ")"
		}
		t.Missing = append(t.Missing, reason)
	}
	return t
}

// legend says what stands in the table.
func (t table) legend() string {
	var s []string
	if t.Seeds > 1 {
		s = append(s, fmt.Sprintf("Each score is the mean over %d seeds.", t.Seeds))
	}
	if t.Intervals {
		s = append(s, "In brackets: the 95 % bootstrap interval over images.")
	}
	if t.Spread {
		s = append(s, "After ±: the standard deviation over seeds.")
	}
	if t.Best {
		s = append(s, "Bold: the best of a column, among the bridges trained without pairs.")
	}
	return strings.Join(s, " ")
}

func number(v float64) string {
	s := fmt.Sprintf("%.3f", v)
	if s == "-0.000" {
		return "0.000"
	}
	return s
}

func parse(s string) (v float64) {
	fmt.Sscan(s, &v)
	return v
}

// Markdown writes the table for people, in GitHub's Markdown.
func Markdown(w io.Writer, e *Experiment) error {
	if err := e.check(); err != nil {
		return err
	}
	t := e.table()
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n%s\n", markdown(e.Name), markdown(e.subtitle()))
	for _, n := range e.Notes {
		fmt.Fprintf(&b, "\n> %s\n", markdown(n))
	}
	if len(t.Rows) > 0 {
		b.WriteString("\n| bridge |")
		for _, m := range Metrics {
			b.WriteString(" " + m + " |")
		}
		b.WriteString("\n| --- |" + strings.Repeat(" ---: |", len(Metrics)) + "\n")
		for _, r := range t.Rows {
			name := markdown(r.Name)
			if r.Supervised {
				name += " (supervised)"
			}
			if r.Paper {
				name = "*" + name + "*"
			}
			b.WriteString("| " + name + " |")
			for _, c := range r.Cells {
				v := c.Value
				if v == "" {
					v = "–"
				}
				if c.Best {
					v = "**" + v + "**"
				}
				for _, more := range []string{c.Std, c.Interval} {
					if more != "" {
						v += " " + more
					}
				}
				b.WriteString(" " + v + " |")
			}
			b.WriteString("\n")
		}
	}
	if s := t.legend(); s != "" {
		b.WriteString("\n" + s + "\n")
	}
	if len(t.Missing) > 0 {
		b.WriteString("\nNot computed:\n\n")
		for _, m := range t.Missing {
			b.WriteString("- " + markdown(m) + "\n")
		}
	}
	if e.Val2014 {
		b.WriteString("\n" + published + "\n")
	}
	if len(e.Differences) > 0 {
		b.WriteString("\n| difference | metric | value |\n| --- | --- | ---: |\n")
		for _, d := range e.differences() {
			fmt.Fprintf(&b, "| %s | %s | %s |\n", markdown(d.What), markdown(d.Metric), d.Value+" "+d.Interval)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// markdown escapes what would be markup.
func markdown(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	return strings.NewReplacer(`\`, `\\`, "|", `\|`, "<", "&lt;", "&", "&amp;", "*", `\*`, "_", `\_`, "`", "\\`", "[", `\[`).Replace(s)
}

func (e *Experiment) subtitle() string {
	s := e.Data
	if e.Images > 0 {
		if s != "" {
			s += " · "
		}
		s += fmt.Sprintf("%d images evaluated", e.Images)
	}
	return s
}

type difference struct{ What, Metric, Value, Interval, Verdict string }

func (e *Experiment) differences() []difference {
	names := map[string]string{}
	for _, b := range e.Bridges {
		names[b.ID] = b.name()
	}
	var out []difference
	for _, d := range e.Differences {
		x := difference{What: names[d.Bridge] + " less " + names[d.Baseline], Metric: d.Score, Value: fmt.Sprintf("%+.3f", d.Difference.Difference),
			Interval: fmt.Sprintf("[%+.3f, %+.3f]", d.Low, d.High)}
		switch {
		case d.Low > 0:
			x.Verdict = "better"
		case d.High < 0:
			x.Verdict = "worse"
		default:
			x.Verdict = "not told apart"
		}
		out = append(out, x)
	}
	return out
}
