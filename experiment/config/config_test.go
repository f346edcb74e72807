package config

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Every kind of error, with its text. The file is x.toml.
func TestErrors(t *testing.T) {
	// The least that is a config.
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
		// Broken TOML.
		{"syntax", "name = \"a\"\nseed = = 3\n", nil, `x.toml:2:8: expected value but found '=' instead`},
		{"key twice", "seed = 1\n\nseed = 2\n", nil, `x.toml:3:1: Key 'seed' has already been defined.`},
		{"open string", "[world]\nsize = 5\n[data]\n  photos = \"abc\n", nil, `x.toml:4:16: strings cannot contain newlines`},
		{"no UTF-8", "name = \"\xff\"\n", nil, `x.toml:1:9: byte 0xff is not UTF-8, as TOML must be`},
		{"byte order mark", "\uFEFFseed = 1 2", nil, `x.toml:1:9: expected a top-level item to end with a newline, comment, or EOF, but got '2' instead`},
		{"huge number", "seed = 99999999999999999999\n", nil, `x.toml:1:8: 99999999999999999999 is out of range for int64`},

		// Unknown keys and tables.
		{"unknown key", world + "[train.cyclegan]\nepoch = 5\n", nil,
			`x.toml:3: train.cyclegan.epoch: there is no such key; did you mean train.cyclegan.epochs?`},
		{"letters swapped", world + "[train.decoder]\nbacth = 5\n", nil,
			`x.toml:3: train.decoder.bacth: there is no such key; did you mean train.decoder.batch?`},
		{"other case and hyphen", world + "[train.decoder]\nWarmup-Steps = 5\n", nil,
			`x.toml:3: train.decoder.Warmup-Steps: there is no such key; did you mean train.decoder.warmup_steps?`},
		{"key in the wrong table", world + "[train]\nbeta1 = 0.5\n", nil,
			`x.toml:3: train.beta1: there is no such key; did you mean train.cyclegan.beta1?`},
		{"key of several tables", "epochs = 2\n" + world, nil,
			`x.toml:1: epochs: there is no such key; did you mean train.clip.epochs, train.gpt2.epochs, train.decoder.epochs or train.cyclegan.epochs?`},
		{"like nothing", world + "[gpt2]\nzzz = 2\n", nil,
			`x.toml:3: gpt2.zzz: there is no such key; [gpt2] has weights`},
		{"like nothing, at the top", "zzz = 2\n" + world, nil,
			`x.toml:1: zzz: there is no such key; there are name, output, seed, device, threads, [world], [data], [clip], [gpt2], [train], [bridges], [caption], [eval]`},
		{"unknown table", world + "\n[trian.decoder]\nepochs = 1\nbatch = 2\n", nil,
			`x.toml:3: trian.decoder: there is no such table; did you mean train.decoder?`},
		{"table in the wrong place", world + "[cyclegan]\nepochs = 1\nbatch = 2\n", nil,
			`x.toml:2: cyclegan: there is no such table; did you mean train.cyclegan?`},
		{"quoted key", world + "[eval]\n\"a.b\" = 1\n", nil,
			`x.toml:3: eval."a.b": there is no such key; [eval] has metrics, examples, meteor_data`},
		{"empty key", world + "[gpt2]\n\"\" = 1\n", nil,
			`x.toml:3: gpt2."": there is no such key; [gpt2] has weights`},

		// Wrong types.
		{"table for number", world + "train.decoder.epochs = 20\n", nil,
			`x.toml:2: world.train: want a whole number from 1 to 1e7, not a table`},
		{"string for int", "train.decoder.epochs = \"20\"\n" + world, nil,
			`x.toml:1: train.decoder.epochs: want a whole number from 1 to 1e6, not the string "20"`},
		{"float for int", "train.decoder.epochs = 20.0\n" + world, nil,
			`x.toml:1: train.decoder.epochs: want a whole number from 1 to 1e6, not the number 20.0`},
		{"bool for float", "train.decoder.lr = true\n" + world, nil,
			`x.toml:1: train.decoder.lr: want a number above 0 and at most 10, not true`},
		{"int for bool", "train.decoder.freeze_gpt2 = 1\n" + world, nil,
			`x.toml:1: train.decoder.freeze_gpt2: want true or false, not the number 1`},
		{"list for string", "output = [\"a\"]\n" + world, nil,
			`x.toml:1: output: want a string, not a list`},
		{"date for string", "output = 2020-01-01\n" + world, nil,
			`x.toml:1: output: want a string, not a date or time`},
		{"number for choice", "caption.decode = 5\n" + world, nil,
			`x.toml:1: caption.decode: want one of "beam", "greedy", not the number 5`},
		{"string for list", "bridges.use = \"direct\"\n" + world, nil,
			`x.toml:1: bridges.use: want a list of some of "capdec", "clipcap", "cyclegan", "decap", "direct", "meanshift", "whitening", not the string "direct"`},
		{"number in list", "eval.metrics = [\"bleu\", 4]\n" + world, nil,
			`x.toml:1: eval.metrics: want a list of some of "bleu", "rouge", "cider", "meteor", and the list has the number 4`},
		{"long string", "seed = \"" + strings.Repeat("a", 1000) + "\"\n" + world, nil,
			`x.toml:1: seed: want a whole number from 0 to 1e15, not a string of 1000 bytes`},
		{"table for value", world + "[train.decoder.lr]\nx = 1\n", nil,
			`x.toml:2: train.decoder.lr: want a number above 0 and at most 10, not a table`},
		{"value for table", "world = 5\n" + coco, nil,
			`x.toml:1: world: this is a table, [world], not the number 5`},
		{"list of tables", "[[world]]\nsize = 5\n" + coco, nil,
			`x.toml:1: world: this is a table, [world], not a list of tables`},

		// Ranges, words.
		{"below", world + "[train.decoder]\nprefix_length = 0\n", nil,
			`x.toml:3: train.decoder.prefix_length: 0 is out of range: want a whole number from 1 to 1024`},
		{"above", world + "max = 3\nsize = 5000\n", nil,
			"2 problems:\nx.toml:2: world.max: there is no such key; [world] has seed, size, pretrain, train, val\n" +
				`x.toml:3: world.size: 5000 is out of range: want a whole number from 32 to 1024`},
		{"open end", world + "[train.cyclegan]\nbeta1 = 1\n", nil,
			`x.toml:3: train.cyclegan.beta1: 1 is out of range: want a number of at least 0 and below 1`},
		{"open start", world + "[train.cyclegan]\nlr = 0.0\n", nil,
			`x.toml:3: train.cyclegan.lr: 0 is out of range: want a number above 0 and at most 10`},
		{"nan", world + "[train.cyclegan]\nlr = nan\n", nil,
			`x.toml:3: train.cyclegan.lr: nan is not finite: want a number above 0 and at most 10`},
		{"inf", world + "[train.cyclegan]\nlr = -inf\n", nil,
			`x.toml:3: train.cyclegan.lr: -inf is not finite: want a number above 0 and at most 10`},
		{"word", world + "[train.decoder]\nmapper = \"transfomer\"\n", nil,
			`x.toml:3: train.decoder.mapper: "transfomer" is none of "transformer", "mlp"; did you mean "transformer"?`},
		{"word like none", world + "[train.decoder]\nmapper = \"xyz\"\n", nil,
			`x.toml:3: train.decoder.mapper: "xyz" is none of "transformer", "mlp"`},
		{"word in list", world + "[bridges]\nuse = [\n  \"direct\", # a\n  \"cycle\",\n]\n", nil,
			`x.toml:3: bridges.use: "cycle" is none of "capdec", "clipcap", "cyclegan", "decap", "direct", "meanshift", "whitening"; did you mean "cyclegan"?`},
		{"word twice", world + "[bridges]\nuse = [\"direct\", \"direct\"]\n", nil,
			`x.toml:3: bridges.use: "direct" is in the list twice`},
		{"empty list", world + "[eval]\nmetrics = []\n", nil,
			`x.toml:3: eval.metrics: the list is empty: want a list of some of "bleu", "rouge", "cider", "meteor"`},
		{"control character", "output = \"a\\u0000b\"\n" + world, nil,
			`x.toml:1: output: "a\x00b" has a control character`},
		{"name", "name = \"../up\"\n" + world, nil,
			`x.toml:1: name: "../up" is no name of an experiment: want letters, digits, '.', '_' and '-', no '.' in front`},
		{"device", "device = \"gpu\"\n" + world, nil,
			`x.toml:1: device: "gpu" is no device: want cpu, cuda or cuda:N`},

		// Contradictions.
		{"no data", "seed = 1\n", nil, strings.Join([]string{"6 problems:",
			`x.toml: data.train_annotations: missing: want the COCO captions file of the training set, or [world], which renders a data set`,
			`x.toml: data.train_images: missing: want the folder of the training photos, or [world], which renders a data set`,
			`x.toml: data.val_annotations: missing: want the COCO captions file of the validation set, or [world], which renders a data set`,
			`x.toml: data.val_images: missing: want the folder of the validation photos, or [world], which renders a data set`,
			`x.toml: clip.weights: missing: want the file or folder of a CLIP; one is trained only where there is [world]`,
			`x.toml: gpt2.weights: missing: want the file or folder of a GPT-2; one is trained only where there is [world]`}, "\n")},
		{"half of the data", strings.Replace(coco, "val_images = \"v\"\n", "", 1), nil,
			`x.toml:1: data.val_images: missing: want the folder of the validation photos, or [world], which renders a data set`},
		{"photos alone", world + "[data]\nphotos = \"p\"\n", nil,
			`x.toml:3: data.photos: data.captions is missing: they replace the training set together`},
		{"captions alone", world + "[data]\ncaptions = \"p\"\n", nil,
			`x.toml:3: data.captions: data.photos is missing: they replace the training set together`},
		{"two training sets", coco, []string{"data.photos=p", "data.captions=c"}, strings.Join([]string{"2 problems:",
			`x.toml:2: data.train_annotations: data.photos and data.captions replace the training set: leave out one or the other`,
			`x.toml:3: data.train_images: data.photos and data.captions replace the training set: leave out one or the other`}, "\n")},
		{"ClipCap's file beside a training set", coco, []string{"data.clipcap=f.pkl"}, strings.Join([]string{"2 problems:",
			`x.toml:2: data.train_annotations: data.clipcap replaces the training set: leave out one or the other`,
			`x.toml:3: data.train_images: data.clipcap replaces the training set: leave out one or the other`}, "\n")},
		{"pairs of unpaired sets", world + "[data]\nphotos = \"p\"\ncaptions = \"c\"\n[bridges]\nuse = [\"direct\", \"clipcap\"]\n", nil,
			`x.toml:6: bridges.use: clipcap learns from pairs, and data.photos and data.captions have none`},
		{"width of heads", world + "[train.gpt2]\nwidth = 200\n", nil,
			`x.toml:3: train.gpt2.width: 200 is no multiple of 64, the width of a head`},
		{"patches", world + "[train.clip]\npatch = 30\n", nil,
			`x.toml:3: train.clip.patch: train.clip.patch = 30 does not divide train.clip.image = 128`},
		{"positions", world + "[caption]\nmax_tokens = 90\n", nil,
			`x.toml:3: caption.max_tokens: train.decoder.prefix_length = 40 and caption.max_tokens = 90 need 129 positions, and train.gpt2.positions is 128`},
		{"decay", world + "[train.cyclegan]\ndecay_from = 21\n", nil,
			`x.toml:3: train.cyclegan.decay_from: train.cyclegan.decay_from = 21 is more than train.cyclegan.epochs = 20`},
		{"batch of CLIP", "[world]\npretrain = 100\n", nil,
			`x.toml:2: world.pretrain: train.clip.batch = 128 is more than world.pretrain = 100 photos`},
		{"batch of the CycleGAN", "[world]\ntrain = 100\n[data]\npairing = \"disjoint\"\n", nil,
			`x.toml:2: world.train: train.cyclegan.batch = 64 is more than the 50 training photos that world.train = 100 gives with data.pairing = "disjoint"`},
		{"examples", coco + "[eval]\nexamples = 20\n[data.x]\n", []string{"data.val_limit=10"}, strings.Join([]string{"2 problems:",
			`x.toml:11: eval.examples: eval.examples = 20 is more than data.val_limit = 10 photos`,
			`x.toml:12: data.x: there is no such table; [data] has train_annotations, train_images, val_annotations, val_images, karpathy, photos, captions, clipcap, pairing, max_bad, val_limit`}, "\n")},

		// --set.
		{"set: unknown key", world, []string{"train.cyclegan.epoch=5"},
			`--set train.cyclegan.epoch=5: there is no such key; did you mean train.cyclegan.epochs?`},
		{"set: short key", world, []string{"cyclegan.epochs=5"},
			`--set cyclegan.epochs=5: there is no such key; did you mean train.cyclegan.epochs?`},
		{"set: type", world, []string{"train.decoder.epochs=many"},
			`--set train.decoder.epochs=many: want a whole number from 1 to 1e6, not the string "many"`},
		{"set: range", world, []string{"train.decoder.epochs=0"},
			`--set train.decoder.epochs=0: 0 is out of range: want a whole number from 1 to 1e6`},
		{"set: word", world, []string{"caption.decode=beem"},
			`--set caption.decode=beem: "beem" is none of "beam", "greedy"; did you mean "beam"?`},
		{"set: word in list", world, []string{"bridges.use=[direct,cyclegn]"},
			`--set bridges.use=[direct,cyclegn]: "cyclegn" is none of "capdec", "clipcap", "cyclegan", "decap", "direct", "meanshift", "whitening"; did you mean "cyclegan"?`},
		{"set: nothing", world, []string{"train.decoder.epochs="},
			`--set train.decoder.epochs=: want a whole number from 1 to 1e6, not the string ""`},
		{"set: no value", world, []string{"train.decoder.epochs"},
			`--set train.decoder.epochs: want KEY=VALUE, such as train.cyclegan.epochs=5`},
		{"set: no key", world, []string{"=5"},
			`--set =5: want KEY=VALUE, such as train.cyclegan.epochs=5`},
		{"set: two lines", world, []string{"seed=1\nthreads=2"},
			"--set seed=1\nthreads=2: the value is not a line of UTF-8 text"},
		{"set: no UTF-8", world, []string{"output=a\xff"},
			"--set output=a\xff: the value is not a line of UTF-8 text"},
		{"set: broken", world, []string{`output="abc`},
			`--set output="abc: the value is broken TOML: unexpected EOF; expected '"'`},
		{"set: table", world, []string{"train.decoder=5"},
			`--set train.decoder=5: this is a table, [train.decoder], not the number 5`},
		{"set: contradiction", world, []string{"train.cyclegan.decay_from=9", "train.cyclegan.epochs=5"},
			`--set train.cyclegan.decay_from=9: train.cyclegan.decay_from = 9 is more than train.cyclegan.epochs = 5`},

		// Several, in the order of the lines: file, missing, --set.
		{"several", "[train.cyclegan]\nlr = -1\nepoch = 3\n[train.clip]\nwidth = 65\n[data]\n", []string{"seed=-1"}, strings.Join([]string{"10 problems:",
			`x.toml:2: train.cyclegan.lr: -1 is out of range: want a number above 0 and at most 10`,
			`x.toml:3: train.cyclegan.epoch: there is no such key; did you mean train.cyclegan.epochs?`,
			`x.toml:5: train.clip.width: 65 is no multiple of 64, the width of a head`,
			`x.toml:6: data.train_annotations: missing: want the COCO captions file of the training set, or [world], which renders a data set`,
			`x.toml:6: data.train_images: missing: want the folder of the training photos, or [world], which renders a data set`,
			`x.toml:6: data.val_annotations: missing: want the COCO captions file of the validation set, or [world], which renders a data set`,
			`x.toml:6: data.val_images: missing: want the folder of the validation photos, or [world], which renders a data set`,
			`x.toml: clip.weights: missing: want the file or folder of a CLIP; one is trained only where there is [world]`,
			`x.toml: gpt2.weights: missing: want the file or folder of a GPT-2; one is trained only where there is [world]`,
			`--set seed=-1: -1 is out of range: want a whole number from 0 to 1e15`}, "\n")},
		// A key with a wrong value is not compared with others as well.
		{"no second problem", world + "[train.clip]\npatch = 0\nimage = 100\n", nil,
			`x.toml:3: train.clip.patch: 0 is out of range: want a whole number from 1 to 1024`},
	} {
		t.Run(c.name, func(t *testing.T) {
			have, err := parse("x.toml", []byte(c.toml), c.sets)
			if err == nil {
				t.Fatalf("no error; want %s", c.want)
			}
			if have != nil {
				t.Error("there is a config beside the error")
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
