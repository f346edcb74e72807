package experiment

import (
	"context"
	"errors"

	"cyclecap/torch"
	"cyclecap/torch/distributed"
)

// A watch keeps the processes of a group together where rank 0 works alone and the others
// wait for it: all of them learn whether one was interrupted before they go on. A training
// that they run together has no use for it, because train.Loop does the same at each step. A
// nil *watch is that of a single process.
type watch struct {
	group *distributed.Group
	// alone is true between begin and end, while rank 0 works alone. All processes call these
	// at the same places.
	alone bool
}

// newWatch returns a watch over a group.
func newWatch(g *distributed.Group) *watch {
	if g.Size() == 1 {
		return nil
	}
	return &watch{group: g}
}

// begin is called where rank 0 begins to work alone. Until end, the group must not be used.
func (w *watch) begin() {
	if w != nil {
		w.alone = true
	}
}

// end is called where the processes use the group again. The others wait in it until rank 0
// calls it, too. It returns distributed.ErrInterrupted in all of them if the context of one
// is done.
func (w *watch) end(ctx context.Context) error {
	if w == nil {
		return nil
	}
	w.alone = false
	return torch.Scope(func() error {
		flag := torch.FromSlice([]float32{number(ctx.Err() != nil)})
		if err := w.group.AllReduce(flag, distributed.Sum); err != nil {
			return err
		}
		if flag.Item() != 0 {
			return distributed.ErrInterrupted
		}
		return nil
	})
}

// leave is called where the run ends with err. It returns the error to end with.
func (w *watch) leave(ctx context.Context, err error) error {
	if w == nil || !w.alone || err != nil && !errors.Is(err, context.Canceled) {
		return err // after a failure, the others notice that this process leaves the group
	}
	if e := w.end(ctx); err == nil || errors.Is(e, distributed.ErrInterrupted) {
		return e
	}
	return err
}
