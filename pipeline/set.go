package pipeline

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"cyclecap/nets/clipcap"
)

// continuous captions photos by batches of their features, in order, as captionBatches does.
// But the captions of the next photos join as soon as there is room (continuous batching), and
// need not wait for the longest of a batch.
func (c *Captioner) continuous(ctx context.Context, batches iter.Seq2[Features, error], batch int, o clipcap.Options) iter.Seq2[Batch, error] {
	return func(yield func(Batch, error) bool) {
		w, err := c.newWriter(batch, o)
		if err != nil {
			yield(Batch{}, err)
			return
		}
		defer w.close()
		for f, err := range batches {
			if err == nil {
				if c.Once && f.Last {
					c.CLIP.Close()
				}
				err = w.add(f)
			}
			if err == nil {
				err = w.write(ctx, f.Last)
			}
			if err != nil {
				yield(Batch{}, err)
				return
			}
			for _, b := range w.ended() {
				if !yield(b, nil) {
					return
				}
			}
		}
	}
}

// A writer writes the captions of a set of photos.
type writer struct {
	c        *Captioner
	b        *Batcher
	o        clipcap.Options
	batches  []*writing // in order; those before have ended
	waiting  []line     // captions that have not begun
	places   map[int]line
	readable int // photos so far
}

// writing is a batch of photos whose captions are being written.
type writing struct {
	Batch
	left int // captions
}

// A line is a caption to write.
type line struct {
	of      *writing
	photo   int // of Batch.Captions
	text    bool
	feature []float32
	seed    uint64
}

func (c *Captioner) newWriter(batch int, o clipcap.Options) (*writer, error) {
	if c.Generator != nil {
		batch *= 2 // both captions of a photo
	}
	b, err := c.Decoder.NewBatcher(o, batch)
	return &writer{c: c, b: b, o: o, places: map[int]line{}}, err
}

func (w *writer) close() { w.b.Close() }

// add lets the captions of photos wait.
func (w *writer) add(f Features) error {
	of := &writing{Batch: Batch{Index: f.Index, Paths: f.Paths, Failed: f.Failed, Captions: make([]Captioned, len(f.Index))}}
	w.batches = append(w.batches, of)
	if len(f.Index) == 0 {
		return nil
	}
	width := w.c.Decoder.FeatureWidth()
	var text [][]float32
	if w.c.Generator != nil {
		rows, err := w.c.Textualise(f.Rows)
		if err != nil {
			return err
		}
		text = slices.Collect(slices.Chunk(rows, width))
	}
	for i := range f.Index {
		seed := w.o.Seed + uint64(w.readable)
		w.readable++
		w.waiting = append(w.waiting, line{of: of, photo: i, feature: f.Rows[i*width : (i+1)*width], seed: seed})
		of.left++
		if text != nil {
			w.waiting = append(w.waiting, line{of: of, photo: i, text: true, feature: text[i], seed: seed})
			of.left++
		}
	}
	return nil
}

// write writes captions until none waits or, if all is true, until all have ended.
func (w *writer) write(ctx context.Context, all bool) error {
	for len(w.waiting) > 0 || all && w.b.Len() > 0 {
		// Their prefixes cost a pass through all weights, so several begin at once.
		if n := min(w.b.Room(), len(w.waiting)); n == len(w.waiting) || 4*n >= w.b.Room()+w.b.Len() {
			if err := w.begin(n); err != nil {
				return err
			}
		}
		ended, err := w.b.Step(ctx)
		if err != nil {
			return err
		}
		for _, f := range ended {
			l := w.places[f.ID]
			delete(w.places, f.ID)
			if f.Err != nil {
				if e := (*NotFiniteError)(nil); errors.As(f.Err, &e) {
					e.Index = l.photo
				}
				return fmt.Errorf("%s: %w", l.of.Paths[l.photo], f.Err)
			}
			to := &l.of.Captions[l.photo].Direct
			if l.text {
				to = &l.of.Captions[l.photo].Textualised
			}
			*to = []Caption{f.Caption}
			l.of.left--
		}
	}
	return nil
}

// begin adds the first n captions that wait.
func (w *writer) begin(n int) error {
	if n == 0 {
		return nil
	}
	var rows []float32
	var options []clipcap.RowOptions
	for _, l := range w.waiting[:n] {
		rows, options = append(rows, l.feature...), append(options, clipcap.RowOptions{Seed: l.seed})
	}
	ids, err := w.b.Add(rows, options)
	if err != nil {
		return err
	}
	for i, id := range ids {
		w.places[id] = w.waiting[i]
	}
	w.waiting = w.waiting[n:]
	return nil
}

// ended takes out the batches all of whose captions, and those before, have ended.
func (w *writer) ended() (list []Batch) {
	for len(w.batches) > 0 && w.batches[0].left == 0 {
		list = append(list, w.batches[0].Batch)
		w.batches = w.batches[1:]
	}
	return list
}
