package experiment

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"cyclecap/data/tokenizer"
	"cyclecap/nets/clip"
	"cyclecap/nets/clipcap"
	"cyclecap/pipeline"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/train"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/shirou/gopsutil/v4/process"
)

// planned is a row of the plan.
type planned struct {
	name            string
	trained, frozen int64 // numbers of parameters
	amount          int   // number of units of work, each time
	unit            string
	times           int     // how often: seeds, decoders, bridges
	seconds         float64 // for each unit
	disk            int64   // bytes, of all times
	memory          uint64  // resident memory after the measurement
}

func (p planned) total() time.Duration {
	return time.Duration(p.seconds * float64(p.amount*p.times) * float64(time.Second))
}

// Plan prints the stages of a run: sizes, steps, and estimates of time, disk and memory
// from running a few steps of each on this machine. It leaves out the stages after the one
// named last, unless last is empty, and those that are finished. It writes no files.
func (x *Experiment) Plan(ctx context.Context, out io.Writer, last string) error {
	n, lines, err := x.plan(ctx, last)
	if err != nil {
		return err
	}
	t := table.NewWriter()
	t.Style().Format = table.FormatOptions{} // do not change units to upper case
	t.AppendHeader(table.Row{"stage", "trainable", "frozen", "amount", "time each", "total time", "disk", "memory"})
	var total time.Duration
	var disk int64
	var memory uint64
	for _, p := range lines {
		total, disk, memory = total+p.total(), disk+p.disk, max(memory, p.memory)
		amount := fmt.Sprintf("%d %s", p.amount, p.unit)
		if p.times > 1 {
			amount = fmt.Sprintf("%d x %s", p.times, amount)
		}
		each := time.Duration(p.seconds * float64(time.Second))
		t.AppendRow(table.Row{p.name, count(p.trained), count(p.frozen), amount, rounded(each), rounded(p.total()), bytes(p.disk), gib(p.memory)})
	}
	t.AppendFooter(table.Row{"total", "", "", "", "", rounded(total), bytes(disk), gib(memory)})
	worlds := ""
	if k := len(x.Variants); k > 0 {
		worlds = fmt.Sprintf(", %d variants", k+1)
	}
	if k := x.worlds(); k > 1 {
		worlds += fmt.Sprintf(", worlds %d to %d", x.Config.World.Seed, x.Config.World.Seed+k-1)
	}
	fmt.Fprintf(out, "%s: %d training photos, %d training captions, %d validation photos, bridges %s, seeds %d to %d%s, output %s\n%s\n",
		x.Config.Name, n.used, n.usedCaptions, n.valPhotos, strings.Join(x.Config.Bridges.Use, ", "), x.Config.Seed, x.Config.Seed+x.Seeds-1, worlds, x.Dir, t.Render())
	fmt.Fprintln(out, "Times are estimated from a few steps on this machine. They do not include the rendering of a world, the scores and the report.")
	fmt.Fprintln(out, "Disk is the room in the output folder, with a checkpoint of each training; memory is that of the process (the total: the largest).")
	return nil
}

// plan measures the stages in order.
func (x *Experiment) plan(ctx context.Context, last string) (n sizes, lines []planned, err error) {
	if len(x.Variants) > 0 {
		return x.planVariants(func(of *Experiment, shared sharedPlan) (sizes, []planned, error) {
			return of.planStages(ctx, shared, last)
		})
	}
	return x.planStages(ctx, nil, last)
}

