// Command setup installs the libraries that package torch loads when it is first
// used: libtorch, and the shim, a small C library that calls libtorch and is
// built from the sources in this module. Run it once, in a module that requires
// this one:
//
//	go run cyclecap/torch/setup
//
// It uses the libtorch that LIBTORCH specifies, or the torch of the python3 on
// the PATH; otherwise it installs a pinned version with pip into the user's cache
// folder. It builds the shim into the same folder, once for each version of its
// sources and of libtorch, with cmake, make and g++. Running it again does
// nothing if everything is in place.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"cyclecap/torch/internal/libtorch"
)

func main() {
	log := func(format string, args ...any) { fmt.Fprintf(os.Stderr, "setup: "+format+"\n", args...) }
	s := setup{log: log}
	only := flag.Bool("libtorch", false, "install only libtorch, and print its folder")
	flag.StringVar(&s.venv, "venv", "", "install the pinned libtorch into the virtual environment `FOLDER` instead of the cache")
	flag.BoolVar(&s.cuda, "cuda", false, "also install the CUDA libraries (2.7 GB)")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: go run %s/torch/setup [options]\n\nInstall libtorch and build the shim that package torch uses to call it.\n\n", libtorch.Module())
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() > 0 {
		log("unexpected argument %q", flag.Arg(0))
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := s.run(ctx, *only); err != nil {
		if ctx.Err() != nil {
			log("interrupted")
			os.Exit(130)
		}
		log("%v", err)
		os.Exit(1)
	}
}

// setup is one run of the command.
type setup struct {
	log   func(format string, args ...any)
	venv  string // "" for a folder in the cache
	cuda  bool
	cache string
}

func (s *setup) run(ctx context.Context, only bool) (err error) {
	if s.cache, err = libtorch.Cache(); err != nil {
		return err
	}
	if s.venv == "" {
		s.venv = filepath.Join(s.cache, "libtorch-"+torchVersion)
	}
	if err := os.MkdirAll(s.cache, 0o777); err != nil {
		return err
	}
	unlock, err := s.lock(filepath.Join(s.cache, "setup.lock"))
	if err != nil {
		return err
	}
	defer unlock()
	l, err := s.libtorch(ctx)
	if err != nil {
		return err
	}
	if only {
		fmt.Println(l.Dir)
		return nil
	}
	s.log("%v", l)
	return s.shim(ctx, l)
}

// lock prevents several runs at the same time. The operating system releases the
// lock when the process ends for whatever reason.
func (s *setup) lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		s.log("waiting for another setup to finish")
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
			f.Close()
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return func() { f.Close() }, nil
}
