package cuda

import (
	"runtime"

	"cyclecap/torch"
	"cyclecap/torch/internal/shim"
)

// A Stream is a queue of work on a device, torch.cuda.Stream. Work on different
// streams may run at the same time. The zero value is not usable.
type Stream struct{ s shim.Stream }

// NewStream returns a stream of d from libtorch's pool of 32 streams; it need not
// be freed.
func NewStream(d torch.Device) (Stream, error) {
	if err := check("cuda.Stream", d); err != nil {
		return Stream{}, err
	}
	s, err := shim.NewStream(int(d.Type), d.Index, false)
	return Stream{s}, wrap("cuda.Stream", err)
}

// CurrentStream returns the stream of d on which the calling OS thread launches
// work. Call it in a torch.Scope, which keeps the goroutine on its OS thread.
func CurrentStream(d torch.Device) (Stream, error) {
	if err := check("cuda.current_stream", d); err != nil {
		return Stream{}, err
	}
	s, err := shim.CurrentStream(int(d.Type), d.Index)
	return Stream{s}, wrap("cuda.current_stream", err)
}

// On calls f with s as the current stream, as `with torch.cuda.stream(s)` does. A
// tensor that was computed on another stream may be used in f only after s waits
// for that work (Wait), and must not be freed before f's work is done.
func (s Stream) On(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	was, err := shim.CurrentStream(s.s.DeviceType, s.s.DeviceIndex)
	if err == nil {
		err = shim.SetStream(s.s)
	}
	if err != nil {
		return wrap("cuda.stream", err)
	}
	defer shim.SetStream(was)
	return f()
}

// Synchronize waits until the work on s is done.
func (s Stream) Synchronize() error {
	return wrap("cuda.Stream.synchronize", shim.SynchronizeStream(s.s))
}

// Wait makes the work launched on s from now on wait for the work on other so far,
// without blocking the host (wait_stream).
func (s Stream) Wait(other Stream) error {
	e, err := shim.NewEvent(other.s.DeviceType, false)
	if err == nil {
		defer shim.FreeEvent(e)
		if err = shim.RecordEvent(e, other.s); err == nil {
			err = shim.WaitEvent(e, s.s)
		}
	}
	return wrap("cuda.Stream.wait_stream", err)
}

// An Event marks a point in the work of a stream, torch.cuda.Event with
// enable_timing. Close frees it.
type Event struct{ p uintptr }

// NewEvent returns an event.
func NewEvent() (*Event, error) {
	p, err := shim.NewEvent(int(torch.CUDADevice), true)
	return &Event{p}, wrap("cuda.Event", err)
}

// Record marks the present end of the work on s.
func (e *Event) Record(s Stream) error {
	return wrap("cuda.Event.record", shim.RecordEvent(e.p, s.s))
}

// Synchronize waits until the work before the mark is done.
func (e *Event) Synchronize() error {
	return wrap("cuda.Event.synchronize", shim.SynchronizeEvent(e.p))
}

// Elapsed returns the milliseconds of device time between e and a later event. Both
// must be recorded, and the later one synchronized.
func (e *Event) Elapsed(later *Event) (float64, error) {
	ms, err := shim.Elapsed(e.p, later.p)
	return ms, wrap("cuda.Event.elapsed_time", err)
}

// Close frees the event.
func (e *Event) Close() {
	shim.FreeEvent(e.p)
	e.p = 0
}
