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
	// LockText says that the text encoder is not trained (LiT: Zhai et al. 2022, with
	// images and texts exchanged).
	LockText bool
	// Mean and Std normalize each channel after scaling pixels to [0, 1].
	Mean, Std [3]float32
	Seed      uint64
	Device    torch.Device
}

// CLIPSource is a set of photos and their captions.
type CLIPSource interface {
	// Len returns the number of photos.
	Len() int
	// Read sets pixels to photos [n, 3, size, size], resized and cropped but not
	// normalized, and returns one of the captions of each: the token ids, with CLIP's start
	// and end tokens. random chooses the captions. Read is called for one step while
	// another is computed, but never concurrently with itself.
	Read(photos []int32, random []uint32, pixels []uint8) (*Texts, error)
}

// CLIPData is a CLIPSource in memory.
type CLIPData struct {
	Pixels   []uint8
	Captions *Texts
	// Of lists the indices of the captions of each photo.
	Of [][]int32
}

// Len returns the number of photos.
func (d CLIPData) Len() int { return len(d.Of) }

// Read copies photos, and their captions.
func (d CLIPData) Read(photos []int32, random []uint32, pixels []uint8) (*Texts, error) {
	captions := make([]int32, len(photos))
	size := len(pixels) / len(photos)
	for i, p := range photos {
		copy(pixels[i*size:(i+1)*size], d.Pixels[int(p)*size:])
		of := d.Of[p]
		captions[i] = of[random[i]%uint32(len(of))]
	}
	return d.Captions.Select(captions), nil
}

// CLIPTask trains a small CLIP from scratch, as a stand-in for OpenAI's.
type CLIPTask struct {
	Model  *clip.Model
	config CLIPConfig
	source CLIPSource
	order  Order
	opt    optim.Optimizer // of parameters with weight decay
	rest   optim.Optimizer // of the others
	steps  int
	next   chan clipBatch // the batch of step ahead, which is being read
	ahead  int            // -1: none
	pixels [2][]uint8     // of the current step and of the next one
	// By channel, [1, 3, 1, 1] on the device: 255, Mean and Std.
	scale, mean, std torch.Tensor
}

// clipBatch is the batch of a step.
type clipBatch struct {
	pixels   []uint8
	captions *Texts
	err      error
}

// NewCLIPTask returns a task that trains m on the photos and captions of a source.
func NewCLIPTask(c CLIPConfig, m *clip.Model, source CLIPSource) (*CLIPTask, error) {
	n := source.Len()
	if n < c.Batch {
		return nil, fmt.Errorf("clip: got %d photos, need at least one batch of %d", n, c.Batch)
	}
	if slices.Contains(c.Std[:], 0) {
		return nil, fmt.Errorf("clip: the standard deviation of pixels must not be 0, got %v", c.Std)
	}
	t := &CLIPTask{Model: m, config: c, source: source, order: Order{N: n, Batch: c.Batch, Seed: c.Seed}, next: make(chan clipBatch, 1), ahead: -1}
	t.steps = c.Epochs * t.order.StepsPerEpoch()
	for i := range t.pixels {
		t.pixels[i] = make([]uint8, int64(c.Batch)*3*m.Config.ImageSize*m.Config.ImageSize)
	}
	channels := func(v [3]float32) torch.Tensor { return torch.FromSliceOn(c.Device, v[:], 1, 3, 1, 1).Keep() }
	t.scale, t.mean, t.std = channels([3]float32{255, 255, 255}), channels(c.Mean), channels(c.Std)
	// As in CLIP, gains, biases and the temperature have no weight decay.
	var decay, rest []torch.Tensor
	for _, p := range nn.NamedParameters(m) {
		switch {
		case c.LockText && p.Name != "logit_scale" && clip.Text.Has(p.Name):
			p.Tensor.SetRequiresGrad(false)
		case p.Tensor.Dim() < 2:
			rest = append(rest, *p.Tensor)
		default:
			decay = append(decay, *p.Tensor)
		}
	}
	m.Train(true)
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
	loss, more, err := t.loss(step)
	if err != nil {
		return Pending{}, err
	}
	t.opt.ZeroGrad()
	t.rest.ZeroGrad()
	loss.Backward()
	lr := t.config.LR * WarmupCosine(step, t.config.WarmupSteps, t.steps)
	for _, o := range []optim.Optimizer{t.opt, t.rest} {
		o.SetLR(lr)
		o.Step()
	}
	torch.NoGrad(func() { t.Model.LogitScale.Clamp_(torch.WithMax(math.Log(100))) })
	return pending(append([]torch.Tensor{loss}, more...), func(v []float64) Losses {
		return Losses{{"loss", v[0]}, {"accuracy", v[1]}, {"cosine", v[2]}, {"gap", v[3]}, {"temperature", math.Exp(-v[4])}, {"lr", lr}}
	}), nil
}

