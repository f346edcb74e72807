package train

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"cyclecap/nets/cyclegan"
	"cyclecap/torch"
	"cyclecap/torch/distributed"
	"cyclecap/torch/nn"
	"cyclecap/torch/optim"
)

// CycleGANConfig configures the training of the latent CycleGAN: the paper's Table 2,
// and what it leaves open. Start from DefaultCycleGAN; the zero value is not usable.
type CycleGANConfig struct {
	Width          int64   // of the features
	Layers         int     // number of linear layers in a generator; 0 means the paper's
	LR             float64 // learning rate of Adam, for generators and discriminators
	Beta1, Beta2   float64
	CycleWeight    float64 // weight of both cycle losses
	IdentityWeight float64 // weight of both identity losses, relative to CycleWeight
	Pool           int     // number of past fakes to keep for the discriminators
	// BCE uses binary cross-entropy (Goodfellow et al. 2014) for the adversarial losses
	// instead of least squares.
	BCE bool
	// FullDisc disables the halving of the discriminators' losses.
	FullDisc bool

	// Epochs is the number of passes over the larger of the two sets. The smaller one is
	// begun again as often as needed, even within a batch (see Order).
	Epochs    int
	Batch     int
	DecayFrom int // epoch from which the learning rate falls linearly to 0
	// Standardize scales the networks' inputs to mean 0 and standard deviation 1 in
	// each dimension, by the statistics of the training set for images and for texts.
	// This is folded into the generators that Generators returns.
	Standardize bool
	Seed        uint64 // seed of the data order
	Device      torch.Device
	Group       *distributed.Group // processes that share each batch; nil for a single process
}

// DefaultCycleGAN returns the settings of the paper's Table 2 and the defaults of the
// CycleGAN paper (Zhu et al. 2017).
func DefaultCycleGAN() CycleGANConfig {
	return CycleGANConfig{Width: 512, LR: 2e-4, Beta1: 0.5, Beta2: 0.999, CycleWeight: 10, IdentityWeight: 0.5, Pool: 50,
		Epochs: 20, Batch: 64, DecayFrom: 10}
}

// CycleGANTask trains generators between image features and text features on two unpaired
// sets of features.
type CycleGANTask struct {
	ToText    *cyclegan.Generator // image -> text: the paper's textualiser
	ToImage   *cyclegan.Generator // text -> image
	TextDisc  *cyclegan.Discriminator
	ImageDisc *cyclegan.Discriminator

	config              CycleGANConfig
	optG, optD          optim.Optimizer
	fakeText, fakeImage pool
	gens, discs         []torch.Tensor // parameters
	reduceG, reduceD    *distributed.Reducer
	images, texts       *side
	generators          stage
	discriminators      stage
	steps, epoch        int // number of steps in total and per epoch
}

// side is the features of one kind: images or texts.
type side struct {
	features  Features
	order     Order
	mean, std torch.Tensor // [width]; undefined without Standardize
}

func (s *side) batch(step int, c CycleGANConfig) (torch.Tensor, error) {
	x, err := Rows(s.features, share(s.order.Indices(step), c.Group), c.Device)
	if err == nil && s.mean.Defined() {
		x = x.Sub(s.mean).Div(s.std)
	}
	return x, err
}

