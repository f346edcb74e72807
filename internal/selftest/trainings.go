package selftest

import (
	"context"
	"fmt"
	"math"

	"cyclecap/nets/clip"
	"cyclecap/nets/clipcap"
	"cyclecap/nets/cyclegan"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/torch/optim"
	"cyclecap/train"
)

// A training is a task of package train and its reference: the same steps in f64,
// written out with plain operators.
type training struct {
	// task creates the task with its networks. Close frees them.
	task func(d torch.Device, bf16 bool) (trained, error)
	// reference creates the networks in f64, and a function that does a step.
	reference func() (trained, func(step int) train.Losses)
}

// trained is a task or its reference.
type trained struct {
	task    train.Task
	modules []any // whose gradients are compared, in the same order on both sides
	close   func()
}

const (
	batch  = 8
	items  = steps * batch // of data: one epoch
	rate   = 1e-3
	window = 12 // of GPT-2's training
)

// order is that of a task whose seed is 0.
func order(step int, seed uint64) []int32 {
	o := train.Order{N: items, Batch: batch, Seed: seed}
	return o.Indices(step)
}

// rows returns the rows of x that make up a batch.
func rows(x torch.Tensor, batch []int32) torch.Tensor {
	index := make([]int64, len(batch))
	for i, row := range batch {
		index[i] = int64(row)
	}
	return x.IndexSelect(0, torch.FromSlice(index))
}

func trainings() []Check {
	var all []Check
	add := func(name string, bf16 bool, t training) {
		all = append(all, Check{"training, " + name + ", f32", boundTrainF32, t.check(false)})
		if bf16 {
			all = append(all, Check{"training, " + name + ", bf16", boundTrainBF16, t.check(true)})
		}
	}
	transformer := func() clipcap.Mapper { return newMapper() }
	mlp := func() clipcap.Mapper { return newMLP() }
	add("CLIP", true, clipTraining())
	add("GPT-2", true, gpt2Training())
	mean := make([]float32, featureWidth)
	for i := range mean {
		mean[i] = 0.1 * float32(i%3)
	}
	add("decoder", true, decoderTraining(transformer, false, nil))
	add("decoder with MLP mapper", true, decoderTraining(mlp, false, nil))
	add("decoder with CapDec noise", true, decoderTraining(transformer, false, &train.Noise{Variance: 0.02}))
	add("decoder with C3 noise", true, decoderTraining(transformer, false, &train.Noise{Variance: 0.02, Mean: mean}))
	add("decoder with GPT-2", true, decoderTraining(transformer, true, nil))
	add("CycleGAN", false, cycleGANTraining())
	return all
}

// check runs the steps on both sides. It compares the losses of each step, and the
// gradients of the last one: the losses of later steps also tell whether the steps
// before changed the weights as they should. The weights themselves are no good
// measure: Adam moves a weight whose true gradient is 0 by the sign of its rounding
// error.
func (t training) check(bf16 bool) func(context.Context, torch.Device) (float64, error) {
	return func(ctx context.Context, d torch.Device) (off float64, err error) {
		got, err := t.task(d, bf16)
		if err != nil {
			return 0, err
		}
		defer got.close()
		want, step := t.reference()
		defer want.close()
		for i := range steps {
			if err := ctx.Err(); err != nil {
				return 0, err
			}
			var losses train.Losses
			seed := func() { torch.ManualSeed(100 + uint64(i)) } // of noise and pools
			err := torch.Scope(func() (err error) {
				seed()
				losses, err = got.task.Step(i)
				return err
			})
			if err != nil {
				return 0, fmt.Errorf("step %d: %w", i, err)
			}
			err = torch.Scope(func() error {
				seed()
				for _, l := range step(i) {
					off = worse(off, math.Abs(losses.Get(l.Name)-l.Value)/math.Abs(l.Value))
				}
				return nil
			})
			if err != nil {
				return 0, fmt.Errorf("step %d of the f64 reference: %w", i, err)
			}
		}
		g, err := gradientDifference(got.modules, want.modules)
		return worse(off, g), err
	}
}

