package serve

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func config(t *testing.T, text string) (o Options, err error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "serve.toml")
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	o = DefaultOptions()
	o.Models = []ModelConfig{worldModel()}
	if err := ReadConfig(path, &o, worldModel()); err != nil {
		return o, err
	}
	return o, o.Check()
}

func TestReadConfig(t *testing.T) {
	o, err := config(t, `
listen = ":9000"
queue = 5
queue_timeout = "3s"
batch_window = "5ms"
allow_hosts = ["photos.example"]
public = []

[[model]]
name = "drawn"
decode = "beam"
beam = 3

[[model]]
name = "openai/clip"
clip = "clip.pt"
gap = "gap.json"
dtype = "bf16"
batch = 8
`)
	if err != nil {
		t.Fatal(err)
	}
	if o.Listen != ":9000" || o.Queue != 5 || o.QueueTimeout != 3*time.Second || o.BatchWindow != 5*time.Millisecond || len(o.AllowHosts) != 1 || len(o.Public) != 0 || o.MaxBatch != 32 {
		t.Errorf("%+v", o)
	}
	a, b := o.Models[0], o.Models[1]
	if a.Name != "drawn" || a.Files.FS == nil || a.Options.Beam != 3 || a.Batch != 16 || a.Options.Method != "beam" {
		t.Errorf("%+v", a)
	}
	if b.Name != "openai/clip" || b.Files.CLIP != "clip.pt" || b.Gap != "gap.json" || a.Gap != worldModel().Gap || b.Files.FS != nil || !b.Compute.BF16 || b.Batch != 8 {
		t.Errorf("%+v", b)
	}
}

func TestConfigErrors(t *testing.T) {
	for text, says := range map[string]string{
		"quue = 5":                                    "quue: unknown key; did you mean queue?",
		"[[model]]\nname = \"a\"\nclp = \"\"":         "model.clp: unknown key; did you mean clip?",
		"queue = \"five\"":                            "serve.toml:1: queue: must be of type integer, got string",
		"queue = 0":                                   "queue: must be between 1",
		"queue_timeout = \"fast\"":                    "not a length of time",
		"queue = ":                                    "serve.toml:1:",
		"public = [\"all\"]":                          "public: must be health, metrics or page",
		"tls_cert = \"a.pem\"":                        "both are needed",
		"listen = \"here\"":                           "not an address",
		"[[model]]\nname = \"a b\"":                   "model name",
		"[[model]]\nname = \"a:b\"":                   "model name",
		"[[model]]\nname = \"a\"\ndtype = \"f16\"":    "dtype: must be f32 or bf16",
		"[[model]]\nname = \"a\"\ndevice = \"gpu\"":   "device",
		"[[model]]\nname = \"a\"\ngap = \"g.json\"":   "gap: the models in the program have a picture of their own",
		"[[model]]\nname = \"a\"\nbatch = 0":          "batch: must be between",
		"[[model]]\nname = \"a\"\ndecoder = \"d.pt\"": "clip is missing",
	} {
		if _, err := config(t, text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: got %v, want %q", text, err, says)
		}
	}
}

func TestReadKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	for text, want := range map[string]string{"a\n\n# b\n  c \n": "a c", "# none\n": ""} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		keys, err := ReadKeys(path)
		if got := strings.Join(keys, " "); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", text, keys, err)
		}
	}
}
