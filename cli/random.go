package cli

import (
	"fmt"
	"os"
	"path/filepath"

	"cyclecap/nets/clip"
	"cyclecap/nets/clipcap"
	"cyclecap/nets/cyclegan"
	"cyclecap/nets/gpt2"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/weights"

	"github.com/urfave/cli/v2"
)

// randomWeightsCommand makes weights to try the others with where no trained
// ones are at hand.
func randomWeightsCommand() *cli.Command {
	return &cli.Command{
		Name:      "random-weights",
		Usage:     "write random weights of the real sizes, to try things out (captions are nonsense)",
		UsageText: "[--seed N] DIR",
		Flags:     []cli.Flag{&cli.Uint64Flag{Name: "seed", Usage: "`SEED` of the weights"}},
		Description: `DIR gets clip.pt (ViT-B/32), gpt2.pt (124M), decoder.pt (transformer mapper,
prefix 40) and generator.pt: 1.3 GB.

EXAMPLES:
   cyclecap random-weights /tmp/random
   cyclecap caption --clip /tmp/random/clip.pt --decoder /tmp/random/decoder.pt --gpt2 /tmp/random/gpt2.pt photo.jpg`,
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usagef("random-weights takes one DIR, not %d", c.NArg())
			}
			dir := c.Args().First()
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			for i, part := range []struct {
				file, prefix string
				make         func() any
			}{
				{"clip.pt", "", func() any { return clip.New(clip.ViTB32()) }},
				{"gpt2.pt", "", func() any { return gpt2.New(gpt2.Small()) }},
				{"decoder.pt", "clip_project.", func() any { return clipcap.NewTransformerMapper(clipcap.PaperTransformer()) }},
				{"generator.pt", "", func() any { return cyclegan.NewGenerator(512) }},
			} {
				if err := c.Context.Err(); err != nil {
					return err
				}
				err := torch.Scope(func() error {
					torch.ManualSeed(c.Uint64("seed") + uint64(i))
					m := part.make()
					defer nn.Close(m)
					sd := nn.NewStateDict()
					for _, p := range nn.NamedParameters(m) {
						sd.Add(part.prefix+p.Name, *p.Tensor)
					}
					return write(func() error { return weights.Save(c.Context, filepath.Join(dir, part.file), sd, nil) })
				})
				if err != nil {
					return err
				}
				fmt.Fprintln(c.App.ErrWriter, filepath.Join(dir, part.file))
			}
			return nil
		},
	}
}
