package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"cyclecap/torch"
	"cyclecap/torch/compare"
	"cyclecap/torch/cuda"
	"cyclecap/train"
)

func testRows(e *env) error {
	e.attempt("failing calls", e.failingCalls)
	e.attempt("killed training", e.killAndResume)
	e.attempt("captions of photos", e.captionCommand)
	e.attempt("device tests", e.deviceTests)
	e.attempt("memory", e.memoryFlat)
	if !e.quick {
		e.attempt("self-test", e.selfTest)
	}
	return nil
}

// check adds a row of a test.
func (e *env) check(name string, err error, note string) {
	if err != nil {
		e.add(row{Name: name, Verdict: failed, Note: err.Error()})
		return
	}
	e.add(row{Name: name, Verdict: passed, Note: note})
}

// works computes something whose result is known.
func (e *env) works() error {
	return torch.Scope(func() error {
		x := torch.Ones([]int64{64, 64}, torch.WithDevice(e.on))
		if got := x.Matmul(x).Sum().Item(); got != 64*64*64 {
			return fmt.Errorf("afterwards, a product of matrices gives %g instead of %d", got, 64*64*64)
		}
		return nil
	})
}

// failingCalls checks that calls which must fail return an error that says why, and that
// the device computes as before.
func (e *env) failingCalls() error {
	try := func(name, want string, f func()) {
		err := torch.Scope(func() error { f(); return nil })
		var e2 *torch.Error
		switch {
		case err == nil:
			err = fmt.Errorf("the call succeeded")
		case !errors.As(err, &e2):
			err = fmt.Errorf("the error is no *torch.Error: %w", err)
		case !strings.Contains(strings.ToLower(err.Error()), want):
			err = fmt.Errorf("the error does not say %q: %w", want, err)
		default:
			first, _, _ := strings.Cut(err.Error(), "\n")
			if len(first) > 160 {
				first = first[:160] + "…"
			}
			e.check(name, e.works(), first)
			return
		}
		e.check(name, err, "")
	}
	on := torch.WithDevice(e.on)
	if e.on.Type == torch.CUDADevice {
		try("out of memory", "out of memory", func() { torch.Empty([]int64{1 << 42}, on) })
		try("out of memory, little by little", "out of memory", func() {
			for range 10_000 {
				torch.Empty([]int64{1 << 32}, on)
			}
		})
		if err := cuda.EmptyCache(); err != nil {
			return err
		}
		try("tensors on two devices", "same device", func() { torch.Ones([]int64{4}, on).Add(torch.Ones([]int64{4})) })
		try("a product of tensors on two devices", "same device", func() { torch.Ones([]int64{4, 4}, on).Matmul(torch.Ones([]int64{4, 4})) })
		_, err := torch.ParseDevice("cuda:99")
		if err == nil {
			err = errors.New("cuda:99 was accepted")
		} else if err = nil; e.works() != nil {
			err = e.works()
		}
		e.check("a device that does not exist", err, "")
	}
	try("shapes that do not fit", "shape", func() { torch.Ones([]int64{4, 4}, on).Matmul(torch.Ones([]int64{5, 4}, on)) })
	return nil
}

// trainTask is what the tests of this section train: the CycleGAN at the paper's size, or a
// small one.
func trainTask(s settings, on torch.Device) (*train.CycleGANTask, error) {
	width := 512
	if s.small {
		width = 32
	}
	config := train.DefaultCycleGAN()
	config.Width, config.Epochs, config.DecayFrom, config.Device = int64(width), 1000, 500, on
	set := func(k int) train.Matrix {
		m := train.Matrix{Data: make([]float32, 1024*width), Cols: width}
		for i := range m.Data {
			m.Data[i] = float32(math.Sin(float64(k + i*i%10_007)))
		}
		return m
	}
	torch.ManualSeed(seed)
	return train.NewCycleGANTask(config, set(1), set(2))
}

// trainChild trains in a folder, from its checkpoint if there is one.
func trainChild(s settings, dir string, steps int) error {
	on, err := torch.ParseDevice(s.device)
	if err != nil {
		return err
	}
	torch.SetNumThreads(1)
	return torch.Scope(func() error {
		task, err := trainTask(s, on)
		if err != nil {
			return err
		}
		defer task.Close()
		loop := train.Loop{Dir: dir, Kind: "cyclegan", Steps: steps, Every: 50, Resume: true,
			Progress: func(done int, _ train.Losses) { fmt.Println(done) }}
		return loop.Run(context.Background(), task)
	})
}

