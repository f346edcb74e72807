package serve

import (
	"context"
	"sync"
	"time"
)

// A queue holds the tasks that wait for the worker, in their order of arrival.
type queue struct {
	most int // tasks that can wait

	mu      sync.Mutex
	waiting []*task
	closed  bool
	wake    chan struct{} // of size 1: something may have changed
}

func newQueue(most int) *queue { return &queue{most: most, wake: make(chan struct{}, 1)} }

// add puts a task at the end, unless the queue is full.
func (q *queue) add(t *task) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || len(q.waiting) >= q.most {
		return false
	}
	t.queued = time.Now()
	q.waiting = append(q.waiting, t)
	q.poke()
	return true
}

func (q *queue) poke() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// remove takes a task out that waits no longer. It reports whether it was still there.
func (q *queue) remove(t *task) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, w := range q.waiting {
		if w == t {
			q.waiting = append(q.waiting[:i], q.waiting[i+1:]...)
			return true
		}
	}
	return false
}

// take returns the first task for which like is true, or nil.
func (q *queue) take(like func(*task) bool) *task {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, t := range q.waiting {
		if like(t) {
			q.waiting = append(q.waiting[:i], q.waiting[i+1:]...)
			return t
		}
	}
	return nil
}

// next waits for a task. It returns nil once the queue is closed and empty.
func (q *queue) next() *task {
	for {
		if t := q.take(func(*task) bool { return true }); t != nil {
			return t
		}
		q.mu.Lock()
		closed := q.closed
		q.mu.Unlock()
		if closed {
			return nil
		}
		<-q.wake
	}
}

// more waits until time for a task for which like is true; it returns nil at that time.
func (q *queue) more(until time.Time, like func(*task) bool) *task {
	ctx, cancel := context.WithDeadline(context.Background(), until)
	defer cancel()
	for {
		if t := q.take(like); t != nil {
			return t
		}
		select {
		case <-q.wake:
		case <-ctx.Done():
			// What arrived meanwhile must still wake the next call.
			q.poke()
			return nil
		}
	}
}

// length returns the number of tasks that wait.
func (q *queue) length() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting)
}

// close lets next return nil once the queue is empty. Nothing can be added then.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.poke()
}
