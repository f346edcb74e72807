package train

import (
	"fmt"

	"cyclecap/nets/cyclegan"
	"cyclecap/torch"
	"cyclecap/torch/distributed"
	"cyclecap/torch/nn"
	"cyclecap/torch/optim"
)

// CycleGANConfig has what the paper leaves open; its zero value is not
// usable, start from DefaultCycleGAN.
type CycleGANConfig struct {
	Width          int64   // of the features
	LR             float64 // of Adam, for generators and discriminators
	Beta1, Beta2   float64
	CycleWeight    float64 // of both cycle losses
	IdentityWeight float64 // of both identity losses, relative to CycleWeight
	Pool           int     // past fakes shown to the discriminators
	// BCE takes the binary cross-entropy of Goodfellow et al. 2014 for the
	// adversarial losses; otherwise they are least-squares.
	BCE bool
	// FullDisc leaves the discriminators' losses whole, which are halved
	// otherwise.
	FullDisc bool
}

// DefaultCycleGAN has the CycleGAN paper's defaults (Zhu et al. 2017).
func DefaultCycleGAN() CycleGANConfig {
	return CycleGANConfig{Width: 512, LR: 2e-4, Beta1: 0.5, Beta2: 0.999, CycleWeight: 10, IdentityWeight: 0.5, Pool: 50}
}

// CycleGAN trains generators between image features and text features.
type CycleGAN struct {
	Config      CycleGANConfig
	ToText      *cyclegan.Generator // image -> text: the paper's textualiser
	ToImage     *cyclegan.Generator // text -> image
	TextDisc    *cyclegan.Discriminator
	ImageDisc   *cyclegan.Discriminator
	optG, optD  optim.Optimizer
	fakeText    pool
	fakeImage   pool
	gens, discs []torch.Tensor
	group       *distributed.Group
}

// CycleGANLosses are the losses of one step, as they are minimised (weights
// included).
type CycleGANLosses struct {
	GanText, GanImage           float64 // generators' adversarial losses
	CycleImage, CycleText       float64
	IdentityText, IdentityImage float64
	DiscText, DiscImage         float64
}

// Generators gives the sum that the generators minimise.
func (l CycleGANLosses) Generators() float64 {
	return l.GanText + l.GanImage + l.CycleImage + l.CycleText + l.IdentityText + l.IdentityImage
}

// NewCycleGAN makes the four nets, in the order image-to-text generator,
// text-to-image generator, text discriminator, image discriminator, with
// PyTorch's default initial weights, and their optimizers.
func NewCycleGAN(c CycleGANConfig) *CycleGAN {
	g := &CycleGAN{
		Config:    c,
		ToText:    cyclegan.NewGenerator(c.Width),
		ToImage:   cyclegan.NewGenerator(c.Width),
		TextDisc:  cyclegan.NewDiscriminator(c.Width),
		ImageDisc: cyclegan.NewDiscriminator(c.Width),
		fakeText:  pool{size: c.Pool},
		fakeImage: pool{size: c.Pool},
	}
	g.gens = append(nn.Parameters(g.ToText), nn.Parameters(g.ToImage)...)
	g.discs = append(nn.Parameters(g.TextDisc), nn.Parameters(g.ImageDisc)...)
	o := optim.AdamOptions{LR: c.LR, Beta1: c.Beta1, Beta2: c.Beta2, Eps: 1e-8}
	g.optG = optim.Adam(g.gens, o)
	g.optD = optim.Adam(g.discs, o)
	return g
}

// Close frees the nets, the optimizers' state and the pools.
func (g *CycleGAN) Close() {
	for _, t := range append(g.gens, g.discs...) {
		t.Close()
	}
	g.optG.Close()
	g.optD.Close()
	g.fakeText.close()
	g.fakeImage.close()
}

// SetLR sets the rate of both optimizers, for a schedule.
func (g *CycleGAN) SetLR(lr float64) {
	g.optG.SetLR(lr)
	g.optD.SetLR(lr)
}

