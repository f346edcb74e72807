package distributed

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Backends for CUDA tensors.
const (
	Gloo = "gloo"
	NCCL = "nccl"
)

// Options identify this process and the rendezvous of the group.
type Options struct {
	Rank       int    // RANK: rank of this process, 0 to WorldSize-1
	LocalRank  int    // LOCAL_RANK: rank among the processes on this machine
	WorldSize  int    // WORLD_SIZE: number of processes
	MasterAddr string // MASTER_ADDR: host name or address of the machine of rank 0
	MasterPort int    // MASTER_PORT: a free TCP port on that machine

	// AgentStore (TORCHELASTIC_USE_AGENT_STORE) is set if the launcher hosts
	// the rendezvous store, as torchrun does, instead of rank 0.
	AgentStore bool

	// Backend transfers CUDA tensors: NCCL from GPU to GPU, or Gloo, which copies
	// them through the host. If it is "", NCCL does if the shim was built with it,
	// and Gloo otherwise. CPU tensors are always transferred by Gloo. All processes
	// need the same backend.
	Backend string

	// Timeout is how long this process waits for the others in each call. 0 means
	// PyTorch's default of 30 minutes.
	Timeout time.Duration
	// Rendezvous is how long it waits until all have joined; 0 means Timeout.
	Rendezvous time.Duration
	// Waiting is called, if it is not nil, while this process waits for others to join:
	// after 5 seconds and then every minute, with a text that says which are missing. It
	// may be called on another goroutine, but not after InitProcessGroup has returned.
	Waiting func(text string)
}

// ErrNotLaunched is returned by FromEnv if the process was not started by a
// launcher.
var ErrNotLaunched = errors.New("distributed: RANK, LOCAL_RANK and WORLD_SIZE are not set: this process was not started by a launcher such as torchrun")

// FromEnv reads the environment variables that torchrun sets: RANK, LOCAL_RANK,
// WORLD_SIZE, MASTER_ADDR and MASTER_PORT. The error names every variable that
// is missing or invalid. It is ErrNotLaunched if the first three are all missing.
func FromEnv() (Options, error) {
	if os.Getenv("RANK") == "" && os.Getenv("LOCAL_RANK") == "" && os.Getenv("WORLD_SIZE") == "" {
		return Options{}, ErrNotLaunched
	}
	var o Options
	var missing, wrong []string
	text := func(name string) string {
		v := os.Getenv(name)
		if v == "" {
			missing = append(missing, name)
		}
		return v
	}
	number := func(name string) int {
		v := text(name)
		n, err := strconv.Atoi(v)
		if v != "" && err != nil {
			wrong = append(wrong, fmt.Sprintf("%s must be a number, got %q", name, v))
		}
		return n
	}
	o.Rank, o.LocalRank, o.WorldSize = number("RANK"), number("LOCAL_RANK"), number("WORLD_SIZE")
	o.MasterAddr, o.MasterPort = text("MASTER_ADDR"), number("MASTER_PORT")
	o.AgentStore = os.Getenv("TORCHELASTIC_USE_AGENT_STORE") == "True"
	if len(missing) > 0 {
		wrong = append([]string{strings.Join(missing, ", ") + " not set; start the process with torchrun or another launcher"}, wrong...)
	}
	if len(wrong) > 0 {
		return Options{}, fmt.Errorf("distributed: environment: %s", strings.Join(wrong, "; "))
	}
	if err := o.check(); err != nil {
		return Options{}, err
	}
	return o, nil
}

// check reports invalid options.
func (o Options) check() error {
	var wrong []string
	refuse := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	if o.WorldSize < 1 {
		refuse("WORLD_SIZE must be at least 1, got %d", o.WorldSize)
	} else {
		if o.Rank < 0 || o.Rank >= o.WorldSize {
			refuse("RANK must be between 0 and %d for a WORLD_SIZE of %d, got %d", o.WorldSize-1, o.WorldSize, o.Rank)
		}
		if o.LocalRank < 0 || o.LocalRank >= o.WorldSize {
			refuse("LOCAL_RANK must be between 0 and %d for a WORLD_SIZE of %d, got %d", o.WorldSize-1, o.WorldSize, o.LocalRank)
		}
	}
	if o.MasterAddr == "" {
		refuse("MASTER_ADDR must be the host name or address of the machine of rank 0, got an empty string")
	}
	if o.MasterPort < 1 || o.MasterPort > 65535 {
		refuse("MASTER_PORT must be between 1 and 65535, got %d", o.MasterPort)
	}
	if o.Backend != "" && o.Backend != Gloo && o.Backend != NCCL {
		refuse("Backend must be %q, %q or empty, got %q", Gloo, NCCL, o.Backend)
	}
	if o.Timeout < 0 {
		refuse("Timeout must not be negative, got %v", o.Timeout)
	}
	if o.Rendezvous < 0 {
		refuse("Rendezvous must not be negative, got %v", o.Rendezvous)
	}
	if len(wrong) > 0 {
		return fmt.Errorf("distributed: %s", strings.Join(wrong, "; "))
	}
	return nil
}
