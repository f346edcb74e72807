package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"

	"cyclecap/data/coco"
	worldmodels "cyclecap/models/world"
	"cyclecap/nets/clipcap"
	"cyclecap/pipeline"

	"github.com/urfave/cli/v2"
)

func captionCommand() *cli.Command {
	return &cli.Command{
		Name:      "caption",
		Usage:     "write a caption for each photo",
		UsageText: "[--clip F --decoder F [--gpt2 F] [--generator F]] [options] PHOTO…",
		Flags: slices.Concat(modelFlags(), []cli.Flag{
			recursiveFlag(),
			&cli.PathFlag{Name: "output", Aliases: []string{"o"}, Usage: "write the captions to `FILE` when all are done; the same command, run again after an interruption, continues from FILE.partial"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object per line: file, image_id if the file has a name of COCO, pipeline (direct or textualised), caption, tokens, logprob", DisableDefaultText: true},
		}, decodeFlags(), computeFlags()),
		Description: `A PHOTO is a JPEG, PNG, WebP, GIF or BMP file, a folder, tar or Parquet table of such
files, or - for the paths in standard input. A photo that cannot be read is skipped, as
is the rest of a damaged tar; the exit code is then 1. torchrun's processes share them.
DeCap's captions end with a token. In others, a caption ends at its first full stop, as in ClipCap.

Without --clip, --decoder, --gpt2 and --generator, the small models in the program
are used, which know only drawn scenes of cyclecap world.

The two beam searches differ in when they stop: a caption that has ended keeps
its beam in ClipCap's, and makes room for another one in transformers'.

EXAMPLES:
   cyclecap world --sample 6 drawn/ && cyclecap caption drawn/
   cyclecap caption --clip ViT-B-32.pt --decoder coco_prefix.pt --gpt2 gpt2/ photos/*.jpg
   cyclecap caption --clip clip.pt --decoder decoder.pt --gpt2 gpt2.safetensors \
       --generator image2text.pt --decode beam --json photo.jpg | jq -r .caption
   cyclecap caption --clip RN50x4.pt --decoder capdec.pt --decode beam-transformers \
       --early-stopping true --length-penalty 0.8 photo.jpg
   cyclecap caption --clip ViT-B-32.pt --decoder decap/coco_prefix-009.pt photo.jpg`,
		Action: caption,
	}
}

// modelFlags are the options that name the models of a captioner.
func modelFlags() []cli.Flag {
	return []cli.Flag{
		clipFlag(),
		clipConfigFlag(),
		&cli.PathFlag{Name: "decoder", Usage: "load a decoder from `FILE`: one of ClipCap or CapDec, a mapper with or without its GPT-2, or one of DeCap"},
		&cli.PathFlag{Name: "gpt2", Usage: "load GPT-2 from `FILE`, with the config.json and the tokenizer beside it; needed when the decoder file contains only the mapper"},
		&cli.PathFlag{Name: "generator", Usage: "translate image features to text features with the CycleGAN generator in `FILE`; each photo then gets two captions, direct and textualised"},
		&cli.StringFlag{Name: "normalize", Value: "auto", Usage: "scale features to length 1: `WHEN` is yes, no or auto. Files written by cyclecap and CapDec's commandline_args.txt say what they need; for others, auto means no for ClipCap's MLP mappers and yes for its transformer mappers and DeCap"},
	}
}

// decodeFlags are the options of how captions are written.
func decodeFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "decode", Value: "greedy", Usage: "choose tokens by `METHOD`: greedy, top-p (ClipCap's rule), sample, beam (ClipCap's beam search) or beam-transformers (that of transformers' generate)"},
		&cli.IntFlag{Name: "beam", Value: 5, Usage: "with --decode beam or beam-transformers: use `N` beams"},
		&cli.Float64Flag{Name: "length-penalty", Value: 1, Usage: "with --decode beam-transformers: divide the log-probability of a caption by the `P`-th power of its length"},
		&cli.StringFlag{Name: "early-stopping", Value: "false", Usage: "with --decode beam-transformers: when N captions have ended, `STOP` the search (true), or when no better one is likely (false) or possible (never)"},
		&cli.IntFlag{Name: "max-tokens", Usage: "generate at most `N` tokens per caption", DefaultText: "67, or 30 for DeCap"},
		&cli.Float64Flag{Name: "temperature", Value: 1, Usage: "with --decode sample: sample at temperature `T`"},
		&cli.IntFlag{Name: "top-k", Value: 0, Usage: "with --decode sample: keep the `K` most likely tokens", DefaultText: "all"},
		&cli.Float64Flag{Name: "top-p", Value: 1, Usage: "with --decode sample: keep the most likely tokens up to a total probability of `P`"},
		&cli.Uint64Flag{Name: "seed", Value: 0, Usage: "with --decode sample: random `SEED`"},
		&cli.IntFlag{Name: "batch", Value: 16, Usage: "process `N` photos at a time; low-order bits depend on it"},
	}
}

