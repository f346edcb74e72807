// Command gpu is `make gpu`'s program: it compares cyclecap with PyTorch and transformers
// on one device, runs the tests that use a device, measures both sides' speed, and writes
// report.json and report.md. scripts/gpu-run.sh starts it on a machine that has no Go.
//
// Each section runs in a process of its own, which prints its rows; this process writes
// the report after every row, so that a section that crashes or takes too long loses
// nothing else.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"cyclecap/internal/processor"
)

// commit is set by the linker.
var commit string

type settings struct {
	device   string
	out      string // folder of the report
	quick    bool
	small    bool
	python   string
	scripts  string // folder of gpu.py
	photos   string // folder of photos
	tests    string // binary of internal/devicetest
	cyclecap string
	work     string // folder of the weights
	facts    string // file with the output of gpu.py facts
	threads  int
}

// A chapter is a section that can be chosen.
type chapter struct {
	name, title string
	quick, full time.Duration // time budgets on a GPU
	run         func(*env) error
}

var chapters = []chapter{
	{"parity", "The same numbers", 75 * time.Second, 180 * time.Second, parityRows},
	{"tests", "Tests", 60 * time.Second, 240 * time.Second, testRows},
	{"speed", "Speed", 90 * time.Second, 420 * time.Second, speedRows},
	{"table", "The paper's Table 3", 5 * time.Second, 5 * time.Second, nil},
}

func main() {
	// Like the command line: another thread would get its own OpenMP pool.
	runtime.LockOSThread()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "gpu:", err)
		os.Exit(1)
	}
}

func run() error {
	var s settings
	var names []string
	for _, c := range chapters {
		names = append(names, c.name)
	}
	sections := flag.String("sections", strings.Join(names, ","), "sections to run")
	flag.StringVar(&s.device, "device", "cuda:0", "device to run on")
	flag.StringVar(&s.out, "out", "", "folder for report.json and report.md")
	flag.BoolVar(&s.quick, "quick", false, "measure fewer things, in 4 minutes")
	flag.StringVar(&s.python, "python", "python3", "Python interpreter with torch and transformers")
	flag.StringVar(&s.scripts, "scripts", "testdata/reference", "folder of gpu.py")
	flag.StringVar(&s.photos, "photos", "testdata/photos", "folder of photos")
	flag.StringVar(&s.tests, "tests", "", "binary of the device tests")
	flag.StringVar(&s.cyclecap, "cyclecap", "bin/cyclecap", "the command")
	flag.StringVar(&s.work, "work", "work/gpu", "folder for weights, written if missing")
	flag.StringVar(&s.facts, "facts", "", "file with the output of gpu.py facts")
	sizes := flag.String("size", "", "sizes of the models, real or small; small on the CPU unless given")
	render := flag.String("render", "", "print this report.json as Markdown and exit")
	one := flag.String("section", "", "run one section and print its rows (used internally)")
	left := flag.Duration("left", time.Hour, "time for the section (used internally)")
	child := flag.String("train", "", "train in this folder (used internally)")
	steps := flag.Int("steps", 0, "number of steps to train (used internally)")
	flag.Parse()
	s.small = *sizes == "small" || *sizes == "" && s.device == "cpu"
	s.threads = min(runtime.NumCPU(), 8)
	if *render != "" {
		var r report
		text, err := os.ReadFile(*render)
		if err == nil {
			err = json.Unmarshal(text, &r)
		}
		if err == nil {
			_, err = fmt.Print(r.markdown())
		}
		return err
	}
	if *child != "" {
		return trainChild(s, *child, *steps)
	}
	if *one != "" {
		return runSection(s, *one, *left)
	}
	if s.out == "" || s.facts == "" {
		return fmt.Errorf("-out and -facts are required; run the bundle's run.sh")
	}
	chosen := strings.Split(*sections, ",")
	for _, name := range chosen {
		if !slices.Contains(names, name) {
			return fmt.Errorf("unknown section %q; must be %s", name, strings.Join(names, ", "))
		}
	}
	return supervise(s, chosen)
}

