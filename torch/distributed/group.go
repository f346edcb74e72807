package distributed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"cyclecap/torch"
	"cyclecap/torch/internal/shim"
)

// Group is the processes that compute together. A nil *Group is this process
// alone. Its methods are for one goroutine at a time.
type Group struct {
	rank, size, local int
	timeout           time.Duration

	mu   sync.Mutex // held during calls, so that Close waits for them
	c10d uintptr    // 0: closed

	alike map[uint64]bool // lists of parameters that all processes share
}

// ReduceOp is what AllReduce does with the processes' tensors.
type ReduceOp int

// The reductions.
const (
	Sum ReduceOp = iota
	Avg          // floating point only
)

// IsAvailable tells whether the libtorch in use has c10d with Gloo.
func IsAvailable() bool { return shim.HasGroups() }

// InitProcessGroup joins the group and waits until all its processes have: up
// to the timeout, or until ctx ends. Rank 0 serves the meeting point at
// MasterPort, on the loopback interface alone where MasterAddr is one of its
// addresses. Nothing in the protocol is secret: use a network that you trust.
func InitProcessGroup(ctx context.Context, o Options) (*Group, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if !IsAvailable() {
		return nil, errors.New("distributed: the libtorch that this program was built with has no c10d with Gloo, or no headers of it; `make build` without LIBTORCH takes one that has both")
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Minute
	}
	where := net.JoinHostPort(o.MasterAddr, strconv.Itoa(o.MasterPort))
	fail := func(format string, args ...any) error {
		return fmt.Errorf("distributed: rank %d of %d: %w", o.Rank, o.WorldSize, fmt.Errorf(format, args...))
	}

	// Sockets are opened and tried here rather than in libtorch, whose
	// attempts can't be interrupted and whose errors don't say what to do.
	listener := -1
	if o.Rank == 0 && !o.AgentStore {
		var err error
		switch listener, err = listen(o.MasterAddr, o.MasterPort); {
		case errors.Is(err, syscall.EADDRINUSE):
			return nil, fail("port %d is in use; set MASTER_PORT to a free one, in every process", o.MasterPort)
		case err != nil:
			return nil, fail("port %d can't be opened: %w", o.MasterPort, err)
		}
	}
	address, err := reach(ctx, where, o.Timeout)
	if err != nil {
		if listener >= 0 {
			syscall.Close(listener)
			return nil, fail("it serves port %d, but does not reach itself at %s: %w; set MASTER_ADDR to a name or an address of this machine", o.MasterPort, where, err)
		}
		return nil, fail("the meeting point %s (MASTER_ADDR, MASTER_PORT) is not reached: %w; has rank 0 been started there?", where, err)
	}

	// libtorch's call ends with the timeout at the latest. Where ctx ends
	// first, it is left to end alone.
	type result struct {
		c10d uintptr
		err  error
	}
	joined := make(chan result)
	go func() {
		g, err := shim.NewGroup(address, o.MasterPort, listener, o.Rank, o.WorldSize, o.Timeout)
		select {
		case joined <- result{g, err}:
		case <-ctx.Done():
			if err == nil {
				shim.FreeGroup(g)
			}
		}
	}()
	select {
	case <-ctx.Done():
		return nil, fail("it waited at %s for the others: %w", where, context.Cause(ctx))
	case r := <-joined:
		if r.err != nil {
			e := failed("init_process_group", r.err)
			if e.Kind != torch.DistError {
				return nil, fail("%w", e)
			}
			return nil, fail("the processes did not meet at %s within %v: %w; have all %d been started, with the same MASTER_ADDR, MASTER_PORT and WORLD_SIZE?", where, o.Timeout, e, o.WorldSize)
		}
		return &Group{rank: o.Rank, size: o.WorldSize, local: o.LocalRank, timeout: o.Timeout, c10d: r.c10d, alike: map[uint64]bool{}}, nil
	}
}

// listen opens the port and gives the socket, which the caller owns.
func listen(host string, port int) (int, error) {
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		host = "" // every interface
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return -1, err
	}
	defer l.Close()
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	var dup syscall.Errno
	if err := raw.Control(func(own uintptr) {
		var n uintptr
		n, _, dup = syscall.Syscall(syscall.SYS_FCNTL, own, syscall.F_DUPFD_CLOEXEC, 0)
		fd = int(n)
	}); err != nil {
		return -1, err
	}
	if dup != 0 {
		return -1, dup
	}
	return fd, nil
}