// builtInGap is the picture of the gap of the models in the program.
const builtInGap = "gap.json"

// builtInFiles are the models in the program.
func builtInFiles() pipeline.Files {
	return pipeline.Files{CLIP: "clip.safetensors", Decoder: "decoder.safetensors", GPT2: "gpt2.safetensors", Generator: "generator.safetensors", FS: worldmodels.FS}
}

// builtIn reports whether caption uses the models in the program: no flag names others.
func builtIn(c *cli.Context) bool {
	return !slices.ContainsFunc([]string{"clip", "clip-config", "decoder", "gpt2", "generator"}, c.IsSet)
}

func caption(c *cli.Context) (err error) {
	if !builtIn(c) {
		if err := need(c, "clip", "decoder"); err != nil {
			return err
		}
	}
	if !c.Args().Present() {
		return usagef("no PHOTO given; see `cyclecap caption --help`")
	}
	if err := checkBatch(c); err != nil {
		return err
	}
	if n := c.String("normalize"); n != "auto" && n != "yes" && n != "no" {
		return usagef("--normalize %s: must be auto, yes or no", n)
	}
	o, err := decodeOptions(c)
	if err != nil {
		return err
	}
	on, err := computeOf(c)
	if err != nil {
		return err
	}
	paths, err := photosIn(c, c.Args().Slice())
	if err != nil {
		return err
	}
	g, leave, err := joinCaptions(c, o)
	if err != nil {
		return err
	}
	defer func() { err = leave(err) }()
	p, err := loadCaptioner(c, on)
	if err != nil {
		return err
	}
	defer p.Close()
	o.Stop = p.Decoder.Stop
	room := p.Decoder.Model.Room()
	switch {
	case room < 1:
		return fmt.Errorf("%s: its prefix of length %d leaves no room for captions in GPT-2's %d positions", p.Decoder.Path, p.Decoder.Model.Mapper.PrefixLength(), p.Decoder.Model.GPT2.Config.NPositions)
	case !c.IsSet("max-tokens"):
		o.MaxTokens = min(p.Decoder.MaxTokens, room)
	case o.MaxTokens > room:
		return usagef("--max-tokens %d: this GPT-2 has room for %d tokens after the prefix", o.MaxTokens, room)
	}
	if most := p.Decoder.Model.MaxBeams(o.Method); int64(o.Beam) > most {
		return usagef("--beam %d: must be at most %d with this GPT-2's vocabulary of %d tokens", o.Beam, most, p.Decoder.Model.GPT2.Config.VocabSize)
	}
	if g.Size() > 1 || c.Path("output") != "" {
		return captionParts(c, g, p, paths, o)
	}
	return printCaptions(c, p, paths, o)
}

// maxBeams limits the memory that a mistyped --beam can ask for.
const maxBeams = 1000

// decodeOptions returns the options of the flags; the decoder decides the stop token.
func decodeOptions(c *cli.Context) (clipcap.Options, error) {
	o := clipcap.Options{
		Method: clipcap.Method(c.String("decode")), Beam: c.Int("beam"), MaxTokens: c.Int("max-tokens"),
		LengthPenalty: c.Float64("length-penalty"), EarlyStopping: clipcap.EarlyStopping(c.String("early-stopping")),
		Temperature: c.Float64("temperature"), TopK: c.Int("top-k"), TopP: c.Float64("top-p"), Seed: c.Uint64("seed"),
	}
	if !slices.Contains(clipcap.Methods, o.Method) {
		return o, usagef("--decode %s: must be greedy, top-p, sample, beam or beam-transformers", o.Method)
	}
	switch {
	case o.Beam < 1 || o.Beam > maxBeams:
		return o, usagef("--beam %d: must be between 1 and %d", o.Beam, maxBeams)
	case o.Method == clipcap.BeamTransformers && o.Beam < 2:
		return o, usagef("--beam %d: must be at least 2 with --decode %s; with one beam, transformers decodes greedily (--decode greedy)", o.Beam, o.Method)
	case !(math.Abs(o.LengthPenalty) <= clipcap.MaxLengthPenalty): // NaN too
		return o, usagef("--length-penalty %g: must be between %d and %d", o.LengthPenalty, -clipcap.MaxLengthPenalty, clipcap.MaxLengthPenalty)
	case !slices.Contains([]clipcap.EarlyStopping{clipcap.EarlyStoppingTrue, clipcap.EarlyStoppingFalse, clipcap.EarlyStoppingNever}, o.EarlyStopping):
		return o, usagef("--early-stopping %s: must be true, false or never", o.EarlyStopping)
	case c.IsSet("max-tokens") && o.MaxTokens < 1:
		return o, usagef("--max-tokens %d: must be at least 1", o.MaxTokens)
	case !(o.Temperature > 0) || math.IsInf(o.Temperature, 0): // NaN too
		return o, usagef("--temperature %g: must be a finite number above 0 (--decode greedy is the limit at 0)", o.Temperature)
	case o.TopK < 0:
		return o, usagef("--top-k %d: must be at least 1, or 0 for all tokens", o.TopK)
	case !(o.TopP > 0 && o.TopP <= 1):
		return o, usagef("--top-p %g: must be above 0 and at most 1", o.TopP)
	}
	sample, generate := []clipcap.Method{clipcap.Sample}, []clipcap.Method{clipcap.BeamTransformers}
	of := map[string][]clipcap.Method{"beam": {clipcap.Beam, clipcap.BeamTransformers}, "length-penalty": generate, "early-stopping": generate,
		"temperature": sample, "top-k": sample, "top-p": sample, "seed": sample}
	for _, name := range slices.Sorted(maps.Keys(of)) {
		if c.IsSet(name) && !slices.Contains(of[name], o.Method) {
			note(c, "--%s applies to --decode %s and has no effect with --decode %s", name, of[name][0], o.Method)
		}
	}
	return o, nil
}

