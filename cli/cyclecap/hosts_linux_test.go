package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Two hosts are network namespaces with an interface each, which a cable connects.
type hosts struct {
	names   [2]string
	address string // of the first
	cable   *cable
}

// hostInterface is the name of the interface of each host.
const hostInterface = "cable0"

// newHosts makes two hosts, or skips the test where the user is not allowed to.
func newHosts(t *testing.T, q quality) *hosts {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("there is no ip (Debian package iproute2), which makes network namespaces")
	}
	// A network that a machine is unlikely to use.
	h := &hosts{address: "198.18.77.1"}
	for i := range h.names {
		h.names[i] = fmt.Sprintf("cyclecap-test-%d-%d", os.Getpid(), i)
		if out, err := exec.Command("ip", "netns", "add", h.names[i]).CombinedOutput(); err != nil {
			t.Skipf("this user may not make network namespaces (ip netns add; root may): %v: %s", err, out)
		}
		t.Cleanup(func() { exec.Command("ip", "netns", "del", h.names[i]).Run() })
	}
	h.cable = newCable(t, h.names, hostInterface, q)
	for i := range h.names {
		h.ip(t, i, "addr", "add", fmt.Sprintf("198.18.77.%d/24", i+1), "dev", hostInterface)
		h.ip(t, i, "link", "set", hostInterface, "up")
		h.ip(t, i, "link", "set", "lo", "up")
	}
	return h
}

// ip runs the command ip on a host.
func (h *hosts) ip(t *testing.T, host int, args ...string) {
	t.Helper()
	args = append([]string{"-n", h.names[host]}, args...)
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// start starts a command with a process on each host.
func (h *hosts) start(t *testing.T, folder string, sets []string, command ...string) (commands []*exec.Cmd, said []*output) {
	t.Helper()
	return launch(t, folder, 2, 2, sets, command, func(rank int, c *exec.Cmd) {
		c.Args = append([]string{"ip", "netns", "exec", h.names[rank]}, c.Args...)
		c.Path, _ = exec.LookPath("ip")
		c.Env = append(c.Env, "MASTER_ADDR="+h.address, "LOCAL_RANK=0", "GLOO_SOCKET_IFNAME="+hostInterface)
	})
}

// TestTwoHosts trains on two hosts that only a cable connects, which delays and loses packets: the results are those of
// two processes on one host.
func TestTwoHosts(t *testing.T) {
	h := newHosts(t, quality{delay: 2 * time.Millisecond, jitter: time.Millisecond, loss: 0.005})
	sets := []string{"output=run", "threads=1", "bridges.use=[cyclegan]"}
	results := func(start func(folder string) ([]*exec.Cmd, []*output)) map[string]string {
		folder := t.TempDir()
		commands, said := start(folder)
		succeed(t, commands, said)
		list, _ := files(t, folder, "run/seed-0/*/*.pt")
		features, _ := files(t, folder, "run/features/*/*.safetensors")
		if len(list) < 3 || len(features) != 4 {
			t.Fatalf("%d files of weights and %d of features", len(list), len(features))
		}
		for name, text := range features {
			list[name] = text
		}
		return list
	}
	want := results(func(folder string) ([]*exec.Cmd, []*output) { return startRanks(t, folder, 2, 2, sets) })
	got := results(func(folder string) ([]*exec.Cmd, []*output) {
		return h.start(t, folder, sets, "train", "cyclegan", "x.toml")
	})
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%s differs", name)
		}
	}
	carried, lost := h.cable.carried.Load(), h.cable.lost.Load()
	if t.Logf("the cable carried %d frames and lost %d", carried, lost); carried < 1000 || lost == 0 {
		t.Error("the cable was not disturbed")
	}
}

// TestCableCut cuts the cable between two hosts that train together. Both sides must end within a bounded time
// and name the other.
func TestCableCut(t *testing.T) {
	h := newHosts(t, quality{})
	folder := t.TempDir()
	commands, said := h.start(t, folder, endless, "train", "cyclegan", "x.toml")
	await(t, commands[0], func() bool {
		list, _ := filepath.Glob(filepath.Join(folder, "run/seed-0/cyclegan/events*"))
		return len(list) > 0
	})
	time.Sleep(time.Second)
	h.cable.cut.Store(true)
	cut := time.Now()
	for rank, c := range commands {
		// 20 seconds until the other side is given up, and 10 for the call that waits for it.
		code := ends(t, c, 45*time.Second-time.Since(cut))
		if text, want := said[rank].String(), fmt.Sprintf("rank %d no longer answers", 1-rank); code != 1 || !strings.Contains(text, want) {
			t.Errorf("rank %d ended with %d, and no %q:\n%s", rank, code, want, text)
		}
	}
	t.Logf("both ended after %v", time.Since(cut))
}
