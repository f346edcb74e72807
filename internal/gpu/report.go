package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"cyclecap/internal/atomicfile"
)

// A row is one result: a comparison of numbers, a test, or a measured time.
type row struct {
	Name    string `json:"name"`
	Peer    string `json:"peer,omitempty"` // what it is compared with
	DType   string `json:"dtype,omitempty"`
	Verdict string `json:"verdict"`
	Note    string `json:"note,omitempty"` // the reason for a difference, or why there is no result

	// Of a comparison of numbers.
	Difference *float64 `json:"difference,omitempty"` // null: not a number, or another token
	Bound      string   `json:"bound,omitempty"`
	BitEqual   *bool    `json:"bit_equal,omitempty"`
	Elements   int64    `json:"elements,omitempty"`
	Differing  int64    `json:"differing,omitempty"`

	// Of a measured time.
	Unit   string  `json:"unit,omitempty"`
	Ours   float64 `json:"ours,omitempty"`   // median, in Unit
	Theirs float64 `json:"theirs,omitempty"` // median, in Unit
	Ratio  *ratio  `json:"ratio,omitempty"`  // their time over ours in each pair of runs; above 1 is better
	Target float64 `json:"target,omitempty"` // for the median ratio
	Share  float64 `json:"share,omitempty"`  // of what the card can do
	Of     string  `json:"share_of,omitempty"`

	// Key and Batch identify a measured time for the table.
	Key   string `json:"key,omitempty"`
	Batch int    `json:"batch,omitempty"`
}

type ratio struct {
	Min    float64 `json:"min"`
	Median float64 `json:"median"`
	Max    float64 `json:"max"`
}

// Verdicts. A row with one of the failing verdicts makes the run fail.
const (
	bitEqual = "bit-equal"
	within   = "within the bound"
	outside  = "OUT OF BOUND"
	passed   = "passed"
	failed   = "FAILED"
	skipped  = "skipped"
	reached  = "reached"
	missed   = "missed"
	measured = "measured" // no target
	absent   = "not measured"
)

func (r row) fails() bool { return r.Verdict == outside || r.Verdict == failed }

// String returns the row as it is printed while the program runs.
func (r row) String() string {
	name := r.Name
	if r.DType != "" {
		name += " " + r.DType
	}
	s := fmt.Sprintf("%-16s %s", r.Verdict, name)
	if r.BitEqual != nil {
		name += ", " + r.Peer
		s = fmt.Sprintf("%-16s %s", r.Verdict, name)
	}
	switch {
	case r.Ratio != nil:
		s += fmt.Sprintf(": %s, %s %s, ratio %.2f (%.2f to %.2f)", figure(r.Ours, r.Unit), r.Peer, figure(r.Theirs, r.Unit), r.Ratio.Median, r.Ratio.Min, r.Ratio.Max)
	case r.Unit != "":
		s += ": " + figure(r.Ours, r.Unit)
	case r.BitEqual != nil && !*r.BitEqual:
		s += fmt.Sprintf(": differs by %s, bound %s", r.difference(), r.Bound)
	}
	if r.Share > 0 {
		s += fmt.Sprintf(", %.0f %% of %s", 100*r.Share, r.Of)
	}
	if r.Note != "" {
		s += "; " + r.Note
	}
	return s
}

func (r row) difference() string {
	if r.Difference == nil {
		return "not a number"
	}
	return fmt.Sprintf("%.2g", *r.Difference)
}

// figure returns a number with three digits and its unit.
func figure(v float64, unit string) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f %s", v, unit)
	case v > 0:
		digits := max(0, 2-int(math.Floor(math.Log10(v))))
		return fmt.Sprintf("%.*f %s", digits, v, unit)
	}
	return "0 " + unit
}

type section struct {
	Name    string  `json:"name"`
	Title   string  `json:"title"`
	Seconds float64 `json:"seconds"`
	Budget  float64 `json:"budget"`
	Error   string  `json:"error,omitempty"` // why it ended early
	Rows    []row   `json:"rows"`
}

// A report is what a run writes, in whole after every row.
type report struct {
	Commit   string     `json:"commit"`
	Started  string     `json:"started"`
	Device   string     `json:"device"`
	Size     string     `json:"size"` // "real" or "small"
	Quick    bool       `json:"quick"`
	Machine  facts      `json:"machine"`
	Sections []*section `json:"sections"`
	Finished bool       `json:"finished"` // false while it runs, and if it was cut off
	Seconds  float64    `json:"seconds"`
}

