package experiment

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"

	"cyclecap/data/features"
	"cyclecap/data/tokenizer"
	"cyclecap/internal/processor"
	"cyclecap/nets/clipcap"
	"cyclecap/pipeline"
	"cyclecap/torch"
	"cyclecap/torch/cuda"
	"cyclecap/torch/nn"
	"cyclecap/train"
	"cyclecap/train/bridge"
	"cyclecap/weights"
)

// learned is the result of a training stage.
type learned struct {
	path   string // path of the weights
	result string // stage.result
	log    string // folder of metrics.jsonl
}

// decoders trains the decoders that the bridges need.
func (x *Experiment) decoders(ctx context.Context, seed int, f *featureSets, gpt *model) (map[bridge.Decoder]learned, error) {
	out := map[bridge.Decoder]learned{}
	for _, b := range x.bridges {
		kind := b.Decoder
		if _, done := out[kind]; done {
			continue
		}
		s := x.decoderStage(seed, kind, f, gpt)
		if err := x.run(ctx, s); err != nil && !errors.Is(err, errUnfinished) {
			return nil, err
		}
		dir := x.folder(s)
		out[kind] = learned{path: filepath.Join(dir, "decoder.pt"), result: s.result, log: dir}
	}
	return out, nil
}

func (x *Experiment) decoderStage(seed int, kind bridge.Decoder, f *featureSets, gpt *model) *stage {
	s := &stage{
		name: "decoder", dir: filepath.Join(seedDir(seed), "decoder-"+kind.Name), keeps: true, shared: true,
		settings: []any{x.numbers().Train.Decoder, kind, seed}, products: []string{"decoder.pt"},
		inputs: append(x.captionInputs(kind, f), gpt.id),
	}
	var noise *train.Noise
	if kind.Noise != "" {
		noise = &train.Noise{Variance: x.Config.Bridges.Settings[kind.Noise]}
		s.settings = append(s.settings, noise.Variance)
	}
	s.do = func(ctx context.Context, dir string) error {
		return scope(seed, func() error { return x.trainDecoder(ctx, dir, s, seed, kind, noise, f, gpt) })
	}
	return s
}

// captionInputs are the captions and features that a decoder is trained and validated on.
func (x *Experiment) captionInputs(kind bridge.Decoder, f *featureSets) []string {
	train, val := x.data.train, x.data.val
	inputs := []string{features.Hash(train.texts...), features.Hash(val.texts...)}
	if kind.Images {
		return append(inputs, f.results.trainImages, hashOf(train.textImage), f.results.valImages, hashOf(val.textImage))
	}
	return append(inputs, f.results.trainTexts, hashOf(f.textRows), f.results.valTexts)
}

func (x *Experiment) trainDecoder(ctx context.Context, dir string, s *stage, seed int, kind bridge.Decoder, noise *train.Noise, f *featureSets, gpt *model) error {
	c := x.Config.Train.Decoder
	m, language, err := x.newDecoder(gpt, f.width)
	if err != nil {
		return err
	}
	defer closing(m.Mapper, m.GPT2)
	data, held, err := x.decoderData(kind, f, language.Tokenizer)
	if err != nil {
		return err
	}
	if kind.Centered {
		_, texts := f.unpaired()
		if noise.Mean, err = bridge.MeanDirection(texts); err != nil {
			return err
		}
	}
	t, err := train.NewDecoderTask(train.DecoderConfig{Epochs: c.Epochs, Batch: c.Batch, LR: c.LR, WarmupSteps: c.WarmupSteps,
		TuneGPT2: !c.FreezeGPT2, BF16: x.bf16(c.Dtype), Noise: noise, Seed: uint64(seed), Device: x.device, Group: x.Group}, m, data, held)
	if err != nil {
		return err
	}
	defer t.Close()
	l := x.loop("decoder", dir, s, t.Steps(), c.CheckpointEvery)
	if err := x.trainTogether(ctx, l, t); err != nil || x.Group.Rank() != 0 {
		return err
	}
	s.outcome = finalLosses(dir, "loss", "validation")
	if c.FreezeGPT2 {
		language = nil
	}
	scaling := pipeline.Scaling{Normalize: c.NormalizePrefix || noise != nil, MeanRemoved: kind.Centered}
	return pipeline.SaveDecoder(ctx, filepath.Join(dir, "decoder.pt"), m.Mapper, language, scaling)
}

