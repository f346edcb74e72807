package cli

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"cyclecap/data/coco"
	"cyclecap/eval"
	"cyclecap/eval/chair"
	"cyclecap/eval/clipscore"
	"cyclecap/eval/meteor"
	"cyclecap/nets/clip"
	"cyclecap/pipeline"
	"cyclecap/torch/distributed"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/urfave/cli/v2"
)

// evalBootstrap has a fixed seed, so that the same files always give the same
// intervals.
var evalBootstrap = eval.Bootstrap{Seed: 1}

func evalCommand() *cli.Command {
	return &cli.Command{
		Name:      "eval",
		Usage:     "score captions with BLEU, METEOR, ROUGE_L and CIDEr, as pycocoevalcap does",
		UsageText: "--annotations captions_val2014.json --results results.json [--compare OTHER.json]",
		Flags: []cli.Flag{
			&cli.PathFlag{Name: "annotations", Usage: "use the captions in `COCO.json` as references"},
			&cli.PathFlag{Name: "results", Usage: "score the captions in `RESULTS.json`, a list of objects with image_id and caption"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object", DisableDefaultText: true},
			&cli.PathFlag{Name: "per-image", Usage: "write the scores and tokens of every image to `OUT.json`"},
			&cli.StringFlag{Name: "metrics", Value: "BLEU,METEOR,ROUGE_L,CIDEr,repetition", Usage: "compute the metrics in `NAMES`, separated by commas"},
			&cli.PathFlag{Name: "meteor-data", Value: meteor.DefaultDir(), DefaultText: "cyclecap/meteor in the user's cache folder", Usage: "read METEOR's data from `DIR`; run `make meteor-data` to get it"},
			&cli.PathFlag{Name: "clip", Usage: "also compute CLIPScore and RefCLIPScore, with the CLIP in `FILE`; needs --images"},
			clipConfigFlag(),
			&cli.PathFlag{Name: "instances", Usage: "also compute CHAIRi and CHAIRs, with the objects in COCO's `INSTANCES.json`"},
			&cli.PathFlag{Name: "images", Usage: "with --clip: read the photos from `DIR`, by the file names in the annotations"},
			&cli.PathFlag{Name: "compare", Usage: "compare with the results in `OTHER.json`, by a paired bootstrap over the images"},
			&cli.BoolFlag{Name: "partial", Usage: "score only the images that have a result; without this flag, a missing result is an error", DisableDefaultText: true},
		},
		Description: `The table shows the 95 % interval of each score, from 1,000 bootstrap samples of
the images. CIDEr depends on the set that is scored, and its interval keeps the
document frequencies of the whole set. METEOR needs data that does not come with
cyclecap; without that data the other metrics are still computed. repetition is
the share of captions in which two adjacent words occur again (repeated_bigram),
and in which a word follows itself (repeated_word).

--instances computes the share of the objects that captions mention although the
photo has none (CHAIRi), and the share of captions with such an object (CHAIRs).

--json prints {"corpus": {"BLEU-1": 0.5, …}, "images": n}, and "not_computed"
with the reason for each metric that could not be computed. --compare adds
"compare", a list of objects with score, a, b, difference (a - b), low, high and
p. --per-image writes
[{"image_id": 1, "scores": {…}, "tokens": {"candidate": "…", "references": ["…"]}}].

Line breaks inside a caption count as spaces; some of them make pycocoevalcap
assign later captions to the wrong images.

torchrun's processes share CLIPScore; rank 0 computes the rest and prints.

EXAMPLES:
   cyclecap eval --annotations captions_val2014.json --results results.json
   cyclecap eval --annotations captions_val2014.json --results textualised.json --compare direct.json
   cyclecap eval --annotations captions_val2014.json --results results.json --json | jq .corpus.CIDEr
   cyclecap eval --annotations captions_val2014.json --results results.json --clip ViT-B-32.pt --images val2014/
   cyclecap eval --annotations captions_val2014.json --results results.json --instances instances_val2014.json`,
		Action: evaluate,
	}
}

// metricsOf parses --metrics. It returns metrics that cannot be computed in
// missing, with the reason.
func metricsOf(c *cli.Context) (metrics []eval.Metric, missing map[string]string, err error) {
	missing = map[string]string{}
	seen := map[string]bool{}
	for name := range strings.SplitSeq(c.String("metrics"), ",") {
		name = strings.ToUpper(strings.TrimSpace(name))
		if seen[name] {
			return nil, nil, usagef("--metrics: %s is listed twice", name)
		}
		seen[name] = true
		switch name {
		case "BLEU":
			metrics = append(metrics, eval.BLEU{})
		case "ROUGE_L":
			metrics = append(metrics, eval.ROUGE{})
		case "CIDER":
			metrics = append(metrics, eval.CIDEr{})
		case "REPETITION":
			metrics = append(metrics, eval.Repetition{})
		case "METEOR":
			m, err := openMETEOR(c.Path("meteor-data"))
			if err != nil {
				missing["METEOR"] = err.Error()
				continue
			}
			metrics = append(metrics, m)
		default:
			return nil, nil, usagef("--metrics: unknown metric %q; must be BLEU, METEOR, ROUGE_L, CIDEr or repetition", name)
		}
	}
	return metrics, missing, nil
}

// openMETEOR opens METEOR's data.
func openMETEOR(dir string) (eval.Metric, error) {
	s, err := meteor.Open(dir)
	if err != nil {
		return nil, err
	}
	return s.Metric(), nil
}

func evaluate(c *cli.Context) (err error) {
	switch {
	case c.Args().Present():
		return usagef("eval takes no arguments, got %q", c.Args().First())
	case c.Path("annotations") == "" || c.Path("results") == "":
		return usagef("--annotations and --results are required; see `cyclecap eval --help`")
	case (c.Path("clip") == "") != (c.Path("images") == ""):
		return usagef("CLIPScore needs both --clip and --images")
	}
	metrics, missing, err := metricsOf(c)
	if err != nil {
		return err
	}
	g, leave, err := joinCommand(c)
	if err != nil {
		return err
	}
	defer func() { err = leave(err) }()
	if g.Rank() > 0 {
		err = helpEvaluate(c, g)
	} else {
		err = evaluateAll(c, g, metrics, missing)
	}
	if err != nil {
		return err // the others notice that this process leaves the group
	}
	return g.Barrier()
}

// helpEvaluate is eval in processes other than rank 0: they share CLIPScore. The other metrics take
// less time than exchanging them would.
func helpEvaluate(c *cli.Context, g *distributed.Group) error {
	if c.Path("clip") == "" {
		return nil
	}
	model, err := openScorer(c)
	if err != nil {
		return err
	}
	defer model.Close()
	set, err := coco.Read(c.Path("annotations"))
	if err != nil {
		return err
	}
	for _, path := range []string{c.Path("results"), c.Path("compare")} {
		if path == "" {
			continue
		}
		if _, err := evaluateFile(c, g, set, path, []eval.Metric{}, model); err != nil {
			return err
		}
	}
	return nil
}

// openScorer loads the CLIP of CLIPScore.
func openScorer(c *cli.Context) (*pipeline.CLIP, error) {
	return pipeline.LoadCLIP(c.Path("clip"), c.Path("clip-config"), clip.Both, pipeline.Options{})
}

// evaluateAll scores, compares and prints.
func evaluateAll(c *cli.Context, g *distributed.Group, metrics []eval.Metric, missing map[string]string) (err error) {
	for name, why := range missing {
		fmt.Fprintf(c.App.ErrWriter, "cyclecap: %s is not computed: %s\n", name, why)
	}
	var model *pipeline.CLIP
	if c.Path("clip") != "" {
		if model, err = openScorer(c); err != nil {
			return err
		}
		defer model.Close()
		notes(c, model.Notes)
	}
	if len(metrics) == 0 && model == nil && c.Path("instances") == "" {
		return errReported // the reasons were printed above
	}
	set, err := coco.Read(c.Path("annotations"))
	if err != nil {
		return err
	}
	result, err := evaluateFile(c, g, set, c.Path("results"), metrics, model)
	if err != nil {
		return err
	}
	var differences []eval.Difference
	if other := c.Path("compare"); other != "" {
		against, err := evaluateFile(c, g, set, other, metrics, model)
		if err != nil {
			return err
		}
		if differences, err = eval.Compare(c.Context, result, against, evalBootstrap); err != nil {
			return err
		}
	}
	if path := c.Path("per-image"); path != "" {
		if err := write(func() error { return result.WriteImages(path) }); err != nil {
			return err
		}
	}
	if _, ok := result.Corpus["CIDEr"]; ok && len(result.Images) == 1 {
		note(c, "CIDEr of a single image is always 0: it weighs words by how few of the images have them")
	}
	if c.Bool("json") {
		return evalJSON(c, result, missing, differences)
	}
	return evalTable(c, result, differences)
}

// evaluateFile scores a results file. With --compare it sorts the images by id, so
// that files that list them in different orders can be compared.
func evaluateFile(c *cli.Context, g *distributed.Group, set *coco.Dataset, path string, metrics []eval.Metric, model *pipeline.CLIP) (*eval.Result, error) {
	results, err := coco.ReadResults(path)
	if err != nil {
		return nil, err
	}
	items, err := eval.Pair(set, results, c.Bool("partial"))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if c.Path("compare") != "" {
		slices.SortFunc(items, func(a, b eval.Item) int { return a.ImageID.Compare(b.ImageID) })
	}
	if instances := c.Path("instances"); instances != "" && g.Rank() == 0 {
		objects, err := chair.ReadInstances(instances)
		if err != nil {
			return nil, err
		}
		m, err := chair.Metric(items, objects)
		if err != nil {
			return nil, err
		}
		metrics = append(slices.Clip(metrics), m)
	}
	if model != nil {
		files := map[coco.ID]string{}
		for _, m := range set.Images {
			files[m.ID] = filepath.Join(c.Path("images"), filepath.FromSlash(m.FileName))
		}
		inputs := map[coco.ID]clipscore.Input{}
		for _, i := range items {
			inputs[i.ImageID] = clipscore.Input{Photo: files[i.ImageID], Candidate: i.Candidate, References: i.References}
		}
		var progress func(done, total int)
		if g.Rank() == 0 {
			bar := newProgress(c.App.ErrWriter, "photos", len(items))
			defer bar.finish()
			progress = func(done, _ int) { bar.Set(done, "") }
		}
		score := clipscore.Metric(model, inputs, g, progress)
		metrics = append(slices.Clip(metrics), score)
	}
	return eval.Evaluate(c.Context, items, eval.Options{Metrics: metrics})
}

func evalJSON(c *cli.Context, r *eval.Result, missing map[string]string, differences []eval.Difference) error {
	out := struct {
		Corpus      map[string]float64 `json:"corpus"`
		Images      int                `json:"images"`
		NotComputed map[string]string  `json:"not_computed,omitempty"`
		Compare     []eval.Difference  `json:"compare,omitempty"`
	}{r.Corpus, len(r.Images), missing, differences}
	enc := json.NewEncoder(c.App.Writer)
	enc.SetEscapeHTML(false)
	return enc.Encode(out)
}

func evalTable(c *cli.Context, r *eval.Result, differences []eval.Difference) error {
	t := table.NewWriter()
	t.SetOutputMirror(c.App.Writer)
	t.SetStyle(table.StyleLight)
	t.SetTitle(fmt.Sprintf("%d images", len(r.Images)))
	if differences != nil {
		t.AppendHeader(table.Row{"score", "results", "compare", "difference", "95 % interval", "p"})
		for _, d := range differences {
			t.AppendRow(table.Row{d.Score, four(d.A), four(d.B), signed(d.Difference), signed(d.Low) + " … " + signed(d.High), fmt.Sprintf("%.3f", d.P)})
		}
		t.Render()
		return nil
	}
	intervals, err := r.Intervals(c.Context, evalBootstrap)
	if err != nil {
		return err
	}
	t.AppendHeader(table.Row{"score", "value", "95 % interval"})
	for _, name := range r.Names {
		t.AppendRow(table.Row{name, four(r.Corpus[name]), four(intervals[name].Low) + " … " + four(intervals[name].High)})
	}
	t.Render()
	return nil
}

func four(v float64) string   { return fmt.Sprintf("%.4f", v) }
func signed(v float64) string { return fmt.Sprintf("%+.4f", v) }
