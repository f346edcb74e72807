package cli

import (
	"fmt"
	"path/filepath"
	"slices"

	"cyclecap/pipeline"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/weights"

	"github.com/urfave/cli/v2"
)

func convertCommand() *cli.Command {
	return &cli.Command{
		Name:      "convert",
		Usage:     "convert weights to another format, naming scheme or precision",
		UsageText: "[--names openai|transformers|clipcap] [--dtype f32|f16|bf16] IN OUT",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "names", Usage: "rename tensors to `SCHEME`: openai (for a CLIP), transformers (for a GPT-2, without the leading \"transformer.\") or clipcap (writes the mapper alone); default: unchanged"},
			&cli.StringFlag{Name: "dtype", Usage: "convert floating-point tensors to `TYPE`: f32, f16 or bf16; default: unchanged"},
		},
		Description: `IN is any file or folder that inspect reads. The extension of OUT selects the
format: .pt (or .pth, .bin), which torch.load(weights_only=True) reads, or
.safetensors. An existing OUT is replaced only once the new file is complete; if
OUT is a symbolic link, the file that it points to is written.

Tensors that share memory (tied weights, views, expanded tensors) still share it
in a PyTorch file. The safetensors format has no sharing: each tensor is written
in full, unless that would take far more than the memory they share.

EXAMPLES:
   cyclecap convert ViT-B-32.pt clip.safetensors
   cyclecap convert --names openai clip-vit-base-patch32/ clip.pt
   cyclecap convert --dtype bf16 gpt2/pytorch_model.bin gpt2-bf16.safetensors`,
		Action: func(c *cli.Context) error {
			if c.NArg() != 2 {
				return usagef("convert takes two arguments, IN and OUT, got %d", c.NArg())
			}
			in, out := c.Args().Get(0), c.Args().Get(1)
			names, dtype := c.String("names"), torch.Float32
			if !slices.Contains([]string{"", "openai", "transformers", "clipcap"}, names) {
				return usagef("--names %s: must be openai, transformers or clipcap", names)
			}
			if name := c.String("dtype"); name != "" {
				var err error
				dtype, err = torch.ParseDType(name)
				if err != nil || (dtype != torch.Float32 && dtype != torch.Float16 && dtype != torch.BFloat16) {
					return usagef("--dtype %s: must be f32, f16 or bf16", name)
				}
			}
			if err := write(func() error { return weights.CheckSave(out) }); err != nil {
				return err
			}
			f, err := weights.Open(in)
			if err != nil {
				return err
			}
			sd, meta, err := loadNamed(f, in, names)
			if err != nil {
				return err
			}
			defer sd.Close()
			notes(c, f.Notes)
			if c.String("dtype") != "" {
				if err := weights.Cast(c.Context, sd, dtype); err != nil {
					return err
				}
			}
			if err := write(func() error { return weights.Save(c.Context, out, sd, meta) }); err != nil {
				return err
			}
			fmt.Fprintf(c.App.ErrWriter, "%s: %d tensors\n", filepath.Clean(out), sd.Len())
			return nil
		},
	}
}

// loadNamed loads a file with its tensors named by a scheme, and the metadata that
// the converted file must keep.
func loadNamed(f *weights.File, path, names string) (sd *nn.StateDict, meta map[string]string, err error) {
	switch names {
	case "":
		sd, err = f.Load()
		return sd, ofDecoder(f.Meta), err
	case "openai":
		return pipeline.ReadCLIP(path)
	case "transformers":
		sd, err = weights.LoadGPT2(path)
		return sd, nil, err
	case "clipcap":
		sd, _, meta, err = weights.LoadDecoder(path)
		return sd, ofDecoder(meta), err
	}
	panic("unchecked scheme: " + names)
}

// ofDecoder returns the part of a decoder file's metadata that says how to scale
// features.
func ofDecoder(meta map[string]string) map[string]string {
	if v, ok := meta[weights.NormalizePrefix]; ok {
		return map[string]string{weights.NormalizePrefix: v}
	}
	return nil
}
