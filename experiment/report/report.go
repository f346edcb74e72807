// Package report writes the results of an experiment as a web page (report.html, which is
// self-contained and uses neither scripts nor the network), as a Markdown table and as
// JSON. It does not compute scores: the caller fills in an [Experiment].
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

	"cyclecap/data/world"
	"cyclecap/eval"
	"cyclecap/eval/geometry"
	"cyclecap/internal/atomicfile"
)

// Metrics are the columns of the table in order, which are the keys of [Bridge.Scores].
var Metrics = []string{"BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE_L", "METEOR", "CIDEr"}

// An Experiment is the contents of the report. Empty parts are left out of the page. It
// can be encoded as JSON and decoded without loss if its numbers are finite.
type Experiment struct {
	Name string `json:"name"`
	// Notes are shown at the top of the page, a sentence or two each.
	Notes []string `json:"notes,omitempty"`
	// Data is the name of the evaluation data: "COCO val2014, Karpathy's test split".
	Data string `json:"data"`
	// Val2014 is true if the data is COCO val2014, as in the paper. The report then also
	// shows the paper's scores and other published scores.
	Val2014 bool `json:"val2014,omitempty"`
	// Images is the number of evaluated images.
	Images  int      `json:"images"`
	Bridges []Bridge `json:"bridges"`
	// Differences are the comparisons of every two bridges in every metric.
	Differences []Difference `json:"differences,omitempty"`
	// Baseline is the ID of the bridge whose scores the others' are marked against, or
	// empty.
	Baseline string `json:"baseline,omitempty"`
	// Closed maps metrics to the share of the distance from the direct to the supervised
	// captions that textualising closes, with its interval, where there is such a distance.
	Closed map[string]eval.Interval `json:"closed,omitempty"`
	// References has the scores of people's captions, to compare those of the bridges with.
	References *Claims `json:"references,omitempty"`

	Examples []Example `json:"examples,omitempty"`
	// ExamplesNote says how the examples were selected.
	ExamplesNote string             `json:"examples_note,omitempty"`
	Charts       []Chart            `json:"charts,omitempty"`
	Geometry     *geometry.Geometry `json:"geometry,omitempty"`

	// Config is the resolved configuration as text.
	Config   string  `json:"config,omitempty"`
	Versions []Fact  `json:"versions,omitempty"`
	Counts   []Fact  `json:"counts,omitempty"`
	Stages   []Stage `json:"stages,omitempty"`
}

// A Bridge is a way from image features to captions, with its scores.
type Bridge struct {
	// ID identifies the bridge in table.json and in the examples: "direct", "cyclegan".
	ID string `json:"id"`
	// Label is the name to show; the ID if it is empty.
	Label string `json:"label,omitempty"`
	// Supervised is true if the bridge was trained on pairs. It is a ceiling, and is not
	// marked as the best.
	Supervised bool `json:"supervised,omitempty"`
	// Paper is the paper's column to compare with, "direct" or "textualised", or empty
	// if there is none.
	Paper string `json:"paper,omitempty"`
	// Scores maps metrics to scores. A missing score was not computed.
	Scores map[string]Score `json:"scores"`
	// Cost is what the bridge costs, or nil if that is not known.
	Cost *Cost `json:"cost,omitempty"`
	*Claims
}

// A Score is one metric of one bridge over all images, as package eval returns it (0.247,
// not 24.7).
type Score struct {
	// Seeds are the scores of the runs, one per seed, and world after world.
	Seeds []float64 `json:"seeds,omitempty"`
	// Worlds are the means over the seeds of each world, if there are several worlds.
	Worlds []float64 `json:"worlds,omitempty"`
	// Interval is the 95% bootstrap interval of the mean over worlds, seeds and images, or
	// nil if it was not computed.
	Interval *eval.Interval `json:"interval,omitempty"`
	// Missing is the reason why the metric was not computed; Seeds is empty then.
	Missing string `json:"missing,omitempty"`
}

// Value returns the mean over seeds, or NaN if there are none.
func (s Score) Value() float64 {
	var sum float64
	for _, v := range s.Seeds {
		sum += v
	}
	return sum / float64(len(s.Seeds))
}

// Std returns the sample standard deviation over seeds (divided by n-1), or NaN if there
// are fewer than two.
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

// A Difference is a paired comparison over the same images: a bridge's score minus that of
// another one, the baseline.
type Difference struct {
	Bridge   string `json:"bridge"`
	Baseline string `json:"baseline"`
	eval.Difference
	// Holm is the p-value corrected for the number of comparisons (see Correct).
	Holm float64 `json:"p_holm"`
}