// newDecoder returns a decoder on the device: a mapper with initial weights, and the GPT-2
// loaded from gpt. If gpt is nil, it creates a GPT-2 of the configured size, for a plan,
// without a tokenizer.
func (x *Experiment) newDecoder(gpt *model, width int) (_ *clipcap.Model, language *pipeline.GPT2, err error) {
	if gpt == nil {
		language = &pipeline.GPT2{Model: x.newGPT2()}
	} else if language, err = pipeline.LoadGPT2(gpt.path); err != nil {
		return nil, nil, err
	}
	for _, n := range language.Notes {
		x.UI.Say("note: %s", n)
	}
	g := language.Model
	c := x.Config.Train.Decoder
	d := g.Config.NEmbd
	if err := x.checkPrefix(g.Config.NPositions); err != nil {
		return nil, nil, err
	}
	nn.To(g, torch.WithDevice(x.device), torch.WithDType(torch.Float32))
	m := &clipcap.Model{GPT2: g}
	if c.Mapper == "mlp" {
		mapper := clipcap.NewMLPMapper(int64(width), d, int64(c.PrefixLength))
		nn.To(mapper, torch.WithDevice(x.device))
		m.Mapper = mapper
		return m, language, nil
	}
	mapper := clipcap.NewTransformerMapper(clipcap.TransformerConfig{FeatureWidth: int64(width), Width: d,
		ClipLength: int64(c.ClipLength), PrefixLength: int64(c.PrefixLength), Layers: int64(c.Layers), Heads: clipcap.Heads})
	nn.To(mapper, torch.WithDevice(x.device))
	m.Mapper = mapper
	return m, language, nil
}

// decoderData returns the training data of a decoder, and the validation set in the same
// form.
func (x *Experiment) decoderData(kind bridge.Decoder, f *featureSets, tok *tokenizer.GPT2Tokenizer) (data, held train.DecoderData, err error) {
	captions := tokenized(tok, x.data.train.texts)
	data = train.DecoderData{Captions: captions, Features: f.trainTexts}
	if rows := f.textRows; rows != nil {
		data.Captions = captions.Select(rows)
		data.Row = func(c int) int { return int(rows[c]) }
	}
	held = train.DecoderData{Captions: tokenized(tok, x.data.val.texts), Features: f.valTexts}
	if kind.Images {
		if data, err = paired(captions, f.trainImages, x.data.train.textImage, f.trainImageRow); err != nil {
			return data, held, err
		}
		held, err = paired(held.Captions, f.valImages, x.data.val.textImage, f.valImageRow)
	}
	return data, held, err
}

func tokenized(tok *tokenizer.GPT2Tokenizer, texts []string) *train.Texts {
	t := &train.Texts{}
	for _, s := range texts {
		t.Add(tok.Encode(s))
	}
	return t
}

// paired returns captions with the features of their photos, without the captions of
// unreadable photos.
func paired(captions *train.Texts, images train.Features, imageOf []int64, rowOf map[int64]int) (train.DecoderData, error) {
	var items []int32
	var rows []int
	for i := range captions.Len() {
		if row, ok := rowOf[imageOf[i]]; ok {
			items = append(items, int32(i))
			rows = append(rows, row)
		}
	}
	return train.DecoderData{Captions: captions.Select(items), Features: images, Row: func(c int) int { return rows[c] }}, nil
}

