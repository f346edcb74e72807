package devicetest

import (
	"strings"
	"testing"

	"cyclecap/internal/testdevice"
	"cyclecap/nets/clip"
	"cyclecap/nets/clipcap"
	"cyclecap/pipeline"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/torch/optim"
	"cyclecap/train"
)

// Each copy to the host makes it wait for the device, which then has nothing to do until
// the host has launched new work. The tests in this file hold copies and operators to a
// budget, by the counts of the pretend accelerator.

func onlyPretend(t *testing.T) {
	t.Helper()
	if !pretend() {
		t.Skip("needs the pretend accelerator, which counts")
	}
}

// within checks the counts since the last reset.
func within(t *testing.T, what string, most testdevice.Counts) {
	t.Helper()
	c := testdevice.Read()
	if c.ToHost > most.ToHost || c.Synchronized > most.Synchronized || c.ToDevice > most.ToDevice {
		var copies []string
		for name := range testdevice.Operators() {
			if strings.HasPrefix(name, "to ") {
				copies = append(copies, name)
			}
		}
		t.Errorf("%s: %d copies to the host, %d to the device and %d synchronizations (%s); the budget is %d, %d and %d",
			what, c.ToHost, c.ToDevice, c.Synchronized, strings.Join(copies, ", "), most.ToHost, most.ToDevice, most.Synchronized)
	}
}

// TestStepBudget checks that a queued step of every training makes no copy to the host and
// never waits: its batch comes from pinned memory. Reading its losses takes one copy.
func TestStepBudget(t *testing.T) {
	onlyPretend(t)
	for name := range tasks {
		t.Run(name, func(t *testing.T) {
			task := build(t, name, device)
			defer closeTask(task)
			inScope := func(f func() error) {
				t.Helper()
				if err := torch.Scope(f); err != nil {
					t.Fatal(err)
				}
			}
			for i := range 10 { // the pools of the CycleGAN fill and are then used
				inScope(func() error {
					testdevice.Reset()
					_, err := task.Queue(2 * i)
					within(t, "a queued step", testdevice.Counts{ToDevice: 3})
					return err
				})
				inScope(func() error {
					testdevice.Reset()
					_, err := task.Step(2*i + 1)
					within(t, "a step", testdevice.Counts{ToDevice: 3, ToHost: 1, Synchronized: 1})
					return err
				})
			}
		})
	}
}

// TestLoopBudget checks that a training reads its losses every 20 steps, after the first 20.
func TestLoopBudget(t *testing.T) {
	onlyPretend(t)
	for _, name := range []string{"mapper", "cyclegan"} {
		t.Run(name, func(t *testing.T) {
			task := build(t, name, device)
			defer closeTask(task)
			read := 0
			l := &train.Loop{Dir: t.TempDir(), Kind: "test", Steps: 70, Every: 100, Progress: func(done int, _ train.Losses) {
				switch done {
				case 20:
					testdevice.Reset()
				case 60:
					within(t, "40 steps", testdevice.Counts{ToDevice: 3 * 40, ToHost: 2, Synchronized: 2})
					read++
				}
			}}
			if err := l.Run(t.Context(), task); err != nil {
				t.Fatal(err)
			}
			if read != 1 {
				t.Errorf("step 60 was reported %d times", read)
			}
		})
	}
}

// TestOptimizerBudget checks that the number of operators of a step does not grow with the
// number of parameters where they are fused or work on lists.
func TestOptimizerBudget(t *testing.T) {
	onlyPretend(t)
	for name, newOptimizer := range optimizers {
		t.Run(name, func(t *testing.T) {
			operators := func(n int) (count int64) {
				scope(t, func() error {
					var params []torch.Tensor
					for i := range n {
						p := torch.Randn([]int64{int64(i + 2), 3}, torch.WithDevice(device)).SetRequiresGrad(true)
						p.Square().Sum().Backward()
						params = append(params, p)
					}
					opt := newOptimizer(params)
					defer opt.Close()
					opt.Step() // creates the state
					testdevice.Reset()
					opt.Step()
					within(t, "a step", testdevice.Counts{})
					count = testdevice.Read().Operators
					return nil
				})
				return count
			}
			// A fused kernel takes the number of steps of each parameter as a tensor.
			few, many := operators(2), operators(12)
			if many > few+10 || strings.Contains(name, "fused") == false && many != few {
				t.Errorf("%d operators for 2 parameters and %d for 12: %v", few, many, testdevice.Operators())
			}
		})
	}
}

