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
	"cyclecap/train/bridge"
)

// scoreTable is the result of the evaluate stage, which it writes to scores.json.
type scoreTable struct {
	// Bridges maps bridges and metrics to scores.
	Bridges map[string]map[string]report.Score `json:"bridges"`
	// Differences compares each bridge with the baseline.
	Differences []report.Difference `json:"differences"`
	// Claims says of each bridge how much of what its captions say is right, and how often
	// they repeat themselves. References is the same for the first reference caption of each
	// photo.
	Claims     map[string]*report.Claims `json:"claims"`
	References *report.Claims            `json:"references"`
	Images     int                       `json:"images"`

	key string
}

// evaluate scores all captions: means over seeds, with intervals over photos.
func (x *Experiment) evaluate(ctx context.Context, captions []*seedCaptions) (*scoreTable, error) {
	scorer, missing := x.meteor()
	s := &stage{name: "evaluate", dir: "evaluate", inputs: []any{x.Config.Eval.Metrics, x.Config.Seed, missing, "claims"}}
	for _, c := range captions {
		s.inputs = append(s.inputs, c.seed, c.key)
	}
	path := filepath.Join(x.Dir, s.dir, "scores.json")
	s.do = func(ctx context.Context, dir string) error {
		t, err := x.score(ctx, captions, scorer, missing)
		if err != nil {
			return err
		}
		if err := x.scoreClaims(ctx, captions, t); err != nil {
			return err
		}
		return writeJSON(path, t)
	}
	if err := x.run(ctx, s); err != nil {
		return nil, err
	}
	var t scoreTable
	if err := readJSON(path, &t); err != nil {
		return nil, err
	}
	t.key = s.key()
	return &t, nil
}

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
	refs := x.data.val.references()
	t := &scoreTable{Bridges: map[string]map[string]report.Score{}}
	options := eval.Options{Metrics: x.metrics(scorer)}
	seed := uint64(x.Config.Seed)
	results, mean := map[string][]*eval.Result{}, map[string]*eval.Result{}
	bar := x.UI.Bar("scored", 0, len(x.bridges)*len(captions))
	defer bar.Finish()
	done := 0
	for _, b := range x.bridges {
		for _, c := range captions {
			items, err := itemsOf(c.results[b.Name], refs)
			if err != nil {
				return nil, fmt.Errorf("%s, seed %d: %w", b.Name, c.seed, err)
			}
			r, err := eval.Evaluate(ctx, items, options)
			if err != nil {
				return nil, fmt.Errorf("%s, seed %d: %w", b.Name, c.seed, err)
			}
			t.Images = len(items)
			results[b.Name] = append(results[b.Name], r)
			done++
			bar.Set(done, "")
		}
		of := map[string]report.Score{}
		for _, name := range results[b.Name][0].Names {
			var score report.Score
			for _, r := range results[b.Name] {
				score.Seeds = append(score.Seeds, r.Corpus[name])
			}
			of[name] = score
		}
		var err error
		if mean[b.Name], err = eval.Mean(results[b.Name]); err != nil {
			return nil, err
		}
		intervals, err := mean[b.Name].Intervals(ctx, seed)
		if err != nil {
			return nil, err
		}
		for name, i := range intervals {
			score := of[name]
			score.Interval = &i
			of[name] = score
		}
		if missing != "" {
			of["METEOR"] = report.Score{Missing: missing}
		}
		t.Bridges[b.Name] = of
	}
	i := slices.IndexFunc(x.bridges, func(b bridge.Bridge) bool { return b.Role == bridge.Baseline })
	if i < 0 {
		return t, nil
	}
	base := x.bridges[i].Name
	for _, b := range x.bridges {
		if b.Name == base {
			continue
		}
		differences, err := eval.Compare(ctx, mean[b.Name], mean[base], seed)
		if err != nil {
			return nil, err
		}
		for _, d := range differences {
			if b.Paper == "" && d.Score != "CIDEr" {
				continue // all metrics for the paper's bridges, only CIDEr for the others
			}
			t.Differences = append(t.Differences, report.Difference{Bridge: b.Name, Baseline: base, Difference: d})
		}
	}
	return t, nil
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