// NewCycleGANTask creates the four networks with PyTorch's default initialization, in the
// order image-to-text generator, text-to-image generator, text discriminator, image
// discriminator, and their optimizers. It must be called in a scope.
func NewCycleGANTask(c CycleGANConfig, images, texts Features) (*CycleGANTask, error) {
	if larger := max(images.Len(), texts.Len()); larger < c.Batch {
		return nil, fmt.Errorf("cyclegan: got %d image features and %d text features, need at least one batch of %d in the larger set", images.Len(), texts.Len(), c.Batch)
	}
	for name, f := range map[string]Features{"image": images, "text": texts} {
		if f.Len() == 0 {
			return nil, fmt.Errorf("cyclegan: got no %s features", name)
		}
		if int64(f.Width()) != c.Width {
			return nil, fmt.Errorf("cyclegan: %s features: want width %d, got %d", name, c.Width, f.Width())
		}
	}
	if c.Batch%c.Group.Size() != 0 {
		return nil, fmt.Errorf("cyclegan: batch size %d is not divisible by the number of processes, %d", c.Batch, c.Group.Size())
	}
	t := &CycleGANTask{config: c, fakeText: pool{size: c.Pool}, fakeImage: pool{size: c.Pool}}
	torch.OnDevice(c.Device, func() {
		layers := cmp.Or(c.Layers, cyclegan.Layers)
		t.ToText, t.ToImage = cyclegan.NewGeneratorOf(c.Width, layers), cyclegan.NewGeneratorOf(c.Width, layers)
		t.TextDisc, t.ImageDisc = cyclegan.NewDiscriminator(c.Width), cyclegan.NewDiscriminator(c.Width)
	})
	t.gens = append(nn.Parameters(t.ToText), nn.Parameters(t.ToImage)...)
	t.discs = append(nn.Parameters(t.TextDisc), nn.Parameters(t.ImageDisc)...)
	var err error
	if t.reduceG, err = distributed.NewReducer(c.Group, t.gens); err != nil {
		return nil, err
	}
	if t.reduceD, err = distributed.NewReducer(c.Group, t.discs); err != nil {
		return nil, err
	}
	o := optim.AdamOptions{LR: c.LR, Beta1: c.Beta1, Beta2: c.Beta2, Eps: 1e-8}
	t.optG, t.optD = optim.Adam(t.gens, o), optim.Adam(t.discs, o)
	t.images = &side{features: images, order: Order{N: images.Len(), Batch: c.Batch, Seed: 2 * c.Seed}}
	t.texts = &side{features: texts, order: Order{N: texts.Len(), Batch: c.Batch, Seed: 2*c.Seed + 1}}
	t.epoch = max(images.Len(), texts.Len()) / c.Batch
	t.steps = c.Epochs * t.epoch
	if c.Standardize {
		for _, x := range []*side{t.images, t.texts} {
			if err := x.measure(c.Device); err != nil {
				return nil, err
			}
		}
	}
	t.fakeText.make(c.Width, c.Device)
	t.fakeImage.make(c.Width, c.Device)
	// Processes that share a batch exchange fakes in the middle of a stage.
	graphs := c.Device.Type == torch.CUDADevice && c.Group.Size() == 1
	t.generators = stage{device: c.Device, record: graphs}
	t.discriminators = stage{device: c.Device, record: graphs}
	return t, nil
}

// measure computes the mean and standard deviation of each dimension in f64, in one pass
// with bounded memory.
func (s *side) measure(d torch.Device) error {
	n, w := s.features.Len(), s.features.Width()
	sum, squares := make([]float64, w), make([]float64, w)
	const block = 4096
	buf := make([]float32, block*w)
	rows := make([]int32, 0, block)
	for at := 0; at < n; at += block {
		rows = rows[:0]
		for i := at; i < min(n, at+block); i++ {
			rows = append(rows, int32(i))
		}
		if err := s.features.Read(rows, buf); err != nil {
			return err
		}
		for i, v := range buf[:len(rows)*w] {
			sum[i%w] += float64(v)
			squares[i%w] += float64(v) * float64(v)
		}
	}
	mean, std := make([]float32, w), make([]float32, w)
	for i := range w {
		m := sum[i] / float64(n)
		mean[i] = float32(m)
		std[i] = float32(math.Sqrt(max(squares[i]/float64(n)-m*m, 1e-12)))
	}
	s.mean = torch.FromSlice(mean).To(torch.WithDevice(d)).Keep()
	s.std = torch.FromSlice(std).To(torch.WithDevice(d)).Keep()
	return nil
}

// Steps returns the number of steps in all epochs.
func (t *CycleGANTask) Steps() int { return t.steps }

