package experiment

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"cyclecap/experiment/config"
	"cyclecap/torch/distributed"

	"github.com/google/go-cmp/cmp"
)

const groupVariable = "CYCLECAP_TEST_CONFIG"

// TestMain also runs the test binary as one of several processes of a run.
func TestMain(m *testing.M) {
	path := os.Getenv(groupVariable)
	if path == "" {
		os.Exit(m.Run())
	}
	runtime.LockOSThread()
	if err := oneOfGroup(path); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func oneOfGroup(path string) error {
	c, err := config.Load(path, nil)
	if err != nil {
		return err
	}
	o, err := distributed.FromEnv()
	if err != nil {
		return err
	}
	o.Timeout = time.Minute
	x := &Experiment{Config: c, Dir: c.Output, Seeds: 1, UI: &quiet{}}
	if x.Group, err = distributed.InitProcessGroup(context.Background(), o); err != nil {
		return err
	}
	defer x.Group.Close()
	done, err := x.Open()
	if err != nil {
		return err
	}
	defer done()
	if err := x.Execute(context.Background(), ""); err != nil {
		return err
	}
	for _, name := range x.log.order {
		fmt.Println(name, x.log.skipped[name])
	}
	return nil
}

// runGroup runs a configuration with several processes, and returns what rank 0 wrote.
func runGroup(t *testing.T, path string, size int) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	listener.Close()
	commands := make([]*exec.Cmd, size)
	outs := make([]strings.Builder, size)
	for rank := range commands {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), groupVariable+"="+path, fmt.Sprint("WORLD_SIZE=", size), "MASTER_ADDR=127.0.0.1",
			fmt.Sprint("MASTER_PORT=", port), fmt.Sprint("RANK=", rank), fmt.Sprint("LOCAL_RANK=", rank))
		c.Stdout, c.Stderr = &outs[rank], &outs[rank]
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		commands[rank] = c
	}
	for rank, c := range commands {
		if err := c.Wait(); err != nil {
			t.Fatalf("rank %d of %d: %v\n%s", rank, size, err, outs[rank].String())
		}
	}
	return outs[0].String()
}

// TestGroup runs the small experiment with several processes, to its report. The same number
// of processes must give the same bytes, and a second run must skip every stage.
func TestGroup(t *testing.T) {
	for _, size := range []int{2, 4} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			var results []map[string]string
			for range 2 {
				dir := filepath.Join(t.TempDir(), "run")
				text := fmt.Sprintf("output = %q\nthreads = 1\n[bridges]\nuse = [\"direct\", \"cyclegan\", \"clipcap\"]\n", dir) + small
				path := write(t, filepath.Join(t.TempDir(), "small.toml"), text)
				runGroup(t, path, size)
				for _, name := range []string{"report.html", "table.json", "table.md"} {
					if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
						t.Error(err)
					}
				}
				results = append(results, products(t, dir))
				if said := runGroup(t, path, size); strings.Contains(said, "false") || !strings.Contains(said, "report true") {
					t.Errorf("stages, and whether they were skipped in the second run:\n%s", said)
				}
			}
			for path, hash := range results[0] {
				if results[1][path] != hash {
					t.Errorf("%s differs between two runs with %d processes", path, size)
				}
			}
		})
	}
}

// TestGroupAgain damages the weights and the record of two trainings that two processes have
// run together. Only rank 0 looks at the files, and all processes must continue from the
// checkpoints.
func TestGroupAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	text := fmt.Sprintf("output = %q\nthreads = 1\n[bridges]\nuse = [\"direct\", \"cyclegan\"]\n", dir) + small
	path := write(t, filepath.Join(t.TempDir(), "small.toml"), text)
	runGroup(t, path, 2)
	before := products(t, dir)
	if err := os.Truncate(filepath.Join(dir, "seed-0/decoder-texts/decoder.pt"), 1000); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "seed-0/cyclegan", stageFile), "{}")
	ran := strings.Fields(runGroup(t, path, 2))
	for i := 0; i < len(ran); i += 2 {
		name := ran[i]
		if again := ran[i+1] == "false"; again != (name == "seed-0/decoder-texts" || name == "seed-0/cyclegan") {
			t.Errorf("%s ran again: %v", name, again)
		}
	}
	if diff := cmp.Diff(before, products(t, dir)); diff != "" {
		t.Errorf("results: %s", diff)
	}
}

// TestGroupLikeOne computes features, captions and scores again with one process: they have the bytes of three.
func TestGroupLikeOne(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	text := fmt.Sprintf("output = %q\nthreads = 1\n[bridges]\nuse = [\"direct\", \"cyclegan\", \"whitening\"]\n", dir) + small
	path := write(t, filepath.Join(t.TempDir(), "small.toml"), text)
	runGroup(t, path, 3)
	three := products(t, dir)
	computed := 0
	for name := range three {
		if strings.HasPrefix(name, "features/") || strings.HasPrefix(name, "seed-0/captions-") || strings.HasPrefix(name, "evaluate/") {
			computed++
			if err := os.RemoveAll(filepath.Join(dir, filepath.Dir(name))); err != nil {
				t.Fatal(err)
			}
		}
	}
	if computed < 4+3+1 {
		t.Fatalf("only %d files of features, captions and scores", computed)
	}
	said := runGroup(t, path, 1)
	for _, stage := range []string{"features/val-images false", "features/train-texts false", "seed-0/captions-cyclegan false", "seed-0/cyclegan true", "evaluate false"} {
		if !strings.Contains(said, stage+"\n") {
			t.Errorf("no %q in\n%s", stage, said)
		}
	}
	if diff := cmp.Diff(three, products(t, dir)); diff != "" {
		t.Errorf("three processes and one: %s", diff)
	}
}