// normalize sets whether the features of a decoder are scaled, or says what is assumed.
func normalize(c *cli.Context, d *pipeline.Decoder) {
	switch c.String("normalize") {
	case "yes":
		d.Normalize = true
	case "no":
		d.Normalize = false
	default:
		if d.NormalizeNote != "" {
			note(c, "%s; --normalize %s if it was trained otherwise", d.NormalizeNote, map[bool]string{true: "no", false: "yes"}[d.Normalize])
		}
	}
}

func loadCaptioner(c *cli.Context, on pipeline.Options) (*pipeline.Captioner, error) {
	decoder := c.Path("decoder")
	files := pipeline.Files{CLIP: c.Path("clip"), CLIPConfig: c.Path("clip-config"), Decoder: decoder, GPT2: c.Path("gpt2"), Generator: c.Path("generator")}
	if builtIn(c) {
		files = builtInFiles()
		note(c, "the built-in models know only the drawn scenes of `cyclecap world`; for other photos, give your own with --clip, --decoder, --gpt2 and --generator (see `cyclecap caption --help`)")
	}
	p, err := pipeline.Load(files, on)
	if missing := (*pipeline.MissingGPT2Error)(nil); errors.As(err, &missing) {
		return nil, usagef("--gpt2 is required: %s contains only a mapper, without its GPT-2", decoder)
	} else if err != nil {
		return nil, err
	}
	p.Once = true
	notes(c, p.Notes())
	if p.Decoder.OwnGPT2 && c.Path("gpt2") != "" {
		note(c, "the weights of --gpt2 are not used: %s contains the GPT-2 that its mapper was trained with", decoder)
	}
	normalize(c, p.Decoder)
	return p, nil
}

type captionLine struct {
	File string `json:"file"`
	// ImageID is the id in a file name of COCO, as for eval.
	ImageID  coco.ID `json:"image_id,omitzero"`
	Pipeline string  `json:"pipeline"`
	Caption  string  `json:"caption"`
	Tokens   []int64 `json:"tokens"`
	LogProb  float64 `json:"logprob"`
}

// printCaptions prints the captions of each photo, by every pipeline, as soon as
// they are computed.
func printCaptions(c *cli.Context, p *pipeline.Captioner, paths []string, o clipcap.Options) error {
	photos, count := captionInput(paths, c.Int("batch")).all()
	bar := newProgress(c.App.ErrWriter, "photos", count)
	defer bar.finish()
	var t tally
	for b, err := range p.PhotosFrom(c.Context, photos, c.Int("batch"), o) {
		if err != nil {
			return err
		}
		t.add(bar, len(b.Index), b.Failed)
		bar.hide()
		if err := printBatch(c, c.App.Writer, p, b); err != nil {
			return err
		}
		bar.add(len(b.Index) + len(b.Failed))
	}
	if t.bad() {
		bar.line("cyclecap: %s", t.say("captioned"))
		return errReported
	}
	return nil
}

// printBatch prints the captions of a batch.
func printBatch(c *cli.Context, to io.Writer, p *pipeline.Captioner, b pipeline.Batch) error {
	for k, of := range b.Captions {
		for _, way := range []struct {
			name string
			list []pipeline.Caption
		}{{"direct", of.Direct}, {"textualised", of.Textualised}} {
			if way.list == nil {
				continue
			}
			best := way.list[0]
			file := b.Paths[k]
			id, _ := coco.FileID(file)
			line := captionLine{file, id, way.name, best.Text, best.Tokens, best.LogProb}
			if err := line.print(c, to, p.Generator != nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// print prints the line. named says whether text names the pipeline.
func (l captionLine) print(c *cli.Context, to io.Writer, named bool) error {
	if c.Bool("json") {
		e := json.NewEncoder(to)
		e.SetEscapeHTML(false)
		return e.Encode(l)
	}
	file := oneLine(l.File)
	if named {
		file += " (" + l.Pipeline + ")"
	}
	_, err := fmt.Fprintf(to, "%s: %s\n", file, oneLine(l.Caption))
	return err
}
