package train

import (
	"context"
	"errors"
	"math"
	"runtime"
	"testing"
	"time"

	"cyclecap/torch"
	"cyclecap/torch/compare"
	"cyclecap/torch/torchtest"
)

// tape stands for a CUDA graph on the CPU. Like one, it computes nothing when it is
// recorded, reads its inputs at their addresses, and leaves results and gradients at the
// addresses that they had in the recording. Anything else that a step does to them shows.
type tape struct {
	f     func()
	s     *stage
	task  *CycleGANTask
	out   []torch.Tensor
	grads []torch.Tensor // of all parameters; none if the stage does not compute them
}

func (t *tape) params() []torch.Tensor {
	if t.s == &t.task.generators {
		return t.task.gens
	}
	return t.task.discs
}

// run computes the stage into new tensors and copies them to the old ones.
func (t *tape) run() {
	torch.NoGrad(func() {
		var before []torch.Tensor
		for _, p := range t.params() {
			before = append(before, p.Grad())
		}
		torch.EnableGrad(t.f)
		if t.out == nil {
			t.out = t.s.out
			for _, p := range t.params() {
				t.grads = append(t.grads, p.Grad().Keep())
			}
			return
		}
		for i, x := range t.s.out {
			if x != t.out[i] { // not an input
				t.out[i].Copy_(x)
				x.Close()
			}
		}
		t.s.out = t.out
		for i, p := range t.params() {
			t.grads[i].Copy_(p.Grad())
			p.SetGrad(before[i])
		}
	})
}

func (t *tape) Replay() error {
	t.run()
	return nil
}

func (t *tape) Close() {
	for _, g := range t.grads {
		g.Close()
	}
}

// recorded makes a task record its stages on tapes.
func recorded(t *testing.T, task *CycleGANTask) (recordings *int) {
	recordings = new(int)
	was := record
	t.Cleanup(func() { record = was })
	record = func(_ torch.Device, f func()) (recording, error) {
		*recordings++
		r := &tape{f: f, s: &task.generators, task: task}
		if task.generators.graph != nil {
			r.s = &task.discriminators
		}
		var pools []torch.Tensor
		for _, p := range []*pool{&task.fakeText, &task.fakeImage} {
			pools = append(pools, p.past.Clone())
		}
		r.run()
		task.fakeText.past.Copy_(pools[0])
		task.fakeImage.past.Copy_(pools[1])
		for _, x := range r.out {
			if x != r.s.in[0] && (len(r.s.in) < 2 || x != r.s.in[1]) {
				x.Fill_(math.NaN())
			}
		}
		for _, g := range r.grads {
			g.Fill_(math.NaN())
		}
		return r, nil
	}
	task.generators.record, task.discriminators.record = true, true
	return recordings
}

// TestRecordedStep checks that a step whose stages are recorded and replayed has the bits of
// a step that is not, and that it resumes with the same bits.
func TestRecordedStep(t *testing.T) {
	const steps = 14
	run := func(dir string, record bool, stop int) map[string]torch.Tensor {
		task := build(t, "cyclegan").(*CycleGANTask)
		defer task.Close()
		recordings := new(int)
		if record {
			recordings = recorded(t, task)
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		l := &Loop{Dir: dir, Kind: "cyclegan", Steps: steps, Every: 100, Config: "c", Resume: true, Progress: func(done int, _ Losses) {
			if done == stop {
				cancel()
			}
		}}
		if err := l.Run(ctx, task); errors.Is(err, context.Canceled) != (stop > 0) {
			t.Fatal(err)
		}
		if want := map[bool]int{true: 2}[record]; *recordings != want {
			t.Errorf("%d recordings, want %d", *recordings, want)
		}
		return load(t, dir)
	}
	plain, whole, cut := t.TempDir(), t.TempDir(), t.TempDir()
	want := run(plain, false, 0)
	run(cut, true, 6) // after three replays
	for name, have := range map[string]map[string]torch.Tensor{"recorded": run(whole, true, 0), "resumed": run(cut, true, 0)} {
		if diff := torchtest.Diff(have, want, compare.Bits); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	for _, dir := range []string{whole, cut} {
		if x, y := losses(t, plain), losses(t, dir); x != y {
			t.Errorf("the logs differ:\n%s\n%s", x, y)
		}
	}
}

// TestRecordingFails checks that a stage that cannot be recorded stops the training with an
// error that says so.
func TestRecordingFails(t *testing.T) {
	task := build(t, "cyclegan").(*CycleGANTask)
	defer task.Close()
	recorded(t, task)
	failure := errors.New("no memory")
	record = func(torch.Device, func()) (recording, error) { return nil, failure }
	err := (&Loop{Dir: t.TempDir(), Kind: "cyclegan", Steps: 9, Every: 100}).Run(context.Background(), task)
	if !errors.Is(err, failure) {
		t.Errorf("got %v, want %v", err, failure)
	}
}

// settled returns the number of live tensors once the garbage collector has freed those
// that earlier tests kept and forgot.
func settled() int64 {
	for n := torch.Alive(); ; {
		runtime.GC()
		time.Sleep(10 * time.Millisecond)
		now := torch.Alive()
		if now == n {
			return n
		}
		n = now
	}
}

// TestStagesFreeTheirTensors checks that a closed task leaves nothing behind.
func TestStagesFreeTheirTensors(t *testing.T) {
	before := settled()
	task := build(t, "cyclegan").(*CycleGANTask)
	recorded(t, task)
	if err := (&Loop{Dir: t.TempDir(), Kind: "cyclegan", Steps: 9, Every: 100}).Run(context.Background(), task); err != nil {
		t.Fatal(err)
	}
	task.Close()
	if n := torch.Alive(); n != before {
		t.Errorf("%d tensors are alive that were not before", n-before)
	}
}
