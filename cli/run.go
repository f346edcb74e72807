package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"time"

	"cyclecap/experiment"
	"cyclecap/experiment/config"
	"cyclecap/torch"

	"github.com/urfave/cli/v2"
)

func runFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "set", Usage: "override a key of CONFIG.toml with `KEY=VALUE`, such as train.cyclegan.epochs=5", KeepSpace: true},
		&cli.PathFlag{Name: "output", Aliases: []string{"o"}, Usage: "write to `FOLDER` instead of the configuration's output folder"},
		&cli.BoolFlag{Name: "resume", Usage: "continue training that was interrupted", DisableDefaultText: true},
		&cli.IntFlag{Name: "seeds", Value: 1, Usage: "run the trainings with `N` consecutive seeds, starting at the configuration's"},
		&cli.IntFlag{Name: "worlds", Value: 1, Usage: "repeat the run in `M` worlds with consecutive seeds, starting at the configuration's world.seed"},
		&cli.DurationFlag{Name: "rendezvous-timeout", Value: 10 * time.Minute, Usage: "give up if not all processes of a run with several have joined within this `TIME`"},
		&cli.BoolFlag{Name: "verify-outputs", Usage: "read all files that finished stages have written, and make those again that have changed; without it, only missing files and other sizes are noticed", DisableDefaultText: true},
		&cli.BoolFlag{Name: "dry-run", Usage: "only print the plan: sizes, steps, and the time, disk and memory of each stage, estimated from a short measurement", DisableDefaultText: true},
	}
}

func runCommand() *cli.Command {
	return &cli.Command{
		Name:      "run",
		Usage:     "run an experiment: train, caption with every bridge, score and report",
		UsageText: "CONFIG.toml [--set KEY=VALUE…] [--resume] [--seeds N] [--worlds M] [--until STAGE]\n   cyclecap run --keys [PREFIX]",
		Flags: append(runFlags(),
			&cli.StringFlag{Name: "until", Usage: "stop after `STAGE`: world, clip, gpt2, features, decoder, cyclegan, caption, evaluate or report"},
			&cli.BoolFlag{Name: "keys", Usage: "explain the keys of CONFIG.toml, or only those that begin with PREFIX, such as train.cyclegan", DisableDefaultText: true}),
		Description: `The stages run in the order listed under --until. A stage is skipped if its
settings, the contents of its inputs and its outputs have not changed. The output folder
receives the resolved configuration, checkpoints, losses (metrics.jsonl and
TensorBoard event files), captions in COCO's results format, table.json, table.md
and report.html. Ctrl-C writes a checkpoint; --resume continues from it, and the
result is bit-identical to that of an uninterrupted run. A file with [[variant]]
tables compares changes of its settings in one table (docs/experiment.md).

EXAMPLES:
   cyclecap run configs/demo.toml
   cyclecap run configs/ablations.toml
   cyclecap run configs/demo.toml --seeds 3 --worlds 2
   cyclecap run configs/demo.toml --set train.cyclegan.epochs=5
   cyclecap run configs/paper.toml --dry-run
   cyclecap run configs/paper.toml --until features
   cyclecap run --keys train.cyclegan`,
		Action: func(c *cli.Context) error {
			if c.Bool("keys") {
				return printKeys(c)
			}
			return runExperiment(c, c.String("until"))
		},
	}
}

// printKeys explains the keys of a configuration.
func printKeys(c *cli.Context) error {
	if c.NArg() > 1 {
		return usagef("--keys takes one PREFIX, got %d", c.NArg())
	}
	prefix := c.Args().First()
	text := config.Describe(prefix)
	if text == "" {
		return usagef("--keys %s: no key begins with this prefix; %s", prefix, config.Suggest(prefix))
	}
	_, err := fmt.Fprint(c.App.Writer, text)
	return err
}

