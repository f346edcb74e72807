package eval

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
)

// resamples is the number of bootstrap samples; the ends of the interval are the
// 25th values from either side.
const resamples = 1000

// An Interval is the 95 % bootstrap interval of a corpus score.
type Interval struct {
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// Intervals returns the 95 % bootstrap interval of every corpus score: as many
// images as there are in the set are drawn with replacement, 1,000 times (Efron
// 1979, percentiles). BLEU and METEOR are computed from the summed statistics of
// the drawn images; ROUGE_L and CIDEr are means, where CIDEr keeps the document
// frequencies of the whole set. The same seed gives the same intervals.
func (r *Result) Intervals(ctx context.Context, seed uint64) (map[string]Interval, error) {
	samples, err := sample(ctx, len(r.Images), seed, r.scores)
	if err != nil {
		return nil, err
	}
	intervals := make(map[string]Interval, len(r.Names))
	for k, name := range r.Names {
		values := make([]float64, resamples)
		for i := range values {
			values[i] = samples[i][k]
		}
		intervals[name] = interval(values)
	}
	return intervals, nil
}

// A Difference is the difference between two results in one score.
type Difference struct {
	Score      string  `json:"score"`
	A          float64 `json:"a"`
	B          float64 `json:"b"`
	Difference float64 `json:"difference"` // A - B
	Low        float64 `json:"low"`        // its 95 % interval
	High       float64 `json:"high"`
	// P is the two-sided fraction of resamples in which the difference has the
	// opposite sign or is 0.
	P float64 `json:"p"`
}

// Compare tests two results against each other with a paired bootstrap (Koehn
// 2004), which resamples both with the same draws; see Intervals. The results must
// be for the same images, in the same order, and have the same scores.
func Compare(ctx context.Context, a, b *Result, seed uint64) ([]Difference, error) {
	if err := alike(a, b); err != nil {
		return nil, err
	}
	samples, err := sample(ctx, len(a.Images), seed, slices.Concat(a.scores, b.scores))
	if err != nil {
		return nil, err
	}
	list := make([]Difference, len(a.Names))
	for k, name := range a.Names {
		values := make([]float64, resamples)
		above, below := 0, 0
		for i := range values {
			values[i] = samples[i][k] - samples[i][len(a.Names)+k]
			if values[i] >= 0 {
				above++
			}
			if values[i] <= 0 {
				below++
			}
		}
		around := interval(values)
		list[k] = Difference{
			Score: name, A: a.Corpus[name], B: b.Corpus[name], Difference: a.Corpus[name] - b.Corpus[name],
			Low: around.Low, High: around.High, P: min(1, 2*float64(min(above, below))/resamples),
		}
	}
	return list, nil
}

// alike returns an error if the results are not for the same images and scores.
func alike(a, b *Result) error {
	if len(a.Images) != len(b.Images) {
		return fmt.Errorf("eval: cannot compare results with %d and %d images", len(a.Images), len(b.Images))
	}
	for i := range a.Images {
		if a.Images[i].ImageID != b.Images[i].ImageID {
			return fmt.Errorf("eval: cannot compare: images[%d] is image %s in one result and image %s in the other", i, a.Images[i].ImageID, b.Images[i].ImageID)
		}
	}
	if !slices.Equal(a.Names, b.Names) {
		return fmt.Errorf("eval: cannot compare the scores %v with %v", a.Names, b.Names)
	}
	return nil
}

// sample returns the values of all scores in every resampled set.
func sample(ctx context.Context, n int, seed uint64, scores []*Scores) ([][]float64, error) {
	values := make([][]float64, resamples)
	err := inBlocks(ctx, resamples, 16, func(i int) {
		// A separate generator for each, so that the samples can be computed in any order.
		draw := rand.New(rand.NewPCG(seed, uint64(i)))
		count := make([]int32, n)
		for range n {
			count[draw.IntN(n)]++
		}
		for _, s := range scores {
			values[i] = append(values[i], s.resample(count, n)...)
		}
	})
	return values, err
}

// interval returns the 2.5th and 97.5th percentiles.
func interval(values []float64) Interval {
	slices.Sort(values)
	const out = resamples / 40
	return Interval{values[out], values[len(values)-1-out]}
}

// Mean returns the mean of several runs over the same images: each corpus score is
// the mean over the runs, and all runs are resampled with the same draws. Images
// of the result has no scores.
func Mean(runs []*Result) (*Result, error) {
	if len(runs) == 0 {
		return nil, fmt.Errorf("eval: cannot compute the mean of no results")
	}
	first := runs[0]
	mean := &Result{Names: first.Names, Corpus: map[string]float64{}}
	for i := range first.Images {
		mean.Images = append(mean.Images, ImageScores{Tokenized: Tokenized{ImageID: first.Images[i].ImageID}})
	}
	scores := &Scores{Corpus: make([]float64, len(first.Names))}
	for _, r := range runs {
		if err := alike(first, r); err != nil {
			return nil, err
		}
		for k, name := range first.Names {
			mean.Corpus[name] += r.Corpus[name] / float64(len(runs))
			scores.Corpus[k] = mean.Corpus[name]
		}
	}
	scores.Resample = func(count []int32, total int) []float64 {
		sums := make([]float64, len(first.Names))
		for _, r := range runs {
			k := 0
			for _, s := range r.scores {
				for _, v := range s.resample(count, total) {
					sums[k] += v / float64(len(runs))
					k++
				}
			}
		}
		return sums
	}
	mean.scores = []*Scores{scores}
	return mean, nil
}
