package parity

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"

	"cyclecap/internal/operators"
	"cyclecap/torch"
	"cyclecap/torch/compare"
)

// RecordOperators has a script record calls of PyTorch's operators, on one thread, with samples
// drawn from a seed. file is where the script writes.
func RecordOperators(ctx context.Context, python, script, file string, seed int64) error {
	c := exec.CommandContext(ctx, python, script, "--out", file, "--seed", strconv.FormatInt(seed, 10), "--calls", "8", "--largest", "100000")
	c.Env = append(os.Environ(), "PYTHONWARNINGS=ignore")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", script, err, out)
	}
	return nil
}

// Operators repeats the calls in a file of RecordOperators and compares results and gradients,
// in a row for each dtype, and errors.
func Operators(file string) ([]Row, error) {
	f, err := operators.Read(file)
	if err != nil {
		return nil, err
	}
	if len(f.Calls) == 0 {
		return nil, errors.New(file + " has no calls")
	}
	threads := torch.NumThreads()
	torch.SetNumThreads(1)
	defer torch.SetNumThreads(threads)
	return compareOperators(f), nil
}

func compareOperators(f *operators.File) []Row {
	type group struct {
		compare.Difference
		ops   map[string]bool
		calls int
	}
	groups := map[string]*group{}
	add := func(what, op string, d compare.Difference) {
		g := groups[what]
		if g == nil {
			g = &group{ops: map[string]bool{}}
			groups[what] = g
		}
		g.ops[op] = true
		g.calls++
		g.Add(op, d)
	}
	p := operators.NewPlayer(f)
	reasons := operators.Reasons()
	for i := range f.Calls {
		c := &f.Calls[i]
		o := p.Play(c)
		results := o.Results
		if o.Err != nil {
			results = compare.Difference{Mismatch: o.Err.Error()}
		}
		switch {
		case c.Error != "":
			add("errors", c.Op, results)
		case reasons[c.Op] != "":
		default:
			add("results in "+c.DType, c.Op, results)
			if c.Grads != nil && o.Err == nil {
				add("gradients in "+c.DType, c.Op, o.Gradient)
			}
		}
	}
	var rows []Row
	for _, what := range []string{"results in float32", "results in float64", "results in bfloat16", "results in int64", "results in complex64",
		"gradients in float32", "gradients in float64", "gradients in bfloat16", "gradients in complex64", "errors"} {
		g := groups[what]
		if g == nil {
			g = &group{Difference: compare.Difference{Mismatch: "no call was recorded"}}
		}
		rows = append(rows, Row{What: fmt.Sprintf("%d operators on samples of PyTorch's tests, %d calls: %s", len(g.ops), g.calls, what),
			Reference: "PyTorch's op_db", Difference: g.Difference})
	}
	return rows
}
