package distributed_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"cyclecap/torch/distributed"

	"github.com/google/go-cmp/cmp"
)

// spawnAll runs a worker as so many processes, all but the last of which must succeed, and returns what
// they printed. env are more variables of theirs.
func spawnAll(t *testing.T, name string, size int, lastSucceeds bool, env ...string) []string {
	t.Helper()
	if !distributed.IsAvailable() {
		t.Skip("this libtorch has no c10d with Gloo")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	port := freePort(t)
	out, errs := make([]bytes.Buffer, size), make([]bytes.Buffer, size)
	commands := make([]*exec.Cmd, size)
	for rank := range commands {
		c := exec.CommandContext(ctx, os.Args[0])
		c.Env = append(os.Environ(), workerVariable+"="+name, "RANK="+strconv.Itoa(rank), "LOCAL_RANK="+strconv.Itoa(rank),
			"WORLD_SIZE="+strconv.Itoa(size), "MASTER_ADDR=127.0.0.1", "MASTER_PORT="+strconv.Itoa(port), "GLOO_SOCKET_IFNAME=lo")
		c.Env = append(c.Env, env...)
		c.Stdout, c.Stderr = &out[rank], &errs[rank]
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		commands[rank] = c
	}
	texts := make([]string, size)
	for rank, c := range commands {
		if err := c.Wait(); (err == nil) != (rank < size-1 || lastSucceeds) {
			t.Errorf("%s, rank %d of %d: %v\n%s", name, rank, size, err, &errs[rank])
		}
		texts[rank] = out[rank].String()
	}
	return texts
}

// computing is a process that computes, without a call of the group, until its context is done.
func computing(g *distributed.Group, out *json.Encoder) error {
	ctx, stop := g.Context(context.Background())
	defer stop()
	select {
	case <-ctx.Done():
	case <-time.After(30 * time.Second):
		return errors.New("the end of the last process was not noticed")
	}
	err := context.Cause(ctx)
	// Whoever leaves because of a loss names the one that was lost first.
	defer g.Leave(err)
	return out.Encode(err.Error())
}

func killed(g *distributed.Group, out *json.Encoder) error {
	if err := g.Barrier(); err != nil {
		return err
	}
	if g.Rank() == g.Size()-1 {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	return computing(g, out)
}

func fails(g *distributed.Group, out *json.Encoder) error {
	if err := g.Barrier(); err != nil {
		return err
	}
	if g.Rank() == g.Size()-1 {
		err := errors.New("the disk is full")
		g.Leave(err)
		return err
	}
	return computing(g, out)
}

// TestLostWhileComputing kills one process, or lets it fail, while the others compute: each learns at once
// which one it was.
func TestLostWhileComputing(t *testing.T) {
	for name, says := range map[string]string{"killed": "rank %d has ended without leaving the group", "fails": "rank %d has failed"} {
		for size := 2; size <= 4; size++ {
			t.Run(fmt.Sprintf("%s of %d", name, size), func(t *testing.T) {
				for rank, text := range spawnAll(t, name, size, false)[:size-1] {
					if want := fmt.Sprintf(says, size-1); !strings.Contains(text, want) {
						t.Errorf("rank %d says %q, want %q", rank, text, want)
					}
				}
			})
		}
	}
}

// leaves: the last process is done earlier than the others, which is no loss.
func leaves(g *distributed.Group, out *json.Encoder) error {
	if err := g.Barrier(); err != nil {
		return err
	}
	ctx, stop := g.Context(context.Background())
	defer stop()
	if g.Rank() < g.Size()-1 {
		time.Sleep(time.Second)
	}
	return out.Encode(fmt.Sprint(context.Cause(ctx)))
}

func TestLeaving(t *testing.T) {
	for rank, text := range spawnAll(t, "leaves", 3, true) {
		if cause := decode[string](t, text); cause != "<nil>" {
			t.Errorf("rank %d: %s", rank, cause)
		}
	}
}

func gatherBytes(g *distributed.Group, out *json.Encoder) error {
	var list [][]string
	for _, data := range []string{strings.Repeat("x", g.Rank()), "", "same"} {
		all, err := g.AllGatherBytes([]byte(data))
		if err != nil {
			return err
		}
		var texts []string
		for _, b := range all {
			texts = append(texts, string(b))
		}
		list = append(list, texts)
	}
	return out.Encode(list)
}

func TestAllGatherBytes(t *testing.T) {
	for rank, text := range spawnAll(t, "bytes", 3, true) {
		want := [][]string{{"", "x", "xx"}, {"", "", ""}, {"same", "same", "same"}}
		if diff := cmp.Diff(want, decode[[][]string](t, text)); diff != "" {
			t.Errorf("rank %d: %s", rank, diff)
		}
	}
	all, err := (*distributed.Group)(nil).AllGatherBytes([]byte("alone"))
	if err != nil || len(all) != 1 || string(all[0]) != "alone" {
		t.Errorf("alone: %q, %v", all, err)
	}
}

// TestStartedAgain starts processes again at a launcher's store, which has the keys of those before them, as
// torchrun does after one of them was killed.
func TestStartedAgain(t *testing.T) {
	if !distributed.IsAvailable() {
		t.Skip("this libtorch has no c10d with Gloo")
	}
	port := freePort(t)
	launcher, err := distributed.InitProcessGroup(t.Context(), distributed.Options{WorldSize: 1, MasterAddr: "127.0.0.1", MasterPort: port, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer launcher.Close()
	env := []string{"TORCHELASTIC_USE_AGENT_STORE=True", "MASTER_PORT=" + strconv.Itoa(port)}
	spawnAll(t, "killed", 3, false, env...)
	for range 2 {
		for rank, text := range spawnAll(t, "bytes", 3, true, env...) {
			if got := decode[[][]string](t, text)[0]; !slices.Equal(got, []string{"", "x", "xx"}) {
				t.Errorf("rank %d: %q", rank, got)
			}
		}
	}
}