// facts are what gpu.py reports of the machine.
type facts struct {
	Card            string `json:"card,omitempty"`
	Memory          int64  `json:"memory,omitempty"`
	Multiprocessors int    `json:"multiprocessors,omitempty"`
	Capability      string `json:"capability,omitempty"`
	Driver          string `json:"driver,omitempty"`
	CUDA            string `json:"cuda,omitempty"`
	CUDNN           int    `json:"cudnn,omitempty"`
	Libtorch        string `json:"libtorch,omitempty"`
	Torch           string `json:"torch"`
	Python          string `json:"python"`
	Transformers    string `json:"transformers"`
	Triton          string `json:"triton"`
	Compiler        string `json:"compiler"`
	Processor       string `json:"processor"`
	Cores           int    `json:"cores"`
}

func (r *report) save(dir string) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := atomicfile.WriteBytes(filepath.Join(dir, "report.json"), append(text, '\n')); err != nil {
		return err
	}
	return atomicfile.WriteBytes(filepath.Join(dir, "report.md"), []byte(r.markdown()))
}

// failures returns the number of rows and sections that failed.
func (r *report) failures() (n int) {
	for _, s := range r.Sections {
		if s.Error != "" {
			n++
		}
		for _, x := range s.Rows {
			if x.fails() {
				n++
			}
		}
	}
	return n
}

// markdown returns the report for reading.
func (r *report) markdown() string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	m := r.Machine
	on := m.Card
	if on == "" {
		on = "the CPU"
	}
	p("# On %s\n\n", on)
	p("The report of a run of `make gpu`'s bundle")
	if r.Quick {
		p(", with `--quick`")
	}
	p(". [Below](#run-it) is how to run it on another machine.")
	if r.Size == "small" {
		p(" The models are small, so the times say nothing about the real ones.")
	}
	if !r.Finished {
		p(" **The run has not finished.**")
	}
	p("\n\n| | |\n| --- | --- |\n")
	if m.Card != "" {
		p("| card | %s, %.0f GiB, %d multiprocessors, compute capability %s |\n", m.Card, float64(m.Memory)/(1<<30), m.Multiprocessors, m.Capability)
		p("| driver | %s |\n", m.Driver)
		p("| CUDA, cuDNN | %s, %d |\n", m.CUDA, m.CUDNN)
	}
	p("| libtorch, on both sides | %s |\n", m.Torch)
	p("| Python | %s, transformers %s", m.Python, m.Transformers)
	if m.Triton != "" {
		p(", Triton %s", m.Triton)
	}
	p(" |\n| processor | %s, %d cores |\n", m.Processor, m.Cores)
	p("| run | %s, %.0f s, cyclecap %s |\n", r.Started, r.Seconds, r.Commit)
	p("\n%s\n%s", r.verdicts(), r.targets())
	for _, s := range r.Sections {
		p("\n## %s\n\n", s.Title)
		if text := about[s.Name]; text != "" {
			p("%s\n\n", text)
		}
		if s.Error != "" {
			p("**The section did not finish: %s.**\n\n", strings.TrimSuffix(s.Error, "."))
		}
		s.table(p)
	}
	p("\n%s", howTo)
	return b.String()
}

//go:embed howto.md
var howTo string

// about introduces each section.
var about = map[string]string{
	"parity": "The same weights and inputs on the same device, with TF32 off. The reference of CLIP is OpenAI's code in plain PyTorch " +
		"(`testdata/reference/models.py`). A row in bf16 compares both sides' mean distance from the reference in f32: ours may be " +
		"at most 1.25 times theirs.",
	"tests": "The tests that use a device, a training that is killed and resumed, memory over a long training, and calls that must fail.",
	"speed": "Both processes are warm, synchronise the device before the clock is read, and take turns; the ratio is computed for each pair " +
		"of turns, and above 1 means that cyclecap is faster. Every caption has the same number of tokens on both sides.",
	"table": "Computed from the times above. One GPU, so hours are GPU-hours.",
}

