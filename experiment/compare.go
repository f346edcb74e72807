package experiment

import (
	"context"
	"fmt"
	"slices"

	"cyclecap/eval"
	"cyclecap/experiment/report"
	"cyclecap/train/bridge"
)

// scored scores the captions of one bridge in every world and with every seed. done is
// called after each.
func (x *Experiment) scored(ctx context.Context, name string, captions []*seedCaptions, scorer eval.Metric, done func()) (eval.Runs, error) {
	runs, err := runsOf(captions, func(c *seedCaptions) (*eval.Result, error) {
		items, err := itemsOf(c.results[name], c.in.data.val.references())
		if err != nil {
			return nil, err
		}
		r, err := eval.Evaluate(x.steady(ctx), items, eval.Options{Metrics: x.metrics(scorer)})
		if err == nil {
			done()
		}
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("%s, %w", name, err)
	}
	return runs, nil
}

// runsOf returns what evaluate returns for each seed of each world.
func runsOf(captions []*seedCaptions, evaluate func(c *seedCaptions) (*eval.Result, error)) (runs eval.Runs, err error) {
	for i, c := range captions {
		if i == 0 || c.in != captions[i-1].in {
			runs = append(runs, nil)
		}
		r, err := evaluate(c)
		if err != nil {
			return nil, fmt.Errorf("seed %d: %w", c.seed, err)
		}
		last := len(runs) - 1
		runs[last] = append(runs[last], r)
	}
	return runs, nil
}

// scoresOf returns the scores of a method by metric, with intervals.
func scoresOf(ctx context.Context, runs eval.Runs, b eval.Bootstrap) (map[string]report.Score, error) {
	intervals, err := runs.Intervals(ctx, b)
	if err != nil {
		return nil, err
	}
	scores := map[string]report.Score{}
	for name, i := range intervals {
		s := report.Score{Interval: &i}
		for _, seeds := range runs {
			sum := 0.0
			for _, r := range seeds {
				s.Seeds = append(s.Seeds, r.Corpus[name])
				sum += r.Corpus[name]
			}
			if len(runs) > 1 {
				s.Worlds = append(s.Worlds, sum/float64(len(seeds)))
			}
		}
		scores[name] = s
	}
	return scores, nil
}

// bootstrap says how the evaluation draws samples; all processes compute them.
func (x *Experiment) bootstrap() eval.Bootstrap {
	return eval.Bootstrap{Seed: uint64(x.Config.Seed), Group: x.Group}
}

// steady returns a context for what each process of a group computes on its own between two shares of samples: an
// interruption waits for the next share, where all processes learn of it.
func (x *Experiment) steady(ctx context.Context) context.Context {
	if x.Group.Size() == 1 {
		return ctx
	}
	return context.WithoutCancel(ctx)
}

// baseline returns the name of the bridge with which the others are compared, or "".
func (x *Experiment) baseline() string {
	i := slices.IndexFunc(x.bridges, func(b bridge.Bridge) bool { return b.Role == bridge.Baseline })
	if i < 0 {
		return ""
	}
	return x.bridges[i].Name
}

// differences compares every two bridges in every metric, with p-values that are corrected
// for all these comparisons.
func (x *Experiment) differences(ctx context.Context, methods []eval.Runs) (list []report.Difference, err error) {
	var pairs [][2]int
	base := x.baseline()
	for i, b := range x.bridges {
		for k := range i {
			if b.Name == base {
				pairs = append(pairs, [2]int{k, i})
			} else {
				pairs = append(pairs, [2]int{i, k})
			}
		}
	}
	if len(pairs) == 0 {
		return nil, nil
	}
	all, err := eval.CompareAll(ctx, methods, pairs, x.bootstrap())
	if err != nil {
		return nil, err
	}
	for i, of := range all {
		for _, d := range of {
			list = append(list, report.Difference{Bridge: x.bridges[pairs[i][0]].Name, Baseline: x.bridges[pairs[i][1]].Name, Difference: d})
		}
	}
	report.Correct(list)
	return list, nil
}
