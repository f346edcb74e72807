package distributed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"cyclecap/torch"
	"cyclecap/torch/internal/libtorch"
	"cyclecap/torch/internal/shim"
)

// Group is a process group. A nil *Group is a group of only this process. The
// methods must not be called concurrently.
type Group struct {
	rank, size, local int
	timeout           time.Duration
	backend           string // Options.Backend
	decided           bool   // whether NCCL or Gloo transfers CUDA tensors

	mu   sync.Mutex // held during calls, so that Close waits for them
	c10d uintptr    // 0 if closed

	ear     *ear
	members []member        // of the group, if they are known
	alike   map[uint64]bool // lists of parameters known to be equal in all processes

	reducers map[*Reducer]bool // which are open
	stop     bool              // see WantStop
}

// ReduceOp is a reduction over the tensors of the processes.
type ReduceOp int

// The supported reductions.
const (
	Sum ReduceOp = iota
	Avg          // floating point only
)

// IsAvailable reports whether the libtorch in use includes c10d with Gloo.
func IsAvailable() bool { return shim.HasGroups() }

// InitProcessGroup joins the group and waits until all its processes have joined,
// until the timeout expires or ctx is done. If ctx is cancelled in one process, the
// others that have reached the rendezvous store return ErrInterrupted.
//
// Rank 0 hosts the rendezvous store on MasterPort; it listens only on the loopback
// interface if MasterAddr is a loopback address, and otherwise on all interfaces. Each
// process also listens for interruptions (Group.Context), on the address with which it
// reaches the store and any free port. The protocols are neither encrypted nor
// authenticated; use them only on a trusted network.
func InitProcessGroup(ctx context.Context, o Options) (*Group, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if !IsAvailable() {
		return nil, errors.New("distributed: the libtorch that the shim was built with has no c10d with Gloo, or lacks its headers; unset LIBTORCH and run `make build` to use one that has both")
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Minute
	}
	if o.Rendezvous == 0 {
		o.Rendezvous = o.Timeout
	}
	late := fmt.Errorf("no answer for %v", o.Rendezvous)
	ctx, stop := context.WithTimeoutCause(ctx, o.Rendezvous, late)
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &waiting{options: o}
	defer w.stop()
	w.start()
	where := net.JoinHostPort(o.MasterAddr, strconv.Itoa(o.MasterPort))
	fail := func(format string, args ...any) error {
		return fmt.Errorf("distributed: rank %d of %d: %w", o.Rank, o.WorldSize, fmt.Errorf(format, args...))
	}

	// Open and check the sockets here rather than in libtorch, whose attempts
	// cannot be interrupted and whose errors do not say what to do.
	listener := -1
	if o.Rank == 0 && !o.AgentStore {
		var err error
		switch listener, err = listen(o.MasterAddr, o.MasterPort); {
		case errors.Is(err, syscall.EADDRINUSE):
			return nil, fail("port %d is in use; set MASTER_PORT to a free port in every process", o.MasterPort)
		case err != nil:
			return nil, fail("cannot listen on port %d: %w", o.MasterPort, err)
		}
	}
	address, own, err := reach(ctx, where)
	if err != nil {
		if listener >= 0 {
			syscall.Close(listener)
			return nil, fail("listening on port %d, but cannot connect to %s: %w; set MASTER_ADDR to the host name or address of this machine", o.MasterPort, where, err)
		}
		return nil, fail("cannot connect to %s (MASTER_ADDR and MASTER_PORT): %w; check that rank 0 has been started there", where, err)
	}
	prefix := ""
	if o.AgentStore && o.WorldSize > 1 {
		if prefix, err = meet(ctx, address, o); err != nil {
			return nil, fail("cannot meet the other processes at %s: %w; check that all %d have been started", where, err, o.WorldSize)
		}
	}
	w.reached(address, prefix)
	e, err := listens(own)
	if err != nil {
		if listener >= 0 {
			syscall.Close(listener)
		}
		return nil, fail("cannot listen on %s: %w", own.IP, err)
	}
	// known returns the members that have come to the store.
	known := func() []member {
		list, _ := members(address, o.MasterPort, prefix, o.WorldSize)
		return list // none if its process has ended already
	}

	// If ctx is done before libtorch's call returns, the call continues in the
	// background.
	type result struct {
		c10d uintptr
		err  error
	}
	joined := make(chan result)
	go func() {
		g, err := shim.NewGroup(address, o.MasterPort, listener, o.Rank, o.WorldSize, strings.TrimSuffix(prefix, "/"), e.address(), o.Rendezvous, o.Timeout)
		select {
		case joined <- result{g, err}:
		case <-ctx.Done():
			if err == nil {
				shim.FreeGroup(g)
			}
		}
	}()
	select {
	case <-e.told:
		cancel(ErrInterrupted)
		e.close()
		return nil, fail("%w", ErrInterrupted)
	case <-ctx.Done():
		e.close()
		if cause := context.Cause(ctx); cause != late {
			tell(known(), o.Rank)
			return nil, fail("stopped waiting for the other processes at %s: %w", where, cause)
		}
		return nil, fail("not all processes joined at %s within %v%s; check that all %d have been started, with the same MASTER_ADDR, MASTER_PORT and WORLD_SIZE", where, o.Rendezvous, w.missing(), o.WorldSize)
	case r := <-joined:
		if r.err != nil {
			e.close()
			why := failed("init_process_group", r.err)
			if why.Kind != torch.DistError {
				return nil, fail("%w", why)
			}
			return nil, fail("not all processes joined at %s within %v: %w; check that all %d have been started, with the same MASTER_ADDR, MASTER_PORT and WORLD_SIZE", where, o.Rendezvous, why, o.WorldSize)
		}
		g := &Group{rank: o.Rank, size: o.WorldSize, local: o.LocalRank, timeout: o.Timeout, backend: o.Backend, c10d: r.c10d, ear: e, members: known(), alike: map[uint64]bool{}, reducers: map[*Reducer]bool{}}
		if o.Backend == NCCL {
			if err := g.decide(); err != nil {
				g.Close()
				return nil, fail("%w", err)
			}
		}
		e.peers.connect(g.members, o.Rank)
		return g, nil
	}
}

