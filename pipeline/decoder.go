package pipeline

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"cyclecap/nets/clip"
	"cyclecap/nets/clipcap"
	"cyclecap/nets/cyclegan"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/weights"
)

// Decoder writes captions from features: a mapper and its GPT-2.
type Decoder struct {
	Path  string
	Model *clipcap.Model
	// Normalize reports whether the decoder expects features of length 1, as with
	// ClipCap's normalize_prefix. Files written by SaveDecoder record it, DeCap's
	// decoders always do, and CapDec's scripts write it beside theirs. Others follow ClipCap's published weights: those with a
	// transformer mapper expect length 1, and those with an MLP do not. The latter is
	// an assumption, which NormalizeNote then states.
	Normalize     bool
	NormalizeNote string
	// MeanRemoved reports whether the decoder was trained on features without their
	// mean (C3's), which the file does not have: see Scaling.
	MeanRemoved bool
	// Stop is the token that ends a caption: GPT-2's "." or, for DeCap's decoders,
	// CLIP's <|endoftext|>. MaxTokens is the limit of the decoder's own code.
	Stop      int64
	MaxTokens int
	// Notes say what else was changed in loading, or assumed because no file says it.
	Notes []string
	// OwnGPT2 reports whether the decoder file contained the GPT-2 that the mapper
	// was trained with.
	OwnGPT2 bool
	GPT2    *GPT2 // whose Model is Model.GPT2, with its tokenizer
	text    func(ids []int) (string, error)
	on      Options
}

// clipCapTokens is the maximum number of tokens in ClipCap's decoding.
const clipCapTokens = 67

// MissingGPT2Error reports a decoder file that contains only a mapper, when no GPT-2
// file was given.
type MissingGPT2Error struct{ Path string }

func (e *MissingGPT2Error) Error() string {
	return fmt.Sprintf("%s contains only a mapper; a GPT-2 file is needed too", e.Path)
}

// LoadDecoder loads a decoder of ClipCap or CapDec, a mapper with or without its GPT-2,
// or one of DeCap. If the file contains only a mapper, gpt2Path is the GPT-2 to load,
// and must not be empty. If the file contains a GPT-2, LoadDecoder does not use the
// weights in gpt2Path; but where no config.json or no tokenizer lies beside the
// decoder, it uses those beside gpt2Path, if that is not empty.
func LoadDecoder(path, gpt2Path string, o Options) (*Decoder, error) {
	return Files{Decoder: path, GPT2: gpt2Path}.loadDecoder(o)
}

