package train

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cyclecap/nets/clip"
	"cyclecap/nets/clipcap"
	"cyclecap/nets/gpt2"
	"cyclecap/torch"
	"cyclecap/torch/compare"
	"cyclecap/torch/torchtest"
	"cyclecap/weights"

	"github.com/google/go-cmp/cmp"
)

func random(n, width int, seed uint64) Matrix {
	rng := rand.New(rand.NewPCG(seed, 0))
	m := Matrix{Data: make([]float32, n*width), Cols: width}
	for i := range m.Data {
		m.Data[i] = float32(rng.NormFloat64())
	}
	return m
}

func captions(n, vocab int) *Texts {
	rng := rand.New(rand.NewPCG(7, 7))
	t := &Texts{}
	for range n {
		ids := make([]int, 3+rng.IntN(6))
		for i := range ids {
			ids[i] = 1 + rng.IntN(vocab-1)
		}
		t.Add(ids)
	}
	return t
}

// tasks creates each task, always from the same seed, at a size that trains quickly.
var tasks = map[string]func(t *testing.T) Task{
	"cyclegan": func(t *testing.T) Task {
		c := DefaultCycleGAN()
		c.Width, c.Pool = 16, 6
		c.Epochs, c.Batch, c.DecayFrom, c.Standardize, c.Seed, c.Group = 4, 4, 2, true, 3, group
		return must(NewCycleGANTask(c, random(14, 16, 1), random(20, 16, 2)))(t)
	},
	// Each batch of texts begins its set again, within the batch and between batches.
	"cyclegan with few texts": func(t *testing.T) Task {
		c := DefaultCycleGAN()
		c.Width, c.Pool = 16, 6
		c.Epochs, c.Batch, c.DecayFrom, c.Seed, c.Group = 4, 4, 2, 3, group
		return must(NewCycleGANTask(c, random(14, 16, 1), random(3, 16, 2)))(t)
	},
	"decoder": func(t *testing.T) Task {
		g := gpt2.New(gpt2.Config{VocabSize: 50, NPositions: 32, NEmbd: 64, NLayer: 1, NHead: 1, LayerNormEpsilon: 1e-5})
		m := clipcap.NewTransformerMapper(clipcap.TransformerConfig{FeatureWidth: 16, Width: 64, ClipLength: 3, PrefixLength: 3, Layers: 1, Heads: 8})
		data := DecoderData{Captions: captions(20, 50), Features: random(20, 16, 2)}
		c := DecoderConfig{Epochs: 4, Batch: 4, LR: 1e-3, WarmupSteps: 4, Noise: &Noise{Variance: 0.016, Mean: random(1, 16, 3).Data}, Seed: 3, Group: group}
		return must(NewDecoderTask(c, &clipcap.Model{Mapper: m, GPT2: g}, data, data))(t)
	},
	"clip": func(t *testing.T) Task {
		return clipTask(t, clip.Config{ImageSize: 16, PatchSize: 8, VisionWidth: 64, VisionDepth: 1}, false)
	},
	// Its running statistics are neither parameters nor in an optimizer.
	"clip with a ResNet and a locked text encoder": func(t *testing.T) Task {
		return clipTask(t, clip.Config{ImageSize: 32, VisionWidth: 2, ResNet: [4]int64{1, 1, 1, 1}}, true)
	},
	"gpt2": func(t *testing.T) Task {
		g := gpt2.New(gpt2.Config{VocabSize: 50, NPositions: 32, NEmbd: 64, NLayer: 1, NHead: 1, LayerNormEpsilon: 1e-5})
		text := captions(100, 50)
		return must(NewGPT2Task(GPT2Config{Epochs: 1, Batch: 4, Window: 8, LR: 1e-3, WarmupSteps: 2, Seed: 3}, g, text.ids))(t)
	},
}

func clipTask(t *testing.T, c clip.Config, lockText bool) Task {
	c.EmbedDim, c.Context, c.Vocab, c.TextWidth, c.TextHeads, c.TextDepth = 16, 12, 50, 64, 1, 1
	data := CLIPData{Pixels: make([]uint8, 20*3*c.ImageSize*c.ImageSize), Captions: captions(40, 50)}
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range data.Pixels {
		data.Pixels[i] = uint8(rng.Uint32())
	}
	for i := range 20 {
		data.Of = append(data.Of, []int32{int32(2 * i), int32(2*i + 1)})
	}
	return must(NewCLIPTask(CLIPConfig{Std: [3]float32{1, 1, 1}, Epochs: 4, Batch: 4, LR: 1e-3, WeightDecay: 0.1, WarmupSteps: 2, LockText: lockText, Seed: 3}, clip.New(c), data))(t)
}

