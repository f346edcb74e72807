// Package cli is cyclecap's command line, with one thin command per file.
//
// Results go to standard output, as JSON lines with --json, and everything else
// goes to standard error. Exit codes: 0 success, 1 failure (reported on standard
// error), 2 wrong usage, 130 interrupted.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"cyclecap/internal/nearest"
	"cyclecap/torch"
	"cyclecap/torch/distributed"

	"github.com/urfave/cli/v2"
)

// usage is an error in how the command was called: exit code 2.
type usage struct{ error }

func usagef(format string, args ...any) error { return usage{fmt.Errorf(format, args...)} }

// errReported ends a command that has already reported its failures.
var errReported = errors.New("reported")

const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// Main runs the command line and returns the exit code.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) (code int) {
	defer func() {
		if p := recover(); p != nil {
			fmt.Fprintf(stderr, "cyclecap: internal error: %v; this is a bug; please report it with the command line and the output of `cyclecap doctor` (set CYCLECAP_DEBUG=1 to print a stack trace)\n", p)
			if os.Getenv("CYCLECAP_DEBUG") == "1" {
				stderr.Write(debug.Stack())
			}
			code = exitFailed
		}
	}()
	torch.TuneAllocator()
	// libtorch's modes and thread pool belong to an OS thread, so all tensor
	// work is done on this one.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx, done := interruptible(stderr)
	defer done()

	out := &output{w: stdout}
	app := newApp(stdin, out, stderr)
	err := app.RunContext(ctx, arrange(args, app.Commands))
	if err == nil && out.err != nil {
		err = fmt.Errorf("standard output: %w", out.err)
	}
	var u usage
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled) && (ctx.Err() != nil || errors.Is(err, distributed.ErrInterrupted)):
		sayInterrupted(stderr)
		return exitInterrupted
	case errors.Is(err, errReported):
		return exitFailed
	case errors.As(err, &u):
		fmt.Fprintf(stderr, "cyclecap: %s\n", oneLine(err.Error()))
		return exitUsage
	}
	fmt.Fprintf(stderr, "cyclecap: %s\n", oneLine(err.Error()))
	return exitFailed
}

// output remembers a failed write, so that a command whose standard output is on
// a full disk fails.
type output struct {
	w   io.Writer
	err error
}

func (o *output) Write(b []byte) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.w.Write(b)
	o.err = err
	return n, err
}

const (
	// grace is how long an interrupted command has to end by itself.
	grace = time.Second
	// patience is how long an interrupted process that runs together with others waits
	// for them: a process that hangs must not hold the others.
	patience = 25 * time.Second
)

// grouped is true if this process runs together with others.
var grouped atomic.Bool

// writing is held while a file is written, so that the process does not exit
// halfway through.
var writing sync.Mutex

// write runs f, which writes a file; an interruption waits until it returns. f
// must check the context itself, and leave nothing behind if it is cancelled.
func write(f func() error) error {
	writing.Lock()
	defer writing.Unlock()
	return f()
}

// interruptible returns a context that SIGINT, SIGTERM and SIGHUP cancel. Commands
// check it between batches; one that is inside a long operator or waits for input
// is ended here. A command that handles signals itself calls ownSignals.
func interruptible(stderr io.Writer) (ctx context.Context, done func()) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	finished := make(chan struct{})
	done = sync.OnceFunc(func() {
		close(finished)
		stop()
	})
	ctx, interrupt := context.WithCancel(ctx)
	ctx = context.WithValue(ctx, controlKey{}, control{release: done, interrupt: interrupt})
	go func() {
		select {
		case <-finished:
			return
		case <-ctx.Done():
		}
		select {
		case <-finished:
			return
		case <-time.After(grace):
		}
		locked := make(chan struct{})
		go func() {
			writing.Lock()
			select {
			case locked <- struct{}{}:
			case <-finished:
				writing.Unlock()
			}
		}()
		late := make(<-chan time.Time)
		if grouped.Load() {
			late = time.After(patience)
		}
		select {
		case <-finished:
			return
		case <-late:
			fmt.Fprintf(stderr, "cyclecap: another process has not answered for %v: no checkpoint was written, --resume continues from the last one\n", patience)
		case <-locked:
		}
		sayInterrupted(stderr)
		os.Exit(exitInterrupted)
	}()
	return ctx, done
}

// A control is a value of the context of interruptible.
type control struct {
	release   func() // lets a command handle signals itself
	interrupt func() // does what a signal does
}

