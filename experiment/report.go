package experiment

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"cyclecap/data/coco"
	"cyclecap/data/world"
	"cyclecap/eval/geometry"
	"cyclecap/experiment/report"
	"cyclecap/internal/jsonerror"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/train"
	"cyclecap/train/bridge"
)

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", path, jsonerror.Words(err))
	}
	return nil
}

// report writes report.html, table.md and table.json to the experiment's folder.
func (x *Experiment) report(ctx context.Context, f *featureSets, captions []*seedCaptions, scores *scoreTable) error {
	s := &stage{name: "report", dir: "report", outcome: strings.Join(report.Files, ", "), settings: []any{x.numbers(), x.Seeds, x.worlds()},
		inputs: append(f.unpairedInputs(), scores.result, f.results.valImages, f.results.valTexts)}
	for _, name := range report.Files {
		s.outside = append(s.outside, filepath.Join(x.Dir, name))
	}
	for _, c := range captions {
		s.inputs = append(s.inputs, c.in.data.val.referenceHash())
		for _, b := range x.bridges {
			s.inputs = append(s.inputs, c.hashes[b.Name], c.decoders[b.Decoder].result)
		}
		if c.gan != nil {
			s.inputs = append(s.inputs, c.gan.result)
		}
	}
	s.do = func(ctx context.Context, dir string) error {
		resolved, err := x.Config.Encode()
		if err != nil {
			return err
		}
		e := &report.Experiment{
			Name: x.Config.Name, Data: x.dataName(), Val2014: x.data.isCOCO, Images: scores.Images,
			Differences: scores.Differences, Closed: scores.Closed, Baseline: x.baseline(), References: scores.References, Config: string(resolved), Notes: x.reportNotes(),
			ExamplesNote: fmt.Sprintf("Selected at random from all validation photos with seed %d.", x.Config.Seed),
		}
		for _, b := range x.bridges {
			r := report.Bridge{ID: b.Name, Label: b.Title, Supervised: b.Role == bridge.Ceiling, Paper: b.Paper, Scores: scores.Bridges[b.Name], Claims: scores.Claims[b.Name]}
			if r.Cost, err = x.cost(b, captions); err != nil {
				x.UI.Say("report: no cost of %s: %v", b.Name, err)
			}
			e.Bridges = append(e.Bridges, r)
		}
		shown, err := x.shown()
		if err != nil {
			return err
		}
		e.Examples = x.examples(captions[0], shown)
		e.Charts = x.charts(captions[0])
		var cloud *geometry.Cloud
		if e.Geometry, cloud, err = x.geometry(captions[0], f); err != nil {
			return err
		}
		if cloud != nil {
			if err := writeJSON(filepath.Join(dir, gapFile), cloud); err != nil {
				return err
			}
		}
		x.facts(e, f)
		return report.Write(x.Dir, e)
	}
	if err := x.run(ctx, s); err != nil {
		return err
	}
	x.UI.Say("%s", filepath.Join(x.Dir, "report.html"))
	return nil
}

func (x *Experiment) dataName() string {
	switch {
	case x.data.isCOCO:
		return "COCO val2014"
	case x.Config.Data.Karpathy != "":
		return "COCO, Karpathy's test split"
	case x.Config.World != nil:
		w := x.Config.World
		if n := x.worlds(); n > 1 {
			return fmt.Sprintf("%d rendered worlds (seeds %d to %d, %d validation photos each)", n, w.Seed, w.Seed+n-1, w.Val)
		}
		return fmt.Sprintf("rendered world (seed %d, %d validation photos)", w.Seed, w.Val)
	}
	return x.Config.Data.ValAnnotations
}

func (x *Experiment) reportNotes() []string {
	if x.Config.World == nil {
		return nil
	}
	return []string{"All models were trained from scratch on rendered photos, with a small CLIP and a small GPT-2 in place of OpenAI's. " +
		"The scores compare the bridges on this data set; they say nothing about real photos."}
}

