package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"cyclecap/data/photo"
	"cyclecap/data/tokenizer"
	"cyclecap/nets/clip"
	"cyclecap/nets/clipcap"
	"cyclecap/nets/cyclegan"
	"cyclecap/nets/gpt2"
	"cyclecap/torch"
	"cyclecap/torch/nn"
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
			&cli.StringFlag{Name: "decode", Value: "greedy", Usage: "`HOW` to choose tokens: greedy, top-p (ClipCap's rule), sample or beam"},
			&cli.IntFlag{Name: "beam", Value: 5, Usage: "beams of --decode beam"},
			&cli.IntFlag{Name: "max-tokens", Value: 67, Usage: "tokens of a caption at most"},
			&cli.Float64Flag{Name: "temperature", Value: 1, Usage: "of --decode sample"},
			&cli.IntFlag{Name: "top-k", Value: 0, Usage: "of --decode sample: keep the `K` best tokens", DefaultText: "all"},
			&cli.Float64Flag{Name: "top-p", Value: 1, Usage: "of --decode sample: keep the best tokens up to this probability"},
			&cli.Uint64Flag{Name: "seed", Value: 0, Usage: "of --decode sample"},
			&cli.IntFlag{Name: "batch", Value: 16, Usage: "photos computed at once; low-order bits depend on it"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a line: file, pipeline, caption, tokens, logprob"},
		}, computeFlags()...),
		Description: `A caption ends at its first full stop, as ClipCap's do. A photo that can't be
read is reported and skipped, and the exit code is 1.

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
	if n := c.Int("batch"); n < 1 || n > 4096 {
		return usagef("--batch %d: 1 to 4096 are possible", n)
	}
	o := clipcap.Options{
		Method: clipcap.Method(c.String("decode")), Beam: c.Int("beam"), MaxTokens: c.Int("max-tokens"), Stop: stopToken,
		Temperature: c.Float64("temperature"), TopK: c.Int("top-k"), TopP: c.Float64("top-p"), Seed: c.Uint64("seed"),
	}
	if err := o.Check(); err != nil {
		return usage{err}
	}
	on, err := computeOf(c)
	if err != nil {
		return err
	}
	return torch.Scope(func() error {
		p, err := loadPipeline(c.Path("clip"), c.Path("decoder"), c.Path("gpt2"), c.Path("generator"), on)
		if err != nil {
			return err
		}
		if limit := int(p.decoder.GPT2.Config.NPositions - p.decoder.Mapper.PrefixLength()); o.MaxTokens > limit {
			return usagef("--max-tokens %d: this GPT-2 has room for %d behind the prefix", o.MaxTokens, limit)
		}
		return p.captions(c, o)
	})
}

// pipeline is what turns photos into captions.
type pipeline struct {
	clip      *clip.Model
	decoder   *clipcap.Model
	generator *cyclegan.Generator // or nil
	on        compute
}

func loadPipeline(clipPath, decoderPath, gptPath, generatorPath string, on compute) (*pipeline, error) {
	p := &pipeline{on: on}
	var err error
	if p.clip, err = loadCLIP(clipPath, on); err != nil {
		return nil, err
	}
	mapper, gpt, err := weights.LoadDecoder(decoderPath)
	if err != nil {
		return nil, err
	}
	if gpt == nil {
		if gptPath == "" {
			return nil, usagef("--gpt2 is needed: %s holds a mapper without its GPT-2", decoderPath)
		}
		if gpt, err = weights.LoadGPT2(gptPath); err != nil {
			return nil, err
		}
	} else if gptPath != "" {
		return nil, usagef("--gpt2 is one too many: %s holds the GPT-2 that its mapper was trained with", decoderPath)
	}
	g, err := gpt2.Load(gpt)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", firstOf(gptPath, decoderPath), err)
	}
	m, err := clipcap.LoadMapper(mapper, g.Config.NEmbd)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", decoderPath, err)
	}
	p.decoder = &clipcap.Model{Mapper: m, GPT2: g}
	on.convert(g, m)
	if want, got := m.FeatureWidth(), p.clip.Config.EmbedDim; want != got {
		return nil, fmt.Errorf("%s takes features of width %d, but %s gives %d: they do not belong together", decoderPath, want, clipPath, got)
	}
	if generatorPath != "" {
		sd, err := weights.LoadGenerator(generatorPath)
		if err != nil {
			return nil, err
		}
		if p.generator, err = cyclegan.LoadGenerator(sd); err != nil {
			return nil, fmt.Errorf("%s: %w", generatorPath, err)
		}
		on.convert(p.generator)
		if want, got := p.generator.Width(), p.clip.Config.EmbedDim; want != got {
			return nil, fmt.Errorf("%s takes features of width %d, but %s gives %d: they do not belong together", generatorPath, want, clipPath, got)
		}
	}
	return p, nil
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func loadCLIP(path string, on compute) (*clip.Model, error) {
	sd, quick, err := weights.LoadCLIP(path)
	if err != nil {
		return nil, err
	}
	m, err := clip.Load(sd, !quick)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	on.convert(m)
	return m, nil
}

// convert brings modules to the device and the precision. Archives in half
// precision become f32: the CPU computes in that or in bf16.
func (o compute) convert(modules ...any) {
	for _, m := range modules {
		nn.To(m, o.options()...)
	}
}

type captionLine struct {
	File     string  `json:"file"`
	Pipeline string  `json:"pipeline"`
	Caption  string  `json:"caption"`
	Tokens   []int64 `json:"tokens"`
	LogProb  float64 `json:"logprob"`
}

func (p *pipeline) captions(c *cli.Context, o clipcap.Options) error {
	paths := c.Args().Slice()
	size := int(p.clip.Config.ImageSize)
	bar := newProgress(c.App.ErrWriter, "captions", len(paths))
	defer bar.finish()
	failed := 0
	for b, err := range photo.Load(c.Context, paths, photo.CLIP(size), decoders(), c.Int("batch")) {
		if err != nil {
			return err
		}
		failed += reportFailed(bar, b)
		var lines []captionLine
		if n := len(b.Index); n > 0 {
			err := torch.Scope(func() (err error) {
				torch.InferenceMode(func() { lines, err = p.batch(b, paths, size, o) })
				return err
			})
			if err != nil {
				return err
			}
		}
		if bar.bar != nil {
			bar.bar.Clear()
		}
		for _, l := range lines {
			if err := l.print(c); err != nil {
				return err
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

// decoders is how many photos are decoded at once, beside the computation.
func decoders() int { return max(1, runtime.NumCPU()/2) }

// reportFailed names the photos of a batch that could not be read.
func reportFailed(bar *progress, b *photo.Batch) int {
	for _, f := range b.Failed {
		bar.line("cyclecap: %v", strings.TrimPrefix(f.Error(), "photo: "))
	}
	return len(b.Failed)
}

// batch captions the photos of a batch, photo by photo in their order, each by
// all pipelines.
func (p *pipeline) batch(b *photo.Batch, paths []string, size int, o clipcap.Options) ([]captionLine, error) {
	n := len(b.Index)
	pixels := torch.FromSlice(b.Pixels, int64(n), 3, int64(size), int64(size)).To(p.on.options()...)
	features := p.clip.EncodeImage(pixels)
	names := []string{"direct"}
	all := [][][]clipcap.Caption{p.decoder.Generate(features, o)}
	if p.generator != nil {
		names = append(names, "textualised")
		all = append(all, p.decoder.Generate(p.generator.Forward(features), o))
	}
	var lines []captionLine
	for i, index := range b.Index {
		for k, name := range names {
			best := all[k][i][0]
			ids := make([]int, len(best.Tokens))
			for j, id := range best.Tokens {
				ids[j] = int(id)
			}
			text, err := tokenizer.GPT2().Decode(ids)
			if err != nil {
				return nil, errors.Join(errors.New("this GPT-2 has tokens that the vocabulary lacks"), err)
			}
			lines = append(lines, captionLine{paths[index], name, strings.TrimSpace(text), best.Tokens, best.LogProb})
		}
	}
	return lines, nil
}

func (l captionLine) print(c *cli.Context) error {
	if c.Bool("json") {
		e := json.NewEncoder(c.App.Writer)
		e.SetEscapeHTML(false)
		return e.Encode(l)
	}
	var err error
	if c.Path("generator") == "" {
		_, err = fmt.Fprintf(c.App.Writer, "%s: %s\n", l.File, l.Caption)
	} else {
		_, err = fmt.Fprintf(c.App.Writer, "%s (%s): %s\n", l.File, l.Pipeline, l.Caption)
	}
	return err
}