type controlKey struct{}

// ownSignals lets a command handle signals itself: ctx, its context, must not be used any more.
func ownSignals(ctx context.Context) {
	if c, ok := ctx.Value(controlKey{}).(control); ok {
		c.release()
	}
}

// together returns the context of a command that runs in all processes of a group: a signal to
// one of them interrupts all. stop must be called where the command ends.
func together(ctx context.Context, g *distributed.Group) (shared context.Context, stop func()) {
	grouped.Store(g.Size() > 1)
	shared, stop = g.Context(ctx)
	context.AfterFunc(shared, func() {
		if c, ok := ctx.Value(controlKey{}).(control); ok && context.Cause(shared) == distributed.ErrInterrupted {
			c.interrupt()
		}
	})
	return shared, stop
}

func sayInterrupted(stderr io.Writer) {
	if isTerminal(stderr) {
		fmt.Fprintln(stderr) // after the progress bar or the terminal's ^C
	}
	fmt.Fprintln(stderr, "cyclecap: interrupted")
}

func newApp(stdin io.Reader, stdout, stderr io.Writer) *cli.App {
	app := &cli.App{
		Name:                      "cyclecap",
		Usage:                     "image captioning without paired data: CLIP, GPT-2 and feature translation, with the same numbers as PyTorch",
		Version:                   version(),
		Reader:                    stdin,
		Writer:                    stdout,
		ErrWriter:                 stderr,
		CustomAppHelpTemplate:     appHelp,
		EnableBashCompletion:      true,
		HideHelpCommand:           true, // helpCommand takes its place, which makes the library leave out --help too
		Flags:                     []cli.Flag{cli.HelpFlag},
		DisableSliceFlagSeparator: true, // texts and file names may contain commas
		// Main handles errors; the library would call os.Exit.
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError: func(c *cli.Context, err error, _ bool) error {
			return usagef("%s; see `cyclecap --help`", flagError(err, c.App.Flags))
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return noCommand(c, c.Args().First())
			}
			return cli.ShowAppHelp(c)
		},
	}
	app.Commands = []*cli.Command{
		worldCommand(), runCommand(), trainCommand(), captionCommand(), serveCommand(), featuresCommand(), searchCommand(), evalCommand(), verifyCommand(),
		tokenizeCommand(), inspectCommand(), convertCommand(), doctorCommand(), randomWeightsCommand(), completionCommand(), manCommand(), helpCommand(),
	}
	for _, c := range app.Commands {
		c.OnUsageError = func(c *cli.Context, err error, _ bool) error {
			return usagef("%s; see `cyclecap %s --help`", flagError(err, c.Command.Flags), c.Command.Name)
		}
		// need checks required flags, because the library would also print the
		// help to standard output.
		c.CustomHelpTemplate = commandHelp
		c.HideHelpCommand = true // a photo may be named "help"
	}
	return app
}

const appHelp = `{{.Name}} - {{.Usage}}

USAGE:
   {{.Name}} COMMAND [options] [arguments]

COMMANDS:
{{range .VisibleCommands}}   {{printf "%-15s" .Name}} {{.Usage}}
{{end}}
OPTIONS:
{{range .VisibleFlags}}   {{.}}
{{end}}
EXAMPLES:
   cyclecap doctor
   cyclecap world --sample 6 drawn/
   cyclecap caption drawn/
   cyclecap caption --clip ViT-B-32.pt --decoder coco_prefix.pt --gpt2 gpt2/ photos/
   cyclecap features --clip ViT-B-32.pt --images photos/ -o features.safetensors

` + "Run `cyclecap COMMAND --help` for help on a command." + `
`

// commandHelp is urfave's help template with the examples last, where they are
// easiest to see.
const commandHelp = `{{.HelpName}} - {{.Usage}}

USAGE:
   {{.HelpName}} {{if .UsageText}}{{.UsageText}}{{else}}[options]{{end}}
{{if .VisibleFlags}}
OPTIONS:
{{range .VisibleFlags}}   {{.}}
{{end}}{{end}}{{if .Description}}
{{.Description}}
{{end}}`

