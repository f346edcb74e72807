package cli

import (
	"fmt"
	"runtime/debug"
	"strings"

	"cyclecap/torch"

	"github.com/urfave/cli/v2"
)

// release and commit are set by the linker: -X …/cli.commit=…
var release, commit string

// version returns the release, or else whatever identifies the state of the
// sources.
func version() string {
	if release != "" {
		return release
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		if v := info.Main.Version; v != "" && v != "(devel)" {
			return v // built by go install PATH@VERSION
		}
	}
	if commit != "" {
		return commit
	}
	return "(devel)"
}

func init() { cli.VersionPrinter = printVersion }

// printVersion does not load libtorch: it reads the version from its files.
func printVersion(c *cli.Context) {
	var of []string
	if commit != "" && version() != commit {
		of = append(of, "commit "+commit)
	}
	if l, err := torch.FindLibraries(); err == nil {
		of = append(of, "libtorch "+l.Version)
	} else {
		of = append(of, "no libtorch (see `cyclecap doctor`)")
	}
	fmt.Fprintf(c.App.Writer, "cyclecap %s, %s\n", version(), strings.Join(of, ", "))
}
