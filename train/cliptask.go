package train

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"cyclecap/nets/clip"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/torch/optim"
)

// CLIPConfig configures the training of a CLIP (Radford et al. 2021, section 2.5 and
// appendix F).
type CLIPConfig struct {
	Epochs      int
	Batch       int
	LR          float64
	WeightDecay float64
	WarmupSteps int
	BF16        bool
	Seed        uint64
	Device      torch.Device
}

// CLIPData is a set of photos and their captions.
type CLIPData struct {
	// Pixels are the photos [n, 3, size, size], resized and cropped but not
	// normalized.
	Pixels []uint8
	// Mean and Std normalize each channel after scaling pixels to [0, 1].
	Mean, Std [3]float32
	// Captions are the token ids of the captions, with CLIP's start and end tokens.
	Captions *Texts
	// Of lists the indices of the captions of each photo.
	Of [][]int32
}

// CLIPTask trains a small CLIP from scratch, as a stand-in for OpenAI's.
type CLIPTask struct {
	Model  *clip.Model
	config CLIPConfig
	data   CLIPData
	order  Order
	opt    optim.Optimizer // of parameters with weight decay
	rest   optim.Optimizer // of the others
	steps  int
}

// NewCLIPTask returns a task that trains m on data.
func NewCLIPTask(c CLIPConfig, m *clip.Model, data CLIPData) (*CLIPTask, error) {
	if len(data.Of) < c.Batch {
		return nil, fmt.Errorf("clip: got %d photos, need at least one batch of %d", len(data.Of), c.Batch)
	}
	if slices.Contains(data.Std[:], 0) {
		return nil, fmt.Errorf("clip: the standard deviation of pixels must not be 0, got %v", data.Std)
	}
	t := &CLIPTask{Model: m, config: c, data: data, order: Order{N: len(data.Of), Batch: c.Batch, Seed: c.Seed}}
	t.steps = c.Epochs * t.order.StepsPerEpoch()
	// As in CLIP, gains, biases and the temperature have no weight decay.
	var decay, rest []torch.Tensor
	for _, p := range nn.Parameters(m) {
		if p.Dim() < 2 {
			rest = append(rest, p)
		} else {
			decay = append(decay, p)
		}
	}
	o := optim.AdamOptions{LR: c.LR, Beta1: 0.9, Beta2: 0.98, Eps: 1e-6, WeightDecay: c.WeightDecay, Fused: true}
	t.opt = optim.AdamW(decay, o)
	o.WeightDecay = 0
	t.rest = optim.AdamW(rest, o)
	return t, nil
}

// Steps returns the number of steps in all epochs.
func (t *CLIPTask) Steps() int { return t.steps }

// Parts returns the model and the optimizers.
func (t *CLIPTask) Parts() Parts {
	return Parts{
		Modules:    map[string]any{"clip": t.Model},
		Optimizers: map[string]optim.Optimizer{"decayed": t.opt, "others": t.rest},
	}
}

// Batch lists the photos of a step.
func (t *CLIPTask) Batch(step int) string { return listed("photos", t.order.Indices(step)) }

// Step runs one optimizer step.
func (t *CLIPTask) Step(step int) (Losses, error) { return wait(t.Queue(step)) }

// Queue is Step without waiting for the device.
func (t *CLIPTask) Queue(step int) (Pending, error) {
	loss, accuracy := t.loss(step)
	t.opt.ZeroGrad()
	t.rest.ZeroGrad()
	loss.Backward()
	lr := t.config.LR * WarmupCosine(step, t.config.WarmupSteps, t.steps)
	for _, o := range []optim.Optimizer{t.opt, t.rest} {
		o.SetLR(lr)
		o.Step()
	}
	torch.NoGrad(func() { t.Model.LogitScale.Clamp_(torch.WithMax(math.Log(100))) })
	return pending([]torch.Tensor{loss, accuracy}, func(v []float64) (Losses, error) {
		return Losses{{"loss", v[0]}, {"accuracy", v[1]}, {"lr", lr}}, nil
	}), nil
}

// loss returns the symmetric cross-entropy of matching the photos and texts of a batch
// (figure 3 of the CLIP paper), and the share of photos that are matched correctly.
func (t *CLIPTask) loss(step int) (loss, accuracy torch.Tensor) {
	photos := t.order.Indices(step)
	// Each photo is paired with one of its captions, drawn for each step.
	rng := rand.New(rand.NewPCG(t.config.Seed+1, uint64(step)))
	captions := make([]int32, len(photos))
	for i, p := range photos {
		of := t.data.Of[p]
		captions[i] = of[rng.IntN(len(of))]
	}
	pixels, ids := t.pixels(photos), t.data.Captions.batch(captions, int(t.Model.Config.Context), 0, t.config.Device)
	ids = ids.ConstantPadNd([]int64{0, t.Model.Config.Context - ids.Size(1)})
	var image, text torch.Tensor
	autocast(t.config.BF16, t.config.Device, func() {
		image, text = t.Model.EncodeImage(pixels), t.Model.EncodeText(ids)
	})
	image, text = clip.Normalize(image.To(torch.WithDType(torch.Float32))), clip.Normalize(text.To(torch.WithDType(torch.Float32)))
	logits := image.MM(text.T()).Mul(t.Model.LogitScale.Exp())
	target := torch.Arange(0, int64(len(photos)), torch.WithDType(torch.Int64), torch.WithDevice(t.config.Device))
	loss = logits.CrossEntropyLoss(target).Add(logits.T().CrossEntropyLoss(target)).MulScalar(0.5)
	return loss, logits.Argmax(torch.WithDim(1)).Eq(target).To(torch.WithDType(torch.Float32)).Mean()
}

// pixels returns normalized photos [n, 3, size, size].
func (t *CLIPTask) pixels(photos []int32) torch.Tensor {
	size := t.Model.Config.ImageSize
	plane := int(size * size)
	x := make([]float32, len(photos)*3*plane)
	for i, p := range photos {
		from := t.data.Pixels[int(p)*3*plane : (int(p)+1)*3*plane]
		to := x[i*3*plane : (i+1)*3*plane]
		for c := range 3 {
			var table [256]float32
			for v := range table {
				table[v] = (float32(v)/255 - t.data.Mean[c]) / t.data.Std[c]
			}
			for k, v := range from[c*plane : (c+1)*plane] {
				to[c*plane+k] = table[v]
			}
		}
	}
	return torch.FromSliceOn(t.config.Device, x, int64(len(photos)), 3, size, size)
}

// Close frees the optimizers' state.
func (t *CLIPTask) Close() {
	t.opt.Close()
	t.rest.Close()
}

// WarmupCosine returns the factor of the learning rate at a step, counted from 0: it rises
// linearly to 1 over the first warmup steps, and then falls to 0 along a cosine.
func WarmupCosine(step, warmup, total int) float64 {
	if step < warmup {
		return float64(step+1) / float64(warmup)
	}
	return 0.5 * (1 + math.Cos(math.Pi*float64(step-warmup)/float64(max(1, total-warmup))))
}
