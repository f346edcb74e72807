package distributed_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"cyclecap/torch/distributed"
)

// A thread of Gloo that writes to a process that has ended must not end this
// one: it may not get SIGPIPE, which Go keeps from its own threads only.
func TestThreadsWithoutSigpipe(t *testing.T) {
	if !distributed.IsAvailable() {
		t.Skip("this libtorch has no c10d with Gloo")
	}
	g, err := distributed.InitProcessGroup(t.Context(), distributed.Options{WorldSize: 1, MasterAddr: "localhost", MasterPort: freePort(t), Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Skip(err)
	}
	own, loops := 0, 0
	for _, task := range tasks {
		text, err := os.ReadFile("/proc/self/task/" + task.Name() + "/status")
		if err != nil {
			continue // it has ended
		}
		var name string
		var blocked uint64
		for line := range strings.Lines(string(text)) {
			fmt.Sscanf(line, "Name: %s", &name)
			fmt.Sscanf(line, "SigBlk: %x", &blocked)
		}
		blocks := blocked&(1<<(uint(syscall.SIGPIPE)-1)) != 0
		switch {
		case strings.HasPrefix(name, "pt_gloo") || name == "pt_tcpstore":
			own++
			if !blocks {
				t.Errorf("a thread %s gets SIGPIPE", name)
			}
		case blocks && !strings.HasPrefix(name, "pt_"):
			loops++ // it has the program's name
		}
	}
	if own == 0 || loops == 0 {
		t.Errorf("%d threads of c10d and %d of Gloo's loops don't get SIGPIPE, want some of each", own, loops)
	}
}