// reach dials where until somebody answers, and gives the IP address that did.
// A name that does not exist ends it at once.
func reach(ctx context.Context, where string, timeout time.Duration) (string, error) {
	late := fmt.Errorf("no answer for %v", timeout)
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, late)
	defer cancel()
	var last error
	for {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", where)
		if err == nil {
			defer c.Close()
			return c.RemoteAddr().(*net.TCPAddr).IP.String(), nil
		}
		var dns *net.DNSError
		if errors.As(err, &dns) && dns.IsNotFound {
			return "", err
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			if last != nil {
				return "", fmt.Errorf("%w (%w)", context.Cause(ctx), last)
			}
			return "", context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// glooSource is the place in Gloo's source that its messages begin with.
var glooSource = regexp.MustCompile(`^\[\S*:\d+\] `)

// failed turns the shim's error into a torch.Error.
func failed(op string, err error) *torch.Error {
	e := &torch.Error{Kind: torch.RuntimeError, Op: op, Text: err.Error()}
	var s *shim.Error
	if errors.As(err, &s) {
		e.Kind, e.Text = torch.Kind(s.Kind), glooSource.ReplaceAllString(strings.TrimSpace(s.Text), "")
	}
	return e
}

// Rank is this process's number, 0 to Size()-1.
func (g *Group) Rank() int {
	if g == nil {
		return 0
	}
	return g.rank
}

// LocalRank is this process's number on its machine: the index of its GPU.
func (g *Group) LocalRank() int {
	if g == nil {
		return 0
	}
	return g.local
}

// Size is the number of processes.
func (g *Group) Size() int {
	if g == nil {
		return 1
	}
	return g.size
}

// Close leaves the group, after a call in progress. Calls that other processes
// then make to it fail. A second Close does nothing.
func (g *Group) Close() {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.c10d != 0 {
		shim.FreeGroup(g.c10d)
		g.c10d = 0
	}
}

// call runs one collective on t (none for a barrier).
func (g *Group) call(op string, t torch.Tensor, f func(c10d uintptr) error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.c10d == 0 {
		return fmt.Errorf("distributed: %s: the group is closed", op)
	}
	err := f(g.c10d)
	runtime.KeepAlive(t)
	if err == nil {
		return nil
	}
	e := failed(op, err)
	if t.Defined() {
		e.Args = fmt.Sprintf("%v%v", t.DType(), t.Shape())
	}
	if e.Kind != torch.DistError {
		return fmt.Errorf("distributed: %w", e)
	}
	return fmt.Errorf("distributed: rank %d of %d: %w; another process has ended, or is more than %v late: its own output tells why", g.rank, g.size, e, g.timeout)
}

// AllReduce replaces t, in place and in every process, by the sum or the
// average of the processes' t. t must be contiguous.
func (g *Group) AllReduce(t torch.Tensor, op ReduceOp) error {
	if op != Sum && op != Avg {
		return fmt.Errorf("distributed: all_reduce: reduction %d is unknown; there are Sum and Avg", op)
	}
	if g == nil {
		return nil
	}
	p := shim.HandleOf("all_reduce", t)
	return g.call("all_reduce", t, func(c uintptr) error { return shim.AllReduce(c, p, op == Avg) })
}

// Broadcast replaces t, in place and in every process, by the t of rank root.
// t must be contiguous.
func (g *Group) Broadcast(t torch.Tensor, root int) error {
	if root < 0 || root >= g.Size() {
		return fmt.Errorf("distributed: broadcast: there is no rank %d; there are 0 to %d", root, g.Size()-1)
	}
	if g == nil {
		return nil
	}
	p := shim.HandleOf("broadcast", t)
	return g.call("broadcast", t, func(c uintptr) error { return shim.Broadcast(c, p, root) })
}

// AllGather gives the processes' t by rank, as new tensors. t must be
// contiguous.
func (g *Group) AllGather(t torch.Tensor) ([]torch.Tensor, error) {
	out := make([]torch.Tensor, g.Size())
	torch.NoGrad(func() {
		for i := range out {
			out[i] = t.EmptyLike()
		}
		if g == nil {
			out[0].Copy_(t)
		}
	})
	if g == nil {
		return out, nil
	}
	p, outs := shim.HandleOf("all_gather", t), make([]uintptr, len(out))
	for i, o := range out {
		outs[i] = shim.HandleOf("all_gather", o)
	}
	if err := g.call("all_gather", t, func(c uintptr) error { return shim.AllGather(c, p, outs) }); err != nil {
		return nil, err
	}
	return out, nil
}

// Barrier waits until every process has called it.
func (g *Group) Barrier() error {
	if g == nil {
		return nil
	}
	return g.call("barrier", torch.Tensor{}, shim.Barrier)
}
