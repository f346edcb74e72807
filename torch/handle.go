package torch

import (
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"cyclecap/torch/internal/shim"
)

// A handle owns one reference to a libtorch tensor. It belongs to a scope or, if
// the tensor is kept, to the program.
//
// A call into the shim borrows its tensors: between borrow and release a handle
// cannot be freed, neither by the garbage collector nor by a Close, Keep or end of
// a scope in another goroutine, which then takes effect at the release. Only call
// and the functions of this file may read ptr; a test checks that.
type handle struct {
	ptr   uintptr
	state atomic.Int64 // the number of borrowers, and whether the handle is closed

	mu      sync.Mutex // guards the following; locked before a scope's
	owner   *scope     // nil if the tensor is kept
	index   int        // in the scope's list, guarded by the scope's lock
	bytes   int64      // counted in kept while the tensor is kept
	cleanup runtime.Cleanup
}

// closed is the bit of handle.state that forbids further borrowing.
const closed = 1 << 62

// borrow returns t's handle, which the caller must release.
func (t Tensor) borrow(op string) (*handle, *Error) {
	if t.handle == nil {
		return nil, &Error{Kind: TypeError, Op: op, Text: "expected a tensor, got none"}
	}
	for {
		n := t.state.Load()
		if n&closed != 0 {
			return nil, &Error{Kind: RuntimeError, Op: op, Text: "the tensor has been freed: its scope has ended, or it was closed; call Keep on a tensor that must outlive its scope"}
		}
		if t.state.CompareAndSwap(n, n+1) {
			return t.handle, nil
		}
	}
}

func (h *handle) release() {
	if h.state.Add(-1) == closed {
		shim.Free([]uintptr{h.ptr})
	}
}

func (h *handle) info() (shim.Info, error) { return shim.TensorInfo(h.ptr) }

func (h *handle) removeHook(at uint) error { return shim.RemoveHook(h.ptr, at) }

func (h *handle) item(dtype int, value unsafe.Pointer) (own int, err error) {
	return shim.Item(h.ptr, dtype, value)
}

// shut forbids further borrowing. It reports whether nobody borrows h, so that the
// caller must free it; otherwise the last borrower does.
func (h *handle) shut() bool { return h.state.Or(closed) == 0 }

func (h *handle) shutAlready() bool { return h.state.Load()&closed != 0 }

// lend calls f with the addresses of tensors, 0 for none, which cannot be freed
// until f returns. It panics with an *Error if a tensor has been freed.
func lend(op string, f func(p []uintptr) error, tensors ...Tensor) error {
	p := make([]uintptr, len(tensors))
	held := make([]*handle, 0, len(tensors))
	defer func() {
		for _, h := range held {
			h.release()
		}
	}()
	for i, t := range tensors {
		if t.Defined() {
			h, err := t.borrow(op)
			if err != nil {
				panic(err)
			}
			held = append(held, h)
			p[i] = h.ptr
		}
	}
	return f(p)
}

// some panics with an *Error if one of the tensors is none.
func some(op string, tensors ...Tensor) {
	for _, t := range tensors {
		if !t.Defined() {
			panic(&Error{Kind: TypeError, Op: op, Text: "expected a tensor, got none"})
		}
	}
}

func init() {
	shim.Lend = func(op string, f func(p []uintptr) error, tensors ...any) error {
		l := make([]Tensor, len(tensors))
		for i, t := range tensors {
			l[i] = t.(Tensor)
		}
		some(op, l...)
		return lend(op, f, l...)
	}
}

// adopt adds a new reference to the current scope. 0 is none.
func adopt(op string, p uintptr) Tensor {
	return adoptIn(current(), op, p)
}

// adoptIn is adopt for s, the current scope or nil.
func adoptIn(s *scope, op string, p uintptr) Tensor {
	if p == 0 {
		return Tensor{}
	}
	if s == nil {
		shim.Free([]uintptr{p})
		panic(noScope(op))
	}
	h := &handle{ptr: p, owner: s}
	s.mu.Lock()
	s.add(h)
	s.mu.Unlock()
	return Tensor{h}
}

