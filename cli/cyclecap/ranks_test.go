package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cyclecap/internal/experimenttest"
)

// endless are the settings of a run whose CycleGAN takes longer than any test.
var endless = []string{"output=run", "threads=1", "bridges.use=[cyclegan]", "train.cyclegan.epochs=1000000", "train.cyclegan.checkpoint_every=1000000"}

// output is what a process writes, while it runs.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// ranks starts the endless run with two processes and waits until they train.
func ranks(t *testing.T) (folder string, commands [2]*exec.Cmd, said [2]*output) {
	t.Helper()
	folder = t.TempDir()
	commands, said = startRanks(t, folder, endless)
	// The event file appears when the training begins.
	for begin := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		if list, _ := filepath.Glob(filepath.Join(folder, "run/seed-0/cyclegan/events*")); len(list) > 0 {
			time.Sleep(time.Second)
			return folder, commands, said
		}
		if time.Since(begin) > limit {
			t.Fatalf("the training does not begin:\n%s\n%s", said[0], said[1])
		}
	}
}

// startRanks starts two processes in a folder, which run the small experiment up to the
// CycleGAN, with other settings.
func startRanks(t *testing.T, folder string, sets []string) (commands [2]*exec.Cmd, said [2]*output) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(folder, "x.toml"), []byte(experimenttest.Small), 0o666); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	for rank := range commands {
		args := []string{"train", "cyclegan", "x.toml", "--resume"}
		for _, set := range sets {
			args = append(args, "--set", set)
		}
		c := exec.Command(program, args...)
		said[rank] = &output{}
		c.Dir, c.Stderr = folder, said[rank]
		c.Env = append(os.Environ(), "WORLD_SIZE=2", "MASTER_ADDR=127.0.0.1", fmt.Sprint("MASTER_PORT=", port), fmt.Sprint("RANK=", rank), fmt.Sprint("LOCAL_RANK=", rank))
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Process.Kill(); c.Wait() })
		commands[rank] = c
	}
	return commands, said
}

// ends waits until a process ends, and returns its exit code.
func ends(t *testing.T, c *exec.Cmd, within time.Duration) int {
	t.Helper()
	done := make(chan struct{})
	go func() {
		c.Wait()
		close(done)
	}()
	select {
	case <-done:
		return c.ProcessState.ExitCode()
	case <-time.After(within):
		t.Fatalf("it has not ended within %v", within)
		return 0
	}
}

// TestSignalToOneRank interrupts one of two processes that train together. Both must write
// down where they are and end with 130, and --resume must continue.
func TestSignalToOneRank(t *testing.T) {
	for rank := range 2 {
		t.Run(fmt.Sprint(rank), func(t *testing.T) {
			t.Parallel()
			folder, commands, said := ranks(t)
			if err := commands[rank].Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			for i, c := range commands {
				if code := ends(t, c, limit); code != 130 {
					t.Errorf("rank %d ended with %d:\n%s", i, code, said[i])
				}
			}
			if _, err := os.Stat(filepath.Join(folder, "run/seed-0/cyclegan/last.safetensors")); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestHungRank stops one of two processes and interrupts the other, which must not wait for
// it for long.
func TestHungRank(t *testing.T) {
	for rank := range 2 {
		t.Run(fmt.Sprint(rank), func(t *testing.T) {
			t.Parallel()
			_, commands, said := ranks(t)
			commands[1-rank].Process.Signal(syscall.SIGSTOP)
			time.Sleep(time.Second)
			commands[rank].Process.Signal(syscall.SIGTERM)
			const most = 30 * time.Second
			if code := ends(t, commands[rank], most); code != 130 {
				t.Errorf("it ended with %d", code)
			}
			if text := said[rank].String(); !strings.Contains(text, "another process has not answered for 25s") {
				t.Errorf("it said\n%s", text)
			}
		})
	}
}

// TestRankFails has rank 0 fail in a training while the other process is in the middle of a
// step, which must not wait for it for ever. Rank 0 cannot write the log, because a folder
// has its name.
func TestRankFails(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	if err := os.MkdirAll(filepath.Join(folder, "run/seed-0/cyclegan/metrics.jsonl"), 0o777); err != nil {
		t.Fatal(err)
	}
	commands, said := startRanks(t, folder, endless)
	for i, c := range commands {
		if code := ends(t, c, limit); code != 1 {
			t.Errorf("rank %d ended with %d:\n%s", i, code, said[i])
		}
	}
	if text := said[0].String(); !strings.Contains(text, "metrics.jsonl") {
		t.Errorf("rank 0 said\n%s", text)
	}
}

// TestSignalWhileRank0Works interrupts one of two processes while rank 0 computes features and
// the other waits for it. Both must end with 130 and keep what was computed, and --resume must
// come to the results of a run that was not interrupted.
func TestSignalWhileRank0Works(t *testing.T) {
	t.Parallel()
	// Many photos and a large CLIP, which encodes them slowly.
	slow := []string{"output=run", "threads=1", "bridges.use=[cyclegan]", "world.train=1000", "train.clip.width=256", "train.clip.layers=32",
		"train.decoder.batch=500", "train.cyclegan.batch=500"}
	finish := func(folder string) map[string]string {
		commands, said := startRanks(t, folder, slow)
		for i, c := range commands {
			if code := ends(t, c, limit); code != 0 {
				t.Fatalf("rank %d ended with %d:\n%s", i, code, said[i])
			}
		}
		results := map[string]string{}
		for _, name := range []string{"clip/clip.safetensors", "seed-0/decoder-texts/decoder.pt", "seed-0/cyclegan/image2text.pt", "seed-0/cyclegan/text2image.pt"} {
			b, err := os.ReadFile(filepath.Join(folder, "run", name))
			if err != nil {
				t.Fatal(err)
			}
			results[name] = string(b)
		}
		return results
	}
	want := finish(t.TempDir())
	for rank := range 2 {
		folder := t.TempDir()
		commands, said := startRanks(t, folder, slow)
		begun := filepath.Join(folder, "run/features/train-images")
		await(t, commands[0], func() bool {
			_, err := os.Stat(begun)
			return err == nil
		})
		time.Sleep(500 * time.Millisecond) // some of 16 batches
		if err := commands[rank].Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		for i, c := range commands {
			if code := ends(t, c, limit); code != 130 || !strings.HasSuffix(said[i].String(), "cyclecap: interrupted\n") {
				t.Errorf("after a signal to rank %d, rank %d ended with %d:\n%s", rank, i, code, said[i])
			}
		}
		if _, err := os.Stat(filepath.Join(begun, "stage.json")); err == nil {
			t.Errorf("rank %d: the signal came too late: the features are complete", rank)
		}
		if _, err := os.Stat(filepath.Join(begun, "features-00001.safetensors")); err != nil {
			t.Errorf("rank %d: the features that were computed are lost: %v", rank, err)
		}
		have := finish(folder)
		for name := range want {
			if have[name] != want[name] {
				t.Errorf("after a signal to rank %d, %s is not what it is without", rank, name)
			}
		}
	}
}
