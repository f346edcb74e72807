package torch

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"cyclecap/torch/internal/shim"
)

// A scope owns the tensors that are created on its OS thread while it is the
// innermost scope, and frees them when it ends. Other goroutines can keep and close
// them.
type scope struct {
	id     int64
	depth  int
	parent *scope
	device Device     // default device of factory functions
	mu     sync.Mutex // guards owned
	owned  []*handle
}

// add adds h to the list. s is locked.
func (s *scope) add(h *handle) {
	h.index = len(s.owned)
	s.owned = append(s.owned, h)
}

// forget removes h from the list, in whatever order tensors are closed.
func (s *scope) forget(h *handle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.index >= len(s.owned) || s.owned[h.index] != h {
		return // the scope is ending
	}
	n := len(s.owned) - 1
	last := s.owned[n]
	s.owned[h.index], last.index = last, h.index
	s.owned[n] = nil
	s.owned = s.owned[:n]
}

// Scopes by id. The shim stores the id of each OS thread's current scope. A slot
// is reused after its scope has ended; blocks of slots are added as needed.
var scopes struct {
	sync.Mutex
	free  []int64
	used  int64
	block [4096]atomic.Pointer[scopeBlock]
}

type scopeBlock [4096]atomic.Pointer[scope]

// deepest is the number of scopes that can be nested.
const deepest = 4096

func slot(id int64) *atomic.Pointer[scope] {
	return &scopes.block[id/int64(len(scopeBlock{}))].Load()[id%int64(len(scopeBlock{}))]
}

func enter() *scope {
	s := &scope{}
	if id := shim.Scope(); id != 0 {
		s.parent = slot(id).Load()
		s.device, s.depth = s.parent.device, s.parent.depth+1
	}
	if s.depth == deepest {
		panic(&Error{Kind: RuntimeError, Op: "scope", Text: fmt.Sprintf("%d scopes are nested; check for endless recursion", deepest)})
	}
	scopes.Lock()
	if n := len(scopes.free); n > 0 {
		s.id, scopes.free = scopes.free[n-1], scopes.free[:n-1]
	} else if next := scopes.used + 1; next/int64(len(scopeBlock{})) < int64(len(scopes.block)) {
		block := &scopes.block[next/int64(len(scopeBlock{}))]
		if block.Load() == nil {
			block.Store(new(scopeBlock))
		}
		s.id, scopes.used = next, next
	}
	scopes.Unlock()
	if s.id == 0 {
		panic(&Error{Kind: RuntimeError, Op: "scope", Text: fmt.Sprintf("%d scopes are open", scopes.used)})
	}
	slot(s.id).Store(s)
	shim.SetScope(s.id)
	return s
}

func (s *scope) leave() {
	s.closeAll()
	slot(s.id).Store(nil)
	var parent int64
	if s.parent != nil {
		parent = s.parent.id
	}
	shim.SetScope(parent)
	scopes.Lock()
	scopes.free = append(scopes.free, s.id)
	scopes.Unlock()
}

// current returns the current scope of this OS thread, or nil if there is none.
func current() *scope { return scopeOf(shim.Scope()) }

// scopeOf returns the scope with an id, or nil for 0.
func scopeOf(id int64) *scope {
	if id == 0 {
		return nil
	}
	return slot(id).Load()
}

// Scope calls f and then frees every tensor that was created in it, except those
// kept with Tensor.Keep. While f runs, its goroutine is locked to an OS thread,
// because the modes and the thread pool of libtorch are per OS thread. Tensors
// can only be created inside a scope. Scopes can be nested.
//
// Scope returns f's error, or the *Error with which an operator in f panicked.
//
//	err := torch.Scope(func() error {
//		x := torch.Randn([]int64{2, 3})
//		fmt.Println(x.Mul(x).Sum().Item())
//		return nil
//	})
func Scope(f func() error) (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer catch(&err)
	s := enter()
	defer s.leave()
	return f()
}

// Tidy calls f in a new scope inside the current one and returns f's result,
// which moves to the current scope. All other tensors created by f are freed
// immediately. Use it around a layer with large intermediate results. A panic in
// an operator propagates to the enclosing Scope.
func Tidy(f func() Tensor) Tensor {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	s := enter()
	defer s.leave()
	return f().Return()
}

