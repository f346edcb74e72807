package train

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"cyclecap/internal/atomicfile"
	"cyclecap/torch"
	"cyclecap/torch/distributed"
)

// A Loop trains a task for a number of steps and writes checkpoints to a folder.
type Loop struct {
	Dir   string // folder of the checkpoints, metrics.jsonl and event files
	Kind  string // kind of task: "decoder"
	Steps int    // total number of steps
	Every int    // number of steps between checkpoints (and validations)
	// Config identifies the settings that the weights depend on. A checkpoint with
	// another value is an error.
	Config string
	// Resume continues from the last checkpoint, if there is one. Without Resume, a
	// checkpoint in Dir is an error, because it would be overwritten.
	Resume bool
	// Begin is called with the number of steps done before, Progress for each step when
	// its losses are known, and End at the end of Run if Begin was called. Each may be
	// nil. On the CPU the losses of a step are known when it ends. On other devices, after
	// the first readEvery steps, they are read every readEvery steps and before each
	// checkpoint, since reading them waits for the device.
	Begin    func(done int)
	Progress func(done int, l Losses)
	End      func()
	// Say is called with a line for the user. It may be nil.
	Say func(format string, args ...any)
	// Group is the processes that train together, or nil for a single process. Only
	// rank 0 writes files; all processes read the checkpoint.
	Group *distributed.Group
}

// Names of the files in a Loop's folder.
const (
	LastCheckpoint     = "last.safetensors"
	PreviousCheckpoint = "previous.safetensors" // the one before the last
	BestCheckpoint     = "best.safetensors"     // with the lowest validation loss
	MetricsFile        = "metrics.jsonl"
)

// readEvery is the number of steps that are queued on a device before their losses are
// read. The first steps of a run are read one by one, so that losses, and mistakes in the
// settings, show at once.
const readEvery = 20

// Run trains until all steps are done, ctx is cancelled or a loss is not finite. If ctx is
// cancelled, Run writes a checkpoint and returns ctx's error.
func (l *Loop) Run(ctx context.Context, t Task) error {
	if err := os.MkdirAll(l.Dir, 0o777); err != nil {
		return err
	}
	last, previous := filepath.Join(l.Dir, LastCheckpoint), filepath.Join(l.Dir, PreviousCheckpoint)
	info, err := l.load(t.Parts(), last, previous)
	if err != nil {
		return err
	}
	at, best := info.Step, info.Best
	if at > l.Steps {
		return fmt.Errorf("%s: checkpoint is at step %d, beyond the requested %d steps", l.Dir, at, l.Steps)
	}
	writer := l.Group.Rank() == 0
	var log *metrics
	if writer {
		// Partial files of a process that was killed.
		err := atomicfile.RemoveStale(l.Dir)
		if err != nil {
			return err
		}
		if log, err = openMetrics(l.Dir, at); err != nil {
			return err
		}
		defer log.close()
	}
	if l.Begin != nil {
		l.Begin(at)
	}
	if l.End != nil {
		defer l.End()
	}
	start, saved := at, at
	// Steps whose losses are not known yet, and when the first of them began.
	var queued []Pending
	var begin time.Time
	stopping := false // a process of the group wants to stop
	// settle reads the losses of the queued steps. It must be called before a checkpoint
	// is written: a checkpoint contains only finite numbers, and the log must reach it.
	settle := func() error {
		if len(queued) == 0 {
			return nil
		}
		var all []Losses
		err := torch.Scope(func() error {
			var stop bool
			all, stop = read(queued)
			stopping = stopping || stop
			return nil
		})
		first := at - len(queued)
		for _, p := range queued {
			p.values.Close()
		}
		queued = queued[:0]
		if err != nil {
			return fmt.Errorf("%s, step %d: %w", l.Kind, at, err)
		}
		took := time.Since(begin) / time.Duration(len(all))
		for i, losses := range all {
			for _, x := range losses {
				if math.IsNaN(x.Value) || math.IsInf(x.Value, 0) {
					return l.broken(first+i, saved, x, t, last)
				}
			}
			if log != nil {
				log.add(first+i+1, took, losses)
			}
			if l.Progress != nil {
				l.Progress(first+i+1, losses)
			}
		}
		return nil
	}
	save := func() error {
		if err := settle(); err != nil {
			return err
		}
		if saved == at && at > 0 {
			return nil
		}
		if !writer {
			saved = at
			return nil
		}
		info := checkpoint{Kind: l.Kind, Config: l.Config, Step: at, Best: best}
		if err := l.finite(t, at, saved, last); err != nil {
			return err
		}
		better := false
		// Not after an interruption, so that the log does not depend on it.
		if v, ok := t.(Validator); ok && (at%l.Every == 0 || at == l.Steps) {
			loss, err := validate(v)
			if err != nil {
				return err
			}
			if better = loss < best; better {
				best, info.Best = loss, loss
			}
			log.add(at, 0, Losses{{"validation", loss}})
		}
		// The log must be on disk before the checkpoint that continues from it.
		if err := log.flush(); err != nil {
			return err
		}
		// An interruption must not cancel the checkpoint that it triggers.
		ctx := context.WithoutCancel(ctx)
		// The best one first: a training that continues from the last one finds it again.
		if better {
			if err := saveCheckpoint(ctx, filepath.Join(l.Dir, BestCheckpoint), info, t.Parts()); err != nil {
				return err
			}
		}
		if err := keep(last, previous); err != nil {
			return err
		}
		if err := saveCheckpoint(ctx, last, info, t.Parts()); err != nil {
			return err
		}
		saved = at
		return nil
	}
	for at < l.Steps {
		if err := l.stopped(ctx, stopping); err != nil {
			if failed := save(); failed != nil {
				return fmt.Errorf("interrupted at step %d, and cannot write a checkpoint: %w", at, failed)
			}
			return err
		}
		if len(queued) == 0 {
			begin = time.Now()
		}
		err := torch.Scope(func() error {
			p, err := t.Queue(at)
			if err == nil {
				p.values.Keep()
				queued = append(queued, p)
			}
			return err
		})
		if err != nil {
			if broken := settle(); broken != nil {
				return broken // the earlier error
			}
			return fmt.Errorf("%s, step %d: %w", l.Kind, at+1, err)
		}
		at++
		if at-start <= readEvery || len(queued) == readEvery || queued[0].values.Device() == torch.CPU {
			if err := settle(); err != nil {
				return err
			}
		}
		if at%l.Every == 0 || at == l.Steps {
			if err := save(); err != nil {
				return err
			}
		}
	}
	return nil
}

