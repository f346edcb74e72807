package train

import (
	"fmt"

	"cyclecap/nets/gpt2"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/torch/optim"
)

// GPT2Config configures the training of a GPT-2.
type GPT2Config struct {
	Epochs      int
	Batch       int // number of windows
	Window      int // number of tokens per window
	LR          float64
	WarmupSteps int
	BF16        bool
	Seed        uint64
	Device      torch.Device
}

// GPT2Task trains a small GPT-2 from scratch on running text, as a stand-in for OpenAI's.
type GPT2Task struct {
	Model  *gpt2.Model
	config GPT2Config
	text   []int32
	order  Order // order of the windows
	opt    optim.Optimizer
	steps  int
}

// NewGPT2Task returns a task that trains m on the tokens of a text.
func NewGPT2Task(c GPT2Config, m *gpt2.Model, text []int32) (*GPT2Task, error) {
	windows := len(text)/c.Window - 1
	if windows < c.Batch {
		return nil, fmt.Errorf("gpt2: got a text of %d tokens, need at least one batch of %d windows of %d tokens", len(text), c.Batch, c.Window)
	}
	t := &GPT2Task{Model: m, config: c, text: text, order: Order{N: windows, Batch: c.Batch, Seed: c.Seed}}
	t.steps = c.Epochs * t.order.StepsPerEpoch()
	t.opt = optim.AdamW(nn.Parameters(m), optim.AdamOptions{LR: c.LR, Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, WeightDecay: 0.1, Fused: true})
	return t, nil
}

// Steps returns the number of steps in all epochs.
func (t *GPT2Task) Steps() int { return t.steps }

// Parts returns the model and the optimizer.
func (t *GPT2Task) Parts() Parts {
	return Parts{Modules: map[string]any{"gpt": t.Model}, Optimizers: map[string]optim.Optimizer{"adamw": t.opt}}
}

// Batch lists the windows of a step.
func (t *GPT2Task) Batch(step int) string { return listed("windows", t.order.Indices(step)) }

// Step runs one optimizer step on predicting each token from those before it.
func (t *GPT2Task) Step(step int) (Losses, error) { return wait(t.Queue(step)) }

// Queue is Step without waiting for the device.
func (t *GPT2Task) Queue(step int) (Pending, error) {
	w := t.config.Window
	flat := make([]int64, 0, t.config.Batch*(w+1))
	for _, i := range t.order.Indices(step) {
		// Each epoch cuts the text into windows at other positions.
		at := int(i)*w + step/t.order.StepsPerEpoch()*17%w
		for _, id := range t.text[at : at+w+1] {
			flat = append(flat, int64(id))
		}
	}
	ids := torch.FromSliceOn(t.config.Device, flat, int64(t.config.Batch), int64(w+1))
	in, target := ids.Narrow(1, 0, int64(w)), ids.Narrow(1, 1, int64(w))
	loss := torch.Tidy(func() (loss torch.Tensor) {
		autocast(t.config.BF16, t.config.Device, func() {
			logits := t.Model.Logits(t.Model.Forward(t.Model.Embed(in), nil, torch.Tensor{}))
			loss = logits.Reshape([]int64{-1, logits.Size(2)}).To(torch.WithDType(torch.Float32)).CrossEntropyLoss(target.Reshape([]int64{-1}))
		})
		return loss
	})
	t.opt.ZeroGrad()
	loss.Backward()
	lr := t.config.LR * WarmupCosine(step, t.config.WarmupSteps, t.steps)
	t.opt.SetLR(lr)
	optim.ClipGradNorm(nn.Parameters(t.Model), 1)
	t.opt.Step()
	return pending([]torch.Tensor{loss}, func(v []float64) Losses {
		return Losses{{"loss", v[0]}, {"lr", lr}}
	}), nil
}

// Close frees the state of the optimizer.
func (t *GPT2Task) Close() { t.opt.Close() }