// An Example is a photo and the caption of each bridge.
type Example struct {
	ID string `json:"id"`
	// Photo is the contents of a JPEG or PNG file of any size; the page contains a
	// smaller copy. If it is empty or cannot be decoded, the page says so.
	Photo    []byte    `json:"photo,omitempty"`
	Truths   []string  `json:"truths,omitempty"`
	Captions []Caption `json:"captions"`
}

// A Caption is the caption of the bridge with the ID Bridge.
type Caption struct {
	Bridge string `json:"bridge"`
	Text   string `json:"text"`
	// Claims are the words that say something right or wrong about a photo of a world.
	Claims []world.Claim `json:"claims,omitempty"`
}

// A Chart shows series over training steps, such as the losses of a decoder.
type Chart struct {
	Title string `json:"title"`
	// Y is the label of the vertical axis; "loss" if it is empty.
	Y string `json:"y,omitempty"`
	// Series has at most 8 elements.
	Series []Series `json:"series"`
}

// A Series is a line of a chart. Points are in the order of their steps; points that are
// not finite are skipped.
type Series struct {
	Name   string  `json:"name"`
	Points []Point `json:"points"`
}

// A Point is a value at a step.
type Point struct {
	Step  float64 `json:"step"`
	Value float64 `json:"value"`
}

// A Fact is a row of a table, such as a version or a count.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// A Stage is a part of the run and its duration.
type Stage struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
	// Skipped is true if an earlier run did the stage; Seconds is its duration then.
	Skipped bool `json:"skipped,omitempty"`
}

// name returns the name to show.
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

// published lists scores on COCO from the papers of the other bridges.
const published = "Published elsewhere on COCO (BLEU-4 / METEOR / CIDEr): CapDec .264 / .251 / .918, " +
	"DeCap .247 / .250 / .912, ClipCap (supervised) .335 / .275 / 1.131. Not all of them use the paper's images and decoding, so compare them with care."

// check returns all errors in e.
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
			bad("%s: invalid interval [%v, %v]", what, i.Low, i.High)
		}
	}
	seen := map[string]bool{}
	for i, b := range e.Bridges {
		if b.ID == "" || seen[b.ID] {
			bad("bridge %d: the ID %q is empty or a duplicate", i, b.ID)
		}
		seen[b.ID] = true
		if b.Paper != "" && paperScores(b.Paper) == nil {
			bad("bridge %q: the paper has no column %q; its columns are direct and textualised", b.ID, b.Paper)
		}
		if err := b.Cost.check(); err != nil {
			bad("bridge %q: %w", b.ID, err)
		}
		for m, s := range b.Scores {
			what := fmt.Sprintf("bridge %q, %s", b.ID, m)
			if !slices.Contains(Metrics, m) {
				bad("%s: no such metric; valid metrics: %s", what, strings.Join(Metrics, ", "))
			}
			if !finite(s.Seeds...) {
				bad("%s: scores must be finite, got %v", what, s.Seeds)
			}
			if s.Missing != "" && len(s.Seeds) > 0 {
				bad("%s: has both scores and a reason why they are missing", what)
			}
			if s.Interval != nil {
				interval(what, *s.Interval)
			}
		}
		for name, s := range b.Claims.shares() {
			what := fmt.Sprintf("bridge %q, %s", b.ID, name)
			if !finite(s.Mean) {
				bad("%s: must be finite, got %v", what, s.Mean)
			}
			interval(what, eval.Interval{Low: s.Low, High: s.High})
		}
	}
	for _, d := range e.Differences {
		what := fmt.Sprintf("difference of %q and %q in %s", d.Bridge, d.Baseline, d.Score)
		if !seen[d.Bridge] || !seen[d.Baseline] {
			bad("%s: one of these is not a bridge of the experiment", what)
		}
		if !finite(d.Difference.Difference) {
			bad("%s: must be finite, got %v", what, d.Difference.Difference)
		}
		interval(what, eval.Interval{Low: d.Low, High: d.High})
	}
	for m, i := range e.Closed {
		interval("distance closed in "+m, i)
	}
	for _, x := range e.Examples {
		for _, c := range x.Captions {
			if err := checkClaims(c); err != nil {
				bad("example %s, bridge %q: %w", x.ID, c.Bridge, err)
			}
		}
	}
	for _, c := range e.Charts {
		if len(c.Series) > colours {
			bad("chart %q: %d series, but there are only %d colours", c.Title, len(c.Series), colours)
		}
	}
	for _, s := range e.Stages {
		if !finite(s.Seconds) || s.Seconds < 0 {
			bad("stage %q: invalid duration of %v seconds", s.Name, s.Seconds)
		}
	}
	if g := e.Geometry; g != nil && len(g.Sides) == 0 {
		bad("geometry: no sides; use geometry.Measure")
	}
	return errors.Join(errs...)
}

