package eval

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
)

// resamples is how often a set is drawn anew; the interval's ends are then the
// 25th value from either side.
const resamples = 1000

// An Interval is a corpus score's 95 % interval over the images.
type Interval struct {
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// Intervals gives the 95 % bootstrap interval of every corpus score: the images
// are drawn anew with replacement, as many as there are, 1,000 times (Efron
// 1979, percentiles). BLEU and METEOR are computed from the drawn images' summed
// statistics; ROUGE_L and CIDEr are means, with CIDEr's document frequency that
// of the whole set. The same seed gives the same intervals.
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

// A Difference is how far one set of results is ahead of another in a score.
type Difference struct {
	Score      string  `json:"score"`
	A          float64 `json:"a"`
	B          float64 `json:"b"`
	Difference float64 `json:"difference"` // A - B
	Low        float64 `json:"low"`        // its 95 % interval
	High       float64 `json:"high"`
	// P is the two-sided share of resamples in which the difference has the
	// other sign or is 0.
	P float64 `json:"p"`
}

// Compare tests two results of the same images, in the same order and with the
// same scores, against each other: a paired bootstrap (Koehn 2004), in which
// both are resampled with the same draws. See Intervals.
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

// alike reports results that are not of the same images and scores.
func alike(a, b *Result) error {
	if len(a.Images) != len(b.Images) {
		return fmt.Errorf("eval: cannot compare results of %d and of %d images", len(a.Images), len(b.Images))
	}
	for i := range a.Images {
		if a.Images[i].ImageID != b.Images[i].ImageID {
			return fmt.Errorf("eval: cannot compare: image %d of one result is %d, of the other %d", i, a.Images[i].ImageID, b.Images[i].ImageID)
		}
	}
	if !slices.Equal(a.Names, b.Names) {
		return fmt.Errorf("eval: cannot compare the scores %v with %v", a.Names, b.Names)
	}
	return nil
}

// sample gives the values of all scores in every resampled set.
func sample(ctx context.Context, n int, seed uint64, scores []*Scores) ([][]float64, error) {
	values := make([][]float64, resamples)
	err := inBlocks(ctx, resamples, 16, func(i int) {
		// A generator of its own for each, so that the order of the work is free.
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

// interval gives the 2.5th and 97.5th percentile.
func interval(values []float64) Interval {
	slices.Sort(values)
	const out = resamples / 40
	return Interval{values[out], values[len(values)-1-out]}
}

// Mean gives the result of several runs over the same images: each corpus score
// is the mean of the runs', and is resampled for all of them with the same
// draws. Images has no scores.
func Mean(runs []*Result) (*Result, error) {
	if len(runs) == 0 {
		return nil, fmt.Errorf("eval: the mean of no results")
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
