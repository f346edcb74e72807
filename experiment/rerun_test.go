package experiment

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"cyclecap/experiment/config"
)

// The stages of the small experiment, and those among them that depend on something.
var (
	smallFeatures = []string{"features/val-images", "features/val-texts", "features/train-images", "features/train-texts"}
	smallDecoders = []string{"seed-0/decoder-texts", "seed-0/decoder-images"}
	smallCyclegan = []string{"seed-0/cyclegan"}
	smallCaptions = []string{"seed-0/captions-direct", "seed-0/captions-cyclegan", "seed-0/captions-clipcap"}
	scored        = []string{"evaluate", "report"}
	onCaptioning  = join(smallCaptions, scored)
	onDecoders    = join(smallDecoders, onCaptioning)
	onCyclegan    = join(smallCyclegan, []string{"seed-0/captions-cyclegan"}, scored)
	onGPT2        = join([]string{"gpt2"}, onDecoders)
	onCLIP        = join([]string{"clip"}, smallFeatures, smallCyclegan, onDecoders)
	onPretraining = join([]string{"gpt2"}, onCLIP)
	onWorld       = join([]string{"world"}, onPretraining)
	onUnpaired    = join([]string{"seed-0/decoder-texts", "seed-0/captions-direct"}, onCyclegan)
	onTrainImages = join([]string{"features/train-images", "seed-0/decoder-images", "seed-0/captions-clipcap"}, onCyclegan)
	onTrainTexts  = join([]string{"features/train-texts"}, smallDecoders, smallCyclegan, onCaptioning)
	onValImages   = join([]string{"features/val-images", "seed-0/decoder-images"}, onCaptioning)
	onValTexts    = join([]string{"features/val-texts"}, onDecoders)
	onTrainingSet = join([]string{"features/train-images"}, onTrainTexts)
	onReport      = []string{"report"}
)

func join(lists ...[]string) (all []string) {
	for _, list := range lists {
		all = append(all, list...)
	}
	return all
}

// A rerun is a change of a finished run.
type rerun struct {
	base []string // settings of the finished run, besides those of runSmall
	set  []string // settings that change
	// change changes files of the finished run.
	change func(t *testing.T, dir string)
	ran    []string // the stages that must run again; evaluate need not if the captions are the same
	alone  bool     // set excludes, or has no effect together with, others of the same base and ran
}