// killAndResume trains without an interruption, and with a SIGKILL: the checkpoints must
// be the same.
func (e *env) killAndResume() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	const steps, kill = 500, 170
	start := func(dir string) (*exec.Cmd, *bufio.Scanner, *bytes.Buffer, error) {
		c := exec.Command(self, "-train", dir, "-steps", strconv.Itoa(steps), "-device", e.device, "-size", size(e.settings))
		var text bytes.Buffer
		c.Stderr = &text
		out, err := c.StdoutPipe()
		if err != nil {
			return nil, nil, nil, err
		}
		return c, bufio.NewScanner(out), &text, c.Start()
	}
	finish := func(dir string) error {
		c, lines, text, err := start(dir)
		if err != nil {
			return err
		}
		for lines.Scan() {
		}
		if err := c.Wait(); err != nil {
			return fmt.Errorf("%w: %s", err, text)
		}
		return nil
	}
	whole, cut := e.path("whole"), e.path("cut")
	for _, dir := range []string{whole, cut} {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if err := finish(whole); err != nil {
		return err
	}
	c, lines, text, err := start(cut)
	if err != nil {
		return err
	}
	at := 0
	for lines.Scan() {
		if at, err = strconv.Atoi(lines.Text()); err != nil {
			return fmt.Errorf("the training printed %q", lines.Text())
		}
		if at == kill {
			c.Process.Kill()
		}
	}
	if err := c.Wait(); err == nil || at < kill || at >= steps {
		return fmt.Errorf("the training was not killed at step %d: it ended at %d: %s", kill, at, text)
	}
	if err := finish(cut); err != nil {
		return err
	}
	a, err := load(filepath.Join(whole, train.LastCheckpoint))
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := load(filepath.Join(cut, train.LastCheckpoint))
	if err != nil {
		return err
	}
	defer b.Close()
	for _, name := range a.Names() {
		x, _ := a.Get(name)
		y, ok := b.Get(name)
		if !ok {
			return fmt.Errorf("the checkpoint of the resumed training has no %s", name)
		}
		if d := compare.Tensors(y, x); !d.Equal() {
			return fmt.Errorf("after the resumed training, %s is not that of the one without an interruption: %v", name, d)
		}
	}
	e.check(fmt.Sprintf("a CycleGAN training that is killed after step %d and resumed", at), nil,
		fmt.Sprintf("%d tensors of the last of %d steps' checkpoint have the same bits as without the interruption", len(a.Names()), steps))
	return nil
}

// memoryFlat trains for 5,000 steps and compares the memory at the end with that after
// 1,000.
func (e *env) memoryFlat() error {
	steps := 5000
	if e.small {
		steps = 500
	}
	task, err := trainTask(e.settings, e.on)
	if err != nil {
		return err
	}
	defer task.Close()
	type figures struct{ resident, allocated, reserved int64 }
	read := func() (f figures, err error) {
		if f.resident, err = resident(); err != nil || e.on.Type != torch.CUDADevice {
			return f, err
		}
		m, err := cuda.MemoryOf(e.on)
		f.allocated, f.reserved = m.Allocated, m.Reserved
		return f, err
	}
	var early, late figures
	done := 0
	begin := time.Now()
	for done < steps && (done < steps/2 || e.left() > 5*time.Second) {
		err := torch.Scope(func() error {
			_, err := task.Step(done)
			return err
		})
		if err != nil {
			return fmt.Errorf("step %d: %w", done+1, err)
		}
		if done++; done == steps/5 {
			if early, err = read(); err != nil {
				return err
			}
		}
	}
	if err := torch.Synchronize(e.on); err != nil {
		return err
	}
	if late, err = read(); err != nil {
		return err
	}
	const mib = 1 << 20
	note := fmt.Sprintf("after %d and %d steps: %d and %d MiB resident", steps/5, done, early.resident/mib, late.resident/mib)
	if e.on.Type == torch.CUDADevice {
		note += fmt.Sprintf(", %.1f and %.1f MiB allocated and %d and %d MiB reserved on the device",
			float64(early.allocated)/mib, float64(late.allocated)/mib, early.reserved/mib, late.reserved/mib)
	}
	note += fmt.Sprintf("; %.2f ms a step", time.Since(begin).Seconds()/float64(done)*1000)
	if late.allocated > early.allocated || late.reserved > early.reserved || late.resident > early.resident+16*mib {
		err = fmt.Errorf("memory grows: %s", note)
	}
	e.check(fmt.Sprintf("memory is flat over %d CycleGAN steps", done), err, note)
	return nil
}

// resident returns the resident memory of this process in bytes.
func resident() (int64, error) {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	var total, pages int64
	if _, err := fmt.Sscan(string(text), &total, &pages); err != nil {
		return 0, fmt.Errorf("/proc/self/statm: %w", err)
	}
	return pages * int64(os.Getpagesize()), nil
}

// command runs cyclecap and returns what it prints.
func (e *env) command(arguments ...string) (out string, err error) {
	ctx, stop := context.WithTimeout(context.Background(), e.left())
	defer stop()
	c := exec.CommandContext(ctx, e.cyclecap, arguments...)
	var text bytes.Buffer
	c.Stderr = &text
	b, err := c.Output()
	if err != nil {
		err = fmt.Errorf("cyclecap %s: %w: %s", strings.Join(arguments, " "), err, last(strings.Split(strings.TrimSpace(text.String()), "\n"), 3))
	}
	return string(b), err
}

