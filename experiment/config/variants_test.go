package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func files(t *testing.T, list map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range list {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestVariants(t *testing.T) {
	dir := files(t, map[string]string{
		"base.toml": "name = \"demo\"\n[world]\ntrain = 100\n[train.cyclegan]\nepochs = 6\npool = 7\n",
		"x.toml": `base = "base.toml"
name = "x"
train.cyclegan.batch = 8

[[variant]]
name = "no pool"
train.cyclegan.pool = 0

[[variant]]
name = "longer, with BCE"
bridges.use = ["cyclegan"]
[variant.train.cyclegan]
epochs = 12
adversarial = "bce"
`})
	path := filepath.Join(dir, "x.toml")
	base, list, err := LoadVariants(path, []string{"train.cyclegan.lr=1e-3", "train.cyclegan.pool=9"})
	if err != nil {
		t.Fatal(err)
	}
	if g := base.Train.CycleGAN; base.Name != "x" || base.Output != "work/x" || base.World.Train != 100 || g.Epochs != 6 || g.DecayFrom != 3 || g.Pool != 9 || g.Batch != 8 || g.LR != 1e-3 {
		t.Errorf("%+v", base)
	}
	if len(list) != 2 {
		t.Fatalf("%d variants", len(list))
	}
	a, b := list[0].Config.Train.CycleGAN, list[1].Config.Train.CycleGAN
	if a.Pool != 0 || a.Epochs != 6 || a.LR != 1e-3 || b.Pool != 9 || b.Epochs != 12 || b.DecayFrom != 6 || b.Adversarial != "bce" || a.Adversarial != "least-squares" {
		t.Errorf("%+v and %+v", a, b)
	}
	if diff := cmp.Diff([]string{`train.cyclegan.epochs = 12`, `train.cyclegan.adversarial = "bce"`, `bridges.use = ["cyclegan"]`}, list[1].Changes); diff != "" {
		t.Error(diff)
	}
	// The base alone has no variants.
	if _, list, err := LoadVariants(filepath.Join(dir, "base.toml"), nil); err != nil || list != nil {
		t.Errorf("%v, %v", list, err)
	}
}

func TestVariantErrors(t *testing.T) {
	const world = "[world]\n"
	for name, c := range map[string]struct{ text, want string }{
		"unknown key":  {world + "[[variant]]\nname = \"a\"\n\ntrain.cyclegan.poll = 0\n[[variant]]\nname = \"b\"\ntrain.cyclegan.pool = -1\n", "x.toml:5: train.cyclegan.poll: unknown key; did you mean train.cyclegan.pool? (variant \"a\")\nDIR/x.toml:8: train.cyclegan.pool: must be an integer between 0 and 1e6, got -1 (variant \"b\")"},
		"rule":         {world + "[[variant]]\nname = \"a\"\ntrain.cyclegan.decay_from = 30\n", "x.toml:4: train.cyclegan.decay_from: train.cyclegan.decay_from = 30 is greater than train.cyclegan.epochs = 20 (variant \"a\")"},
		"no name":      {world + "[[variant]]\nseed = 1\n", "x.toml:2: variant.name: each variant needs a name, a string"},
		"same name":    {world + "[[variant]]\nname = \"a\"\ncaption.beam = 1\n[[variant]]\nname = \"a\"\ncaption.beam = 2\n", "x.toml:5: variant.name: two variants are named \"a\" (variant \"a\")"},
		"base's name":  {world + "[[variant]]\nname = \"base\"\ncaption.beam = 1\n", "two variants are named \"base\""},
		"no change":    {world + "[[variant]]\nname = \"a\"\n", "the variant changes nothing"},
		"common":       {world + "[[variant]]\nname = \"a\"\nworld.seed = 2\neval.examples = 1\n", "x.toml:4: world.seed: must be the same in all variants"},
		"not tables":   {"variant = 3\n" + world, "x.toml:1: variant: must be tables ([[variant]]), got the number 3"},
		"inline":       {"variant = [{name = \"a\", caption.beam = 2}]\n" + world, "x.toml:1: variant: must be tables ([[variant]]), got a list"},
		"missing base": {"base = \"none.toml\"\n", "x.toml:1: base: open "},
		"wrong base":   {"base = 3\n", "x.toml:1: base: must be the name of a file, got the number 3"},
		"own base":     {"base = \"x.toml\"\n", "must have neither base nor [[variant]]"},
		"broken base":  {"base = \"broken.toml\"\n", "broken.toml:1:"},
		"in the base":  {"base = \"bad.toml\"\n", "bad.toml:2: world.train: must be an integer"},
	} {
		dir := files(t, map[string]string{"x.toml": c.text, "broken.toml": "a = [\n", "bad.toml": world + "train = 0\n"})
		_, _, err := LoadVariants(filepath.Join(dir, "x.toml"), nil)
		if err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), dir, "DIR"), c.want) {
			t.Errorf("%s: %v; want %s", name, err, c.want)
		}
	}
}