// cyclegan trains the latent CycleGAN. It returns nil if no bridge needs it.
func (x *Experiment) cyclegan(ctx context.Context, seed int, f *featureSets) (*learned, error) {
	needed := false
	for _, b := range x.bridges {
		needed = needed || b.CycleGAN
	}
	if !needed {
		return nil, nil
	}
	s := &stage{name: "cyclegan", dir: filepath.Join(seedDir(seed), "cyclegan"), keeps: true, shared: true,
		settings: []any{x.numbers().Train.CycleGAN, x.Config.Train.Decoder.NormalizePrefix, seed}, products: []string{"image2text.pt", "text2image.pt"},
		inputs: f.unpairedInputs()}
	s.do = func(ctx context.Context, dir string) error {
		return scope(seed, func() error { return x.trainCycleGAN(ctx, dir, s, seed, f) })
	}
	if err := x.run(ctx, s); err != nil && !errors.Is(err, errUnfinished) {
		return nil, err
	}
	dir := x.folder(s)
	return &learned{path: filepath.Join(dir, "image2text.pt"), result: s.result, log: dir}, nil
}

func (x *Experiment) trainCycleGAN(ctx context.Context, dir string, s *stage, seed int, f *featureSets) error {
	c := x.cycleGANConfig(f.width)
	c.Seed, c.Group = uint64(seed), x.Group
	images, texts := f.unpaired()
	t, err := train.NewCycleGANTask(c, images, texts)
	if err != nil {
		return err
	}
	defer t.Close()
	l := x.loop("cyclegan", dir, s, t.Steps(), x.Config.Train.CycleGAN.CheckpointEvery)
	if err := x.trainTogether(ctx, l, t); err != nil || x.Group.Rank() != 0 {
		return err
	}
	s.outcome = finalLosses(dir, "generators", "disc_text", "disc_image")
	toText, toImage := t.Generators()
	if err := weights.Save(ctx, filepath.Join(dir, "text2image.pt"), toImage, nil); err != nil {
		return err
	}
	return weights.Save(ctx, filepath.Join(dir, "image2text.pt"), toText, nil)
}

func (x *Experiment) cycleGANConfig(width int) train.CycleGANConfig {
	c := x.Config.Train.CycleGAN
	return train.CycleGANConfig{Width: int64(width), Layers: c.Layers, LR: c.LR, Beta1: c.Beta1, Beta2: c.Beta2, CycleWeight: c.CycleWeight,
		IdentityWeight: c.IdentityWeight, Pool: c.Pool, BCE: c.Adversarial == "bce", FullDisc: !c.DiscHalved,
		Epochs: c.Epochs, Batch: c.Batch, DecayFrom: c.DecayFrom, Standardize: c.Normalize == "standard", Device: x.device}
}

// trainTogether runs a training in all processes of a group. After it, rank 0 is alone again.
func (x *Experiment) trainTogether(ctx context.Context, l *train.Loop, t train.Task) error {
	l.Group = x.Group
	err := x.UI.Atomic(func() error { return l.Run(ctx, t) })
	if err == nil {
		x.watch.begin()
	}
	return err
}

// bf16 reports whether a training with a dtype of the configuration computes in bf16.
func (x *Experiment) bf16(dtype string) bool {
	if dtype != "auto" {
		return dtype == "bf16"
	}
	if x.device.Type != torch.CUDADevice {
		return processor.HasBF16()
	}
	p, err := cuda.PropertiesOf(x.device)
	major, _, _ := strings.Cut(p.Capability, ".")
	n, _ := strconv.Atoi(major)
	return err == nil && n >= 8 // Ampere
}

func seedDir(seed int) string { return fmt.Sprintf("seed-%d", seed) }

// loop returns the loop of a training, which shows its progress.
func (x *Experiment) loop(kind, dir string, s *stage, steps, every int) *train.Loop {
	l := &train.Loop{Dir: dir, Kind: kind, Steps: steps, Every: every, Config: s.key(), Resume: x.Resume || s.again, Say: x.UI.Say}
	var bar Bar
	smooth := math.NaN()
	l.Begin = func(done int) { bar = x.UI.Bar(x.title(s)+" steps", done, steps) }
	l.Progress = func(done int, losses train.Losses) {
		if v := losses[0].Value; math.IsNaN(smooth) {
			smooth = v
		} else {
			smooth = 0.98*smooth + 0.02*v
		}
		bar.Set(done, fmt.Sprintf("%s %.3f", losses[0].Name, smooth))
	}
	l.End = func() { bar.Finish() }
	return l
}
