// Command cyclecap captions photos with CLIP, GPT-2 and translated features.
package main

import (
	"os"

	"cyclecap/cli"
)

func main() { os.Exit(cli.Main(os.Args, os.Stdin, os.Stdout, os.Stderr)) }