// NoGrad calls f with gradient computation disabled, as torch.no_grad does.
func NoGrad(f func()) { withGrad(false, f) }

// EnableGrad calls f with gradient computation enabled, inside a NoGrad, as
// torch.enable_grad does.
func EnableGrad(f func()) { withGrad(true, f) }

func withGrad(on bool, f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	was := shim.GradMode(on)
	defer shim.GradMode(was)
	f()
}

// InferenceMode calls f in inference mode: like NoGrad with less overhead, but
// tensors created in f can never be used in computations recorded by autograd.
func InferenceMode(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer shim.InferenceEnter(true)()
	f()
}

// Autocast calls f with matrix products and similar operators in a lower
// precision on one type of device, as torch.autocast does: BFloat16 on the CPU.
func Autocast(d DeviceType, dtype DType, f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	leave, err := shim.AutocastEnter(int(d), true, int(dtype))
	must("autocast", err)
	defer func() { must("autocast", leave()) }()
	f()
}

// OnDevice calls f with d as the default device of factory functions (Empty,
// Randn, nn.Linear …), as `with torch.device(d)` does. It must be called in a
// scope.
func OnDevice(d Device, f func()) {
	s := current()
	if s == nil {
		panic(noScope("OnDevice"))
	}
	was := s.device
	s.device = d
	onDevice.Add(1)
	defer func() { s.device = was; onDevice.Add(-1) }()
	f()
}

// onDevice is the number of OnDevices that run. Without one, a factory function need
// not ask for its scope.
var onDevice atomic.Int64

func noScope(op string) *Error {
	return &Error{Kind: RuntimeError, Op: op, Text: "called outside a scope; wrap the tensor code in torch.Scope(func() error { … })"}
}

// An Executor runs tensor code for many goroutines on one OS thread, one function
// at a time. libtorch has a thread pool for every OS thread that calls it, so
// heavy work should run on one OS thread per device.
type Executor struct {
	work    chan func()
	closing chan struct{} // closed by Close
	done    chan struct{} // closed when the thread has ended
	once    sync.Once
}

// NewExecutor starts an executor. Call Close to stop it.
func NewExecutor() *Executor {
	e := &Executor{work: make(chan func()), closing: make(chan struct{}), done: make(chan struct{})}
	go func() {
		// Never unlocked: the thread ends with its goroutine and takes
		// libtorch's per-thread state with it.
		runtime.LockOSThread()
		defer close(e.done)
		for {
			select {
			case f := <-e.work:
				f()
			case <-e.closing:
				return
			}
		}
	}()
	return e
}

// Do calls f in a Scope on the executor's thread, waits for it to return, and
// returns its error. A panic in f other than an operator's continues in the caller
// of Do. Do is safe for concurrent use; f must not call Do.
func (e *Executor) Do(f func() error) error {
	done := make(chan outcome, 1)
	work := func() {
		var o outcome
		returned := false
		defer func() {
			if !returned {
				// Goexit leaves nothing to recover, and the thread ends.
				if o.panicked = recover(); o.panicked == nil {
					return
				}
			}
			done <- o
		}()
		o.err = Scope(f)
		returned = true
	}
	select {
	case e.work <- work:
	case <-e.closing:
		return &Error{Kind: RuntimeError, Op: "executor", Text: "the executor is closed"}
	case <-e.done:
		return errEnded
	}
	select {
	case o := <-done:
		return o.result()
	case <-e.done:
	}
	select {
	case o := <-done: // f was the last function before Close
		return o.result()
	default:
		return errEnded
	}
}

// outcome is how a function of an executor ended.
type outcome struct {
	err      error
	panicked any
}

func (o outcome) result() error {
	if o.panicked != nil {
		panic(o.panicked)
	}
	return o.err
}

var errEnded = &Error{Kind: RuntimeError, Op: "executor", Text: "the thread has ended because a function called runtime.Goexit (as t.Fatal does)"}

// Close stops the executor after the running function has returned. A second
// Close does nothing.
func (e *Executor) Close() {
	e.once.Do(func() { close(e.closing) })
	<-e.done
}
