package train

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cyclecap/nets/gpt2"
	"cyclecap/torch"
	"cyclecap/torch/compare"
	"cyclecap/torch/torchtest"
)

// TestTwoGenerations damages the last checkpoint of a training in several ways. The training
// must say so, continue from the one before, and end like one without damage. If both are
// damaged, it must stop with advice.
func TestTwoGenerations(t *testing.T) {
	const steps = 9
	train := func(dir string, until int) (said []string, err error) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		l := &Loop{Dir: dir, Kind: "decoder", Steps: steps, Every: 3, Config: "c", Resume: true,
			Say: func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) },
			Progress: func(done int, _ Losses) {
				if done == until {
					cancel()
				}
			}}
		return said, l.Run(ctx, build(t, "decoder"))
	}
	whole := t.TempDir()
	if _, err := train(whole, 0); err != nil {
		t.Fatal(err)
	}
	flip := func(at func(size int) int) func(path string) error {
		return func(path string) error {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			b[at(len(b))] ^= 4
			return os.WriteFile(path, b, 0o666)
		}
	}
	for name, damage := range map[string]func(path string) error{
		"a weight":      flip(func(size int) int { return size - 9 }),
		"the state":     flip(func(size int) int { return size / 2 }),
		"the header":    flip(func(int) int { return 40 }),
		"the length":    flip(func(int) int { return 1 }),
		"cut":           func(path string) error { return os.Truncate(path, 1000) },
		"empty":         func(path string) error { return os.Truncate(path, 0) },
		"removed":       os.Remove,
		"another file":  func(path string) error { return os.WriteFile(path, []byte("hello"), 0o666) },
		"the checksum":  flip(func(int) int { return 8 + len(`{"__metadata__":{"cyclecap.checkpoint":"`) }),
		"nothing wrong": func(string) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := train(dir, 7); err == nil { // checkpoints of steps 6 and 7
				t.Fatal("not interrupted")
			}
			last := filepath.Join(dir, LastCheckpoint)
			if err := damage(last); err != nil {
				t.Fatal(err)
			}
			if !Resumable(dir, "c") || Resumable(dir, "d") {
				t.Errorf("resumable with its own settings: %v, with others: %v", Resumable(dir, "c"), Resumable(dir, "d"))
			}
			said, err := train(dir, 0)
			if err != nil {
				t.Fatal(err)
			}
			if text := strings.Join(said, "\n"); name != "nothing wrong" && name != "removed" && (!strings.Contains(text, last) || !strings.Contains(text, "at step 6")) {
				t.Errorf("it said %q", text)
			}
			if diff := torchtest.Diff(load(t, dir), load(t, whole), compare.Bits); diff != "" {
				t.Error(diff)
			}
			if x, y := losses(t, whole), losses(t, dir); x != y {
				t.Errorf("the logs differ:\n%s\n%s", x, y)
			}
		})
	}
	dir := t.TempDir()
	train(dir, 7)
	for _, name := range []string{LastCheckpoint, PreviousCheckpoint} {
		if err := os.Truncate(filepath.Join(dir, name), 100); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := train(dir, 0); err == nil || !strings.Contains(err.Error(), "remove "+dir+" to start over") {
		t.Error(err)
	}
	if Resumable(dir, "c") || Resumable(t.TempDir(), "c") {
		t.Error("a folder without an undamaged checkpoint is said to be resumable")
	}
}

// poisoned is a task that puts a number into its weights at a step, with a finite loss.
type poisoned struct {
	Task
	at    int
	value float64
}

func (p poisoned) Queue(step int) (Pending, error) {
	out, err := p.Task.Queue(step)
	if step == p.at {
		torch.NoGrad(func() {
			for _, m := range p.Parts().Modules {
				// The embedding of the last position, which no text here reaches.
				m.(*gpt2.Model).Wpe.Weight.Select(0, 31).Fill_(p.value)
			}
		})
	}
	return out, err
}

// TestNonFiniteWeights checks that weights which are not finite never take the place of a good
// checkpoint, whatever the loss.
func TestNonFiniteWeights(t *testing.T) {
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		dir := t.TempDir()
		l := &Loop{Dir: dir, Kind: "gpt2", Steps: 9, Every: 3, Config: "c"}
		err := l.Run(context.Background(), poisoned{build(t, "gpt2"), 4, v})
		for _, want := range []string{"after step 6", "wpe.weight", "is not finite", "(batch: windows ", "last good checkpoint is from step 3: " + filepath.Join(dir, LastCheckpoint)} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%g: %q is not in %v", v, want, err)
			}
		}
		l.Resume = true
		if err := l.Run(context.Background(), build(t, "gpt2")); err != nil {
			t.Errorf("%g: the checkpoint does not continue: %v", v, err)
		}
	}
	// Numbers whose sum overflows are finite.
	err := torch.Scope(func() error {
		p := Parts{Tensors: map[string]torch.Tensor{"large": torch.Full([]int64{100}, math.MaxFloat32)}}
		name, err := notFinite(p)
		if name != "" {
			t.Errorf("%s is said not to be finite", name)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
