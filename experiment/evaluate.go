package experiment

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"cyclecap/data/coco"
	"cyclecap/eval"
	"cyclecap/eval/meteor"
	"cyclecap/experiment/report"
	"cyclecap/torch/distributed"
)

// scoreTable is the result of the evaluate stage, which it writes to scores.json.
type scoreTable struct {
	// Bridges maps bridges and metrics to scores.
	Bridges map[string]map[string]report.Score `json:"bridges"`
	// Differences compares every two bridges in every metric.
	Differences []report.Difference `json:"differences"`
	// Closed is report.Experiment.Closed.
	Closed map[string]eval.Interval `json:"closed"`
	// Claims says of each bridge how much of what its captions say is right, and how often
	// they repeat themselves. References is the same for the first reference caption of each
	// photo.
	Claims     map[string]*report.Claims `json:"claims"`
	References *report.Claims            `json:"references"`
	Images     int                       `json:"images"`

	result string // stage.result
}

// evaluate scores all captions: means over worlds and seeds, with intervals over worlds,
// seeds and photos.
func (x *Experiment) evaluate(ctx context.Context, captions []*seedCaptions) (*scoreTable, error) {
	scorer, missing := x.meteor()
	s := &stage{name: "evaluate", dir: "evaluate", settings: []any{x.Config.Eval.Metrics, x.Config.Seed, missing, "claims", "all pairs"}, products: []string{scoresFile}, shared: true}
	for _, c := range captions {
		inputs, err := c.inputs()
		if err != nil {
			return nil, err
		}
		s.inputs = append(s.inputs, inputs...)
	}
	path := filepath.Join(x.Dir, s.dir, scoresFile)
	s.do = func(ctx context.Context, dir string) error {
		var t *scoreTable
		err := x.scoreTogether(missing, func() (err error) {
			if t, err = x.score(ctx, captions, scorer, missing); err != nil {
				return err
			}
			return x.scoreClaims(ctx, captions, t)
		})
		if err != nil || x.Group.Rank() > 0 {
			return err
		}
		s.outcome = x.mainScores(t)
		return writeJSON(path, t)
	}
	if err := x.run(ctx, s); err != nil {
		return nil, err
	}
	var t scoreTable
	if err := readJSON(path, &t); err != nil {
		return nil, err
	}
	t.result = s.result
	return &t, nil
}

// scoreTogether runs f in all processes of a group: each scores all captions, which takes less time than the
// bootstrap, and computes a share of the samples. missing is that of meteor.
func (x *Experiment) scoreTogether(missing string, f func() error) error {
	if x.Group.Size() == 1 {
		return f()
	}
	return x.UI.Atomic(func() error {
		all, err := distributed.Gather(x.Group, missing)
		if err != nil {
			return err
		}
		for rank, why := range all {
			if (why == "") != (all[0] == "") {
				return fmt.Errorf("METEOR needs its data on the machines of all processes, but of ranks 0 and %d only one has it: %s", rank, all[0]+why)
			}
		}
		if err := f(); err != nil {
			return err
		}
		x.watch.begin() // rank 0 writes the scores alone
		return nil
	})
}

// mainScores lists the scores of the bridges in one metric: CIDEr if it was computed.
func (x *Experiment) mainScores(t *scoreTable) string {
	for _, metric := range []string{"CIDEr", "METEOR", "BLEU-4", "ROUGE_L"} {
		var list []string
		for _, b := range x.bridges {
			if score := t.Bridges[b.Name][metric]; len(score.Seeds) > 0 {
				list = append(list, fmt.Sprintf("%s %.3f", b.Name, score.Value()))
			}
		}
		if len(list) > 0 {
			return metric + " of " + strings.Join(list, ", ")
		}
	}
	return ""
}

// scoresFile is the name of the file with the scores.
const scoresFile = "scores.json"

// meteor returns METEOR, or the reason why it is not computed.
func (x *Experiment) meteor() (eval.Metric, string) {
	if !slices.Contains(x.Config.Eval.Metrics, "meteor") {
		return nil, "not requested"
	}
	dir := x.Config.Eval.MeteorData
	if dir == "" {
		dir = meteor.DefaultDir()
	}
	s, err := meteor.Open(dir)
	if err != nil {
		return nil, err.Error()
	}
	return s.Metric(), ""
}

// metrics returns the metrics that the configuration requests.
func (x *Experiment) metrics(scorer eval.Metric) []eval.Metric {
	var list []eval.Metric
	for _, name := range x.Config.Eval.Metrics {
		switch name {
		case "bleu":
			list = append(list, eval.BLEU{})
		case "rouge":
			list = append(list, eval.ROUGE{})
		case "cider":
			list = append(list, eval.CIDEr{})
		case "meteor":
			if scorer != nil {
				list = append(list, scorer)
			}
		}
	}
	return list
}

func (x *Experiment) score(ctx context.Context, captions []*seedCaptions, scorer eval.Metric, missing string) (*scoreTable, error) {
	t := &scoreTable{Bridges: map[string]map[string]report.Score{}}
	var methods []eval.Runs
	bar := x.UI.Bar("evaluate: bridges", 0, len(x.bridges)*len(captions))
	defer bar.Finish()
	done := 0
	for _, b := range x.bridges {
		runs, err := x.scored(ctx, b.Name, captions, scorer, func() { done++; bar.Set(done, "") })
		if err != nil {
			return nil, err
		}
		methods = append(methods, runs)
		if t.Bridges[b.Name], err = scoresOf(ctx, runs, x.bootstrap()); err != nil {
			return nil, err
		}
		if missing != "" {
			t.Bridges[b.Name]["METEOR"] = report.Score{Missing: missing}
		}
	}
	for _, seeds := range methods[0] {
		t.Images += len(seeds[0].Images)
	}
	var err error
	if t.Differences, err = x.differences(ctx, methods); err != nil {
		return nil, err
	}
	t.Closed, err = x.closed(ctx, methods)
	return t, err
}

// itemsOf pairs captions with their references.
func itemsOf(results []coco.Result, refs map[coco.ID][]string) ([]eval.Item, error) {
	var items []eval.Item
	var without []string
	for _, r := range results {
		if len(refs[r.ImageID]) == 0 {
			without = append(without, fmt.Sprint(r.ImageID))
			continue
		}
		items = append(items, eval.Item{ImageID: r.ImageID, Candidate: r.Caption, References: refs[r.ImageID]})
	}
	if len(items) == 0 {
		return nil, errors.New("none of the photos has reference captions: " + strings.Join(without[:min(5, len(without))], ", "))
	}
	return items, nil
}
