package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"cyclecap/nets/clipcap"
	"cyclecap/pipeline"
	"cyclecap/torch"
)

// Ways to caption a photo.
const (
	direct      = "direct"      // from its own feature
	textualised = "textualised" // from its feature, translated by the generator
)

// A task is what a request lets the worker compute.
type task struct {
	ctx   context.Context // done when the client has gone
	model *model

	photos [][]float32 // prepared by pipeline.CLIP.Pixels
	texts  []string
	// ways are the captions to write for each photo.
	ways    []string
	options clipcap.Options
	// normalize scales features to length 1.
	normalize bool
	// translate asks for the translated features of the photos.
	translate bool
	// onToken, if not nil, is called by the worker for each token, and must not block. See
	// clipcap.Options for when.
	onToken func(way string, photo int, id int64, logProb float64)

	// The results: features [len(photos), width] and [len(texts), width].
	imageRows, translatedRows, textRows []float32
	captions                            map[string][][]pipeline.Caption // by way, for each photo
	batched                             string                          // value of the header that says how

	// queued and began are when it entered and left the queue, and encoded when the features
	// were there, before the captions.
	queued, began, encoded time.Time
	done                   chan struct{} // closed when the results or err are there
	err                    error
}

// items returns the number of rows that the task computes.
func (t *task) items() int { return len(t.photos) + len(t.texts) }

// like reports whether two tasks can share batches: the numbers of each depend on nothing but
// the size of the batch then.
func (t *task) like(o *task) bool {
	if t.streams() && o.streams() {
		return t.model == o.model
	}
	return t.streams() == o.streams() && t.model == o.model && t.normalize == o.normalize && t.translate == o.translate && len(t.photos) > 0 == (len(o.photos) > 0) && len(t.texts) > 0 == (len(o.texts) > 0) &&
		slices.Equal(t.ways, o.ways) && (len(t.ways) == 0 || t.optionsKey() == o.optionsKey())
}

// A worker computes one task after another, or batches of tasks, on one OS thread.
type worker struct {
	queue    *queue
	window   time.Duration // for which a task waits for others
	most     int           // items in a shared batch
	patience time.Duration // longest time in the queue
	metrics  *metrics
	log      *slog.Logger
	exec     *torch.Executor
	ended    chan struct{}
	// average is the recent duration of a task, ns.
	average atomic.Int64
	// streams are the captions that are being written together.
	streams []*stream
}

func (w *worker) start() {
	w.exec, w.ended = torch.NewExecutor(), make(chan struct{})
	go func() {
		defer close(w.ended)
		defer w.exec.Close()
		for {
			t := w.take()
			if t == nil && len(w.streams) == 0 {
				return
			}
			if t != nil {
				w.compute(w.gather(t))
			}
			if len(w.streams) > 0 {
				w.advance()
			}
		}
	}()
}

// take returns the next task. It waits for one unless captions are being written, and returns
// nil once the queue is closed and empty.
func (w *worker) take() *task {
	lines := 0
	for _, s := range w.streams {
		lines += len(s.rows) + len(s.waiting)
	}
	switch {
	case len(w.streams) == 0:
		return w.queue.next()
	case lines < w.most:
		return w.queue.take(func(*task) bool { return true })
	}
	// More captions wait in the queue, whose length is bounded.
	return w.queue.take(func(t *task) bool { return len(t.ways) == 0 })
}

// stop lets the worker end after the tasks in its queue.
func (w *worker) stop() {
	w.queue.close()
	<-w.ended
}

// do computes a task and waits for it. A task whose context ends leaves the queue at once, or
// stops at its next token or batch.
func (w *worker) do(t *task) error {
	t.done = make(chan struct{})
	if !w.queue.add(t) {
		w.metrics.refused.Inc()
		return busy(w.expected())
	}
	late := time.NewTimer(w.patience)
	defer late.Stop()
	select {
	case <-t.done:
		return t.err
	case <-t.ctx.Done():
		if w.queue.remove(t) {
			return t.ctx.Err()
		}
	case <-late.C:
		if w.queue.remove(t) {
			w.metrics.refused.Inc()
			e := busy(w.expected())
			e.Message = fmt.Sprintf("the request has waited for %v, the longest time in this server's queue (--queue-timeout)", w.patience)
			return e
		}
	}
	<-t.done // it has begun
	return t.err
}