// worse is max, which NaN passes through.
func worse(a, b float64) float64 {
	if math.IsNaN(a) || a > b {
		return a
	}
	return b
}

// gradientDifference returns the distance between all gradients of two lists of
// modules, relative to their length.
func gradientDifference(got, want []any) (float64, error) {
	var off, length float64
	for i, m := range want {
		ours := nn.NamedParameters(got[i])
		for j, p := range nn.NamedParameters(m) {
			g, w := ours[j].Tensor.Grad(), p.Tensor.Grad()
			if g.Defined() != w.Defined() {
				return 0, fmt.Errorf("%s: one side has a gradient, the other has none", p.Name)
			}
			if !w.Defined() {
				continue
			}
			off += math.Pow(toF64(g).Sub(w).LinalgVectorNorm().Item(), 2)
			length += math.Pow(w.LinalgVectorNorm().Item(), 2)
		}
	}
	return math.Sqrt(off / length), nil
}

// exact moves networks to f64.
func exact(modules ...any) {
	for _, m := range modules {
		nn.To(m, torch.WithDType(torch.Float64))
	}
}

func clipTraining() training {
	mean, std := [3]float32{0.5, 0.4, 0.3}, [3]float32{0.2, 0.25, 0.3}
	plane := clipConfig.ImageSize * clipConfig.ImageSize
	pixels := func() torch.Tensor {
		torch.ManualSeed(5)
		return torch.Randint(0, 256, []int64{items, 3, plane})
	}
	texts := func() torch.Tensor { return ids(6, items, clipConfig.Context, clipConfig.Vocab) }
	return training{
		task: func(d torch.Device, bf16 bool) (trained, error) {
			m := build(1, newCLIP)
			nn.To(m, torch.WithDevice(d))
			data := train.CLIPData{Pixels: torch.ToSlice[uint8](pixels().To(torch.WithDType(torch.Uint8))), Captions: listOf(texts())}
			for i := range items {
				data.Of = append(data.Of, []int32{int32(i)})
			}
			t, err := train.NewCLIPTask(train.CLIPConfig{Mean: mean, Std: std, Epochs: 1, Batch: batch, LR: rate, WeightDecay: 0.1, BF16: bf16, Device: d}, m, data)
			if err != nil {
				nn.Close(m)
				return trained{}, err
			}
			return trained{t, []any{m}, func() { t.Close(); nn.Close(m) }}, nil
		},
		reference: func() (trained, func(int) train.Losses) {
			m := build(1, newCLIP)
			exact(m)
			var decay, rest []torch.Tensor
			for _, p := range nn.Parameters(m) {
				if p.Dim() < 2 {
					rest = append(rest, p)
				} else {
					decay = append(decay, p)
				}
			}
			o := optim.AdamOptions{LR: rate, Beta1: 0.9, Beta2: 0.98, Eps: 1e-6}
			withDecay := o
			withDecay.WeightDecay = 0.1
			opts := optimizerList{optim.AdamW(decay, withDecay), optim.AdamW(rest, o)}
			channels := func(v [3]float32) torch.Tensor { return toF64(torch.FromSlice(v[:], 1, 3, 1)) }
			x := toF64(pixels()).DivScalar(255).Sub(channels(mean)).Div(channels(std)).
				View([]int64{items, 3, clipConfig.ImageSize, clipConfig.ImageSize})
			words := texts()
			step := func(i int) train.Losses {
				b := order(i, 0)
				image, text := clip.Normalize(m.EncodeImage(rows(x, b))), clip.Normalize(m.EncodeText(rows(words, b)))
				logits := image.MM(text.T()).Mul(m.LogitScale.Exp())
				// -log of the diagonal's share of its row and of its column.
				loss := logits.LogSoftmax(1).Add(logits.LogSoftmax(0)).Diagonal().Mean().MulScalar(-0.5)
				opts.step(loss, rate*train.WarmupCosine(i, 0, steps))
				return train.Losses{{Name: "loss", Value: loss.Item()}}
			}
			return trained{nil, []any{m}, func() { opts.close(); nn.Close(m) }}, step
		},
	}
}

