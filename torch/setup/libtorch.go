package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"cyclecap/torch/internal/libtorch"
)

const torchVersion = "2.11.0"

// pinned is torch and the two small CUDA libraries that it links even on machines
// without a GPU.
var pinned = []string{"torch==" + torchVersion, "nvidia-cuda-runtime==13.0.96", "nvidia-cuda-cupti==13.0.85"}

// libtorch returns the libtorch to use, and installs one if there is none.
func (s *setup) libtorch(ctx context.Context) (libtorch.Libtorch, error) {
	l, set, err := libtorch.FromEnvironment()
	if err != nil {
		return l, err
	}
	if set {
		if err := usable(l); err != nil {
			return l, fmt.Errorf("cannot use LIBTORCH: %w", err)
		}
	} else if found, ok := libtorch.FromPython(); ok {
		l = found
		if err := usable(l); err != nil {
			s.log("cannot use the torch of python3: %v", err)
			l = libtorch.Libtorch{}
		}
	}
	if l.Dir == "" || !set && within(l.Dir, s.venv) {
		return s.install(ctx)
	}
	if s.cuda {
		s.log("ignoring -cuda: using the existing libtorch at %s as it is", l.Dir)
	}
	return l, nil
}

// usable returns an error if the shim cannot be built with a libtorch.
func usable(l libtorch.Libtorch) error {
	if libtorch.Older(l.Release(), libtorch.Minimum) {
		return fmt.Errorf("%v is too old: %s or newer is required", l, libtorch.Minimum)
	}
	if _, err := os.Stat(filepath.Join(l.Dir, "include", "ATen", "ATen.h")); err != nil {
		return fmt.Errorf("%v has no headers: include/ATen/ATen.h is missing", l)
	}
	return nil
}

func within(path, dir string) bool {
	dir, err := filepath.Abs(dir)
	return err == nil && strings.HasPrefix(path, dir+string(filepath.Separator))
}

// install installs the pinned libtorch into the virtual environment.
func (s *setup) install(ctx context.Context) (libtorch.Libtorch, error) {
	for _, again := range [][]string{nil, {"--force-reinstall"}} {
		if err := s.pip(ctx, "libtorch", "libtorch "+torchVersion+" (544 MB)", append([]string{"--no-deps"}, pinned...), again); err != nil {
			return libtorch.Libtorch{}, err
		}
		if s.cuda {
			if err := s.pip(ctx, "cuda", "the CUDA libraries (2.7 GB)", pinned, again); err != nil {
				return libtorch.Libtorch{}, err
			}
		}
		dirs, err := filepath.Glob(filepath.Join(s.venv, "lib", "python3*", "site-packages", "torch"))
		if err != nil {
			return libtorch.Libtorch{}, err
		}
		for _, dir := range dirs {
			if l, err := libtorch.At(dir); err == nil && l.Release() == torchVersion && usable(l) == nil {
				return l, nil
			}
		}
		// It was installed and has since been removed, which pip may not notice.
		for _, stamp := range []string{"libtorch", "cuda"} {
			if err := os.Remove(filepath.Join(s.venv, stamp)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return libtorch.Libtorch{}, err
			}
		}
	}
	return libtorch.Libtorch{}, fmt.Errorf("pip installed torch %s into %s, but lib/python3*/site-packages/torch is missing there or has another version; remove that folder and try again", torchVersion, s.venv)
}

// pip installs packages, once for each list. A stamp file, written at the end,
// marks a complete installation.
func (s *setup) pip(ctx context.Context, name, what string, args, options []string) error {
	stamp, list := filepath.Join(s.venv, name), strings.Join(args, " ")
	if old, err := os.ReadFile(stamp); err == nil && strings.TrimSpace(string(old)) == list {
		return nil
	}
	const instead = "or set LIBTORCH to the folder of an existing libtorch (with include/ and lib/)"
	python := filepath.Join(s.venv, "bin", "python")
	if exec.CommandContext(ctx, python, "-m", "pip", "--version").Run() != nil {
		if _, err := exec.LookPath("python3"); err != nil {
			return fmt.Errorf("installing libtorch requires pip, but there is no python3: on Debian and Ubuntu, run `apt-get install python3 python3-venv`, %s", instead)
		}
		if err := told(ctx, "python3", "-m", "venv", s.venv); err != nil {
			return fmt.Errorf("python3 could not create a virtual environment in %s (see the output above): on Debian and Ubuntu, run `apt-get install python3-venv`, %s", s.venv, instead)
		}
	}
	s.log("installing %s into %s", what, s.venv)
	if err := told(ctx, python, slices.Concat([]string{"-m", "pip", "install", "-q", "--disable-pip-version-check"}, options, args)...); err != nil {
		return fmt.Errorf("pip could not install %s (see the output above): try again, %s", what, instead)
	}
	return os.WriteFile(stamp, []byte(list+"\n"), 0o666)
}

// told runs a program and shows its output to the user.
func told(ctx context.Context, name string, args ...string) error {
	c := command(ctx, name, args...)
	c.Stdout, c.Stderr = os.Stderr, os.Stderr
	return c.Run()
}

// command is a program that ends with all that it has started when setup is
// interrupted.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, name, args...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGTERM) }
	c.WaitDelay = 10 * time.Second
	return c
}
