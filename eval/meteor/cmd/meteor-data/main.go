// Meteor-data compiles the METEOR data of the Python package pycocoevalcap 1.2
// (a folder or a wheel) to the index that cyclecap reads.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"cyclecap/eval/meteor"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

func main() {
	out := flag.String("o", meteor.DefaultDir(), "write the index to this folder")
	where := flag.Bool("print-dir", false, "print the folder of the index; exit with status 1 if it has no valid index")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: meteor-data [-o DIR] PYCOCOEVALCAP | meteor-data -print-dir\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	if *where {
		fmt.Println(*out)
		s, err := meteor.Open(*out)
		if err != nil {
			os.Exit(1)
		}
		s.Close()
		return
	}
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	progress := func(done, total int64) {}
	if term.IsTerminal(int(os.Stderr.Fd())) {
		bar := progressbar.DefaultBytes(-1, "compiling")
		defer bar.Finish()
		progress = func(done, total int64) {
			bar.ChangeMax64(total)
			bar.Set64(done)
		}
	} else {
		fmt.Fprintln(os.Stderr, "meteor-data: compiling (takes half a minute)")
	}
	err := meteor.Compile(ctx, flag.Arg(0), *out, progress)
	switch {
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "meteor-data: interrupted")
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Fprintf(os.Stderr, "METEOR data is in %s\n", *out)
}