// expected is about how long the queue takes.
func (w *worker) expected() time.Duration {
	return max(time.Second, time.Duration(w.average.Load())*time.Duration(w.queue.length()+1)).Round(time.Second)
}

// shares reports whether the features of a task, and captions that are not joined, are computed
// together with those of others: if there is a window, or if its bits do not depend on them.
func (w *worker) shares(t *task) bool {
	if w.window > 0 {
		return true
	}
	photos, texts := t.model.clip.BatchInvariant()
	return (photos || len(t.photos) == 0) && (texts || len(t.texts) == 0) && (len(t.ways) == 0 || t.model.captioner.Decoder.BatchInvariant())
}

// gather returns the tasks to compute together with t: those like it that wait already, or
// arrive in the window.
func (w *worker) gather(t *task) []*task {
	group := []*task{t}
	if !w.shares(t) {
		return group
	}
	until := t.queued.Add(w.window)
	if len(w.streams) > 0 {
		until = time.Now() // the captions that are being written must not wait
	}
	for n := t.items(); n < w.most; {
		o := w.queue.more(until, func(o *task) bool { return o.like(t) && n+o.items() <= w.most })
		if o == nil {
			break
		}
		n += o.items()
		group = append(group, o)
	}
	return group
}

// compute runs a group of tasks and hands them their results.
func (w *worker) compute(group []*task) {
	begin := time.Now()
	live := group[:0:0]
	for _, t := range group {
		if t.err = t.ctx.Err(); t.err == nil {
			live = append(live, t)
			w.metrics.stage("queue", begin.Sub(t.queued))
			t.began = begin
		} else {
			close(t.done)
		}
	}
	if len(live) == 0 {
		return
	}
	err := w.safely(func() error { return w.run(live) })
	if err == nil && w.joins(live[0]) {
		return // they end with their captions
	}
	w.observe(time.Since(begin))
	for _, t := range live {
		if err != nil {
			t.err = err
			if gone := t.ctx.Err(); gone != nil {
				t.err = gone
			}
		}
		close(t.done)
	}
}

// joins reports whether the captions of a task join those that are being written.
func (w *worker) joins(t *task) bool {
	return t.streams() && (w.window > 0 || t.model.captioner.Decoder.BatchInvariant())
}

// safely runs f on the executor's thread. A panic is an error: it must not end the server.
func (w *worker) safely(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			w.log.Error("panic in a computation", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = errors.New("panic")
		}
	}()
	return w.exec.Do(f)
}

// observe remembers how long a task took.
func (w *worker) observe(took time.Duration) {
	if old := w.average.Load(); old > 0 {
		took = (9*time.Duration(old) + took) / 10
	}
	w.average.Store(int64(took))
}

