package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"cyclecap/internal/atomicfile"
	"cyclecap/internal/verify"
	"cyclecap/pipeline"
	"cyclecap/torch"
	"cyclecap/torch/cuda"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/urfave/cli/v2"
)

func verifyCommand() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "compare with what Python computed with your weights, photos and texts",
		UsageText: "[--clip F] [--decoder F] [--gpt2 F] [--generator F] [options] REFERENCE.safetensors",
		Flags: append([]cli.Flag{
			clipFlag(),
			clipConfigFlag(),
			&cli.PathFlag{Name: "decoder", Usage: "load a decoder of ClipCap, CapDec or DeCap from `FILE`"},
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
unless you set them. With --dtype int8, outputs may differ by 7 % of the largest,
twice what random models of the real sizes do. The exit code is 1 if a comparison
fails.

EXAMPLES:
   python record_reference.py reference.safetensors --clip-package openai \
       --clip ViT-B-32.pt --decoder coco_weights.pt --gpt2 gpt2/ --photos photos/
   cyclecap verify reference.safetensors --clip ViT-B-32.pt --decoder coco_weights.pt \
       --gpt2 gpt2/ --photos photos/
   cyclecap verify --bisect --html report.html reference.safetensors --clip ViT-B-32.pt
   cyclecap verify --dtype int8 reference.safetensors --clip ViT-B-32.pt`,
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
	said, err := v.Files(verify.Files{CLIP: c.Path("clip"), CLIPConfig: c.Path("clip-config"), Decoder: c.Path("decoder"), GPT2: c.Path("gpt2"), Generator: c.Path("generator")}, o)
	notes(c, said)
	if missing := (*pipeline.MissingGPT2Error)(nil); errors.As(err, &missing) {
		return usagef("--gpt2 is required: %s contains only a mapper, without its GPT-2", missing.Path)
	} else if err != nil {
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
