package train

import (
	"fmt"
	"math"

	"cyclecap/nets/clipcap"
	"cyclecap/torch"
	"cyclecap/torch/distributed"
	"cyclecap/torch/nn"
	"cyclecap/torch/optim"
)

// DecoderConfig configures the training of a text decoder: the paper's Table 1 and
// ClipCap's train.py.
type DecoderConfig struct {
	Epochs      int
	Batch       int
	LR          float64
	WarmupSteps int
	// TuneGPT2 trains GPT-2 as well as the mapper. The paper freezes GPT-2.
	TuneGPT2 bool
	// BF16 enables autocast to bf16. The weights stay f32, except for the matrices of
	// a frozen GPT-2.
	BF16   bool
	Noise  *Noise // changes the features; nil leaves them as they are
	Seed   uint64 // seed of the data order
	Device torch.Device
	Group  *distributed.Group // processes that share each batch; nil for a single process
}

// DecoderData is the training data of a decoder: captions, and a feature for each.
type DecoderData struct {
	Captions *Texts // GPT-2 tokens
	Features Features
	// Row returns the row of a caption's feature. If it is nil, caption i has row i.
	Row func(caption int) int
}

func (d DecoderData) rows(captions []int32) []int32 {
	if d.Row == nil {
		return captions
	}
	rows := make([]int32, len(captions))
	for i, c := range captions {
		rows[i] = int32(d.Row(int(c)))
	}
	return rows
}

// DecoderTask trains the mapper of a decoder and, with TuneGPT2, its GPT-2.
type DecoderTask struct {
	Model  *clipcap.Model
	config DecoderConfig
	data   DecoderData
	held   DecoderData // for validation
	order  Order
	opt    optim.Optimizer
	reduce *distributed.Reducer
	limit  int // maximum number of tokens of a caption
	steps  int
	mean   torch.Tensor // Noise.Mean on the device, if there is one
}

// NewDecoderTask returns a task that trains m on data. It freezes m's GPT-2 or, with
// TuneGPT2, makes it trainable. held is the validation data, of which at most 512 captions
// are used; it may be empty.
func NewDecoderTask(c DecoderConfig, m *clipcap.Model, data, held DecoderData) (*DecoderTask, error) {
	if c.Batch%c.Group.Size() != 0 {
		return nil, fmt.Errorf("decoder: batch size %d is not divisible by the number of processes, %d", c.Batch, c.Group.Size())
	}
	if data.Captions.Len() < c.Batch {
		return nil, fmt.Errorf("decoder: got %d captions, need at least one batch of %d", data.Captions.Len(), c.Batch)
	}
	if want, have := m.Mapper.FeatureWidth(), int64(data.Features.Width()); want != have {
		return nil, fmt.Errorf("decoder: the mapper expects features of width %d, got %d", want, have)
	}
	if c.Noise != nil && c.Noise.Mean != nil && len(c.Noise.Mean) != data.Features.Width() {
		return nil, fmt.Errorf("decoder: the mean has width %d, and the features have width %d", len(c.Noise.Mean), data.Features.Width())
	}
	t := &DecoderTask{Model: m, config: c, data: data, held: held, limit: captionLimit(data.Captions)}
	if room := int(m.GPT2.Config.NPositions - m.Mapper.PrefixLength()); t.limit > room {
		t.limit = room
	}
	if c.Noise != nil && c.Noise.Mean != nil {
		t.mean = torch.FromSliceOn(c.Device, c.Noise.Mean, int64(len(c.Noise.Mean))).Keep()
	}
	t.order = Order{N: data.Captions.Len(), Batch: c.Batch, Seed: c.Seed}
	t.steps = c.Epochs * t.order.StepsPerEpoch()
	m.GPT2.FuseGelu(true)
	nn.SetRequiresGrad(m.GPT2, c.TuneGPT2)
	if c.BF16 && !c.TuneGPT2 {
		// Cast once what autocast would cast in every step: the matrices of matrix
		// products. Layer norms and position embeddings stay f32.
		for _, p := range nn.NamedParameters(m.GPT2) {
			if p.Tensor.Dim() == 2 && p.Name != "wpe.weight" {
				half := p.Tensor.To(torch.WithDType(torch.BFloat16)).Keep()
				p.Tensor.Close()
				*p.Tensor = half
			}
		}
	}
	params := nn.Parameters(m.Mapper)
	if c.TuneGPT2 {
		params = append(params, nn.Parameters(m.GPT2)...)
	}
	var err error
	if t.reduce, err = distributed.NewReducer(c.Group, params); err != nil {
		return nil, err
	}
	o := optim.TransformersAdamWDefaults()
	o.LR = c.LR
	t.opt = optim.TransformersAdamW(params, o)
	return t, nil
}