func (from Files) loadDecoder(o Options) (*Decoder, error) {
	if err := ready(); err != nil {
		return nil, err
	}
	path, gpt2Path := from.Decoder, from.GPT2
	f, err := from.open(path)
	if err != nil {
		return nil, err
	}
	mapper, gpt, err := weights.LoadDecoder(f)
	if err != nil {
		return nil, err
	}
	d := &Decoder{Path: path, OwnGPT2: gpt != nil, Notes: f.Notes, MaxTokens: clipCapTokens, on: o}
	parts := []*nn.StateDict{mapper}
	if gpt != nil {
		parts = append(parts, gpt)
	}
	converted, err := o.dequantize(path, parts...)
	if err != nil {
		return nil, err
	}
	d.Notes = slices.Concat(d.Notes, converted)
	var other *weights.File
	if gpt != nil && gpt2Path != "" {
		if other, err = from.open(gpt2Path); err != nil {
			return nil, err
		}
	}
	gptFile := path
	switch {
	case weights.Detect(f) == weights.DeCapModel:
		if err = d.decap(f, gpt); err != nil {
			return nil, err
		}
	case gpt != nil:
		if d.GPT2, err = gpt2Inside(gpt, f, other); err != nil {
			return nil, err
		}
	case gpt2Path == "":
		return nil, &MissingGPT2Error{path}
	default:
		gptFile = gpt2Path
		if d.GPT2, err = from.loadGPT2(o); err != nil {
			return nil, err
		}
	}
	d.Notes = append(slices.Clone(d.Notes), d.GPT2.Notes...)
	if d.Stop = d.GPT2.Stop; d.text == nil {
		d.text = d.GPT2.Tokenizer.Decode
	}
	d.Model = &clipcap.Model{GPT2: d.GPT2.Model, Never: d.GPT2.Unnamed}
	d.Model.Mapper, err = clipcap.LoadMapper(mapper, d.Model.GPT2.Config.NEmbd)
	if err != nil && gptFile != path {
		return nil, fmt.Errorf("%s with %s: %w", path, gptFile, err)
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := d.scaling(f); err != nil {
		return nil, err
	}
	return d, o.prepare(d.Model.GPT2, d.Model.Mapper)
}

// scaling decides whether the decoder expects features of length 1.
func (d *Decoder) scaling(f *weights.File) (err error) {
	flag := func(key string, to *bool) {
		if text := f.Meta[key]; text != "" && err == nil {
			if *to, err = strconv.ParseBool(text); err != nil {
				err = fmt.Errorf("%s: metadata %s must be true or false, got %q", d.Path, key, text)
			}
		}
	}
	flag(weights.MeanRemoved, &d.MeanRemoved)
	flag(weights.NormalizePrefix, &d.Normalize)
	if err != nil || f.Meta[weights.NormalizePrefix] != "" {
		return err
	}
	if weights.Detect(f) == weights.DeCapModel {
		d.Normalize = true
		return nil
	}
	if args, err := weights.CapDec(f); err != nil {
		return err
	} else if args != nil {
		return d.capdec(args)
	}
	const unknown = "%s does not say whether it was trained on features of length 1: "
	if _, ok := d.Model.Mapper.(*clipcap.TransformerMapper); ok {
		d.Normalize = true
		d.NormalizeNote = fmt.Sprintf(unknown+"they are normalised, as for ClipCap's transformer mappers", d.Path)
	} else {
		d.NormalizeNote = fmt.Sprintf(unknown+"they are not normalised, as for ClipCap's MLP mappers; CapDec's need it", d.Path)
	}
	return nil
}

// Scaling says how the features were changed that a decoder was trained on.
type Scaling struct {
	Normalize bool // scaled to length 1
	// MeanRemoved says that the mean of the text features was subtracted (C3's). The
	// decoder's input is then an image feature without the mean of the image features.
	MeanRemoved bool
}

// SaveDecoder writes a decoder in ClipCap's format, and records the scaling of its
// features in its metadata for LoadDecoder, and the settings of its GPT-2. If gpt is nil,
// it writes the mapper alone.
func SaveDecoder(ctx context.Context, path string, mapper clipcap.Mapper, gpt *GPT2, s Scaling) error {
	sd := nn.NewStateDict()
	meta := map[string]string{weights.NormalizePrefix: strconv.FormatBool(s.Normalize)}
	if s.MeanRemoved {
		meta[weights.MeanRemoved] = "true"
	}
	add := func(prefix string, module any) {
		own := nn.StateDictOf(module)
		for _, n := range own.Names() {
			t, _ := own.Get(n)
			name := prefix + n
			if n == "lm_head.weight" {
				name = "gpt." + n // beside the transformer, not in it
			}
			sd.Add(name, t)
		}
	}
	add("clip_project.", mapper)
	if gpt != nil {
		add("gpt.transformer.", gpt.Model)
		maps.Copy(meta, gpt.Meta())
	}
	return weights.Save(ctx, path, sd, meta)
}

// FeatureWidth returns the width of the features that the decoder expects.
func (d *Decoder) FeatureWidth() int { return int(d.Model.Mapper.FeatureWidth()) }

// BatchInvariant reports whether a caption has the same bits whatever others are written with
// it: it has with packed weights on a processor with AVX-512.
func (d *Decoder) BatchInvariant() bool { return d.on.batchInvariant() }

// Options returns where and how the decoder computes.
func (d *Decoder) Options() Options { return d.on }

// Close frees the weights.
func (d *Decoder) Close() {
	d.Model.Close()
	nn.Close(d.Model.Mapper)
	nn.Close(d.Model.GPT2)
	torch.ReleaseMemory()
}

// NotFiniteError reports a feature for which the networks computed NaN or infinity.
type NotFiniteError struct {
	Index   int // of the feature, or the id of a Batcher's caption
	LogProb float64
}

func (e *NotFiniteError) Error() string {
	return fmt.Sprintf("the networks computed numbers that are not finite (log-probability %g); the weights may be damaged", e.LogProb)
}

// Caption is a caption with its tokens and their log-probabilities.
type Caption struct {
	Text string
	clipcap.Caption
}

// Generate returns the captions of features [n, width], which must be scaled as in
// training (see Decoder.Normalize): for each feature all beams, best first, or the
// single caption of another method. It must run in a scope, without gradients.
func (d *Decoder) Generate(ctx context.Context, features torch.Tensor, o clipcap.Options) ([][]Caption, error) {
	all, err := d.Model.Generate(ctx, features.To(d.on.to()...), o)
	if err != nil {
		return nil, err
	}
	out := make([][]Caption, len(all))
	for i, list := range all {
		for _, c := range list {
			withText, err := d.caption(i, c)
			if err != nil {
				return nil, err
			}
			out[i] = append(out[i], withText)
		}
	}
	return out, nil
}

// caption adds the text to the caption of feature i.
func (d *Decoder) caption(i int, c clipcap.Caption) (Caption, error) {
	if math.IsNaN(c.LogProb) || math.IsInf(c.LogProb, 0) {
		return Caption{}, &NotFiniteError{Index: i, LogProb: c.LogProb}
	}
	text, err := d.Text(c.Tokens)
	return Caption{text, c}, err
}

// Text returns the text of a caption's tokens, or of the first of them, without white space
// at its ends. U+FFFD stands for a character some of whose tokens are missing.
func (d *Decoder) Text(tokens []int64) (string, error) {
	ids := make([]int, len(tokens))
	for i, id := range tokens {
		ids[i] = int(id)
	}
	text, err := d.text(ids)
	return strings.TrimSpace(text), err
}

// Generator translates image features into text features: the CycleGAN's textualiser.
type Generator struct {
	Path  string
	Model *cyclegan.Generator
	Notes []string // what was assumed or changed in loading
}

// LoadGenerator loads a generator that translates image features into text features.
func LoadGenerator(path string, o Options) (*Generator, error) {
	return Files{Generator: path}.loadGenerator(o)
}

func (from Files) loadGenerator(o Options) (*Generator, error) {
	if err := ready(); err != nil {
		return nil, err
	}
	f, err := from.open(from.Generator)
	if err != nil {
		return nil, err
	}
	sd, err := weights.LoadGenerator(f)
	if err != nil {
		return nil, err
	}
	g := &Generator{Path: from.Generator, Notes: f.Notes}
	converted, err := o.dequantize(g.Path, sd)
	if err != nil {
		return nil, err
	}
	g.Notes = slices.Concat(g.Notes, converted)
	if g.Model, err = cyclegan.LoadGenerator(sd); err != nil {
		return nil, fmt.Errorf("%s: %w", g.Path, err)
	}
	return g, o.prepare(g.Model)
}

// Close frees the weights.
func (g *Generator) Close() { nn.Close(g.Model) }

// scaled returns x scaled as the decoder was trained.
func (d *Decoder) scaled(x torch.Tensor) torch.Tensor {
	if d.Normalize {
		return clip.Normalize(x)
	}
	return x
}