// verdicts summarises the report.
func (r *report) verdicts() string {
	var lines []string
	for _, s := range r.Sections {
		count := map[string]int{}
		for _, x := range s.Rows {
			count[x.Verdict]++
		}
		var parts []string
		for _, v := range []string{bitEqual, within, outside, passed, failed, skipped, reached, missed, measured, absent} {
			if count[v] > 0 {
				parts = append(parts, fmt.Sprintf("%d %s", count[v], v))
			}
		}
		line := fmt.Sprintf("- **%s**: %s", s.Name, strings.Join(parts, ", "))
		if s.Error != "" {
			line += "; did not finish: " + s.Error
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

// targets returns what was to be reached, with the ratios of each dtype.
func (r *report) targets() string {
	type line struct {
		name    string
		target  float64
		ratios  []string
		verdict string
	}
	var lines []*line
	for _, s := range r.Sections {
		for _, x := range s.Rows {
			if x.Target == 0 || x.Ratio == nil {
				continue
			}
			name := fmt.Sprintf("%s, against %s", x.Name, x.Peer)
			i := slices.IndexFunc(lines, func(l *line) bool { return l.name == name })
			if i < 0 {
				i = len(lines)
				lines = append(lines, &line{name: name, target: x.Target, verdict: reached})
			}
			l := lines[i]
			l.ratios = append(l.ratios, fmt.Sprintf("%.2f in %s", x.Ratio.Median, x.DType))
			if x.Verdict != reached {
				l.verdict = missed
			}
		}
	}
	if len(lines) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("\n| target for the median ratio | at least | measured | |\n| --- | ---: | --- | --- |\n")
	for _, l := range lines {
		fmt.Fprintf(&b, "| %s | %.1f | %s | %s |\n", cell(l.name), l.target, strings.Join(l.ratios, ", "), l.verdict)
	}
	return b.String()
}

func cell(s string) string { return strings.ReplaceAll(strings.ReplaceAll(s, "|", `\|`), "\n", " ") }

func (s *section) table(p func(string, ...any)) {
	switch s.Name {
	case "parity":
		p("| what | compared with | dtype | difference | bound | verdict | |\n| --- | --- | --- | ---: | --- | --- | --- |\n")
		for _, r := range s.Rows {
			difference := ""
			if r.BitEqual != nil {
				difference = "0"
				if !*r.BitEqual {
					difference = r.difference()
				}
			}
			p("| %s | %s | %s | %s | %s | %s | %s |\n", cell(r.Name), cell(r.Peer), r.DType, difference, r.Bound, r.Verdict, cell(r.Note))
		}
	case "speed":
		p("| what | dtype | cyclecap | compared with | its figure | ratio min | median | max | target | verdict | share of the device | |\n")
		p("| --- | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | --- | --- | --- |\n")
		for _, r := range s.Rows {
			var ours, theirs, low, mid, high, target, share string
			if r.Ours > 0 {
				ours = figure(r.Ours, r.Unit)
			}
			if r.Theirs > 0 {
				theirs = figure(r.Theirs, r.Unit)
			}
			if r.Ratio != nil {
				low, mid, high = fmt.Sprintf("%.2f", r.Ratio.Min), fmt.Sprintf("%.2f", r.Ratio.Median), fmt.Sprintf("%.2f", r.Ratio.Max)
			}
			if r.Target > 0 {
				target = fmt.Sprintf("%.1f", r.Target)
			}
			if r.Share > 0 {
				share = fmt.Sprintf("%.0f %% of %s", 100*r.Share, r.Of)
			}
			p("| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n",
				cell(r.Name), r.DType, ours, cell(r.Peer), theirs, low, mid, high, target, r.Verdict, share, cell(r.Note))
		}
	case "table":
		p("| part | dtype | hours | |\n| --- | --- | ---: | --- |\n")
		for _, r := range s.Rows {
			hours := r.Verdict
			if r.Ours > 0 {
				hours = fmt.Sprintf("%.3f", r.Ours)
			}
			p("| %s | %s | %s | %s |\n", cell(r.Name), r.DType, hours, cell(r.Note))
		}
	default:
		p("| what | verdict | |\n| --- | --- | --- |\n")
		for _, r := range s.Rows {
			p("| %s | %s | %s |\n", cell(r.Name), r.Verdict, cell(r.Note))
		}
	}
}