// supervise runs the sections and writes the report.
func supervise(s settings, chosen []string) error {
	begin := time.Now()
	r := &report{Commit: commit, Started: begin.UTC().Format("2006-01-02 15:04 MST"), Device: s.device, Size: size(s), Quick: s.quick}
	text, err := os.ReadFile(s.facts)
	if err == nil {
		err = json.Unmarshal(text, &r.Machine)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.facts, err)
	}
	r.Machine.Processor = processor.Name()
	if err := os.MkdirAll(s.out, 0o777); err != nil {
		return err
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	save := func() error {
		r.Seconds = time.Since(begin).Seconds()
		return r.save(s.out)
	}
	var spare time.Duration // what earlier sections did not use
	for _, c := range chapters {
		if !slices.Contains(chosen, c.name) {
			continue
		}
		x := &section{Name: c.name, Title: c.title, Rows: []row{}}
		r.Sections = append(r.Sections, x)
		budget := c.full
		if s.quick {
			budget = c.quick
		}
		budget += spare
		if s.small {
			budget = 5 * time.Minute // the CPU may be busy, and nothing is measured there
		}
		x.Budget = budget.Seconds()
		fmt.Printf("\n== %s, at most %v\n", c.title, budget.Round(time.Second))
		from := time.Now()
		add := func(one row) error {
			x.Rows = append(x.Rows, one)
			x.Seconds = time.Since(from).Seconds()
			fmt.Printf("%6.1f s  %s\n", time.Since(begin).Seconds(), one)
			return save()
		}
		if c.run == nil {
			for _, one := range tableRows(r) {
				if err := add(one); err != nil {
					return err
				}
			}
		} else {
			stop, err := inProcess(s, c.name, budget, interrupted, add)
			if err != nil {
				x.Error = err.Error()
				fmt.Printf("%6.1f s  the section %s did not finish: %v\n", time.Since(begin).Seconds(), c.name, err)
			}
			if stop {
				return fmt.Errorf("interrupted; %s has the results so far", filepath.Join(s.out, "report.json"))
			}
		}
		x.Seconds = time.Since(from).Seconds()
		spare = max(0, budget-time.Since(from))
		if err := save(); err != nil {
			return err
		}
	}
	r.Finished = true
	if err := save(); err != nil {
		return err
	}
	fmt.Printf("\n%s\n%s is written, after %.0f s\n", r.verdicts(), filepath.Join(s.out, "report.md"), r.Seconds)
	if n := r.failures(); n > 0 {
		return fmt.Errorf("%d results are wrong", n)
	}
	return nil
}

func size(s settings) string {
	if s.small {
		return "small"
	}
	return "real"
}

// inProcess runs a section in a process of its own.
func inProcess(s settings, name string, budget time.Duration, interrupted <-chan os.Signal, add func(row) error) (stop bool, err error) {
	self, err := os.Executable()
	if err != nil {
		return false, err
	}
	arguments := []string{"-section", name, "-left", budget.String(), "-device", s.device, "-python", s.python, "-scripts", s.scripts,
		"-photos", s.photos, "-tests", s.tests, "-cyclecap", s.cyclecap, "-work", s.work, "-size", size(s)}
	if s.quick {
		arguments = append(arguments, "-quick")
	}
	c := exec.Command(self, arguments...)
	// Its own process group, so that its Python process can be ended with it.
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	errors := &tail{to: os.Stderr}
	c.Stderr = errors
	out, err := c.StdoutPipe()
	if err != nil {
		return false, err
	}
	if err := c.Start(); err != nil {
		return false, err
	}
	rows := make(chan row)
	go func() {
		defer close(rows)
		lines := bufio.NewReader(out)
		for {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				return
			}
			var one row
			if json.Unmarshal(line, &one) != nil {
				os.Stderr.Write(line)
				continue
			}
			rows <- one
		}
	}()
	// The section knows its budget and ends by itself; this is for one that hangs.
	late := time.After(budget + 10*time.Second)
	for {
		select {
		case one, ok := <-rows:
			if !ok {
				if err = c.Wait(); err != nil {
					err = fmt.Errorf("%w: %s", err, errors.last())
				}
				return false, err
			}
			if err := add(one); err != nil {
				syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
				return false, err
			}
		case <-late:
			syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
			go func() {
				for range rows {
				}
			}()
			c.Wait()
			return false, fmt.Errorf("it took longer than %v and was ended", budget.Round(time.Second))
		case <-interrupted:
			syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
			return true, fmt.Errorf("interrupted")
		}
	}
}

// tail passes output on and keeps its end.
type tail struct {
	to  io.Writer
	end []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.end = append(t.end, b...)
	if len(t.end) > 4000 {
		t.end = t.end[len(t.end)-4000:]
	}
	return t.to.Write(b)
}

// last returns the last line that is not empty.
func (t *tail) last() string {
	lines := bytes.Split(bytes.TrimSpace(t.end), []byte("\n"))
	return string(lines[len(lines)-1])
}
