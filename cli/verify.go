package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"cyclecap/internal/atomicfile"
	"cyclecap/internal/verify"
	"cyclecap/nets/clip"
	"cyclecap/nets/gpt2"
	"cyclecap/pipeline"
	"cyclecap/torch"
	"cyclecap/torch/cuda"
	"cyclecap/torch/nn"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/urfave/cli/v2"
)

func verifyCommand() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "compare with what Python computed with your weights, photos and texts",
		UsageText: "[--clip F] [--decoder F] [--gpt2 F] [--generator F] [options] REFERENCE.safetensors",
		Flags: append([]cli.Flag{
			&cli.PathFlag{Name: "clip", Usage: "load CLIP from `FILE`: an OpenAI archive, a transformers or open_clip file or folder, or the name of a downloaded model (openai/clip-vit-base-patch32, ViT-B/32)"},
			clipConfigFlag(),
			&cli.PathFlag{Name: "decoder", Usage: "load a ClipCap decoder from `FILE`"},
			&cli.PathFlag{Name: "gpt2", Usage: "load GPT-2 from `FILE`"},
			&cli.PathFlag{Name: "generator", Usage: "load a CycleGAN generator from `FILE`"},
			&cli.PathFlag{Name: "photos", Usage: "find the photos in `FOLDER`, unless REFERENCE contains them", DefaultText: "the current folder"},
			&cli.BoolFlag{Name: "bisect", Usage: "compare the output of every module, and name the first that differs; --json and --html list all", DisableDefaultText: true},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object", DisableDefaultText: true},
			&cli.PathFlag{Name: "html", Usage: "also write the result to `FILE`, a page that needs no other file"},
		}, computeFlags()...),
		Description: `REFERENCE is a file that scripts/record_reference.py has written. Each part is
computed from the recorded inputs, so that a difference shows where it arises; what
you name no weights for is skipped. --dtype and --threads are those of REFERENCE
unless you set them. The exit code is 1 if a comparison fails.

EXAMPLES:
   python record_reference.py reference.safetensors --clip-package openai \
       --clip ViT-B-32.pt --decoder coco_weights.pt --gpt2 gpt2/ --photos photos/
   cyclecap verify reference.safetensors --clip ViT-B-32.pt --decoder coco_weights.pt \
       --gpt2 gpt2/ --photos photos/
   cyclecap verify --bisect --html report.html reference.safetensors --clip ViT-B-32.pt`,
		Action: verifyReference,
	}
}

func verifyReference(c *cli.Context) error {
	if c.NArg() != 1 {
		return usagef("verify takes one REFERENCE, got %d arguments", c.NArg())
	}
	if c.Path("clip")+c.Path("decoder")+c.Path("gpt2")+c.Path("generator") == "" {
		return usagef("give at least one of --clip, --decoder, --gpt2 and --generator")
	}
	o, err := computeOf(c)
	if err != nil {
		return err
	}
	ref, err := verify.Open(c.Args().First())
	if err != nil {
		return err
	}
	defer ref.Close()
	if n := ref.Facts.Threads; !c.IsSet("threads") && n >= 1 && n <= pipeline.MaxThreads() {
		torch.SetNumThreads(n)
	}
	if !c.IsSet("dtype") {
		o.BF16 = ref.Facts.DType == "bf16"
	}
	if o.Device != torch.CPU {
		cuda.AllowTF32(false, false)
	}
	v := verify.New(ref, o)
	defer v.Close()
	v.PhotoDir, v.Bisect = c.Path("photos"), c.Bool("bisect")
	if err := verifyParts(c, v, o); err != nil {
		return err
	}
	report := v.Finish()
	if path := c.Path("html"); path != "" {
		page, err := report.HTML()
		if err != nil {
			return err
		}
		if err := write(func() error { return atomicfile.WriteBytes(path, page) }); err != nil {
			return err
		}
	}
	if c.Bool("json") {
		enc := json.NewEncoder(c.App.Writer)
		enc.SetIndent("", " ")
		if err := enc.Encode(report.JSON()); err != nil {
			return err
		}
	} else {
		verifyTable(c, report)
	}
	if !report.OK() {
		return errReported
	}
	return nil
}

