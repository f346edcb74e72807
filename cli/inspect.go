package cli

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"cyclecap/pipeline"
	"cyclecap/weights"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/urfave/cli/v2"
)

func inspectCommand() *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "list the contents of a weights file, without running any code in it",
		UsageText: "[--json] FILE|FOLDER|NAME",
		Flags:     []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print one JSON object", DisableDefaultText: true}},
		Description: `FILE is a PyTorch file (.pt or .bin, in the zip or the legacy format), a
TorchScript archive, a safetensors file, or an index of shards; FOLDER is one of
transformers or open_clip; NAME is that of a model on the Hugging Face Hub, which
is looked up in its cache on this machine (nothing is downloaded).

Below the tensors, inspect prints which model was recognized and its settings,
each with the place where it comes from: the weights, the metadata of the file, a
file beside the weights, or an assumption.

EXAMPLES:
   cyclecap inspect ViT-B-32.pt
   cyclecap inspect openai/clip-vit-base-patch32
   cyclecap inspect --json gpt2/model.safetensors | jq '.tensors[].name'`,
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usagef("inspect takes one FILE, got %d", c.NArg())
			}
			f, err := weights.Open(c.Args().First())
			if err != nil {
				return err
			}
			// A model that cannot be loaded is listed all the same.
			settings, assumed, err := pipeline.Settings(f)
			if err != nil {
				note(c, "the settings are not known: %s", oneLine(err.Error()))
			}
			notes(c, assumed)
			if c.Bool("json") {
				return inspectJSON(c, f, settings, append(slices.Clone(f.Notes), assumed...))
			}
			notes(c, f.Notes)
			inspectTable(c, f, settings)
			return nil
		},
	}
}

func inspectJSON(c *cli.Context, f *weights.File, settings []pipeline.Setting, notes []string) error {
	type entry struct {
		Name  string  `json:"name"`
		DType string  `json:"dtype"`
		Shape []int64 `json:"shape"`
		Bytes int64   `json:"bytes"`
	}
	list := []entry{}
	var total int64
	for _, e := range f.Entries {
		bytes := e.Numel() * e.DType.Size()
		total += bytes
		list = append(list, entry{e.Name, e.DType.String(), e.Shape, bytes})
	}
	enc := json.NewEncoder(c.App.Writer)
	enc.SetIndent("", " ")
	return enc.Encode(map[string]any{
		"file": f.Path, "format": f.Format, "scheme": weights.Detect(f), "description": weights.Describe(f),
		"root": f.Root, "ignored": append([]string{}, f.Ignored...), "metadata": f.Meta, "bytes": total, "tensors": list,
		"prefix": f.Prefix, "settings": append([]pipeline.Setting{}, settings...), "beside": pipeline.Beside(f), "notes": append([]string{}, notes...),
	})
}

func inspectTable(c *cli.Context, f *weights.File, settings []pipeline.Setting) {
	w := table.NewWriter()
	w.SetOutputMirror(c.App.Writer)
	w.SetStyle(table.StyleLight)
	w.Style().Options = table.OptionsNoBordersAndSeparators
	w.AppendHeader(table.Row{"tensor", "dtype", "shape", "size"})
	var total, elements int64
	shared := map[string]bool{}
	for _, e := range f.Entries {
		bytes := e.Numel() * e.DType.Size()
		size := humanBytes(bytes)
		if key := fmt.Sprint(e.Storage, e.Offset); shared[key] {
			size += " (shared)"
		} else {
			shared[key] = true
			total += bytes
			elements += e.Numel()
		}
		w.AppendRow(table.Row{shortened(oneLine(e.Name)), e.DType, strings.ReplaceAll(fmt.Sprint(e.Shape), " ", ", "), size})
	}
	w.Render()
	fmt.Fprintf(c.App.Writer, "\n%s\n%s: %s, %d tensors, %s elements, %s\n", f.Path, f.Format, weights.Describe(f), len(f.Entries), thousands(elements), humanBytes(total))
	if f.Root != "" {
		fmt.Fprintf(c.App.Writer, "read from the key %q of a checkpoint; %d tensors outside it are not weights\n", f.Root, len(f.Ignored))
	}
	if f.Prefix != "" {
		fmt.Fprintf(c.App.Writer, "the prefix %q of all names was removed\n", f.Prefix)
	}
	for _, s := range settings {
		fmt.Fprintf(c.App.Writer, "%s: %s (%s)\n", s.Name, oneLine(s.Value), s.From)
	}
	if beside := pipeline.Beside(f); len(beside) > 0 {
		fmt.Fprintf(c.App.Writer, "beside it: %s\n", strings.Join(beside, ", "))
	}
	for i, k := range slices.Sorted(maps.Keys(f.Meta)) {
		if i == 20 {
			fmt.Fprintf(c.App.Writer, "… and %d more values\n", len(f.Meta)-i)
			break
		}
		fmt.Fprintf(c.App.Writer, "%s = %.100s\n", shortened(oneLine(k)), oneLine(f.Meta[k]))
	}
}

// maxName is the number of characters of a name that the table shows. The table
// pads each of its rows to the longest name.
const maxName = 120

// shortened replaces the middle of a long name.
func shortened(name string) string {
	r := []rune(name)
	if len(r) <= maxName {
		return name
	}
	return string(r[:maxName/2]) + "…" + string(r[len(r)-maxName/2+1:])
}

func humanBytes(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.2f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d B", n)
}

func thousands(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
