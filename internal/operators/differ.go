package operators

import (
	_ "embed"
	"strings"
)

//go:embed differ.txt
var differ string

// Reasons returns why the results of some operators differ from Python's, or are not
// determined, by the operators' names.
func Reasons() map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(differ) {
		if name, reason, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name != "#" {
			out[name] = strings.TrimSpace(reason)
		}
	}
	return out
}
