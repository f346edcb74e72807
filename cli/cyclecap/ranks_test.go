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

// ranks starts the endless run with some processes and waits until they train.
func ranks(t *testing.T, size int) (folder string, commands []*exec.Cmd, said []*output) {
	t.Helper()
	folder = t.TempDir()
	commands, said = startRanks(t, folder, size, size, endless)
	// The event file appears when the training begins.
	for begin := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		if list, _ := filepath.Glob(filepath.Join(folder, "run/seed-0/cyclegan/events*")); len(list) > 0 {
			time.Sleep(time.Second)
			return folder, commands, said
		}
		if time.Since(begin) > limit {
			t.Fatalf("the training does not begin:\n%s", said)
		}
	}
}

// startRanks starts the first processes of a group in a folder, which run the small experiment
// up to the CycleGAN, with other settings.
func startRanks(t *testing.T, folder string, first, size int, sets []string) (commands []*exec.Cmd, said []*output) {
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
	for rank := range first {
		args := []string{"train", "cyclegan", "x.toml", "--resume"}
		for _, set := range sets {
			args = append(args, "--set", set)
		}
		c := exec.Command(program, args...)
		o := &output{}
		c.Dir, c.Stderr = folder, o
		c.Env = append(os.Environ(), fmt.Sprint("WORLD_SIZE=", size), "MASTER_ADDR=127.0.0.1", fmt.Sprint("MASTER_PORT=", port), fmt.Sprint("RANK=", rank), fmt.Sprint("LOCAL_RANK=", rank))
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Process.Kill(); c.Wait() })
		commands, said = append(commands, c), append(said, o)
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
			folder, commands, said := ranks(t, 2)
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

// TestHungRank stops one of three processes and interrupts another. Neither that one nor the
// third must wait for the stopped one for long.
func TestHungRank(t *testing.T) {
	for stopped := range 3 {
		t.Run(fmt.Sprint(stopped), func(t *testing.T) {
			t.Parallel()
			_, commands, said := ranks(t, 3)
			commands[stopped].Process.Signal(syscall.SIGSTOP)
			time.Sleep(time.Second)
			commands[(stopped+1)%3].Process.Signal(syscall.SIGTERM)
			signalled := time.Now()
			const most = 30 * time.Second
			for _, rank := range []int{(stopped + 1) % 3, (stopped + 2) % 3} {
				if code := ends(t, commands[rank], most-time.Since(signalled)); code != 130 {
					t.Errorf("rank %d ended with %d", rank, code)
				}
				if text := said[rank].String(); !strings.Contains(text, "another process has not answered for 25s") {
					t.Errorf("rank %d said\n%s", rank, text)
				}
			}
		})
	}
}

// TestSignalBeforeAllJoined interrupts one of two processes that wait for a third.
func TestSignalBeforeAllJoined(t *testing.T) {
	for rank := range 2 {
		t.Run(fmt.Sprint(rank), func(t *testing.T) {
			t.Parallel()
			commands, said := startRanks(t, t.TempDir(), 2, 3, endless)
			// Both say what they wait for after 5 seconds.
			await(t, commands[0], func() bool {
				return strings.HasSuffix(said[0].String(), "rank 2 missing\n") && strings.HasSuffix(said[1].String(), "rank 2 missing\n")
			})
			if err := commands[rank].Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			for i, c := range commands {
				if code := ends(t, c, limit); code != 130 || !strings.HasSuffix(said[i].String(), "cyclecap: interrupted\n") {
					t.Errorf("rank %d ended with %d:\n%s", i, code, said[i])
				}
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
	commands, said := startRanks(t, folder, 2, 2, endless)
	for i, c := range commands {
		if code := ends(t, c, limit); code != 1 {
			t.Errorf("rank %d ended with %d:\n%s", i, code, said[i])
		}
	}
	if text := said[0].String(); !strings.Contains(text, "metrics.jsonl") {
		t.Errorf("rank 0 said\n%s", text)
	}
}

// slow are the settings of a run with many photos and a large CLIP, which encodes them slowly.
var slow = []string{"output=run", "threads=1", "bridges.use=[cyclegan]", "world.train=1000", "train.clip.width=256", "train.clip.layers=32",
	"train.decoder.batch=500", "train.cyclegan.batch=500"}

// killLast kills the last of several processes. The others must end within 30 seconds, and name it.
func killLast(t *testing.T, commands []*exec.Cmd, said []*output) {
	t.Helper()
	last := len(commands) - 1
	commands[last].Process.Kill()
	killed := time.Now()
	for rank, c := range commands[:last] {
		code := ends(t, c, 30*time.Second-time.Since(killed))
		if text, want := said[rank].String(), fmt.Sprintf("rank %d has ended without leaving the group", last); code != 1 || !strings.Contains(text, want) {
			t.Errorf("rank %d ended with %d, and no %q:\n%s", rank, code, want, text)
		}
	}
}

// TestKilledRank kills one of several processes while they train.
func TestKilledRank(t *testing.T) {
	for size := 2; size <= 4; size++ {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			_, commands, said := ranks(t, size)
			killLast(t, commands, said)
		})
	}
}

// TestKilledRankInFeatures kills one of two processes while they compute features.
func TestKilledRankInFeatures(t *testing.T) {
	folder := t.TempDir()
	commands, said := startRanks(t, folder, 2, 2, slow)
	await(t, commands[0], func() bool {
		_, err := os.Stat(filepath.Join(folder, "run/features/train-images"))
		return err == nil
	})
	killLast(t, commands, said)
	if _, err := os.Stat(filepath.Join(folder, "run/features/train-images/stage.json")); err == nil {
		t.Error("the features were complete before the process was killed")
	}
}

// TestSignalInFeatures interrupts one of two processes while they compute features. Both must end with 130 and keep what was computed, and --resume must
// come to the results of a run that was not interrupted.
func TestSignalInFeatures(t *testing.T) {
	t.Parallel()
	finish := func(folder string) map[string]string {
		commands, said := startRanks(t, folder, 2, 2, slow)
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
		commands, said := startRanks(t, folder, 2, 2, slow)
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
