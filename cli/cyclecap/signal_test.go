package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// An interrupted command ends soon, says so, and leaves no file behind.
func TestInterrupted(t *testing.T) {
	// Enough work for many seconds, of which each batch takes a part. The last
	// photo is missing, which a command tells when it gets that far.
	var many []string
	for range 400 {
		many = append(many, photos(t, 20)...)
	}
	many = append(many, "the-last-photo.jpg")
	long := map[string][]string{
		"features": append([]string{"features", "--clip", in("clip.pt"), "--batch", "8", "-o", "out.safetensors", "--images"}, many...),
		"caption":  append(pipelineFlags("--batch", "8"), many...),
		"tokenize": {"tokenize", "--tokenizer", "gpt2"}, // waits for input
	}
	for name, args := range long {
		for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
			t.Run(name+"/"+signal.String(), func(t *testing.T) {
				c := exec.Command(program, args...)
				c.Dir = t.TempDir()
				var stdout, stderr buffer
				c.Stdout, c.Stderr = &stdout, &stderr
				stdin, err := c.StdinPipe() // stays open: there may be more input
				if err != nil {
					t.Fatal(err)
				}
				defer stdin.Close()
				if err := c.Start(); err != nil {
					t.Fatal(err)
				}
				if name == "tokenize" {
					io.WriteString(stdin, "\"a\"\n")
					await(t, c, func() bool { return stdout.Len() > 0 })
				} else {
					await(t, c, func() bool { return maps(c, "clip.pt") })
				}
				if err := c.Process.Signal(signal); err != nil {
					t.Fatalf("it has ended by itself: %v; standard error:\n%s", err, stderr.String())
				}
				kill := time.AfterFunc(limit, func() { c.Process.Kill() })
				c.Wait()
				kill.Stop()
				if strings.Contains(stderr.String(), "the-last-photo.jpg") {
					t.Error("it ended when all its work was done, and not before")
				}
				result{c.ProcessState.ExitCode(), "", stderr.String()}.want(t, 130, "cyclecap: interrupted\n")
				empty(t, c.Dir)
			})
		}
	}
}

// await waits until a command is in the middle of its work.
func await(t *testing.T, c *exec.Cmd, ready func() bool) {
	t.Helper()
	for begin := time.Now(); !ready(); time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > limit {
			c.Process.Kill()
			t.Fatalf("it has not begun within %v", limit)
		}
	}
}

// maps tells whether a command has a file in its memory, as weights are.
func maps(c *exec.Cmd, file string) bool {
	list, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", c.Process.Pid))
	return err == nil && bytes.Contains(list, []byte(file))
}

// buffer collects output and can be looked at meanwhile.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Len()
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// An interruption leaves a file that was there as it was.
func TestInterruptedOverAFile(t *testing.T) {
	folder := t.TempDir()
	out := filepath.Join(folder, "out.safetensors")
	if err := os.WriteFile(out, []byte("before"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(program, "features", "--clip", in("clip.pt"), "-o", out, "--images")
	for range 400 {
		c.Args = append(c.Args, photos(t, 20)...)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, c, func() bool { return maps(c, "clip.pt") })
	c.Process.Signal(os.Interrupt)
	c.Wait()
	if code := c.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit code %d", code)
	}
	if data, err := os.ReadFile(out); err != nil || string(data) != "before" {
		t.Errorf("the file holds %q (%v)", data, err)
	}
}

// A full disk behind standard output is a failure.
func TestFullOutput(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for name, args := range map[string][]string{
		"doctor":   {"doctor"},
		"help":     {"--help"},
		"inspect":  {"inspect", in("clip.pt")},
		"tokenize": {"tokenize", "--tokenizer", "clip"},
		"caption":  append(pipelineFlags("--json"), photos(t, 1)...),
	} {
		t.Run(name, func(t *testing.T) {
			c := exec.Command(program, args...)
			var stderr bytes.Buffer
			c.Stdin, c.Stdout, c.Stderr = strings.NewReader("\"a\"\n"), full, &stderr
			c.Run()
			result{c.ProcessState.ExitCode(), "", stderr.String()}.want(t, 1, "no space left")
		})
	}
}

// Whoever talks to tokenize line by line gets each answer before the next
// question.
func TestTokenizeAnswersAtOnce(t *testing.T) {
	c := exec.Command(program, "tokenize", "--tokenizer", "gpt2")
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(limit, func() { c.Process.Kill() }).Stop()
	for _, x := range [][2]string{{`"Hello world"`, "[15496,995]\n"}, {`""`, "[]\n"}, {`"\n"`, "[198]\n"}} {
		if _, err := io.WriteString(stdin, x[0]+"\n"); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, len(x[1]))
		if _, err := io.ReadFull(stdout, answer); err != nil || string(answer) != x[1] {
			t.Errorf("%s: %q (%v), want %q", x[0], answer, err, x[1])
		}
	}
	stdin.Close()
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
}

// Results and messages do not mix: a bad photo is told on standard error.
func TestStreams(t *testing.T) {
	good := photos(t, 2)
	bad := filepath.Join(t.TempDir(), "nowhere.jpg")
	r := cyclecap(t, "", append(pipelineFlags("--json"), good[0], bad, good[1])...)
	r.want(t, 1, bad, "no such file", "1 of 3 photos could not be captioned")
	want := []string{filepath.Base(good[0]) + " direct", filepath.Base(good[1]) + " direct"}
	if got := where(captionLines(t, r.stdout)); !slices.Equal(got, want) {
		t.Errorf("the other photos have to be captioned: %v, want %v", got, want)
	}
	for _, args := range [][]string{{"--help"}, {"help", "caption"}, {"caption", "--help"}, {"--version"}, {"doctor", "--json"}} {
		r := cyclecap(t, "", args...)
		r.want(t, 0)
		if len(r.stdout) < 5 {
			t.Errorf("%q prints %q", args, r.stdout)
		}
	}
}
