package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/term"
)

// A peer is a process that answers "run NAME" lines.
type peer struct {
	name  string
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Reader
	hello answer
}

// An answer is a line that a peer prints.
type answer struct {
	Ready   bool    `json:"ready"`
	Torch   string  `json:"torch"`
	Threads int     `json:"threads"`
	Seconds float64 `json:"seconds"`
	Result  output  `json:"result"`
}

// command returns a command whose error output goes to stderr.
func command(name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	c.Stderr = os.Stderr
	// Silence the progress bars and advice of transformers.
	c.Env = append(os.Environ(), "HF_HUB_OFFLINE=1", "HF_HUB_DISABLE_PROGRESS_BARS=1", "TRANSFORMERS_VERBOSITY=error", "PYTHONWARNINGS=ignore")
	return c
}

func startPeer(name string, args ...string) (*peer, error) {
	p := &peer{name: filepath.Base(name), cmd: command(name, args...)}
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	if p.hello, err = p.read(); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *peer) read() (answer, error) {
	var a answer
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		return a, fmt.Errorf("%s stopped: %w", p.name, err)
	}
	if err := json.Unmarshal(line, &a); err != nil {
		return a, fmt.Errorf("%s said %q: %w", p.name, line, err)
	}
	return a, nil
}

func (p *peer) ask(workload string) (answer, error) {
	if _, err := fmt.Fprintf(p.in, "run %s\n", workload); err != nil {
		return answer{}, err
	}
	return p.read()
}

// stop ends the process by closing its input. A second call does nothing.
func (p *peer) stop() {
	if p.cmd.ProcessState == nil {
		p.in.Close()
		p.cmd.Wait()
	}
}

// progress overwrites a line of the terminal.
func progress(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if term.IsTerminal(int(os.Stderr.Fd())) {
		fmt.Fprintf(os.Stderr, "\r\x1b[K%s", text)
	} else {
		fmt.Fprintln(os.Stderr, text)
	}
}