// captionLimit returns the maximum length of a caption by ClipCap's rule: the mean plus
// ten standard deviations, but at most the length of the longest caption.
func captionLimit(t *Texts) int {
	var sum, squares, longest float64
	n := float64(t.Len())
	for i := range t.Len() {
		v := float64(len(t.Get(i)))
		sum += v
		squares += v * v
		longest = max(longest, v)
	}
	mean := sum / n
	std := math.Sqrt(max(0, (squares-n*mean*mean)/max(1, n-1)))
	return int(min(longest, mean+10*std))
}

// Steps returns the number of steps in all epochs.
func (t *DecoderTask) Steps() int { return t.steps }

// Parts returns the mapper, GPT-2 if it is trained, and the optimizer.
func (t *DecoderTask) Parts() Parts {
	p := Parts{
		Modules:    map[string]any{"clip_project": t.Model.Mapper},
		Optimizers: map[string]optim.Optimizer{"adamw": t.opt},
	}
	if t.config.TuneGPT2 {
		p.Modules["gpt"] = t.Model.GPT2
	}
	return p
}

// Batch lists the captions of a step.
func (t *DecoderTask) Batch(step int) string { return listed("captions", t.order.Indices(step)) }

// Step runs one optimizer step.
func (t *DecoderTask) Step(step int) (Losses, error) { return wait(t.Queue(step)) }

// Queue is Step without waiting for the device.
func (t *DecoderTask) Queue(step int) (Pending, error) {
	all := t.order.Indices(step)
	captions := share(all, t.config.Group)
	x, err := Rows(t.data.Features, t.data.rows(captions), t.config.Device)
	if err != nil {
		return Pending{}, err
	}
	x = t.noisy(x)
	t.opt.ZeroGrad()
	loss := t.loss(x, t.data.Captions, captions)
	if n := t.config.Group.Size(); n > 1 {
		// The loss is a mean over tokens, and the processes have different numbers
		// of them.
		count := func(items []int32) int { return t.data.Captions.counted(items, t.limit) }
		loss = loss.MulScalar(float64(n*count(captions)) / float64(count(all)))
	}
	if err := t.reduce.PrepareForBackward(); err != nil {
		return Pending{}, err
	}
	loss.Backward()
	means, stopping, err := t.reduce.FinalizeBackward(loss)
	if err != nil {
		return Pending{}, err
	}
	lr := t.config.LR * optim.WarmupLinear(step, t.config.WarmupSteps, t.steps)
	t.opt.SetLR(lr)
	t.opt.Step()
	return reduced(means, stopping, func(values []float64) Losses {
		return Losses{{"loss", values[0]}, {"lr", lr}}
	}), nil
}

// noisy applies the noise. Each process draws that of the whole batch, so that it does not
// depend on the number of processes.
func (t *DecoderTask) noisy(x torch.Tensor) torch.Tensor {
	c := t.config.Noise
	if c == nil {
		return x
	}
	var noise torch.Tensor
	if c.Variance > 0 {
		n := x.Size(0)
		noise = torch.Randn([]int64{n * int64(t.config.Group.Size()), x.Size(1)}).Narrow(0, n*int64(t.config.Group.Rank()), n).Upload(x.Device())
	}
	return c.apply(x, noise, t.mean)
}

// loss returns the loss of captions, given features [n, width].
func (t *DecoderTask) loss(x torch.Tensor, texts *Texts, captions []int32) (loss torch.Tensor) {
	rows := make([][]int64, len(captions))
	for i, c := range captions {
		for _, id := range texts.cut(c, t.limit) {
			rows[i] = append(rows[i], int64(id))
		}
	}
	batch := newCaptionBatch(rows, t.Model.Mapper.PrefixLength(), t.config.Device)
	// Free what the forward pass has computed and the backward pass does not need.
	return torch.Tidy(func() torch.Tensor {
		autocast(t.config.BF16, t.config.Device, func() { loss = decoderLoss(t.Model, x, batch) })
		return loss
	})
}

// Validate returns the loss on the validation data.
func (t *DecoderTask) Validate() (float64, error) {
	n := min(512, t.held.Captions.Len())
	if n == 0 {
		return math.NaN(), nil
	}
	var sum float64
	batches := 0
	for at := 0; at < n; at += t.config.Batch {
		var items []int32
		for i := at; i < min(n, at+t.config.Batch); i++ {
			items = append(items, int32(i*t.held.Captions.Len()/n))
		}
		err := torch.Scope(func() error {
			x, err := Rows(t.held.Features, t.held.rows(items), t.config.Device)
			if err != nil {
				return err
			}
			if c := t.config.Noise; c != nil {
				x = c.apply(x, torch.Tensor{}, t.mean)
			}
			sum += item(t.loss(x, t.held.Captions, items))
			batches++
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return sum / float64(batches), nil
}

// Close frees the state of the optimizer.
func (t *DecoderTask) Close() {
	t.reduce.Close()
	t.opt.Close()
	if t.mean.Defined() {
		t.mean.Close()
	}
}
