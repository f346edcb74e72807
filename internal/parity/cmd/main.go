// Command cmd is `make parity`: it has the Python references made at the real
// sizes with a fresh seed, runs ours on the same weights and inputs, prints
// the table, and fails where a difference is larger than its bound.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"cyclecap/internal/parity"
	"cyclecap/torch"

	"github.com/jedib0t/go-pretty/v6/table"
)

func main() {
	torch.TuneAllocator() // like the command line
	dir := flag.String("dir", "work/parity", "folder for the references; 3 GB")
	seed := flag.Int64("seed", time.Now().Unix()%1_000_000, "seed of weights and inputs")
	size := flag.String("size", "real", "small or real")
	reuse := flag.Bool("reuse", false, "compare with the references that are in the folder")
	zoo := flag.String("zoo", "", "size of the models of zoo.py, small or real (default: that of -size)")
	model := flag.String("model", "", "compare only this model of zoo.py")
	markdown := flag.Bool("markdown", false, "print the table as markdown")
	flag.Parse()
	if *zoo == "" {
		*zoo = *size
	}
	if err := run(*dir, *seed, *size, *zoo, *model, *reuse, *markdown); err != nil {
		fmt.Fprintln(os.Stderr, "parity:", err)
		os.Exit(1)
	}
}

func run(dir string, seed int64, size, zoo, model string, reuse, markdown bool) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	const python, photos = ".venv/bin/python", "testdata/photos"
	begin := time.Now()
	r := &parity.Result{Seed: seed}
	made := begin
	if model == "" {
		var err error
		if r, made, err = own(ctx, python, photos, dir, seed, size, reuse); err != nil {
			return err
		}
	}
	models, err := parity.Zoo(ctx, python, dir, zoo, model, photos, seed)
	if err != nil {
		return err
	}
	r.Rows = append(r.Rows, models...)

	t := table.NewWriter()
	t.SetOutputMirror(os.Stdout)
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"what", "compared with", "elements", "not bit-equal", "max |difference|", "bound", "why not 0"})
	equal := 0
	var failed []string
	for _, row := range r.Rows {
		if row.Equal() {
			equal++
		}
		if !row.OK(true) {
			failed = append(failed, fmt.Sprintf("%s (%s): %d of %d elements, %s", row.What, row.Reference, row.Differing, row.Elements, row.Note()))
		}
		t.AppendRow(table.Row{row.What, row.Reference, row.Elements, row.Differing, row.MaxText(), row.Tolerance, row.Note()})
	}
	if markdown {
		t.RenderMarkdown()
	} else {
		t.Render()
	}
	fmt.Printf("\n%d of %d comparisons are bit-equal; seed %d; references %v, ours %v\n", equal, len(r.Rows), r.Seed,
		made.Sub(begin).Round(time.Second), time.Since(made).Round(time.Second))
	if failed != nil { // again, since the table is long
		return fmt.Errorf("%d comparisons are out of bounds:\n  %s", len(failed), strings.Join(failed, "\n  "))
	}
	return nil
}

// own compares with what make.py and the other scripts of testdata/reference compute.
func own(ctx context.Context, python, photos, dir string, seed int64, size string, reuse bool) (r *parity.Result, made time.Time, err error) {
	const operators = "torch/testdata/make_operators.py"
	calls := filepath.Join(dir, "operators.json.gz")
	var recording sync.WaitGroup // beside the rest, since it keeps only one core busy
	var recordingErr error
	if !reuse {
		fmt.Fprintf(os.Stderr, "parity: Python makes the references, seed %d\n", seed)
		if err := os.RemoveAll(dir); err != nil {
			return nil, made, err
		}
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return nil, made, err
		}
		ctx, stop := context.WithCancel(ctx)
		defer recording.Wait()
		defer stop()
		recording.Go(func() { recordingErr = parity.RecordOperators(ctx, python, operators, calls, seed) })
		args := []string{"testdata/reference/make.py", "--size", size, "--seed", fmt.Sprint(seed), "--out", dir}
		if size == "real" {
			args = append(args, "--photos", photos)
		}
		c := exec.CommandContext(ctx, python, args...)
		c.Env = append(os.Environ(), "PYTHONWARNINGS=ignore", "HF_HUB_DISABLE_PROGRESS_BARS=1", "TQDM_DISABLE=1")
		if out, err := c.CombinedOutput(); err != nil {
			return nil, made, fmt.Errorf("%s: %w\n%s", args[0], err, out)
		}
	}
	made = time.Now()
	fmt.Fprintln(os.Stderr, "parity: ours")
	r, err = parity.Run(dir, photos)
	if err != nil {
		return nil, made, err
	}
	written, err := parity.Written(ctx, python, "testdata/reference/check_written.py", "bin/cyclecap", dir)
	if err != nil {
		return nil, made, err
	}
	together, err := parity.Together(ctx, python, "testdata/reference/distributed.py")
	if err != nil {
		return nil, made, err
	}
	if recording.Wait(); recordingErr != nil {
		return nil, made, recordingErr
	}
	ops, err := parity.Operators(calls)
	if err != nil {
		return nil, made, err
	}
	r.Rows = append(append(r.Rows, written, together), ops...)
	return r, made, nil
}
