package torch

import (
	"runtime"
	"sync"
	"sync/atomic"

	"cyclecap/torch/internal/shim"
)

// A scope owns the tensors that are made on its OS thread while it is the
// innermost one, and frees them together when it ends.
type scope struct {
	id      int64
	parent  *scope
	owned   []*handle
	device  Device    // of factory functions that name none
	pointer []uintptr // scratch for freeing
}

// Scopes by id. The shim hands an operator's caller the id of its thread's
// scope; a slot is reused when its scope has ended.
var scopes struct {
	sync.Mutex
	free []int64
	slot [1 << 12]atomic.Pointer[scope]
	used int64
}

func enter() *scope {
	s := &scope{}
	if id := shim.Scope(); id != 0 {
		s.parent = scopes.slot[id].Load()
		s.device = s.parent.device
	}
	scopes.Lock()
	if n := len(scopes.free); n > 0 {
		s.id, scopes.free = scopes.free[n-1], scopes.free[:n-1]
	} else if scopes.used+1 < int64(len(scopes.slot)) {
		scopes.used++
		s.id = scopes.used
	}
	scopes.Unlock()
	if s.id == 0 {
		panic(&Error{Kind: RuntimeError, Op: "scope", Text: "4095 scopes are open at once: is one opened in an endless recursion?"})
	}
	scopes.slot[s.id].Store(s)
	shim.SetScope(s.id)
	return s
}

func (s *scope) leave() {
	for _, h := range s.owned {
		if h.scope == s {
			s.pointer = append(s.pointer, h.ptr)
			h.ptr, h.scope = 0, nil
		}
	}
	shim.Free(s.pointer)
	scopes.slot[s.id].Store(nil)
	var parent int64
	if s.parent != nil {
		parent = s.parent.id
	}
	shim.SetScope(parent)
	scopes.Lock()
	scopes.free = append(scopes.free, s.id)
	scopes.Unlock()
}

// current gives the scope of this OS thread, nil where there is none.
func current() *scope {
	if id := shim.Scope(); id != 0 {
		return scopes.slot[id].Load()
	}
	return nil
}

// Scope runs f and then frees every tensor that was made in it and was not
// kept (Tensor.Keep). While f runs its goroutine stays on one OS thread,
// since libtorch keeps its modes and its thread pool per OS thread. Tensors
// can only be made inside a scope; scopes nest.
//
// Scope returns f's error, or the *Error that an operator in f panicked with.
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

// Tidy runs f in a scope of its own inside the current one and gives back
// f's result, which moves to the current scope; all else that f made is freed
// at once. Use it around a layer whose intermediate results are large.
// An operator's panic goes on to the enclosing Scope.
func Tidy(f func() Tensor) Tensor {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	s := enter()
	defer s.leave()
	return f().Return()
}

// NoGrad runs f without recording operators for backward.
func NoGrad(f func()) { withGrad(false, f) }

// EnableGrad runs f with recording, inside of a NoGrad.
func EnableGrad(f func()) { withGrad(true, f) }

func withGrad(on bool, f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	was := shim.GradMode(on)
	defer shim.GradMode(was)
	f()
}

// InferenceMode runs f in libtorch's inference mode: like NoGrad, with less
// overhead, and its tensors can never take part in a backward.
func InferenceMode(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer shim.InferenceEnter(true)()
	f()
}

// Autocast runs f with matrix products and the like in a lower precision on
// one type of device, as torch.autocast does: BFloat16 on the CPU.
func Autocast(d DeviceType, dtype DType, f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	leave, err := shim.AutocastEnter(int(d), true, int(dtype))
	must("autocast", err)
	defer func() { must("autocast", leave()) }()
	f()
}

// OnDevice runs f with d as the device of factory functions (Empty, Randn,
// nn.Linear …) that name none, as `with torch.device(d)` does. It needs a
// scope.
func OnDevice(d Device, f func()) {
	s := current()
	if s == nil {
		panic(noScope("OnDevice"))
	}
	was := s.device
	s.device = d
	defer func() { s.device = was }()
	f()
}

func noScope(op string) *Error {
	return &Error{Kind: RuntimeError, Op: op, Text: "called outside of a scope; do tensor work in torch.Scope(func() error { … })"}
}

// An Executor is one OS thread that does tensor work for many goroutines, one
// piece at a time: libtorch keeps a pool of threads for every OS thread that
// calls it, so heavy work belongs on one of them per device.
type Executor struct {
	work    chan func()
	closing chan struct{} // closed by Close
	done    chan struct{} // closed when the thread has ended
	once    sync.Once
}

// NewExecutor starts an executor; Close ends it.
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

// Do runs f in a Scope on the executor's thread, waits for it and gives its
// error. Many goroutines may call it at once; f must not call Do itself.
func (e *Executor) Do(f func() error) error {
	result := make(chan error, 1)
	select {
	case e.work <- func() { result <- Scope(f) }:
	case <-e.closing:
		return &Error{Kind: RuntimeError, Op: "executor", Text: "it is closed"}
	case <-e.done:
		return errEnded
	}
	select {
	case err := <-result:
		return err
	case <-e.done:
	}
	select {
	case err := <-result: // the last work before Close
		return err
	default:
		return errEnded
	}
}

var errEnded = &Error{Kind: RuntimeError, Op: "executor", Text: "its thread has ended: work on it called runtime.Goexit (as t.Fatal does)"}

// Close ends the executor once the work in hand is done. A second Close does
// nothing.
func (e *Executor) Close() {
	e.once.Do(func() { close(e.closing) })
	<-e.done
}
