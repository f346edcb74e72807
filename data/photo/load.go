package photo

import (
	"context"
	"fmt"
	"iter"
	"runtime"
	"sync"
	"sync/atomic"
)

// A Batch is a run of photos, ready for the network.
type Batch struct {
	// Pixels holds the photos that could be read, one after another:
	// float32 [len(Index), 3, Size, Size]. The receiver owns it.
	Pixels []float32
	// Index holds, for each photo in Pixels, the index of its path, in ascending order.
	Index []int
	// Failed lists the photos of this run that could not be read, in ascending order of index.
	Failed []Failure
}

// A Failure is a photo that could not be read, and the reason.
type Failure struct {
	Index int // index of its path
	Path  string
	Err   error // includes the path
}

func (f Failure) Error() string { return f.Err.Error() }
func (f Failure) Unwrap() error { return f.Err }

// Workers returns the number of photos to decode concurrently during a computation: half of
// the cores, because the computation needs the others.
func Workers() int { return max(1, runtime.NumCPU()/2) }

// Load reads and preprocesses photos concurrently with the caller's work: while the caller
// computes with one batch, the given number of worker goroutines decodes the next ones.
//
//	for b, err := range photo.Load(ctx, paths, photo.CLIP(224), 2, 32) {
//		if err != nil {
//			return err // ctx was cancelled, or an argument is invalid
//		}
//		features := model.EncodeImage(b.Pixels, len(b.Index))
//		...
//	}
//
// Each run of batch consecutive paths becomes one Batch, in the order of the paths; the last
// may be shorter. A photo that cannot be read is listed in its batch and does not stop the
// sequence; an error ends it. Leaving the loop early stops the workers first.
//
// Memory is bounded: there are only as many batches as keep the workers busy, and at least two
// besides the receiver's, and each worker holds one decoded photo.
func Load(ctx context.Context, paths []string, pre Preprocess, workers, batch int) iter.Seq2[*Batch, error] {
	return func(yield func(*Batch, error) bool) {
		err := pre.check()
		if err == nil && workers < 1 {
			err = fmt.Errorf("photo: the number of workers must be at least 1, got %d", workers)
		}
		if err == nil && batch < 1 {
			err = fmt.Errorf("photo: the batch size must be at least 1, got %d", batch)
		}
		if err != nil {
			yield(nil, err)
			return
		}
		inner, cancel := context.WithCancel(ctx)
		var running sync.WaitGroup
		defer running.Wait()
		defer cancel()

		batch = min(batch, max(len(paths), 1))
		ahead := max(2, (workers+batch-1)/batch+1)
		room := make(chan struct{}, ahead)
		pending := make(chan *loading, ahead)
		jobs := make(chan job)
		running.Go(func() {
			defer close(pending)
			defer close(jobs)
			for first := 0; first < len(paths); first += batch {
				select {
				case room <- struct{}{}:
				case <-inner.Done():
					return
				}
				l := newLoading(first, paths[first:min(first+batch, len(paths))], pre)
				pending <- l // never blocks: room has the same capacity
				for i := range l.paths {
					select {
					case jobs <- job{l, i}:
					case <-inner.Done():
						return
					}
				}
			}
		})
		for range workers {
			running.Go(func() {
				for j := range jobs {
					j.run()
				}
			})
		}

		for l := range pending {
			select {
			case <-l.done:
			case <-inner.Done():
			}
			if err := ctx.Err(); err != nil {
				yield(nil, err)
				return
			}
			<-room
			if !yield(l.batch(), nil) {
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(nil, err)
		}
	}
}

// loading is a batch being filled by several workers.
type loading struct {
	first  int
	paths  []string
	pre    Preprocess
	pixels []float32
	errs   []error
	left   atomic.Int64
	done   chan struct{} // closed by the worker that fills the last place
}

func newLoading(first int, paths []string, pre Preprocess) *loading {
	l := &loading{
		first: first, paths: paths, pre: pre,
		pixels: make([]float32, len(paths)*pre.Len()),
		errs:   make([]error, len(paths)),
		done:   make(chan struct{}),
	}
	l.left.Store(int64(len(paths)))
	return l
}

// A job is a photo to read into its place in a batch.
type job struct {
	l *loading
	i int
}

func (j job) run() {
	l, n := j.l, j.l.pre.Len()
	m, err := Decode(l.paths[j.i])
	if err == nil {
		err = l.pre.Into(l.pixels[j.i*n:(j.i+1)*n], m)
	}
	l.errs[j.i] = err
	if l.left.Add(-1) == 0 {
		close(l.done)
	}
}

// batch closes the gaps left by failed photos.
func (l *loading) batch() *Batch {
	b := &Batch{Index: make([]int, 0, len(l.paths))}
	n := l.pre.Len()
	for i, err := range l.errs {
		if err != nil {
			b.Failed = append(b.Failed, Failure{Index: l.first + i, Path: l.paths[i], Err: err})
			continue
		}
		if at := len(b.Index); at != i {
			copy(l.pixels[at*n:(at+1)*n], l.pixels[i*n:(i+1)*n])
		}
		b.Index = append(b.Index, l.first+i)
	}
	b.Pixels = l.pixels[:len(b.Index)*n]
	return b
}