// planStages measures the stages that are not in the shared plan yet.
func (x *Experiment) planStages(ctx context.Context, shared sharedPlan, last string) (n sizes, lines []planned, err error) {
	if err := x.prepare(); err != nil {
		return n, nil, err
	}
	x.data = nil
	if n, err = x.sizes(); err != nil {
		return n, nil, err
	}
	if err := x.check(n, last); err != nil {
		return n, nil, err
	}
	tokens, err := x.tokens()
	if err != nil {
		return n, nil, err
	}
	if path := x.Config.CLIP.Weights; path != "" {
		m, err := pipeline.LoadCLIP(path, x.Config.CLIP.Config, clip.Text, pipeline.Options{})
		if err != nil {
			return n, nil, fmt.Errorf("clip.weights: %w", err)
		}
		n.width = m.Width()
		m.Close()
	}
	isNew, all := shared.work(x), sharedPlan(nil).work(x)
	finished, err := x.finishedStages(ctx, last)
	if err != nil {
		return n, nil, err
	}
	until := slices.Index(Stages, last)
	for _, stage := range []struct {
		name       string
		isNew, all int // how many of them in each world
		plan       func() ([]planned, error)
	}{
		{"clip", isNew.clip, all.clip, func() ([]planned, error) { return one(x.planCLIP(ctx)) }},
		{"gpt2", isNew.gpt2, all.gpt2, func() ([]planned, error) { return one(x.planGPT2(ctx)) }},
		{"features", isNew.features, all.features, func() ([]planned, error) { return x.planFeatures(ctx, n) }},
		{"decoder", isNew.decoders * x.Seeds, all.decoders * x.Seeds, func() ([]planned, error) { return one(x.planDecoder(ctx, n, tokens)) }},
		{"cyclegan", isNew.cyclegan * x.Seeds, all.cyclegan * x.Seeds, func() ([]planned, error) { return one(x.planCycleGAN(ctx, n)) }},
		{"caption", isNew.captions * x.Seeds, all.captions * x.Seeds, func() ([]planned, error) { return one(x.planCaptions(ctx, n, tokens)) }},
	} {
		// What is finished may be new or shared with a variant before.
		left := min(stage.isNew*x.worlds(), stage.all*x.worlds()-finished[stage.name])
		if left <= 0 || last != "" && slices.Index(Stages, stage.name) > until {
			continue
		}
		list, err := stage.plan()
		if err != nil {
			return n, nil, err
		}
		if stage.name == "features" {
			left = x.worlds() // photos and captions, in each
		}
		for _, p := range list {
			p.times = left
			p.disk *= int64(left)
			lines = append(lines, p)
		}
	}
	return n, lines, nil
}

// tokens returns the average number of tokens in a training caption, by the tokenizer of
// the run's GPT-2. It estimates the captions of a world that is not rendered yet.
func (x *Experiment) tokens() (n int, err error) {
	if x.data == nil {
		return worldTokens, nil
	}
	var tok *tokenizer.GPT2Tokenizer
	if path := x.Config.GPT2.Weights; path == "" {
		tok = x.vocabulary()
	} else {
		err = scope(0, func() error {
			g, err := pipeline.LoadGPT2(path)
			if err == nil {
				tok = g.Tokenizer
				nn.Close(g.Model)
			}
			return err
		})
	}
	if err != nil {
		return 0, err
	}
	captions := x.data.train.texts
	sample := min(1000, len(captions))
	for i := range sample {
		n += len(tok.Encode(captions[i*len(captions)/sample]))
	}
	return max(1, n/sample), nil
}

func one(p planned, err error) ([]planned, error) { return []planned{p}, err }

// rounded rounds short times to tenths of a millisecond and long ones to seconds.
func rounded(d time.Duration) time.Duration {
	switch {
	case d < 100*time.Millisecond:
		return d.Round(100 * time.Microsecond)
	case d < 10*time.Second:
		return d.Round(10 * time.Millisecond)
	}
	return d.Round(time.Second)
}

func gib(n uint64) string { return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30)) }

func bytes(n int64) string {
	if n >= 1e9 {
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}

func count(n int64) string {
	switch {
	case n == 0:
		return ""
	case n >= 1e6:
		return fmt.Sprintf("%.1f M", float64(n)/1e6)
	}
	return fmt.Sprintf("%.1f K", float64(n)/1e3)
}

// measure times some steps of a task, after some steps to warm up.
func (x *Experiment) measure(ctx context.Context, p *planned, t train.Task) error {
	warm, steps := 1, 3
	if x.device != torch.CPU {
		warm, steps = 5, 20 // the first steps record graphs
	}
	var begin time.Time
	for i := range warm + steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		if i == warm {
			if err := torch.Synchronize(x.device); err != nil {
				return err
			}
			begin = time.Now()
		}
		err := torch.Scope(func() error {
			_, err := t.Queue(i)
			return err
		})
		if err != nil {
			return err
		}
	}
	if err := torch.Synchronize(x.device); err != nil {
		return err
	}
	p.seconds = time.Since(begin).Seconds() / float64(steps)
	return p.remember()
}

// remember notes the resident memory of this process.
func (p *planned) remember() error {
	self, err := process.NewProcess(int32(os.Getpid()))
	if err != nil {
		return err
	}
	info, err := self.MemoryInfo()
	if err != nil {
		return err
	}
	p.memory = info.RSS
	return nil
}

func parameters(modules ...any) (n int64) {
	for _, m := range modules {
		for _, p := range nn.Parameters(m) {
			n += p.Numel()
		}
	}
	return n
}

func noise(n, width int) train.Matrix {
	rng := rand.New(rand.NewPCG(0, 0))
	m := train.Matrix{Data: make([]float32, n*width), Cols: width}
	for i := range m.Data {
		m.Data[i] = float32(rng.NormFloat64())
	}
	return m
}

// texts returns n texts with the given number of tokens.
func texts(n, tokens, vocab int) *train.Texts {
	t := &train.Texts{}
	ids := make([]int, tokens)
	for i := range n {
		for k := range ids {
			ids[k] = 1 + (i*31+k*7)%(vocab-1)
		}
		t.Add(ids)
	}
	return t
}

