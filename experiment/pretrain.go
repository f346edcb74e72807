package experiment

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"

	"cyclecap/data/coco"
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
	return &stage{name: "world", dir: "world", inputs: []any{rendered}, keeps: true, do: func(ctx context.Context, dir string) error {
		bar := x.UI.Bar("photos", 0, w.Pretrain+w.Train+w.Val)
		defer bar.Finish()
		return world.Write(ctx, dir, worldConfig(w), func(done, total int) { bar.Set(done, "") })
	}}
}

func worldConfig(w *config.World) world.Config {
	return world.Config{Seed: uint64(w.Seed), Size: w.Size, Pretrain: w.Pretrain, Train: w.Train, Val: w.Val}
}

// pretrained returns the training photos and captions of the small CLIP and GPT-2, and the
// folder of the photos.
func (x *Experiment) pretrained(worldStage *stage) (*coco.Dataset, string, error) {
	dir := filepath.Join(x.folder(worldStage), "pretrain")
	d, err := coco.Read(filepath.Join(dir, "captions_pretrain.json"))
	return d, dir, err
}

// clip returns the CLIP in clip.weights, or one with a stage that trains it.
func (x *Experiment) clip(worldStage *stage) (*model, error) {
	if p := x.Config.CLIP.Weights; p != "" {
		m, err := x.given(p)
		if err != nil {
			return nil, err
		}
		m.config = x.Config.CLIP.Config
		described, err := describedBy(m.path, m.config)
		m.id += described
		return m, err
	}
	s := &stage{name: "clip", dir: "clip", keeps: true, inputs: []any{worldStage.key(), x.Config.Train.CLIP, x.Config.Seed}}
	s.do = func(ctx context.Context, dir string) error {
		return scope(x.Config.Seed, func() error { return x.trainCLIP(ctx, dir, s.key(), worldStage) })
	}
	return &model{stage: s, path: filepath.Join(x.folder(s), "clip.safetensors"), id: s.key()}, nil
}

func (x *Experiment) trainCLIP(ctx context.Context, dir, key string, worldStage *stage) error {
	c := x.Config.Train.CLIP
	d, images, err := x.pretrained(worldStage)
	if err != nil {
		return err
	}
	m := x.newCLIP()
	defer closing(m)
	data, err := x.clipData(ctx, d, images, c.Image)
	if err != nil {
		return err
	}
	t, err := train.NewCLIPTask(train.CLIPConfig{Epochs: c.Epochs, Batch: c.Batch, LR: c.LR,
		WeightDecay: c.WeightDecay, WarmupSteps: c.WarmupSteps, BF16: c.Dtype == "bf16", Seed: uint64(x.Config.Seed), Device: x.device}, m, data)
	if err != nil {
		return err
	}
	defer t.Close()
	l := x.loop("clip", dir, key, t.Steps(), c.CheckpointEvery)
	if err := x.UI.Atomic(func() error { return l.Run(ctx, t) }); err != nil {
		return err
	}
	return weights.Save(ctx, filepath.Join(dir, "clip.safetensors"), nn.StateDictOf(m), map[string]string{weights.CLIPConfig: m.Config.Metadata()})
}

