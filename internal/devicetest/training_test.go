package devicetest

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cyclecap/nets/clipcap"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/torch/torchtest"
	"cyclecap/train"
	"cyclecap/weights"
)

// tasks returns each training on a device, with networks that are made on the CPU.
var tasks = map[string]func(d torch.Device) (train.Task, error){
	"clip":                   clipTask(false),
	"clip, bf16":             clipTask(true),
	"gpt2":                   gpt2Task(false),
	"gpt2, bf16":             gpt2Task(true),
	"mapper":                 decoderTask(train.DecoderConfig{}, newTransformerMapper),
	"mapper, CapDec's noise": decoderTask(train.DecoderConfig{Noise: &train.Noise{Variance: 0.016}}, newTransformerMapper),
	"mapper, C3's noise":     decoderTask(train.DecoderConfig{Noise: &train.Noise{Variance: 0.016, Mean: matrix(1, 16, 4).Data}}, newTransformerMapper),
	"mapper, bf16":           decoderTask(train.DecoderConfig{BF16: true}, newTransformerMapper),
	"mapper and gpt2":        decoderTask(train.DecoderConfig{TuneGPT2: true}, newTransformerMapper),
	"mlp mapper":             decoderTask(train.DecoderConfig{}, func() clipcap.Mapper { return clipcap.NewMLPMapper(16, 64, 4) }),
	"cyclegan":               cycleGANTask(func(*train.CycleGANConfig) {}),
	"cyclegan, bce":          cycleGANTask(func(c *train.CycleGANConfig) { c.BCE, c.FullDisc = true, true }),
	"cyclegan, standardized": cycleGANTask(func(c *train.CycleGANConfig) { c.Standardize = true }),
}

func clipTask(bf16 bool) func(d torch.Device) (train.Task, error) {
	return func(d torch.Device) (train.Task, error) {
		m := moved(d, newCLIP(false))
		data := train.CLIPData{Pixels: make([]uint8, 20*3*32*32), Captions: texts(40, 50)}
		for i := range data.Pixels {
			data.Pixels[i] = uint8(i * i >> 3)
		}
		for i := range 20 {
			data.Of = append(data.Of, []int32{int32(2 * i), int32(2*i + 1)})
		}
		return train.NewCLIPTask(train.CLIPConfig{Std: [3]float32{1, 1, 1}, Epochs: 4, Batch: 4, LR: 1e-3, WeightDecay: 0.1, WarmupSteps: 2, Seed: 3, BF16: bf16, Device: d}, m, data)
	}
}

func gpt2Task(bf16 bool) func(d torch.Device) (train.Task, error) {
	return func(d torch.Device) (train.Task, error) {
		text := make([]int32, 500)
		for i := range text {
			text[i] = int32(i * i % 50)
		}
		return train.NewGPT2Task(train.GPT2Config{Epochs: 4, Batch: 4, Window: 8, LR: 1e-3, WarmupSteps: 2, Seed: 3, BF16: bf16, Device: d}, moved(d, newGPT2()), text)
	}
}

func decoderTask(c train.DecoderConfig, newMapper func() clipcap.Mapper) func(d torch.Device) (train.Task, error) {
	return func(d torch.Device) (train.Task, error) {
		c := c
		c.Epochs, c.Batch, c.LR, c.WarmupSteps, c.Seed, c.Device = 4, 4, 1e-3, 4, 3, d
		m := &clipcap.Model{Mapper: moved(d, newMapper()), GPT2: moved(d, newGPT2())}
		data := train.DecoderData{Captions: texts(40, 50), Features: matrix(40, 16, 2)}
		return train.NewDecoderTask(c, m, data, data)
	}
}

// cycleGANTask returns a CycleGAN, which makes its networks on the device: they get the
// weights of one on the CPU.
func cycleGANTask(change func(*train.CycleGANConfig)) func(d torch.Device) (train.Task, error) {
	return func(d torch.Device) (train.Task, error) {
		c := train.DefaultCycleGAN()
		c.Width, c.Pool, c.Epochs, c.Batch, c.DecayFrom, c.Seed, c.Device = 16, 6, 4, 4, 2, 3, d
		change(&c)
		t, err := train.NewCycleGANTask(c, matrix(30, 16, 1), matrix(40, 16, 2))
		if err != nil || d == torch.CPU {
			return t, err
		}
		torch.ManualSeed(11)
		c.Device = torch.CPU
		own, err := train.NewCycleGANTask(c, matrix(30, 16, 1), matrix(40, 16, 2))
		if err != nil {
			return nil, err
		}
		defer closeTask(own)
		from := own.Parts().Modules
		for name, m := range t.Parts().Modules {
			torch.NoGrad(func() {
				of := nn.StateDictOf(from[name])
				for _, p := range nn.NamedParameters(m) {
					w, _ := of.Get(p.Name)
					p.Tensor.Copy_(w)
				}
			})
		}
		return t, nil
	}
}

