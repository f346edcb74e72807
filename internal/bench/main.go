// Command bench compares this project with Python on the same libtorch: two processes
// with the same weights, the same photos and the same number of threads take turns
// doing the same work. The ratio of their times is computed for each pair of runs, so
// that whatever slows the machine down affects both.
//
//	go run ./internal/bench -rounds 5
//	go run ./internal/bench -only 'greedy|beam' -markdown
//
// It needs the Python environment of `make parity`. Random weights of realistic size
// are created once, by testdata/reference/bench.py.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"

	"cyclecap/internal/processor"
	"cyclecap/torch"

	"github.com/jedib0t/go-pretty/v6/table"
)

type settings struct {
	rounds   int
	only     *regexp.Regexp
	threads  int
	dir      string // folder of the weights
	python   string
	script   string
	cyclecap string
	photos   []string
}

func main() {
	// Like the command line: another thread would get its own OpenMP pool.
	torch.TuneAllocator()
	runtime.LockOSThread()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	var s settings
	rounds := flag.Int("rounds", 5, "number of pairs of runs per workload")
	only := flag.String("only", "", "run only the workloads that match this regular expression")
	threads := flag.Int("threads", 2, "number of libtorch threads on both sides")
	dir := flag.String("dir", "work/bench", "folder of the random weights, created if missing")
	python := flag.String("python", ".venv/bin/python", "Python interpreter with the packages of testdata/reference/requirements.txt")
	binary := flag.String("cyclecap", "bin/cyclecap", "cyclecap binary whose startup is timed")
	asJSON := flag.String("json", "", "also write the results to this file")
	markdown := flag.Bool("markdown", false, "print the table as Markdown")
	list := flag.Bool("list", false, "list the workloads and exit")
	worker := flag.Bool("worker", false, "run as the Go side and answer lines of the form \"run NAME\" (used internally)")
	scaleDir := flag.String("scale", "", "train on the features in this folder (used internally)")
	flag.Parse()
	if *scaleDir != "" {
		return scale(*scaleDir, *threads)
	}
	if *rounds < 1 || *threads < 1 {
		return fmt.Errorf("-rounds and -threads must be at least 1")
	}
	pattern, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	if *list {
		for _, w := range workloads {
			fmt.Println(w.name)
		}
		for _, w := range trainings {
			fmt.Println(w.name)
		}
		fmt.Println(scaleName)
		fmt.Println(startName)
		return nil
	}
	s = settings{rounds: *rounds, only: pattern, threads: *threads, dir: *dir, python: *python,
		script: "testdata/reference/bench.py", cyclecap: *binary}
	if s.photos, err = filepath.Glob("testdata/photos/*.jpg"); err != nil || len(s.photos) == 0 {
		return fmt.Errorf("no photos in testdata/photos: run this in the root of the repository")
	}
	// About three batches of 32, with every photo several times.
	for len(s.photos) < 96 {
		s.photos = append(s.photos, s.photos...)
	}
	s.photos = s.photos[:96]
	if *worker {
		return serve(s)
	}

	// OpenMP reads these when its library is loaded, so they are set before both
	// sides start.
	for _, name := range []string{"OMP_NUM_THREADS", "MKL_NUM_THREADS"} {
		if err := os.Setenv(name, fmt.Sprint(s.threads)); err != nil {
			return err
		}
	}
	if _, err := exec.LookPath(s.python); err != nil {
		return fmt.Errorf("no Python at %s: run `make parity` once to install it, or set -python", s.python)
	}
	if err := command(s.python, s.script, "make", s.dir).Run(); err != nil {
		return fmt.Errorf("cannot create the weights: %w", err)
	}
	results, err := compare(s)
	if err != nil {
		return err
	}
	trained, err := compareTrainings(s)
	if err != nil {
		return err
	}
	results = append(results, trained...)
	if s.only.MatchString(startName) {
		start, err := compareStart(s)
		if err != nil {
			return err
		}
		results = append(results, start...)
	}
	if *asJSON != "" {
		text, err := json.MarshalIndent(results, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(*asJSON, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	if len(results) > 0 {
		show(results, s, *markdown)
	}
	if s.only.MatchString(scaleName) {
		if err := compareScales(s); err != nil {
			return err
		}
	}
	for _, r := range results {
		if r.Wrong != "" {
			return fmt.Errorf("%s: the two sides disagree, so the times are meaningless: %s", r.Name, r.Wrong)
		}
	}
	return nil
}

// result is a line of the table.
type result struct {
	Name    string    `json:"name"`
	Against string    `json:"against"`
	Unit    string    `json:"unit"`
	Ours    []float64 `json:"ours"`
	Python  []float64 `json:"python"`
	Ratios  []float64 `json:"ratios"` // Python's time over ours for each pair; above 1 is better
	Target  float64   `json:"target"` // target for the median ratio; 0: none
	Output  string    `json:"output"` // how the two outputs compare
	Wrong   string    `json:"wrong,omitempty"`
}

func (r *result) add(ours, python float64) {
	r.Ours = append(r.Ours, ours)
	r.Python = append(r.Python, python)
	r.Ratios = append(r.Ratios, python/ours)
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

func show(results []result, s settings, markdown bool) {
	t := table.NewWriter()
	t.AppendHeader(table.Row{"workload", "ours", "Python", "against", "ratio min", "median", "max", "target", "outputs"})
	for _, r := range results {
		target := ""
		if r.Target > 0 {
			verdict := "missed"
			if median(r.Ratios) >= r.Target {
				verdict = "reached"
			}
			target = fmt.Sprintf("%.2g %s", r.Target, verdict)
		}
		t.AppendRow(table.Row{
			r.Name, fmt.Sprintf("%.3g %s", median(r.Ours), r.Unit), fmt.Sprintf("%.3g %s", median(r.Python), r.Unit), r.Against,
			fmt.Sprintf("%.2f", slices.Min(r.Ratios)), fmt.Sprintf("%.2f", median(r.Ratios)), fmt.Sprintf("%.2f", slices.Max(r.Ratios)),
			target, r.Output,
		})
	}
	text := t.Render
	if markdown {
		text = t.RenderMarkdown
	}
	fmt.Println(text())
	fmt.Printf("ratio: Python's value divided by ours, for each of %d pairs of runs; above 1 means that ours is better. %d threads, %s, %s.\n",
		s.rounds, s.threads, processor.Name(), runtime.Version())
}