func helpCommand() *cli.Command {
	return &cli.Command{
		Name:        "help",
		Usage:       "list the commands, or show the help of one",
		UsageText:   "[COMMAND]",
		Description: "EXAMPLES:\n   cyclecap help caption",
		Action: func(c *cli.Context) error {
			switch c.NArg() {
			case 0:
				return cli.ShowAppHelp(c)
			case 1:
				name := c.Args().First()
				if c.App.Command(name) == nil {
					return noCommand(c, name)
				}
				// The library adds a command's --help flag only when it runs
				// the command, so the app runs itself.
				return c.App.RunContext(c.Context, []string{"cyclecap", name, "--help"})
			}
			return usagef("help takes one COMMAND, got %d", c.NArg())
		},
	}
}

func noCommand(c *cli.Context, name string) error {
	var names []string
	for _, cmd := range c.App.VisibleCommands() {
		names = append(names, cmd.Name)
	}
	return usagef("unknown command %q%s; see `cyclecap --help`", name, meant(name, names))
}

var (
	unknownFlag = regexp.MustCompile(`^flag provided but not defined: -(.*)$`)
	flagNoValue = regexp.MustCompile(`^flag needs an argument: -(.*)$`)
	badFlag     = regexp.MustCompile(`^invalid (?:boolean )?value (".*") for (?:flag )?-([^:]*): (.*)$`)
)

// flagError rewords an error of the flag library.
func flagError(err error, flags []cli.Flag) string {
	dashes := func(name string) string {
		if len(name) == 1 {
			return "-" + name
		}
		return "--" + strings.TrimPrefix(name, "-")
	}
	text := strings.ReplaceAll(err.Error(), "\n", " ")
	if m := unknownFlag.FindStringSubmatch(text); m != nil {
		var names []string
		for _, f := range flags {
			for _, n := range f.Names() {
				names = append(names, dashes(n))
			}
		}
		name := dashes(m[1])
		text = "unknown option " + name + meant(name, names)
	} else if m := flagNoValue.FindStringSubmatch(text); m != nil {
		text = dashes(m[1]) + " needs a value"
	} else if m := badFlag.FindStringSubmatch(text); m != nil {
		what := "is not a valid number for this option"
		for _, f := range flags {
			if _, ok := f.(*cli.BoolFlag); ok && slices.Contains(f.Names(), m[2]) {
				what = "must be true or false"
			}
		}
		text = fmt.Sprintf("%s: %s %s", dashes(m[2]), m[1], what)
	}
	return text
}

// meant suggests the name that is closest to what was typed.
func meant(typed string, names []string) string {
	plain := map[string]string{} // keyed without the leading dashes, which all options have
	for _, n := range names {
		plain[strings.TrimLeft(n, "-")] = n
	}
	if name := nearest.Word(strings.TrimLeft(typed, "-"), slices.Sorted(maps.Keys(plain))); name != "" {
		return fmt.Sprintf(" (did you mean %s?)", plain[name])
	}
	return ""
}

// need returns a usage error that lists the flags that are missing.
func need(c *cli.Context, flags ...string) error {
	var missing []string
	for _, f := range flags {
		if c.String(f) == "" {
			missing = append(missing, "--"+f)
		}
	}
	is := "is"
	if len(missing) > 1 {
		is = "are"
	}
	if len(missing) > 0 {
		return usagef("%s %s required; see `cyclecap %s --help`", strings.Join(missing, " and "), is, c.Command.Name)
	}
	return nil
}

// note prints a note to standard error; the command continues.
func note(c *cli.Context, format string, args ...any) {
	fmt.Fprintf(c.App.ErrWriter, "cyclecap: note: "+format+"\n", args...)
}

// notes prints what was assumed or changed in loading models.
func notes(c *cli.Context, list []string) {
	for _, n := range list {
		note(c, "%s", oneLine(n))
	}
}

// clipFlag is the option of the commands that load a CLIP to compute features.
func clipFlag() cli.Flag {
	return &cli.PathFlag{Name: "clip", Usage: "load CLIP from `FILE`: an OpenAI archive, a transformers (CLIP, SigLIP) or open_clip file or folder, or the name of a downloaded model (openai/clip-vit-base-patch32, ViT-B/32)"}
}

// clipConfigFlag is an option of every command with --clip.
func clipConfigFlag() cli.Flag {
	return &cli.PathFlag{Name: "clip-config", Usage: "with --clip: take its configuration from `FILE`, a config.json of transformers or an open_clip_config.json, or by a name such as ViT-H-14", DefaultText: "the file beside the weights"}
}

// oneLine makes text from a file or a network safe for a terminal and for programs
// that read line by line: it replaces control characters with spaces.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, s)
}
