package experiment

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cyclecap/experiment/config"
)

// TestSizesAreCheckedFirst checks that a configuration that does not fit the data is
// refused before the first stage, and by a plan too, by the name of a key.
func TestSizesAreCheckedFirst(t *testing.T) {
	const small = "[world]\nsize = 32\npretrain = 130\ntrain = 10\nval = 4\n[train.gpt2]\nbatch = 8\n"
	for _, test := range []struct {
		name string
		sets []string
		want string
	}{
		{"decoder", []string{"train.decoder.batch=51"}, "train.decoder.batch: must be at most 50, the number of training captions, got 51"},
		{"decoder, disjoint", []string{"train.decoder.batch=26", "data.pairing=disjoint"}, "train.decoder.batch: must be at most 25, the number of training captions, got 26"},
		{"cyclegan", []string{"train.cyclegan.batch=51", "train.decoder.batch=8"},
			"train.cyclegan.batch: must be at most 50, the size of the larger of its two sets (10 photos and 50 captions), got 51"},
		{"gpt2", []string{"train.gpt2.batch=2000"}, "train.gpt2.batch: must be at most about"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := write(t, filepath.Join(t.TempDir(), "x.toml"), small)
			c, err := config.Load(path, append([]string{"output=" + t.TempDir()}, test.sets...))
			if err != nil {
				t.Fatal(err)
			}
			x, q := experiment(t, c)
			x.Seeds = 1
			wants(t, x.Execute(t.Context(), ""), test.want)
			if len(q.said) > 0 {
				t.Errorf("a stage had begun: %q", q.said)
			}
			wants(t, x.Plan(t.Context(), io.Discard, ""), test.want)
		})
	}
	// The smaller set is begun again; what comes after the last stage is not checked.
	path := write(t, filepath.Join(t.TempDir(), "x.toml"), small)
	for last, sets := range map[string][]string{"": {"train.cyclegan.batch=50", "train.decoder.batch=50"}, "features": {"train.decoder.batch=500"}} {
		c, err := config.Load(path, append([]string{"output=" + t.TempDir()}, sets...))
		if err != nil {
			t.Fatal(err)
		}
		x, _ := experiment(t, c)
		if err := x.prepare(); err != nil {
			t.Fatal(err)
		}
		if err := x.checkSizes(last); err != nil {
			t.Error(err)
		}
	}
}

// TestModelsAreCheckedFirst checks that a GPT-2 that is not supported is refused before the
// first stage, and by a plan too.
func TestModelsAreCheckedFirst(t *testing.T) {
	folder := t.TempDir()
	model, err := os.ReadFile("../internal/parity/testdata/small/gpt2/model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(folder, "model.safetensors"), string(model))
	write(t, filepath.Join(folder, "config.json"), `{"model_type": "gpt2", "n_head": 1}`)
	write(t, filepath.Join(folder, "vocab.txt"), "[PAD]")
	path := write(t, filepath.Join(t.TempDir(), "x.toml"), "[world]\nsize = 32\npretrain = 64\ntrain = 10\nval = 4\n[train.clip]\nbatch = 8\n[train.decoder]\nbatch = 8\n[train.cyclegan]\nbatch = 8\n")
	c, err := config.Load(path, []string{"output=" + t.TempDir(), "gpt2.weights=" + folder})
	if err != nil {
		t.Fatal(err)
	}
	x, q := experiment(t, c)
	const want = "vocab.txt is a WordPiece vocabulary"
	wants(t, x.Execute(t.Context(), ""), "gpt2.weights: ")
	wants(t, x.Execute(t.Context(), ""), want)
	if len(q.said) > 0 {
		t.Errorf("a stage had begun: %q", q.said)
	}
	wants(t, x.Plan(t.Context(), io.Discard, ""), want)
}

// TestPlannedTokens checks that a plan counts the tokens of captions with the tokenizer of
// the run's own GPT-2. The weights have 300 tokens, and the words of the text are among them.
func TestPlannedTokens(t *testing.T) {
	x, _ := experiment(t, plain(t))
	x.Config.World = &config.World{Size: 32, Pretrain: 20}
	x.data = &data{train: part{texts: []string{" the the"}}}
	for weights, want := range map[string]int{"": len(x.vocabulary().Encode(" the the")), "../internal/parity/testdata/small/gpt2": 2} {
		x.Config.GPT2.Weights = weights
		if got, err := x.tokens(); err != nil || got != want {
			t.Errorf("GPT-2 %q: %d tokens, %v; want %d", weights, got, err, want)
		}
	}
}

// TestPlanOfFiles plans a run on existing photos, of one configuration and of variants. It must
// write no files, and leave out finished features.
func TestPlanOfFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made")
	if _, _, err := variantsOf(t, dir, "", "world", func(*Experiment) {}); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`[data]
train_annotations = "%[1]s/annotations/captions_train2014.json"
train_images = "%[1]s/train2014"
val_annotations = "%[1]s/annotations/captions_val2014.json"
val_images = "%[1]s/val2014"
[train.decoder]
batch = 24
[train.cyclegan]
batch = 12
`, filepath.Join(dir, "world"))
	for name, more := range map[string]string{"one": "", "variants": "[[variant]]\nname = \"no pool\"\ntrain.cyclegan.pool = 0\n"} {
		t.Run(name, func(t *testing.T) {
			output := filepath.Join(t.TempDir(), "fresh")
			path := write(t, filepath.Join(t.TempDir(), "files.toml"), text+more)
			c, variants, err := config.LoadVariants(path, []string{"output=" + output, "bridges.use=[direct,cyclegan]",
				"clip.weights=../models/world/clip.safetensors", "gpt2.weights=../models/world/gpt2.safetensors"})
			if err != nil {
				t.Fatal(err)
			}
			of := func() *Experiment {
				return &Experiment{Config: c, Variants: variants, Dir: output, Seeds: 1, UI: &quiet{}}
			}
			features := func() (n int) {
				t.Helper()
				_, lines, err := of().plan(t.Context(), "features")
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range lines {
					if strings.HasSuffix(p.name, "features") {
						n++
					}
				}
				return n
			}
			if n := features(); n != 2 {
				t.Errorf("the plan has features in %d lines", n)
			}
			if _, err := os.Stat(output); err == nil {
				t.Errorf("the plan has made %s", output)
			}
			x := of()
			done, err := x.Open()
			if err != nil {
				t.Fatal(err)
			}
			defer done()
			if err := x.Execute(t.Context(), "features"); err != nil {
				t.Fatal(err)
			}
			if n := features(); n != 0 {
				t.Errorf("with finished features, the plan has them in %d lines", n)
			}
		})
	}
}