// TestClipBudget checks that clipping gradients works on lists too, and copies only the norm
// that it returns.
func TestClipBudget(t *testing.T) {
	onlyPretend(t)
	scope(t, func() error {
		m := moved(device, newTransformerMapper())
		defer nn.Close(m)
		m.Forward(to(device, torch.Randn([]int64{4, 16}))).Square().Mean().Backward()
		testdevice.Reset()
		optim.ClipGradNorm(nn.Parameters(m), 1)
		within(t, "clipping by norm", testdevice.Counts{ToHost: 1, Synchronized: 1})
		if n := testdevice.Read().Operators; n > 12 {
			t.Errorf("clipping by norm: %d operators: %v", n, testdevice.Operators())
		}
		testdevice.Reset()
		optim.ClipGradValue(nn.Parameters(m), 1)
		within(t, "clipping by value", testdevice.Counts{})
		return nil
	})
}

// TestDecodingBudget checks that decoding reads at most once every four tokens, and once at
// the end, for the whole batch. Sampling draws on the CPU: it copies the logits of a
// token, and the drawn tokens back. The beam search of transformers copies the best
// continuations of a token, and the chosen ones back.
func TestDecodingBudget(t *testing.T) {
	onlyPretend(t)
	const tokens = 10
	for name, o := range methods {
		for stop, what := range map[int64]string{-1: "", 48: ", with a stop token"} {
			t.Run(name+what, func(t *testing.T) {
				o.MaxTokens, o.Stop = tokens, stop
				scope(t, func() error {
					m := decoder(device)
					defer closeDecoder(m)
					x := to(device, torch.Randn([]int64{7, 16}))
					testdevice.Reset()
					var err error
					torch.InferenceMode(func() { _, err = m.Generate(t.Context(), x, o) })
					budget := testdevice.Counts{ToHost: tokens/4 + 2, Synchronized: tokens/4 + 2}
					switch o.Method {
					case clipcap.Sample:
						// Captions that have ended leave the batch, by an index.
						budget = testdevice.Counts{ToHost: tokens, ToDevice: 3 * tokens, Synchronized: 4 * tokens}
					case clipcap.BeamTransformers:
						budget = testdevice.Counts{ToHost: 3 * tokens, ToDevice: 3 * tokens, Synchronized: 6 * tokens}
					}
					within(t, "decoding", budget)
					return err
				})
			})
		}
	}
}

// TestPipelineBudget checks that a batch of photos or texts is copied to the device once,
// and its features back once.
func TestPipelineBudget(t *testing.T) {
	onlyPretend(t)
	files, photos := writeFiles(t)
	m, err := pipeline.LoadCLIP(files.CLIP, "", clip.Both, pipeline.Options{Device: device})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	testdevice.Reset()
	for _, err := range m.Photos(t.Context(), photos, len(photos)) {
		if err != nil {
			t.Fatal(err)
		}
	}
	within(t, "photos", testdevice.Counts{ToDevice: 1, ToHost: 1, Synchronized: 1})
	testdevice.Reset()
	for _, err := range m.Texts(t.Context(), []string{"a cat", "a dog"}, 2, false) {
		if err != nil {
			t.Fatal(err)
		}
	}
	within(t, "texts", testdevice.Counts{ToDevice: 1, ToHost: 1, Synchronized: 1})
}
