package distributed

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// When Options.Waiting is called.
const (
	firstWaiting = 5 * time.Second
	nextWaiting  = time.Minute
)

// waiting calls Options.Waiting until it is stopped.
type waiting struct {
	options Options
	mu      sync.Mutex
	address string // of the store, once it has been reached
	prefix  string // of the group's keys
	timer   *time.Timer
	stopped bool
}

func (w *waiting) start() {
	if w.options.Waiting != nil && w.options.WorldSize > 1 {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.timer = time.AfterFunc(firstWaiting, w.say)
	}
}

func (w *waiting) say() {
	text := w.text()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.stopped {
		w.options.Waiting(text)
		w.timer.Reset(nextWaiting)
	}
}

// stop ends the calls. None is made after it has returned.
func (w *waiting) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	if w.timer != nil {
		w.timer.Stop()
	}
}

// reached notes that the store has been reached, and the prefix of the group's keys in it.
func (w *waiting) reached(address, prefix string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.address, w.prefix = address, prefix
}

// text says for whom this process waits.
func (w *waiting) text() string {
	o := w.options
	w.mu.Lock()
	address := w.address
	w.mu.Unlock()
	if address == "" {
		return fmt.Sprintf("rank %d of %d: waiting for rank 0 at %s", o.Rank, o.WorldSize, net.JoinHostPort(o.MasterAddr, strconv.Itoa(o.MasterPort)))
	}
	return fmt.Sprintf("rank %d of %d: waiting for the other processes at %s%s", o.Rank, o.WorldSize, net.JoinHostPort(o.MasterAddr, strconv.Itoa(o.MasterPort)), w.missing())
}

// missing says which processes have not joined, and which have joined a group of another
// size, after ": "; it returns "" if that is not known.
func (w *waiting) missing() string {
	o := w.options
	w.mu.Lock()
	address, prefix := w.address, w.prefix
	w.mu.Unlock()
	list, err := members(address, o.MasterPort, prefix, o.WorldSize)
	if err != nil {
		return ""
	}
	var absent, other []string
	for rank, m := range list {
		switch m.size {
		case 0:
			absent = append(absent, strconv.Itoa(rank))
		case o.WorldSize:
		default:
			other = append(other, fmt.Sprintf("rank %d was started with WORLD_SIZE=%d", rank, m.size))
		}
	}
	if len(absent) > 0 {
		word := "rank"
		if len(absent) > 1 {
			word = "ranks"
		}
		other = append([]string{word + " " + strings.Join(absent, ", ") + " missing"}, other...)
	}
	if len(other) == 0 {
		return ""
	}
	return ": " + strings.Join(other, ", ")
}
