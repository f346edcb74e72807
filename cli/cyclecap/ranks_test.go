package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cyclecap/data/features"
	"cyclecap/internal/experimenttest"

	"github.com/google/go-cmp/cmp"
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
	return startRun(t, folder, first, size, sets, "train", "cyclegan", "x.toml", "--resume")
}

// startRun is startRanks with the arguments of a command.
func startRun(t *testing.T, folder string, first, size int, sets []string, command ...string) (commands []*exec.Cmd, said []*output) {
	t.Helper()
	return launch(t, folder, first, size, sets, command, func(rank int, c *exec.Cmd) {
		c.Env = append(c.Env, "MASTER_ADDR=127.0.0.1", fmt.Sprint("LOCAL_RANK=", rank))
	})
}

// launch starts the first processes of a group. place changes how one is started: it says where.
func launch(t *testing.T, folder string, first, size int, sets, command []string, place func(rank int, c *exec.Cmd)) (commands []*exec.Cmd, said []*output) {
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
		args := slices.Clone(command)
		for _, set := range sets {
			args = append(args, "--set", set)
		}
		c := exec.Command(program, args...)
		o := &output{}
		c.Dir, c.Stderr = folder, o
		c.Env = append(os.Environ(), fmt.Sprint("WORLD_SIZE=", size), fmt.Sprint("MASTER_PORT=", port), fmt.Sprint("RANK=", rank))
		place(rank, c)
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

// kill kills one of several processes. The others must end within 30 seconds, and name it.
func kill(t *testing.T, commands []*exec.Cmd, said []*output, victim int) {
	t.Helper()
	commands[victim].Process.Kill()
	killed := time.Now()
	for rank, c := range commands {
		if rank == victim {
			c.Wait()
			continue
		}
		code := ends(t, c, 30*time.Second-time.Since(killed))
		if text, want := said[rank].String(), fmt.Sprintf("rank %d has ended without leaving the group", victim); code != 1 || !strings.Contains(text, want) {
			t.Errorf("rank %d ended with %d, and no %q:\n%s", rank, code, want, text)
		}
	}
}

// succeed waits for the end of processes that must succeed.
func succeed(t *testing.T, commands []*exec.Cmd, said []*output) {
	t.Helper()
	for i, c := range commands {
		if code := ends(t, c, limit); code != 0 {
			t.Fatalf("rank %d ended with %d:\n%s", i, code, said[i])
		}
	}
}

// TestKilledRank kills one of several processes while they train.
func TestKilledRank(t *testing.T) {
	for size := 2; size <= 4; size++ {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			_, commands, said := ranks(t, size)
			kill(t, commands, said, size-1)
		})
	}
}

// files returns the contents of the files below a folder that a pattern matches, and when they were written.
func files(t *testing.T, folder, pattern string) (contents map[string]string, written map[string]time.Time) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(folder, pattern))
	if err != nil {
		t.Fatal(err)
	}
	contents, written = map[string]string{}, map[string]time.Time{}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		name, _ := filepath.Rel(folder, path)
		contents[name], written[name] = string(b), info.ModTime()
	}
	return contents, written
}

// A featureSet is the features that a run has computed of photos or captions.
type featureSet struct {
	IDs  []int64
	Rows []float32
}

