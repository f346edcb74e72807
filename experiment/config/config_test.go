package config

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestErrors checks the text of every kind of error. The file is x.toml.
func TestErrors(t *testing.T) {
	// The smallest valid configs.
	const world = "[world]\n"
	const coco = `[data]
train_annotations = "t.json"
train_images = "t"
val_annotations = "v.json"
val_images = "v"
[clip]
weights = "c"
[gpt2]
weights = "g"
`
	for _, c := range []struct {
		name, toml string
		sets       []string
		want       string
	}{
		// Invalid TOML.
		{"syntax", "name = \"a\"\nseed = = 3\n", nil, `x.toml:2:8: expected value but found '=' instead`},
		{"key twice", "seed = 1\n\nseed = 2\n", nil, `x.toml:3:1: Key 'seed' has already been defined.`},
		{"open string", "[world]\nsize = 5\n[data]\n  photos = \"abc\n", nil, `x.toml:4:16: strings cannot contain newlines`},
		{"no UTF-8", "name = \"\xff\"\n", nil, `x.toml:1:9: byte 0xff is not valid UTF-8`},
		{"byte order mark", "\uFEFFseed = 1 2", nil, `x.toml:1:9: expected a top-level item to end with a newline, comment, or EOF, but got '2' instead`},
		{"huge number", "seed = 99999999999999999999\n", nil, `x.toml:1:8: 99999999999999999999 is out of range for int64`},

		// Unknown keys and tables.
		{"unknown key", world + "[train.cyclegan]\nepoch = 5\n", nil,
			`x.toml:3: train.cyclegan.epoch: unknown key; did you mean train.cyclegan.epochs?`},
		{"letters swapped", world + "[train.decoder]\nbacth = 5\n", nil,
			`x.toml:3: train.decoder.bacth: unknown key; did you mean train.decoder.batch?`},
		{"other case and hyphen", world + "[train.decoder]\nWarmup-Steps = 5\n", nil,
			`x.toml:3: train.decoder.Warmup-Steps: unknown key; did you mean train.decoder.warmup_steps?`},
		{"key in the wrong table", world + "[train]\nbeta1 = 0.5\n", nil,
			`x.toml:3: train.beta1: unknown key; did you mean train.cyclegan.beta1?`},
		{"key of several tables", "epochs = 2\n" + world, nil,
			`x.toml:1: epochs: unknown key; did you mean train.clip.epochs, train.gpt2.epochs, train.decoder.epochs or train.cyclegan.epochs?`},
		{"like nothing", world + "[gpt2]\nzzz = 2\n", nil,
			`x.toml:3: gpt2.zzz: unknown key; valid keys in [gpt2]: weights`},
		{"like nothing, at the top", "zzz = 2\n" + world, nil,
			`x.toml:1: zzz: unknown key; valid keys: name, output, seed, device, threads, [world], [data], [clip], [gpt2], [train], [bridges], [caption], [eval]`},
		{"unknown table", world + "\n[trian.decoder]\nepochs = 1\nbatch = 2\n", nil,
			`x.toml:3: trian.decoder: unknown table; did you mean train.decoder?`},
		{"table in the wrong place", world + "[cyclegan]\nepochs = 1\nbatch = 2\n", nil,
			`x.toml:2: cyclegan: unknown table; did you mean train.cyclegan?`},
		{"quoted key", world + "[eval]\n\"a.b\" = 1\n", nil,
			`x.toml:3: eval."a.b": unknown key; valid keys in [eval]: metrics, examples, meteor_data`},
		{"empty key", world + "[gpt2]\n\"\" = 1\n", nil,
			`x.toml:3: gpt2."": unknown key; valid keys in [gpt2]: weights`},

		// Wrong types.
		{"table for number", world + "train.decoder.epochs = 20\n", nil,
			`x.toml:2: world.train: must be an integer between 1 and 1e7, got a table`},
		{"string for int", "train.decoder.epochs = \"20\"\n" + world, nil,
			`x.toml:1: train.decoder.epochs: must be an integer between 1 and 1e6, got the string "20"`},
		{"float for int", "train.decoder.epochs = 20.0\n" + world, nil,
			`x.toml:1: train.decoder.epochs: must be an integer between 1 and 1e6, got the number 20.0`},
		{"bool for float", "train.decoder.lr = true\n" + world, nil,
			`x.toml:1: train.decoder.lr: must be a number greater than 0 and at most 10, got true`},
		{"int for bool", "train.decoder.freeze_gpt2 = 1\n" + world, nil,
			`x.toml:1: train.decoder.freeze_gpt2: must be true or false, got the number 1`},
		{"list for string", "output = [\"a\"]\n" + world, nil,
			`x.toml:1: output: must be a string, got a list`},
		{"date for string", "output = 2020-01-01\n" + world, nil,
			`x.toml:1: output: must be a string, got a date or time`},
		{"number for choice", "caption.decode = 5\n" + world, nil,
			`x.toml:1: caption.decode: must be one of "beam", "beam-transformers", "greedy", got the number 5`},
		{"string for list", "bridges.use = \"direct\"\n" + world, nil,
			`x.toml:1: bridges.use: must be a list of one or more of "c3", "capdec", "clipcap", "cyclegan", "decap", "direct", "meandev", "meanshift", "whitening", got the string "direct"`},
		{"number in list", "eval.metrics = [\"bleu\", 4]\n" + world, nil,
			`x.toml:1: eval.metrics: must be a list of one or more of "bleu", "rouge", "cider", "meteor", got a list that contains the number 4`},
		{"long string", "seed = \"" + strings.Repeat("a", 1000) + "\"\n" + world, nil,
			`x.toml:1: seed: must be an integer between 0 and 1e15, got a string of 1000 bytes`},
		{"table for value", world + "[train.decoder.lr]\nx = 1\n", nil,
			`x.toml:2: train.decoder.lr: must be a number greater than 0 and at most 10, got a table`},
		{"value for table", "world = 5\n" + coco, nil,
			`x.toml:1: world: must be a table ([world]), got the number 5`},
		{"list of tables", "[[world]]\nsize = 5\n" + coco, nil,
			`x.toml:1: world: must be a table ([world]), got a list of tables`},

		// Ranges, words.
		{"below", world + "[train.decoder]\nprefix_length = 0\n", nil,
			`x.toml:3: train.decoder.prefix_length: must be an integer between 1 and 1024, got 0`},
		{"above", world + "max = 3\nsize = 5000\n", nil,
			"2 problems:\nx.toml:2: world.max: unknown key; valid keys in [world]: seed, size, pretrain, train, val, tune, texts, text_seed, bare\n" +
				`x.toml:3: world.size: must be an integer between 32 and 1024, got 5000`},
		{"open end", world + "[train.cyclegan]\nbeta1 = 1\n", nil,
			`x.toml:3: train.cyclegan.beta1: must be a number greater than or equal to 0 and less than 1, got 1`},
		{"open start", world + "[train.cyclegan]\nlr = 0.0\n", nil,
			`x.toml:3: train.cyclegan.lr: must be a number greater than 0 and at most 10, got 0`},
		{"nan", world + "[train.cyclegan]\nlr = nan\n", nil,
			`x.toml:3: train.cyclegan.lr: must be a number greater than 0 and at most 10, got nan`},
		{"inf", world + "[train.cyclegan]\nlr = -inf\n", nil,
			`x.toml:3: train.cyclegan.lr: must be a number greater than 0 and at most 10, got -inf`},
		{"word", world + "[train.decoder]\nmapper = \"transfomer\"\n", nil,
			`x.toml:3: train.decoder.mapper: must be one of "transformer", "mlp", got "transfomer"; did you mean "transformer"?`},
		{"word like none", world + "[train.decoder]\nmapper = \"xyz\"\n", nil,
			`x.toml:3: train.decoder.mapper: must be one of "transformer", "mlp", got "xyz"`},
		{"word in list", world + "[bridges]\nuse = [\n  \"direct\", # a\n  \"cycle\",\n]\n", nil,
			`x.toml:3: bridges.use: must be one of "c3", "capdec", "clipcap", "cyclegan", "decap", "direct", "meandev", "meanshift", "whitening", got "cycle"; did you mean "cyclegan"?`},
		{"word twice", world + "[bridges]\nuse = [\"direct\", \"direct\"]\n", nil,
			`x.toml:3: bridges.use: "direct" is listed twice`},
		{"empty list", world + "[eval]\nmetrics = []\n", nil,
			`x.toml:3: eval.metrics: must be a list of one or more of "bleu", "rouge", "cider", "meteor", got an empty list`},
		{"control character", "output = \"a\\u0000b\"\n" + world, nil,
			`x.toml:1: output: "a\x00b" contains a control character`},
		{"name", "name = \"../up\"\n" + world, nil,
			`x.toml:1: name: must consist of letters, digits, '.', '_' and '-', and not begin with '.', got "../up"`},
		{"device", "device = \"gpu\"\n" + world, nil,
			`x.toml:1: device: must be cpu, cuda or cuda:N, got "gpu"`},

		// Contradictions.
		{"no data", "seed = 1\n", nil, strings.Join([]string{"6 problems:",
			`x.toml: data.train_annotations: missing: set it to the COCO captions file of the training set, or add [world] to render a data set`,
			`x.toml: data.train_images: missing: set it to the folder of the training photos, or add [world] to render a data set`,
			`x.toml: data.val_annotations: missing: set it to the COCO captions file of the validation set, or add [world] to render a data set`,
			`x.toml: data.val_images: missing: set it to the folder of the validation photos, or add [world] to render a data set`,
			`x.toml: clip.weights: missing: set it to a CLIP weights file or folder, or add [world] to train a small CLIP`,
			`x.toml: gpt2.weights: missing: set it to a GPT-2 weights file or folder, or add [world] to train a small GPT-2`}, "\n")},
		{"half of the data", strings.Replace(coco, "val_images = \"v\"\n", "", 1), nil,
			`x.toml:1: data.val_images: missing: set it to the folder of the validation photos, or add [world] to render a data set`},
		{"photos alone", world + "[data]\nphotos = \"p\"\n", nil,
			`x.toml:3: data.photos: requires data.captions as well: together they replace the training set`},
		{"captions alone", world + "[data]\ncaptions = \"p\"\n", nil,
			`x.toml:3: data.captions: requires data.photos as well: together they replace the training set`},
		{"two training sets", coco, []string{"data.photos=p", "data.captions=c"}, strings.Join([]string{"2 problems:",
			`x.toml:2: data.train_annotations: data.photos and data.captions replace the training set: remove either them or this key`,
			`x.toml:3: data.train_images: data.photos and data.captions replace the training set: remove either them or this key`}, "\n")},
		{"ClipCap's file with a training set", coco, []string{"data.clipcap=f.pkl"}, strings.Join([]string{"2 problems:",
			`x.toml:2: data.train_annotations: data.clipcap replaces the training set: remove either it or this key`,
			`x.toml:3: data.train_images: data.clipcap replaces the training set: remove either it or this key`}, "\n")},
		{"pairs of unpaired sets", world + "[data]\nphotos = \"p\"\ncaptions = \"c\"\n[bridges]\nuse = [\"direct\", \"clipcap\"]\n", nil,
			`x.toml:6: bridges.use: clipcap needs paired photos and captions, but those of data.photos and data.captions are not paired`},
		{"width of heads", world + "[train.gpt2]\nwidth = 200\n", nil,
			`x.toml:3: train.gpt2.width: must be a multiple of 64, the width of an attention head, got 200`},
		{"patches", world + "[train.clip]\npatch = 30\n", nil,
			`x.toml:3: train.clip.patch: train.clip.patch = 30 does not divide train.clip.image = 128`},
		{"pixels of a ResNet", world + "[train.clip]\nimage_encoder = \"resnet\"\nwidth = 33\nimage = 100\n", nil, strings.Join([]string{"2 problems:",
			`x.toml:4: train.clip.width: must be even, got 33`,
			`x.toml:5: train.clip.image: must be a multiple of 32, by which a ResNet reduces photos, got 100`,
		}, "\n")},
		{"one beam", world + "[caption]\ndecode = \"beam-transformers\"\nbeam = 1\n", nil,
			`x.toml:4: caption.beam: caption.decode = "beam-transformers" needs at least 2 beams, but caption.beam = 1; with one beam, transformers decodes greedily`},
		{"positions", world + "[caption]\nmax_tokens = 90\n", nil,
			`x.toml:3: caption.max_tokens: train.decoder.prefix_length = 40 and caption.max_tokens = 90 need 129 positions, but train.gpt2.positions = 128`},
		{"decay", world + "[train.cyclegan]\ndecay_from = 21\n", nil,
			`x.toml:3: train.cyclegan.decay_from: train.cyclegan.decay_from = 21 is greater than train.cyclegan.epochs = 20`},
		{"a configuration of no weights", world + "[clip]\nconfig = \"ViT-H-14\"\n", nil,
			`x.toml:3: clip.config: clip.config describes clip.weights, which is missing`},
		{"batch of CLIP", "[world]\npretrain = 100\n", nil,
			`x.toml:2: world.pretrain: train.clip.batch = 128 is greater than world.pretrain = 100`},
		{"examples", coco + "[eval]\nexamples = 20\n[data.x]\n", []string{"data.val_limit=10"}, strings.Join([]string{"2 problems:",
			`x.toml:11: eval.examples: eval.examples = 20 is greater than data.val_limit = 10`,
			`x.toml:12: data.x: unknown table; valid keys in [data]: train_annotations, train_images, val_annotations, val_images, karpathy, photos, captions, clipcap, pairing, overlap, photo_limit, caption_limit, max_bad, val_limit`}, "\n")},

		// --set.
		{"set: unknown key", world, []string{"train.cyclegan.epoch=5"},
			`--set train.cyclegan.epoch=5: unknown key; did you mean train.cyclegan.epochs?`},
		{"set: short key", world, []string{"cyclegan.epochs=5"},
			`--set cyclegan.epochs=5: unknown key; did you mean train.cyclegan.epochs?`},
		{"set: type", world, []string{"train.decoder.epochs=many"},
			`--set train.decoder.epochs=many: must be an integer between 1 and 1e6, got the string "many"`},
		{"set: range", world, []string{"train.decoder.epochs=0"},
			`--set train.decoder.epochs=0: must be an integer between 1 and 1e6, got 0`},
		{"set: word", world, []string{"caption.decode=beem"},
			`--set caption.decode=beem: must be one of "beam", "beam-transformers", "greedy", got "beem"; did you mean "beam"?`},
		{"set: word in list", world, []string{"bridges.use=[direct,cyclegn]"},
			`--set bridges.use=[direct,cyclegn]: must be one of "c3", "capdec", "clipcap", "cyclegan", "decap", "direct", "meandev", "meanshift", "whitening", got "cyclegn"; did you mean "cyclegan"?`},
		{"set: nothing", world, []string{"train.decoder.epochs="},
			`--set train.decoder.epochs=: must be an integer between 1 and 1e6, got the string ""`},
		{"set: no value", world, []string{"train.decoder.epochs"},
			`--set train.decoder.epochs: must be KEY=VALUE, such as train.cyclegan.epochs=5`},
		{"set: no key", world, []string{"=5"},
			`--set =5: must be KEY=VALUE, such as train.cyclegan.epochs=5`},
		{"set: two lines", world, []string{"seed=1\nthreads=2"},
			"--set seed=1\nthreads=2: the value must be a single line of valid UTF-8"},
		{"set: no UTF-8", world, []string{"output=a\xff"},
			"--set output=a\xff: the value must be a single line of valid UTF-8"},
		{"set: broken", world, []string{`output="abc`},
			`--set output="abc: the value is not valid TOML: unexpected EOF; expected '"'`},
		{"set: table", world, []string{"train.decoder=5"},
			`--set train.decoder=5: must be a table ([train.decoder]), got the number 5`},
		{"set: contradiction", world, []string{"train.cyclegan.decay_from=9", "train.cyclegan.epochs=5"},
			`--set train.cyclegan.decay_from=9: train.cyclegan.decay_from = 9 is greater than train.cyclegan.epochs = 5`},

		// Several, in the order of the lines: file, missing, --set.
		{"several", "[train.cyclegan]\nlr = -1\nepoch = 3\n[train.clip]\nwidth = 65\n[data]\n", []string{"seed=-1"}, strings.Join([]string{"10 problems:",
			`x.toml:2: train.cyclegan.lr: must be a number greater than 0 and at most 10, got -1`,
			`x.toml:3: train.cyclegan.epoch: unknown key; did you mean train.cyclegan.epochs?`,
			`x.toml:5: train.clip.width: must be a multiple of 64, the width of an attention head, got 65`,
			`x.toml:6: data.train_annotations: missing: set it to the COCO captions file of the training set, or add [world] to render a data set`,
			`x.toml:6: data.train_images: missing: set it to the folder of the training photos, or add [world] to render a data set`,
			`x.toml:6: data.val_annotations: missing: set it to the COCO captions file of the validation set, or add [world] to render a data set`,
			`x.toml:6: data.val_images: missing: set it to the folder of the validation photos, or add [world] to render a data set`,
			`x.toml: clip.weights: missing: set it to a CLIP weights file or folder, or add [world] to train a small CLIP`,
			`x.toml: gpt2.weights: missing: set it to a GPT-2 weights file or folder, or add [world] to train a small GPT-2`,
			`--set seed=-1: must be an integer between 0 and 1e15, got -1`}, "\n")},
		// A key with an invalid value is not compared with others.
		{"no second problem", world + "[train.clip]\npatch = 0\nimage = 100\n", nil,
			`x.toml:3: train.clip.patch: must be an integer between 1 and 1024, got 0`},
	} {
		t.Run(c.name, func(t *testing.T) {
			have, err := parse("x.toml", []byte(c.toml), c.sets)
			if err == nil {
				t.Fatalf("no error; want %s", c.want)
			}
			if have != nil {
				t.Error("got a config along with the error")
			}
			if !errors.As(err, new(*Error)) {
				t.Errorf("a %T, want *Error", err)
			}
			if diff := cmp.Diff(c.want, err.Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}
