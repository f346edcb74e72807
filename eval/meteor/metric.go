package meteor

import "cyclecap/eval"

// Metric is METEOR for eval.Evaluate: the set's score comes from the counts
// summed over its images.
func (s *Scorer) Metric() eval.Metric {
	return eval.Summed("METEOR", s.Score, (*Stats).Add, Stats.Score)
}