func trainCommand() *cli.Command {
	part := func(stage, usage string) *cli.Command {
		return &cli.Command{
			Name:               stage,
			Usage:              usage,
			UsageText:          "CONFIG.toml [--set KEY=VALUE…] [--resume] [--seeds N] [--worlds M]",
			Flags:              runFlags(),
			Description:        "Earlier stages that it needs run first, unless they are up to date.\n\nEXAMPLES:\n   cyclecap train " + stage + " configs/demo.toml --resume",
			Action:             func(c *cli.Context) error { return runExperiment(c, stage) },
			CustomHelpTemplate: commandHelp,
			HideHelpCommand:    true,
			OnUsageError: func(c *cli.Context, err error, _ bool) error {
				return usagef("%s; see `cyclecap train %s --help`", flagError(err, c.Command.Flags), stage)
			},
		}
	}
	return &cli.Command{
		Name:      "train",
		Usage:     "run an experiment up to one of its trainings",
		UsageText: "clip|gpt2|decoder|cyclegan CONFIG.toml",
		Subcommands: []*cli.Command{
			part("clip", "train the small CLIP of a rendered world"),
			part("gpt2", "train the small GPT-2 of a rendered world"),
			part("decoder", "train the text decoders that the bridges use"),
			part("cyclegan", "train the latent CycleGAN"),
		},
		Description: `EXAMPLES:
   cyclecap train decoder configs/paper.toml
   cyclecap train cyclegan configs/demo.toml --set train.cyclegan.cycle_weight=5`,
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("unknown training %q; must be clip, gpt2, decoder or cyclegan", c.Args().First())
			}
			return usagef("train needs the name of a training: clip, gpt2, decoder or cyclegan; see `cyclecap train --help`")
		},
	}
}

func runExperiment(c *cli.Context, last string) (err error) {
	if c.NArg() != 1 {
		return usagef("one CONFIG.toml is required, got %d; see `%s --help`", c.NArg(), c.Command.HelpName)
	}
	for _, flag := range []string{"seeds", "worlds"} {
		if n := c.Int(flag); n < 1 || n > 1000 {
			return usagef("--%s %d: must be between 1 and 1000", flag, n)
		}
	}
	if last != "" && !slices.Contains(experiment.Stages, last) {
		return usagef("--until %s: no such stage%s", last, meant(last, experiment.Stages))
	}
	sets := c.StringSlice("set")
	if dir := c.Path("output"); dir != "" {
		sets = append(sets, "output="+strconv.Quote(dir))
	}
	conf, variants, err := config.LoadVariants(c.Args().First(), sets)
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		return fmt.Errorf("%s: %w", p.Path, p.Err)
	} else if err != nil {
		return err
	}
	if _, err := torch.BuildInfo(); err != nil {
		return err
	}
	x := &experiment.Experiment{Config: conf, Dir: conf.Output, Seeds: c.Int("seeds"), Worlds: c.Int("worlds"), Variants: variants, Resume: c.Bool("resume"), VerifyOutputs: c.Bool("verify-outputs"), UI: ui{c.App.ErrWriter}}
	if c.Bool("dry-run") {
		return x.Plan(c.Context, c.App.Writer, last)
	}
	rendezvous := c.Duration("rendezvous-timeout")
	if rendezvous <= 0 {
		return usagef("--rendezvous-timeout %v: must be positive", rendezvous)
	}
	var ctx context.Context
	var leave func(error) error
	x.Group, ctx, leave, err = join(c, rendezvous, func(text string) { x.UI.Say("%s", text) })
	if err != nil {
		return err
	}
	defer func() { err = leave(err) }()
	if x.Group.Rank() != 0 {
		x.UI = ui{io.Discard}
	}
	done, err := x.Open()
	if err != nil {
		return err
	}
	defer done()
	return x.Execute(ctx, last)
}

// ui shows an experiment's progress on standard error.
type ui struct{ out io.Writer }

func (u ui) Say(format string, args ...any) {
	fmt.Fprintf(u.out, "cyclecap: "+clock(u.out)+format+"\n", args...)
}

func (u ui) Bar(what string, from, total int) experiment.Bar {
	p := newProgress(u.out, what, total)
	p.first = from
	p.Set(from, "")
	return p
}

func (u ui) Atomic(f func() error) error { return write(f) }
