package experiment

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"cyclecap/eval"
	"cyclecap/experiment/config"
	"cyclecap/experiment/report"
	"cyclecap/internal/atomicfile"
)

// A variant is a configuration and its results: the base or a change of it.
type variant struct {
	config.Variant
	x        *Experiment
	captions []*seedCaptions
}

// variants returns the base and its variants. A stage of a variant has its key in its
// name: stages with the same inputs are the same stage, whichever variant runs them first.
func (x *Experiment) variants() ([]*variant, error) {
	var list []*variant
	if x.contents == nil {
		x.contents = openContents(x.Dir, x.UI.Say)
	}
	log := &stageLog{took: map[string]float64{}, skipped: map[string]bool{}}
	for _, v := range append([]config.Variant{{Name: config.Base, Config: x.Config}}, x.Variants...) {
		of := *x
		of.Config, of.Variants, of.keyed = v.Config, nil, true
		if err := of.prepare(); err != nil {
			return nil, fmt.Errorf("variant %q: %w", v.Name, err)
		}
		of.log = log
		list = append(list, &variant{Variant: v, x: &of})
	}
	return list, nil
}

// executeVariants runs the stages of the base and of its variants up to the one named last,
// and compares each variant with the base.
func (x *Experiment) executeVariants(ctx context.Context, last string) error {
	list, err := x.variants()
	if err != nil {
		return err
	}
	// What can be checked at the start should not fail after hours.
	for _, v := range list {
		if v.x.sizesKnown() {
			if err := v.x.checkSizes(last); err != nil {
				return fmt.Errorf("variant %q: %w", v.Name, err)
			}
		}
	}
	x.log = list[0].x.log
	for _, v := range list {
		x.UI.Say("variant %q", v.Name)
		if _, v.captions, err = v.x.executeWorlds(ctx, last); err != nil {
			return fmt.Errorf("variant %q: %w", v.Name, err)
		}
	}
	if beforeEvaluate(last) {
		return nil
	}
	table, err := x.evaluateVariants(ctx, list)
	if err != nil || last == "evaluate" || x.Group.Rank() != 0 {
		return err
	}
	for _, write := range []struct {
		name string
		data func() ([]byte, error)
	}{{"table.json", table.JSON}, {"table.md", table.Markdown}} {
		data, err := write.data()
		if err == nil {
			err = atomicfile.WriteBytes(filepath.Join(x.Dir, write.name), data)
		}
		if err != nil {
			return err
		}
	}
	x.UI.Say("%s", filepath.Join(x.Dir, "table.md"))
	return nil
}

