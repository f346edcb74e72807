package experiment

import (
	"context"
	"errors"
	"slices"

	"cyclecap/eval"
	"cyclecap/torch/distributed"
)

// A division shares the batches of a stage among the processes of a group: of those that are left, batch k
// belongs to rank k mod N. After each N batches rank 0 gets the results of all, in their order; so what
// it writes has the bytes of one process. All processes must go through a division together.
type division[T any] struct {
	x      *Experiment
	rounds int
	// take is called on rank 0 with the result of each batch, in order.
	take func(T) error
}

// A result is what a process gives in a round.
type result[T any] struct {
	Stop   bool // this process was interrupted
	Some   bool // there is a value
	Values T
}

// divided returns the division of inputs from first to n in batches, and the positions of those
// of this process, which are whole batches. first is rank 0's.
func divided[T any](x *Experiment, first, n, batch int, take func(T) error) (d *division[T], own []int32, err error) {
	all, err := distributed.Gather(x.Group, first)
	if err != nil {
		return nil, nil, err
	}
	first = all[0]
	batches := (n - first + batch - 1) / batch
	size := x.Group.Size()
	for _, i := range eval.BlocksOf(n-first, batch, x.Group.Rank(), size) {
		own = append(own, int32(first+i))
	}
	return &division[T]{x: x, rounds: (batches + size - 1) / size, take: take}, own, nil
}

// give gives the result of a batch to rank 0.
func (d *division[T]) give(v T) error { return d.round(result[T]{Some: true, Values: v}) }

func (d *division[T]) round(r result[T]) error {
	d.rounds--
	all, err := distributed.Gather(d.x.Group, r)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(all, func(r result[T]) bool { return r.Stop }) {
		return distributed.ErrInterrupted
	}
	if d.x.Group.Rank() > 0 {
		return nil
	}
	for _, r := range all {
		if r.Some {
			if err := d.take(r.Values); err != nil {
				return err
			}
		}
	}
	return nil
}

// run calls f, which gives the results of all batches of this process. An interruption ends all
// processes in the same round; until then, the others wait for the one that is interrupted.
func (d *division[T]) run(f func() error) error {
	if d.x.Group.Size() == 1 {
		return f()
	}
	return d.x.UI.Atomic(func() error { return d.end(f()) })
}

// end takes part in the rounds after the last batch of this process, or after the error with which it ended.
func (d *division[T]) end(err error) error {
	if err != nil && (!errors.Is(err, context.Canceled) || errors.Is(err, distributed.ErrInterrupted)) {
		return err
	}
	for d.rounds > 0 {
		if e := d.round(result[T]{Stop: err != nil}); e != nil {
			return e
		}
	}
	if err == nil {
		d.x.watch.begin()
	}
	return err
}
