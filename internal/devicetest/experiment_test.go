package devicetest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cyclecap/experiment"
	"cyclecap/experiment/config"
	"cyclecap/torch"
	"cyclecap/train/bridge"

	"github.com/google/go-cmp/cmp"
)

const small = `
[world]
size = 32
pretrain = 64
train = 24
val = 6
[train.clip]
width = 64
layers = 1
image = 32
text_width = 64
text_layers = 1
embed_dim = 32
epochs = 1
batch = 32
[train.gpt2]
vocab = 512
width = 64
layers = 1
positions = 48
epochs = 1
batch = 16
[train.decoder]
prefix_length = 4
clip_length = 4
layers = 1
epochs = 1
batch = 24
[train.cyclegan]
epochs = 2
batch = 12
[caption]
beam = 2
max_tokens = 12
[eval]
metrics = ["bleu", "rouge", "cider"]
examples = 2
`

// silent is a user interface that shows nothing.
type silent struct{}

func (silent) Say(string, ...any)                  {}
func (silent) Bar(string, int, int) experiment.Bar { return silent{} }
func (silent) Atomic(f func() error) error         { return f() }
func (silent) Set(int, string)                     {}
func (silent) Finish()                             {}

// run runs a small experiment with every bridge.
func run(t *testing.T, d torch.Device) (dir string) {
	t.Helper()
	dir = t.TempDir()
	path := filepath.Join(dir, "small.toml")
	if err := os.WriteFile(path, []byte(small), 0o666); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, b := range bridge.All() {
		names = append(names, b.Name)
	}
	out := filepath.Join(dir, "out")
	c, err := config.Load(path, []string{"output=" + out, "bridges.use=[" + strings.Join(names, ",") + "]"})
	if err != nil {
		t.Fatal(err)
	}
	c.Device = d.String() // not by a setting, since users cannot choose the pretend accelerator
	x := &experiment.Experiment{Config: c, Dir: c.Output, Seeds: 1, UI: silent{}}
	done, err := x.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	if err := x.Execute(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestExperiment runs all stages, from the rendered photos to the table. On the pretend
// accelerator the captions and the table are the CPU's. On CUDA, where a few steps of
// training leave captions to rounding, every bridge must have its captions and metrics.
func TestExperiment(t *testing.T) {
	got := run(t, device)
	if exact() {
		want := run(t, torch.CPU)
		for _, b := range bridge.All() {
			same(t, want, got, filepath.Join("seed-0", "captions-"+b.Name, "results.json"))
		}
		same(t, want, got, filepath.Join("evaluate", "scores.json")) // table.json also has durations
		return
	}
	var table map[string]map[string]struct{ Value *float64 }
	text, err := os.ReadFile(filepath.Join(got, "table.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &table); err != nil {
		t.Fatal(err)
	}
	for _, b := range bridge.All() {
		for _, m := range []string{"BLEU-1", "BLEU-4", "ROUGE_L", "CIDEr"} {
			if table[b.Name][m].Value == nil {
				t.Errorf("%s has no %s", b.Name, m)
			}
		}
	}
}

func same(t *testing.T, want, got, name string) {
	t.Helper()
	a, err := os.ReadFile(filepath.Join(want, name))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(got, name))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(a), string(b)); diff != "" {
		t.Errorf("%s: %s", name, diff)
	}
}