// featuresOf returns the features of a run by their folders.
func featuresOf(t *testing.T, folder string) map[string]featureSet {
	t.Helper()
	sets := map[string]featureSet{}
	for _, name := range []string{"val-images", "val-texts", "train-images", "train-texts"} {
		f, err := features.Open(filepath.Join(folder, "run/features", name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		s := featureSet{IDs: f.IDs(), Rows: make([]float32, f.Len()*f.Width())}
		rows := make([]int32, f.Len())
		for i := range rows {
			rows[i] = int32(i)
		}
		if err := f.Read(rows, s.Rows); err != nil {
			t.Fatal(err)
		}
		sets[name] = s
	}
	return sets
}

// copyTo copies the results of a run to another folder.
func copyTo(t *testing.T, folder, from string) {
	t.Helper()
	if err := os.CopyFS(filepath.Join(folder, "run"), os.DirFS(filepath.Join(from, "run"))); err != nil {
		t.Fatal(err)
	}
}

// TestKilledRankInFeatures kills one of several processes while they compute features: another one, and rank 0,
// which writes the files and holds the rendezvous. --resume keeps the sets that were complete (and what rank 0
// had of the next one, which TestSignalInFeatures checks), and the features are those of one process.
func TestKilledRankInFeatures(t *testing.T) {
	const shards = "run/features/*/*.safetensors"
	run := func(folder string, size int, last string) ([]*exec.Cmd, []*output) {
		return startRun(t, folder, size, size, slow, "run", "x.toml", "--resume", "--until", last)
	}
	complete := func(folder string, size int, last string) {
		commands, said := run(folder, size, last)
		succeed(t, commands, said)
	}
	models := t.TempDir()
	complete(models, 1, "clip")
	one := t.TempDir()
	copyTo(t, one, models)
	complete(one, 1, "features")
	want := featuresOf(t, one)
	for size, victim := range map[int]int{2: 1, 3: 0, 4: 3} {
		t.Run(fmt.Sprintf("rank %d of %d", victim, size), func(t *testing.T) {
			folder := t.TempDir()
			copyTo(t, folder, models)
			commands, said := run(folder, size, "features")
			await(t, commands[0], func() bool {
				_, err := os.Stat(filepath.Join(folder, "run/features/train-images"))
				return err == nil
			})
			time.Sleep(500 * time.Millisecond) // some of 16 batches
			kill(t, commands, said, victim)
			if _, err := os.Stat(filepath.Join(folder, "run/features/train-images/stage.json")); err == nil {
				t.Fatal("the features were complete before the process was killed")
			}
			_, before := files(t, folder, shards)
			complete(folder, size, "features")
			_, after := files(t, folder, shards)
			if len(before) < 2 {
				t.Errorf("there are only the files %v", before)
			}
			for name, at := range before {
				if strings.Contains(name, "/val-") && !after[name].Equal(at) {
					t.Errorf("%s was complete, and has been computed again", name)
				}
			}
			if diff := cmp.Diff(want, featuresOf(t, folder)); diff != "" {
				t.Errorf("one process and %d: %s", size, diff)
			}
		})
	}
}

// TestKilledRankInCaptions kills one of several processes while they caption. --resume keeps the captions of the
// bridges that were done, and comes to the captions of a run that was not disturbed.
func TestKilledRankInCaptions(t *testing.T) {
	const captions = "run/seed-0/captions-*/results.json"
	sets := []string{"output=run", "threads=1", "bridges.use=[direct,meanshift,whitening]", "world.val=80", "caption.batch=4", "caption.beam=10", "caption.max_tokens=30"}
	run := func(folder string, size int, last string) ([]*exec.Cmd, []*output) {
		return startRun(t, folder, size, size, sets, "run", "x.toml", "--resume", "--until", last)
	}
	complete := func(folder string, size int, last string) {
		commands, said := run(folder, size, last)
		succeed(t, commands, said)
	}
	decoder := t.TempDir()
	complete(decoder, 1, "decoder")
	one := t.TempDir()
	copyTo(t, one, decoder)
	complete(one, 1, "caption")
	want, _ := files(t, one, captions)
	if len(want) != 3 {
		t.Fatalf("captions %v", want)
	}
	for size, victim := range map[int]int{3: 0, 4: 2} {
		t.Run(fmt.Sprintf("rank %d of %d", victim, size), func(t *testing.T) {
			folder := t.TempDir()
			copyTo(t, folder, decoder)
			commands, said := run(folder, size, "caption")
			first := filepath.Join(folder, "run/seed-0/captions-direct")
			await(t, commands[0], func() bool {
				_, err := os.Stat(filepath.Join(first, "stage.json"))
				return err == nil
			})
			kill(t, commands, said, victim)
			_, before := files(t, folder, captions)
			if len(before) == 3 {
				t.Fatal("all captions were written before the process was killed")
			}
			complete(folder, size, "caption")
			got, after := files(t, folder, captions)
			for name := range want {
				if got[name] != want[name] {
					t.Errorf("%s is not that of one process", name)
				}
			}
			if name := "run/seed-0/captions-direct/results.json"; !after[name].Equal(before[name]) {
				t.Error("the captions that were done have been computed again")
			}
		})
	}
}

// TestSignalInFeatures interrupts one of two processes while they compute features. Both must end with 130 and keep what was computed, and --resume must
// come to the results of a run that was not interrupted.
func TestSignalInFeatures(t *testing.T) {
	t.Parallel()
	finish := func(folder string) map[string]string {
		commands, said := startRanks(t, folder, 2, 2, slow)
		succeed(t, commands, said)
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
	// interrupt sends the signal after a while. It returns whether features had been computed by then.
	interrupt := func(folder string, rank int, after time.Duration) bool {
		commands, said := startRanks(t, folder, 2, 2, slow)
		begun := filepath.Join(folder, "run/features/train-images")
		await(t, commands[0], func() bool {
			_, err := os.Stat(begun)
			return err == nil
		})
		time.Sleep(after)
		if err := commands[rank].Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		for i, c := range commands {
			if code := ends(t, c, limit); code != 130 || !strings.HasSuffix(said[i].String(), "cyclecap: interrupted\n") {
				t.Errorf("after a signal to rank %d, rank %d ended with %d:\n%s", rank, i, code, said[i])
			}
		}
		if _, err := os.Stat(filepath.Join(begun, "stage.json")); err == nil {
			t.Fatalf("rank %d: the features were complete %v after they were begun, and none were kept before", rank, after)
		}
		_, err := os.Stat(filepath.Join(begun, "features-00001.safetensors"))
		return err == nil
	}
	for rank := range 2 {
		folder, after := t.TempDir(), 500*time.Millisecond // some of 16 batches, or none on a busy machine
		for !interrupt(folder, rank, after) {
			folder, after = t.TempDir(), 2*after
		}
		have := finish(folder)
		for name := range want {
			if have[name] != want[name] {
				t.Errorf("after a signal to rank %d, %s is not what it is without", rank, name)
			}
		}
	}
}
