package config

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"cyclecap/train/bridge"
)

// WorldDir is the folder of the rendered data set.
func (c *Config) WorldDir() string { return filepath.Join(c.Output, "world") }

// resolve fills in the defaults that depend on other keys.
func (l *loader) resolve() {
	c := l.config
	if c.Name == "" {
		c.Name = strings.TrimSuffix(filepath.Base(l.file), ".toml")
	}
	if c.Output == "" {
		c.Output = filepath.Join("work", c.Name)
	}
	if _, given := l.origin["train.cyclegan.decay_from"]; !given {
		c.Train.CycleGAN.DecayFrom = c.Train.CycleGAN.Epochs / 2
	}
	if c.World == nil {
		return
	}
	if _, given := l.origin["world.text_seed"]; !given {
		c.World.TextSeed = c.World.Seed
	}
	d, dir := &c.Data, c.WorldDir()
	fill := func(to *string, path ...string) {
		if *to == "" {
			*to = filepath.Join(append([]string{dir}, path...)...)
		}
	}
	if d.Photos == "" && d.Captions == "" && d.ClipCap == "" {
		fill(&d.TrainAnnotations, "annotations", "captions_train2014.json")
		fill(&d.TrainImages, "train2014")
	}
	fill(&d.ValAnnotations, "annotations", "captions_val2014.json")
	fill(&d.ValImages, "val2014")
}

