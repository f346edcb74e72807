package cli

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"cyclecap/data/photo"
	"cyclecap/data/tokenizer"
	"cyclecap/nets/clip"
	"cyclecap/nets/clipcap"
	"cyclecap/nets/cyclegan"
	"cyclecap/nets/gpt2"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/train"
	"cyclecap/weights"

	"github.com/urfave/cli/v2"
)

func captionCommand() *cli.Command {
	return &cli.Command{
		Name:      "caption",
		Usage:     "write a caption for each photo",
		UsageText: "--clip F --decoder F [--gpt2 F] [--generator F] [options] PHOTO…",
		Flags: append([]cli.Flag{
			&cli.PathFlag{Name: "clip", Usage: "`FILE` of a CLIP: OpenAI's archive, transformers' file or folder"},
			&cli.PathFlag{Name: "decoder", Usage: "`FILE` of a ClipCap decoder: the mapper alone, or with its GPT-2"},
			&cli.PathFlag{Name: "gpt2", Usage: "`FILE` of the GPT-2, where the decoder's file has none"},
			&cli.PathFlag{Name: "generator", Usage: "`FILE` of a CycleGAN generator from image to text features: both pipelines are captioned, direct and textualised"},
			&cli.BoolFlag{Name: "normalize", Usage: "scale features to length 1, for a decoder that was trained so (ClipCap's normalize_prefix)", DisableDefaultText: true},
			&cli.StringFlag{Name: "decode", Value: "greedy", Usage: "`HOW` to choose tokens: greedy, top-p (ClipCap's rule), sample or beam"},
			&cli.IntFlag{Name: "beam", Value: 5, Usage: "`N` beams of --decode beam"},
			&cli.IntFlag{Name: "max-tokens", Value: 67, Usage: "`N` tokens of a caption at most"},
			&cli.Float64Flag{Name: "temperature", Value: 1, Usage: "`T` of --decode sample"},
			&cli.IntFlag{Name: "top-k", Value: 0, Usage: "of --decode sample: keep the `K` best tokens", DefaultText: "all"},
			&cli.Float64Flag{Name: "top-p", Value: 1, Usage: "of --decode sample: keep the best tokens up to probability `P`"},
			&cli.Uint64Flag{Name: "seed", Value: 0, Usage: "`SEED` of --decode sample"},
			&cli.IntFlag{Name: "batch", Value: 16, Usage: "`N` photos computed at once; low-order bits depend on it"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a line: file, pipeline (direct, textualised), caption, tokens, logprob", DisableDefaultText: true},
		}, computeFlags()...),
		Description: `A PHOTO is a JPEG, PNG, WebP, GIF or BMP file, or a folder of them. A caption
ends at its first full stop, as ClipCap's do. A photo that can't be read is
reported and skipped, and the exit code is 1.

EXAMPLES:
   cyclecap caption --clip ViT-B-32.pt --decoder coco_prefix.pt --gpt2 gpt2/ photos/*.jpg
   cyclecap caption --clip clip.pt --decoder decoder.pt --gpt2 gpt2.safetensors \
       --generator image2text.pt --decode beam --json photo.jpg | jq -r .caption`,
		Action: caption,
	}
}

// stopToken is GPT-2's ".", ClipCap's end of a caption.
const stopToken = 13

func caption(c *cli.Context) error {
	if err := need(c, "clip", "decoder"); err != nil {
		return err
	}
	if !c.Args().Present() {
		return usagef("no PHOTO is given; `cyclecap caption --help` explains")
	}
	if err := checkBatch(c); err != nil {
		return err
	}
	o, err := decodeOptions(c)
	if err != nil {
		return err
	}
	on, err := computeOf(c)
	if err != nil {
		return err
	}
	paths, err := photosIn(c.Args().Slice())
	if err != nil {
		return err
	}
	return torch.Scope(func() error {
		p, err := loadPipeline(c, on)
		if err != nil {
			return err
		}
		config := p.decoder.GPT2.Config
		// The last token is not fed back.
		if limit := int(config.NPositions - p.decoder.Mapper.PrefixLength() + 1); o.MaxTokens > limit {
			if c.IsSet("max-tokens") {
				return usagef("--max-tokens %d: this GPT-2 has room for %d behind the prefix", o.MaxTokens, limit)
			}
			o.MaxTokens = limit
		}
		if o.Method == clipcap.Beam && int64(o.Beam) > config.VocabSize {
			return usagef("--beam %d: this GPT-2 has only %d tokens", o.Beam, config.VocabSize)
		}
		return p.captions(c, paths, o)
	})
}

// maxBeams bounds the memory that a slip of the finger can ask for.
const maxBeams = 1000

func decodeOptions(c *cli.Context) (clipcap.Options, error) {
	o := clipcap.Options{
		Method: clipcap.Method(c.String("decode")), Beam: c.Int("beam"), MaxTokens: c.Int("max-tokens"), Stop: stopToken,
		Temperature: c.Float64("temperature"), TopK: c.Int("top-k"), TopP: c.Float64("top-p"), Seed: c.Uint64("seed"),
	}
	switch o.Method {
	case clipcap.Greedy, clipcap.TopP, clipcap.Sample, clipcap.Beam:
	default:
		return o, usagef("--decode %s: greedy, top-p, sample and beam are possible", o.Method)
	}
	switch {
	case o.Beam < 1 || o.Beam > maxBeams:
		return o, usagef("--beam %d: 1 to %d are possible", o.Beam, maxBeams)
	case o.MaxTokens < 1:
		return o, usagef("--max-tokens %d: at least 1 is needed", o.MaxTokens)
	case !(o.Temperature > 0) || math.IsInf(o.Temperature, 0): // NaN too
		return o, usagef("--temperature %g: a number above 0 is needed (--decode greedy is the limit at 0)", o.Temperature)
	case o.TopK < 0:
		return o, usagef("--top-k %d: at least 1 is needed, or 0 for all tokens", o.TopK)
	case !(o.TopP > 0 && o.TopP <= 1):
		return o, usagef("--top-p %g: above 0 and up to 1 are possible", o.TopP)
	}
	of := map[string]clipcap.Method{"beam": clipcap.Beam, "temperature": clipcap.Sample, "top-k": clipcap.Sample, "top-p": clipcap.Sample, "seed": clipcap.Sample}
	for _, name := range slices.Sorted(maps.Keys(of)) {
		if c.IsSet(name) && o.Method != of[name] {
			note(c, "--%s belongs to --decode %s and changes nothing with --decode %s", name, of[name], o.Method)
		}
	}
	return o, nil
}

// pipeline is what turns photos into captions.
type pipeline struct {
	clip      *clip.Model
	decoder   *clipcap.Model
	generator *cyclegan.Generator // or nil
	normalize bool                // what the generator and the decoder are given
	on        compute
}

func loadPipeline(c *cli.Context, on compute) (*pipeline, error) {
	clipPath, decoderPath, gptPath, generatorPath := c.Path("clip"), c.Path("decoder"), c.Path("gpt2"), c.Path("generator")
	p := &pipeline{on: on, normalize: c.Bool("normalize")}
	var err error
	if p.clip, err = loadCLIP(clipPath, on, true); err != nil {
		return nil, err
	}
	mapper, gpt, err := weights.LoadDecoder(decoderPath)
	if err != nil {
		return nil, err
	}
	gptFile := decoderPath
	switch {
	case gpt != nil && gptPath != "":
		if _, err := weights.Open(gptPath); err != nil {
			return nil, err
		}
		note(c, "--gpt2 is not read: %s holds the GPT-2 that its mapper was trained with", decoderPath)
	case gpt == nil && gptPath == "":
		return nil, usagef("--gpt2 is needed: %s holds a mapper without its GPT-2", decoderPath)
	case gpt == nil:
		gptFile = gptPath
		if gpt, err = weights.LoadGPT2(gptPath); err != nil {
			return nil, err
		}
	}
	g, err := gpt2.Load(gpt)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", gptFile, err)
	}
	if have := int64(tokenizer.GPT2().VocabSize()); g.Config.VocabSize > have {
		return nil, fmt.Errorf("%s has %d tokens and GPT-2's vocabulary %d: it was trained with another tokenizer", gptFile, g.Config.VocabSize, have)
	}
	m, err := clipcap.LoadMapper(mapper, g.Config.NEmbd)
	if err != nil && gptFile != decoderPath {
		return nil, fmt.Errorf("%s with %s: %w", decoderPath, gptFile, err)
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w", decoderPath, err)
	}
	p.decoder = &clipcap.Model{Mapper: m, GPT2: g}
	on.convert(g, m)
	if want, got := m.FeatureWidth(), p.clip.Config.EmbedDim; want != got {
		return nil, misfit(decoderPath, want, clipPath, got)
	}
	if generatorPath == "" {
		return p, nil
	}
	sd, err := weights.LoadGenerator(generatorPath)
	if err != nil {
		return nil, err
	}
	if p.generator, err = cyclegan.LoadGenerator(sd); err != nil {
		return nil, fmt.Errorf("%s: %w", generatorPath, err)
	}
	on.convert(p.generator)
	if want, got := p.generator.Width(), p.clip.Config.EmbedDim; want != got {
		return nil, misfit(generatorPath, want, clipPath, got)
	}
	return p, nil
}

