package main

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A cable connects two hosts: it carries each frame from the interface of one to that of the other,
// after a while, and loses some. (netem does that in kernels that have it.)
type cable struct {
	quality
	cut           atomic.Bool // all frames are lost from now on
	carried, lost atomic.Int64
}

// A quality is what a cable does to frames.
type quality struct {
	delay, jitter time.Duration // a frame takes delay - jitter to delay + jitter, and none overtakes another
	loss          float64       // share of the frames that are lost
}

// newCable connects interfaces of the given name, which it makes in two network namespaces. It skips
// the test where the user or the kernel cannot do that.
func newCable(t *testing.T, namespaces [2]string, name string, q quality) *cable {
	t.Helper()
	c := &cable{quality: q}
	var running sync.WaitGroup
	t.Cleanup(running.Wait) // once the ends are closed
	var ends [2]*os.File
	for i, n := range namespaces {
		end, err := tapIn(n, name)
		if err != nil {
			t.Skipf("no virtual interface (TAP) in a network namespace: %v", err)
		}
		t.Cleanup(func() { end.Close() })
		ends[i] = end
	}
	for i := range ends {
		running.Go(func() { c.carry(ends[i], ends[1-i]) })
	}
	return c
}

// tapIn makes a TAP interface in a network namespace of ip netns. The file reads the frames that it
// sends, and writes those that it receives.
func tapIn(namespace, name string) (end *os.File, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread, which is in the namespace, ends with the goroutine
		if err = enter(namespace); err == nil {
			end, err = tap(name)
		}
	}()
	<-done
	return end, err
}

// enter moves the thread to a network namespace of ip netns.
func enter(namespace string) error {
	at, err := os.Open(filepath.Join("/run/netns", namespace))
	if err != nil {
		return err
	}
	defer at.Close()
	return os.NewSyscallError("setns", unix.Setns(int(at.Fd()), unix.CLONE_NEWNET))
}

// tap makes a TAP interface in the network namespace of the thread.
func tap(name string) (*os.File, error) {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/dev/net/tun", Err: err}
	}
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("TUNSETIFF", err)
	}
	return os.NewFile(uintptr(fd), "tap"), nil
}

// carry carries frames from one end to the other until one is closed.
func (c *cable) carry(from, to *os.File) {
	type frame struct {
		data []byte
		due  time.Time
	}
	frames := make(chan frame, 10_000)
	var writing sync.WaitGroup
	writing.Go(func() {
		for f := range frames {
			time.Sleep(time.Until(f.due))
			to.Write(f.data) // refused while the interface is down, as by a cable without a host
		}
	})
	defer writing.Wait()
	defer close(frames)
	var due time.Time
	buffer := make([]byte, 1<<16)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		if c.cut.Load() || rand.Float64() < c.loss {
			c.lost.Add(1)
			continue
		}
		late := c.delay
		if c.jitter > 0 {
			late += rand.N(2*c.jitter) - c.jitter
		}
		if at := time.Now().Add(late); at.After(due) {
			due = at
		}
		c.carried.Add(1)
		frames <- frame{append([]byte(nil), buffer[:n]...), due}
	}
}
