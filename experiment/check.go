package experiment

import (
	"fmt"
	"slices"

	"cyclecap/data/world"
	"cyclecap/nets/clip"
	"cyclecap/nets/clipcap"
	"cyclecap/pipeline"
	"cyclecap/torch/nn"
)

// sizes are the numbers on which the plan of a run depends.
type sizes struct {
	photos, captions       int // of the training set; both sets for features
	valPhotos, valCaptions int
	width                  int // of a feature
	// Photos and captions that bridges and text decoders may train on, and those that
	// they do, within the limits.
	eligible, eligibleCaptions int
	used, usedCaptions         int
	files                      []photoFile
	sample                     []string
}

// worldTokens is the approximate number of tokens in a caption of a world.
const worldTokens = 18

// sizesKnown reports whether the sizes of the data are known before the world is rendered.
func (x *Experiment) sizesKnown() bool {
	return x.Config.World == nil || x.Config.Data.Photos == "" && x.Config.Data.ClipCap == ""
}

// sizes returns the sizes of the data, and of the features of the CLIP that the
// configuration describes. It reads annotations, but no photos.
func (x *Experiment) sizes() (n sizes, err error) {
	defer func() {
		n.width = x.Config.Train.CLIP.EmbedDim
		n.limit(x.Config.Data.PhotoLimit, x.Config.Data.CaptionLimit)
	}()
	if x.Config.World != nil && x.sizesKnown() {
		return x.worldSizes(), nil
	}
	if x.data == nil {
		if x.data, err = x.loadData(); err != nil {
			return n, err
		}
	}
	d := x.data
	n.photos, n.captions = len(d.train.photos), len(d.train.texts)
	n.valPhotos, n.valCaptions = len(d.val.photos), len(d.val.texts)
	n.files = d.train.photos[:min(len(d.train.photos), 2*planBatch)]
	n.sample = d.train.texts[:min(n.captions, 2*planBatch)]
	n.eligible, n.eligibleCaptions = n.photos, n.captions
	if ofImages, ofTexts := x.halves(); ofImages != nil {
		n.eligible, n.eligibleCaptions = len(ofImages), 0
		for _, id := range d.train.textImage {
			if ofTexts[id] {
				n.eligibleCaptions++
			}
		}
	}
	return n, nil
}

// checkSizes is check, given the name of the last stage to run.
func (x *Experiment) checkSizes(last string) error {
	n, err := x.sizes()
	if err != nil {
		return err
	}
	return x.check(n, last)
}

// check returns an error if a stage up to the one named last could not run on data of
// these sizes. It needs only the configuration, numbers and the models' files, so that
// nothing fails after hours of work that could have failed before.
func (x *Experiment) check(n sizes, last string) error {
	c := x.Config
	runs := func(stage string) bool {
		return last == "" || slices.Index(Stages, stage) <= slices.Index(Stages, last)
	}
	gan, texts := false, false
	for _, b := range x.bridges {
		gan = gan || b.CycleGAN
		texts = texts || !b.Decoder.Images
		if b.Decoder.Images && runs("decoder") && x.data != nil && !x.data.paired() {
			return fmt.Errorf("bridges.use: %s needs paired photos and captions, but those of the training set are not paired", b.Name)
		}
	}
	for _, p := range []struct {
		stage string
		batch int
	}{{"decoder", c.Train.Decoder.Batch}, {"cyclegan", c.Train.CycleGAN.Batch}} {
		if k := x.Group.Size(); p.batch%k != 0 && runs(p.stage) {
			return fmt.Errorf("train.%s.batch: must be divisible by the number of processes, which is %d, got %d", p.stage, k, p.batch)
		}
	}
	if c.GPT2.Weights == "" && runs("gpt2") {
		// The text is not known yet; no caption of a world has twice the usual tokens.
		window := c.Train.GPT2.Positions - 1
		if most := c.World.Pretrain*world.CaptionsEach*2*worldTokens/window - 1; most < c.Train.GPT2.Batch {
			return fmt.Errorf("train.gpt2.batch: must be at most about %d, the number of windows of %d tokens in the captions of world.pretrain = %d photos, got %d",
				max(0, most/2), window, c.World.Pretrain, c.Train.GPT2.Batch)
		}
	}
	for _, p := range []struct {
		key, of   string
		limit, in int
	}{{"data.photo_limit", "photos", c.Data.PhotoLimit, n.eligible}, {"data.caption_limit", "captions", c.Data.CaptionLimit, n.eligibleCaptions}} {
		if p.limit > p.in {
			return fmt.Errorf("%s: must be at most %d, the number of training %s for unpaired training, got %d", p.key, p.in, p.of, p.limit)
		}
	}
	captions := n.captions
	if texts {
		captions = n.usedCaptions
	}
	if k := c.Train.Decoder.Batch; runs("decoder") && k > captions {
		return fmt.Errorf("train.decoder.batch: must be at most %d, the number of training captions, got %d", captions, k)
	}
	gan = gan && runs("cyclegan")
	if k := c.Train.CycleGAN.Batch; gan && k > max(n.used, n.usedCaptions) {
		return fmt.Errorf("train.cyclegan.batch: must be at most %d, the size of the larger of its two sets (%d photos and %d captions), got %d",
			max(n.used, n.usedCaptions), n.used, n.usedCaptions, k)
	}
	if gan && min(n.used, n.usedCaptions) == 0 {
		return fmt.Errorf("data.pairing: the CycleGAN has %d training photos and %d training captions; it needs at least one of each", n.used, n.usedCaptions)
	}
	if !runs("clip") {
		return nil
	}
	return x.checkModels()
}