// examples selects photos at random, with the captions of each bridge.
func (x *Experiment) examples(c *seedCaptions, shown map[coco.ID]world.Photo) (list []report.Example) {
	rng := rand.New(rand.NewPCG(uint64(x.Config.Seed), 3))
	refs := x.data.val.references()
	paths := map[coco.ID]string{}
	for _, p := range x.data.val.photos {
		paths[x.data.val.id(p.id)] = p.path
	}
	first := c.results[x.bridges[0].Name]
	for _, i := range rng.Perm(len(first))[:min(len(first), x.Config.Eval.Examples)] {
		id := first[i].ImageID
		e := report.Example{ID: id.String(), Truths: refs[id]}
		e.Photo, _ = os.ReadFile(paths[id]) // the page says so if the photo is missing
		for _, b := range x.bridges {
			text := c.results[b.Name][i].Caption
			e.Captions = append(e.Captions, report.Caption{Bridge: b.Name, Text: text, Claims: shown[id].Claims(text)})
		}
		list = append(list, e)
	}
	return list
}

// charts returns charts of the losses of all trainings.
func (x *Experiment) charts(c *seedCaptions) (list []report.Chart) {
	add := func(title, dir string, names map[string]string) {
		series, err := losses(filepath.Join(dir, train.MetricsFile), names)
		if err != nil {
			x.UI.Say("report: no chart of %s: %v", title, err)
		} else if len(series) > 0 {
			list = append(list, report.Chart{Title: title, Series: series})
		}
	}
	if x.Config.CLIP.Weights == "" {
		add("CLIP", filepath.Join(x.Dir, "clip"), map[string]string{"loss": "contrastive loss"})
	}
	if x.Config.GPT2.Weights == "" {
		add("GPT-2", filepath.Join(x.Dir, "gpt2"), map[string]string{"loss": "loss per token"})
	}
	shown := map[bridge.Decoder]bool{}
	for _, b := range x.bridges {
		if k := b.Decoder; !shown[k] {
			shown[k] = true
			add("Decoder trained on "+strings.ReplaceAll(k.Name, "-", " "), c.decoders[k].log, map[string]string{"loss": "training", "validation": "validation"})
		}
	}
	if c.gan != nil {
		add("CycleGAN: generators", c.gan.log, map[string]string{"gan_text": "adversarial, text", "gan_image": "adversarial, image",
			"cycle_text": "cycle, text", "cycle_image": "cycle, image", "identity_text": "identity, text", "identity_image": "identity, image"})
		add("CycleGAN: discriminators", c.gan.log, map[string]string{"disc_text": "text", "disc_image": "image"})
	}
	return list
}

// losses reads series from the log of a training; names maps their keys to titles.
func losses(path string, names map[string]string) ([]report.Series, error) {
	keys := slices.Sorted(maps.Keys(names))
	points, err := readLog(path, keys)
	var list []report.Series
	for _, key := range keys {
		if p := points[key]; len(p) > 1 {
			list = append(list, report.Series{Name: names[key], Points: p})
		}
	}
	return list, err
}

// finalLosses lists the last values of keys in the log of a training. It leaves out what it
// cannot read, since nothing depends on it.
func finalLosses(dir string, keys ...string) string {
	points, _ := readLog(filepath.Join(dir, train.MetricsFile), keys)
	var list []string
	for _, key := range keys {
		if p := points[key]; len(p) > 0 {
			list = append(list, fmt.Sprintf("%s %.3f", key, p[len(p)-1].Value))
		}
	}
	return strings.Join(list, ", ")
}

// readLog reads the values of keys from the log of a training.
func readLog(path string, keys []string) (map[string][]report.Point, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	points := map[string][]report.Point{}
	in := bufio.NewScanner(f)
	for in.Scan() {
		var line map[string]*float64
		if err := json.Unmarshal(in.Bytes(), &line); err != nil {
			return nil, fmt.Errorf("%s: %w", path, jsonerror.Words(err))
		}
		for _, key := range keys {
			if v := line[key]; v != nil && line["step"] != nil {
				points[key] = append(points[key], report.Point{Step: *line["step"], Value: *v})
			}
		}
	}
	return points, in.Err()
}

