package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"cyclecap/nets/clipcap"
	"cyclecap/pipeline"

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
	p, err := loadCaptioner(c, on)
	if err != nil {
		return err
	}
	defer p.Close()
	if room := p.Decoder.Model.Room(); o.MaxTokens > room {
		if c.IsSet("max-tokens") {
			return usagef("--max-tokens %d: this GPT-2 has room for %d behind the prefix", o.MaxTokens, room)
		}
		o.MaxTokens = room
	}
	if vocab := p.Decoder.Model.GPT2.Config.VocabSize; o.Method == clipcap.Beam && int64(o.Beam) > vocab {
		return usagef("--beam %d: this GPT-2 has only %d tokens", o.Beam, vocab)
	}
	return printCaptions(c, p, paths, o)
}

// maxBeams bounds the memory that a slip of the finger can ask for.
const maxBeams = 1000

func decodeOptions(c *cli.Context) (clipcap.Options, error) {
	o := clipcap.Options{
		Method: clipcap.Method(c.String("decode")), Beam: c.Int("beam"), MaxTokens: c.Int("max-tokens"), Stop: clipcap.Stop,
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

func loadCaptioner(c *cli.Context, on pipeline.Options) (*pipeline.Captioner, error) {
	decoder := c.Path("decoder")
	p, err := pipeline.Load(pipeline.Files{CLIP: c.Path("clip"), Decoder: decoder, GPT2: c.Path("gpt2"), Generator: c.Path("generator")}, on)
	if missing := (*pipeline.MissingGPT2Error)(nil); errors.As(err, &missing) {
		return nil, usagef("--gpt2 is needed: %s holds a mapper without its GPT-2", decoder)
	} else if err != nil {
		return nil, err
	}
	p.Once = true
	if p.Decoder.OwnGPT2 && c.Path("gpt2") != "" {
		note(c, "--gpt2 is not read: %s holds the GPT-2 that its mapper was trained with", decoder)
	}
	p.Decoder.Normalize = p.Decoder.Normalize || c.Bool("normalize")
	return p, nil
}

type captionLine struct {
	File     string  `json:"file"`
	Pipeline string  `json:"pipeline"`
	Caption  string  `json:"caption"`
	Tokens   []int64 `json:"tokens"`
	LogProb  float64 `json:"logprob"`
}

// printCaptions prints the captions of photos as they come, each by all pipelines.
func printCaptions(c *cli.Context, p *pipeline.Captioner, paths []string, o clipcap.Options) error {
	bar := newProgress(c.App.ErrWriter, "photos", len(paths))
	defer bar.finish()
	failed := 0
	for b, err := range p.Photos(c.Context, paths, c.Int("batch"), o) {
		if err != nil {
			return err
		}
		failed += reportFailed(bar, b.Failed)
		bar.hide()
		for k, of := range b.Captions {
			for _, way := range []struct {
				name string
				list []pipeline.Caption
			}{{"direct", of.Direct}, {"textualised", of.Textualised}} {
				if way.list == nil {
					continue
				}
				best := way.list[0]
				line := captionLine{paths[b.Index[k]], way.name, best.Text, best.Tokens, best.LogProb}
				if err := line.print(c); err != nil {
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