// Files are the names of the files that Write writes.
var Files = []string{"table.json", "table.md", "report.html"}

// Write writes Files to dir, which must exist. It creates the contents of all files before
// it writes the first, and replaces each existing file atomically.
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

// JSON writes the table as JSON: bridge -> metric -> {value, low, high, std, seeds}. low
// and high are null if there is no interval, and std is null if there are fewer than two
// seeds. Several worlds add their means, and a baseline adds the difference from it. If a
// metric was not computed, its value is null and "missing" is the reason.
// If the cost of a bridge is known, it also has the cells "parameters" and "fit_seconds",
// and "decoder": {name, seconds, shared_with}.
// The fields of Claims stand beside the metrics.
func JSON(w io.Writer, e *Experiment) error {
	if err := e.check(); err != nil {
		return err
	}
	type difference struct {
		From  string  `json:"from"`
		Value float64 `json:"value"`
		Low   float64 `json:"low"`
		High  float64 `json:"high"`
		P     float64 `json:"p"`
		Holm  float64 `json:"p_holm"`
	}
	type decoder struct {
		Name       string    `json:"name"`
		Seconds    []float64 `json:"seconds"`
		SharedWith []string  `json:"shared_with"`
	}
	table := map[string]map[string]any{}
	for _, b := range e.Bridges {
		table[b.ID] = b.Claims.fields()
		if c := b.Cost; c != nil {
			parameters, time, std := float64(c.Parameters), c.time().Value(), c.time().Std()
			seconds := scoreJSON{Value: &time, Seeds: c.Seconds}
			if !math.IsNaN(std) {
				seconds.Std = &std
			}
			table[b.ID]["parameters"], table[b.ID]["fit_seconds"] = scoreJSON{Value: &parameters, Seeds: []float64{}}, seconds
			table[b.ID]["decoder"] = decoder{c.Decoder, c.DecoderSeconds, append([]string{}, c.SharedWith...)}
		}
		for _, m := range Metrics {
			c := b.Scores[m].json()
			if d := e.fromBaseline(b.ID, m); d != nil {
				c.Difference = difference{d.Baseline, d.Difference.Difference, d.Low, d.High, d.P, d.Holm}
			}
			table[b.ID][m] = c
		}
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(table)
}

// scoreJSON is a score in a table's JSON.
type scoreJSON struct {
	Value      *float64  `json:"value"`
	Low        *float64  `json:"low"`
	High       *float64  `json:"high"`
	Std        *float64  `json:"std"`
	Seeds      []float64 `json:"seeds"`
	Worlds     []float64 `json:"worlds,omitempty"`
	Difference any       `json:"difference,omitempty"` // set by the table
	Missing    string    `json:"missing,omitempty"`
}

func (s Score) json() scoreJSON {
	c := scoreJSON{Seeds: append([]float64{}, s.Seeds...), Worlds: s.Worlds}
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
	return c
}

func why(s Score) string {
	if s.Missing != "" {
		return s.Missing
	}
	return "not computed"
}

// A row is a row of the table, formatted.
type row struct {
	Name       string
	Paper      bool
	Supervised bool
	Cells      []cell
	Costs      []string // the columns of Cost, if the table has them
}

type cell struct {
	Metric   string
	Value    string // empty if not computed
	Interval string
	Std      string
	Best     bool
	Mark     string // of a difference from the baseline
}

// A table is the table of scores, formatted.
type table struct {
	// Heads are the titles of the columns, where they are not Metrics.
	Heads []string
	Rows  []row
	// Missing lists the metrics that were not computed, with the reason.
	Missing []string
	// Intervals, Spread and Best report whether any cell has an interval, a standard
	// deviation or a mark; Seeds is the largest number of seeds.
	Intervals, Spread, Best bool
	Seeds, Worlds           int
	Marks                   string // explanation of the marks, if there are any
	// Costs are the titles of the columns of Cost, if there are any.
	Costs []string
}

func (e *Experiment) table() table {
	var t table
	// Scores that are equal as printed are all marked.
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
				if c.Mark = e.mark(b.ID, m); c.Mark != "" {
					t.Marks = e.marks()
				}
			}
			t.Intervals = t.Intervals || c.Interval != ""
			t.Spread = t.Spread || c.Std != ""
			t.Best = t.Best || c.Best
			t.Seeds, t.Worlds = max(t.Seeds, len(s.Seeds)), max(t.Worlds, len(s.Worlds))
			r.Cells = append(r.Cells, c)
		}
		if e.costs() {
			r.Costs = b.Cost.cells()
		}
		t.Rows = append(t.Rows, r)
		if e.Val2014 && b.Paper != "" {
			r := row{Name: "the paper: " + b.Paper, Paper: true}
			for i, v := range paperScores(b.Paper) {
				r.Cells = append(r.Cells, cell{Metric: Metrics[i], Value: number(v)})
			}
			if e.costs() {
				r.Costs = []string{"", ""}
			}
			t.Rows = append(t.Rows, r)
		}
	}
	if e.costs() {
		t.Costs = costHeads
	}
	for _, reason := range reasons {
		if who := missing[reason]; len(who) < len(e.Bridges) {
			reason += " (" + strings.Join(who, ", ") + ")"
		}
		t.Missing = append(t.Missing, reason)
	}
	return t
}