// run computes tasks of the same kind, on the executor's thread.
func (w *worker) run(group []*task) error {
	m := group[0].model
	ctx, end := allDone(group)
	defer end()
	size, how := m.Batch, "exact"
	if len(group) > 1 {
		size, how = w.most, "shared"
	}
	var photos [][]float32
	var texts []string
	for _, t := range group {
		photos, texts = append(photos, t.photos...), append(texts, t.texts...)
	}
	w.metrics.batch.Observe(float64(len(photos) + len(texts)))
	for _, t := range group { // now, since an answer that is streamed begins before the end
		t.batched = fmt.Sprintf("%s; requests=%d; items=%d", how, len(group), len(photos)+len(texts))
	}
	width := m.clip.Width()
	images := make([]float32, 0, len(photos)*width)
	for part := range slices.Chunk(photos, size) {
		if err := ctx.Err(); err != nil {
			return err
		}
		begin := time.Now()
		rows, err := m.clip.EncodePixels(part)
		if err != nil {
			return err
		}
		w.metrics.stage("clip", time.Since(begin))
		images = append(images, rows...)
	}
	var of []float32
	for f, err := range m.clip.Texts(ctx, texts, size, true) {
		if err != nil {
			return err
		}
		of = append(of, f.Rows...)
	}
	var translated []float32
	if group[0].translate && m.captioner.Generator != nil && len(photos) > 0 {
		var err error
		if translated, err = m.captioner.Textualise(images); err != nil {
			return err
		}
	}
	for _, t := range group {
		t.encoded = time.Now()
	}
	if group[0].normalize {
		for _, rows := range [][]float32{images, of, translated} {
			if err := pipeline.Normalize(rows, width); err != nil {
				return err
			}
		}
	}
	// Each task gets its part.
	photo, text := 0, 0
	for _, t := range group {
		n, k := len(t.photos), len(t.texts)
		t.imageRows, t.textRows = images[photo*width:(photo+n)*width], of[text*width:(text+k)*width]
		if translated != nil {
			t.translatedRows = translated[photo*width : (photo+n)*width]
		}
		photo, text = photo+n, text+k
	}
	if w.joins(group[0]) {
		return w.join(group)
	}
	captions := map[string][][]pipeline.Caption{}
	for _, way := range group[0].ways {
		list, err := w.captions(ctx, group, way, images, size)
		if err != nil {
			return err
		}
		captions[way] = list
	}
	photo = 0
	for _, t := range group {
		t.captions = map[string][][]pipeline.Caption{}
		for way, list := range captions {
			t.captions[way] = list[photo : photo+len(t.photos)]
		}
		photo += len(t.photos)
	}
	return nil
}

// captions writes the captions of one way for the features of a group's photos.
func (w *worker) captions(ctx context.Context, group []*task, way string, images []float32, size int) (all [][]pipeline.Caption, err error) {
	m, width := group[0].model, group[0].model.clip.Width()
	o := group[0].options
	o.OnPrefixes = w.metrics.prefixes
	for part := range slices.Chunk(images, size*width) {
		begin := time.Now()
		o.OnToken = tell(group, way, len(all))
		list, err := m.captions(ctx, way, part, o)
		if err != nil {
			return nil, err
		}
		o.Seed += uint64(len(list))
		tokens := 0
		for _, c := range list {
			tokens += len(c[0].Tokens)
		}
		w.metrics.stage("caption", time.Since(begin))
		w.metrics.token(time.Since(begin), tokens)
		all = append(all, list...)
	}
	return all, nil
}

// tell returns what tells the tasks of a group the tokens of a batch of their captions, or nil
// if none wants to know. first is the number of captions in the batches before.
func tell(group []*task, way string, first int) func(int, int64, float64) {
	if !slices.ContainsFunc(group, func(t *task) bool { return t.onToken != nil }) {
		return nil
	}
	return func(index int, id int64, logProb float64) {
		photo := first + index
		for _, t := range group {
			if photo < len(t.photos) {
				if t.onToken != nil {
					t.onToken(way, photo, id, logProb)
				}
				return
			}
			photo -= len(t.photos)
		}
	}
}

// allDone returns a context that ends when every client of a group has gone, and a function to
// call when it is no longer needed.
func allDone(group []*task) (context.Context, context.CancelFunc) {
	if len(group) == 1 {
		return context.WithCancel(group[0].ctx)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var left atomic.Int64
	left.Store(int64(len(group)))
	var stops []func() bool
	for _, t := range group {
		stops = append(stops, context.AfterFunc(t.ctx, func() {
			if left.Add(-1) == 0 {
				cancel()
			}
		}))
	}
	return ctx, func() {
		cancel()
		for _, stop := range stops {
			stop()
		}
	}
}
