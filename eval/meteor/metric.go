package meteor

import "cyclecap/eval"

// Metric returns METEOR as a metric for eval.Evaluate: the corpus score is computed
// from counts summed over the images.
func (s *Scorer) Metric() eval.Metric {
	return eval.Summed("METEOR", s.Score, (*Stats).Add, Stats.Score)
}
