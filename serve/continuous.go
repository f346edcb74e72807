package serve

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cyclecap/nets/clipcap"
	"cyclecap/pipeline"
)

// A stream is the captions that are being written with one model and the same options. They
// join and leave it between two tokens, so that a request need not wait for the end of those
// before it.
type stream struct {
	model   *model
	key     string // of the options
	batcher *pipeline.Batcher
	rows    map[int]*place // by the ids of batcher
	waiting []*place       // until there is room
}

// A place is that of a caption in a stream.
type place struct {
	of      *writing
	way     string
	photo   int
	feature []float32
	seed    uint64
}

// writing is a task whose captions are being written.
type writing struct {
	*task
	left  int // captions
	began time.Time
}

// streams reports whether the captions of a task can join a stream: a beam search needs batches
// of its own.
func (t *task) streams() bool {
	return len(t.ways) > 0 && t.options.Method.Single()
}

// optionsKey returns what captions that are written together have in common: all options but the
// seed, of which each caption has its own.
func (t *task) optionsKey() string {
	o := t.options
	o.Seed, o.OnToken, o.OnPrefixes = 0, nil, nil
	return fmt.Sprint(o)
}

// join adds the captions of a group, whose features have been computed, to streams. If it fails,
// it has added none.
func (w *worker) join(group []*task) error {
	places := map[*stream][]*place{}
	for _, t := range group {
		s, err := w.streamOf(t)
		if err != nil {
			return err
		}
		of := &writing{task: t, left: len(t.photos) * len(t.ways), began: time.Now()}
		t.captions, t.batched = map[string][][]pipeline.Caption{}, fmt.Sprintf("continuous; items=%d", len(t.photos))
		width := t.model.clip.Width()
		for _, way := range t.ways {
			rows := t.imageRows
			if way == textualised {
				if rows, err = t.model.captioner.Textualise(rows); err != nil {
					return err
				}
			}
			t.captions[way] = make([][]pipeline.Caption, len(t.photos))
			for i := range t.photos {
				places[s] = append(places[s], &place{of: of, way: way, photo: i, feature: rows[i*width : (i+1)*width], seed: t.options.Seed + uint64(i)})
			}
		}
	}
	for s, list := range places {
		s.waiting = append(s.waiting, list...)
	}
	return nil
}

// streamOf returns the stream of a task's model and options.
func (w *worker) streamOf(t *task) (*stream, error) {
	key := t.optionsKey()
	for _, s := range w.streams {
		if s.model == t.model && s.key == key {
			return s, nil
		}
	}
	s := &stream{model: t.model, key: key, rows: map[int]*place{}}
	o := t.options
	o.OnToken = func(id int, token int64, logProb float64) {
		if l := s.rows[id]; l != nil && l.of.onToken != nil {
			l.of.onToken(l.way, l.photo, token, logProb)
		}
	}
	o.OnPrefixes = w.metrics.prefixes
	var err error
	s.batcher, err = t.model.captioner.Decoder.NewBatcher(o, w.most)
	if err == nil {
		t.model.uses.Add(1) // as long as the stream has memory of the model's
		w.streams = append(w.streams, s)
	}
	return s, err
}

// advance writes a token of every caption. Streams without captions end.
func (w *worker) advance() {
	going := w.streams[:0]
	for _, s := range w.streams {
		if err := w.safely(func() error { return s.step(w) }); err != nil {
			s.fail(err)
		}
		if len(s.rows)+len(s.waiting) > 0 {
			going = append(going, s)
			continue
		}
		w.safely(func() error {
			s.batcher.Close()
			return nil
		})
		s.model.uses.Done()
	}
	clear(w.streams[len(going):])
	w.streams = going
}

// step writes a token of every caption of a stream.
func (s *stream) step(w *worker) error {
	s.drop()
	for len(s.waiting) > 0 && s.batcher.Room() > 0 {
		l := s.waiting[0]
		// Only here is its id known: OnToken is called in Step.
		ids, err := s.batcher.Add(l.feature, []clipcap.RowOptions{{Seed: l.seed}})
		if err != nil {
			return err
		}
		s.rows[ids[0]], s.waiting = l, s.waiting[1:]
	}
	if len(s.rows) == 0 {
		return nil
	}
	begin, n := time.Now(), len(s.rows)
	ended, err := s.batcher.Step(context.Background())
	if err != nil {
		return err
	}
	w.metrics.token(time.Since(begin), n)
	for _, f := range ended {
		l := s.rows[f.ID]
		delete(s.rows, f.ID)
		if f.Err != nil {
			l.of.end(f.Err)
			continue
		}
		l.of.captions[l.way][l.photo] = []pipeline.Caption{f.Caption}
		if l.of.left--; l.of.left == 0 {
			w.metrics.stage("caption", time.Since(l.of.began))
			w.observe(time.Since(l.of.began))
			l.of.end(nil)
		}
	}
	return nil
}

// drop takes out the captions of tasks that have ended or whose client has gone.
func (s *stream) drop() {
	for id, l := range s.rows {
		if l.of.over() {
			s.batcher.Remove(id)
			delete(s.rows, id)
		}
	}
	kept := s.waiting[:0]
	for _, l := range s.waiting {
		if !l.of.over() {
			kept = append(kept, l)
		}
	}
	clear(s.waiting[len(kept):])
	s.waiting = kept
}

// over reports whether nobody waits for a task any longer, and ends it then.
func (t *writing) over() bool {
	if t.left > 0 && t.ctx.Err() != nil {
		t.end(t.ctx.Err())
	}
	return t.left <= 0
}

// end hands a task to the one who waits for it.
func (t *writing) end(err error) {
	if t.left < 0 {
		return // ended before
	}
	t.left, t.err = -1, err
	close(t.done)
}

// fail ends all tasks of a stream.
func (s *stream) fail(err error) {
	for _, l := range s.rows {
		l.of.end(errors.Join(errStream, err))
	}
	for _, l := range s.waiting {
		l.of.end(errors.Join(errStream, err))
	}
	clear(s.rows)
	s.waiting = nil
}

var errStream = errors.New("the captions that were written together could not be continued")
