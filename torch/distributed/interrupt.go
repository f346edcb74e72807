package distributed

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"cyclecap/torch/internal/shim"
)

// ErrInterrupted is the error of a process that ends because another process of its group was
// interrupted. It is a context.Canceled.
var ErrInterrupted = fmt.Errorf("another process was interrupted: %w", context.Canceled)

// How long a look at the store, and a message to another process, may take.
const (
	storeTimeout   = 3 * time.Second
	messageTimeout = time.Second
)

// A member is a process that has joined or is joining a group.
type member struct {
	size    int    // of the group that it asked for; 0 if it has not come
	address string // at which it hears of interruptions; "" if it is not one of ours
}

// members returns those that the rendezvous store knows, by rank.
func members(address string, port int, prefix string, size int) ([]member, error) {
	type result struct {
		list []member
		err  error
	}
	done := make(chan result, 1)
	// libtorch waits without end for the first answer.
	go func() {
		list, err := look(address, port, prefix, size)
		done <- result{list, err}
	}()
	select {
	case r := <-done:
		return r.list, r.err
	case <-time.After(storeTimeout):
		return nil, errors.New("the rendezvous store does not answer")
	}
}

func look(address string, port int, prefix string, size int) ([]member, error) {
	s, err := shim.OpenStore(address, port, storeTimeout)
	if err != nil {
		return nil, err
	}
	defer shim.CloseStore(s)
	list := make([]member, size)
	for rank := range list {
		text, err := shim.StoreGet(s, prefix+"cyclecap/joined/"+strconv.Itoa(rank))
		if err != nil {
			return nil, err
		}
		number, address, _ := strings.Cut(text, " ")
		list[rank].size, _ = strconv.Atoi(number)
		list[rank].address = address
	}
	return list, nil
}

// An ear hears of the interruption of another process, and of its end. It has a socket of its own,
// because the group's operations and its store wait for processes that may hang.
type ear struct {
	listener net.Listener
	told     chan struct{} // closed when another process was interrupted
	once     sync.Once
	peers    *peers // to which connections that stay open belong
}

// listens returns an ear at an address of this machine.
func listens(at net.TCPAddr) (*ear, error) {
	l, err := net.ListenTCP("tcp", &at)
	if err != nil {
		return nil, err
	}
	e := &ear{listener: l, told: make(chan struct{}), peers: newPeers()}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			go e.hear(c)
		}
	}()
	return e, nil
}

// message is what an interrupted process sends to the others.
const message = "cyclecap: interrupted"

func (e *ear) hear(c net.Conn) {
	c.SetDeadline(time.Now().Add(messageTimeout))
	in := bufio.NewReader(c)
	line, err := readLine(in)
	if number, found := strings.CutPrefix(line, helloMessage); found && err == nil {
		if rank, err := strconv.Atoi(number); err == nil {
			c.SetDeadline(time.Time{})
			e.peers.watch(c, in, rank)
			return
		}
	}
	if line == message && err == nil {
		e.once.Do(func() { close(e.told) })
	}
	c.Close()
}

func (e *ear) address() string { return e.listener.Addr().String() }

func (e *ear) close() { e.listener.Close() }

// tell tells the others that this process was interrupted.
func tell(others []member, rank int) {
	var wait sync.WaitGroup
	for i, m := range others {
		if i == rank || m.address == "" {
			continue
		}
		wait.Go(func() {
			c, err := net.DialTimeout("tcp", m.address, messageTimeout)
			if err != nil {
				return // it has ended
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(messageTimeout))
			io.WriteString(c, message+"\n")
		})
	}
	wait.Wait()
}

// Context returns a context that is cancelled when ctx is cancelled in any process of the
// group, with the cause ErrInterrupted if it was in another one, and when another process ends without
// leaving the group, with a *LostError as the cause. A process learns it also while it computes, or
// waits for another one that hangs. stop frees what the context uses.
func (g *Group) Context(ctx context.Context) (shared context.Context, stop context.CancelFunc) {
	if g == nil {
		return context.WithCancel(ctx)
	}
	shared, cancel := context.WithCancelCause(ctx)
	stopped := make(chan struct{})
	go func() {
		select {
		case <-ctx.Done():
			tell(g.members, g.rank)
		case <-g.ear.told:
			cancel(ErrInterrupted)
		case <-g.ear.peers.lost:
			cancel(g.ear.peers.err)
		case <-stopped:
		}
	}()
	return shared, sync.OnceFunc(func() {
		close(stopped)
		cancel(nil)
	})
}
