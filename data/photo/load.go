package photo

import (
	"context"
	"fmt"
	"io"
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
	// Index holds, for each photo in Pixels, the position of its source, in ascending order,
	// and Paths its path.
	Index []int
	Paths []string
	// Failed lists the photos of this run that could not be read, in ascending order of index.
	Failed []Failure
	// Last says that no batch follows.
	Last bool
}

// A Failure is a photo that could not be read, and the reason.
type Failure struct {
	Index int // position of its source
	Path  string
	Err   error // includes the path
}

func (f Failure) Error() string { return f.Err.Error() }
func (f Failure) Unwrap() error { return f.Err }

// Workers returns the number of photos to decode concurrently during a computation: half of
// the cores, because the computation needs the others.
func Workers() int { return max(1, runtime.NumCPU()/2) }

// A Source is a photo to load: the file Path or, if Data is not nil, those contents of a
// file, which came from elsewhere under that name.
type Source struct {
	Path string
	Data []byte
	// Err says why there is no photo; it includes the path.
	Err error
	// First says that a batch begins with this photo, even if the one before has room for it.
	First bool
}

// maxRoom limits what is allocated for the size that an archive says a photo has.
const maxRoom = 16 << 20

// SourceFrom reads a photo of so many bytes that comes from an archive. path names it in
// messages. What is no photo is not read to its end; it becomes a source with an error.
func SourceFrom(path string, r io.Reader, size int64) Source {
	data, err := readPhoto(path, r, size, min(size, maxRoom))
	if err != nil {
		return Source{Path: path, Err: fmt.Errorf("photo: %w", err)}
	}
	return Source{Path: path, Data: data}
}

// Files returns files as sources.
func Files(paths ...string) iter.Seq[Source] {
	return func(yield func(Source) bool) {
		for _, p := range paths {
			if !yield(Source{Path: p}) {
				return
			}
		}
	}
}

// Load reads and preprocesses photo files as LoadFrom does.
//
//	for b, err := range photo.Load(ctx, paths, photo.CLIP(224), 2, 32) {
//		if err != nil {
//			return err // ctx was cancelled, or an argument is invalid
//		}
//		features := model.EncodeImage(b.Pixels, len(b.Index))
//		...
//	}
func Load(ctx context.Context, paths []string, pre Preprocess, workers, batch int) iter.Seq2[*Batch, error] {
	if batch > 0 {
		batch = min(batch, max(len(paths), 1))
	}
	return LoadFrom(ctx, Files(paths...), pre, workers, batch)
}

// LoadFrom reads and preprocesses photos concurrently with the caller's work: while the caller
// computes with one batch, the given number of worker goroutines decodes the next ones, and
// another goroutine goes through the sources.
//
// Each run of batch consecutive sources becomes one Batch, in their order; the last, and one
// before a source with First, may be shorter. A photo that cannot be read is listed in its batch and does not stop the sequence; an
// error ends it. Leaving the loop early stops the workers first.
//
// Memory is bounded: there are only as many batches as keep the workers busy, and at least two
// besides the receiver's, each worker holds one photo, and one source waits for a worker.
func LoadFrom(ctx context.Context, sources iter.Seq[Source], pre Preprocess, workers, batch int) iter.Seq2[*Batch, error] {
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

		ahead := max(2, (workers+batch-1)/batch+1)
		room := make(chan struct{}, ahead)
		pending := make(chan *loading, ahead)
		jobs := make(chan job)
		running.Go(func() {
			defer close(pending)
			defer close(jobs)
			var l *loading
			first := 0
			for s := range sources {
				// A full batch waits for the next source, to know whether it is the last.
				if l != nil && (s.First || len(l.paths) == batch) {
					first += len(l.paths)
					l.finish()
					l = nil
				}
				if l == nil {
					select {
					case room <- struct{}{}:
					case <-inner.Done():
						return
					}
					l = newLoading(first, batch, pre)
					pending <- l // never blocks: room has the same capacity
				}
				select {
				case jobs <- l.add(s):
				case <-inner.Done():
					return
				}
			}
			if l != nil {
				l.last = true
				l.finish()
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
	last   bool // set before done is closed
	pre    Preprocess
	pixels []float32
	errs   []error
	left   atomic.Int64  // photos being read, and 1 while more may come
	done   chan struct{} // closed when left becomes 0
}

func newLoading(first, most int, pre Preprocess) *loading {
	l := &loading{
		first: first, pre: pre,
		pixels: make([]float32, most*pre.Len()),
		errs:   make([]error, most),
		done:   make(chan struct{}),
	}
	l.left.Store(1)
	return l
}

// add returns the job of reading the next photo of the batch.
func (l *loading) add(s Source) job {
	l.paths = append(l.paths, s.Path)
	l.left.Add(1)
	return job{l, len(l.paths) - 1, s}
}

// finish is called after a job, and after the last source of the batch.
func (l *loading) finish() {
	if l.left.Add(-1) == 0 {
		close(l.done)
	}
}

// A job is a photo to read into its place in a batch.
type job struct {
	l *loading
	i int
	s Source
}

func (j job) run() {
	l, n := j.l, j.l.pre.Len()
	m, err := j.s.decode()
	if err == nil {
		err = l.pre.Into(l.pixels[j.i*n:(j.i+1)*n], m)
	}
	l.errs[j.i] = err
	l.finish()
}

func (s Source) decode() (*Image, error) {
	switch {
	case s.Err != nil:
		return nil, s.Err
	case s.Data == nil:
		return Decode(s.Path)
	}
	m, err := decode(s.Data, MaxPixels)
	if err != nil {
		return nil, fmt.Errorf("photo: %s: %w", s.Path, err)
	}
	return m, nil
}

// batch closes the gaps left by failed photos.
func (l *loading) batch() *Batch {
	b := &Batch{Index: make([]int, 0, len(l.paths)), Last: l.last}
	n := l.pre.Len()
	for i, err := range l.errs[:len(l.paths)] {
		if err != nil {
			b.Failed = append(b.Failed, Failure{Index: l.first + i, Path: l.paths[i], Err: err})
			continue
		}
		if at := len(b.Index); at != i {
			copy(l.pixels[at*n:(at+1)*n], l.pixels[i*n:(i+1)*n])
		}
		b.Index = append(b.Index, l.first+i)
		b.Paths = append(b.Paths, l.paths[i])
	}
	b.Pixels = l.pixels[:len(b.Index)*n]
	return b
}
