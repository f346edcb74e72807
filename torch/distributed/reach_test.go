package distributed

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"time"
)

// early is a context whose deadline is before it is done.
type early struct {
	context.Context
	at time.Time
}

func (e early) Deadline() (time.Time, bool) { return e.at, true }

// What a dial says that the deadline ends does not take the place of why those before it failed.
func TestReachSaysWhy(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // nobody listens there now
	late := errors.New("late")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 900*time.Millisecond, late)
	defer cancel()
	_, _, err = reach(early{ctx, time.Now().Add(300 * time.Millisecond)}, l.Addr().String())
	if !errors.Is(err, late) || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v, want that it was late and that the connection was refused", err)
	}
}