// TestInWorld checks where the data of another world are.
func TestInWorld(t *testing.T) {
	c, err := parse("x.toml", []byte("output = \"o\"\n[world]\nseed = 3\ntexts = 9\ntext_seed = 7\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	in, err := c.InWorld(4, "o/world-4")
	if err != nil {
		t.Fatal(err)
	}
	if in.World.Seed != 4 || in.World.TextSeed != 8 || in.Data.TrainImages != "o/world-4/world/train2014" || c.World.Seed != 3 || c.Data.TrainImages != "o/world/train2014" {
		t.Errorf("%+v %+v, from %+v %+v", in.World, in.Data, c.World, c.Data)
	}
	if d := c.WithWorldIn("o/w").Data; d.ValAnnotations != "o/w/annotations/captions_val2014.json" {
		t.Errorf("%+v", d)
	}
	for _, key := range []string{"data.val_images=x", "data.karpathy=x"} {
		other, err := parse("x.toml", []byte("[world]\n"), []string{key})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := other.InWorld(4, "o"); err == nil || !strings.Contains(err.Error(), `"x" is not part of the rendered data set`) {
			t.Errorf("%s: %v", key, err)
		}
	}
}

func TestUnpairedRules(t *testing.T) {
	for text, want := range map[string]string{
		"data.overlap = 0.5\n[world]\n":                                `x.toml:1: data.overlap: requires data.pairing = "disjoint", got "paper"`,
		"data.pairing = \"disjoint\"\n[world]\ntexts = 5\n":            "with world.texts there are no pairs",
		"bridges.use = [\"clipcap\"]\n[world]\ntexts = 5\n":            "clipcap needs paired photos and captions, but with world.texts there are none",
		"[world]\ntexts = 5\n[data]\nphotos = \"p\"\ncaptions = \"c\"": "replaces the captions of the rendered training set",
	} {
		if _, err := parse("x.toml", []byte(text), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %s", text, err, want)
		}
	}
	c, err := parse("x.toml", []byte("[world]\nseed = 3\n"), nil)
	if err != nil || c.World.TextSeed != 3 {
		t.Errorf("the seed of the texts is %d (%v)", c.World.TextSeed, err)
	}
}

// TestVariantFiles reads the files of this repository that list variants, in which each
// bridge that is tuned has the same number of trials.
func TestVariantFiles(t *testing.T) {
	_, list, err := LoadVariants("../../configs/ablations.toml", nil)
	if err != nil || len(list) < 20 {
		t.Errorf("%d ablations (%v)", len(list), err)
	}
	base, list, err := LoadVariants("../../configs/tuning.toml", nil)
	if err != nil {
		t.Fatal(err)
	}
	demo, err := Load("../../configs/demo.toml", nil)
	if err != nil {
		t.Fatal(err)
	}
	trials := map[string]int{}
	for _, v := range list {
		for _, b := range v.Config.Bridges.Use {
			trials[b]++
		}
	}
	if diff := cmp.Diff(map[string]int{"direct": 5, "clipcap": 5, "cyclegan": 5, "capdec": 5, "decap": 5}, trials); diff != "" {
		t.Error(diff)
	}
	if base.World.Seed == demo.World.Seed {
		t.Error("the settings are chosen on the demo's own world")
	}
}