// load restores parts from the last checkpoint, or from the one before if that is damaged
// or missing. It returns step 0 if there is none.
func (l *Loop) load(p Parts, last, previous string) (checkpoint, error) {
	var damaged []error
	for _, path := range []string{last, previous} {
		_, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if !l.Resume {
			return checkpoint{}, fmt.Errorf("%s: contains a checkpoint of an unfinished training; use --resume to continue it, or remove the folder to start over", l.Dir)
		}
		if err != nil {
			return checkpoint{}, err
		}
		c, err := loadCheckpoint(path, l.Kind, l.Config, p)
		if bad := (*unreadable)(nil); errors.As(err, &bad) {
			damaged = append(damaged, err)
			continue
		}
		if err == nil && len(damaged) > 0 && l.Say != nil {
			l.Say("%v; continuing from the checkpoint before it, at step %d", damaged[0], c.Step)
		}
		return c, err
	}
	if len(damaged) > 0 {
		return checkpoint{}, fmt.Errorf("no checkpoint can be read: %w; remove %s to start over", errors.Join(damaged...), l.Dir)
	}
	return checkpoint{Best: math.Inf(1)}, nil
}

// keep makes previous the checkpoint that last is now.
func keep(last, previous string) error {
	if err := os.Remove(previous); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err := os.Link(last, previous)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		err = os.Rename(last, previous) // a file system without links
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// finite returns an error if weights or the state of an optimizer are not finite, before
// they take the place of a good checkpoint.
func (l *Loop) finite(t Task, at, saved int, last string) error {
	name, err := notFinite(t.Parts())
	if err != nil || name == "" {
		return err
	}
	return fmt.Errorf("%s: after step %d, %s is not finite (batch: %s); %s; try a lower learning rate or dtype f32",
		l.Kind, at, name, t.Batch(at-1), good(saved, last))
}

// good says which checkpoint is the last good one.
func good(saved int, last string) string {
	if saved == 0 {
		return "no checkpoint was written yet"
	}
	return fmt.Sprintf("the last good checkpoint is from step %d: %s", saved, last)
}

// stopped returns an error if training must stop now. The processes of a group stop together: one that was
// interrupted tells the others with the gradients of the next step, after which all know.
func (l *Loop) stopped(ctx context.Context, stopping bool) error {
	err := ctx.Err()
	if l.Group.Size() == 1 {
		return err
	}
	l.Group.WantStop(err != nil)
	switch {
	case !stopping:
		return nil
	case err == nil:
		return distributed.ErrInterrupted
	}
	return err
}

func (l *Loop) broken(at, saved int, x Loss, t Task, last string) error {
	name := x.Name
	if name != "loss" {
		name += " loss"
	}
	return fmt.Errorf("%s: at step %d, the %s is %v (batch: %s); %s; try a lower learning rate or dtype f32",
		l.Kind, at+1, name, x.Value, t.Batch(at), good(saved, last))
}

func validate(v Validator) (loss float64, err error) {
	err = torch.Scope(func() (err error) {
		torch.NoGrad(func() { loss, err = v.Validate() })
		return err
	})
	return loss, err
}
