// Command torture disturbs experiments at random and checks that they come to the same
// results as undisturbed ones, bit for bit:
//
//	go run ./internal/torture [-minutes 30] [-seed N] [-rounds N]
//
// A round is an experiment on a tiny world, run by bin/cyclecap in one to three processes.
// It is disturbed a few times: killed, interrupted, stopped for a while, run into a full
// disk, or left with damaged files. Each time it must end soon, and a later run, which is
// not disturbed, must finish it. Everything follows from the seed of the round but the
// exact moments, and the command says which seed failed and keeps the folder. Ctrl-C ends it
// with the counts so far and exit code 130.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"cyclecap/internal/experimenttest"
)

// settings make the trainings of the small experiment a little longer.
var settings = []string{"threads=1", "world.pretrain=320", "train.clip.epochs=2", "train.clip.checkpoint_every=3", "train.gpt2.epochs=3",
	"train.gpt2.checkpoint_every=5", "train.decoder.epochs=5", "train.decoder.checkpoint_every=3", "train.cyclegan.epochs=20",
	"train.cyclegan.checkpoint_every=7", "bridges.use=[direct,cyclegan,capdec,clipcap]"}

const (
	// limit is far more than a run takes: one that has not ended by then hangs.
	limit = 3 * time.Minute
	// space is the size of a disk that can be filled, in bytes.
	space = 256 << 20
)

func main() {
	minutes := flag.Float64("minutes", 30, "begin rounds for `N` minutes")
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()), "the seed of the first round is `N`, that of the next one N+1, …")
	rounds := flag.Int("rounds", 0, "end after `N` rounds (default: only after the minutes)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch err := run(ctx, time.Duration(*minutes*float64(time.Minute)), *seed, *rounds); {
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "torture: interrupted")
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "torture:", err)
		os.Exit(1)
	}
}

// run runs rounds. If ctx is cancelled, it returns a context.Canceled.
func run(ctx context.Context, duration time.Duration, seed uint64, rounds int) error {
	t := &torture{ctx: ctx, counts: map[string]int{}, want: map[int]map[string]string{}}
	var err error
	if t.program, err = filepath.Abs("bin/cyclecap"); err != nil {
		return err
	}
	if t.dir, err = os.MkdirTemp("", "torture"); err != nil {
		return err
	}
	defer t.report()
	for begin, k := time.Now(), 0; time.Since(begin) < duration && (rounds == 0 || k < rounds); k++ {
		err := t.round(seed + uint64(k))
		if ctx.Err() != nil {
			// Whatever the round says: Ctrl-C has interrupted its processes as well.
			if err := os.RemoveAll(t.dir); err != nil {
				fmt.Fprintln(os.Stderr, "torture:", err)
			}
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("seed %d: %w\nthe folder is kept: %s; again: go run ./internal/torture -rounds 1 -seed %d", seed+uint64(k), err, t.dir, seed+uint64(k))
		}
	}
	return os.RemoveAll(t.dir)
}

type torture struct {
	ctx          context.Context
	program, dir string
	counts       map[string]int            // of disturbances and rounds
	want         map[int]map[string]string // number of processes -> the results
	noDisk       error                     // why no disk can be filled
}

func (t *torture) report() {
	var list []string
	for _, what := range slices.Sorted(maps.Keys(t.counts)) {
		list = append(list, fmt.Sprintf("%s %d", what, t.counts[what]))
	}
	fmt.Println("torture:", strings.Join(list, ", "))
	if t.noDisk != nil {
		fmt.Println("torture: full disks are left out:", t.noDisk)
	}
}

