// Command ptbline tokenizes captions, one a line, as package ptb does.
package main

import (
	"bufio"
	"os"
	"strings"

	"cyclecap/eval/ptb"
)

func main() {
	in := bufio.NewReader(os.Stdin)
	out := bufio.NewWriter(os.Stdout)
	for {
		line, err := in.ReadString('\n')
		if err != nil && line == "" {
			break
		}
		out.WriteString(ptb.Tokenize(strings.TrimSuffix(line, "\n")) + "\n")
	}
	out.Flush()
}
