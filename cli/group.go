package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"cyclecap/torch/distributed"

	"github.com/urfave/cli/v2"
)

// rendezvousTimeout is how long processes that a launcher has started wait until all have joined.
const rendezvousTimeout = 10 * time.Minute

// groupTimeout is how long a process waits for another one, which may have much more to compute. One that
// ends is noticed at once.
const groupTimeout = 48 * time.Hour

// lostPatience is how long a process that has lost another one may go on, for example in a call that waits
// for a third process.
const lostPatience = 10 * time.Second

// join joins the processes that torchrun or a similar launcher has started together with this one. Without
// a launcher, the group is nil. ctx is done if any of the processes is interrupted or lost. leave must be
// called with the error with which the command ends, and returns the one to end with.
func join(c *cli.Context, rendezvous time.Duration, waiting func(string)) (g *distributed.Group, ctx context.Context, leave func(error) error, err error) {
	o, err := distributed.FromEnv()
	if errors.Is(err, distributed.ErrNotLaunched) {
		return nil, c.Context, func(err error) error { return err }, nil
	} else if err != nil {
		return nil, nil, nil, err
	}
	o.Timeout, o.Rendezvous, o.Waiting = groupTimeout, rendezvous, waiting
	if g, err = distributed.InitProcessGroup(c.Context, o); err != nil {
		return nil, nil, nil, err
	}
	ctx, stop := together(c.Context, g)
	ended := make(chan struct{})
	context.AfterFunc(ctx, func() {
		var lost *distributed.LostError
		if !errors.As(context.Cause(ctx), &lost) {
			return
		}
		select {
		case <-ended:
		case <-time.After(lostPatience):
			fmt.Fprintf(c.App.ErrWriter, "cyclecap: rank %d of %d: %v\n", g.Rank(), g.Size(), lost)
			os.Exit(exitFailed)
		}
	})
	return g, ctx, func(err error) error {
		close(ended)
		var lost *distributed.LostError
		if errors.As(context.Cause(ctx), &lost) && errors.Is(err, context.Canceled) {
			err = fmt.Errorf("rank %d of %d: %w", g.Rank(), g.Size(), lost)
		}
		g.Leave(err)
		stop()
		return err
	}, nil
}

// plain hides from progress that a process may write to a terminal: several bars would overwrite each other.
type plain struct{ io.Writer }

// joinCommand is join for a command that shows its progress: it sets the command's context, and only rank 0 has
// bars.
func joinCommand(c *cli.Context) (*distributed.Group, func(error) error, error) {
	g, ctx, leave, err := join(c, rendezvousTimeout, func(text string) { fmt.Fprintf(c.App.ErrWriter, "cyclecap: %s\n", text) })
	if err != nil {
		return nil, nil, err
	}
	c.Context = ctx
	if g.Rank() > 0 {
		c.App.ErrWriter = plain{c.App.ErrWriter}
	}
	return g, leave, nil
}