// captionCommand captions photos with the command, on the device and on the CPU.
func (e *env) captionCommand() error {
	const name = "cyclecap caption of photos, the same as on the CPU"
	if _, err := os.Stat(e.path("decoder.pt")); err != nil || e.cyclecap == "" {
		e.add(row{Name: name, Verdict: skipped, Note: "the weights are made in the section parity, which did not run"})
		return nil
	}
	caption := func(device string) (string, error) {
		return e.command("caption", "--clip", e.path("clip.pt"), "--decoder", e.path("decoder.pt"), "--gpt2", e.path("gpt2"),
			"--max-tokens", "20", "--device", device, e.photos)
	}
	begin := time.Now()
	got, err := caption(e.device)
	if err != nil {
		return err
	}
	took := time.Since(begin)
	want, err := caption("cpu")
	if err != nil {
		return err
	}
	if got != want {
		err = fmt.Errorf("on %s it prints %q, on the CPU %q", e.device, got, want)
	}
	e.check(name, err, fmt.Sprintf("%d photos in %.1f s, with loading the models", strings.Count(got, "\n"), took.Seconds()))
	return nil
}

// selfTest runs the command's own check of the device.
func (e *env) selfTest() error {
	const name = "cyclecap doctor --self-test"
	help, err := e.command("doctor", "--help")
	if err != nil {
		return err
	}
	if !strings.Contains(help, "--self-test") {
		e.add(row{Name: name, Verdict: skipped, Note: "this version has no self-test"})
		return nil
	}
	out, err := e.command("doctor", "--self-test", "--device", e.device)
	e.check(name, err, last(strings.Split(strings.TrimSpace(out), "\n"), 1))
	return nil
}

// deviceTests runs the binary of the device tests.
func (e *env) deviceTests() error {
	const name = "device tests"
	if _, err := os.Stat(e.tests); e.tests == "" || err != nil {
		e.add(row{Name: name, Verdict: skipped, Note: "the bundle has no binary of them"})
		return nil
	}
	if e.small {
		// `go test` runs them on the pretend accelerator; here, the program need only start.
		c := exec.Command(e.tests, "-test.list", ".")
		c.Env = append(os.Environ(), "CYCLECAP_TEST_DEVICE=cpu")
		out, err := c.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		e.check(name+": the program starts", err, fmt.Sprintf("it has %d tests", strings.Count(string(out), "Test")))
		return nil
	}
	ctx, stop := context.WithTimeout(context.Background(), e.left()*2/3)
	defer stop()
	c := exec.CommandContext(ctx, e.tests, "-test.v")
	c.Dir = filepath.Dir(e.tests)
	c.Env = append(os.Environ(), "CYCLECAP_TEST_DEVICE="+e.device)
	c.Cancel = func() error { return c.Process.Kill() }
	out, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	c.Stderr = c.Stdout
	if err := c.Start(); err != nil {
		return err
	}
	passedTests, failedTests, skippedTests, text := 0, 0, 0, []string(nil)
	for r := range testResults(out, &text) {
		switch r.Verdict {
		case passed:
			passedTests++
		case failed:
			failedTests++
		case skipped:
			skippedTests++
		}
		e.add(r)
	}
	if err := c.Wait(); err != nil && failedTests == 0 {
		if ctx.Err() != nil {
			err = errors.New("the section's time was used up")
		}
		return fmt.Errorf("after %d tests: %w: %s", passedTests, err, last(text, 8))
	}
	if passedTests+failedTests+skippedTests == 0 {
		return errors.New("the binary ran no tests")
	}
	return nil
}

// testResults returns a row for each test in the output of `go test -v`, as they end, and
// puts the last lines into text. The note of a failed test is what its failed subtests
// printed, or else it.
func testResults(out io.Reader, text *[]string) iter.Seq[row] {
	return func(yield func(row) bool) {
		printed := map[string][]string{} // by test or subtest
		current := ""
		var broken *row // a failed test; the verdicts of its subtests follow its own
		var own []string
		flush := func() bool {
			if broken == nil {
				return true
			}
			r := *broken
			if broken = nil; r.Note == "" {
				r.Note = last(own, 8)
			}
			return yield(r)
		}
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			line := strings.TrimSpace(lines.Text())
			if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "===" {
				current = fields[2]
				continue
			}
			verdict, rest, ok := strings.Cut(line, ": ")
			if !ok || !strings.HasPrefix(verdict, "--- ") {
				printed[current] = append(printed[current], line)
				*text = append((*text)[max(0, len(*text)-20):], line)
				continue
			}
			name, _, _ := strings.Cut(rest, " ")
			if strings.Contains(name, "/") {
				if verdict == "--- FAIL" && broken != nil {
					if broken.Note != "" {
						broken.Note += "; "
					}
					broken.Note += name + ": " + last(printed[name], 3)
				}
				continue
			}
			if !flush() {
				return
			}
			r := row{Name: "test " + rest}
			switch verdict {
			case "--- PASS":
				r.Verdict = passed
			case "--- SKIP":
				r.Verdict, r.Note = skipped, last(printed[name], 2)
			default:
				r.Verdict = failed
				broken, own = &r, printed[name]
				continue
			}
			if !yield(r) {
				return
			}
		}
		flush()
	}
}

// last joins the last n lines.
func last(lines []string, n int) string { return strings.Join(lines[max(0, len(lines)-n):], "; ") }
