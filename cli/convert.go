package cli

import (
	"fmt"
	"path/filepath"
	"slices"

	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/weights"

	"github.com/urfave/cli/v2"
)

func convertCommand() *cli.Command {
	return &cli.Command{
		Name:      "convert",
		Usage:     "write weights in another format, under other names, or in another precision",
		UsageText: "[--names openai|transformers|clipcap] [--dtype f32|f16|bf16] IN OUT",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "names", Usage: "`SCHEME` of the names: openai (for a CLIP), transformers (for a GPT-2, without the leading \"transformer.\"), or clipcap (the mapper alone); default: as they are"},
			&cli.StringFlag{Name: "dtype", Usage: "`TYPE` of floating-point tensors: f32, f16 or bf16; default: as they are"},
		},
		Description: `IN is anything that inspect reads. The ending of OUT names the format: .pt (also
.pth, .bin) for torch.load(weights_only=True), or .safetensors. OUT is replaced
only once the new file is whole.

EXAMPLES:
   cyclecap convert ViT-B-32.pt clip.safetensors
   cyclecap convert --names openai clip-vit-base-patch32/ clip.pt
   cyclecap convert --dtype bf16 gpt2/pytorch_model.bin gpt2-bf16.safetensors`,
		Action: func(c *cli.Context) error {
			if c.NArg() != 2 {
				return usagef("convert takes IN and OUT, not %d arguments", c.NArg())
			}
			in, out := c.Args().Get(0), c.Args().Get(1)
			names, dtype := c.String("names"), torch.Float32
			if !slices.Contains([]string{"", "openai", "transformers", "clipcap"}, names) {
				return usagef("--names %s: openai, transformers and clipcap are possible", names)
			}
			if name := c.String("dtype"); name != "" {
				var err error
				dtype, err = torch.ParseDType(name)
				if err != nil || (dtype != torch.Float32 && dtype != torch.Float16 && dtype != torch.BFloat16) {
					return usagef("--dtype %s: f32, f16 and bf16 are possible", name)
				}
			}
			if err := write(func() error { return weights.CheckSave(out) }); err != nil {
				return err
			}
			sd, meta, err := loadNamed(in, names)
			if err != nil {
				return err
			}
			defer sd.Close()
			if c.String("dtype") != "" {
				if err := castAll(c, sd, dtype); err != nil {
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

// loadNamed loads a file under the names of a scheme, and the metadata that the
// converted file needs too.
func loadNamed(path, names string) (sd *nn.StateDict, meta map[string]string, err error) {
	switch names {
	case "":
		f, err := weights.Open(path)
		if err != nil {
			return nil, nil, err
		}
		sd, err = f.Load()
		return sd, ofDecoder(f.Meta), err
	case "openai":
		sd, _, err = weights.LoadCLIP(path, nil)
		return sd, nil, err
	case "transformers":
		sd, err = weights.LoadGPT2(path)
		return sd, nil, err
	case "clipcap":
		sd, _, meta, err = weights.LoadDecoder(path)
		return sd, ofDecoder(meta), err
	}
	panic("a scheme that was not checked: " + names)
}

// ofDecoder keeps what a decoder's file says of its features.
func ofDecoder(meta map[string]string) map[string]string {
	if v, ok := meta[weights.NormalizePrefix]; ok {
		return map[string]string{weights.NormalizePrefix: v}
	}
	return nil
}

// castAll converts the floating-point tensors. Tied ones stay tied.
func castAll(c *cli.Context, sd *nn.StateDict, dtype torch.DType) error {
	tied := map[string][]string{} // names by the memory that they share
	var order []string
	for _, name := range sd.Names() {
		t, _ := sd.Get(name)
		if !t.DType().IsFloat() || t.DType() == dtype {
			continue
		}
		key := fmt.Sprint(t.DataPtr(), t.DType(), t.Shape(), t.Strides())
		if len(tied[key]) == 0 {
			order = append(order, key)
		}
		tied[key] = append(tied[key], name)
	}
	return torch.Scope(func() error {
		for _, key := range order {
			if err := c.Context.Err(); err != nil {
				return err
			}
			old, _ := sd.Get(tied[key][0])
			cast := old.To(torch.WithDType(dtype))
			for _, name := range tied[key] {
				old, _ := sd.Get(name)
				sd.Add(name, cast.Detach().Keep())
				old.Close()
			}
			cast.Close()
		}
		return nil
	})
}
