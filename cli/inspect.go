package cli

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"cyclecap/weights"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/urfave/cli/v2"
)

func inspectCommand() *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "list the contents of a weights file, without running any code in it",
		UsageText: "[--json] FILE",
		Flags:     []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print one JSON object", DisableDefaultText: true}},
		Description: `FILE is a PyTorch file (.pt or .bin, in the zip or the legacy format), a
TorchScript archive, a safetensors file, an index of shards, or a transformers
folder.

EXAMPLES:
   cyclecap inspect ViT-B-32.pt
   cyclecap inspect --json gpt2/model.safetensors | jq '.tensors[].name'`,
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usagef("inspect takes one FILE, got %d", c.NArg())
			}
			f, err := weights.Open(c.Args().First())
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return inspectJSON(c, f)
			}
			inspectTable(c, f)
			return nil
		},
	}
}

func inspectJSON(c *cli.Context, f *weights.File) error {
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
	})
}

func inspectTable(c *cli.Context, f *weights.File) {
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
