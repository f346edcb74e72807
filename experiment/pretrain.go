package experiment

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"

	"cyclecap/data/photo"
	"cyclecap/data/tokenizer"
	"cyclecap/data/world"
	"cyclecap/experiment/config"
	"cyclecap/nets/clip"
	"cyclecap/nets/gpt2"
	"cyclecap/pipeline"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/train"
	"cyclecap/weights"
)

// world returns the stage that renders a data set, or nil if the configuration has no
// [world].
func (x *Experiment) world() *stage {
	w := x.Config.World
	if w == nil {
		return nil
	}
	rendered := *w
	rendered.Texts, rendered.TextSeed = 0, 0 // which concern no photos
	rendered.Pretrain = 0                    // drawn in memory while CLIP and GPT-2 are trained
	c := worldConfig(&rendered)
	return &stage{name: "world", dir: "world", settings: []any{world.Version, rendered}, keeps: true, do: func(ctx context.Context, dir string) error {
		bar := x.UI.Bar(path.Join(x.place, "world")+" photos", 0, c.Photos())
		defer bar.Finish()
		// Finished, but without the record that says what the photos must be.
		if _, err := os.Stat(filepath.Join(dir, "world.json")); err == nil {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
		return world.Write(ctx, dir, c, func(done, total int) { bar.Set(done, "") })
	}, outcome: fmt.Sprintf("%d photos", c.Photos())}
}

func worldConfig(w *config.World) world.Config {
	return world.Config{Seed: uint64(w.Seed), Size: w.Size, Pretrain: w.Pretrain, Train: w.Train, Val: w.Val, Tune: w.Tune, Bare: w.Bare}
}

// pretrain is the part of the world that CLIP and GPT-2 are trained on.
func (x *Experiment) pretrain() world.Config {
	c := worldConfig(x.Config.World)
	c.Train, c.Val, c.Tune = 0, 0, 0
	return c
}

// clip returns the CLIP in clip.weights, or one with a stage that trains it.
func (x *Experiment) clip() (*model, error) {
	if p := x.Config.CLIP.Weights; p != "" {
		m, err := x.given(p)
		if err != nil {
			return nil, err
		}
		m.config = x.Config.CLIP.Config
		described, err := x.describedBy(m.path, m.config)
		m.id += described
		return m, err
	}
	s := &stage{name: "clip", dir: "clip", keeps: true, settings: []any{world.Version, x.pretrain(), x.numbers().Train.CLIP, x.Config.Seed}, products: []string{"clip.safetensors"}}
	if p := x.Config.Train.CLIP.Text; p != "" {
		m, err := x.given(p)
		if err != nil {
			return nil, fmt.Errorf("train.clip.text: %w", err)
		}
		s.inputs = []string{m.id}
	}
	s.do = func(ctx context.Context, dir string) error {
		return scope(x.Config.Seed, func() error { return x.trainCLIP(ctx, dir, s) })
	}
	return &model{stage: s}, nil
}

func (x *Experiment) trainCLIP(ctx context.Context, dir string, s *stage) error {
	c := x.Config.Train.CLIP
	m, err := x.newCLIP()
	if err != nil {
		return err
	}
	defer closing(m)
	source, err := newDrawn(x.Config.World, c, int(m.Config.Vocab))
	if err != nil {
		return err
	}
	of := photo.CLIP(c.Image)
	t, err := train.NewCLIPTask(train.CLIPConfig{Epochs: c.Epochs, Batch: c.Batch, LR: c.LR, WeightDecay: c.WeightDecay,
		WarmupSteps: c.WarmupSteps, BF16: x.bf16(c.Dtype), Mean: of.Mean, Std: of.Std, LockText: c.Text != "", Seed: uint64(x.Config.Seed), Device: x.device}, m, source)
	if err != nil {
		return err
	}
	defer t.Close()
	l := x.loop("clip", dir, s, t.Steps(), c.CheckpointEvery)
	if err := x.UI.Atomic(func() error { return l.Run(ctx, t) }); err != nil {
		return err
	}
	s.outcome = finalLosses(dir, "loss", "accuracy")
	return weights.Save(ctx, filepath.Join(dir, "clip.safetensors"), nn.StateDictOf(m), map[string]string{weights.CLIPConfig: m.Config.Metadata()})
}

// describedBy identifies the configuration of CLIP weights: the given one, or the file
// beside a weights file. Those inside a folder belong to the folder's own hash.
func (x *Experiment) describedBy(path, config string) (id string, err error) {
	files := []string{config}
	if config == "" {
		if info, err := os.Stat(path); err != nil || info.IsDir() {
			return "", err
		}
		files = []string{filepath.Join(filepath.Dir(path), "config.json"), filepath.Join(filepath.Dir(path), "open_clip_config.json")}
	}
	for _, name := range files {
		if info, err := os.Stat(name); err != nil || !info.Mode().IsRegular() {
			continue
		}
		hash, err := x.hash(name)
		if err != nil {
			return "", err
		}
		id += " " + hash
	}
	if id == "" && config != "" {
		id = " " + config
	}
	return id, nil
}

// headWidth is the width of an attention head in CLIP and GPT-2.
const headWidth = 64

// clipContext is the context length of the small CLIP. It is enough for the world's
// captions, and OpenAI's 77 would take twice the time.
const clipContext = 32

// newCLIP returns a new CLIP of the configured size on the device.
func (x *Experiment) newCLIP() (*clip.Model, error) {
	c := x.Config.Train.CLIP
	of := clip.Config{
		EmbedDim: int64(c.EmbedDim),
		Context:  clipContext, Vocab: int64(c.Vocab),
		TextWidth: int64(c.TextWidth), TextHeads: int64(c.TextWidth / headWidth), TextDepth: int64(c.TextLayers),
	}
	var text *clip.Model
	if c.Text != "" {
		p, err := pipeline.LoadCLIP(c.Text, "", clip.Text, pipeline.Options{})
		if err != nil {
			return nil, fmt.Errorf("train.clip.text: %w", err)
		}
		defer p.Close()
		var ok bool
		if text, ok = p.Model.(*clip.Model); !ok {
			return nil, fmt.Errorf("train.clip.text: %s has the text encoder of a %s; only that of a CLIP can be used", c.Text, p.Model.Name())
		}
		if err := p.CheckTokenizer(); err != nil {
			return nil, fmt.Errorf("train.clip.text: %w", err)
		}
		of = text.Config
	}
	of.ImageSize, of.VisionWidth = int64(c.Image), int64(c.Width)
	if n := int64(c.Layers); c.ImageEncoder == "resnet" {
		of.ResNet, of.PatchSize, of.VisionDepth = [4]int64{n, n, n, n}, 0, 0
	} else {
		of.ResNet, of.PatchSize, of.VisionDepth = [4]int64{}, int64(c.Patch), n
	}
	m := clip.New(of)
	var err error
	torch.NoGrad(func() {
		m.LogitScale.Fill_(-math.Log(c.Temperature))
		if text != nil {
			err = copyText(m, text)
		}
	})
	if err != nil {
		closing(m)
		return nil, err
	}
	nn.To(m, torch.WithDevice(x.device))
	return m, nil
}

// copyText sets the parameters of the text encoder of m to those of another CLIP.
func copyText(m, from *clip.Model) error {
	own := nn.StateDictOf(m)
	for _, p := range nn.NamedParameters(from) {
		if p.Name == "logit_scale" {
			continue
		}
		t, ok := own.Get(p.Name)
		if !ok {
			return fmt.Errorf("train.clip.text: the new CLIP has no %s", p.Name)
		}
		t.Copy_(*p.Tensor)
	}
	return nil
}

// newGPT2 returns a new GPT-2 of the configured size on the device.
func (x *Experiment) newGPT2() *gpt2.Model {
	c := x.Config.Train.GPT2
	m := gpt2.New(gpt2.Config{VocabSize: int64(x.vocabulary().VocabSize()), NPositions: int64(c.Positions), NEmbd: int64(c.Width),
		NLayer: int64(c.Layers), NHead: int64(c.Width / headWidth), LayerNormEpsilon: 1e-5})
	nn.To(m, torch.WithDevice(x.device))
	return m
}

// gpt2 returns the GPT-2 in gpt2.weights, or one with a stage that trains it.
func (x *Experiment) gpt2() (*model, error) {
	if p := x.Config.GPT2.Weights; p != "" {
		m, err := x.given(p)
		if err != nil {
			return nil, err
		}
		// The hash of a folder covers all its files; that of a file, only itself.
		if info, err := os.Stat(m.path); err == nil && !info.IsDir() {
			for _, name := range pipeline.GPT2Files {
				beside, err := x.hash(filepath.Join(filepath.Dir(m.path), name))
				if err == nil {
					m.id += " " + beside
				} else if !errors.Is(err, fs.ErrNotExist) {
					return nil, err
				}
			}
		}
		return m, nil
	}
	s := &stage{name: "gpt2", dir: "gpt2", keeps: true, settings: []any{world.Version, x.pretrain(), x.numbers().Train.GPT2, x.Config.Seed}, products: []string{"gpt2.safetensors"}}
	s.do = func(ctx context.Context, dir string) error {
		return scope(x.Config.Seed, func() error { return x.trainGPT2(ctx, dir, s) })
	}
	return &model{stage: s}, nil
}

func (x *Experiment) trainGPT2(ctx context.Context, dir string, s *stage) error {
	c := x.Config.Train.GPT2
	tok := x.vocabulary()
	m := x.newGPT2()
	defer closing(m)
	t, err := train.NewGPT2Task(train.GPT2Config{Epochs: c.Epochs, Batch: c.Batch, Window: c.Positions - 1, LR: c.LR,
		WarmupSteps: c.WarmupSteps, BF16: x.bf16(c.Dtype), Seed: uint64(x.Config.Seed), Device: x.device}, m, x.runningText())
	if err != nil {
		return err
	}
	defer t.Close()
	l := x.loop("gpt2", dir, s, t.Steps(), c.CheckpointEvery)
	if err := x.UI.Atomic(func() error { return l.Run(ctx, t) }); err != nil {
		return err
	}
	s.outcome = finalLosses(dir, "loss")
	// The file is read without a folder around it: its metadata are its config.json.
	meta := (&pipeline.GPT2{Model: m, Tokenizer: tok}).Meta()
	return weights.Save(ctx, filepath.Join(dir, "gpt2.safetensors"), nn.StateDictOf(m), meta)
}

// vocabulary returns the tokenizer of the small GPT-2: GPT-2's, with only the tokens in
// the captions that it is trained on. A head over all tokens would be most of its cost,
// and over only the first few, words such as "cat" would not be tokens.
func (x *Experiment) vocabulary() *tokenizer.GPT2Tokenizer {
	if x.words == nil {
		d := worldConfig(x.Config.World).Drawn(world.Pretrain)
		x.words = tokenizer.GPT2For(func(yield func(string) bool) {
			for i := range d.Len() {
				for _, text := range d.Captions(i) {
					if !yield(text + "\n") {
						return
					}
				}
			}
		})
	}
	return x.words
}

// runningText joins captions into one text. The captions of a photo follow each other, so
// that the language model learns to use the context before the current sentence, as one
// trained on web text does. An empty line ends them, so that it knows how far that goes.
func (x *Experiment) runningText() []int32 {
	d, tok := worldConfig(x.Config.World).Drawn(world.Pretrain), x.vocabulary()
	rng := rand.New(rand.NewPCG(uint64(x.Config.Seed), 0))
	var text []int32
	for _, i := range rng.Perm(d.Len()) {
		of := d.Captions(i)
		for _, k := range rng.Perm(len(of)) {
			for _, id := range tok.Encode(of[k] + "\n") {
				text = append(text, int32(id))
			}
		}
		text = append(text, text[len(text)-1]) // the line break once more
	}
	return text
}