// decide opens NCCL, unless Gloo is to transfer CUDA tensors. It is called when NCCL
// is asked for, or with the first CUDA tensor.
func (g *Group) decide() error {
	if g.decided || g.backend == Gloo {
		return nil
	}
	n, why := torch.CUDADevices() // loads libtorch's CUDA part, which NCCL is in
	found, err := shim.OpenNCCL(g.c10d)
	switch {
	case !found && g.backend == NCCL:
		return fmt.Errorf("the shim was built without NCCL, because libtorch's CUDA libraries or NCCL's header nccl.h were missing; %s, then run %s; or use the backend %q", libtorch.CUDAAdvice(), libtorch.BuildCommand(), Gloo)
	case err != nil && n == 0:
		return fmt.Errorf("NCCL needs a GPU: %w", why)
	case err != nil:
		return fmt.Errorf("NCCL: %w", failed("init_process_group", err))
	}
	g.decided = true
	return nil
}

// listen opens the port and returns the socket, which the caller owns.
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

// reach dials where until a connection succeeds, and returns the IP addresses there and of
// this machine on the way there. It fails immediately if the host name does not exist.
func reach(ctx context.Context, where string) (address string, own net.TCPAddr, err error) {
	var last error
	for {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", where)
		if err == nil {
			defer c.Close()
			own = *c.LocalAddr().(*net.TCPAddr)
			own.Port = 0
			return c.RemoteAddr().(*net.TCPAddr).IP.String(), own, nil
		}
		var dns *net.DNSError
		if errors.As(err, &dns) && dns.IsNotFound {
			return "", own, err
		}
		// At the deadline, a dial may end before ctx does, and knows less than those before it.
		if end, has := ctx.Deadline(); ctx.Err() == nil && !(has && time.Now().After(end)) {
			last = err
		}
		select {
		case <-ctx.Done():
			if last != nil {
				return "", own, fmt.Errorf("%w (%w)", context.Cause(ctx), last)
			}
			return "", own, context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// glooSource matches the source position at the start of Gloo's messages.
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

// Rank returns the rank of this process, 0 to Size()-1.
func (g *Group) Rank() int {
	if g == nil {
		return 0
	}
	return g.rank
}

// LocalRank returns the rank of this process on its machine: the index of its
// GPU.
func (g *Group) LocalRank() int {
	if g == nil {
		return 0
	}
	return g.local
}

// Size returns the number of processes.
func (g *Group) Size() int {
	if g == nil {
		return 1
	}
	return g.size
}

// Close leaves the group, after waiting for a call in progress. Later calls by
// other processes fail. A second Close does nothing.
func (g *Group) Close() { g.Leave(nil) }

// Leave is Close for a process that ends with err. If that is neither nil nor an interruption, the others
// learn at once that this process has failed, or which one it has lost (see Context).
func (g *Group) Leave(err error) {
	if g == nil {
		return
	}
	g.ear.peers.close(err, g.rank)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.c10d != 0 {
		g.ear.close()
		for r := range g.reducers {
			r.free()
		}
		shim.FreeGroup(g.c10d)
		g.c10d = 0
	}
}

// call runs one collective operation on t (none for a barrier).
func (g *Group) call(op string, t torch.Tensor, f func(c10d uintptr) error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.c10d == 0 {
		return fmt.Errorf("distributed: %s: the group is closed", op)
	}
	if t.Defined() && t.Device().Type == torch.CUDADevice {
		if err := g.decide(); err != nil {
			return fmt.Errorf("distributed: %s: %w", op, err)
		}
	}
	err := f(g.c10d)
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
	return g.ear.peers.because(fmt.Errorf("distributed: rank %d of %d: %w; another process has ended, or is more than %v late; see its output for the cause", g.rank, g.size, e, g.timeout))
}

// AllReduce replaces t, in place and in every process, with the sum or the
// average of t over the processes. t must be contiguous.
func (g *Group) AllReduce(t torch.Tensor, op ReduceOp) error {
	if op != Sum && op != Avg {
		return fmt.Errorf("distributed: all_reduce: unknown reduction %d; must be Sum or Avg", op)
	}
	if g == nil {
		return nil
	}
	return g.call("all_reduce", t, func(c uintptr) error {
		return shim.Lend("all_reduce", func(p []uintptr) error { return shim.AllReduce(c, p[0], op == Avg) }, t)
	})
}

// Broadcast replaces t, in place and in every process, with the t of rank root.
// t must be contiguous.
func (g *Group) Broadcast(t torch.Tensor, root int) error {
	if root < 0 || root >= g.Size() {
		return fmt.Errorf("distributed: broadcast: root must be between 0 and %d, got %d", g.Size()-1, root)
	}
	if g == nil {
		return nil
	}
	return g.call("broadcast", t, func(c uintptr) error {
		return shim.Lend("broadcast", func(p []uintptr) error { return shim.Broadcast(c, p[0], root) }, t)
	})
}

// AllGather returns the t of every process in rank order, as new tensors. t must
// be contiguous.
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
	all := []any{t}
	for _, o := range out {
		all = append(all, o)
	}
	if err := g.call("all_gather", t, func(c uintptr) error {
		return shim.Lend("all_gather", func(p []uintptr) error { return shim.AllGather(c, p[0], p[1:]) }, all...)
	}); err != nil {
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

// Gather returns the values of every process in rank order. They travel as JSON, which keeps the bits of
// finite numbers.
func Gather[T any](g *Group, v T) ([]T, error) {
	if g.Size() == 1 {
		return []T{v}, nil
	}
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	all, err := g.AllGatherBytes(text)
	if err != nil {
		return nil, err
	}
	list := make([]T, len(all))
	for rank, text := range all {
		if err := json.Unmarshal(text, &list[rank]); err != nil {
			return nil, fmt.Errorf("the value of rank %d: %w", rank, err)
		}
	}
	return list, nil
}

// AllGatherBytes returns the data of every process in rank order. They may have different lengths.
func (g *Group) AllGatherBytes(data []byte) (all [][]byte, err error) {
	if g.Size() == 1 {
		return [][]byte{data}, nil
	}
	err = torch.Scope(func() error {
		lengths, err := g.AllGather(torch.FromSlice([]int64{int64(len(data))}))
		if err != nil {
			return err
		}
		sizes := make([]int64, len(lengths))
		for i, t := range lengths {
			sizes[i] = torch.ToSlice[int64](t)[0]
		}
		most := slices.Max(sizes)
		if most == 0 {
			all = make([][]byte, g.size)
			return nil
		}
		parts, err := g.AllGather(torch.FromSlice(append(slices.Clip(data), make([]byte, most-int64(len(data)))...)))
		if err != nil {
			return err
		}
		for i, t := range parts {
			all = append(all, torch.ToSlice[uint8](t)[:sizes[i]])
		}
		return nil
	})
	return all, err
}
