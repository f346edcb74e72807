package serve

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// python runs a program of clients/ with the clients installed, and returns its output.
func python(t *testing.T, program string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(clients(t), "venv/bin/python"), append([]string{filepath.Join("clients", program)}, args...)...)
	var out, says bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &says
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s%s", program, err, out.String(), says.String())
	}
	return out.Bytes()
}

// kserveServer starts a server with a key and a model whose name has a slash.
func kserveServer(t *testing.T) (url string, args []string, list [][]byte) {
	t.Helper()
	clients(t)
	url, _, _ = start(t, func(o *Options) {
		o.Keys, o.Version = []string{"secret"}, "v9"
		o.Models[0].Name = "cyclecap/world"
	})
	list = photos(t)[:3]
	args, dir := []string{url, "secret"}, t.TempDir()
	for i, p := range list {
		path := filepath.Join(dir, fmt.Sprint(i, ".jpg"))
		if err := os.WriteFile(path, p, 0o666); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	return url, args, list
}

// sameOutputs compares the answers that a client got with those of the server's own routes.
func sameOutputs(t *testing.T, answers map[string]map[string]any, want map[string]any) {
	t.Helper()
	for how, got := range answers {
		if len(got) != len(want) {
			t.Errorf("%s: %d outputs, want %d", how, len(got), len(want))
		}
		for name, list := range got {
			// JSON has made all numbers float64, in which an f32 has the same value.
			w := want[name]
			if f, ok := w.([]float32); ok {
				wide := make([]float64, len(f))
				for i, v := range f {
					wide[i] = float64(v)
				}
				w = wide
			}
			a, _ := json.Marshal(list)
			b, _ := json.Marshal(w)
			if !bytes.Equal(a, b) || w == nil {
				t.Errorf("%s, %s: got %.200s, want %.200s", how, name, a, b)
			}
		}
	}
}

// TestTritonClients uses tritonclient: binary data, JSON, compressed bodies, several at once.
func TestTritonClients(t *testing.T) {
	url, args, list := kserveServer(t)
	type refused struct{ Status, Message string }
	got := decode[struct {
		Live, Ready  bool
		ModelReady   bool `json:"model_ready"`
		VersionReady bool `json:"version_ready"`
		OtherReady   bool `json:"other_ready"`
		Server       struct{ Name, Version string }
		Model        struct {
			Name     string
			Versions []string
			Inputs   []kserveTensor
		}
		Index   []struct{ Name, State string }
		Answers map[string]map[string]any
		ID      string
		NoKey   refused `json:"no key"`
		Picture refused `json:"bad picture"`
		NoModel refused `json:"no model"`
		Version refused
	}](t, string(python(t, "triton_client.py", args...)))
	if !got.Live || !got.Ready || !got.ModelReady || !got.VersionReady || got.OtherReady || got.Server.Name != "cyclecap" || got.Server.Version != "v9" || got.ID != "my-id" {
		t.Errorf("%+v", got)
	}
	if got.Model.Name != "cyclecap/world" || !slices.Equal(got.Model.Versions, []string{"1"}) || len(got.Model.Inputs) != 3 || len(got.Index) != 1 || got.Index[0].State != "READY" {
		t.Errorf("%+v, %+v", got.Model, got.Index)
	}
	for want, e := range map[string]refused{"401 API key": got.NoKey, "400 JPEG": got.Picture, "404 no model": got.NoModel, "404 version": got.Version} {
		status, says, _ := strings.Cut(want, " ")
		if e.Status != status || !strings.Contains(e.Message, says) {
			t.Errorf("%+v, want %s", e, want)
		}
	}
	if len(got.Answers) != 6 {
		t.Errorf("%d answers", len(got.Answers))
	}
	sameOutputs(t, got.Answers, wantedOutputs(t, url, "secret", list, "a red cup", "a blue bird on a table"))
}

// TestKServeClients uses kserve's client.
func TestKServeClients(t *testing.T) {
	url, args, list := kserveServer(t)
	got := decode[struct {
		Live, Ready bool
		ModelReady  bool `json:"model_ready"`
		Answers     map[string]map[string]any
	}](t, string(python(t, "kserve_client.py", args...)))
	if !got.Live || !got.Ready || !got.ModelReady || len(got.Answers) != 2 {
		t.Errorf("%+v", got)
	}
	sameOutputs(t, got.Answers, wantedOutputs(t, url, "secret", list, "a red cup", "a blue bird on a table"))
}

// TestSchemathesisClients lets schemathesis compare the server with /openapi.json: valid and invalid
// requests of every route.
func TestSchemathesisClients(t *testing.T) {
	dir := clients(t)
	url, _, _ := start(t, func(o *Options) { o.Keys = []string{"secret"} })
	hooks, err := filepath.Abs("clients/schemathesis_hooks.py")
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"--config-file", strings.TrimSuffix(hooks, "_hooks.py") + ".toml",
		"run", url + "/openapi.json", "--header", "Authorization: Bearer secret", "--max-examples", "30", "--continue-on-failure", "--no-color",
		// A valid request must have a photo, and no schema can say what a JPEG file is:
		// the other clients send photos.
		"--checks", "all", "--exclude-checks", "positive_data_acceptance"}
	if seed := os.Getenv("CYCLECAP_SEED"); seed != "" {
		args = append(args, "--seed", seed)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "venv/bin/schemathesis"), args...)
	cmd.Dir = t.TempDir() // it writes caches
	cmd.Env = append(os.Environ(), "SCHEMATHESIS_HOOKS="+hooks)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}