func (x *Experiment) planCLIP(ctx context.Context) (p planned, err error) {
	c, w := x.Config.Train.CLIP, x.Config.World
	p = planned{name: "clip", amount: c.Epochs * (w.Pretrain / c.Batch), unit: "steps"}
	err = scope(0, func() error {
		m, err := x.newCLIP()
		if err != nil {
			return err
		}
		defer closing(m)
		p.trained = parameters(m)
		p.disk = p.trained * 4 * (1 + generations(p.amount, c.CheckpointEvery)*checkpointed)
		data := train.CLIPData{Pixels: make([]uint8, c.Batch*3*c.Image*c.Image), Captions: texts(c.Batch, worldTokens, int(m.Config.Vocab))}
		for i := range c.Batch {
			data.Of = append(data.Of, []int32{int32(i)})
		}
		t, err := train.NewCLIPTask(train.CLIPConfig{Std: [3]float32{1, 1, 1}, Epochs: 100, Batch: c.Batch, LR: c.LR, BF16: x.bf16(c.Dtype), LockText: c.Text != "", Device: x.device}, m, data)
		if err != nil {
			return err
		}
		defer t.Close()
		return x.measure(ctx, &p, t)
	})
	return p, err
}

func (x *Experiment) planGPT2(ctx context.Context) (p planned, err error) {
	c := x.Config.Train.GPT2
	all := len(x.runningText())
	window := c.Positions - 1
	p = planned{name: "gpt2", amount: c.Epochs * ((all/window - 1) / c.Batch), unit: "steps"}
	err = scope(0, func() error {
		m := x.newGPT2()
		defer closing(m)
		p.trained = parameters(m)
		p.disk = p.trained * 4 * (1 + generations(p.amount, c.CheckpointEvery)*checkpointed)
		text := make([]int32, (c.Batch+2)*window)
		t, err := train.NewGPT2Task(train.GPT2Config{Epochs: 100, Batch: c.Batch, Window: window, LR: c.LR, BF16: x.bf16(c.Dtype), Device: x.device}, m, text)
		if err != nil {
			return err
		}
		defer t.Close()
		return x.measure(ctx, &p, t)
	})
	return p, err
}

// checkpointed is how many times as large as the weights a checkpoint is: weights
// and two moments of Adam.
const checkpointed = 3

// generations returns the number of checkpoints that a training keeps besides the best one.
func generations(steps, every int) int64 { return int64(min(2, (steps+every-1)/every)) }

// logged is the number of bytes that a step adds to metrics.jsonl and to TensorBoard's file.
const logged = 830

// planBatch is the number of photos or texts of which the plan measures the features.
const planBatch = 8

