package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startServer starts `cyclecap serve` and waits until it is ready.
func startServer(t *testing.T, args ...string) (url string, c *exec.Cmd, said *output) {
	t.Helper()
	c = exec.Command(program, append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)...)
	said = &output{}
	c.Stderr = said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if m := regexp.MustCompile(`"url":"(http://[^"]*)/"`).FindStringSubmatch(said.String()); m != nil && strings.Contains(said.String(), `"msg":"ready"`) {
			return m[1], c, said
		}
		if time.Since(begin) > limit {
			t.Fatalf("it is not ready:\n%s", said)
		}
	}
}

// TestServe starts the server with files, asks for a caption, which must have the bits of the
// command's, reloads it while requests run, and ends it.
func TestServe(t *testing.T) {
	flags := pipelineFlags()[1:] // without the name of the command
	photo := photos(t, 1)[0]
	url, c, said := startServer(t, flags...)
	file, err := os.ReadFile(photo)
	if err != nil {
		t.Fatal(err)
	}
	ask := func() (line struct {
		Photos []struct {
			Captions []struct {
				Text    string
				LogProb float64
			}
		}
	}) {
		t.Helper()
		r, err := http.Post(url+"/caption", "image/jpeg", bytes.NewReader(file))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != http.StatusOK || json.Unmarshal(b, &line) != nil {
			t.Fatal(err, r.Status, string(b))
		}
		return line
	}
	got := ask().Photos[0].Captions
	out, err := exec.Command(program, append(append(pipelineFlags(), "--json"), photo)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(out))
	for i, c := range got {
		var want struct {
			Caption string
			LogProb float64
		}
		if err := d.Decode(&want); err != nil {
			t.Fatal(err)
		}
		if c.Text != want.Caption || c.LogProb != want.LogProb {
			t.Errorf("caption %d: %q (%v), the command has %q (%v)", i, c.Text, c.LogProb, want.Caption, want.LogProb)
		}
	}

	// Requests go on while the models are loaded again.
	if err := c.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); strings.Count(said.String(), `"msg":"ready"`) < 2; {
		ask()
		if time.Since(begin) > limit {
			t.Fatalf("it was not reloaded:\n%s", said)
		}
	}
	ask()
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := ends(t, c, limit); code != 0 {
		t.Errorf("it ended with %d:\n%s", code, said)
	}
}

// TestServeErrors starts the server wrongly.
func TestServeErrors(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"photo.jpg"}, 2, "serve takes no arguments"},
		{[]string{"--decoder", "d.pt"}, 2, "--clip is required"},
		{[]string{"--clip", "missing.pt", "--decoder", "d.pt"}, 1, "missing.pt"},
		{[]string{"--listen", "here"}, 2, "not an address"},
		{[]string{"--listen", "192.0.2.1:80"}, 1, "--listen 192.0.2.1:80"},
		{[]string{"--queue", "0"}, 2, "queue"},
		{[]string{"--config", "missing.toml"}, 1, "missing.toml"},
		{[]string{"--tls-cert", "a.pem"}, 2, "tls-key"},
		{[]string{"--api-key-file", "missing"}, 1, "missing"},
		{[]string{"--fetch-host", "127.0.0.1"}, 1, "--fetch-host"},
		{[]string{"--name", "a:b"}, 2, "model name"},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			cyclecap(t, "", append([]string{"serve"}, c.args...)...).want(t, c.code, c.says)
		})
	}
}
