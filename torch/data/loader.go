// Package data reads data sets in batches, as torch.utils.data does.
package data

import (
	"context"
	"fmt"
	"iter"
	"sync"

	"cyclecap/torch"
)

// A Dataset has items that are read by their numbers, 0 to Len()-1. Item is called concurrently if
// there are several workers.
type Dataset[T any] interface {
	Len() int
	Item(i int) (T, error)
}

// Options configures a Loader. The zero value is PyTorch's default: batches of one item in
// order, read by the caller's goroutine.
type Options struct {
	BatchSize int  // 0 is 1
	Shuffle   bool // each epoch in an order of its own
	// Seed is that of the orders, which are those of
	// DataLoader(shuffle=True, generator=torch.Generator().manual_seed(seed)).
	Seed     uint64
	DropLast bool // leave out a last batch that is not full
	// Workers is the number of goroutines that read items ahead; 0 means the caller's alone, without
	// reading ahead.
	Workers  int
	Prefetch int // batches to read ahead, with workers; 0 is 2 for each
}

// A Loader returns the items of a data set in batches, epoch by epoch. Its methods must not be called
// concurrently.
type Loader[T any] struct {
	set   Dataset[T]
	o     Options
	state State

	generator *torch.Generator // has drawn the orders of so many epochs
	drawn     int
}

// A State is the position of a Loader: with it, a training that was interrupted goes on with the
// next batch.
type State struct {
	Epoch int `json:"epoch"` // the present one
	Batch int `json:"batch"` // number of batches of it that have been returned
}

// NewLoader returns a Loader at the beginning of the first epoch.
func NewLoader[T any](set Dataset[T], o Options) (*Loader[T], error) {
	if o.BatchSize < 0 || o.Workers < 0 || o.Prefetch < 0 {
		return nil, fmt.Errorf("batch size, workers and prefetch must not be negative, got %d, %d and %d", o.BatchSize, o.Workers, o.Prefetch)
	}
	if o.BatchSize == 0 {
		o.BatchSize = 1
	}
	if o.Prefetch == 0 {
		o.Prefetch = 2 * o.Workers
	}
	return &Loader[T]{set: set, o: o}, nil
}

// Len returns the number of batches in an epoch.
func (l *Loader[T]) Len() int {
	if l.o.DropLast {
		return l.set.Len() / l.o.BatchSize
	}
	return (l.set.Len() + l.o.BatchSize - 1) / l.o.BatchSize
}

// State returns the position after the last batch that was returned.
func (l *Loader[T]) State() State { return l.state }

// SetState sets the position.
func (l *Loader[T]) SetState(s State) error {
	if s.Epoch < 0 || s.Batch < 0 || s.Batch > l.Len() {
		return fmt.Errorf("there is no batch %d of epoch %d: an epoch has %d batches", s.Batch, s.Epoch, l.Len())
	}
	l.state = s
	return nil
}

// Epoch returns the batches of the present epoch that are left, and begins the next one after the last.
// An item that cannot be read, or ctx when it is done, ends it with an error, and the position stays
// before that batch.
func (l *Loader[T]) Epoch(ctx context.Context) iter.Seq2[[]T, error] {
	return func(yield func([]T, error) bool) {
		order, err := l.order(l.state.Epoch)
		if err != nil {
			yield(nil, err)
			return
		}
		for batch, err := range l.read(ctx, order) {
			if err != nil {
				yield(nil, err)
				return
			}
			l.state.Batch++
			if !yield(batch, nil) {
				return
			}
		}
		l.state = State{Epoch: l.state.Epoch + 1}
	}
}

// order returns the order of the items in an epoch, or nil for their own order.
func (l *Loader[T]) order(epoch int) (order []int64, err error) {
	if !l.o.Shuffle {
		return nil, nil
	}
	err = torch.Scope(func() error {
		if l.generator == nil || l.drawn > epoch {
			l.generator, l.drawn = torch.NewGenerator(torch.CPU).ManualSeed(l.o.Seed), 0
		}
		n := int64(l.set.Len())
		for ; l.drawn <= epoch; l.drawn++ {
			// PyTorch's iterator draws a seed for its workers before the sampler draws the order, and
			// the sampler draws another order at the end, of which it takes nothing.
			torch.Empty([]int64{}, torch.WithDType(torch.Int64)).Random_(torch.WithGenerator(l.generator))
			p := torch.RandpermGenerator(n, l.generator)
			torch.RandpermGenerator(n, l.generator)
			if l.drawn == epoch {
				order = torch.ToSlice[int64](p)
			}
		}
		return nil
	})
	return order, err
}

// batches returns the numbers of the items in each batch of an epoch that is left.
func (l *Loader[T]) batches(order []int64) iter.Seq[[]int] {
	return func(yield func([]int) bool) {
		for b := l.state.Batch; b < l.Len(); b++ {
			var list []int
			for i := b * l.o.BatchSize; i < min(l.set.Len(), (b+1)*l.o.BatchSize); i++ {
				if order != nil {
					list = append(list, int(order[i]))
				} else {
					list = append(list, i)
				}
			}
			if !yield(list) {
				return
			}
		}
	}
}

// item reads an item.
func (l *Loader[T]) item(i int) (v T, err error) {
	if v, err = l.set.Item(i); err != nil {
		err = fmt.Errorf("item %d: %w", i, err)
	}
	return v, err
}

// read reads batches.
func (l *Loader[T]) read(ctx context.Context, order []int64) iter.Seq2[[]T, error] {
	if l.o.Workers > 0 {
		return l.readAhead(ctx, order)
	}
	return func(yield func([]T, error) bool) {
		for list := range l.batches(order) {
			batch := make([]T, len(list))
			err := ctx.Err()
			for k, i := range list {
				if err == nil {
					batch[k], err = l.item(i)
				}
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(batch, nil) {
				return
			}
		}
	}
}

// pending is a batch whose items are being read.
type pending[T any] struct {
	items []T
	errs  []error
	left  sync.WaitGroup
}

// readAhead reads the items of batches by workers, and returns the batches in order.
func (l *Loader[T]) readAhead(ctx context.Context, order []int64) iter.Seq2[[]T, error] {
	type job struct {
		to *pending[T]
		k  int // of its items
		i  int // the item
	}
	return func(yield func([]T, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		var running sync.WaitGroup
		defer running.Wait() // nothing reads any longer when the loop of the caller has ended
		defer cancel()
		jobs, queue := make(chan job), make(chan *pending[T], l.o.Prefetch)
		for range l.o.Workers {
			running.Go(func() {
				for j := range jobs {
					if j.to.errs[j.k] = ctx.Err(); j.to.errs[j.k] == nil {
						j.to.items[j.k], j.to.errs[j.k] = l.item(j.i)
					}
					j.to.left.Done()
				}
			})
		}
		running.Go(func() {
			defer close(queue)
			defer close(jobs)
			for list := range l.batches(order) {
				p := &pending[T]{items: make([]T, len(list)), errs: make([]error, len(list))}
				p.left.Add(len(list))
				select {
				case queue <- p:
				case <-ctx.Done():
					return
				}
				for k, i := range list {
					jobs <- job{p, k, i}
				}
			}
		})
		for p := range queue {
			p.left.Wait()
			for _, err := range p.errs {
				if err != nil {
					yield(nil, err)
					return
				}
			}
			if !yield(p.items, nil) {
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(nil, err)
		}
	}
}
