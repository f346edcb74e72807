package experiment

import (
	"context"
	"fmt"
	"path/filepath"

	"cyclecap/data/tokenizer"
	"cyclecap/nets/clipcap"
	"cyclecap/nets/cyclegan"
	"cyclecap/nets/gpt2"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/train"
	"cyclecap/train/bridge"
	"cyclecap/weights"
)

// learned is what a training stage leaves.
type learned struct {
	path string // of the weights
	key  string // of the stage
	log  string // folder of metrics.jsonl
}

// decoders trains the decoders that the bridges need, and gives them by what
// they learned from.
func (x *Experiment) decoders(ctx context.Context, seed int, f *featureSets, gpt *model) (map[bridge.Decoder]learned, error) {
	out := map[bridge.Decoder]learned{}
	for _, b := range x.bridges {
		kind := b.Decoder
		if _, done := out[kind]; done {
			continue
		}
		if kind == bridge.OfImages && !x.data.paired() {
			return nil, fmt.Errorf("bridges.use: %s learns from pairs, and these photos and captions have none", b.Name)
		}
		s := x.decoderStage(seed, kind, f, gpt)
		if err := x.run(ctx, s); err != nil {
			return nil, err
		}
		dir := filepath.Join(x.Dir, s.dir)
		out[kind] = learned{path: filepath.Join(dir, "decoder.pt"), key: s.key(), log: dir}
	}
	return out, nil
}

func (x *Experiment) decoderStage(seed int, kind bridge.Decoder, f *featureSets, gpt *model) *stage {
	c := x.Config.Train.Decoder
	s := &stage{
		name: "decoder", dir: filepath.Join(seedDir(seed), "decoder-"+string(kind)), keeps: true, shared: true,
		inputs: []any{f.key, gpt.id, c, kind, seed},
	}
	var noise float64
	if kind == bridge.OfNoisyTexts {
		noise = x.Config.Bridges.CapDecVariance
		s.inputs = append(s.inputs, noise)
	}
	s.do = func(ctx context.Context, dir string) error {
		return scope(seed, func() error {
			m, err := x.newDecoder(gpt, f.width)
			if err != nil {
				return err
			}
			defer closing(m.Mapper, m.GPT2)
			data, held, err := x.decoderData(kind, f, m.GPT2)
			if err != nil {
				return err
			}
			t, err := train.NewDecoderTask(train.DecoderConfig{Epochs: c.Epochs, Batch: c.Batch, LR: c.LR, WarmupSteps: c.WarmupSteps,
				TuneGPT2: !c.FreezeGPT2, BF16: c.Dtype == "bf16", NoiseVariance: noise, Seed: uint64(seed), Device: x.device, Group: x.Group}, m, data, held)
			if err != nil {
				return err
			}
			defer t.Close()
			l := &train.Loop{Dir: dir, Kind: "decoder", Steps: t.Steps(), Every: c.CheckpointEvery, Config: s.key(), Group: x.Group}
			if err := x.train(ctx, l, t); err != nil || x.Group.Rank() != 0 {
				return err
			}
			sd := nn.NewStateDict()
			parts := map[string]any{"clip_project": m.Mapper}
			if !c.FreezeGPT2 {
				parts["gpt.transformer"] = m.GPT2
			}
			for prefix, part := range parts {
				own := nn.StateDictOf(part)
				for _, n := range own.Names() {
					v, _ := own.Get(n)
					sd.Add(prefix+"."+n, v)
				}
			}
			return weights.Save(ctx, filepath.Join(dir, "decoder.pt"), sd)
		})
	}
	return s
}

// mapperHeads is ClipCap's. It is in no file of weights.
const mapperHeads = 8

// newDecoder makes a mapper with initial weights and loads its GPT-2, on the
// device; without a model it makes one of the configured size, for a plan.
func (x *Experiment) newDecoder(gpt *model, width int) (*clipcap.Model, error) {
	var g *gpt2.Model
	if gpt == nil {
		g = x.newGPT2()
	} else {
		sd, err := weights.LoadGPT2(gpt.path)
		if err != nil {
			return nil, err
		}
		if g, err = gpt2.Load(sd); err != nil {
			return nil, fmt.Errorf("%s: %w", gpt.path, err)
		}
	}
	c := x.Config.Train.Decoder
	d := g.Config.NEmbd
	if int64(c.PrefixLength)+2 > g.Config.NPositions {
		return nil, fmt.Errorf("train.decoder.prefix_length: a prefix of %d leaves no room in GPT-2's %d positions", c.PrefixLength, g.Config.NPositions)
	}
	nn.To(g, torch.WithDevice(x.device), torch.WithDType(torch.Float32))
	m := &clipcap.Model{GPT2: g}
	if c.Mapper == "mlp" {
		mapper := clipcap.NewMLPMapper(int64(width), d, int64(c.PrefixLength))
		nn.To(mapper, torch.WithDevice(x.device))
		m.Mapper = mapper
		return m, nil
	}
	mapper := clipcap.NewTransformerMapper(clipcap.TransformerConfig{FeatureWidth: int64(width), Width: d,
		ClipLength: int64(c.ClipLength), PrefixLength: int64(c.PrefixLength), Layers: int64(c.Layers), Heads: mapperHeads})
	nn.To(mapper, torch.WithDevice(x.device))
	m.Mapper = mapper
	return m, nil
}