// round disturbs one experiment.
func (t *torture) round(seed uint64) (err error) {
	rng := rand.New(rand.NewPCG(seed, 0))
	ranks := []int{1, 1, 2, 3}[rng.IntN(4)]
	want, err := t.undisturbed(ranks)
	if err != nil {
		return err
	}
	folder := filepath.Join(t.dir, "round")
	if err := os.Mkdir(folder, 0o777); err != nil {
		return err
	}
	// A disk of its own, which a disturbance may fill.
	disk := syscall.Mount("tmpfs", folder, "tmpfs", 0, fmt.Sprint("size=", space))
	if disk == nil {
		defer func() {
			if err == nil || t.ctx.Err() != nil {
				err = syscall.Unmount(folder, 0)
			}
			if err == nil {
				err = os.Remove(folder)
			}
		}()
	} else {
		t.noDisk = disk
	}
	var told []string
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%d processes: %s: %w", ranks, strings.Join(told, ", "), fmt.Errorf(format, args...))
	}
	for range 1 + rng.IntN(5) {
		d := disturbances[rng.IntN(len(disturbances))]
		if d.fills && disk != nil {
			continue
		}
		told = append(told, d.name)
		t.counts[d.name]++
		ps, err := t.start(folder, ranks)
		if err != nil {
			return fail("%w", err)
		}
		if d.while != nil {
			// In the middle of the run more often than right after its start.
			select {
			case <-t.ctx.Done():
			case <-time.After(time.Duration(rng.Float64() * float64(8*time.Second))):
			}
			if err := d.while(ps, folder, rng); err != nil {
				return fail("%w", err)
			}
		}
		if err := ps.wait(t.ctx); err != nil {
			return fail("%w", err)
		}
		if d.after != nil {
			if err := d.after(folder, rng); err != nil {
				return fail("%w", err)
			}
		}
	}
	for try := 0; ; try++ {
		ps, err := t.start(folder, ranks)
		if err != nil {
			return fail("%w", err)
		}
		if err := ps.wait(t.ctx); err != nil {
			return fail("%w", err)
		}
		text, ok := ps.succeeded()
		if ok {
			break
		}
		// The error of a training that has lost all its checkpoints names its folder.
		lost, found := between(text, "remove ", " to start over")
		if !found || try == 3 {
			return fail("undisturbed, it failed:\n%s", text)
		}
		t.counts["lost checkpoints"]++
		if err := os.RemoveAll(filepath.Join(folder, lost)); err != nil {
			return fail("%w", err)
		}
	}
	have, err := results(filepath.Join(folder, "run"))
	if err != nil {
		return fail("%w", err)
	}
	for path, hash := range want {
		if have[path] != hash {
			return fail("%s is not what it is without disturbances", path)
		}
	}
	t.counts["rounds"]++
	fmt.Printf("torture: seed %d: %d processes: %s: the same results\n", seed, ranks, strings.Join(told, ", "))
	if disk != nil {
		return os.RemoveAll(folder)
	}
	return nil
}

// between returns what is between two texts.
func between(s, before, after string) (string, bool) {
	_, s, ok := strings.Cut(s, before)
	if !ok {
		return "", false
	}
	s, _, ok = strings.Cut(s, after)
	return s, ok
}

// undisturbed returns the results of the experiment with so many processes.
func (t *torture) undisturbed(ranks int) (map[string]string, error) {
	if w := t.want[ranks]; w != nil {
		return w, nil
	}
	folder := filepath.Join(t.dir, fmt.Sprintf("undisturbed-%d", ranks))
	if err := os.Mkdir(folder, 0o777); err != nil {
		return nil, err
	}
	ps, err := t.start(folder, ranks)
	if err != nil {
		return nil, err
	}
	if err := ps.wait(t.ctx); err != nil {
		return nil, err
	}
	if text, ok := ps.succeeded(); !ok {
		return nil, fmt.Errorf("undisturbed with %d processes:\n%s", ranks, text)
	}
	w, err := results(filepath.Join(folder, "run"))
	t.want[ranks] = w
	return w, err
}

// results returns the hashes of the files that must not depend on disturbances.
func results(dir string) (map[string]string, error) {
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		name := e.Name()
		switch {
		case err != nil:
			return err
		case e.IsDir():
			if strings.Contains(name, ".previous") {
				return fs.SkipDir
			}
			return nil
		case name == "last.safetensors" || name == "previous.safetensors" || name == "best.safetensors":
			return nil
		case name != "results.json" && !slices.Contains([]string{".pt", ".safetensors", ".jpg"}, filepath.Ext(name)):
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		out[rel] = fmt.Sprintf("%x", sha256.Sum256(b))
		return err
	})
	return out, err
}

// processes are the processes of one run.
type processes struct {
	commands []*exec.Cmd
	said     []*bytes.Buffer
	done     []chan error
}

// start starts a run in folder, which continues what is there.
func (t *torture) start(folder string, ranks int) (*processes, error) {
	if err := os.WriteFile(filepath.Join(folder, "x.toml"), []byte(experimenttest.Small), 0o666); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	args := []string{"run", "x.toml", "--output", "run", "--resume", "--verify-outputs"}
	if ranks > 1 {
		// One that ends before the others join is missing to them until then.
		args = append(args, "--rendezvous-timeout", "30s")
	}
	for _, s := range settings {
		args = append(args, "--set", s)
	}
	ps := &processes{}
	for rank := range ranks {
		c := exec.Command(t.program, args...)
		said := &bytes.Buffer{}
		c.Dir, c.Stdout, c.Stderr = folder, said, said
		if ranks > 1 {
			c.Env = append(os.Environ(), fmt.Sprint("WORLD_SIZE=", ranks), "MASTER_ADDR=127.0.0.1", fmt.Sprint("MASTER_PORT=", port),
				fmt.Sprint("RANK=", rank), fmt.Sprint("LOCAL_RANK=", rank))
		}
		if err := c.Start(); err != nil {
			ps.kill()
			return nil, err
		}
		done := make(chan error, 1)
		go func() { done <- c.Wait() }()
		ps.commands, ps.said, ps.done = append(ps.commands, c), append(ps.said, said), append(ps.done, done)
	}
	return ps, nil
}