// describedBy identifies the configuration of CLIP weights: the given one, or the file
// beside a weights file. Those inside a folder belong to the folder's own hash.
func describedBy(path, config string) (id string, err error) {
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
		hash, err := hashOf(name)
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
func (x *Experiment) newCLIP() *clip.Model {
	c := x.Config.Train.CLIP
	m := clip.New(clip.Config{
		EmbedDim: int64(c.EmbedDim), ImageSize: int64(c.Image), PatchSize: int64(c.Patch),
		VisionWidth: int64(c.Width), VisionDepth: int64(c.Layers),
		Context: clipContext, Vocab: int64(tokenizer.CLIP().VocabSize()),
		TextWidth: int64(c.TextWidth), TextHeads: int64(c.TextWidth / headWidth), TextDepth: int64(c.TextLayers),
	})
	nn.To(m, torch.WithDevice(x.device))
	return m
}

// newGPT2 returns a new GPT-2 of the configured size on the device.
func (x *Experiment) newGPT2() *gpt2.Model {
	c := x.Config.Train.GPT2
	m := gpt2.New(gpt2.Config{VocabSize: int64(c.Vocab), NPositions: int64(c.Positions), NEmbd: int64(c.Width),
		NLayer: int64(c.Layers), NHead: int64(c.Width / headWidth), LayerNormEpsilon: 1e-5})
	nn.To(m, torch.WithDevice(x.device))
	return m
}

// clipData reads photos, preprocessed for CLIP but not normalized, and captions.
func (x *Experiment) clipData(ctx context.Context, d *coco.Dataset, images string, size int) (train.CLIPData, error) {
	of := photo.CLIP(size)
	data := train.CLIPData{Captions: &train.Texts{}, Mean: of.Mean, Std: of.Std}
	row := map[coco.ID]int{}
	var paths []string
	for _, m := range d.Images {
		row[m.ID] = len(paths)
		paths = append(paths, filepath.Join(images, m.FileName))
	}
	data.Of = make([][]int32, len(paths))
	for _, a := range d.Annotations {
		ids, err := tokenizer.CLIP().Context(a.Caption, clipContext, true)
		if err != nil {
			return data, err
		}
		i := row[a.ImageID]
		data.Of[i] = append(data.Of[i], int32(data.Captions.Len()))
		data.Captions.Add(ids)
	}
	// Pixels are stored as bytes, which takes a quarter of the memory of f32.
	plain := photo.Preprocess{Size: size, Std: [3]float32{1. / 255, 1. / 255, 1. / 255}}
	bar := x.UI.Bar("photos", 0, len(paths))
	defer bar.Finish()
	data.Pixels = make([]uint8, 0, len(paths)*3*size*size)
	for b, err := range photo.Load(ctx, paths, plain, photo.Workers(), 64) {
		if err != nil {
			return data, err
		}
		if len(b.Failed) > 0 {
			return data, b.Failed[0].Err
		}
		for _, v := range b.Pixels {
			data.Pixels = append(data.Pixels, uint8(v+0.5))
		}
		bar.Set(len(data.Pixels)/(3*size*size), "")
	}
	return data, nil
}

// gpt2 returns the GPT-2 in gpt2.weights, or one with a stage that trains it.
func (x *Experiment) gpt2(worldStage *stage) (*model, error) {
	if p := x.Config.GPT2.Weights; p != "" {
		m, err := x.given(p)
		if err != nil {
			return nil, err
		}
		// Training with it comes hours later.
		if err := pipeline.CheckGPT2(m.path); err != nil {
			return nil, fmt.Errorf("gpt2.weights: %w", err)
		}
		// The hash of a folder covers all its files; that of a file, only itself.
		if info, err := os.Stat(m.path); err == nil && !info.IsDir() {
			for _, name := range pipeline.GPT2Files {
				beside, err := hashOf(filepath.Join(filepath.Dir(m.path), name))
				if err == nil {
					m.id += " " + beside
				} else if !errors.Is(err, fs.ErrNotExist) {
					return nil, err
				}
			}
		}
		return m, nil
	}
	s := &stage{name: "gpt2", dir: "gpt2", keeps: true, inputs: []any{worldStage.key(), x.Config.Train.GPT2, x.Config.Seed}}
	s.do = func(ctx context.Context, dir string) error {
		return scope(x.Config.Seed, func() error { return x.trainGPT2(ctx, dir, s.key(), worldStage) })
	}
	return &model{stage: s, path: filepath.Join(x.folder(s), "gpt2.safetensors"), id: s.key()}, nil
}

func (x *Experiment) trainGPT2(ctx context.Context, dir, key string, worldStage *stage) error {
	c := x.Config.Train.GPT2
	d, _, err := x.pretrained(worldStage)
	if err != nil {
		return err
	}
	tok, err := tokenizer.GPT2First(c.Vocab)
	if err != nil {
		return err
	}
	m := x.newGPT2()
	defer closing(m)
	t, err := train.NewGPT2Task(train.GPT2Config{Epochs: c.Epochs, Batch: c.Batch, Window: c.Positions - 1, LR: c.LR,
		WarmupSteps: c.WarmupSteps, BF16: c.Dtype == "bf16", Seed: uint64(x.Config.Seed), Device: x.device}, m, runningText(d, tok, x.Config.Seed))
	if err != nil {
		return err
	}
	defer t.Close()
	l := x.loop("gpt2", dir, key, t.Steps(), c.CheckpointEvery)
	if err := x.UI.Atomic(func() error { return l.Run(ctx, t) }); err != nil {
		return err
	}
	// The file is read without a folder around it: its metadata are its config.json.
	meta := (&pipeline.GPT2{Model: m, Tokenizer: tok}).Meta()
	return weights.Save(ctx, filepath.Join(dir, "gpt2.safetensors"), nn.StateDictOf(m), meta)
}

// runningText joins captions into one text. The captions of a photo follow each other, so
// that the language model learns to use the context before the current sentence, as one
// trained on web text does.
func runningText(d *coco.Dataset, tok *tokenizer.GPT2Tokenizer, seed int) []int32 {
	rng := rand.New(rand.NewPCG(uint64(seed), 0))
	captions := d.Captions()
	var text []int32
	for _, i := range rng.Perm(len(d.Images)) {
		of := captions[d.Images[i].ID]
		for _, k := range rng.Perm(len(of)) {
			for _, id := range tok.Encode(of[k] + "\n") {
				text = append(text, int32(id))
			}
		}
	}
	return text
}