// most is the maximum number of pairs to measure the geometry on, because recall compares
// all photos with all captions.
const most = 5000

// gapFile is the picture of the gap for cyclecap serve, in the stage's folder, and gapPoints the
// number of photos in it.
const (
	gapFile   = "gap.json"
	gapPoints = 150
)

// geometry measures the gap between the validation photos and their captions, before and
// after each bridge. The cloud is its picture with the features of the CycleGAN, or nil
// without one.
func (x *Experiment) geometry(c *seedCaptions, f *featureSets) (g *geometry.Geometry, cloud *geometry.Cloud, err error) {
	// Pair each photo with its first caption.
	caption := map[int64]int{}
	for i, id := range x.data.val.textImage {
		if _, ok := caption[id]; !ok {
			caption[id] = i
		}
	}
	var photos, texts []int32
	for row, id := range f.valImageIDs {
		if t, ok := caption[id]; ok && len(photos) < most {
			photos, texts = append(photos, int32(row)), append(texts, int32(t))
		}
	}
	if len(photos) < 2 {
		return nil, nil, nil
	}
	err = scope(c.seed, func() error {
		image, err := train.Rows(f.valImages, photos, x.device)
		if err != nil {
			return err
		}
		text, err := train.Rows(f.valTexts, texts, x.device)
		if err != nil {
			return err
		}
		var sets []geometry.Set
		for _, b := range x.bridges {
			if b.Decoder != bridge.OfTexts || b.Role == bridge.Baseline {
				continue // it passes the image feature unchanged
			}
			e, err := x.env(b, c.seed, f, c.gan)
			if err != nil {
				return err
			}
			if e.Generator != nil {
				defer nn.Close(e.Generator)
			}
			transform, err := b.Fit(e)
			if err != nil {
				return err
			}
			torch.InferenceMode(func() { sets = append(sets, geometry.Set{Name: b.Title, Features: rows(transform(image))}) })
			if b.CycleGAN {
				if cloud, err = geometry.NewCloud(rows(image), rows(text), sets[len(sets)-1].Features, gapPoints); err != nil {
					return err
				}
			}
		}
		g, err = geometry.Measure(rows(image), rows(text), sets, 400)
		return err
	})
	return g, cloud, err
}

func rows(t torch.Tensor) [][]float32 {
	flat, w := torch.ToSlice[float32](t), int(t.Size(1))
	out := make([][]float32, len(flat)/w)
	for i := range out {
		out[i] = flat[i*w : (i+1)*w]
	}
	return out
}

// facts adds versions, counts and durations to e.
func (x *Experiment) facts(e *report.Experiment, f *featureSets) {
	if b, err := torch.BuildInfo(); err == nil {
		e.Versions = append(e.Versions, report.Fact{Name: "libtorch", Value: b.Version})
	}
	e.Versions = append(e.Versions, report.Fact{Name: "Go", Value: strings.TrimPrefix(runtime.Version(), "go")},
		report.Fact{Name: "threads", Value: strconv.Itoa(torch.NumThreads())})
	counted := func(name string, n int) {
		e.Counts = append(e.Counts, report.Fact{Name: name, Value: strconv.Itoa(n)})
	}
	images, texts := f.unpaired()
	counted("training photos", f.trainImages.Len())
	counted("training captions", f.trainTexts.Len())
	if x.Config.Data.Pairing == "disjoint" {
		counted("training photos used by bridges", images.Len())
		counted("training captions used by bridges and text decoders", texts.Len())
	}
	counted("validation photos", f.valImages.Len())
	counted("unreadable photos", len(f.skipped))
	for _, n := range x.data.notes {
		e.Counts = append(e.Counts, report.Fact{Name: "skipped", Value: strings.TrimPrefix(n, "skipped ")})
	}
	for _, name := range x.log.order {
		e.Stages = append(e.Stages, report.Stage{Name: name, Seconds: x.log.took[name], Skipped: x.log.skipped[name]})
	}
}
