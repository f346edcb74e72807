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
	Dir   string // folder of last.safetensors, best.safetensors, metrics.jsonl and event files
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
	// Group is the processes that train together, or nil for a single process. Only
	// rank 0 writes files; all processes read the checkpoint.
	Group *distributed.Group
}

// Names of the files in a Loop's folder.
const (
	LastCheckpoint = "last.safetensors"
	BestCheckpoint = "best.safetensors"
	MetricsFile    = "metrics.jsonl"
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
	last := filepath.Join(l.Dir, LastCheckpoint)
	at, best := 0, math.Inf(1)
	switch _, err := os.Stat(last); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case !l.Resume:
		return fmt.Errorf("%s: contains a checkpoint of an unfinished training; use --resume to continue it, or remove the folder to start over", l.Dir)
	default:
		info, err := loadCheckpoint(last, l.Kind, l.Config, t.Parts())
		if err != nil {
			return err
		}
		at, best = info.Step, info.Best
		if at > l.Steps {
			return fmt.Errorf("%s: checkpoint is at step %d, beyond the requested %d steps", last, at, l.Steps)
		}
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
	// settle reads the losses of the queued steps. It must be called before a checkpoint
	// is written: a checkpoint contains only finite numbers, and the log must reach it.
	settle := func() error {
		if len(queued) == 0 {
			return nil
		}
		var all []Losses
		err := torch.Scope(func() (err error) {
			all, err = read(queued)
			return err
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
		better := false
		if v, ok := t.(Validator); ok {
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
		if err := saveCheckpoint(ctx, last, info, t.Parts()); err != nil {
			return err
		}
		if better {
			if err := saveCheckpoint(ctx, filepath.Join(l.Dir, BestCheckpoint), info, t.Parts()); err != nil {
				return err
			}
		}
		saved = at
		return nil
	}
	for at < l.Steps {
		if err := l.stopped(ctx); err != nil {
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

// stopped returns an error if training must stop now, because any process of the group was
// interrupted.
func (l *Loop) stopped(ctx context.Context) error {
	err := ctx.Err()
	if l.Group.Size() == 1 {
		return err
	}
	var any bool
	failed := torch.Scope(func() error {
		flag := torch.Zeros([]int64{1})
		if err != nil {
			flag.Fill_(1)
		}
		if err := l.Group.AllReduce(flag, distributed.Sum); err != nil {
			return err
		}
		any = flag.Item() > 0
		return nil
	})
	switch {
	case failed != nil:
		return failed
	case any && err == nil:
		return context.Canceled // another process was interrupted
	}
	return err
}

func (l *Loop) broken(at, saved int, x Loss, t Task, last string) error {
	good := "no checkpoint was written yet"
	if saved > 0 {
		good = fmt.Sprintf("the last good checkpoint is from step %d: %s", saved, last)
	}
	name := x.Name
	if name != "loss" {
		name += " loss"
	}
	return fmt.Errorf("%s: at step %d, the %s is %v (batch: %s); %s; try a lower learning rate or dtype f32",
		l.Kind, at+1, name, x.Value, t.Batch(at), good)
}

func validate(v Validator) (loss float64, err error) {
	err = torch.Scope(func() (err error) {
		torch.NoGrad(func() { loss, err = v.Validate() })
		return err
	})
	return loss, err
}
