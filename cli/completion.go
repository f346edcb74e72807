package cli

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

// bashCompletion asks the program itself for completions, and falls back to file
// names if there are none.
const bashCompletion = `_cyclecap() {
	local IFS=$'\n' word=${COMP_WORDS[COMP_CWORD]} list
	local words=("${COMP_WORDS[@]:0:COMP_CWORD}")
	if [[ $word == -* ]]; then
		list=$("${words[@]}" "$word" --generate-bash-completion 2>/dev/null)
	elif ((COMP_CWORD == 1)); then
		list=$("${words[@]}" --generate-bash-completion 2>/dev/null)
	fi
	COMPREPLY=($(compgen -W "$list" -- "$word"))
}
complete -o default -o bashdefault -F _cyclecap cyclecap
`

// zshCompletion runs the bash completion in zsh.
const zshCompletion = `autoload -U +X compinit && compinit -u
autoload -U +X bashcompinit && bashcompinit
` + bashCompletion

func completionCommand() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print a shell completion script",
		UsageText: "bash|zsh|fish",
		Description: `EXAMPLES:
   source <(cyclecap completion bash)
   cyclecap completion fish > ~/.config/fish/completions/cyclecap.fish`,
		Action: func(c *cli.Context) (err error) {
			if c.NArg() != 1 {
				return usagef("completion takes the name of one shell: bash, zsh or fish")
			}
			text := ""
			switch shell := c.Args().First(); shell {
			case "bash":
				text = bashCompletion
			case "zsh":
				text = zshCompletion
			case "fish":
				if text, err = c.App.ToFishCompletion(); err != nil {
					return err
				}
			default:
				return usagef("completion %s: the shell must be bash, zsh or fish", shell)
			}
			_, err = fmt.Fprint(c.App.Writer, text)
			return err
		},
	}
}