func (ps *processes) kill() {
	for _, c := range ps.commands {
		c.Process.Kill()
	}
}

// wait waits until all processes have ended. If ctx is cancelled, it kills them and returns
// ctx's error.
func (ps *processes) wait(ctx context.Context) error {
	defer context.AfterFunc(ctx, ps.kill)()
	late := time.AfterFunc(limit, ps.kill)
	for _, done := range ps.done {
		<-done
	}
	hung := !late.Stop()
	if err := ctx.Err(); err != nil {
		return err
	}
	if hung {
		return fmt.Errorf("it hung: not all processes ended within %v:\n%s", limit, ps.text())
	}
	for rank, said := range ps.said {
		if bytes.Contains(said.Bytes(), []byte("goroutine ")) || bytes.Contains(said.Bytes(), []byte("SIGSEGV")) {
			return fmt.Errorf("process %d crashed:\n%s", rank, said)
		}
	}
	return nil
}

func (ps *processes) text() string {
	var b strings.Builder
	for rank, said := range ps.said {
		fmt.Fprintf(&b, "process %d of %d:\n%s", rank, len(ps.said), said)
	}
	return b.String()
}

// succeeded reports whether all processes ended well, and returns what they said.
func (ps *processes) succeeded() (string, bool) {
	return ps.text(), !slices.ContainsFunc(ps.commands, func(c *exec.Cmd) bool { return c.ProcessState.ExitCode() != 0 })
}

// some returns one of the processes.
func (ps *processes) some(rng *rand.Rand) *os.Process {
	return ps.commands[rng.IntN(len(ps.commands))].Process
}

// disturbance is one kind of disturbance.
type disturbance struct {
	name  string
	fills bool // needs a disk that can be filled
	// while disturbs a run; after changes what it has left, once it has ended.
	while func(ps *processes, folder string, rng *rand.Rand) error
	after func(folder string, rng *rand.Rand) error
}

var disturbances = []disturbance{
	{name: "all killed", while: func(ps *processes, _ string, _ *rand.Rand) error {
		ps.kill()
		return nil
	}},
	{name: "one killed", while: signalled(syscall.SIGKILL)},
	{name: "interrupted", while: signalled(syscall.SIGINT)},
	{name: "terminated", while: signalled(syscall.SIGTERM)},
	{name: "stopped", while: func(ps *processes, _ string, rng *rand.Rand) error {
		p := ps.some(rng)
		p.Signal(syscall.SIGSTOP)
		time.Sleep(time.Duration(rng.Float64() * float64(3*time.Second)))
		p.Signal(syscall.SIGCONT)
		return nil
	}},
	{name: "disk full", fills: true, while: func(ps *processes, folder string, rng *rand.Rand) error {
		path := filepath.Join(folder, "filler")
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		defer f.Close()
		block := make([]byte, 1<<16)
		for begin := time.Now(); time.Since(begin) < 5*time.Second; {
			if _, err := f.Write(block); err != nil {
				time.Sleep(20 * time.Millisecond) // again, since files are removed as well
			}
		}
		return os.Remove(path)
	}},
	{name: "bit flipped", after: damaged(func(path string, b []byte, rng *rand.Rand) error {
		b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
		return os.WriteFile(path, b, 0o666)
	})},
	{name: "file cut", after: damaged(func(path string, b []byte, rng *rand.Rand) error {
		return os.WriteFile(path, b[:rng.IntN(len(b))], 0o666)
	})},
	{name: "file zeroed", after: damaged(func(path string, b []byte, rng *rand.Rand) error {
		at := rng.IntN(len(b))
		clear(b[at:min(len(b), at+4096)])
		return os.WriteFile(path, b, 0o666)
	})},
	{name: "file removed", after: damaged(func(path string, _ []byte, _ *rand.Rand) error { return os.Remove(path) })},
}

func signalled(s syscall.Signal) func(*processes, string, *rand.Rand) error {
	return func(ps *processes, _ string, rng *rand.Rand) error {
		ps.some(rng).Signal(s) // which may have ended
		return nil
	}
}

// damaged applies f to one to three files of a run.
func damaged(f func(path string, b []byte, rng *rand.Rand) error) func(string, *rand.Rand) error {
	return func(folder string, rng *rand.Rand) error {
		var files []string
		err := filepath.WalkDir(filepath.Join(folder, "run"), func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() {
				files = append(files, path)
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		slices.Sort(files)
		for range 1 + rng.IntN(3) {
			if len(files) == 0 {
				return nil
			}
			path := files[rng.IntN(len(files))]
			b, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) || err == nil && len(b) == 0 {
				continue
			}
			if err == nil {
				err = f(path, b, rng)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
}
