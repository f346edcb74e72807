package eval

import (
	"context"
	"math"
)

// BLEU computes BLEU-1 to BLEU-4 (Papineni et al. 2002) like pycocoevalcap: the
// reference length is the closest one, and the shorter of two equally close ones;
// 1e-15 is added to every count and 1e-9 to its divisor, so that without matches
// the score is not exactly 0. The score of the set is computed from sums over its
// images.
type BLEU struct{}

// Names returns BLEU-1 to BLEU-4.
func (BLEU) Names() []string { return []string{"BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4"} }

// bleuCounts holds the counts from which BLEU is computed; those of a set are sums.
type bleuCounts struct {
	length, reference int64       // lengths of the candidate and of the closest reference, in words
	guess, correct    [maxN]int64 // n-grams of the candidate, and those that occur in a reference
}

func (a *bleuCounts) add(b *bleuCounts, times int64) {
	a.length += times * b.length
	a.reference += times * b.reference
	for n := range maxN {
		a.guess[n] += times * b.guess[n]
		a.correct[n] += times * b.correct[n]
	}
}

func (a *bleuCounts) score() []float64 {
	const tiny, small = 1e-15, 1e-9
	scores := make([]float64, maxN)
	product := 1.0
	for n := range maxN {
		product *= (float64(a.correct[n]) + tiny) / (float64(a.guess[n]) + small)
		scores[n] = math.Pow(product, 1/float64(n+1))
	}
	if ratio := (float64(a.length) + tiny) / (float64(a.reference) + small); ratio < 1 {
		penalty := math.Exp(1 - 1/ratio)
		for n := range scores {
			scores[n] *= penalty
		}
	}
	return scores
}

// Score implements Metric.
func (BLEU) Score(ctx context.Context, set *Set) (*Scores, error) {
	captions := set.captions()
	counts := make([]bleuCounts, len(captions))
	s := &Scores{Images: make([][]float64, len(captions))}
	err := each(ctx, len(captions), func(i int) {
		counts[i] = countBLEU(&captions[i][0], captions[i][1:])
		s.Images[i] = counts[i].score()
	})
	if err != nil {
		return nil, err
	}
	var total bleuCounts
	for i := range counts {
		total.add(&counts[i], 1)
	}
	s.Corpus = total.score()
	s.Resample = func(count []int32, _ int) []float64 {
		var total bleuCounts
		for i, n := range count {
			if n > 0 {
				total.add(&counts[i], int64(n))
			}
		}
		return total.score()
	}
	return s, nil
}

func countBLEU(candidate *caption, references []caption) (c bleuCounts) {
	c.length = int64(candidate.words)
	best := int64(math.MaxInt64)
	for _, ref := range references {
		length := int64(ref.words)
		away := max(length-c.length, c.length-length)
		if away < best || away == best && length < c.reference {
			best, c.reference = away, length
		}
	}
	// for each n-gram of the candidate, its largest count in a single reference
	most := make([]uint32, len(candidate.grams))
	at := indexOf(candidate)
	for j := range references {
		for _, g := range references[j].grams {
			if k, ok := at.find(g.id); ok {
				most[k] = max(most[k], g.count)
			}
		}
	}
	for n := range maxN {
		c.guess[n] = max(0, c.length-int64(n))
		for k := candidate.at[n]; k < candidate.at[n+1]; k++ {
			c.correct[n] += int64(min(most[k], candidate.grams[k].count))
		}
	}
	return c
}
