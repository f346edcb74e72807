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
	"syscall"
	"time"
)

// A LostError says that another process of the group has ended before it left the group. It is the
// cause of the contexts of Group.Context then, and is among the errors of the calls that fail for it.
type LostError struct {
	Rank   int
	Failed bool // whether it said that it has failed, rather than being killed
	Silent bool // whether it, or its machine, no longer answers
}

func (e *LostError) Error() string {
	if e.Silent {
		return fmt.Sprintf("rank %d no longer answers: its machine, or the network between, may be down", e.Rank)
	}
	if e.Failed {
		return fmt.Sprintf("rank %d has failed; see its output for the cause", e.Rank)
	}
	return fmt.Sprintf("rank %d has ended without leaving the group: it may have been killed; see its output, or its machine's log, for the cause", e.Rank)
}

// The messages between two processes, each a line.
const (
	helloMessage  = "cyclecap: rank "        // and its rank: the first on a connection that stays open
	leaveMessage  = "cyclecap: leaving"      // the end of such a connection is no loss
	failedMessage = "cyclecap: failed "      // and the rank of the process whose error ends this one
	lostMessage   = "cyclecap: lost rank "   // and the rank of the process whose loss ends this one
	silentMessage = "cyclecap: silent rank " // and the rank of the process that no longer answers
)

// A connection to a machine that no longer answers is lost after silence + probes * every.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 5 * time.Second, Count: 3}

// lostWait is how long a call that has failed waits to learn which process was lost.
const lostWait = 2 * time.Second

// peers are the connections to the other processes of a group. They carry nothing while all is well: the
// end of one says that the process at its other end has ended, also while this process computes.
type peers struct {
	mu     sync.Mutex
	conns  []net.Conn
	closed bool
	lost   chan struct{} // closed when a process was lost, or has failed
	err    *LostError    // set before lost is closed
}

func newPeers() *peers { return &peers{lost: make(chan struct{})} }

// connect dials those of lower ranks; the others dial this process. A process that cannot be reached is
// not watched: it may be Python's, or behind a network that only Gloo knows how to pass.
func (p *peers) connect(members []member, rank int) {
	var wait sync.WaitGroup
	for i, m := range members {
		if i >= rank || m.address == "" {
			continue
		}
		wait.Go(func() {
			c, err := net.DialTimeout("tcp", m.address, storeTimeout)
			if err != nil {
				return
			}
			if _, err := io.WriteString(c, helloMessage+strconv.Itoa(rank)+"\n"); err != nil {
				c.Close()
				return
			}
			go p.watch(c, bufio.NewReader(c), i)
		})
	}
	wait.Wait()
}

// watch waits for the end of a connection to a process.
func (p *peers) watch(c net.Conn, in *bufio.Reader, rank int) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		c.Close()
		return
	}
	p.conns = append(p.conns, c)
	p.mu.Unlock()
	if t, ok := c.(*net.TCPConn); ok {
		t.SetKeepAliveConfig(keepAlive)
	}
	line, err := readLine(in)
	for prefix, e := range map[string]LostError{failedMessage: {Failed: true}, lostMessage: {}, silentMessage: {Silent: true}} {
		number, found := strings.CutPrefix(line, prefix)
		if of, err := strconv.Atoi(number); found && err == nil {
			e.Rank = of
			p.fail(&e)
			return
		}
	}
	if err != nil {
		// What the system says of a machine that has not answered, other than the end of a process.
		var network *net.OpError
		p.fail(&LostError{Rank: rank, Silent: errors.As(err, &network) && !errors.Is(err, syscall.ECONNRESET)})
	}
}

// readLine reads a message of this protocol, without its end.
func readLine(in *bufio.Reader) (string, error) {
	line, err := in.ReadSlice('\n') // no longer than the buffer
	return strings.TrimSuffix(string(line), "\n"), err
}

func (p *peers) fail(e *LostError) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.err != nil {
		return
	}
	p.err = e
	close(p.lost)
}

// close ends the connections, with a message that says why this process of a rank ends.
func (p *peers) close(err error, rank int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.closed = true
	if err != nil && p.err != nil {
		err = p.err // what fails after a loss fails because of it
	}
	message := farewell(err, rank)
	for _, c := range p.conns {
		c.SetDeadline(time.Now().Add(messageTimeout))
		io.WriteString(c, message+"\n")
		c.Close()
	}
}

// because adds to the error of a call which process was lost, if that is known soon.
func (p *peers) because(err error) error {
	select {
	case <-p.lost:
		return fmt.Errorf("%w (%w)", p.err, err)
	case <-time.After(lostWait):
		return err
	}
}

// farewell returns the message of a process that leaves with an error, or nil.
func farewell(err error, rank int) string {
	var lost *LostError
	switch {
	case err == nil || errors.Is(err, context.Canceled): // the others know of an interruption
		return leaveMessage
	case errors.As(err, &lost) && lost.Failed:
		return failedMessage + strconv.Itoa(lost.Rank)
	case errors.As(err, &lost) && lost.Silent:
		return silentMessage + strconv.Itoa(lost.Rank)
	case errors.As(err, &lost):
		return lostMessage + strconv.Itoa(lost.Rank)
	}
	return failedMessage + strconv.Itoa(rank)
}