func misfit(path string, want int64, clipPath string, got int64) error {
	return fmt.Errorf("%s takes features of width %d, but %s gives %d: they do not belong together", path, want, clipPath, got)
}

// loadCLIP reads a CLIP for photos or for texts; the other encoder is freed.
func loadCLIP(path string, on compute, images bool) (*clip.Model, error) {
	sd, quick, err := weights.LoadCLIP(path)
	if err != nil {
		return nil, err
	}
	m, err := clip.Load(sd, !quick)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if images {
		nn.Close(m.Transformer)
		nn.Close(m.TokenEmbedding)
		m.Transformer, m.TokenEmbedding = nil, nil
	} else {
		nn.Close(m.Visual)
		m.Visual = nil
	}
	torch.ReleaseMemory()
	on.convert(m)
	return m, nil
}

type captionLine struct {
	File     string  `json:"file"`
	Pipeline string  `json:"pipeline"`
	Caption  string  `json:"caption"`
	Tokens   []int64 `json:"tokens"`
	LogProb  float64 `json:"logprob"`
}

func (p *pipeline) captions(c *cli.Context, paths []string, o clipcap.Options) error {
	size := int(p.clip.Config.ImageSize)
	bar := newProgress(c.App.ErrWriter, "photos", len(paths))
	defer bar.finish()
	failed, done, seed := 0, 0, o.Seed
	for b, err := range photo.Load(c.Context, paths, photo.CLIP(size), decoders(), c.Int("batch")) {
		if err != nil {
			return err
		}
		failed += reportFailed(bar, b)
		done += len(b.Index) + len(b.Failed)
		if len(b.Index) > 0 {
			var lines []captionLine
			// Row i of a batch draws with the seed plus i: counted on over the
			// batches, so that a caption doesn't depend on their size.
			o.Seed = seed
			seed += uint64(len(b.Index))
			err := torch.Scope(func() (err error) {
				torch.InferenceMode(func() { lines, err = p.batch(b, paths, size, o, done == len(paths)) })
				return err
			})
			if err != nil {
				return err
			}
			bar.hide()
			for _, l := range lines {
				if err := l.print(c); err != nil {
					return err
				}
			}
		}
		bar.add(len(b.Index) + len(b.Failed))
	}
	if failed > 0 {
		bar.line("cyclecap: %d of %d photos could not be captioned", failed, len(paths))
		return errReported
	}
	return nil
}