// build returns a task, always the same one on a device.
func build(t *testing.T, name string, d torch.Device) train.Task {
	t.Helper()
	var task train.Task
	err := torch.Scope(func() (err error) {
		torch.ManualSeed(11)
		if task, err = tasks[name](d); err == nil {
			// Whatever making the networks has drawn, the steps draw the same.
			torch.ManualSeed(12)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return task
}

// closeTask frees a task and its networks.
func closeTask(task train.Task) {
	for _, m := range task.Parts().Modules {
		nn.Close(m)
	}
	if c, ok := task.(*train.DecoderTask); ok {
		nn.Close(c.Model.GPT2)
	}
	task.(interface{ Close() }).Close()
}

// interrupted is a task during whose step, counted from 1, a user presses Ctrl-C.
type interrupted struct {
	train.Task
	step   int
	cancel func()
}

func (i interrupted) Queue(step int) (train.Pending, error) {
	if step+1 == i.step {
		i.cancel()
	}
	return i.Task.Queue(step)
}

// trains runs a training to the end, or until it is interrupted after a number of
// steps, and returns its folder.
func trains(t *testing.T, name string, d torch.Device, dir string, steps, interrupt int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	task := build(t, name, d)
	defer closeTask(task)
	l := &train.Loop{Dir: dir, Kind: "test", Steps: steps, Every: 100, Config: "c", Resume: true}
	err := l.Run(ctx, interrupted{task, interrupt, cancel})
	if interrupt > 0 && !errors.Is(err, context.Canceled) || interrupt == 0 && err != nil {
		t.Fatal(err)
	}
}

// checkpointOf returns the tensors of a folder's last checkpoint.
func checkpointOf(t *testing.T, dir string) (out []result) {
	t.Helper()
	f, err := weights.Open(filepath.Join(dir, train.LastCheckpoint))
	if err != nil {
		t.Fatal(err)
	}
	sd, err := f.Load()
	if err != nil {
		t.Fatal(err)
	}
	defer sd.Close()
	for _, n := range slices.Sorted(slices.Values(sd.Names())) {
		x, _ := sd.Get(n)
		out = append(out, result{n, x.Clone()})
	}
	return out
}

// lossesOf returns the losses of each step.
func lossesOf(t *testing.T, dir string) (out []map[string]float64) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, train.MetricsFile))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		v := map[string]float64{}
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		delete(v, "seconds")
		out = append(out, v)
	}
	return out
}

// reach is how far Adam can move a weight in the trainings of this file: it divides each
// gradient by its own size, so that a gradient that is 0 but for rounding (that of the bias
// of a key) moves its weight as far as any other, and in another direction on CUDA.
const reach = 2 * 8 * 1e-3

// TestTraining compares the losses of every step, and the weights and the states of the
// optimizers at the end. On CUDA the losses show whether the weights are right, and the
// weights themselves must only be within Adam's reach.
func TestTraining(t *testing.T) {
	const steps = 8
	for name := range tasks {
		t.Run(name, func(t *testing.T) {
			rel := trained
			if strings.Contains(name, "bf16") {
				rel = 5 * halved
			}
			host, dir := t.TempDir(), t.TempDir()
			trains(t, name, torch.CPU, host, steps, 0)
			trains(t, name, device, dir, steps, 0)
			want, got := lossesOf(t, host), lossesOf(t, dir)
			if len(want) != len(got) {
				t.Fatalf("%d lines of losses, want %d", len(got), len(want))
			}
			for i := range want {
				for loss, w := range want[i] {
					if !exact() && loss == "accuracy" {
						continue // a share of four photos
					}
					if g := got[i][loss]; g != w && (exact() || !(math.Abs(g-w) <= rel*math.Abs(w))) {
						t.Errorf("step %d: %s is %v, want %v", i+1, loss, g, w)
					}
				}
			}
			scope(t, func() error {
				want, got := checkpointOf(t, host), checkpointOf(t, dir)
				if len(want) != len(got) {
					t.Fatalf("%d tensors in the checkpoint, want %d", len(got), len(want))
				}
				for i := range want {
					if want[i].name != got[i].name {
						t.Fatalf("tensor %s, want %s", got[i].name, want[i].name)
					}
					if !exact() && strings.HasPrefix(got[i].name, "optimizer.") {
						continue // squares of gradients; the weights show their effect
					}
					if !exact() {
						near(t, want[i], got[i])
						continue
					}
					differ(t, rel, want[i], got[i])
				}
				return nil
			})
		})
	}
}

// near fails the test if weights differ by more than Adam's reach.
func near(t *testing.T, want, got result) {
	t.Helper()
	a, b := torch.ToSlice[float64](want.Tensor), torch.ToSlice[float64](got.Tensor)
	if len(a) != len(b) {
		t.Errorf("%s: %v, want %v", got.name, got.Shape(), want.Shape())
		return
	}
	for i := range a {
		if !(math.Abs(a[i]-b[i]) <= reach+trained*math.Abs(a[i])) {
			t.Errorf("%s: element %d is %g, want %g", got.name, i, b[i], a[i])
			return
		}
	}
}

// TestResume checks that a training on the device that is interrupted and resumed ends
// with the bits of one that is not.
func TestResume(t *testing.T) {
	const steps = 8
	if !exact() {
		// The gradients of attention are sums in any order otherwise.
		torch.UseDeterministicAlgorithms(true)
		defer torch.UseDeterministicAlgorithms(false)
	}
	for name := range tasks {
		t.Run(name, func(t *testing.T) {
			whole, cut := t.TempDir(), t.TempDir()
			trains(t, name, device, whole, steps, 0)
			trains(t, name, device, cut, steps, 3)
			trains(t, name, device, cut, steps, 0)
			scope(t, func() error {
				want, got := checkpointOf(t, whole), checkpointOf(t, cut)
				for i := range want {
					torchtest.Bits(t, got[i].Tensor, want[i].Tensor, got[i].name, ", compared with the training that was not interrupted")
				}
				return nil
			})
		})
	}
}
