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

// version is the release, else whatever tells one state of the sources from
// another.
func version() string {
	if release != "" {
		return release
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		if v := info.Main.Version; v != "" && v != "(devel)" {
			return v // of go install PATH@VERSION
		}
	}
	if commit != "" {
		return commit
	}
	return "(devel)"
}

func init() { cli.VersionPrinter = printVersion }

// printVersion loads nothing: libtorch's version is that of its files.
func printVersion(c *cli.Context) {
	var of []string
	if commit != "" && version() != commit {
		of = append(of, "commit "+commit)
	}
	if l, err := torch.FindLibraries(); err == nil {
		of = append(of, "libtorch "+l.Version)
	} else {
		of = append(of, "no libtorch (`cyclecap doctor` says why)")
	}
	fmt.Fprintf(c.App.Writer, "cyclecap %s, %s\n", version(), strings.Join(of, ", "))
}