// listOf returns the rows of ids [n, t] as texts.
func listOf(ids torch.Tensor) *train.Texts {
	list := &train.Texts{}
	for i := range ids.Size(0) {
		var text []int
		for _, id := range torch.ToSlice[int64](ids.Select(0, i)) {
			text = append(text, int(id))
		}
		list.Add(text)
	}
	return list
}

// optimizerList is the optimizers of a reference.
type optimizerList []optim.Optimizer

func (l optimizerList) step(loss torch.Tensor, lr float64, clipped ...torch.Tensor) {
	for _, o := range l {
		o.ZeroGrad()
	}
	loss.Backward()
	if len(clipped) > 0 {
		optim.ClipGradNorm(clipped, 1)
	}
	for _, o := range l {
		o.SetLR(lr)
		o.Step()
	}
}

func (l optimizerList) close() {
	for _, o := range l {
		o.Close()
	}
}

func gpt2Training() training {
	text := func() torch.Tensor { return ids(7, 1, (items+1)*window, gptConfig.VocabSize).Flatten() }
	return training{
		task: func(d torch.Device, bf16 bool) (trained, error) {
			m := build(2, newGPT2)
			nn.To(m, torch.WithDevice(d))
			t, err := train.NewGPT2Task(train.GPT2Config{Epochs: 1, Batch: batch, Window: window, LR: rate, BF16: bf16, Device: d}, m,
				torch.ToSlice[int32](text().To(torch.WithDType(torch.Int32))))
			if err != nil {
				nn.Close(m)
				return trained{}, err
			}
			return trained{t, []any{m}, func() { t.Close(); nn.Close(m) }}, nil
		},
		reference: func() (trained, func(int) train.Losses) {
			m := build(2, newGPT2)
			exact(m)
			opts := optimizerList{optim.AdamW(nn.Parameters(m), optim.AdamOptions{LR: rate, Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, WeightDecay: 0.1})}
			ids := text()
			step := func(i int) train.Losses {
				var windows []torch.Tensor
				for _, w := range order(i, 0) {
					windows = append(windows, ids.Narrow(0, int64(w)*window, window+1))
				}
				b := torch.Stack(windows)
				in, next := b.Narrow(1, 0, window), b.Narrow(1, 1, window)
				logits := m.Logits(m.Forward(m.Embed(in), nil, torch.Tensor{}))
				loss := logits.LogSoftmax(-1).Gather(2, next.Unsqueeze(2)).Mean().Neg()
				opts.step(loss, rate*train.WarmupCosine(i, 0, steps), nn.Parameters(m)...)
				return train.Losses{{Name: "loss", Value: loss.Item()}}
			}
			return trained{nil, []any{m}, func() { opts.close(); nn.Close(m) }}, step
		},
	}
}

