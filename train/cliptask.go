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

// CLIPConfig has the settings of CLIP's training (Radford et al. 2021,
// section 2.5 and appendix F).
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

// CLIPData is photos and the captions of each.
type CLIPData struct {
	// Pixels are the photos [n, 3, size, size], resized and cropped but not
	// normalised.
	Pixels []uint8
	// Mean and Std normalise the pixels, scaled to [0, 1], of each channel.
	Mean, Std [3]float32
	// Captions are texts as CLIP takes them: start, text, end.
	Captions *Texts
	// Of lists the captions of each photo.
	Of [][]int32
}

// CLIPTask trains a CLIP from scratch, as a small stand-in for OpenAI's.
type CLIPTask struct {
	Model  *clip.Model
	config CLIPConfig
	data   CLIPData
	order  Order
	opt    optim.Optimizer // of what decays, and of what doesn't
	rest   optim.Optimizer
	steps  int
}

// NewCLIPTask makes a task.
func NewCLIPTask(c CLIPConfig, m *clip.Model, data CLIPData) (*CLIPTask, error) {
	if len(data.Of) < c.Batch {
		return nil, fmt.Errorf("clip: there are %d photos, less than a batch of %d", len(data.Of), c.Batch)
	}
	if slices.Contains(data.Std[:], 0) {
		return nil, fmt.Errorf("clip: the photos' deviation is %v, and pixels are divided by it", data.Std)
	}
	t := &CLIPTask{Model: m, config: c, data: data, order: Order{N: len(data.Of), Batch: c.Batch, Seed: c.Seed}}
	t.steps = c.Epochs * t.order.StepsPerEpoch()
	// Gains, biases and the temperature do not decay.
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

// Steps counts the steps of all epochs.
func (t *CLIPTask) Steps() int { return t.steps }

// Parts lists the model and the optimizers.
func (t *CLIPTask) Parts() Parts {
	return Parts{
		Modules:    map[string]any{"clip": t.Model},
		Optimizers: map[string]optim.Optimizer{"decayed": t.opt, "others": t.rest},
	}
}

// Batch names the photos of a step.
func (t *CLIPTask) Batch(step int) string { return listed("photos", t.order.Indices(step)) }

// Step does one optimizer step.
func (t *CLIPTask) Step(step int) (Losses, error) {
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
	return Losses{{"loss", item(loss)}, {"accuracy", item(accuracy)}, {"lr", lr}}, nil
}

// loss is the symmetric cross-entropy of which text belongs to which photo of
// the batch (the paper's figure 3), and how many photos find their text.
func (t *CLIPTask) loss(step int) (loss, accuracy torch.Tensor) {
	photos := t.order.Indices(step)
	// One of a photo's captions, by step.
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

// pixels gives photos [n, 3, size, size], normalised.
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
	return torch.FromSlice(x, int64(len(photos)), 3, size, size).To(torch.WithDevice(t.config.Device))
}

// Close frees the optimizers' state.
func (t *CLIPTask) Close() {
	t.opt.Close()
	t.rest.Close()
}

// WarmupCosine is the factor of CLIP's rate at a step (from 0): it rises to 1
// over the first warmup steps and falls to 0 along a cosine.
func WarmupCosine(step, warmup, total int) float64 {
	if step < warmup {
		return float64(step+1) / float64(warmup)
	}
	return 0.5 * (1 + math.Cos(math.Pi*float64(step-warmup)/float64(max(1, total-warmup))))
}
