package eval

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

const (
	// resamples is the number of bootstrap samples of an interval, whose ends are the
	// 25th values from either side.
	resamples = 1000
	// comparisons is the number of bootstrap samples of CompareAll. The smallest p-value
	// is 2/(comparisons+1), which must remain below 0.05 after Holm's correction for some
	// hundreds of comparisons.
	comparisons = 20_000
)

// An Interval is the 95 % bootstrap interval of a corpus score.
type Interval struct {
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// A Bootstrap says how samples are drawn.
type Bootstrap struct {
	Seed uint64 // the same seed gives the same samples
	// Group is several processes that compute the samples together, or nil: block k of 16
	// samples belongs to rank k mod N. All must call the same functions with the same results,
	// and get the values that one process computes.
	Group Group
}

// A Group is several processes: a *distributed.Group.
type Group interface {
	Rank() int
	Size() int
	// AllGatherBytes returns the data of all processes, by rank.
	AllGatherBytes(data []byte) ([][]byte, error)
}

// sampleBlock is the number of samples that are computed one after the other.
const sampleBlock = 16

// Runs are the results of one method: Runs[w][s] is that of seed s in world w. The results
// of a world must be for the same images, in the same order. A score is the mean over the
// worlds of the means over their seeds.
//
// Runs are resampled from the top: as many worlds as there are, drawn with replacement; in
// each drawn world, seeds and images, as many as it has, drawn with replacement and
// independently of each other, since all seeds caption the same images. What exists only
// once is not drawn. (Efron 1979; for several levels, Davison and Hinkley 1997, section
// 3.8; for seeds crossed with images, Owen 2007.)
type Runs [][]*Result

// Corpus returns the scores by name.
func (r Runs) Corpus() map[string]float64 {
	scores := map[string]float64{}
	for _, seeds := range r {
		for _, one := range seeds {
			for name, v := range one.Corpus {
				scores[name] += v / float64(len(seeds)) / float64(len(r))
			}
		}
	}
	return scores
}

// Intervals returns the 95 % bootstrap interval of every score: percentiles of 1,000
// samples.
func (r Runs) Intervals(ctx context.Context, b Bootstrap) (map[string]Interval, error) {
	samples, err := sample(ctx, []Runs{r}, resamples, b)
	if err != nil {
		return nil, err
	}
	intervals := map[string]Interval{}
	for k, name := range r[0][0].Names {
		intervals[name] = interval(column(samples, k))
	}
	return intervals, nil
}

// Intervals returns the 95 % bootstrap interval of every corpus score: as many
// images as there are in the set are drawn with replacement, 1,000 times (Efron
// 1979, percentiles). BLEU and METEOR are computed from the summed statistics of
// the drawn images; ROUGE_L and CIDEr are means, where CIDEr keeps the document
// frequencies of the whole set. The same seed gives the same intervals.
func (r *Result) Intervals(ctx context.Context, b Bootstrap) (map[string]Interval, error) {
	return Runs{{r}}.Intervals(ctx, b)
}

// A Difference is the difference between two results in one score.
type Difference struct {
	Score      string  `json:"score"`
	A          float64 `json:"a"`
	B          float64 `json:"b"`
	Difference float64 `json:"difference"` // A - B
	Low        float64 `json:"low"`        // its 95 % interval
	High       float64 `json:"high"`
	// P is the two-sided p-value: twice the share of samples in which the difference has
	// the opposite sign or is 0, where the data themselves count as one more sample
	// (Davison and Hinkley 1997, section 4.4.1), so that P is never 0.
	P float64 `json:"p"`
}

// Compare tests two results against each other with a paired bootstrap (Koehn
// 2004) of 1,000 samples, which resamples both with the same draws; see Intervals. The
// results must be for the same images, in the same order, and have the same scores.
func Compare(ctx context.Context, a, b *Result, draws Bootstrap) ([]Difference, error) {
	list, err := compare(ctx, []Runs{{{a}}, {{b}}}, [][2]int{{0, 1}}, resamples, draws)
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// CompareAll tests pairs of methods against each other with a paired bootstrap, which
// resamples all methods with the same draws, 20,000 times: list[i] has the differences of
// pairs[i] in every score. The methods must have the same worlds, seeds, images and scores.
// The p-values are for one comparison each; Holm corrects them.
func CompareAll(ctx context.Context, methods []Runs, pairs [][2]int, b Bootstrap) (list [][]Difference, err error) {
	return compare(ctx, methods, pairs, comparisons, b)
}

func compare(ctx context.Context, methods []Runs, pairs [][2]int, n int, draws Bootstrap) ([][]Difference, error) {
	samples, err := sample(ctx, methods, n, draws)
	if err != nil {
		return nil, err
	}
	var corpus []map[string]float64
	for _, m := range methods {
		corpus = append(corpus, m.Corpus())
	}
	names := methods[0][0][0].Names
	list := make([][]Difference, len(pairs))
	for i, p := range pairs {
		for k, name := range names {
			a, b := column(samples, p[0]*len(names)+k), column(samples, p[1]*len(names)+k)
			d := difference(a, b)
			d.Score, d.A, d.B = name, corpus[p[0]][name], corpus[p[1]][name]
			d.Difference = d.A - d.B
			list[i] = append(list[i], d)
		}
	}
	return list, nil
}

// difference returns the interval and the p-value of the difference, given the values of
// all samples.
func difference(a, b []float64) Difference {
	values := make([]float64, len(a))
	above, below := 0, 0
	for i := range values {
		values[i] = a[i] - b[i]
		if values[i] >= 0 {
			above++
		}
		if values[i] <= 0 {
			below++
		}
	}
	around := interval(values)
	return Difference{Low: around.Low, High: around.High, P: min(1, 2*float64(min(above, below)+1)/float64(len(a)+1))}
}

// Holm returns p-values corrected for their number (Holm 1979): if those below 0.05 are
// called significant, the probability that any of them is so by chance is at most 0.05.
func Holm(p []float64) []float64 {
	order := make([]int, len(p))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		switch {
		case p[a] < p[b]:
			return -1
		case p[a] > p[b]:
			return 1
		}
		return a - b
	})
	out := make([]float64, len(p))
	least := 0.0
	for rank, i := range order {
		least = max(least, min(1, float64(len(p)-rank)*p[i]))
		out[i] = least
	}
	return out
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

// checkRuns returns an error unless all methods have the same worlds, seeds, images and
// scores.
func checkRuns(methods []Runs) error {
	if len(methods) == 0 || len(methods[0]) == 0 {
		return errors.New("eval: no results")
	}
	first := methods[0]
	for _, m := range methods {
		if len(m) != len(first) {
			return fmt.Errorf("eval: cannot compare results of %d and %d worlds", len(first), len(m))
		}
		for w := range m {
			if len(m[w]) != len(first[w]) || len(m[w]) == 0 {
				return fmt.Errorf("eval: cannot compare results of %d and %d seeds in world %d", len(first[w]), len(m[w]), w)
			}
			for _, r := range m[w] {
				if err := alike(first[w][0], r); err != nil {
					return err
				}
				if !slices.Equal(r.Names, first[0][0].Names) {
					return fmt.Errorf("eval: cannot compare the scores %v with %v", first[0][0].Names, r.Names)
				}
			}
		}
	}
	return nil
}

// A drawn world is an element of a bootstrap sample: a world, and how often each of its
// seeds and images was drawn.
type drawn struct {
	world         int
	seeds, images []int32
}

// draw draws a bootstrap sample of the worlds of r, their seeds and images.
func (r Runs) draw(rng *rand.Rand) []drawn {
	list := make([]drawn, len(r))
	for i := range list {
		d := drawn{world: i}
		if len(r) > 1 {
			d.world = rng.IntN(len(r))
		}
		d.seeds = counts(rng, len(r[d.world]))
		d.images = counts(rng, len(r[d.world][0].Images))
		list[i] = d
	}
	return list
}

// counts draws n of n with replacement, and returns how often each was drawn.
func counts(rng *rand.Rand, n int) []int32 {
	count := make([]int32, n)
	if n == 1 {
		count[0] = 1
		return count
	}
	for range n {
		count[rng.IntN(n)]++
	}
	return count
}

// resampled returns the scores of a bootstrap sample, in the order of Names.
func (r Runs) resampled(sample []drawn) []float64 {
	sums := make([]float64, len(r[0][0].Names))
	for _, d := range sample {
		seeds := r[d.world]
		for s, times := range d.seeds {
			if times == 0 {
				continue
			}
			k := 0
			for _, scores := range seeds[s].scores {
				for _, v := range scores.resample(d.images, len(d.images)) {
					sums[k] += v * float64(times) / float64(len(seeds)) / float64(len(sample))
					k++
				}
			}
		}
	}
	return sums
}

// sample returns the scores of all methods in n bootstrap samples: those of the first
// method, then those of the second, and so on.
func sample(ctx context.Context, methods []Runs, n int, b Bootstrap) ([][]float64, error) {
	if err := checkRuns(methods); err != nil {
		return nil, err
	}
	rank, size := 0, 1
	if b.Group != nil {
		rank, size = b.Group.Rank(), b.Group.Size()
	}
	values := make([][]float64, n)
	own := BlocksOf(n, sampleBlock, rank, size)
	width := len(methods) * len(methods[0][0][0].Names)
	err := inBlocks(ctx, len(own), sampleBlock, func(k int) {
		i := own[k]
		// A separate generator for each, so that the samples can be computed in any order.
		sample := methods[0].draw(rand.New(rand.NewPCG(b.Seed, uint64(i))))
		row := make([]float64, 0, width)
		for _, m := range methods {
			row = append(row, m.resampled(sample)...)
		}
		values[i] = row
	})
	if size == 1 {
		return values, err
	}
	return values, gather(b.Group, values, own, width, err)
}

// BlocksOf returns the items, of n, that belong to a process of several: block k of so many items belongs to rank
// k mod size.
func BlocksOf(n, block, rank, size int) (items []int) {
	for at := rank * block; at < n; at += size * block {
		for i := at; i < min(n, at+block); i++ {
			items = append(items, i)
		}
	}
	return items
}

// gather completes values, of which this process has computed own, with those of the other
// processes. err is the error with which it ended: it gives nothing then, which ends all.
func gather(g Group, values [][]float64, own []int, width int, err error) error {
	var data []byte
	for _, i := range own {
		if err != nil {
			break
		}
		for _, v := range values[i] {
			data = binary.LittleEndian.AppendUint64(data, math.Float64bits(v))
		}
	}
	all, failed := g.AllGatherBytes(data)
	if err != nil {
		return err
	}
	if failed != nil {
		return failed
	}
	for rank, data := range all {
		list := BlocksOf(len(values), sampleBlock, rank, g.Size())
		if len(data) != 8*width*len(list) {
			if len(data) == 0 {
				return fmt.Errorf("eval: rank %d was interrupted: %w", rank, context.Canceled)
			}
			return fmt.Errorf("eval: ranks %d and %d score different captions or metrics", g.Rank(), rank)
		}
		for _, i := range list {
			values[i] = make([]float64, width)
			for k := range values[i] {
				values[i][k] = math.Float64frombits(binary.LittleEndian.Uint64(data))
				data = data[8:]
			}
		}
	}
	return nil
}

func column(samples [][]float64, k int) []float64 {
	values := make([]float64, len(samples))
	for i, s := range samples {
		values[i] = s[k]
	}
	return values
}

// interval returns the 2.5th and 97.5th percentiles. It sorts the values.
func interval(values []float64) Interval {
	slices.Sort(values)
	out := len(values) / 40
	return Interval{values[out], values[len(values)-1-out]}
}
