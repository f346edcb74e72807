package experiment

import (
	"context"
	"encoding/json"
	"flag"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"cyclecap/experiment/config"
	"cyclecap/torch/compare"

	"github.com/google/go-cmp/cmp"
)

var record = flag.Bool("record", false, "record the losses of TestStandins")

// TestStandins runs the first steps of configs/standins-text.toml and configs/standins.toml
// in f32, on fewer scenes and with smaller batches, and compares their losses with recorded
// ones: bit for bit on the processor that they were recorded on.
func TestStandins(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	run := func(name, until string, more ...string) (dir string) {
		dir = t.TempDir()
		c, err := config.Load("../configs/"+name, append([]string{"output=" + dir, "threads=1", "world.pretrain=160",
			"train.clip.batch=16", "train.clip.epochs=2", "train.clip.warmup_steps=5", "train.clip.dtype=f32"}, more...))
		if err != nil {
			t.Fatal(err)
		}
		x := &Experiment{Config: c, Dir: c.Output, Seeds: 1, UI: &quiet{}}
		done, err := x.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer done()
		if err := x.Execute(context.Background(), until); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	read := func(folder ...string) (out []float64) {
		series, err := lossesOf(filepath.Join(append(folder, "metrics.jsonl")...))
		if err != nil {
			t.Fatal(err)
		}
		return series[:20]
	}
	text := run("standins-text.toml", "clip")
	both := run("standins.toml", "gpt2", "train.clip.text=../models/world/clip.safetensors",
		"train.gpt2.batch=4", "train.gpt2.warmup_steps=5", "train.gpt2.dtype=f32")
	type recorded struct {
		Processor        string
		Text, CLIP, GPT2 []float64
	}
	here, err := compare.Processor()
	if err != nil {
		t.Fatal(err)
	}
	have := recorded{here, read(text, "clip"), read(both, "clip"), read(both, "gpt2")}
	const file = "testdata/standins.json"
	if *record {
		b, err := json.MarshalIndent(have, "", "\t")
		if err == nil {
			err = os.WriteFile(file, append(b, '\n'), 0o666)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var want recorded
	if err := readJSON(file, &want); err != nil {
		t.Fatal(err)
	}
	if have.Processor == want.Processor {
		if diff := cmp.Diff(want, have); diff != "" {
			t.Errorf("the losses have changed; record them anew with -record if that is right (-recorded +now):\n%s", diff)
		}
		return
	}
	t.Logf("recorded on %s: within 0.1 %%", want.Processor)
	for name, of := range map[string][2][]float64{"text encoder": {want.Text, have.Text}, "CLIP": {want.CLIP, have.CLIP}, "GPT-2": {want.GPT2, have.GPT2}} {
		for i, w := range of[0] {
			if h := of[1][i]; !(math.Abs(h-w) <= 1e-3*w) {
				t.Errorf("%s, step %d: a loss of %g, want %g", name, i+1, h, w)
			}
		}
	}
}

// lossesOf returns the losses of all steps.
func lossesOf(path string) (out []float64, err error) {
	series, err := losses(path, map[string]string{"loss": "loss"})
	if err != nil {
		return nil, err
	}
	for _, p := range series[0].Points {
		out = append(out, p.Value)
	}
	return out, nil
}
