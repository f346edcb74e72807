package train

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"cyclecap/torch"
	"cyclecap/torch/distributed"
)

// group is the group of the processes of a test; nil in the test itself.
var group *distributed.Group

const (
	taskVariable   = "CYCLECAP_TEST_TASK"
	folderVariable = "CYCLECAP_TEST_FOLDER"
)

// TestMain also runs the test binary as one of two processes that train together.
func TestMain(m *testing.M) {
	name := os.Getenv(taskVariable)
	if name == "" {
		os.Exit(m.Run())
	}
	if err := together(name); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func together(name string) error {
	torch.SetNumThreads(1)
	o, err := distributed.FromEnv()
	if err != nil {
		return err
	}
	o.Timeout = 20 * time.Second
	if group, err = distributed.InitProcessGroup(context.Background(), o); err != nil {
		return err
	}
	defer group.Close()
	if name, found := strings.CutPrefix(name, "time "); found {
		return timeSteps(name, os.Getenv(folderVariable))
	}
	var t Task
	err = torch.Scope(func() error {
		torch.ManualSeed(11)
		t = tasks[name](new(testing.T))
		return nil
	})
	if err != nil {
		return err
	}
	var all []Losses
	// Only rank 1 is interrupted, after step 6. Both must stop after the next one, with whose gradients rank 0
	// learns of it, and then continue.
	for _, stop := range []int{6, 99} {
		ctx, cancel := context.WithCancel(context.Background())
		l := &Loop{Dir: os.Getenv(folderVariable), Kind: name, Steps: 12, Every: 100, Config: "c", Resume: true, Group: group,
			Progress: func(done int, l Losses) {
				all = append(all, l)
				if done == stop && group.Rank() == 1 {
					cancel()
				}
			}}
		err := l.Run(ctx, t)
		cancel()
		if stop == 99 && err != nil {
			return err
		}
		if stop == 6 && (!errors.Is(err, context.Canceled) || len(all) != 7) {
			return fmt.Errorf("rank %d continued to step %d after an interruption at step 6 (%v)", group.Rank(), len(all), err)
		}
		if err := group.Barrier(); err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(all)
}

// spawnTwo runs this test binary as two processes of a group, and returns what they printed.
func spawnTwo(t testing.TB, name, dir string) (texts [2]string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	listener.Close()
	var commands []*exec.Cmd
	var outs [2]strings.Builder
	for rank := range 2 {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), taskVariable+"="+name, folderVariable+"="+dir, "WORLD_SIZE=2", "MASTER_ADDR=127.0.0.1",
			fmt.Sprint("MASTER_PORT=", port), fmt.Sprint("RANK=", rank), fmt.Sprint("LOCAL_RANK=", rank))
		c.Stdout, c.Stderr = &outs[rank], os.Stderr
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		commands = append(commands, c)
	}
	for rank, c := range commands {
		if err := c.Wait(); err != nil {
			t.Fatalf("rank %d: %v", rank, err)
		}
		texts[rank] = outs[rank].String()
	}
	return texts
}

// TestTwoProcesses checks that two processes that share a batch have the losses of one
// process, within 1e-5 because they add in another order.
func TestTwoProcesses(t *testing.T) {
	for _, name := range []string{"cyclegan", "decoder"} {
		t.Run(name, func(t *testing.T) {
			var want []Losses
			l := &Loop{Dir: t.TempDir(), Kind: name, Steps: 12, Every: 100, Progress: func(_ int, l Losses) {
				want = append(want, l)
			}}
			if err := l.Run(context.Background(), build(t, name)); err != nil {
				t.Fatal(err)
			}
			outs := spawnTwo(t, name, t.TempDir())
			worst := 0.
			for rank := range 2 {
				var have []Losses
				if err := json.Unmarshal([]byte(outs[rank]), &have); err != nil {
					t.Fatalf("rank %d: %v", rank, err)
				}
				if len(have) != len(want) {
					t.Fatalf("rank %d: got %d steps, want %d", rank, len(have), len(want))
				}
				for i := range want {
					for k, w := range want[i] {
						d := math.Abs(have[i][k].Value-w.Value) / max(1, math.Abs(w.Value))
						if !(d <= 1e-5) {
							t.Errorf("rank %d, step %d: %s is %g, want %g", rank, i, w.Name, have[i][k].Value, w.Value)
						}
						worst = max(worst, d)
					}
				}
			}
			t.Logf("largest difference %.1e", worst)
		})
	}
}
