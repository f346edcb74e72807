package config

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"cyclecap/train/bridge"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestLoadFiles checks the errors for files that are not configs.
func TestLoadFiles(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large.toml")
	if err := os.WriteFile(large, make([]byte, maxSize+1), 0o644); err != nil {
		t.Fatal(err)
	}
	missing, fifo := filepath.Join(dir, "missing.toml"), filepath.Join(dir, "fifo.toml")
	if err := syscall.Mkfifo(fifo, 0o644); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		missing: "open " + missing + ": no such file or directory",
		dir:     "open " + dir + ": is a folder, not a file",
		fifo:    "open " + fifo + ": is not a regular file",
		large:   large + ": not a configuration file: it is larger than 32 KiB",
	} {
		if _, err := Load(path, nil); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
}

// TestPaper checks that configs/paper.toml and the defaults have the values in the paper.
func TestPaper(t *testing.T) {
	c, err := Load("../../configs/paper.toml", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.World = nil
	want.Name, want.Output = "paper", "work/paper"
	want.Data = Data{
		TrainAnnotations: "data/coco/annotations/captions_train2014.json", TrainImages: "data/coco/train2014",
		ValAnnotations: "data/coco/annotations/captions_val2014.json", ValImages: "data/coco/val2014",
		Pairing: "paper",
	}
	want.CLIP.Weights, want.GPT2.Weights = "weights/ViT-B-32.pt", "weights/gpt2"
	want.Eval.Metrics = []string{"bleu", "rouge", "meteor", "cider"}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}
	wantDecoder := TrainDecoder{Mapper: "transformer", PrefixLength: 40, ClipLength: 40, Layers: 8, Epochs: 20, Batch: 64,
		LR: 2e-5, WarmupSteps: 5000, FreezeGPT2: true, Dtype: "f32", CheckpointEvery: 1000}
	if diff := cmp.Diff(wantDecoder, c.Train.Decoder); diff != "" {
		t.Error(diff)
	}
	wantGAN := TrainCycleGAN{Epochs: 20, Layers: 4, Batch: 64, LR: 2e-4, Beta1: 0.5, Beta2: 0.999, DecayFrom: 10, Adversarial: "least-squares",
		CycleWeight: 10, IdentityWeight: 0.5, Pool: 50, DiscHalved: true, Normalize: "none", CheckpointEvery: 5000}
	if diff := cmp.Diff(wantGAN, c.Train.CycleGAN); diff != "" {
		t.Error(diff)
	}
}

func TestDemo(t *testing.T) {
	c, err := Load("../../configs/demo.toml", []string{"output=/tmp/x"})
	if err != nil {
		t.Fatal(err)
	}
	if want := (&World{Seed: 1, Size: 224, Pretrain: 8000, Train: 10000, Val: 500, TextSeed: 1}); !cmp.Equal(want, c.World) {
		t.Error(cmp.Diff(want, c.World))
	}
	want := Data{
		TrainAnnotations: "/tmp/x/world/annotations/captions_train2014.json", TrainImages: "/tmp/x/world/train2014",
		ValAnnotations: "/tmp/x/world/annotations/captions_val2014.json", ValImages: "/tmp/x/world/val2014",
		Pairing: "paper", MaxBad: 0.01,
	}
	if diff := cmp.Diff(want, c.Data); diff != "" {
		t.Error(diff)
	}
	if n := len(bridge.All()); len(c.Bridges.Use) != n {
		t.Errorf("the bridges are %q, and there are %d", c.Bridges.Use, n)
	}
}

