package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/weights"
)

// env is what a section works with.
type env struct {
	settings
	on       torch.Device
	deadline time.Time
	side     *peer
	sizes    struct {
		Tokens, Images, Features, Caption int
		GANBatch                          int `json:"gan_batch"`
		Stop                              int64
	}
	out *json.Encoder
}

// runSection runs a section in this process and prints its rows.
func runSection(s settings, name string, left time.Duration) error {
	for _, c := range chapters {
		if c.name != name || c.run == nil {
			continue
		}
		e := &env{settings: s, deadline: time.Now().Add(left), out: json.NewEncoder(os.Stdout)}
		var err error
		// CUDA is opened before anything else asks libtorch about it.
		if e.on, err = torch.ParseDevice(s.device); err != nil {
			return err
		}
		torch.SetNumThreads(s.threads)
		defer func() {
			if e.side != nil {
				e.side.stop()
			}
		}()
		return c.run(e)
	}
	return fmt.Errorf("unknown section %q", name)
}

// left returns the time that is left.
func (e *env) left() time.Duration { return max(0, time.Until(e.deadline)) }

// add prints a row.
func (e *env) add(r row) { e.out.Encode(r) }

// python returns the peer, which has written the weights, and starts it if necessary.
func (e *env) python() (*peer, error) {
	if e.side != nil {
		return e.side, nil
	}
	p, err := startPeer(e.settings.python, filepath.Join(e.scripts, "gpu.py"), "serve", e.work,
		"--size", size(e.settings), "--device", e.device, "--threads", fmt.Sprint(e.threads))
	if err != nil {
		return nil, err
	}
	if _, err := p.wait(e.left()); err != nil {
		return nil, fmt.Errorf("starting Python: %w", err)
	}
	if err := p.ask(e.left(), "make", nil, &e.sizes); err != nil {
		return nil, fmt.Errorf("making the weights: %w", err)
	}
	e.side = p
	return p, nil
}

// ask asks the peer. If the peer is lost, the next call starts another.
func (e *env) ask(limit time.Duration, do string, a args, to any) error {
	p, err := e.python()
	if err != nil {
		return err
	}
	err = p.ask(min(limit, e.left()), do, a, to)
	var raised *pythonError
	if err != nil && !errors.As(err, &raised) {
		p.stop()
		e.side = nil
	}
	return err
}

// reference has the peer compute tensors and returns them, with facts decoded into to.
func (e *env) reference(name string, a args, to any) (*nn.StateDict, error) {
	file := filepath.Join(e.work, "reference.safetensors")
	request := args{"name": name, "file": file}
	for k, v := range a {
		request[k] = v
	}
	if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	if err := e.ask(e.left(), "reference", request, to); err != nil {
		return nil, fmt.Errorf("the reference of %s: %w", name, err)
	}
	if _, err := os.Stat(file); err != nil {
		return nil, nil // facts only
	}
	return load(file)
}

func load(path string) (*nn.StateDict, error) {
	f, err := weights.Open(path)
	if err != nil {
		return nil, err
	}
	return f.Load()
}

func (e *env) path(name string) string { return filepath.Join(e.work, name) }