// Parts returns the networks, optimizers and pools.
func (t *CycleGANTask) Parts() Parts {
	return Parts{
		Modules:    map[string]any{"to_text": t.ToText, "to_image": t.ToImage, "text_disc": t.TextDisc, "image_disc": t.ImageDisc},
		Optimizers: map[string]optim.Optimizer{"generators": t.optG, "discriminators": t.optD},
		Tensors:    map[string]torch.Tensor{"pool.text": t.fakeText.past, "pool.image": t.fakeImage.past},
		Counters:   map[string]*int{"pool.text": &t.fakeText.used, "pool.image": &t.fakeImage.used},
	}
}

// Batch lists the features of a step.
func (t *CycleGANTask) Batch(step int) string {
	return listed("images", t.images.order.Indices(step)) + " and " + listed("texts", t.texts.order.Indices(step))
}

// Close frees the networks, the state of the optimizers, the pools, the statistics and
// the graphs.
func (t *CycleGANTask) Close() {
	torch.Synchronize(t.config.Device) // a graph that is running must not be freed
	t.reduceG.Close()
	t.reduceD.Close()
	t.generators.close()
	t.discriminators.close()
	for _, p := range append(t.gens, t.discs...) {
		p.Close()
	}
	t.optG.Close()
	t.optD.Close()
	t.fakeText.close()
	t.fakeImage.close()
	for _, s := range []*side{t.images, t.texts} {
		s.mean.Close()
		s.std.Close()
	}
}

// Step trains on a batch of image features and a batch of text features: first the
// generators (adversarial, L1 cycle and identity losses), then the discriminators, on
// real features and on fakes from the pool. Operators run in the order of the CycleGAN
// authors' training step.
func (t *CycleGANTask) Step(step int) (Losses, error) { return wait(t.Queue(step)) }

// Queue is Step without waiting for the device.
func (t *CycleGANTask) Queue(step int) (Pending, error) {
	c := t.config
	images, err := t.images.batch(step, c)
	if err != nil {
		return Pending{}, err
	}
	texts, err := t.texts.batch(step, c)
	if err != nil {
		return Pending{}, err
	}
	lr := c.LR * optim.ConstantLinear(step/t.epoch, c.DecayFrom, c.Epochs-c.DecayFrom)
	t.optG.SetLR(lr)
	t.optD.SetLR(lr)

	if err := t.reduceG.PrepareForBackward(); err != nil {
		return Pending{}, err
	}
	g, err := t.generators.run(t.generate, images, texts)
	if err != nil {
		return Pending{}, err
	}
	if _, _, err := t.reduceG.FinalizeBackward(); err != nil {
		return Pending{}, err
	}
	t.optG.Step()

	if err := t.reduceD.PrepareForBackward(); err != nil {
		return Pending{}, err
	}
	d, err := t.discriminators.run(func(in []torch.Tensor) []torch.Tensor { return t.discriminate(g, in) }, t.swaps()...)
	if err != nil {
		return Pending{}, err
	}
	means, stopping, err := t.reduceD.FinalizeBackward(slices.Concat(g[4:], d)...)
	if err != nil {
		return Pending{}, err
	}
	t.optD.Step()

	return reduced(means, stopping, func(values []float64) Losses {
		losses := Losses{{"generators", 0}}
		for i, name := range cycleGANLosses {
			losses = append(losses, Loss{name, values[i]})
			if i < generatorLosses {
				losses[0].Value += values[i]
			}
		}
		return append(losses, Loss{"lr", lr})
	}), nil
}

// cycleGANLosses names the losses in the order in which they are computed; the first
// generatorLosses are those of the generators.
var cycleGANLosses = []string{"gan_text", "gan_image", "cycle_image", "cycle_text", "identity_text", "identity_image", "disc_text", "disc_image"}

const generatorLosses = 6