func decoderTraining(newMapper func() clipcap.Mapper, tune bool, noise *train.Noise) training {
	const length = 10
	networks := func() *clipcap.Model { return &clipcap.Model{Mapper: build(1, newMapper), GPT2: build(2, newGPT2)} }
	captions := func() torch.Tensor { return ids(8, items, length, gptConfig.VocabSize) }
	modules := func(m *clipcap.Model) []any {
		if tune {
			return []any{m.Mapper, m.GPT2}
		}
		return []any{m.Mapper}
	}
	return training{
		task: func(d torch.Device, bf16 bool) (trained, error) {
			m := networks()
			nn.To(m, torch.WithDevice(d))
			data := train.DecoderData{Captions: listOf(captions()), Features: train.Matrix{Data: torch.ToSlice[float32](features(9, items)), Cols: featureWidth}}
			c := train.DecoderConfig{Epochs: 1, Batch: batch, LR: rate, TuneGPT2: tune, Noise: noise, BF16: bf16, Device: d}
			t, err := train.NewDecoderTask(c, m, data, train.DecoderData{Captions: &train.Texts{}})
			if err != nil {
				nn.Close(m)
				return trained{}, err
			}
			return trained{t, modules(m), func() { t.Close(); nn.Close(m) }}, nil
		},
		reference: func() (trained, func(int) train.Losses) {
			m := networks()
			exact(m)
			nn.SetRequiresGrad(m.GPT2, tune)
			var params []torch.Tensor
			for _, module := range modules(m) {
				params = append(params, nn.Parameters(module)...)
			}
			o := optim.TransformersAdamWDefaults()
			o.LR = rate
			opts := optimizerList{optim.TransformersAdamW(params, o)}
			x, words := toF64(features(9, items)), captions()
			step := func(i int) train.Losses {
				b := order(i, 0)
				in, tokens := rows(x, b), rows(words, b)
				if noise != nil {
					in = clip.Normalize(in)
					if m := noise.Mean; m != nil {
						in = in.Sub(toF64(torch.FromSlice(m)))
					}
					in = clip.Normalize(in.Add(toF64(torch.Randn(in.Shape())).MulScalar(math.Sqrt(noise.Variance))))
				}
				prefix := m.Mapper.Forward(in)
				embeds := torch.Cat([]torch.Tensor{prefix, m.GPT2.Embed(tokens)}, torch.WithDim(1))
				logits := m.GPT2.Logits(m.GPT2.Forward(embeds, nil, torch.Tensor{})).Narrow(1, prefix.Size(1)-1, length)
				loss := logits.LogSoftmax(-1).Gather(2, tokens.Unsqueeze(2)).Mean().Neg()
				opts.step(loss, rate*optim.WarmupLinear(i, 0, steps))
				return train.Losses{{Name: "loss", Value: loss.Item()}}
			}
			return trained{nil, modules(m), func() { opts.close(); nn.Close(m) }}, step
		},
	}
}

// ganNets returns the four networks in the order of a CycleGANTask.
func ganNets() (toText, toImage *cyclegan.Generator, textDisc, imageDisc *cyclegan.Discriminator) {
	return build(1, newGenerator), build(2, newGenerator), build(3, newDiscriminator), build(4, newDiscriminator)
}