// batch captions the photos of a batch, photo by photo in their order, each by
// all pipelines. With the last batch CLIP has done its work: its memory is
// given back before GPT-2's weights are touched.
func (p *pipeline) batch(b *photo.Batch, paths []string, size int, o clipcap.Options, last bool) ([]captionLine, error) {
	n := len(b.Index)
	pixels := torch.FromSlice(b.Pixels, int64(n), 3, int64(size), int64(size)).To(p.on.options()...)
	features := p.scaled(p.clip.EncodeImage(pixels))
	if last {
		nn.Close(p.clip)
		torch.ReleaseMemory()
	}
	names := []string{"direct"}
	all := [][][]clipcap.Caption{p.decoder.Generate(features, o)}
	if p.generator != nil {
		names = append(names, "textualised")
		all = append(all, p.decoder.Generate(p.scaled(p.generator.Forward(features)), o))
	}
	var lines []captionLine
	for i, index := range b.Index {
		for k, name := range names {
			best := all[k][i][0]
			if math.IsNaN(best.LogProb) || math.IsInf(best.LogProb, 0) {
				return nil, fmt.Errorf("%s: the networks gave no finite numbers (log-probability %g): are the weights damaged?", paths[index], best.LogProb)
			}
			ids := make([]int, len(best.Tokens))
			for j, id := range best.Tokens {
				ids[j] = int(id)
			}
			text, err := tokenizer.GPT2().Decode(ids)
			if err != nil {
				return nil, err
			}
			lines = append(lines, captionLine{paths[index], name, strings.TrimSpace(text), best.Tokens, best.LogProb})
		}
	}
	return lines, nil
}

func (p *pipeline) scaled(features torch.Tensor) torch.Tensor {
	if p.normalize {
		return train.Normalize(features)
	}
	return features
}

func (l captionLine) print(c *cli.Context) error {
	if c.Bool("json") {
		e := json.NewEncoder(c.App.Writer)
		e.SetEscapeHTML(false)
		return e.Encode(l)
	}
	file := oneLine(l.File)
	if c.Path("generator") != "" {
		file += " (" + l.Pipeline + ")"
	}
	_, err := fmt.Fprintf(c.App.Writer, "%s: %s\n", file, oneLine(l.Caption))
	return err
}