var (
	nameForm   = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]*$`)
	deviceForm = regexp.MustCompile(`^(cpu|cuda|cuda:[0-9]{1,3})$`)
)

// check reports values that contradict each other. Each rule names its keys, and the
// problem is reported where one of them was set, preferably the first. A rule is skipped
// if one of its keys is already known to have an invalid value.
func (l *loader) check() {
	c := l.config
	d, t := &c.Data, &c.Train
	rule := func(broken bool, names []string, format string, args ...any) {
		if !broken || slices.ContainsFunc(names, func(n string) bool { return l.bad[n] }) {
			return
		}
		// A missing key is reported at the line of its table, if the file has that.
		path := strings.Split(names[0], ".")
		at := Problem{File: l.file, Line: l.lines[joinPath(path[:len(path)-1])], Key: names[0]}
		for _, name := range slices.Backward(names) {
			if o, ok := l.origin[name]; ok {
				at = o
			}
		}
		l.report(at, fmt.Sprintf(format, args...))
	}
	on := func(names ...string) []string { return names }

	rule(!nameForm.MatchString(c.Name), on("name"), "must consist of letters, digits, '.', '_' and '-', and not begin with '.', got %q", c.Name)
	rule(!deviceForm.MatchString(c.Device), on("device"), "must be cpu, cuda or cuda:N, got %q", c.Device)

	// Data. The training set is annotated photos, or plain photos and captions.
	plain := d.Photos != "" || d.Captions != ""
	rule(d.Photos == "" && plain, on("data.captions"), "requires data.photos as well: together they replace the training set")
	rule(d.Captions == "" && plain, on("data.photos"), "requires data.captions as well: together they replace the training set")
	rule(plain && d.TrainAnnotations != "", on("data.train_annotations", "data.photos", "data.captions"),
		"data.photos and data.captions replace the training set: remove either them or this key")
	rule(plain && d.TrainImages != "", on("data.train_images", "data.photos", "data.captions"),
		"data.photos and data.captions replace the training set: remove either them or this key")
	for _, other := range []struct{ name, value string }{{"data.train_annotations", d.TrainAnnotations}, {"data.train_images", d.TrainImages},
		{"data.karpathy", d.Karpathy}, {"data.photos", d.Photos}, {"data.captions", d.Captions}} {
		rule(d.ClipCap != "" && other.value != "", on(other.name, "data.clipcap"), "data.clipcap replaces the training set: remove either it or this key")
	}
	need := func(value, name, what string) {
		rule(value == "", on(name), "missing: set it to %s, or add [world] to render a data set", what)
	}
	if !plain && d.ClipCap == "" {
		need(d.TrainAnnotations, "data.train_annotations", "the COCO captions file of the training set")
		need(d.TrainImages, "data.train_images", "the folder of the training photos")
	}
	need(d.ValAnnotations, "data.val_annotations", "the COCO captions file of the validation set")
	need(d.ValImages, "data.val_images", "the folder of the validation photos")
	used, _ := bridge.Get(c.Bridges.Use) // unknown names were reported before
	for _, b := range used {
		rule(plain && b.Decoder.Images, on("bridges.use", "data.photos", "data.captions"),
			"%s needs paired photos and captions, but those of data.photos and data.captions are not paired", b.Name)
	}
	rule(c.CLIP.Config != "" && c.CLIP.Weights == "", on("clip.config"), "clip.config describes clip.weights, which is missing")
	rule(c.World == nil && c.CLIP.Weights == "", on("clip.weights"),
		"missing: set it to a CLIP weights file or folder, or add [world] to train a small CLIP")
	rule(c.World == nil && c.GPT2.Weights == "", on("gpt2.weights"),
		"missing: set it to a GPT-2 weights file or folder, or add [world] to train a small GPT-2")

	rule(d.Overlap > 0 && d.Pairing != "disjoint", on("data.overlap", "data.pairing"), `requires data.pairing = "disjoint", got %q`, d.Pairing)
	if w := c.World; w != nil && w.Texts > 0 {
		rule(plain || d.ClipCap != "" || d.Karpathy != "" || !c.inWorld(d.TrainAnnotations), on("world.texts", "data.train_annotations", "data.karpathy", "data.photos", "data.captions", "data.clipcap"),
			"replaces the captions of the rendered training set, but [data] names another training set: remove one of them")
		rule(d.Pairing == "disjoint", on("data.pairing", "world.texts"), "with world.texts there are no pairs: remove one of them")
		for _, b := range used {
			rule(b.Decoder.Images, on("bridges.use", "world.texts"), "%s needs paired photos and captions, but with world.texts there are none", b.Name)
		}
	}

	// Sizes of the trained models.
	resnet := t.CLIP.ImageEncoder == "resnet"
	for _, w := range []struct {
		name  string
		width int
	}{{"train.clip.width", t.CLIP.Width}, {"train.clip.text_width", t.CLIP.TextWidth}, {"train.gpt2.width", t.GPT2.Width}} {
		rule(w.width%64 != 0 && !(resnet && w.name == "train.clip.width"), on(w.name), "must be a multiple of 64, the width of an attention head, got %d", w.width)
	}
	rule(resnet && t.CLIP.Width%2 != 0, on("train.clip.width"), "must be even, got %d", t.CLIP.Width)
	rule(resnet && t.CLIP.Image%32 != 0, on("train.clip.image", "train.clip.image_encoder"),
		"must be a multiple of 32, by which a ResNet reduces photos, got %d", t.CLIP.Image)
	rule(!resnet && t.CLIP.Image%t.CLIP.Patch != 0, on("train.clip.patch", "train.clip.image"),
		"train.clip.patch = %d does not divide train.clip.image = %d", t.CLIP.Patch, t.CLIP.Image)
	if c.GPT2.Weights == "" && c.World != nil { // otherwise its sizes are only known once it is loaded
		// The last token is never an input.
		room := t.Decoder.PrefixLength + c.Caption.MaxTokens - 1
		rule(room > t.GPT2.Positions, on("train.gpt2.positions", "train.decoder.prefix_length", "caption.max_tokens"),
			"train.decoder.prefix_length = %d and caption.max_tokens = %d need %d positions, but train.gpt2.positions = %d",
			t.Decoder.PrefixLength, c.Caption.MaxTokens, room, t.GPT2.Positions)
	}
	rule(c.Caption.Decode == "beam-transformers" && c.Caption.Beam < 2, on("caption.beam", "caption.decode"),
		"caption.decode = %q needs at least 2 beams, but caption.beam = %d; with one beam, transformers decodes greedily", c.Caption.Decode, c.Caption.Beam)
	rule(t.CycleGAN.DecayFrom > t.CycleGAN.Epochs, on("train.cyclegan.decay_from", "train.cyclegan.epochs"),
		"train.cyclegan.decay_from = %d is greater than train.cyclegan.epochs = %d", t.CycleGAN.DecayFrom, t.CycleGAN.Epochs)

	// Package experiment checks the sizes of sets that it has to read.
	if w := c.World; w != nil {
		rule(c.CLIP.Weights == "" && t.CLIP.Batch > w.Pretrain, on("train.clip.batch", "world.pretrain"),
			"train.clip.batch = %d is greater than world.pretrain = %d", t.CLIP.Batch, w.Pretrain)
	}
	rule(d.ValLimit > 0 && c.Eval.Examples > d.ValLimit, on("eval.examples", "data.val_limit"),
		"eval.examples = %d is greater than data.val_limit = %d", c.Eval.Examples, d.ValLimit)
}
