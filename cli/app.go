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
	"maps"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"cyclecap/internal/nearest"

	"github.com/urfave/cli/v2"
)

// usage is an error of the command line itself: exit code 2.
type usage struct{ error }

func usagef(format string, args ...any) error { return usage{fmt.Errorf(format, args...)} }

// errReported ends a command whose failures have been reported one by one.
var errReported = errors.New("reported")

const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// Main runs the command line and gives the exit code.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) (code int) {
	defer func() {
		if p := recover(); p != nil {
			fmt.Fprintf(stderr, "cyclecap: internal error: %v; this is a bug: please report it with the command line and the output of `cyclecap doctor` (CYCLECAP_DEBUG=1 prints where it happened)\n", p)
			if os.Getenv("CYCLECAP_DEBUG") == "1" {
				stderr.Write(debug.Stack())
			}
			code = exitFailed
		}
	}()
	// libtorch's modes and pool belong to an OS thread: all tensor work is
	// done on this one.
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
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
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

// output remembers a write that failed, so that a full disk behind standard
// output is no success.
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

// grace is how long a command has to notice that it was interrupted.
const grace = time.Second

// writing is held while a file is written: the process does not end in between.
var writing sync.Mutex

// write runs what writes a file; an interruption waits for it. What it writes
// with has to look at the context itself, and leaves nothing behind then.
func write(f func() error) error {
	writing.Lock()
	defer writing.Unlock()
	return f()
}

// interruptible gives a context that SIGINT, SIGTERM and SIGHUP end. Commands
// look at it between batches; one that is inside of a long operator, or waits
// for input, is ended from here.
func interruptible(stderr io.Writer) (ctx context.Context, done func()) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	finished := make(chan struct{})
	go func() {
		select {
		case <-finished:
			return
		case <-ctx.Done():
		}
		select {
		case <-finished:
		case <-time.After(grace):
			writing.Lock()
			sayInterrupted(stderr)
			os.Exit(exitInterrupted)
		}
	}()
	return ctx, func() {
		close(finished)
		stop()
	}
}

func sayInterrupted(stderr io.Writer) {
	if isTerminal(stderr) {
		fmt.Fprintln(stderr) // behind the progress bar or the terminal's ^C
	}
	fmt.Fprintln(stderr, "cyclecap: interrupted")
}

func newApp(stdin io.Reader, stdout, stderr io.Writer) *cli.App {
	app := &cli.App{
		Name:                      "cyclecap",
		Usage:                     "image captioning without paired data: CLIP, GPT-2 and translated features, with PyTorch's numbers",
		Version:                   version(),
		Reader:                    stdin,
		Writer:                    stdout,
		ErrWriter:                 stderr,
		CustomAppHelpTemplate:     appHelp,
		EnableBashCompletion:      true,
		HideHelpCommand:           true, // helpCommand is ours; with it the library leaves out the flag
		Flags:                     []cli.Flag{cli.HelpFlag},
		DisableSliceFlagSeparator: true, // texts and file names have commas
		// Errors end in Main, not in os.Exit.
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError: func(c *cli.Context, err error, _ bool) error {
			return usagef("%s; `cyclecap --help` explains", flagError(err, c.App.Flags))
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return noCommand(c, c.Args().First())
			}
			return cli.ShowAppHelp(c)
		},
	}
	app.Commands = []*cli.Command{
		worldCommand(), runCommand(), trainCommand(), captionCommand(), featuresCommand(), evalCommand(),
		tokenizeCommand(), inspectCommand(), convertCommand(), doctorCommand(), randomWeightsCommand(), completionCommand(), manCommand(), helpCommand(),
	}
	for _, c := range app.Commands {
		c.OnUsageError = func(c *cli.Context, err error, _ bool) error {
			return usagef("%s; `cyclecap %s --help` explains", flagError(err, c.Command.Flags), c.Command.Name)
		}
		// Required flags are checked by need: the library would print the
		// help as well, on standard output.
		c.CustomHelpTemplate = commandHelp
		c.HideHelpCommand = true // a photo may be called "help"
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
   cyclecap caption --clip ViT-B-32.pt --decoder coco_prefix.pt --gpt2 gpt2/ photos/
   cyclecap features --clip ViT-B-32.pt --images photos/ -o features.safetensors

` + "`cyclecap COMMAND --help` explains a command." + `
`

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

func helpCommand() *cli.Command {
	return &cli.Command{
		Name:        "help",
		Usage:       "list the commands or explain one",
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
				// The app runs itself: the library completes a command (its
				// --help) only as it runs it.
				return c.App.RunContext(c.Context, []string{"cyclecap", name, "--help"})
			}
			return usagef("help takes one COMMAND, not %d", c.NArg())
		},
	}
}

func noCommand(c *cli.Context, name string) error {
	var names []string
	for _, cmd := range c.App.VisibleCommands() {
		names = append(names, cmd.Name)
	}
	return usagef("there is no command %q%s; `cyclecap --help` lists them", name, meant(name, names))
}

var (
	unknownFlag = regexp.MustCompile(`^flag provided but not defined: -(.*)$`)
	flagNoValue = regexp.MustCompile(`^flag needs an argument: -(.*)$`)
	badFlag     = regexp.MustCompile(`^invalid (?:boolean )?value (".*") for (?:flag )?-([^:]*): (.*)$`)
)

// flagError says what the flag library found in this program's words.
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
		text = "there is no option " + name + meant(name, names)
	} else if m := flagNoValue.FindStringSubmatch(text); m != nil {
		text = dashes(m[1]) + " needs a value"
	} else if m := badFlag.FindStringSubmatch(text); m != nil {
		what := "is no number that is possible here"
		for _, f := range flags {
			if _, ok := f.(*cli.BoolFlag); ok && slices.Contains(f.Names(), m[2]) {
				what = "is neither true nor false"
			}
		}
		text = fmt.Sprintf("%s: %s %s", dashes(m[2]), m[1], what)
	}
	return text
}

// meant suggests a name for what was typed.
func meant(typed string, names []string) string {
	plain := map[string]string{} // names by what is left without dashes, which all options have
	for _, n := range names {
		plain[strings.TrimLeft(n, "-")] = n
	}
	if name := nearest.Word(strings.TrimLeft(typed, "-"), slices.Sorted(maps.Keys(plain))); name != "" {
		return fmt.Sprintf(" (did you mean %s?)", plain[name])
	}
	return ""
}

// need reports flags that are missing.
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
		return usagef("%s %s needed; `cyclecap %s --help` explains", strings.Join(missing, " and "), is, c.Command.Name)
	}
	return nil
}

// note says on standard error what a user may want to know of work that goes on.
func note(c *cli.Context, format string, args ...any) {
	fmt.Fprintf(c.App.ErrWriter, "cyclecap: note: "+format+"\n", args...)
}

// oneLine makes text from a file or a network harmless for a terminal and for
// who reads line by line: control characters become blanks.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, s)
}