// evaluateVariants scores the captions of all variants, and compares each with the base.
func (x *Experiment) evaluateVariants(ctx context.Context, list []*variant) (*report.Variants, error) {
	base := list[0]
	scorer, missing := x.meteor()
	s := &stage{name: "evaluate", dir: "evaluate", settings: []any{x.Config.Name, x.Config.Eval.Metrics, x.Config.Seed, missing}, products: []string{scoresFile}, shared: true}
	for _, v := range list {
		s.settings = append(s.settings, v.Name, v.Changes)
		for _, c := range v.captions {
			inputs, err := c.inputs()
			if err != nil {
				return nil, err
			}
			s.inputs = append(s.inputs, inputs...)
		}
	}
	path := filepath.Join(x.folder(s), scoresFile)
	s.do = func(ctx context.Context, dir string) error {
		x.data = base.captions[0].in.data // for its name
		t := &report.Variants{Name: x.Config.Name, Data: x.dataName()}
		for _, v := range list {
			t.Rows = append(t.Rows, report.Variant{Name: v.Name, Changes: v.Changes, Bridges: map[string]report.VariantScores{}})
		}
		for _, b := range base.x.bridges {
			t.Bridges = append(t.Bridges, report.Bridge{ID: b.Name, Label: b.Title})
		}
		for _, v := range list {
			for _, b := range v.x.bridges {
				if !slices.ContainsFunc(t.Bridges, func(o report.Bridge) bool { return o.ID == b.Name }) {
					t.Bridges = append(t.Bridges, report.Bridge{ID: b.Name, Label: b.Title})
				}
			}
		}
		bar := x.UI.Bar("evaluate: variants", 0, len(list))
		defer bar.Finish()
		err := x.scoreTogether(missing, func() error {
			runs, err := x.scoreVariants(ctx, t, list, scorer, missing, func(done int) { bar.Set(done, "") })
			if err != nil {
				return err
			}
			for _, b := range t.Bridges {
				if err := x.compareVariants(ctx, t, b.ID, list, runs[b.ID]); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || x.Group.Rank() > 0 {
			return err
		}
		t.Correct()
		s.outcome = fmt.Sprintf("%d variants", len(list))
		return writeJSON(path, t)
	}
	if err := x.run(ctx, s); err != nil {
		return nil, err
	}
	var t report.Variants
	return &t, readJSON(path, &t)
}

// scoreVariants sets the scores of all variants and returns their results by bridge and
// variant. Captions that several variants share are scored once.
func (x *Experiment) scoreVariants(ctx context.Context, t *report.Variants, list []*variant, scorer eval.Metric, missing string, done func(int)) (map[string]map[int]eval.Runs, error) {
	type shared struct {
		runs   eval.Runs
		scores report.VariantScores
	}
	known := map[string]shared{}
	runs := map[string]map[int]eval.Runs{}
	for i, v := range list {
		for _, b := range v.x.bridges {
			key := v.captionKeys(b.Name)
			s, ok := known[key]
			if !ok {
				var err error
				if s.runs, err = x.scored(ctx, b.Name, v.captions, scorer, func() {}); err != nil {
					return nil, fmt.Errorf("variant %q: %w", v.Name, err)
				}
				scores, err := scoresOf(ctx, s.runs, x.bootstrap())
				if err != nil {
					return nil, err
				}
				if missing != "" {
					scores["METEOR"] = report.Score{Missing: missing}
				}
				s.scores = report.VariantScores{}
				for name, score := range scores {
					s.scores[name] = report.VariantScore{Score: score}
				}
				known[key] = s
			}
			if runs[b.Name] == nil {
				runs[b.Name] = map[int]eval.Runs{}
			}
			runs[b.Name][i] = s.runs
			own := report.VariantScores{}
			for name, score := range s.scores {
				own[name] = score
			}
			t.Rows[i].Bridges[b.Name] = own
			if i == 0 {
				t.Images = 0
				for _, seeds := range s.runs {
					t.Images += len(seeds[0].Images)
				}
			}
		}
		done(i + 1)
	}
	return runs, nil
}

// captionKeys identifies the captions of a bridge in all worlds and with all seeds.
func (v *variant) captionKeys(bridge string) string {
	var keys []string
	for _, c := range v.captions {
		keys = append(keys, c.keys[bridge])
	}
	return fmt.Sprint(bridge, keys)
}

// compareVariants sets the differences of the variants from the base in one bridge.
// Variants with the base's own captions have none.
func (x *Experiment) compareVariants(ctx context.Context, t *report.Variants, bridge string, list []*variant, runs map[int]eval.Runs) error {
	if runs[0] == nil {
		return nil
	}
	methods := []eval.Runs{runs[0]}
	var pairs [][2]int
	var rows []int
	for i := 1; i < len(list); i++ {
		switch {
		case runs[i] == nil:
		case list[i].captionKeys(bridge) == list[0].captionKeys(bridge):
			t.Rows[i].Same = append(t.Rows[i].Same, bridge)
		default:
			pairs = append(pairs, [2]int{len(methods), 0})
			methods = append(methods, runs[i])
			rows = append(rows, i)
		}
	}
	if len(pairs) == 0 {
		return nil
	}
	all, err := eval.CompareAll(ctx, methods, pairs, x.bootstrap())
	if err != nil {
		return err
	}
	for k, of := range all {
		for _, d := range of {
			scores := t.Rows[rows[k]].Bridges[bridge]
			s := scores[d.Score]
			s.Difference = &report.Difference{Bridge: list[rows[k]].Name, Baseline: list[0].Name, Difference: d}
			scores[d.Score] = s
		}
	}
	return nil
}
