package train

import (
	"fmt"
	"math"

	"cyclecap/nets/cyclegan"
	"cyclecap/torch"
	"cyclecap/torch/distributed"
	"cyclecap/torch/nn"
	"cyclecap/torch/optim"
)

// CycleGANSchedule has the settings of a CycleGAN's training beside those of
// its step.
type CycleGANSchedule struct {
	Epochs    int // passes over the larger of the two sets
	Batch     int
	DecayFrom int // epoch from which the rate falls linearly, to 0 at the end
	// Standardize gives the nets features with mean 0 and deviation 1 in each
	// dimension, by the training set's statistics of each side. The generators
	// that are saved take and give plain features all the same.
	Standardize bool
	Seed        uint64 // of the order of the features
	Device      torch.Device
	Group       *distributed.Group // that shares each batch; nil: this process alone
}

// CycleGANTask trains a CycleGAN on two unpaired sets of features.
type CycleGANTask struct {
	*CycleGAN
	schedule      CycleGANSchedule
	images, texts *side
	steps, epoch  int // in all; of an epoch
}

// side is the features of one kind.
type side struct {
	features  Features
	order     Order
	mean, std torch.Tensor // [width], of Standardize
}

func (s *side) batch(step int, c CycleGANSchedule) (torch.Tensor, error) {
	x, err := rowsOf(s.features, share(s.order.Indices(step), c.Group), c.Device)
	if err == nil && s.mean.Defined() {
		x = x.Sub(s.mean).Div(s.std)
	}
	return x, err
}

// NewCycleGANTask makes a task. It needs a scope.
func NewCycleGANTask(c CycleGANConfig, s CycleGANSchedule, images, texts Features) (*CycleGANTask, error) {
	for name, f := range map[string]Features{"image": images, "text": texts} {
		if f.Len() < s.Batch {
			return nil, fmt.Errorf("cyclegan: there are %d %s features, less than a batch of %d", f.Len(), name, s.Batch)
		}
		if int64(f.Width()) != c.Width {
			return nil, fmt.Errorf("cyclegan: %s features of width %d are needed, and these have %d", name, c.Width, f.Width())
		}
	}
	if s.Batch%s.Group.Size() != 0 {
		return nil, fmt.Errorf("cyclegan: a batch of %d can't be shared by %d processes", s.Batch, s.Group.Size())
	}
	t := &CycleGANTask{schedule: s}
	torch.OnDevice(s.Device, func() { t.CycleGAN = NewCycleGAN(c) })
	t.group = s.Group
	t.images = &side{features: images, order: Order{N: images.Len(), Batch: s.Batch, Seed: 2 * s.Seed}}
	t.texts = &side{features: texts, order: Order{N: texts.Len(), Batch: s.Batch, Seed: 2*s.Seed + 1}}
	t.epoch = max(images.Len(), texts.Len()) / s.Batch
	t.steps = s.Epochs * t.epoch
	if s.Standardize {
		for _, x := range []*side{t.images, t.texts} {
			if err := x.measure(s.Device); err != nil {
				return nil, err
			}
		}
	}
	t.fakeText.make(c.Width, s.Device)
	t.fakeImage.make(c.Width, s.Device)
	return t, nil
}

// measure computes mean and deviation of each dimension, in f64 and in one
// pass of bounded memory.
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

// Steps counts the steps of all epochs.
func (t *CycleGANTask) Steps() int { return t.steps }

// Parts lists the nets, optimizers and pools.
func (t *CycleGANTask) Parts() Parts {
	return Parts{
		Modules:    map[string]any{"to_text": t.ToText, "to_image": t.ToImage, "text_disc": t.TextDisc, "image_disc": t.ImageDisc},
		Optimizers: map[string]optim.Optimizer{"generators": t.optG, "discriminators": t.optD},
		Tensors:    map[string]torch.Tensor{"pool.text": t.fakeText.past, "pool.image": t.fakeImage.past},
		Counters:   map[string]*int{"pool.text": &t.fakeText.used, "pool.image": &t.fakeImage.used},
	}
}

// Batch names the features of a step.
func (t *CycleGANTask) Batch(step int) string {
	return listed("images", t.images.order.Indices(step)) + " and " + listed("texts", t.texts.order.Indices(step))
}

// Step does one step of the generators and one of the discriminators.
func (t *CycleGANTask) Step(step int) (Losses, error) {
	images, err := t.images.batch(step, t.schedule)
	if err != nil {
		return nil, err
	}
	texts, err := t.texts.batch(step, t.schedule)
	if err != nil {
		return nil, err
	}
	s := t.schedule
	lr := t.Config.LR * optim.ConstantLinear(step/t.epoch, s.DecayFrom, s.Epochs-s.DecayFrom)
	t.SetLR(lr)
	l, err := t.CycleGAN.Step(images, texts)
	if err != nil {
		return nil, err
	}
	losses := Losses{
		{"generators", l.Generators()},
		{"gan_text", l.GanText}, {"gan_image", l.GanImage},
		{"cycle_image", l.CycleImage}, {"cycle_text", l.CycleText},
		{"identity_text", l.IdentityText}, {"identity_image", l.IdentityImage},
		{"disc_text", l.DiscText}, {"disc_image", l.DiscImage},
		{"lr", lr},
	}
	values := make([]float64, len(losses))
	for i, x := range losses {
		values[i] = x.Value
	}
	values, err = averaged(s.Group, values...)
	for i, v := range values {
		losses[i].Value = v
	}
	return losses, err
}

// Generators gives copies of the two generators, image to text and text to
// image, that take and give plain features: what Standardize does is folded
// into the first and the last layer. It needs a scope.
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
		w, b = get("model.6.weight"), get("model.6.bias")
		out.Add("model.6.weight", w.Mul(to.std.Unsqueeze(1)))
		out.Add("model.6.bias", b.Mul(to.std).Add(to.mean))
	})
	return out
}
