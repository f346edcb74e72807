package serve

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestClientsOpenAI runs the programs that use the server through clients of OpenAI's and Ollama's
// APIs. Each checks what it gets.
func TestClientsOpenAI(t *testing.T) {
	dir := clients(t)
	url, _, _ := start(t, nil)
	locked, _, _ := start(t, func(o *Options) { o.Keys = []string{"secret"} })
	var paths []string
	for i, p := range photos(t)[:2] {
		path := filepath.Join(t.TempDir(), fmt.Sprintf("%d.jpg", i))
		if err := os.WriteFile(path, p, 0o666); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	python := filepath.Join(dir, "venv", "bin", "python")
	for program, command := range map[string][]string{
		"openai_client.py":  {python, url, locked},
		"openai_client.mjs": {"node", url},
		"ollama_client.py":  {python, url},
		"ollama_client.mjs": {"node", url},
	} {
		t.Run(program, func(t *testing.T) {
			args := append([]string{filepath.Join("clients", program)}, command[1:]...)
			out, err := exec.CommandContext(t.Context(), command[0], append(args, paths...)...).CombinedOutput()
			if err != nil || !strings.HasSuffix(string(out), "ok\n") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