func TestSets(t *testing.T) {
	base := func() *Config {
		c, err := parse("dir/a.b.toml", []byte("[world]\n[train.decoder]\nepochs = 3\n"), nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for _, c := range []struct {
		sets []string
		want func(*Config)
	}{
		{nil, func(c *Config) { c.Name, c.Output = "a.b", "work/a.b" }},
		{[]string{"train.decoder.epochs=5", " train.decoder.epochs = 7 "}, func(c *Config) { c.Train.Decoder.Epochs = 7 }},
		{[]string{"train.cyclegan.epochs=5"}, func(c *Config) { c.Train.CycleGAN.Epochs, c.Train.CycleGAN.DecayFrom = 5, 2 }},
		{[]string{"train.cyclegan.decay_from=0"}, func(c *Config) { c.Train.CycleGAN.DecayFrom = 0 }},
		{[]string{"train.decoder.lr=1"}, func(c *Config) { c.Train.Decoder.LR = 1 }},
		{[]string{"train.decoder.freeze_gpt2=false"}, func(c *Config) { c.Train.Decoder.FreezeGPT2 = false }},
		{[]string{"train.decoder={mapper='mlp', layers=2}"}, func(c *Config) { c.Train.Decoder.Mapper, c.Train.Decoder.Layers = "mlp", 2 }},
		{[]string{"caption.decode=greedy"}, func(c *Config) { c.Caption.Decode = "greedy" }},
		{[]string{"clip.weights=/a b/c=d.pt"}, func(c *Config) { c.CLIP.Weights = "/a b/c=d.pt" }},
		{[]string{`clip.weights="a\tb"`, "clip.weights="}, func(c *Config) {}},
		{[]string{"bridges.use=[direct, decap]"}, func(c *Config) { c.Bridges.Use = []string{"direct", "decap"} }},
		{[]string{`bridges.use=["direct", 'decap']`}, func(c *Config) { c.Bridges.Use = []string{"direct", "decap"} }},
	} {
		want := base()
		c.want(want)
		have, err := parse("dir/a.b.toml", []byte("[world]\n[train.decoder]\nepochs = 3\n"), c.sets)
		if slices.Contains(c.sets, `clip.weights="a\tb"`) {
			// A tab is a control character, and the first of two --set values counts too.
			if err == nil || err.Error() != `--set clip.weights="a\tb": "a\tb" contains a control character` {
				t.Errorf("%q: %v", c.sets, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", c.sets, err)
			continue
		}
		if diff := cmp.Diff(want, have); diff != "" {
			t.Errorf("%q: %s", c.sets, diff)
		}
	}
	// --set alone can add [world].
	c, err := parse("a.toml", nil, []string{"world.train=100"})
	if err != nil || c.World == nil || c.World.Train != 100 || c.World.Val != 500 {
		t.Errorf("%+v, %v", c, err)
	}
}

// randomConfig sets random keys to random allowed values.
func randomConfig(t *rapid.T) *Config {
	c := defaults()
	keys, _ := schema()
	for _, k := range keys {
		if rapid.Bool().Draw(t, "default "+k.String()) {
			continue
		}
		switch k.typ.Kind() {
		case reflect.Int:
			k.set(c, rapid.IntRange(int(k.limits.low), int(k.limits.high)).Draw(t, k.String()))
		case reflect.Float64:
			k.set(c, rapid.Float64Range(k.limits.low, k.limits.high).Filter(k.limits.has).Draw(t, k.String()))
		case reflect.Bool:
			k.set(c, rapid.Bool().Draw(t, k.String()))
		case reflect.Slice:
			n := rapid.IntRange(1, len(k.choices)).Draw(t, k.String())
			k.set(c, rapid.Permutation(k.choices).Draw(t, k.String())[:n])
		default:
			if k.choices != nil {
				k.set(c, rapid.SampledFrom(k.choices).Draw(t, k.String()))
			} else {
				k.set(c, rapid.String().Draw(t, k.String()))
			}
		}
	}
	if rapid.Bool().Draw(t, "no world") {
		c.World = nil
	}
	return c
}

// TestRoundTrip checks that Load reads back any config that it has accepted from the
// output of Encode.
func TestRoundTrip(t *testing.T) {
	for _, path := range []string{"../../configs/paper.toml", "../../configs/demo.toml"} {
		c, err := Load(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		data, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := parse("other.toml", data, nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c, again); diff != "" {
			t.Error(diff)
		}
	}
	accepted := 0
	rapid.Check(t, func(t *rapid.T) {
		c := randomConfig(t)
		data, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		// The random values may contradict each other, but each must be read back as
		// it was written.
		l, err := read("x.toml", data, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range l.problems {
			if !strings.Contains(p.Text, "control character") {
				t.Fatal(p)
			}
		}
		if l.problems != nil {
			return
		}
		if !l.world {
			l.config.World = nil
		}
		if diff := cmp.Diff(c, l.config); diff != "" {
			t.Fatal(diff)
		}
		if first, err := parse("x.toml", data, nil); err == nil {
			accepted++
			data, _ := first.Encode()
			second, err := parse("y.toml", data, nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(first, second); diff != "" {
				t.Fatal(diff)
			}
		}
	})
}

// TestKeyLines checks the line of every key, in every form that TOML has.
func TestKeyLines(t *testing.T) {
	text := "# [no]\r\n" +
		`a = 1 # b = 2
"q\"\u00e9" . 'r.s'.t = """x
y = 1 \""" [z]
"""
c = '''
[not]
''''
d = { e = 1, f.g = [1, { no = 2 }], h = { i = "}" }, # x

  j = 2 }
l = [ # ]
  "]", ']', """
]""",
  { no = [] },
]
[ t . u ]  # [x]
v = 2020-01-01 10:00:00
t.u = "a#b"
[[w]]
x = 1
[[w]]
x = 2
[w.y]
z = 1
["# k"]
`
	want := map[string]int{
		"a": 2, `"q\"é"`: 3, `"q\"é"."r.s"`: 3, `"q\"é"."r.s".t`: 3, "c": 6,
		"d": 9, "d.e": 9, "d.f": 9, "d.f.g": 9, "d.h": 9, "d.h.i": 9, "d.j": 11,
		"l": 12, "t": 17, "t.u": 17, "t.u.v": 18, "t.u.t": 19, "t.u.t.u": 19,
		"w": 20, "w.x": 21, "w.y": 24, "w.y.z": 25, `"# k"`: 26,
	}
	if _, err := toml.Decode(text, &map[string]any{}); err != nil {
		t.Fatal(err)
	}
	have := map[string]int{}
	for path, line := range keyLines(text) {
		have[toml.Key(strings.Split(path, "\x00")).String()] = line
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Error(diff)
	}
}

// FuzzLoad checks that no file or argument makes Load panic, that Load reads back what it
// has accepted, and that every key in valid TOML has a line.
func FuzzLoad(f *testing.F) {
	f.Add("[world]\n[train.decoder]\nlr = 2e-5 # a\n", "train.cyclegan.epochs=5")
	f.Add("[world]\nsize = 1\n[trian.x]\na.\"b\\u0000\" = {c = [1, {d = 2}], e = nan}\n", "bridges.use=[a,b]")
	f.Add("a = '''\n''''\nb=\"\"\"\\\"\"\"\"\n[[c]]\n[c.'d']\n", "data={photos='x'}")
	f.Add("x = [[[[[[{a={b=[]}}]]]]]]", "=")
	f.Fuzz(func(t *testing.T, text, set string) {
		c, err := parse("x.toml", []byte(text), []string{set})
		if err == nil {
			data, err := c.Encode()
			if err != nil {
				t.Fatal(err)
			}
			again, err := parse("x.toml", data, nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c, again); diff != "" {
				t.Fatal(diff)
			}
		} else if err.Error() == "" {
			t.Fatal("the error has no text")
		}

		var root map[string]any
		text = strings.TrimPrefix(text, "\uFEFF")
		if _, err := toml.Decode(text, &root); err != nil || !utf8.ValidString(text) {
			return
		}
		lines, all := keyLines(text), strings.Split(text, "\n")
		var walk func(path []string, values map[string]any)
		walk = func(path []string, values map[string]any) {
			for name, v := range values {
				at := append(slices.Clone(path), name)
				n := lines[joinPath(at)]
				if n < 1 || n > len(all) {
					t.Fatalf("%q: line %d of %d", at, n, len(all))
				}
				if here := all[n-1]; setKey.MatchString(name) && !strings.Contains(here, name) && !strings.Contains(here, `\`) {
					t.Fatalf("%q: line %d is %q", at, n, here)
				}
				if inner, ok := v.(map[string]any); ok {
					walk(at, inner)
				}
			}
		}
		walk(nil, root)
	})
}