// reruns has the keys one by one. {base} stands for the folder of the finished run, and {data} for
// changedData.
var reruns = []rerun{
	{set: []string{"name=other"}, ran: onReport},
	{set: []string{"seed=1"}, ran: join([]string{"clip", "gpt2"}, smallFeatures, []string{"seed-1/decoder-texts", "seed-1/decoder-images", "seed-1/cyclegan",
		"seed-1/captions-direct", "seed-1/captions-cyclegan", "seed-1/captions-clipcap"}, scored)},
	{set: []string{"threads=0"}},
	{set: []string{"world.seed=2"}, ran: onWorld},
	{set: []string{"world.size=40"}, ran: onWorld},
	{set: []string{"world.pretrain=70"}, ran: onPretraining},
	{set: []string{"world.train=25"}, ran: join([]string{"world"}, onTrainingSet)},
	{set: []string{"world.val=7"}, ran: join([]string{"world", "features/val-images"}, onValTexts)},
	{set: []string{"world.tune=4"}, ran: []string{"world", "report"}},
	{set: []string{"world.bare=true"}, ran: onWorld},
	{base: []string{"bridges.use=[direct,cyclegan]"}, set: []string{"world.texts=30"}, ran: join([]string{"features/train-texts"}, onUnpaired)},
	{base: []string{"bridges.use=[direct,cyclegan]", "world.texts=30"}, set: []string{"world.text_seed=5"}, ran: join([]string{"features/train-texts"}, onUnpaired)},
	{set: []string{"data.train_annotations={data}/captions_train2014.json"}, ran: onTrainTexts},
	{set: []string{"data.train_images={data}/train2014"}, ran: onTrainImages},
	{set: []string{"data.val_annotations={data}/captions_val2014.json"}, ran: join([]string{"features/val-texts"}, smallDecoders, scored)},
	{set: []string{"data.val_images={data}/val2014"}, ran: onValImages},
	{base: []string{"bridges.use=[direct,cyclegan]"}, set: []string{"data.photos={data}/train2014", "data.captions={data}/captions.txt"}, ran: join([]string{"features/train-images", "features/train-texts"}, onUnpaired)},
	{set: []string{"data.pairing=disjoint"}, ran: onUnpaired},
	{base: []string{"data.pairing=disjoint"}, set: []string{"data.overlap=0.5"}, ran: onUnpaired},
	{set: []string{"data.photo_limit=20"}, ran: onCyclegan},
	{set: []string{"data.caption_limit=40"}, ran: onUnpaired},
	{set: []string{"data.max_bad=0.5"}},
	{set: []string{"data.val_limit=4"}, ran: join([]string{"features/val-images"}, onValTexts)},
	{set: []string{"clip.weights={base}/clip/clip.safetensors"}, ran: join(smallFeatures, smallCyclegan, onDecoders)},
	{set: []string{"gpt2.weights={base}/gpt2/gpt2.safetensors"}, ran: join(smallDecoders, smallCaptions)},
	{set: []string{"train.clip.image_encoder=resnet"}, ran: onCLIP, alone: true},
	{set: []string{"train.clip.width=128"}, ran: onCLIP},
	{set: []string{"train.clip.layers=2"}, ran: onCLIP},
	{set: []string{"train.clip.patch=8"}, ran: onCLIP},
	{set: []string{"train.clip.image=48"}, ran: onCLIP},
	{set: []string{"train.clip.text={base}/clip/clip.safetensors"}, ran: onCLIP, alone: true},
	{set: []string{"train.clip.text_width=128"}, ran: onCLIP},
	{set: []string{"train.clip.text_layers=2"}, ran: onCLIP},
	{set: []string{"train.clip.vocab=600"}, ran: onCLIP},
	{set: []string{"train.clip.embed_dim=48"}, ran: onCLIP},
	{set: []string{"train.clip.epochs=2"}, ran: onCLIP},
	{set: []string{"train.clip.batch=16"}, ran: onCLIP},
	{set: []string{"train.clip.lr=1e-3"}, ran: onCLIP},
	{set: []string{"train.clip.weight_decay=0.9"}, ran: onCLIP},
	{set: []string{"train.clip.warmup_steps=1"}, ran: onCLIP},
	{set: []string{"train.clip.temperature=0.5"}, ran: onCLIP},
	{set: []string{"train.clip.dtype=bf16"}, ran: onCLIP},
	{set: []string{"train.clip.checkpoint_every=7"}},
	{set: []string{"train.gpt2.width=128"}, ran: onGPT2},
	{set: []string{"train.gpt2.layers=2"}, ran: onGPT2},
	{set: []string{"train.gpt2.positions=50"}, ran: onGPT2},
	{set: []string{"train.gpt2.epochs=2"}, ran: onGPT2},
	{set: []string{"train.gpt2.batch=8"}, ran: onGPT2},
	{set: []string{"train.gpt2.lr=2e-3"}, ran: onGPT2},
	{set: []string{"train.gpt2.warmup_steps=1"}, ran: onGPT2},
	{set: []string{"train.gpt2.dtype=bf16"}, ran: onGPT2},
	{set: []string{"train.gpt2.checkpoint_every=7"}},
	{set: []string{"train.decoder.mapper=mlp"}, ran: onDecoders, alone: true},
	{set: []string{"train.decoder.prefix_length=5"}, ran: onDecoders},
	{set: []string{"train.decoder.clip_length=5"}, ran: onDecoders},
	{set: []string{"train.decoder.layers=2"}, ran: onDecoders},
	{set: []string{"train.decoder.epochs=2"}, ran: onDecoders},
	{set: []string{"train.decoder.batch=12"}, ran: onDecoders},
	{set: []string{"train.decoder.lr=1e-3"}, ran: onDecoders},
	{set: []string{"train.decoder.warmup_steps=1"}, ran: onDecoders},
	{set: []string{"train.decoder.freeze_gpt2=false"}, ran: onDecoders},
	{set: []string{"train.decoder.normalize_prefix=true"}, ran: join(smallCyclegan, onDecoders)},
	{set: []string{"train.decoder.dtype=bf16"}, ran: onDecoders},
	{set: []string{"train.decoder.checkpoint_every=1000"}},
	{set: []string{"train.cyclegan.epochs=3"}, ran: onCyclegan},
	{set: []string{"train.cyclegan.layers=2"}, ran: onCyclegan},
	{set: []string{"train.cyclegan.batch=6"}, ran: onCyclegan},
	{set: []string{"train.cyclegan.lr=1e-3"}, ran: onCyclegan},
	{set: []string{"train.cyclegan.beta1=0.9"}, ran: onCyclegan},
	{set: []string{"train.cyclegan.beta2=0.9"}, ran: onCyclegan},
	{set: []string{"train.cyclegan.decay_from=0"}, ran: onCyclegan},
	{set: []string{"train.cyclegan.adversarial=bce"}, ran: onCyclegan},
	{set: []string{"train.cyclegan.cycle_weight=1"}, ran: onCyclegan},
	{set: []string{"train.cyclegan.identity_weight=0"}, ran: onCyclegan},
	{set: []string{"train.cyclegan.pool=0"}, ran: onCyclegan},
	{set: []string{"train.cyclegan.disc_halved=false"}, ran: onCyclegan},
	{set: []string{"train.cyclegan.normalize=standard"}, ran: onCyclegan},
	{set: []string{"train.cyclegan.checkpoint_every=7"}},
	{set: []string{"bridges.use=[direct,cyclegan,meanshift,clipcap]"}, ran: join([]string{"seed-0/captions-meanshift"}, scored)},
	{base: []string{"bridges.use=[c3]"}, set: []string{"bridges.c3_variance=0.1"}, ran: join([]string{"seed-0/decoder-centered-noisy-texts", "seed-0/captions-c3"}, scored)},
	{base: []string{"bridges.use=[capdec]"}, set: []string{"bridges.capdec_variance=0.1"}, ran: join([]string{"seed-0/decoder-noisy-texts", "seed-0/captions-capdec"}, scored)},
	{base: []string{"bridges.use=[decap]"}, set: []string{"bridges.decap_temperature=0.1"}, ran: join([]string{"seed-0/captions-decap"}, scored)},
	{base: []string{"bridges.use=[decap]"}, set: []string{"bridges.decap_memory=9"}, ran: join([]string{"seed-0/captions-decap"}, scored)},
	{set: []string{"caption.decode=greedy"}, ran: onCaptioning, alone: true},
	{set: []string{"caption.beam=3"}, ran: onCaptioning},
	{base: []string{"caption.decode=beam-transformers"}, set: []string{"caption.length_penalty=-2"}, ran: onCaptioning},
	{base: []string{"caption.decode=beam-transformers"}, set: []string{"caption.early_stopping=\"true\""}, ran: onCaptioning},
	{set: []string{"caption.max_tokens=5"}, ran: onCaptioning},
	{set: []string{"caption.batch=3"}, ran: onCaptioning},
	{set: []string{"eval.metrics=[bleu]"}, ran: scored},
	{set: []string{"eval.examples=1"}, ran: onReport},

	{change: func(t *testing.T, dir string) { // a touched photo
		photos := filepath.Join(dir, "world", "train2014")
		list, err := os.ReadDir(photos)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(filepath.Join(photos, list[0].Name()), time.Time{}, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}},
}

// notChanged are the keys that reruns leaves out.
var notChanged = map[string]string{
	"bridges.scaled_factor": "a bridge of another test",
	"output":                "every case runs in a copy of the folder",
	"device":                "the tests have only a CPU",
	"data.karpathy":         "a split of COCO's files; its sets are changed by other keys",
	"data.clipcap":          "needs a file of Python's; TestData changes it",
	"clip.config":           "a form of clip.weights",
	"eval.meteor_data":      "METEOR's data is not part of the project",
}

// together joins the changes that have the same base and make the same stages run again. It returns
// them and the numbers of those that are joined with no other.
func together(all []rerun) (groups []rerun, single map[int]bool) {
	members := map[string][]int{}
	single = map[int]bool{}
	for i, c := range all {
		if key := fmt.Sprint(c.base, c.ran); c.alone || c.change != nil {
			single[i] = true
		} else {
			members[key] = append(members[key], i)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(members)) {
		list := members[key]
		if len(list) == 1 {
			single[list[0]] = true
			continue
		}
		g := rerun{base: all[list[0]].base, ran: all[list[0]].ran}
		for _, i := range list {
			g.set = append(g.set, all[i].set...)
		}
		groups = append(groups, g)
	}
	return groups, single
}

// TestWhatRunsAgain changes one setting or input of a finished run at a time. What runs again
// must be what depends on it. The results must be those of a fresh folder, which is tried once for
// all changes that make the same stages run again.
func TestWhatRunsAgain(t *testing.T) {
	tried := map[string]bool{}
	for _, c := range reruns {
		for _, s := range c.set {
			key, _, _ := strings.Cut(s, "=")
			tried[key] = true
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^  ([a-z0-9_.]+)$`).FindAllStringSubmatch(config.Describe(""), -1) {
		if key := m[1]; !tried[key] && notChanged[key] == "" {
			t.Errorf("%s is not among the changes", key)
		}
	}

	bases, root := map[string]string{}, t.TempDir() // folders of finished runs, by their settings
	groups, single := together(reruns)
	for i, c := range slices.Concat(reruns, groups) {
		name := strings.Join(c.set, " ")
		if name == "" {
			name = "input"
		}
		t.Run(name, func(t *testing.T) {
			key := strings.Join(c.base, " ")
			if bases[key] == "" {
				dir := filepath.Join(root, fmt.Sprint(i))
				if _, _, err := runSmall(t, dir, nil, c.base...); err != nil {
					t.Fatal(err)
				}
				bases[key] = dir
			}
			base := bases[key]
			dir := filepath.Join(t.TempDir(), "a copy [1]")
			if err := os.CopyFS(dir, os.DirFS(base)); err != nil {
				t.Fatal(err)
			}
			if c.change != nil {
				c.change(t, dir)
			}
			sets := slices.Clone(c.base)
			for _, s := range c.set {
				if strings.Contains(s, "{data}") {
					s = strings.ReplaceAll(s, "{data}", changedData(t, base))
				}
				sets = append(sets, strings.ReplaceAll(s, "{base}", base))
			}
			ran, q, err := runSmall(t, dir, nil, sets...)
			if err != nil {
				t.Fatal(err)
			}
			want := c.ran
			if !slices.Contains(ran, "evaluate") {
				want = slices.DeleteFunc(slices.Clone(want), func(s string) bool { return s == "evaluate" })
			}
			slices.Sort(ran)
			want = slices.Sorted(slices.Values(want))
			if !slices.Equal(ran, want) {
				t.Errorf("ran: %s; ran, not wanted: %s; wanted, did not run: %s\n%s", ran, less(ran, want), less(want, ran), strings.Join(q.said, "\n"))
			}
			if len(c.ran) == 0 || i < len(reruns) && !single[i] {
				return
			}
			fresh := filepath.Join(t.TempDir(), "fresh")
			if _, _, err := runSmall(t, fresh, nil, sets...); err != nil {
				t.Fatal(err)
			}
			have, should := products(t, dir), products(t, fresh)
			for path, hash := range should {
				if have[path] != hash {
					t.Errorf("%s is not that of a fresh folder", path)
				}
			}
		})
	}
}

// less returns the strings of a that are not in b.
func less(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}

// changedData returns a copy of a run's data in which a photo and a caption of each part differ.
func changedData(t *testing.T, run string) string {
	t.Helper()
	world, dir := filepath.Join(run, "world"), t.TempDir()
	for _, part := range []string{"train2014", "val2014"} {
		photos := filepath.Join(dir, part)
		if err := os.CopyFS(photos, os.DirFS(filepath.Join(world, part))); err != nil {
			t.Fatal(err)
		}
		list, err := os.ReadDir(photos)
		if err != nil {
			t.Fatal(err)
		}
		other, err := os.ReadFile(filepath.Join(photos, list[0].Name()))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(photos, list[1].Name()), string(other))
		name := "captions_" + part + ".json"
		text, err := os.ReadFile(filepath.Join(world, "annotations", name))
		if err != nil {
			t.Fatal(err)
		}
		caption := regexp.MustCompile(`"caption":\s*"`).FindIndex(text)
		write(t, filepath.Join(dir, name), string(text[:caption[1]])+"Quite "+string(text[caption[1]:]))
	}
	write(t, filepath.Join(dir, "captions.txt"), strings.Repeat("a red cup on a table\na blue bird\n", 20))
	return dir
}