// decoderData gives what a decoder learns from, and the validation set in the
// same form.
func (x *Experiment) decoderData(kind bridge.Decoder, f *featureSets, g *gpt2.Model) (data, held train.DecoderData, err error) {
	tok, err := tokenizer.GPT2First(int(g.Config.VocabSize))
	if err != nil {
		return data, held, fmt.Errorf("GPT-2: %w", err)
	}
	captions := tokenized(tok, x.data.train.texts)
	data = train.DecoderData{Captions: captions, Features: f.trainTexts}
	if rows := f.textRows; rows != nil {
		data.Captions = captions.Select(rows)
		data.Row = func(c int) int { return int(rows[c]) }
	}
	held = train.DecoderData{Captions: tokenized(tok, x.data.val.texts), Features: f.valTexts}
	if kind == bridge.OfImages {
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

// paired gives captions the features of their photos; captions of photos that
// could not be read are left out.
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

// cyclegan trains the latent CycleGAN; nil where no bridge needs it.
func (x *Experiment) cyclegan(ctx context.Context, seed int, f *featureSets) (*learned, error) {
	needed := false
	for _, b := range x.bridges {
		needed = needed || b.CycleGAN
	}
	if !needed {
		return nil, nil
	}
	c := x.Config.Train.CycleGAN
	s := &stage{name: "cyclegan", dir: filepath.Join(seedDir(seed), "cyclegan"), keeps: true, shared: true,
		inputs: []any{f.key, c, x.Config.Data.Pairing, seed}}
	s.do = func(ctx context.Context, dir string) error {
		return scope(seed, func() error {
			images, texts := f.unpaired()
			t, err := train.NewCycleGANTask(x.cycleGANConfig(f.width), train.CycleGANSchedule{Epochs: c.Epochs, Batch: c.Batch, DecayFrom: c.DecayFrom,
				Standardize: c.Normalize == "standard", Seed: uint64(seed), Device: x.device, Group: x.Group}, images, texts)
			if err != nil {
				return err
			}
			defer t.Close()
			l := &train.Loop{Dir: dir, Kind: "cyclegan", Steps: t.Steps(), Every: c.CheckpointEvery, Config: s.key(), Group: x.Group}
			if err := x.train(ctx, l, t); err != nil || x.Group.Rank() != 0 {
				return err
			}
			toText, toImage := t.Generators()
			if err := weights.Save(ctx, filepath.Join(dir, "text2image.pt"), toImage); err != nil {
				return err
			}
			return weights.Save(ctx, filepath.Join(dir, "image2text.pt"), toText)
		})
	}
	if err := x.run(ctx, s); err != nil {
		return nil, err
	}
	dir := filepath.Join(x.Dir, s.dir)
	return &learned{path: filepath.Join(dir, "image2text.pt"), key: s.key(), log: dir}, nil
}

func (x *Experiment) cycleGANConfig(width int) train.CycleGANConfig {
	c := x.Config.Train.CycleGAN
	return train.CycleGANConfig{Width: int64(width), LR: c.LR, Beta1: c.Beta1, Beta2: c.Beta2, CycleWeight: c.CycleWeight,
		IdentityWeight: c.IdentityWeight, Pool: c.Pool, BCE: c.Adversarial == "bce", FullDisc: !c.DiscHalved}
}

func seedDir(seed int) string { return fmt.Sprintf("seed-%d", seed) }

// loadDecoder loads a trained decoder with its GPT-2.
func (x *Experiment) loadDecoder(path string, gpt *model) (*clipcap.Model, error) {
	mapper, own, err := weights.LoadDecoder(path)
	if err != nil {
		return nil, err
	}
	if own == nil {
		if own, err = weights.LoadGPT2(gpt.path); err != nil {
			return nil, err
		}
	}
	g, err := gpt2.Load(own)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", gpt.path, err)
	}
	m, err := clipcap.LoadMapper(mapper, g.Config.NEmbd)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, part := range []any{g, m} {
		nn.To(part, torch.WithDevice(x.device), torch.WithDType(torch.Float32))
	}
	return &clipcap.Model{Mapper: m, GPT2: g}, nil
}

// loadGenerator loads a trained generator.
func (x *Experiment) loadGenerator(path string) (*cyclegan.Generator, error) {
	sd, err := weights.LoadGenerator(path)
	if err != nil {
		return nil, err
	}
	g, err := cyclegan.LoadGenerator(sd)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	nn.To(g, torch.WithDevice(x.device))
	return g, nil
}
