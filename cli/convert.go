package cli

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"cyclecap/nets/gpt2"
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
		UsageText: "[--names openai|transformers|clipcap] [--dtype f32|f16|bf16|int8] IN OUT",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "names", Usage: "rename tensors to `SCHEME`: openai (for a CLIP), transformers (for a GPT-2, without the leading \"transformer.\") or clipcap (writes the mapper alone); default: unchanged"},
			&cli.StringFlag{Name: "dtype", Usage: "convert floating-point tensors to `TYPE`: f32, f16 or bf16, or the weights of linear layers to int8; default: unchanged"},
		},
		Description: `IN is any file or folder that inspect reads. The extension of OUT selects the
format: .pt (or .pth, .bin), which torch.load(weights_only=True) reads, or
.safetensors. An existing OUT is replaced only once the new file is complete; if
OUT is a symbolic link, the file that it points to is written.

Tensors that share memory (tied weights, views, expanded tensors) still share it
in a PyTorch file. The safetensors format has no sharing: each tensor is written
in full, unless that would take far more than the memory they share.

--dtype int8 writes the weights of linear layers with 8 bits and a scale for each
output, rounded as --dtype int8 of the other commands rounds them while it loads:
they compute the same with either file. Embeddings, convolutions, norms and
biases stay as they are. OUT must be a .safetensors file, in which the weight is
NAME (I8) and its scales are NAME_scale: NAME is about NAME * NAME_scale.
--dtype f32 converts such a file back, without what rounding has lost.

EXAMPLES:
   cyclecap convert ViT-B-32.pt clip.safetensors
   cyclecap convert --names openai clip-vit-base-patch32/ clip.pt
   cyclecap convert --dtype bf16 gpt2/pytorch_model.bin gpt2-bf16.safetensors
   cyclecap convert --dtype int8 ViT-B-32.pt clip-int8.safetensors`,
		Action: func(c *cli.Context) error {
			if c.NArg() != 2 {
				return usagef("convert takes two arguments, IN and OUT, got %d", c.NArg())
			}
			in, out := c.Args().Get(0), c.Args().Get(1)
			names, dtype := c.String("names"), torch.Float32
			int8 := c.String("dtype") == "int8"
			if !slices.Contains([]string{"", "openai", "transformers", "clipcap"}, names) {
				return usagef("--names %s: must be openai, transformers or clipcap", names)
			}
			if name := c.String("dtype"); name != "" && !int8 {
				var err error
				dtype, err = torch.ParseDType(name)
				if err != nil || (dtype != torch.Float32 && dtype != torch.Float16 && dtype != torch.BFloat16) {
					return usagef("--dtype %s: must be f32, f16, bf16 or int8", name)
				}
			}
			if err := write(func() error { return weights.CheckSave(out) }); err != nil {
				return err
			}
			if int8 && !isSafetensors(out) {
				return usagef("--dtype int8 writes .safetensors files only, not %s", out)
			}
			f, err := weights.Open(in)
			if err != nil {
				return err
			}
			if f.Quantized() > 0 && c.String("dtype") == "" && !isSafetensors(out) {
				return usagef("%s has weights of 8 bits, which are written to .safetensors files only, not %s: --dtype f32 converts them back", in, out)
			}
			sd, meta, assumed, err := loadNamed(f, names)
			if err != nil {
				return err
			}
			defer sd.Close()
			notes(c, f.Notes)
			notes(c, assumed)
			switch {
			case int8:
				if weights.Detect(f) == weights.Unknown {
					return fmt.Errorf("%s: --dtype int8 converts the linear layers of models that are known, and this is none of them; `cyclecap inspect` lists its tensors", in)
				}
				n, err := weights.Quantize(c.Context, sd)
				if err != nil {
					return fmt.Errorf("%s: %w", in, err)
				}
				note(c, "%d weights of linear layers have 8 bits; the other tensors are unchanged", n)
			case c.String("dtype") != "":
				if err := weights.Cast(c.Context, sd, dtype); err != nil {
					return err
				}
			}
			if c.String("dtype") == "" && f.Quantized() > 0 || int8 {
				all := map[string]string{weights.Quantization: "int8"}
				maps.Copy(all, meta)
				meta = all
			}
			if err := write(func() error { return weights.Save(c.Context, out, sd, meta) }); err != nil {
				return err
			}
			fmt.Fprintf(c.App.ErrWriter, "%s: %d tensors\n", filepath.Clean(out), sd.Len())
			return nil
		},
	}
}

// isSafetensors reports whether weights.Save writes path as safetensors.
func isSafetensors(path string) bool { return strings.EqualFold(filepath.Ext(path), ".safetensors") }

// loadNamed loads a file with its tensors named by a scheme, the metadata that the
// converted file must keep, and notes on what the metadata assumes.
func loadNamed(f *weights.File, names string) (sd *nn.StateDict, meta map[string]string, notes []string, err error) {
	switch names {
	case "":
		if meta, err = kept(f); err == nil {
			if weights.Detect(f) == weights.Unknown {
				sd, err = f.Load()
			} else {
				sd, err = f.LoadModel(nil)
			}
		}
		return sd, meta, nil, err
	case "openai":
		sd, meta, err = pipeline.ReadCLIP(f)
		return sd, meta, nil, err
	case "transformers":
		g, err := pipeline.ReadGPT2(f)
		if err != nil {
			return nil, nil, nil, err
		}
		return nn.StateDictOf(g.Model), g.Meta(), g.Notes, nil
	case "clipcap":
		if weights.Detect(f) == weights.DeCapModel {
			return nil, nil, nil, fmt.Errorf("%s: a DeCap model, whose mapper works only with the GPT-2 in the same file; without --names, convert keeps both", f.Path)
		}
		if sd, _, err = weights.LoadDecoder(f); err != nil {
			return nil, nil, nil, err
		}
		if v, ok := f.Meta[weights.NormalizePrefix]; ok {
			meta = map[string]string{weights.NormalizePrefix: v}
		}
		return sd, meta, nil, nil
	}
	panic("unchecked scheme: " + names)
}

// kept returns the part of a file's metadata that says how to compute with its weights.
// For a GPT-2, that is the config.json beside it.
func kept(f *weights.File) (map[string]string, error) {
	meta := map[string]string{}
	for _, key := range []string{weights.CLIPConfig, weights.NormalizePrefix, weights.GPT2Config, weights.GPT2Tokenizer, weights.GPT2Merges} {
		if v, ok := f.Meta[key]; ok {
			meta[key] = v
		}
	}
	if weights.Detect(f) == weights.GPT2 && meta[weights.GPT2Config] == "" {
		data, _, err := f.Beside("config.json")
		if err != nil {
			return nil, err
		}
		if _, err := gpt2.ParseConfig(data); data != nil && err == nil {
			meta[weights.GPT2Config] = string(data)
		}
	}
	return meta, nil
}
