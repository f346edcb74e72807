package devicetest

import (
	"context"
	"strings"
	"testing"

	"cyclecap/internal/testdevice"
	"cyclecap/torch"
	"cyclecap/train"
)

// toDevice is the number of copies to the device in a step of each task: the batch, and
// what the host draws.
func toDevice(name string) int64 {
	switch {
	case name == "mapper, noise":
		return 3 // features, tokens, noise
	case strings.HasPrefix(name, "cyclegan"):
		return 3 // images, texts, what the pools exchange
	case strings.HasPrefix(name, "gpt2"):
		return 1
	}
	return 2
}

// TestQueuedStepsNeverWait checks that a queued step copies its batch and nothing else, and
// that the host does not wait for the device.
func TestQueuedStepsNeverWait(t *testing.T) {
	onlyPretend(t)
	for name := range tasks {
		t.Run(name, func(t *testing.T) {
			task := build(t, name, device)
			defer closeTask(task)
			for i := range 5 { // the first steps fill the pools
				c := counted(t, func() {
					err := torch.Scope(func() error {
						_, err := task.Queue(i)
						return err
					})
					if err != nil {
						t.Fatal(err)
					}
				})
				if want := (testdevice.Counts{ToDevice: toDevice(name), Operators: c.Operators}); c != want {
					t.Errorf("step %d: %+v, want %+v", i+1, c, want)
				}
			}
		})
	}
}

// TestLossesAreReadTogether checks that a loop copies the losses of many steps at once.
func TestLossesAreReadTogether(t *testing.T) {
	onlyPretend(t)
	for _, name := range []string{"cyclegan", "mapper"} {
		t.Run(name, func(t *testing.T) {
			task := build(t, name, device)
			defer closeTask(task)
			// Before step 20 losses are read one by one; then after step 40. The counts
			// are those of the steps from 21 to 39, and then of step 40.
			var c [2]testdevice.Counts
			probe := &probe{Task: task, at: map[int]func(){
				20: testdevice.Reset,
				39: func() { c[0] = testdevice.Read() },
				40: func() { c[1] = testdevice.Read() },
			}}
			l := &train.Loop{Dir: t.TempDir(), Kind: "test", Steps: 41, Every: 100}
			if err := l.Run(context.Background(), probe); err != nil {
				t.Fatal(err)
			}
			for i, want := range []int64{0, 1} {
				if c[i].ToHost != want || c[i].Synchronized != want {
					t.Errorf("after %d steps: %+v, want %d copies to the host", 19+i, c[i], want)
				}
			}
		})
	}
}

// probe is a task that calls functions before steps.
type probe struct {
	train.Task
	at map[int]func()
}

func (p *probe) Queue(step int) (train.Pending, error) {
	if f := p.at[step]; f != nil {
		f()
	}
	return p.Task.Queue(step)
}