// generate computes the gradients of the generators on images and texts. It returns images,
// texts, fake texts, fake images, and the losses.
func (t *CycleGANTask) generate(in []torch.Tensor) []torch.Tensor {
	c := t.config
	images, texts := in[0], in[1]
	fakeText := t.ToText.Forward(images)
	backImage := t.ToImage.Forward(fakeText)
	fakeImage := t.ToImage.Forward(texts)
	backText := t.ToText.Forward(fakeImage)
	t.freeze(true) // the discriminators' weights need no gradient here
	t.optG.ZeroGrad()
	idText := t.ToText.Forward(texts).L1Loss(texts).MulScalar(c.CycleWeight).MulScalar(c.IdentityWeight)
	idImage := t.ToImage.Forward(images).L1Loss(images).MulScalar(c.CycleWeight).MulScalar(c.IdentityWeight)
	ganText := c.adversarial(t.TextDisc.Forward(fakeText), 1)
	ganImage := c.adversarial(t.ImageDisc.Forward(fakeImage), 1)
	cycleImage := backImage.L1Loss(images).MulScalar(c.CycleWeight)
	cycleText := backText.L1Loss(texts).MulScalar(c.CycleWeight)
	ganText.Add(ganImage).Add(cycleImage).Add(cycleText).Add(idText).Add(idImage).Backward()
	return append([]torch.Tensor{images, texts}, detached(fakeText, fakeImage, ganText, ganImage, cycleImage, cycleText, idText, idImage)...)
}

// discriminate computes the gradients of the discriminators, given the results of generate,
// and returns their losses. in is the result of swaps.
func (t *CycleGANTask) discriminate(g, in []torch.Tensor) []torch.Tensor {
	c := t.config
	images, texts, fakeText, fakeImage := g[0], g[1], g[2], g[3]
	t.freeze(false)
	t.optD.ZeroGrad()
	// Both exchanges come before the first backward pass, which sends gradients.
	pastText, pastImage := t.past(&t.fakeText, fakeText, in, 0), t.past(&t.fakeImage, fakeImage, in, 1)
	discText := c.discriminate(t.TextDisc, texts, pastText)
	discImage := c.discriminate(t.ImageDisc, images, pastImage)
	return detached(discText, discImage)
}

func detached(l ...torch.Tensor) []torch.Tensor {
	for i, t := range l {
		l[i] = t.Detach()
	}
	return l
}

// swaps draws what the pools of fake texts and of fake images exchange in a step, and
// returns it as rows 0 and 1 of a tensor on the device; nothing if there are no pools. The
// pools receive the fakes of all processes, so that they are the same in each.
func (t *CycleGANTask) swaps() []torch.Tensor {
	if t.config.Pool == 0 || t.config.Device == torch.Meta {
		return nil
	}
	rows := slices.Concat(t.fakeText.draw(t.config.Batch), t.fakeImage.draw(t.config.Batch))
	return []torch.Tensor{torch.FromSliceOn(t.config.Device, rows, 2, int64(len(rows)/2))}
}

// past exchanges the fakes of all processes in a pool, and returns this process's share of
// the batch. kind is the row of swaps.
func (t *CycleGANTask) past(p *pool, fakes torch.Tensor, swaps []torch.Tensor, kind int64) torch.Tensor {
	if swaps == nil {
		return fakes
	}
	all, part := gathered(t.config.Group, fakes)
	return part(p.exchange(all, swaps[0].Select(0, kind)))
}

func (t *CycleGANTask) freeze(on bool) {
	for _, p := range t.discs {
		p.SetRequiresGrad(!on)
	}
}

// adversarial returns the loss of scores against a target: 1 for real, 0 for fake.
func (c CycleGANConfig) adversarial(scores torch.Tensor, target float64) torch.Tensor {
	if c.BCE {
		return scores.BinaryCrossEntropyWithLogits(scores.FullLike(target))
	}
	return scores.MseLoss(scores.FullLike(target))
}