// legend explains the table.
func (t table) legend() string {
	var s []string
	over := []string{"images"}
	runs := "seeds"
	switch seeds := t.Seeds / max(1, t.Worlds); {
	case t.Worlds > 1 && seeds > 1:
		s = append(s, fmt.Sprintf("Each score is the mean over %d worlds with %d seeds each.", t.Worlds, seeds))
		over, runs = []string{"worlds", "seeds and images"}, "runs"
	case t.Worlds > 1:
		s = append(s, fmt.Sprintf("Each score is the mean over %d worlds.", t.Worlds))
		over, runs = []string{"worlds and images"}, "worlds"
	case t.Seeds > 1:
		s = append(s, fmt.Sprintf("Each score is the mean over %d seeds.", t.Seeds))
		over = []string{"seeds and images"}
	}
	if t.Intervals {
		s = append(s, fmt.Sprintf("Brackets: the 95%% bootstrap interval over %s.", strings.Join(over, ", ")))
	}
	if t.Spread {
		s = append(s, fmt.Sprintf("±: the standard deviation over %s.", runs))
	}
	if t.Marks != "" {
		s = append(s, t.Marks)
	}
	if t.Best {
		s = append(s, "Bold: the best score of a column among the bridges trained without pairs.")
	}
	if t.Costs != nil {
		s = append(s, costLegend)
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

// Markdown writes the table in GitHub Flavored Markdown.
func Markdown(w io.Writer, e *Experiment) error {
	if err := e.check(); err != nil {
		return err
	}
	t := e.table()
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n%s\n", markdown(e.Name), markdown(e.subtitle()))
	if sentence, detail := e.headline(); sentence != "" {
		b.WriteString("\n" + strings.TrimSpace("**"+markdown(sentence)+"** "+markdown(detail)) + "\n")
	}
	for _, n := range e.Notes {
		fmt.Fprintf(&b, "\n> %s\n", markdown(n))
	}
	if len(t.Rows) > 0 {
		b.WriteString("\n| bridge |")
		for _, m := range Metrics {
			b.WriteString(" " + m + " |")
		}
		for _, h := range t.Costs {
			b.WriteString(" " + h + " |")
		}
		b.WriteString("\n| --- |" + strings.Repeat(" ---: |", len(Metrics)+len(t.Costs)) + "\n")
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
				v += c.Mark
				for _, more := range []string{c.Std, c.Interval} {
					if more != "" {
						v += " " + more
					}
				}
				b.WriteString(" " + v + " |")
			}
			for _, v := range r.Costs {
				b.WriteString(" " + v + " |")
			}
			b.WriteString("\n")
		}
	}
	if s := t.legend(); s != "" {
		b.WriteString("\n" + markdown(s) + "\n")
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
	b.WriteString(e.claimsTable())
	b.WriteString(e.differencesTable())
	_, err := io.WriteString(w, b.String())
	return err
}

// markdown escapes markup.
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
		s += fmt.Sprintf("%d evaluated images", e.Images)
	}
	return s
}
