package cli

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// arrange moves options to the front, where Go's flag parser needs them, since
// people also write them after the files. An option that takes a list also takes
// the words that follow it, up to the next option:
//
//	--images a.jpg b.jpg -o out.safetensors
//
// becomes --images=a.jpg --images=b.jpg -o out.safetensors. Such options have a
// placeholder that ends in "…". No word after "--" is an option.
func arrange(args []string, commands []*cli.Command) []string {
	const completion = "--generate-bash-completion" // must stay the last word
	if len(args) < 3 || args[len(args)-1] == completion {
		return args
	}
	i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(args[1]) })
	if i < 0 {
		return args
	}
	// The words that name the command stay where they are.
	command, named := commands[i], 2
	for _, sub := range command.Subcommands {
		if sub.HasName(args[2]) {
			command, named = sub, 3
		}
	}
	flags := map[string]cli.Flag{}
	lists := map[string]bool{} // options whose placeholder ends in "…"
	for _, f := range command.Flags {
		for _, name := range f.Names() {
			flags[name] = f
			if s, ok := f.(*cli.StringSliceFlag); ok {
				lists[name] = strings.Contains(s.Usage, "…`")
			}
		}
	}

	options := slices.Clone(args[:named])
	var operands []string
	list := "" // the list option that takes the words that follow
	word := func(s string) {
		if list != "" {
			options = append(options, "--"+list+"="+s)
		} else {
			operands = append(operands, s)
		}
	}
	for rest := args[named:]; len(rest) > 0; rest = rest[1:] {
		arg := rest[0]
		if arg == "--" {
			for _, s := range rest[1:] {
				word(s)
			}
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			word(arg)
			continue
		}
		if arg == "--help" || arg == "-h" {
			return append(slices.Clone(args[:named]), "--help") // whatever the other arguments are
		}
		options = append(options, arg)
		list = ""
		name, _, valued := strings.Cut(strings.TrimPrefix(arg[1:], "-"), "=")
		switch flags[name].(type) {
		case nil, *cli.BoolFlag: // the parser reports unknown options
			continue
		}
		if lists[name] {
			list = name
		}
		if !valued {
			if len(rest) == 1 {
				return options // the parser reports the missing value
			}
			rest = rest[1:]
			options = append(options, rest[0])
		}
	}
	return append(append(options, "--"), operands...)
}