func (c CycleGANConfig) discriminate(d *cyclegan.Discriminator, real, fake torch.Tensor) torch.Tensor {
	onReal := c.adversarial(d.Forward(real), 1)
	onFake := c.adversarial(d.Forward(fake.Detach()), 0)
	loss := onReal.Add(onFake)
	if !c.FullDisc {
		loss = loss.MulScalar(0.5)
	}
	loss.Backward()
	return loss
}

// A pool keeps past fakes (Shrivastava et al. 2017): once it is full, each fake of a batch
// is swapped for an older one with probability 1/2.
type pool struct {
	size int
	past torch.Tensor // [size, width]
	used int
}

// draw decides what the pool exchanges for a batch of n fakes. It draws torch.rand(n) and
// torch.randint(0, size, (n,)) from the CPU's default generator: whether to swap each fake,
// and with which row of the pool. The fakes are exchanged one after the other, so a fake
// may be swapped for an earlier one of its batch. draw returns the outcome as row numbers
// in the pool followed by the batch, [size + n]: n for the batch that the discriminator
// sees, then size for the pool.
func (p *pool) draw(n int) []int64 {
	on := torch.WithDevice(torch.CPU)
	coins := torch.ToSlice[float32](torch.Rand([]int64{int64(n)}, on))
	places := torch.ToSlice[int64](torch.Randint(0, int64(p.size), []int64{int64(n)}, on))
	rows := make([]int64, n+p.size)
	seen, kept := rows[:n], rows[n:]
	for i := range kept {
		kept[i] = int64(i)
	}
	for i := range seen {
		own := int64(p.size + i)
		seen[i] = own
		switch {
		case p.used < p.size:
			kept[p.used] = own
			p.used++
		case coins[i] > 0.5:
			seen[i], kept[places[i]] = kept[places[i]], own
		}
	}
	return rows
}

// exchange returns the batch that the discriminator sees in place of fakes [n, width], and
// changes the pool. rows is the result of draw.
func (p *pool) exchange(fakes, rows torch.Tensor) (seen torch.Tensor) {
	torch.NoGrad(func() {
		n := fakes.Size(0)
		all := torch.Cat([]torch.Tensor{p.past, fakes.Detach()}).IndexSelect(0, rows)
		p.past.Copy_(all.Narrow(0, n, int64(p.size)))
		seen = all.Narrow(0, 0, n)
	})
	return seen
}

// make allocates the pool.
func (p *pool) make(width int64, d torch.Device) {
	if !p.past.Defined() {
		p.past = torch.Zeros([]int64{int64(p.size), width}, torch.WithDevice(d)).Keep()
	}
}

func (p *pool) close() { p.past.Close() }

// Generators returns copies of the two generators, image to text and text to image, that
// map plain features to plain features: the scaling of Standardize is folded into the
// first and last layers. It must be called in a scope.
func (t *CycleGANTask) Generators() (toText, toImage *nn.StateDict) {
	return fold(t.ToText, t.images, t.texts), fold(t.ToImage, t.texts, t.images)
}

func fold(g *cyclegan.Generator, from, to *side) *nn.StateDict {
	own, out := nn.StateDictOf(g), nn.NewStateDict()
	torch.NoGrad(func() {
		for _, name := range own.Names() {
			t, _ := own.Get(name)
			out.Add(name, t.Clone())
		}
		if !from.mean.Defined() {
			return
		}
		get := func(name string) torch.Tensor { t, _ := out.Get(name); return t }
		// W ((x - mean) / std) + b = (W / std) x + (b - W (mean / std))
		w, b := get("model.0.weight"), get("model.0.bias")
		out.Add("model.0.bias", b.Sub(w.MV(from.mean.Div(from.std))))
		out.Add("model.0.weight", w.Div(from.std))
		last := g.Last()
		w, b = get(last+".weight"), get(last+".bias")
		out.Add(last+".weight", w.Mul(to.std.Unsqueeze(1)))
		out.Add(last+".bias", b.Mul(to.std).Add(to.mean))
	})
	return out
}
