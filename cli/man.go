package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"cyclecap/internal/atomicfile"

	"github.com/urfave/cli/v2"
)

// manPage has the same contents as --help. The library's own pages lack the
// descriptions and the examples.
var manPage = template.Must(template.New("").Funcs(template.FuncMap{"roff": roff}).Parse(
	`.TH {{roff .Name}} 1 "" "{{roff .Version}}" "User Commands"
.SH NAME
{{roff .Name}} \- {{roff .Usage}}
.SH SYNOPSIS
.B {{roff .Call}}
{{roff .Arguments}}
{{- if .Description}}
.SH DESCRIPTION
.nf
{{roff .Description}}
.fi
{{- end}}{{if .Commands}}
.SH COMMANDS
{{- range .Commands}}
.TP
.B {{roff .Name}}
{{roff .Usage}}
{{- end}}{{end}}{{if .Options}}
.SH OPTIONS
{{- range .Options}}
.TP
.B {{roff .Name}}
{{roff .Usage}}
{{- end}}{{end}}{{if .Examples}}
.SH EXAMPLES
.nf
{{roff .Examples}}
.fi
{{- end}}{{if .SeeAlso}}
.SH SEE ALSO
{{- range .SeeAlso}}
.BR {{roff .}} (1)
{{- end}}{{end}}
`))

type named struct{ Name, Usage string }

type manual struct {
	named
	Version, Call, Arguments, Description, Examples string
	Commands, Options                               []named
	SeeAlso                                         []string
}

var roffEscapes = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", "\\(ga", "~", `\(ti`, "^", `\(ha`)

// roff escapes text so that it is printed as it is. A line that begins with a
// period would be a request.
func roff(s string) string {
	lines := strings.Split(roffEscapes.Replace(s), "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}

// manCommand is hidden, since only those who make a release need it.
func manCommand() *cli.Command {
	return &cli.Command{
		Name:        "man",
		Usage:       "write the manual pages to a folder",
		UsageText:   "DIR",
		Hidden:      true,
		Description: "EXAMPLES:\n   cyclecap man ~/.local/share/man/man1",
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usagef("man takes one DIR, the folder to write to")
			}
			dir := c.Args().First()
			if err := os.MkdirAll(dir, 0o777); err != nil {
				return err
			}
			top := manual{named: named{"cyclecap", c.App.Usage}, Call: "cyclecap", Arguments: "COMMAND [options] [arguments]"}
			for _, cmd := range c.App.VisibleCommands() {
				if err := writeManuals(dir, "cyclecap", cmd); err != nil {
					return err
				}
				top.Commands = append(top.Commands, named{cmd.Name, cmd.Usage})
				top.SeeAlso = append(top.SeeAlso, "cyclecap-"+cmd.Name)
			}
			top.Options = options(c.App.VisibleFlags())
			return top.write(dir)
		},
	}
}

// writeManuals writes the pages of a command and of its subcommands.
func writeManuals(dir, parent string, cmd *cli.Command) error {
	call := parent + " " + cmd.Name
	m := manual{named: named{strings.ReplaceAll(call, " ", "-"), cmd.Usage}, Call: call, Arguments: cmd.UsageText,
		Options: options(cmd.VisibleFlags()), SeeAlso: []string{strings.ReplaceAll(parent, " ", "-")}}
	m.Description, m.Examples, _ = strings.Cut(cmd.Description, "EXAMPLES:\n")
	m.Description = strings.TrimSpace(m.Description)
	for _, sub := range cmd.Subcommands {
		if sub.Hidden || sub.Name == "help" {
			continue
		}
		if err := writeManuals(dir, call, sub); err != nil {
			return err
		}
		m.Commands = append(m.Commands, named{sub.Name, sub.Usage})
		m.SeeAlso = append(m.SeeAlso, strings.ReplaceAll(call+" "+sub.Name, " ", "-"))
	}
	return m.write(dir)
}

// options returns flags as the help prints them. The library separates name and
// usage with a tab.
func options(flags []cli.Flag) []named {
	var list []named
	for _, f := range flags {
		name, usage, _ := strings.Cut(f.String(), "\t")
		list = append(list, named{strings.TrimSpace(name), strings.TrimSpace(usage)})
	}
	return list
}

func (m manual) write(dir string) error {
	m.Version = "cyclecap " + version()
	var page bytes.Buffer
	if err := manPage.Execute(&page, m); err != nil {
		return err
	}
	return atomicfile.WriteBytes(filepath.Join(dir, m.Name+".1"), page.Bytes())
}