// Step trains on unpaired batches of image and text features [n, width]:
// first the generators (least-squares adversarial losses, L1 cycles and
// identities), then the discriminators on real features and on fakes from the
// pool, their losses halved. The order of operators is that of the CycleGAN
// authors' training step. It must run in a scope.
func (g *CycleGAN) Step(images, texts torch.Tensor) (CycleGANLosses, error) {
	var l CycleGANLosses
	if images.Dim() != 2 || texts.Dim() != 2 || images.Size(1) != g.Config.Width || texts.Size(1) != g.Config.Width {
		return l, fmt.Errorf("cyclegan: features of width %d are needed, not %v and %v", g.Config.Width, images.Shape(), texts.Shape())
	}
	c := g.Config
	fakeText := g.ToText.Forward(images)
	backImage := g.ToImage.Forward(fakeText)
	fakeImage := g.ToImage.Forward(texts)
	backText := g.ToText.Forward(fakeImage)

	// Generators. The discriminators' weights need no gradient here.
	g.freeze(true)
	g.optG.ZeroGrad()
	idText := g.ToText.Forward(texts).L1Loss(texts).MulScalar(c.CycleWeight).MulScalar(c.IdentityWeight)
	idImage := g.ToImage.Forward(images).L1Loss(images).MulScalar(c.CycleWeight).MulScalar(c.IdentityWeight)
	ganText := c.adversarial(g.TextDisc.Forward(fakeText), 1)
	ganImage := c.adversarial(g.ImageDisc.Forward(fakeImage), 1)
	cycleImage := backImage.L1Loss(images).MulScalar(c.CycleWeight)
	cycleText := backText.L1Loss(texts).MulScalar(c.CycleWeight)
	ganText.Add(ganImage).Add(cycleImage).Add(cycleText).Add(idText).Add(idImage).Backward()
	if err := distributed.AverageGradients(g.group, g.gens); err != nil {
		return l, err
	}
	g.optG.Step()

	// Discriminators.
	g.freeze(false)
	g.optD.ZeroGrad()
	discText := c.discriminate(g.TextDisc, texts, g.past(&g.fakeText, fakeText))
	discImage := c.discriminate(g.ImageDisc, images, g.past(&g.fakeImage, fakeImage))
	if err := distributed.AverageGradients(g.group, g.discs); err != nil {
		return l, err
	}
	g.optD.Step()

	for _, v := range []struct {
		to   *float64
		loss torch.Tensor
	}{{&l.GanText, ganText}, {&l.GanImage, ganImage}, {&l.CycleImage, cycleImage}, {&l.CycleText, cycleText},
		{&l.IdentityText, idText}, {&l.IdentityImage, idImage}, {&l.DiscText, discText}, {&l.DiscImage, discImage}} {
		if v.loss.Device() != torch.Meta {
			*v.to = v.loss.Item()
		}
	}
	return l, nil
}

// past asks a pool, which is the same in all processes: it sees the fakes of
// them all.
func (g *CycleGAN) past(p *pool, fakes torch.Tensor) torch.Tensor {
	all, part := gathered(g.group, fakes)
	return part(p.query(all))
}

func (g *CycleGAN) freeze(on bool) {
	for _, p := range g.discs {
		p.SetRequiresGrad(!on)
	}
}

// adversarial is the loss of scores against a target, 1 for real and 0 for
// fake.
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

// pool keeps past fakes (Shrivastava et al. 2017): once it is full, half of
// the fakes of a batch are swapped for older ones.
type pool struct {
	size int
	past torch.Tensor // [size, width]
	used int
}

// query gives the batch that the discriminator sees in place of fakes
// [n, width]. Each call draws torch.rand(n) and torch.randint(0, size, (n,))
// from the default generator: the coin and the place of each row.
func (p *pool) query(fakes torch.Tensor) torch.Tensor {
	if p.size == 0 || fakes.Device() == torch.Meta {
		return fakes
	}
	n := int(fakes.Size(0))
	p.make(fakes.Size(1), fakes.Device())
	coins := torch.ToSlice[float32](torch.Rand([]int64{int64(n)}))
	places := torch.ToSlice[int64](torch.Randint(0, int64(p.size), []int64{int64(n)}))
	var out torch.Tensor
	torch.NoGrad(func() {
		fakes = fakes.Detach()
		out = fakes.Clone()
		for i := range n {
			switch {
			case p.used < p.size:
				p.past.Select(0, int64(p.used)).Copy_(fakes.Select(0, int64(i)))
				p.used++
			case coins[i] > 0.5:
				old := p.past.Select(0, places[i])
				out.Select(0, int64(i)).Copy_(old)
				old.Copy_(fakes.Select(0, int64(i)))
			}
		}
	})
	return out
}

// make takes the pool's memory.
func (p *pool) make(width int64, d torch.Device) {
	if !p.past.Defined() {
		p.past = torch.Zeros([]int64{int64(p.size), width}, torch.WithDevice(d)).Keep()
	}
}

func (p *pool) close() { p.past.Close() }