func cycleGANTraining() training {
	const pool = 10 // full in the second step, so that fakes are swapped
	c := train.DefaultCycleGAN()
	c.Width, c.LR, c.Pool, c.Epochs, c.Batch, c.DecayFrom, c.Standardize = featureWidth, rate, pool, 1, batch, 1, true
	images := func() torch.Tensor { return features(10, items) }
	texts := func() torch.Tensor { return features(11, items).AddScalar(0.2) }
	return training{
		task: func(d torch.Device, _ bool) (trained, error) {
			c := c
			c.Device = d
			matrix := func(x torch.Tensor) train.Matrix {
				return train.Matrix{Data: torch.ToSlice[float32](x), Cols: featureWidth}
			}
			t, err := train.NewCycleGANTask(c, matrix(images()), matrix(texts()))
			if err != nil {
				return trained{}, err
			}
			// The task has drawn its weights from the device's generator.
			toText, toImage, textDisc, imageDisc := ganNets()
			from, to := []any{toText, toImage, textDisc, imageDisc}, []any{t.ToText, t.ToImage, t.TextDisc, t.ImageDisc}
			torch.NoGrad(func() {
				for i, m := range from {
					own := nn.Parameters(to[i])
					for j, p := range nn.Parameters(m) {
						own[j].Copy_(p)
					}
					nn.Close(m)
				}
			})
			return trained{t, to, t.Close}, nil
		},
		reference: func() (trained, func(int) train.Losses) {
			toText, toImage, textDisc, imageDisc := ganNets()
			modules := []any{toText, toImage, textDisc, imageDisc}
			exact(modules...)
			gens, discs := append(nn.Parameters(toText), nn.Parameters(toImage)...), append(nn.Parameters(textDisc), nn.Parameters(imageDisc)...)
			adam := optim.AdamOptions{LR: rate, Beta1: c.Beta1, Beta2: c.Beta2, Eps: 1e-8}
			optG, optD := optimizerList{optim.Adam(gens, adam)}, optimizerList{optim.Adam(discs, adam)}
			standardized := func(x torch.Tensor) torch.Tensor {
				x = toF64(x)
				centred := x.Sub(x.MeanDim([]int64{0}))
				return centred.Div(centred.Square().MeanDim([]int64{0}).Sqrt())
			}
			x, y := standardized(images()), standardized(texts())
			pastText, pastImage := &pastFakes{size: pool}, &pastFakes{size: pool}
			towards := func(score torch.Tensor, target float64) torch.Tensor { return score.SubScalar(target).Square().Mean() }
			apart := func(a, b torch.Tensor) torch.Tensor { return a.Sub(b).Abs().Mean() }
			step := func(i int) train.Losses {
				image, text := rows(x, order(i, 0)), rows(y, order(i, 1))
				fakeText, fakeImage := toText.Forward(image), toImage.Forward(text)
				ganText, ganImage := towards(textDisc.Forward(fakeText), 1), towards(imageDisc.Forward(fakeImage), 1)
				cycleImage := apart(toImage.Forward(fakeText), image).MulScalar(c.CycleWeight)
				cycleText := apart(toText.Forward(fakeImage), text).MulScalar(c.CycleWeight)
				idText := apart(toText.Forward(text), text).MulScalar(c.CycleWeight * c.IdentityWeight)
				idImage := apart(toImage.Forward(image), image).MulScalar(c.CycleWeight * c.IdentityWeight)
				all := ganText.Add(ganImage).Add(cycleImage).Add(cycleText).Add(idText).Add(idImage)
				optG.step(all, rate)
				disc := func(d *cyclegan.Discriminator, real torch.Tensor, past *pastFakes, fake torch.Tensor) torch.Tensor {
					return towards(d.Forward(real), 1).Add(towards(d.Forward(past.swap(fake.Detach())), 0)).MulScalar(0.5)
				}
				discText, discImage := disc(textDisc, text, pastText, fakeText), disc(imageDisc, image, pastImage, fakeImage)
				optD.step(discText.Add(discImage), rate)
				var losses train.Losses
				for name, t := range map[string]torch.Tensor{"generators": all, "gan_text": ganText, "gan_image": ganImage,
					"cycle_image": cycleImage, "cycle_text": cycleText, "identity_text": idText, "identity_image": idImage,
					"disc_text": discText, "disc_image": discImage} {
					losses = append(losses, train.Loss{Name: name, Value: t.Item()})
				}
				return losses
			}
			return trained{nil, modules, func() {
				optG.close()
				optD.close()
				for _, m := range modules {
					nn.Close(m)
				}
			}}, step
		},
	}
}

// pastFakes is the pool of a CycleGAN in Go's memory, with the same draws as the task's.
type pastFakes struct {
	size int
	rows [][]float64
}

func (p *pastFakes) swap(fakes torch.Tensor) torch.Tensor {
	n := fakes.Size(0)
	coins := torch.ToSlice[float32](torch.Rand([]int64{n}))
	places := torch.ToSlice[int64](torch.Randint(0, int64(p.size), []int64{n}))
	out := make([]float64, 0, n*featureWidth)
	for i := range n {
		row := torch.ToSlice[float64](fakes.Select(0, i))
		switch {
		case len(p.rows) < p.size:
			p.rows = append(p.rows, row)
		case coins[i] > 0.5:
			row, p.rows[places[i]] = p.rows[places[i]], row
		}
		out = append(out, row...)
	}
	return torch.FromSlice(out, n, featureWidth)
}
