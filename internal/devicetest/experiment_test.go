package devicetest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cyclecap/experiment"
	"cyclecap/experiment/config"
	"cyclecap/internal/experimenttest"
	"cyclecap/torch"
	"cyclecap/train/bridge"

	"github.com/google/go-cmp/cmp"
)

// run runs a small experiment with every bridge.
func run(t *testing.T, d torch.Device) (dir string) {
	t.Helper()
	dir = t.TempDir()
	path := filepath.Join(dir, "small.toml")
	if err := os.WriteFile(path, []byte(experimenttest.Small), 0o666); err != nil {
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
	x := &experiment.Experiment{Config: c, Dir: c.Output, Seeds: 1, UI: experiment.Silent{}}
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
