package distributed

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Options say who this process is and where the group meets.
type Options struct {
	Rank       int    // RANK: this process, 0 to WorldSize-1
	LocalRank  int    // LOCAL_RANK: the same among the processes of this machine
	WorldSize  int    // WORLD_SIZE: how many processes there are
	MasterAddr string // MASTER_ADDR: a name or an address of the machine of rank 0
	MasterPort int    // MASTER_PORT: a free TCP port there

	// AgentStore (TORCHELASTIC_USE_AGENT_STORE) says that the launcher serves
	// the meeting point, as torchrun does, and not rank 0.
	AgentStore bool

	// Timeout is how long this process waits for the others, when they meet
	// and in each call; 0 is PyTorch's 30 minutes.
	Timeout time.Duration
}

// ErrNotLaunched is FromEnv's error in a process that no launcher started.
var ErrNotLaunched = errors.New("distributed: RANK, LOCAL_RANK and WORLD_SIZE are not set: no launcher, such as torchrun, has started this process")

// FromEnv reads the variables that torchrun sets: RANK, LOCAL_RANK,
// WORLD_SIZE, MASTER_ADDR and MASTER_PORT. The error names each one that is
// missing or wrong. It is ErrNotLaunched where the first three are all missing.
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
			wrong = append(wrong, fmt.Sprintf("%s is %q, not a number", name, v))
		}
		return n
	}
	o.Rank, o.LocalRank, o.WorldSize = number("RANK"), number("LOCAL_RANK"), number("WORLD_SIZE")
	o.MasterAddr, o.MasterPort = text("MASTER_ADDR"), number("MASTER_PORT")
	o.AgentStore = os.Getenv("TORCHELASTIC_USE_AGENT_STORE") == "True"
	if len(missing) > 0 {
		wrong = append([]string{strings.Join(missing, ", ") + " not set; torchrun, or another launcher, sets them"}, wrong...)
	}
	if len(wrong) > 0 {
		return Options{}, fmt.Errorf("distributed: environment: %s", strings.Join(wrong, "; "))
	}
	if err := o.check(); err != nil {
		return Options{}, err
	}
	return o, nil
}

// check reports settings that can't be right.
func (o Options) check() error {
	var wrong []string
	refuse := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	if o.WorldSize < 1 {
		refuse("WORLD_SIZE is %d; it must be at least 1", o.WorldSize)
	} else {
		if o.Rank < 0 || o.Rank >= o.WorldSize {
			refuse("RANK is %d; with a WORLD_SIZE of %d it must be 0 to %d", o.Rank, o.WorldSize, o.WorldSize-1)
		}
		if o.LocalRank < 0 || o.LocalRank >= o.WorldSize {
			refuse("LOCAL_RANK is %d; with a WORLD_SIZE of %d it must be 0 to %d", o.LocalRank, o.WorldSize, o.WorldSize-1)
		}
	}
	if o.MasterAddr == "" {
		refuse("MASTER_ADDR is empty; it is a name or an address of the machine of rank 0")
	}
	if o.MasterPort < 1 || o.MasterPort > 65535 {
		refuse("MASTER_PORT is %d; it must be 1 to 65535", o.MasterPort)
	}
	if o.Timeout < 0 {
		refuse("Timeout is %v", o.Timeout)
	}
	if len(wrong) > 0 {
		return fmt.Errorf("distributed: %s", strings.Join(wrong, "; "))
	}
	return nil
}