// checkModels loads the CLIP and the GPT-2 that the configuration names, and returns an
// error if the experiment cannot use them.
func (x *Experiment) checkModels() error {
	c := x.Config
	if c.CLIP.Weights != "" {
		m, err := pipeline.LoadCLIP(c.CLIP.Weights, c.CLIP.Config, clip.Both, pipeline.Options{})
		if err != nil {
			return fmt.Errorf("clip.weights: %w", err)
		}
		width := m.Width()
		err = m.CheckTokenizer()
		m.Close()
		if err != nil {
			return fmt.Errorf("clip.weights: %w", err)
		}
		if x.data != nil && x.data.train.stored != nil {
			if err := x.sameWidth(width); err != nil {
				return err
			}
		}
	}
	if c.GPT2.Weights != "" {
		return scope(0, func() error {
			g, err := pipeline.LoadGPT2(c.GPT2.Weights)
			if err != nil {
				return fmt.Errorf("gpt2.weights: %w", err)
			}
			defer nn.Close(g.Model)
			if err := x.checkPrefix(g.Model.Config.NPositions); err != nil {
				return err
			}
			if d := g.Model.Config.NEmbd; c.Train.Decoder.Mapper != "mlp" && d%clipcap.Heads != 0 {
				return fmt.Errorf("train.decoder.mapper: the transformer has %d heads, which do not divide the width %d of %s; set it to \"mlp\"", clipcap.Heads, d, c.GPT2.Weights)
			}
			m := clipcap.Model{GPT2: g.Model, Never: g.Unnamed}
			if most := m.MaxBeams(clipcap.Method(c.Caption.Decode)); int64(c.Caption.Beam) > most {
				return fmt.Errorf("caption.beam: must be at most %d with GPT-2's vocabulary of %d tokens, got %d", most, g.Model.Config.VocabSize, c.Caption.Beam)
			}
			return nil
		})
	}
	return nil
}

// checkPrefix returns an error if a prefix leaves no room for captions.
func (x *Experiment) checkPrefix(positions int64) error {
	if n := x.Config.Train.Decoder.PrefixLength; int64(n)+2 > positions {
		return fmt.Errorf("train.decoder.prefix_length: a prefix of length %d leaves no room for captions in GPT-2's %d positions", n, positions)
	}
	return nil
}

// sameWidth returns an error if the features of data.clipcap have another width than the
// CLIP's.
func (x *Experiment) sameWidth(width int) error {
	if f := x.data.train.stored; f.Width != width {
		return fmt.Errorf("%s: its features have width %d, but those of the CLIP in clip.weights have width %d; both must come from the same CLIP", f.Path, f.Width, width)
	}
	return nil
}