func must[T Task](task T, err error) func(*testing.T) Task {
	return func(t *testing.T) Task {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return task
	}
}

func build(t *testing.T, name string) Task {
	t.Helper()
	var task Task
	err := torch.Scope(func() error {
		torch.ManualSeed(11)
		task = tasks[name](t)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return task
}

// TestResumeIsBitEqual checks that a training that is interrupted and resumed ends bit for
// bit like one that is not: weights, optimizers, pools, random state and log.
func TestResumeIsBitEqual(t *testing.T) {
	for name := range tasks {
		t.Run(name, func(t *testing.T) {
			const steps = 11
			whole, cut := t.TempDir(), t.TempDir()
			if err := (&Loop{Dir: whole, Kind: name, Steps: steps, Every: 100, Config: "c"}).Run(context.Background(), build(t, name)); err != nil {
				t.Fatal(err)
			}
			// Interrupt it at step 5 and again at step 8. Each time, a new task with
			// another random state stands for a new process.
			for _, at := range []int{5, 8, steps + 1} {
				ctx, cancel := context.WithCancel(context.Background())
				torch.ManualSeed(uint64(at)) // the state of a new process
				l := &Loop{Dir: cut, Kind: name, Steps: steps, Every: 100, Config: "c", Resume: true,
					Progress: func(done int, _ Losses) {
						if done == at {
							cancel()
						}
					}}
				err := l.Run(ctx, build(t, name))
				if want := at <= steps; errors.Is(err, context.Canceled) != want {
					t.Fatalf("interrupted at %d: %v", at, err)
				}
			}
			if diff := torchtest.Diff(load(t, cut), load(t, whole), compare.Bits); diff != "" {
				t.Error(diff)
			}
			if x, y := losses(t, whole), losses(t, cut); x != y {
				t.Errorf("the logs differ:\n%s\n%s", x, y)
			}
		})
	}
}

func load(t *testing.T, dir string) map[string]torch.Tensor {
	t.Helper()
	f, err := weights.Open(filepath.Join(dir, LastCheckpoint))
	if err != nil {
		t.Fatal(err)
	}
	sd, err := f.Load()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sd.Close)
	out := map[string]torch.Tensor{}
	for _, n := range sd.Names() {
		out[n], _ = sd.Get(n)
	}
	return out
}

// losses returns the log without times.
func losses(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, MetricsFile))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for line := range strings.Lines(string(b)) {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		delete(v, "seconds")
		b, _ := json.Marshal(v)
		out.Write(b)
		out.WriteByte('\n')
	}
	return out.String()
}

// TestLossesFall checks that each task learns: its loss falls.
func TestLossesFall(t *testing.T) {
	for name := range tasks {
		if name == "cyclegan with few texts" {
			continue // its discriminator soon knows the three texts by heart
		}
		t.Run(name, func(t *testing.T) {
			var all []float64
			l := &Loop{Dir: t.TempDir(), Kind: name, Steps: 60, Every: 100, Progress: func(_ int, l Losses) {
				all = append(all, l[0].Value)
			}}
			if err := l.Run(context.Background(), build(t, name)); err != nil {
				t.Fatal(err)
			}
			mean := func(x []float64) (s float64) {
				for _, v := range x {
					s += v / float64(len(x))
				}
				return s
			}
			if a, b := mean(all[:10]), mean(all[50:]); !(b < a) {
				t.Errorf("the loss went from %g to %g", a, b)
			}
		})
	}
}

func TestLoopErrors(t *testing.T) {
	dir := t.TempDir()
	run := func(l Loop) error {
		l.Dir, l.Every = dir, 2
		if l.Kind == "" {
			l.Kind = "gpt2"
		}
		return l.Run(context.Background(), build(t, "gpt2"))
	}
	if err := run(Loop{Steps: 4, Config: "a"}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		loop Loop
		want string
	}{
		{Loop{Steps: 6, Config: "a"}, "use --resume to continue it"},
		{Loop{Steps: 6, Config: "b", Resume: true}, "other settings or data"},
		{Loop{Steps: 6, Config: "a", Kind: "clip", Resume: true}, "checkpoint of a gpt2 training, want clip"},
		{Loop{Steps: 3, Config: "a", Resume: true}, "checkpoint is at step 4, beyond the requested 3 steps"},
	} {
		if err := run(c.loop); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q is not in %v", c.want, err)
		}
	}
	if err := run(Loop{Steps: 6, Config: "a", Resume: true}); err != nil {
		t.Error(err)
	}
}

