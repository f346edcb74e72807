package experiment

import (
	"context"
	"errors"
	"time"

	"cyclecap/torch"
	"cyclecap/torch/distributed"
	"cyclecap/train"
)

// A watch tells all processes of a group of a signal to one of them while rank 0 works alone
// and the others wait for it: every beat they exchange whether rank 0 is done, and whether
// one of them was interrupted. A training that they run together has no use for it, because
// train.Loop does the same at each step. A nil *watch is that of a single process.
type watch struct {
	group *distributed.Group
	// cancel ends the work of rank 0.
	cancel context.CancelCauseFunc
	// on is true between begin and end. All processes call these at the same places.
	on bool
	// Rank 0 exchanges messages in the background until stop is closed, and sends the error
	// that ended them, or nil.
	stop   chan struct{}
	result chan error
}

// beat is the time between two messages. It is much shorter than the second that an
// interrupted process has to end by itself.
const beat = 200 * time.Millisecond

// watched returns a watch over a group, and the context for rank 0's work.
func watched(ctx context.Context, g *distributed.Group) (context.Context, *watch) {
	if g.Size() == 1 {
		return ctx, nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, &watch{group: g, cancel: cancel}
}

// begin is called where rank 0 begins to work alone. Until end, the group must not be used.
func (w *watch) begin(ctx context.Context) {
	if w == nil {
		return
	}
	w.on = true
	if w.group.Rank() != 0 {
		return
	}
	w.stop, w.result = make(chan struct{}), make(chan error, 1)
	go func(stop <-chan struct{}, result chan<- error) { result <- w.beats(ctx, stop) }(w.stop, w.result)
}

// beats exchanges messages until stop is closed or a process was interrupted.
func (w *watch) beats(ctx context.Context, stop <-chan struct{}) error {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return nil
		case <-ctx.Done():
		case <-tick.C:
		}
		_, err := w.exchange(false, ctx.Err() != nil)
		if errors.Is(err, train.ErrInterrupted) {
			w.cancel(err)
		}
		if err != nil {
			return err // that of a process that has left does not end the stage
		}
	}
}

// end is called where the processes use the group again. The others wait in it until rank 0
// calls it, too. It returns train.ErrInterrupted in all of them if one was interrupted.
func (w *watch) end(ctx context.Context) error {
	if w == nil {
		return nil
	}
	w.on = false
	if w.group.Rank() == 0 {
		if err := w.quiet(); err != nil {
			return err
		}
		_, err := w.exchange(true, ctx.Err() != nil)
		return err
	}
	for {
		if done, err := w.exchange(false, ctx.Err() != nil); done || err != nil {
			return err
		}
	}
}

// quiet ends rank 0's messages, and returns the error that ended them before, if any.
func (w *watch) quiet() error {
	close(w.stop)
	return <-w.result
}

// exchange tells the other processes whether this one is done and was interrupted. It
// returns train.ErrInterrupted if one of them was, and whether rank 0 is done.
func (w *watch) exchange(done, interrupted bool) (rank0Done bool, err error) {
	err = torch.Scope(func() error {
		t := torch.FromSlice([]float32{number(done), number(interrupted)})
		if err := w.group.AllReduce(t, distributed.Sum); err != nil {
			return err
		}
		v := torch.ToSlice[float32](t)
		rank0Done = v[0] != 0
		if v[1] != 0 {
			return train.ErrInterrupted
		}
		return nil
	})
	return rank0Done, err
}

// leave is called where the run ends with err. It returns the error to end with.
func (w *watch) leave(ctx context.Context, err error) error {
	if w == nil || !w.on {
		return err
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		// The others notice that this process leaves the group.
		w.on = false
		if w.group.Rank() == 0 {
			w.quiet()
		}
		return err
	}
	if e := w.end(ctx); err == nil || errors.Is(e, train.ErrInterrupted) {
		return e
	}
	return err
}
