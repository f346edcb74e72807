package experiment

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"cyclecap/data/tokenizer"
	"cyclecap/data/world"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/train"
	"cyclecap/train/bridge"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/shirou/gopsutil/v4/process"
)

// planned is a row of the plan.
type planned struct {
	name            string
	trained, frozen int64 // numbers of parameters
	steps           int
	times           int // number of trainings
	seconds         float64
	memory          uint64 // resident memory after the measurement
}

// Plan prints the trainings of a run: sizes, steps, and estimates of time and memory from
// running a few steps on random data of the same shape. It writes no files.
func (x *Experiment) Plan(ctx context.Context, out io.Writer) error {
	if err := x.prepare(); err != nil {
		return err
	}
	captions, photos, tokens, err := x.counts()
	if err != nil {
		return err
	}
	width := x.Config.Train.CLIP.EmbedDim
	if p := x.Config.CLIP.Weights; p != "" {
		e := &encoder{x: x, model: &model{path: p}}
		if err := e.load(); err != nil {
			return err
		}
		width = e.clip.Width()
		e.close()
	}
	kinds := map[bridge.Decoder]bool{}
	gan := false
	for _, b := range x.bridges {
		kinds[b.Decoder] = true
		gan = gan || b.CycleGAN
	}
	var lines []planned
	add := func(p planned, err error) error {
		lines = append(lines, p)
		return err
	}
	if x.Config.CLIP.Weights == "" {
		if err := add(x.planCLIP(ctx)); err != nil {
			return err
		}
	}
	if x.Config.GPT2.Weights == "" {
		if err := add(x.planGPT2(ctx, tokens)); err != nil {
			return err
		}
	}
	if err := add(x.planDecoder(ctx, width, captions, tokens, len(kinds)*x.Seeds)); err != nil {
		return err
	}
	if gan {
		if err := add(x.planCycleGAN(ctx, width, max(photos, captions))); err != nil {
			return err
		}
	}
	t := table.NewWriter()
	t.Style().Format = table.FormatOptions{} // do not change units to upper case
	t.AppendHeader(table.Row{"training", "trainable", "frozen", "steps", "time per step", "total time", "memory"})
	var total time.Duration
	for _, p := range lines {
		one := time.Duration(p.seconds * float64(time.Second))
		all := time.Duration(p.seconds * float64(p.steps*p.times) * float64(time.Second))
		total += all
		steps := fmt.Sprint(p.steps)
		if p.times > 1 {
			steps = fmt.Sprintf("%d x %d", p.times, p.steps)
		}
		t.AppendRow(table.Row{p.name, count(p.trained), count(p.frozen), steps, one.Round(time.Millisecond), all.Round(time.Second),
			fmt.Sprintf("%.2f GiB", float64(p.memory)/(1<<30))})
	}
	t.AppendFooter(table.Row{"total", "", "", "", "", total.Round(time.Second), ""})
	fmt.Fprintf(out, "%s: %d training photos, %d training captions, bridges %s, seeds %d to %d, output %s\n%s\n",
		x.Config.Name, photos, captions, strings.Join(x.Config.Bridges.Use, ", "), x.Config.Seed, x.Config.Seed+x.Seeds-1, x.Dir, t.Render())
	fmt.Fprintln(out, "Times are estimated from a few steps on this machine; they do not include features, captions and scores.")
	return nil
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

// worldTokens is the approximate number of tokens in a caption of a world.
const worldTokens = 18

// counts returns the numbers of training captions and photos, and the approximate number
// of tokens per caption.
func (x *Experiment) counts() (captions, photos, tokens int, err error) {
	if w := x.Config.World; w != nil && x.Config.Data.Photos == "" {
		return w.Train * world.CaptionsEach, w.Train, worldTokens, nil
	}
	d, err := x.loadData()
	if err != nil {
		return 0, 0, 0, err
	}
	n := 0
	sample := min(1000, len(d.train.texts))
	for i := range sample {
		n += len(tokenizer.GPT2().Encode(d.train.texts[i*len(d.train.texts)/sample]))
	}
	captions, photos = len(d.train.texts), len(d.train.photos)
	if x.Config.Data.Pairing == "disjoint" {
		captions, photos = captions/2, photos/2
	}
	return captions, photos, n / sample, nil
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
	p = planned{name: "clip", steps: c.Epochs * (w.Pretrain / c.Batch), times: 1}
	err = scope(0, func() error {
		m := x.newCLIP()
		defer closing(m)
		p.trained = parameters(m)
		data := train.CLIPData{Std: [3]float32{1, 1, 1}, Pixels: make([]uint8, c.Batch*3*c.Image*c.Image), Captions: texts(c.Batch, worldTokens, 49000)}
		for i := range c.Batch {
			data.Of = append(data.Of, []int32{int32(i)})
		}
		t, err := train.NewCLIPTask(train.CLIPConfig{Epochs: 100, Batch: c.Batch, LR: c.LR, BF16: c.Dtype == "bf16", Device: x.device}, m, data)
		if err != nil {
			return err
		}
		defer t.Close()
		return x.measure(ctx, &p, t)
	})
	return p, err
}

func (x *Experiment) planGPT2(ctx context.Context, tokens int) (p planned, err error) {
	c, w := x.Config.Train.GPT2, x.Config.World
	all := w.Pretrain * world.CaptionsEach * (tokens + 1)
	window := c.Positions - 1
	p = planned{name: "gpt2", steps: c.Epochs * ((all/window - 1) / c.Batch), times: 1}
	err = scope(0, func() error {
		m := x.newGPT2()
		defer closing(m)
		p.trained = parameters(m)
		text := make([]int32, (c.Batch+2)*window)
		t, err := train.NewGPT2Task(train.GPT2Config{Epochs: 100, Batch: c.Batch, Window: window, LR: c.LR, BF16: c.Dtype == "bf16", Device: x.device}, m, text)
		if err != nil {
			return err
		}
		defer t.Close()
		return x.measure(ctx, &p, t)
	})
	return p, err
}

func (x *Experiment) planDecoder(ctx context.Context, width, captions, tokens, times int) (p planned, err error) {
	c := x.Config.Train.Decoder
	p = planned{name: "decoder", steps: c.Epochs * (captions / c.Batch), times: times}
	err = scope(0, func() error {
		gpt := &model{path: x.Config.GPT2.Weights}
		if gpt.path == "" {
			gpt = nil
		}
		m, _, err := x.newDecoder(gpt, width)
		if err != nil {
			return err
		}
		defer closing(m.Mapper, m.GPT2)
		p.trained, p.frozen = parameters(m.Mapper), parameters(m.GPT2)
		if !c.FreezeGPT2 {
			p.trained, p.frozen = p.trained+p.frozen, 0
		}
		t, err := train.NewDecoderTask(train.DecoderConfig{Epochs: 100, Batch: c.Batch, LR: c.LR, TuneGPT2: !c.FreezeGPT2, BF16: c.Dtype == "bf16", Device: x.device},
			m, train.DecoderData{Captions: texts(c.Batch, tokens, int(m.GPT2.Config.VocabSize)), Features: noise(c.Batch, width)}, train.DecoderData{Captions: &train.Texts{}})
		if err != nil {
			return err
		}
		defer t.Close()
		return x.measure(ctx, &p, t)
	})
	return p, err
}

func (x *Experiment) planCycleGAN(ctx context.Context, width, larger int) (p planned, err error) {
	c := x.Config.Train.CycleGAN
	p = planned{name: "cyclegan", steps: c.Epochs * (larger / c.Batch), times: x.Seeds}
	err = scope(0, func() error {
		t, err := train.NewCycleGANTask(x.cycleGANConfig(width), noise(c.Batch, width), noise(c.Batch, width))
		if err != nil {
			return err
		}
		defer t.Close()
		p.trained = parameters(t.ToText, t.ToImage, t.TextDisc, t.ImageDisc)
		return x.measure(ctx, &p, t)
	})
	return p, err
}
