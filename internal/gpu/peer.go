package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// A peer is the Python side: gpu.py, which answers lines of JSON.
type peer struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers chan answer
}

type answer struct {
	Ready  bool            `json:"ready"`
	Result json.RawMessage `json:"result"`
	Error  string          `json:"error"`
	broken error           // the process gave no answer
}

// args are the arguments of a request.
type args map[string]any

// errSlow is the error of a request that took too long. The peer is gone then.
var errSlow = errors.New("took too long")

// pythonError is what a request raised; the peer can go on.
type pythonError struct{ text string }

func (e *pythonError) Error() string { return e.text }

func startPeer(name string, arguments ...string) (*peer, error) {
	p := &peer{cmd: exec.Command(name, arguments...), answers: make(chan answer)}
	p.cmd.Stderr = os.Stderr
	p.cmd.Env = append(os.Environ(), "PYTHONWARNINGS=ignore", "PYTHONUNBUFFERED=1")
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.answers)
		lines := bufio.NewReader(out)
		for {
			var a answer
			line, err := lines.ReadBytes('\n')
			if err == nil {
				if err = json.Unmarshal(line, &a); err != nil {
					// A library may print to standard output; it is no answer.
					fmt.Fprintf(os.Stderr, "python: %s", line)
					continue
				}
			}
			a.broken = err
			p.answers <- a
			if err != nil {
				return
			}
		}
	}()
	return p, nil
}

// wait waits for the next answer, and ends the process if it takes too long.
func (p *peer) wait(limit time.Duration) (answer, error) {
	select {
	case a, ok := <-p.answers:
		if !ok {
			return a, errors.New("the Python process has ended")
		}
		if a.broken != nil {
			return a, fmt.Errorf("the Python process ended: %w", a.broken)
		}
		if a.Error != "" {
			return a, &pythonError{a.Error}
		}
		return a, nil
	case <-time.After(limit):
		p.cmd.Process.Kill()
		return answer{}, errSlow
	}
}

// ask sends a request and decodes the result into to, which may be nil.
func (p *peer) ask(limit time.Duration, do string, a args, to any) error {
	request := args{"do": do}
	for k, v := range a {
		request[k] = v
	}
	line, err := json.Marshal(request)
	if err != nil {
		return err
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("the Python process ended: %w", err)
	}
	got, err := p.wait(limit)
	if err != nil || to == nil {
		return err
	}
	return json.Unmarshal(got.Result, to)
}

// stop ends the process.
func (p *peer) stop() {
	p.in.Close()
	go func() {
		for range p.answers { // so that the reader ends
		}
	}()
	done := make(chan struct{})
	go func() { p.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		p.cmd.Process.Kill()
	}
}