// batch returns the batch of a step, and begins to read the next one.
func (t *CLIPTask) batch(step int) clipBatch {
	if t.ahead >= 0 && t.ahead != step {
		<-t.next // of a step that is not wanted, after all
		t.ahead = -1
	}
	if t.ahead < 0 {
		t.read(step)
	}
	b := <-t.next
	t.ahead = -1
	if b.err == nil && step+1 < t.steps {
		t.read(step + 1)
	}
	return b
}

// read begins to read the batch of a step.
func (t *CLIPTask) read(step int) {
	photos := slices.Clone(t.order.Indices(step))
	// Each photo is paired with one of its captions, drawn for each step.
	rng := rand.New(rand.NewPCG(t.config.Seed+1, uint64(step)))
	random := make([]uint32, len(photos))
	for i := range random {
		random[i] = rng.Uint32()
	}
	pixels := t.pixels[step%2]
	t.ahead = step
	go func() {
		captions, err := t.source.Read(photos, random, pixels)
		t.next <- clipBatch{pixels, captions, err}
	}()
}

// loss returns the symmetric cross-entropy of matching the photos and texts of a batch
// (figure 3 of the CLIP paper), and what there is to know about it: the share of photos
// that are matched correctly, the mean cosine of a photo and its text, the distance between
// the means of photos and texts (the modality gap), and the logarithm of the factor of
// cosines.
func (t *CLIPTask) loss(step int) (loss torch.Tensor, more []torch.Tensor, err error) {
	b := t.batch(step)
	if b.err != nil {
		return loss, nil, b.err
	}
	n := b.captions.Len()
	all := make([]int32, n)
	for i := range all {
		all[i] = int32(i)
	}
	pixels, ids := t.normalized(b.pixels), b.captions.batch(all, int(t.Model.Config.Context), 0, t.config.Device)
	ids = ids.ConstantPadNd([]int64{0, t.Model.Config.Context - ids.Size(1)})
	var image, text torch.Tensor
	autocast(t.config.BF16, t.config.Device, func() {
		image, text = t.Model.EncodeImage(pixels), t.Model.EncodeText(ids)
	})
	image, text = clip.Normalize(image.To(torch.WithDType(torch.Float32))), clip.Normalize(text.To(torch.WithDType(torch.Float32)))
	logits := image.MM(text.T()).Mul(t.Model.LogitScale.Exp())
	target := torch.Arange(0, int64(n), torch.WithDType(torch.Int64), torch.WithDevice(t.config.Device))
	loss = logits.CrossEntropyLoss(target).Add(logits.T().CrossEntropyLoss(target)).MulScalar(0.5)
	torch.NoGrad(func() {
		more = []torch.Tensor{
			logits.Argmax(torch.WithDim(1)).Eq(target).To(torch.WithDType(torch.Float32)).Mean(),
			image.Mul(text).Sum().DivScalar(float64(n)),
			image.MeanDim([]int64{0}).Sub(text.MeanDim([]int64{0})).LinalgVectorNorm(),
			t.Model.LogitScale.Clone(), // before this step changes it
		}
	})
	return loss, more, nil
}

// normalized returns normalized photos [n, 3, size, size] on the device. Bytes take a
// quarter of the time to copy there.
func (t *CLIPTask) normalized(pixels []uint8) torch.Tensor {
	d, size := t.config.Device, t.Model.Config.ImageSize
	x := torch.FromSliceOn(d, pixels, int64(t.config.Batch), 3, size, size).To(torch.WithDType(torch.Float32))
	if t.Model.ResNet != nil {
		// Channels last is what convolutions are fastest with, on CPUs and GPUs.
		x = x.Contiguous(torch.WithMemoryFormat(torch.ChannelsLastFormat))
	}
	return x.Div(t.scale).Sub(t.mean).Div(t.std)
}

// Close frees the optimizers' state, after the batch that is being read. The model is no
// longer being trained.
func (t *CLIPTask) Close() {
	t.Model.Train(false)
	if t.ahead >= 0 {
		<-t.next
		t.ahead = -1
	}
	t.opt.Close()
	t.rest.Close()
	for _, c := range []torch.Tensor{t.scale, t.mean, t.std} {
		c.Close()
	}
}

// WarmupCosine returns the factor of the learning rate at a step, counted from 0: it rises
// linearly to 1 over the first warmup steps, and then falls to 0 along a cosine.
func WarmupCosine(step, warmup, total int) float64 {
	if step < warmup {
		return float64(step+1) / float64(warmup)
	}
	return 0.5 * (1 + math.Cos(math.Pi*float64(step-warmup)/float64(max(1, total-warmup))))
}