// verifyParts loads the given parts one after the other, and compares them.
func verifyParts(c *cli.Context, v *verify.Verifier, o pipeline.Options) error {
	for _, part := range []string{verify.CLIP, verify.Generator, verify.GPT2, verify.Decoder} {
		if path := c.Path(part); path != "" {
			v.Weights(part, path)
		}
	}
	if path := c.Path("clip"); path != "" {
		if m, err := pipeline.LoadCLIP(path, c.Path("clip-config"), clip.Both, o); err != nil {
			v.Fail(verify.CLIP, err)
		} else {
			notes(c, m.Notes)
			v.CLIP(m)
			m.Close()
		}
	}
	if path := c.Path("generator"); path != "" {
		if g, err := pipeline.LoadGenerator(path, o); err != nil {
			v.Fail(verify.Generator, err)
		} else {
			v.Generator(g, o)
			g.Close()
		}
	}
	switch decoder, gpt := c.Path("decoder"), c.Path("gpt2"); {
	case decoder != "":
		d, err := pipeline.LoadDecoder(decoder, gpt, o)
		if missing := (*pipeline.MissingGPT2Error)(nil); errors.As(err, &missing) {
			return usagef("--gpt2 is required: %s contains only a mapper, without its GPT-2", decoder)
		} else if err != nil {
			v.Fail(verify.Decoder, err)
			return nil
		}
		v.GPT2(d.Model.GPT2, o)
		v.Decoder(d)
		d.Close()
	case gpt != "":
		m, err := loadGPT2(gpt, o)
		if err != nil {
			v.Fail(verify.GPT2, err)
			return nil
		}
		v.GPT2(m, o)
		nn.Close(m)
	}
	return nil
}

// loadGPT2 loads a GPT-2 without a decoder.
func loadGPT2(path string, o pipeline.Options) (*gpt2.Model, error) {
	m, err := pipeline.LoadGPT2(path)
	if err != nil {
		return nil, err
	}
	return m, torch.Scope(func() error {
		nn.To(m, torch.WithDevice(o.Device), torch.WithDType(o.DType()))
		if o.Packed() {
			nn.Pack(m)
		}
		return nil
	})
}

func verifyTable(c *cli.Context, r *verify.Report) {
	w := table.NewWriter()
	w.SetOutputMirror(c.App.Writer)
	w.SetStyle(table.StyleLight)
	w.Style().Options = table.OptionsNoBordersAndSeparators
	w.AppendHeader(table.Row{"part", "what", "shape", "max |difference|", "relative", "equal bits", "first that differs", "verdict"})
	for _, row := range r.Rows {
		w.AppendRow(verifyRow(row.Part, row.What, row))
	}
	for _, net := range r.Nets() {
		if bad, before, ok := r.First(net); ok {
			if before.Name != "" {
				w.AppendRow(verifyRow(net, before.Name, before.Row))
			}
			w.AppendRow(verifyRow(net, bad.Name, bad.Row))
		}
	}
	w.Render()
	fmt.Fprintf(c.App.Writer, "\ntolerance: %s\n", strings.Join(r.Bounds(), "; "))
	for _, line := range r.Environments() {
		fmt.Fprintf(c.App.Writer, "%s\n", oneLine(line))
	}
	for _, line := range r.Diagnosis {
		fmt.Fprintf(c.App.Writer, "diagnosis: %s\n", oneLine(line))
	}
}

func verifyRow(part, what string, row verify.Row) table.Row {
	d := row.Difference
	text := row.Message()
	if text != "" {
		return table.Row{part, what, "", "", "", "", oneLine(text), row.Verdict()}
	}
	first := ""
	if d.First != nil {
		first = oneLine(d.First.String())
	}
	return table.Row{part, what, strings.ReplaceAll(fmt.Sprint(d.Shape), " ", ", "), verify.Number(d.Max), verify.Number(d.Relative()), verify.EqualBits(d), first, row.Verdict()}
}
