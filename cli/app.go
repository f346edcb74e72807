// Package cli is cyclecap's command line: one thin command a file.
//
// Results go to standard output, as JSON lines where --json asks for it, and
// everything else to standard error. Exit codes: 0 all done, 1 something
// failed (said on standard error), 2 wrong usage, 130 interrupted.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"cyclecap/torch"

	"github.com/urfave/cli/v2"
)

// usage is an error of the command line itself: exit code 2.
type usage struct{ error }

func usagef(format string, args ...any) error { return usage{fmt.Errorf(format, args...)} }

// errReported ends a command whose failures have been reported one by one.
var errReported = errors.New("reported")

// Main runs the command line and gives the exit code.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) (code int) {
	defer func() {
		if p := recover(); p != nil {
			fmt.Fprintf(stderr, "cyclecap: internal error: %v; please report it with the command line (CYCLECAP_DEBUG=1 prints where)\n", p)
			if os.Getenv("CYCLECAP_DEBUG") == "1" {
				stderr.Write(debug.Stack())
			}
			code = 1
		}
	}()
	// libtorch's modes and pool belong to an OS thread: all tensor work is
	// done on this one.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	err := newApp(stdin, stdout, stderr).RunContext(ctx, args)
	var u usage
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		fmt.Fprintln(stderr, "cyclecap: interrupted")
		return 130
	case errors.Is(err, errReported):
		return 1
	case errors.As(err, &u):
		fmt.Fprintf(stderr, "cyclecap: %v\n", err)
		return 2
	}
	fmt.Fprintf(stderr, "cyclecap: %v\n", err)
	return 1
}

func newApp(stdin io.Reader, stdout, stderr io.Writer) *cli.App {
	app := &cli.App{
		Name:                 "cyclecap",
		Usage:                "image captioning without paired data: CLIP, GPT-2 and translated features, with PyTorch's numbers",
		Version:              version(),
		Reader:               stdin,
		Writer:               stdout,
		ErrWriter:            stderr,
		EnableBashCompletion: true,
		HideHelpCommand:      true,
		Commands:             []*cli.Command{captionCommand(), featuresCommand(), tokenizeCommand(), inspectCommand(), convertCommand(), doctorCommand(), randomWeightsCommand()},
		// Errors end in Main, not in os.Exit.
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError:   func(_ *cli.Context, err error, _ bool) error { return usage{err} },
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("there is no command %q; `cyclecap --help` lists them", c.Args().First())
			}
			return cli.ShowAppHelp(c)
		},
	}
	for _, c := range app.Commands {
		c.OnUsageError = func(c *cli.Context, err error, _ bool) error {
			return usagef("%v; `cyclecap %s --help` explains", err, c.Command.Name)
		}
		// A missing required flag is told by the library as an error of its
		// own kind, which Main can't know: flags are checked by the commands.
		c.CustomHelpTemplate = commandHelp
	}
	return app
}

// commandHelp is urfave's help with the examples last, where they are seen.
const commandHelp = `{{.HelpName}} - {{.Usage}}

USAGE:
   {{.HelpName}} {{if .UsageText}}{{.UsageText}}{{else}}[options]{{end}}
{{if .VisibleFlags}}
OPTIONS:
{{range .VisibleFlags}}   {{.}}
{{end}}{{end}}{{if .Description}}
{{.Description}}
{{end}}`

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && (v == "" || v == "(devel)") {
			v = s.Value[:min(12, len(s.Value))]
		}
	}
	if v == "" {
		v = "(devel)"
	}
	return v
}

// need reports flags that are missing.
func need(c *cli.Context, flags ...string) error {
	var missing []string
	for _, f := range flags {
		if c.String(f) == "" {
			missing = append(missing, "--"+f)
		}
	}
	if len(missing) > 0 {
		return usagef("%s is needed; `cyclecap %s --help` explains", strings.Join(missing, " and "), c.Command.Name)
	}
	return nil
}

// computeFlags are of every command that computes.
func computeFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "device", Value: "cpu", Usage: "where to compute: cpu or cuda:`N`"},
		&cli.StringFlag{Name: "dtype", Value: "f32", Usage: "precision of the weights: f32 (PyTorch's bits) or bf16 (half the memory, faster)"},
		&cli.IntFlag{Name: "threads", Value: 0, Usage: "threads of one operator (0: one for each core)", DefaultText: "all cores"},
	}
}

// compute is what computeFlags say.
type compute struct {
	device torch.Device
	dtype  torch.DType
}

func computeOf(c *cli.Context) (compute, error) {
	var o compute
	var err error
	if n := c.Int("threads"); n < 0 || n > 1024 {
		return o, usagef("--threads %d: 0 to 1024 are possible", n)
	} else if n > 0 {
		torch.SetNumThreads(n)
	}
	if o.dtype, err = torch.ParseDType(c.String("dtype")); err != nil || (o.dtype != torch.Float32 && o.dtype != torch.BFloat16) {
		return o, usagef("--dtype %s: f32 and bf16 are possible", c.String("dtype"))
	}
	if o.device, err = torch.ParseDevice(c.String("device")); err != nil {
		return o, fmt.Errorf("--device: %w", err)
	}
	if o.device == torch.Meta {
		return o, usagef("--device meta has no numbers to give; it is for tests")
	}
	return o, nil
}

// options gives o for a tensor or a module that moves there.
func (o compute) options() []torch.Option {
	return []torch.Option{torch.WithDevice(o.device), torch.WithDType(o.dtype)}
}

// changes tells whether weights that are f32 on the CPU have to be converted.
func (o compute) changes() bool { return o.device != torch.CPU || o.dtype != torch.Float32 }
