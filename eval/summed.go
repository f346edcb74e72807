package eval

import "context"

// Summed returns a metric with one score whose corpus value is computed from
// statistics summed over the images, as for METEOR:
//
//	m := eval.Summed("METEOR", scorer.Score, func(total *meteor.Stats, s meteor.Stats) { total.Add(s) }, meteor.Stats.Score)
//
// stats receives tokenized text and must be safe for concurrent use; add adds the
// statistics of an image to a total that starts as the zero value of S.
func Summed[S any](name string, stats func(candidate string, references []string) S, add func(total *S, s S), score func(S) float64) Metric {
	return summed[S]{name, stats, add, score}
}

type summed[S any] struct {
	name  string
	stats func(candidate string, references []string) S
	add   func(total *S, s S)
	score func(S) float64
}

// Names implements Metric.
func (m summed[S]) Names() []string { return []string{m.name} }

// Score implements Metric.
func (m summed[S]) Score(ctx context.Context, set *Set) (*Scores, error) {
	all := make([]S, len(set.Images))
	values := make([]float64, len(set.Images))
	if err := each(ctx, len(set.Images), func(i int) {
		image := &set.Images[i]
		all[i] = m.stats(image.Candidate, image.References)
		values[i] = m.score(all[i])
	}); err != nil {
		return nil, err
	}
	s := means(values)
	s.Resample = func(count []int32, _ int) []float64 {
		var total S
		for i, n := range count {
			for range n {
				m.add(&total, all[i])
			}
		}
		return []float64{m.score(total)}
	}
	once := make([]int32, len(all))
	for i := range once {
		once[i] = 1
	}
	s.Corpus = s.Resample(once, len(all))
	return s, nil
}
