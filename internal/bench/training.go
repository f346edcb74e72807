package main

import (
	"fmt"
	"path/filepath"
	"syscall"

	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/train"
)

// trainings are workloads that run in separate processes, to measure their peak memory.
// Each run does stepsOf steps and, on both sides, continues where the last one ended.
// Its result is the losses.
var trainings = []workload{
	{"train-mapper", []rival{{"train-mapper", "ClipCap's step", 1.3}, {"train-mapper-frozen", "the same, GPT-2 frozen", 0}}, closeFeatures},
	{"train-mapper-bf16", []rival{{"train-mapper", "ClipCap's step, f32", 2.5}, {"train-mapper-bf16", "ClipCap's step, bf16 autocast", 0}}, nearLosses},
	{"train-mapper-64", []rival{{"train-mapper-64", "ClipCap's step", 1.5}, {"train-mapper-64-frozen", "the same, GPT-2 frozen", 0}}, closeFeatures},
	{"train-cyclegan", []rival{{"train-cyclegan", "CycleGAN's step", 1.3}}, closeFeatures},
}

// stepsOf is the number of steps per run.
var stepsOf = map[string]int{"train-mapper": 1, "train-mapper-bf16": 1, "train-mapper-64": 1, "train-cyclegan": 50}

const trainingMemory = 1 / 0.7 // target for Python's peak memory over ours

func compareTrainings(s settings) ([]result, error) {
	var results []result
	for _, w := range trainings {
		if !s.only.MatchString(w.name) {
			continue
		}
		for _, r := range w.rival {
			lines, err := compareTraining(s, w, r)
			if err != nil {
				return nil, err
			}
			results = append(results, lines...)
		}
	}
	return results, nil
}

func compareTraining(s settings, w workload, r rival) ([]result, error) {
	ours, python, err := startPeers(s)
	if err != nil {
		return nil, err
	}
	defer ours.stop()
	defer python.stop()
	steps := float64(stepsOf[w.name])
	line := result{Name: w.name, Against: r.label, Unit: "s per step", Target: r.target}
	for round := 0; round <= s.rounds; round++ {
		turns := []turn{{ours, w.name}, {python, r.python}}
		if round%2 == 1 {
			turns[0], turns[1] = turns[1], turns[0]
		}
		answers := map[*peer]answer{}
		for _, t := range turns {
			if answers[t.peer], err = t.peer.ask(t.workload); err != nil {
				return nil, fmt.Errorf("%s: %w", t.workload, err)
			}
		}
		a, b := answers[ours], answers[python]
		if round > 0 {
			line.add(a.Seconds/steps, b.Seconds/steps)
			progress("%s, %d of %d: %.3f s, %s %.3f s", w.name, round, s.rounds, a.Seconds/steps, r.label, b.Seconds/steps)
		}
		text, wrong := w.check(a.Result, b.Result)
		line.Output = "losses: " + text
		if wrong != "" {
			line.Wrong = wrong
		}
	}
	memory := result{Name: "its peak memory", Against: r.label, Unit: "GiB"}
	if r.target > 0 {
		memory.Target = trainingMemory
	}
	ours.stop()
	python.stop()
	memory.add(ours.peak(), python.peak())
	return []result{line, memory}, nil
}

// peak returns the peak memory, in GiB, of a process that has ended.
func (p *peer) peak() float64 {
	if usage, ok := p.cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		return float64(usage.Maxrss) / (1 << 20) // ru_maxrss counts KiB on Linux
	}
	return 0
}

// nearLosses compares at lower precision.
func nearLosses(ours, python output) (text, wrong string) {
	text, wrong = closeFeatures(ours, python)
	return text, map[bool]string{true: wrong}[text == ""]
}

// A training is the Go side of a training workload.
type training struct {
	step func(step int) ([]float32, error)
	done int
}

func loadTraining(dir, name string) (*training, error) {
	sd, err := tensors(filepath.Join(dir, "training.safetensors"))
	if err != nil {
		return nil, err
	}
	get := func(n string) torch.Tensor { t, _ := sd.Get(n); return t }
	if name == "train-cyclegan" {
		torch.ManualSeed(0)
		c := train.DefaultCycleGAN()
		t, err := train.NewCycleGANTask(c, repeat(get("images"), c.Batch, 2*c.Seed), repeat(get("texts"), c.Batch, 2*c.Seed+1))
		if err != nil {
			return nil, err
		}
		return &training{step: func(step int) ([]float32, error) {
			l, err := t.Step(step)
			return []float32{float32(l.Get("generators")), float32(l.Get("disc_text")), float32(l.Get("disc_image"))}, err
		}}, nil
	}
	d, err := loadDecoder(dir, kind{})
	if err != nil {
		return nil, err
	}
	m := d.Model
	// The weights from the file must stay unchanged and must not stay in memory.
	for _, p := range nn.NamedParameters(m.Mapper) {
		mapped := *p.Tensor
		*p.Tensor = mapped.Clone().Keep().SetRequiresGrad(true)
		mapped.Close()
	}
	tokens := get("tokens") // [16, 20], padded with trailing zeros
	batch := tokens.Size(0)
	if name == "train-mapper-64" {
		batch = 64
	}
	features := train.Matrix{Data: torch.ToSlice[float32](get("images").Narrow(0, 0, batch)), Cols: 512}
	captions := &train.Texts{}
	for i := range batch {
		var ids []int
		for _, id := range torch.ToSlice[int64](tokens.Select(0, i%tokens.Size(0))) {
			if id != 0 {
				ids = append(ids, int(id))
			}
		}
		captions.Add(ids)
	}
	data := train.DecoderData{Captions: captions, Features: features}
	// There is only one batch, so its order is fixed.
	t, err := train.NewDecoderTask(train.DecoderConfig{Epochs: 1000, Batch: int(batch), LR: 2e-5, BF16: name == "train-mapper-bf16"},
		m, data, train.DecoderData{Captions: &train.Texts{}})
	if err != nil {
		return nil, err
	}
	return &training{step: func(step int) ([]float32, error) {
		l, err := t.Step(step)
		return []float32{float32(l.Get("loss"))}, err
	}}, nil
}

// repeated holds features that yield the same batch, in the same order, at every step
// of a shuffled epoch.
type repeated struct {
	train.Matrix         // the batch
	place        []int32 // position in the batch of each row
}

// repeatedSteps is more than the number of steps in any run.
const repeatedSteps = 10_000

func repeat(batch torch.Tensor, size int, seed uint64) repeated {
	r := repeated{train.Matrix{Data: torch.ToSlice[float32](batch), Cols: int(batch.Size(1))}, make([]int32, repeatedSteps*size)}
	order := train.Order{N: len(r.place), Batch: size, Seed: seed}
	for step := range repeatedSteps {
		for i, row := range order.Indices(step) {
			r.place[row] = int32(i)
		}
	}
	return r
}

func (r repeated) Len() int { return len(r.place) }

func (r repeated) Read(rows []int32, dst []float32) error {
	places := make([]int32, len(rows))
	for i, row := range rows {
		places[i] = r.place[row]
	}
	return r.Matrix.Read(places, dst)
}

func (t *training) run(steps int) (any, error) {
	f := features{}
	for range steps {
		err := torch.Scope(func() error {
			losses, err := t.step(t.done)
			f.values, f.width = append(f.values, losses...), len(losses)
			return err
		})
		if err != nil {
			return nil, err
		}
		t.done++
	}
	return f, nil
}