// adoptAll is adopt for several references.
func adoptAll(op string, p []uintptr) []Tensor { return adoptAllIn(current(), op, p) }

// adoptAllIn is adoptAll for s, the current scope or nil.
func adoptAllIn(s *scope, op string, p []uintptr) []Tensor {
	out := make([]Tensor, len(p))
	if s == nil {
		shim.Free(p)
		panic(noScope(op))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, p := range p {
		if p != 0 {
			h := &handle{ptr: p, owner: s}
			s.add(h)
			out[i] = Tensor{h}
		}
	}
	return out
}

// Keep removes t from its scope, so that it lives until Close. As a safety net,
// a kept tensor that is no longer reachable is freed by the garbage collector.
// Keep returns t.
func (t Tensor) Keep() Tensor {
	bytes := t.info().NBytes
	defer collect() // without the lock
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.owner != nil && !t.shutAlready() {
		t.owner.forget(t.handle)
		t.keep(bytes)
	}
	return t
}

// keep makes h, which no scope owns any more, a kept tensor. h is locked.
func (h *handle) keep(bytes int64) {
	h.owner, h.bytes = nil, bytes
	h.cleanup = runtime.AddCleanup(h, func(k forgotten) {
		shim.Free([]uintptr{k.ptr})
		addKept(-k.bytes)
	}, forgotten{h.ptr, bytes})
	addKept(bytes)
}

type forgotten struct {
	ptr   uintptr
	bytes int64
}

// Return moves t from its scope to the enclosing one, so that it outlives its
// scope. In an outermost scope Return is Keep. Return returns t.
func (t Tensor) Return() Tensor {
	if t.handle == nil {
		return t
	}
	defer collect()
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.owner
	if s == nil || s != current() || t.shutAlready() {
		return t // kept, or an outer scope owns it already
	}
	if s.parent == nil {
		bytes := t.info().NBytes
		s.forget(t.handle)
		t.keep(bytes)
		return t
	}
	s.forget(t.handle)
	t.handle.owner = s.parent
	s.parent.mu.Lock()
	s.parent.add(t.handle)
	s.parent.mu.Unlock()
	return t
}

// Close frees t. Later uses of t are errors; a second Close does nothing. Calls
// that use t in other goroutines can finish.
func (t Tensor) Close() {
	if t.handle == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.shutAlready() {
		return
	}
	if t.owner != nil {
		t.owner.forget(t.handle)
		t.handle.owner = nil
	} else {
		t.cleanup.Stop()
		addKept(-t.bytes)
	}
	if t.shut() {
		shim.Free([]uintptr{t.ptr})
	}
}

// closeAll frees the handles of a scope that has ended.
func (s *scope) closeAll() {
	s.mu.Lock()
	owned := s.owned
	s.owned = nil
	s.mu.Unlock()
	free := make([]uintptr, 0, len(owned))
	for _, h := range owned {
		h.mu.Lock()
		if h.owner == s { // not kept or closed in the meantime
			h.owner = nil
			if h.shut() {
				free = append(free, h.ptr)
			}
		}
		h.mu.Unlock()
	}
	shim.Free(free)
}

// kept counts the bytes of kept tensors. Go's garbage collector sees only a few
// words of each, and would let forgotten ones pile up. Keep therefore starts a
// collection once the bytes reach a limit: twice what was left after the last one,
// and gcFloor more at least. What a collection finds is freed while the program goes
// on, so the next limit is first a little above the current bytes.
var kept struct{ bytes, limit atomic.Int64 }

const gcFloor = 256 << 20

func init() { kept.limit.Store(gcFloor) }

func addKept(n int64) {
	now := kept.bytes.Add(n)
	if n > 0 {
		return
	}
	next := now + max(now, gcFloor)
	for limit := kept.limit.Load(); next < limit && !kept.limit.CompareAndSwap(limit, next); {
		limit = kept.limit.Load()
	}
}

// collect frees forgotten tensors if there may be many.
func collect() {
	now, limit := kept.bytes.Load(), kept.limit.Load()
	if now > limit && kept.limit.CompareAndSwap(limit, now+max(now/4, gcFloor)) {
		runtime.GC()
	}
}