// planFeatures measures CLIP's encoders, on the first photos and captions of the data if
// there are any.
func (x *Experiment) planFeatures(ctx context.Context, n sizes) ([]planned, error) {
	images := planned{name: "features", amount: n.photos + n.valPhotos, unit: "photos"}
	texts := planned{name: "features", amount: n.captions + n.valCaptions, unit: "captions"}
	if x.Config.Data.ClipCap != "" {
		images.amount = n.valPhotos // the others are read from the file
	}
	err := scope(0, func() error {
		e := &encoder{x: x, model: &model{path: x.Config.CLIP.Weights, config: x.Config.CLIP.Config}}
		var m pipeline.Encoder
		if e.model.path != "" {
			if err := e.load(); err != nil {
				return err
			}
			defer e.close()
			m = e.clip.Model
		} else {
			c, err := x.newCLIP()
			if err != nil {
				return err
			}
			defer closing(c)
			m = c
		}
		images.frozen = parameters(m)
		two := func(p *planned, f func(from int) error) error {
			if err := f(0); err != nil {
				return err
			}
			begin := time.Now()
			if err := f(planBatch); err != nil {
				return err
			}
			p.seconds = time.Since(begin).Seconds() / planBatch
			return p.remember()
		}
		encode := func(f func() torch.Tensor) error {
			return torch.Scope(func() error {
				torch.InferenceMode(func() { torch.ToSlice[float32](f()) })
				return nil
			})
		}
		if e.clip != nil && len(n.files) == 2*planBatch {
			err := two(&images, func(from int) error {
				var paths []string
				for _, f := range n.files[from : from+planBatch] {
					paths = append(paths, f.path)
				}
				for _, err := range e.clip.Photos(ctx, paths, planBatch) {
					if err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
		} else {
			pixels := torch.Zeros([]int64{planBatch, 3, m.ImageSize(), m.ImageSize()}, torch.WithDevice(x.device))
			if err := two(&images, func(int) error { return encode(func() torch.Tensor { return m.EncodeImage(pixels) }) }); err != nil {
				return err
			}
		}
		if e.clip != nil && len(n.sample) == 2*planBatch {
			return two(&texts, func(from int) error {
				for _, err := range e.clip.Texts(ctx, n.sample[from:from+planBatch], planBatch, true) {
					if err != nil {
						return err
					}
				}
				return nil
			})
		}
		ids := torch.Ones([]int64{planBatch, m.ContextLength()}, torch.WithDType(torch.Int64), torch.WithDevice(x.device))
		return two(&texts, func(int) error { return encode(func() torch.Tensor { return m.EncodeText(ids) }) })
	})
	images.disk = int64(n.photos+n.valPhotos) * int64(n.width) * 4
	texts.disk = int64(texts.amount) * int64(n.width) * 4
	return []planned{images, texts}, err
}

// planCaptions measures the decoding of a batch by a decoder with an untrained mapper.
func (x *Experiment) planCaptions(ctx context.Context, n sizes, tokens int) (p planned, err error) {
	c := x.Config.Caption
	p = planned{name: "caption", amount: n.valPhotos, unit: "captions", disk: int64(n.valPhotos) * 100}
	err = scope(0, func() error {
		m, err := x.planned(n.width)
		if err != nil {
			return err
		}
		defer m.Close()
		defer closing(m.Mapper, m.GPT2)
		o := clipcap.Options{Method: clipcap.Method(c.Decode), Beam: c.Beam, MaxTokens: min(tokens, m.Room()), Stop: -1}
		size := min(c.Batch, n.valPhotos)
		features := torch.FromSlice(noise(size, n.width).Data, int64(size), int64(n.width)).To(torch.WithDevice(x.device))
		for range 2 { // the first is not counted
			begin := time.Now()
			torch.InferenceMode(func() { _, err = m.Generate(ctx, features, o) })
			if err != nil {
				return err
			}
			p.seconds = time.Since(begin).Seconds() / float64(size)
		}
		return p.remember()
	})
	return p, err
}

// planned returns a decoder with an untrained mapper.
func (x *Experiment) planned(width int) (*clipcap.Model, error) {
	gpt := &model{path: x.Config.GPT2.Weights}
	if gpt.path == "" {
		gpt = nil
	}
	m, _, err := x.newDecoder(gpt, width)
	return m, err
}

func (x *Experiment) planDecoder(ctx context.Context, n sizes, tokens int) (p planned, err error) {
	c := x.Config.Train.Decoder
	p = planned{name: "decoder", amount: c.Epochs * (n.usedCaptions / c.Batch), unit: "steps"}
	err = scope(0, func() error {
		m, err := x.planned(n.width)
		if err != nil {
			return err
		}
		defer closing(m.Mapper, m.GPT2)
		p.trained, p.frozen = parameters(m.Mapper), parameters(m.GPT2)
		if !c.FreezeGPT2 {
			p.trained, p.frozen = p.trained+p.frozen, 0
		}
		// The decoder, and the latest and the best checkpoint.
		p.disk = p.trained*4*(1+(1+generations(p.amount, x.Config.Train.Decoder.CheckpointEvery))*checkpointed) + int64(p.amount)*logged
		t, err := train.NewDecoderTask(train.DecoderConfig{Epochs: 100, Batch: c.Batch, LR: c.LR, TuneGPT2: !c.FreezeGPT2, BF16: x.bf16(c.Dtype), Device: x.device},
			m, train.DecoderData{Captions: texts(c.Batch, tokens, int(m.GPT2.Config.VocabSize)), Features: noise(c.Batch, n.width)}, train.DecoderData{Captions: &train.Texts{}})
		if err != nil {
			return err
		}
		defer t.Close()
		return x.measure(ctx, &p, t)
	})
	return p, err
}

func (x *Experiment) planCycleGAN(ctx context.Context, n sizes) (p planned, err error) {
	c := x.Config.Train.CycleGAN
	p = planned{name: "cyclegan", amount: c.Epochs * (max(n.used, n.usedCaptions) / c.Batch), unit: "steps"}
	err = scope(0, func() error {
		t, err := train.NewCycleGANTask(x.cycleGANConfig(n.width), noise(c.Batch, n.width), noise(c.Batch, n.width))
		if err != nil {
			return err
		}
		defer t.Close()
		p.trained = parameters(t.ToText, t.ToImage, t.TextDisc, t.ImageDisc)
		p.disk = p.trained*4*generations(p.amount, x.Config.Train.CycleGAN.CheckpointEvery)*checkpointed + parameters(t.ToText, t.ToImage)*4 + int64(p.amount)*logged
		return x.measure(ctx, &p, t)
	})
	return p, err
}