// nan is a task whose loss is NaN at a step.
type nan struct {
	Task
	at int
}

func (n nan) Queue(step int) (Pending, error) {
	if step == n.at {
		return pending([]torch.Tensor{torch.Scalar0(math.NaN())}, func(v []float64) Losses { return Losses{{"loss", v[0]}} }), nil
	}
	return n.Task.Queue(step)
}

func TestNonFiniteLossStops(t *testing.T) {
	l := &Loop{Dir: t.TempDir(), Kind: "gpt2", Steps: 9, Every: 3}
	err := l.Run(context.Background(), nan{build(t, "gpt2"), 4})
	for _, want := range []string{"at step 5", "loss is NaN", "(batch: windows ", "last good checkpoint is from step 3"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

// late is a task whose losses stay on a device until they are read: the meta device, with
// the losses of the task itself.
type late struct {
	Task
	reads *[]int // steps whose losses were read
}

func (l late) Queue(step int) (Pending, error) {
	losses, err := l.Task.Step(step)
	p := pending([]torch.Tensor{torch.Zeros([]int64{}, torch.WithDevice(torch.Meta))}, func([]float64) Losses {
		*l.reads = append(*l.reads, step)
		return losses
	})
	return p, err
}

// TestLateLosses checks that losses on a device are read after each of the first readEvery
// steps, then every readEvery steps and before each checkpoint, and that the log does not
// depend on it.
func TestLateLosses(t *testing.T) {
	const steps, every = 4*readEvery + 9, 2*readEvery + 3
	now, then := t.TempDir(), t.TempDir()
	if err := (&Loop{Dir: now, Kind: "gpt2", Steps: steps, Every: every}).Run(context.Background(), build(t, "gpt2")); err != nil {
		t.Fatal(err)
	}
	var reads, done []int
	var at []int // after how many steps losses were read
	task := late{build(t, "gpt2"), &reads}
	l := &Loop{Dir: then, Kind: "gpt2", Steps: steps, Every: every, Progress: func(d int, _ Losses) {
		done = append(done, d)
		if len(at) == 0 || len(reads) != at[len(at)-1] {
			at = append(at, len(reads))
		}
	}}
	alive := torch.Alive()
	if err := l.Run(context.Background(), task); err != nil {
		t.Fatal(err)
	}
	if now := torch.Alive(); now > alive+2*int64(len(task.Task.(*GPT2Task).opt.State())) { // Adam's moments
		t.Errorf("%d tensors are alive, %d were before", now, alive)
	}
	want := []int{2 * readEvery, every, every + readEvery, every + 2*readEvery, 2 * every, steps}
	for i := readEvery; i > 0; i-- {
		want = slices.Insert(want, 0, i)
	}
	if diff := cmp.Diff(want, at); diff != "" {
		t.Errorf("losses were read after other steps (- want, + have):\n%s", diff)
	}
	for i, d := range done {
		if d != i+1 {
			t.Fatalf("progress was reported in the order %v", done)
		}
	}
	if x, y := losses(t, now), losses(t, then); x != y {
		t.Errorf("the logs differ:\n%s\n%s", x, y)
	}
	if diff := torchtest.Diff(load(t, then), load(t, now), compare.Bits); diff != "" {
		t.Error(diff)
	}
}

// TestLateNonFiniteLossStops checks that a loss that is read late stops the training with
// the step at which it was computed, and that no checkpoint is written after it.
func TestLateNonFiniteLossStops(t *testing.T) {
	for _, c := range []struct {
		name string
		stop int // interrupted after this step
	}{{"read", 99}, {"checkpoint", 99}, {"interruption", readEvery + 6}} {
		every := map[string]int{"read": 100, "checkpoint": readEvery + 7, "interruption": 100}[c.name]
		dir := t.TempDir()
		var reads []int
		ctx, cancel := context.WithCancel(context.Background())
		task := interrupting{late{nanStep{build(t, "gpt2"), readEvery + 4}, &reads}, c.stop, cancel}
		err := (&Loop{Dir: dir, Kind: "gpt2", Steps: 60, Every: every}).Run(ctx, task)
		cancel()
		for _, want := range []string{"at step 25", "loss is NaN", "(batch: windows ", "no checkpoint was written"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q is not in %v", c.name, want, err)
			}
		}
		if n := strings.Count(losses(t, dir), "\n"); n != readEvery+4 {
			t.Errorf("%s: the log has %d steps, want those before the NaN", c.name, n)
		}
		if _, err := os.Stat(filepath.Join(dir, LastCheckpoint)); err == nil {
			t.Errorf("%s: a checkpoint was written", c.name)
		}
	}
}

// nanStep is a task whose loss is NaN at a step.
type nanStep struct {
	Task
	at int
}

func (n nanStep) Step(step int) (Losses, error) {
	l, err := n.Task.Step(step)
	if step == n.at {
		l = Losses{{"loss", math.NaN()}}
	}
	return l, err
}

// interrupting is a task that is interrupted in a step.
type interrupting struct {
	Task
	at     int
	cancel func()
}

func (i interrupting) Queue(step int) (Pending, error) {
	if step == i.at {
		i.cancel()
	}
	return i.Task.Queue(step)
}

// TestOrder checks that an epoch has every item at most once, and that the items of a step
// depend on its number alone.
func TestOrder(t *testing.T) {
	o := Order{N: 10, Batch: 3, Seed: 1}
	for epoch := range 3 {
		seen := map[int32]bool{}
		for step := range 3 {
			for _, i := range o.Indices(3*epoch + step) {
				if seen[i] || i < 0 || i >= 10 {
					t.Fatalf("epoch %d: item %d", epoch, i)
				}
				seen[i] = true
			}
		}
	}
	a := append([]int32(nil), o.Indices(1)...)
	o.Indices(4)
	if b := o.Indices(1); !bytes.Equal(asBytes(a), asBytes(b)) {
		t.Errorf("step 1 is %v and then %v", a, b)
	}
}

// TestOrderOfSmallSet checks that a set smaller than a batch is begun again as often as
// needed: each of its passes has every item once, in an order of its own.
func TestOrderOfSmallSet(t *testing.T) {
	const n, batch, steps = 5, 12, 10
	o := Order{N: n, Batch: batch, Seed: 1}
	var all []int32
	for step := range steps {
		x := o.Indices(step)
		if len(x) != batch {
			t.Fatalf("step %d has %d items", step, len(x))
		}
		all = append(all, x...)
	}
	orders := map[string]bool{}
	for at := 0; at+n <= len(all); at += n {
		pass := slices.Clone(all[at : at+n])
		orders[fmt.Sprint(pass)] = true
		if slices.Sort(pass); !slices.Equal(pass, []int32{0, 1, 2, 3, 4}) {
			t.Fatalf("items %d to %d are %v", at, at+n, pass)
		}
	}
	if len(orders) < 10 {
		t.Errorf("24 passes have only %d different orders", len(orders))
	}
	later := Order{N: n, Batch: batch, Seed: 1}
	if x := later.Indices(7); !slices.Equal(x, all[7*batch:8*batch]) {
		t.Errorf("step 7 is %v, but %v after the steps before it", x, all[7*batch:8*batch])
	}
	one := Order{N: 1, Batch: 3}
	if x := one.Indices(2); !slices.Equal(x, []int32{0, 0, 0}) {
		t.Error(x)
	}
}

func asBytes(x []int32) (b []byte) {
	for _, v := range x {
		b = append(b, byte(v))
	}
	return b
}

// TestFoldedGenerator checks that folding the standardization into a generator changes its
// results only by rounding.
func TestFoldedGenerator(t *testing.T) {
	for _, layers := range []int{1, 2, 4, 6} {
		err := torch.Scope(func() error {
			c := DefaultCycleGAN()
			c.Width, c.Layers, c.Batch, c.Standardize = 16, layers, 4, true
			task, err := NewCycleGANTask(c, random(14, 16, 1), random(20, 16, 2))
			if err != nil {
				return err
			}
			defer task.Close()
			x, err := Rows(task.images.features, []int32{0, 1, 2}, torch.CPU)
			if err != nil {
				return err
			}
			y := task.ToText.Forward(x.Sub(task.images.mean).Div(task.images.std)).Mul(task.texts.std).Add(task.texts.mean)
			sd, _ := task.Generators()
			get := func(n string) torch.Tensor { v, _ := sd.Get(n); return v }
			z := x
			for i := range layers {
				if i > 0 {
					z = z.Tanh()
				}
				name := fmt.Sprintf("model.%d.", 2*i)
				z = torch.Linear(z, get(name+"weight"), torch.WithBias(get(name+"bias")))
			}
			torchtest.Close(t, y, z, compare.Tolerance{Max: 1e-5})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
