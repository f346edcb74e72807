// Package eval scores captions with BLEU-1 to BLEU-4, ROUGE_L and CIDEr, with the
// same numbers as pycocoevalcap 1.2 on COCO, and computes confidence intervals.
//
// Package ptb tokenizes the captions. Further metrics implement Metric; METEOR is
// one of them, so that this package does not depend on METEOR's data.
//
//	result, err := eval.Evaluate(ctx, items, eval.Options{})
//	fmt.Println(result.Corpus["CIDEr"])
package eval

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	"cyclecap/data/coco"
	"cyclecap/eval/ptb"
)

// An Item is an image with the caption to score and the reference captions to
// score it against, as people wrote them.
type Item struct {
	ImageID    coco.ID
	Candidate  string
	References []string
}

// A Tokenized is an Item after ptb.Tokenize: tokens separated by single spaces. A
// caption without tokens is "".
type Tokenized struct {
	ImageID    coco.ID
	Candidate  string
	References []string
}

// A Metric computes one or more scores of every image and of the whole set. It
// must not modify the set.
type Metric interface {
	// Names returns the names of the scores, in the order of the values in Scores.
	Names() []string
	// Score scores a set with at least one image and at least one reference
	// per image.
	Score(ctx context.Context, set *Set) (*Scores, error)
}

// Scores holds the values of a metric, in the order of its names.
type Scores struct {
	Corpus []float64
	Images [][]float64 // Images[i] holds the values of image i of the set
	// Resample returns the corpus values of a set that contains image i count[i]
	// times, total images in all. If nil, they are the means of the images' values.
	Resample func(count []int32, total int) []float64
}

// resample returns the corpus values of a resampled set.
func (s *Scores) resample(count []int32, total int) []float64 {
	if s.Resample != nil {
		return s.Resample(count, total)
	}
	sums := make([]float64, len(s.Corpus))
	for i, n := range count {
		if n == 0 {
			continue
		}
		for k, v := range s.Images[i] {
			sums[k] += float64(n) * v
		}
	}
	for k := range sums {
		sums[k] /= float64(total)
	}
	return sums
}

// Options configures Evaluate. The zero value selects all metrics of this package.
type Options struct {
	// Metrics to compute, in the order of the result; nil means Metrics().
	Metrics []Metric
}

// Metrics returns the metrics of this package: BLEU, ROUGE_L and CIDEr.
func Metrics() []Metric { return []Metric{BLEU{}, ROUGE{}, CIDEr{}} }

// A Result holds the scores of a set.
type Result struct {
	// Names lists the names of the scores, in the order of Options.Metrics.
	Names []string
	// Corpus holds the scores of the whole set, by name.
	Corpus map[string]float64
	// Images holds the scores of every image, in the order of the items.
	Images []ImageScores

	scores []*Scores
}

// ImageScores holds the scores of one image and the tokens that were scored.
type ImageScores struct {
	Tokenized
	Scores map[string]float64
}

// Evaluate tokenizes and scores the items, using all cores. CIDEr depends on the
// whole set: its document frequencies count the references given here. It is an
// error if there are no items, if an image occurs twice or has no references, or if
// a text is not valid UTF-8; errors of the metrics and of the context are returned.
func Evaluate(ctx context.Context, items []Item, options Options) (*Result, error) {
	if err := check(items); err != nil {
		return nil, err
	}
	images, err := tokenize(ctx, items)
	if err != nil {
		return nil, err
	}
	set := NewSet(images)
	metrics := options.Metrics
	if metrics == nil {
		metrics = Metrics()
	}
	r := &Result{Corpus: map[string]float64{}, Images: make([]ImageScores, len(images))}
	for i := range images {
		r.Images[i] = ImageScores{images[i], map[string]float64{}}
	}
	for _, m := range metrics {
		names := m.Names()
		scores, err := m.Score(ctx, set)
		if err != nil {
			return nil, err
		}
		for k, name := range names {
			if slices.Contains(r.Names, name) {
				return nil, fmt.Errorf("eval: two metrics compute %s", name)
			}
			r.Names = append(r.Names, name)
			r.Corpus[name] = scores.Corpus[k]
			for i := range images {
				r.Images[i].Scores[name] = scores.Images[i][k]
			}
		}
		r.scores = append(r.scores, scores)
	}
	return r, nil
}

// check returns an error for items that cannot be scored.
func check(items []Item) error {
	if len(items) == 0 {
		return errors.New("eval: nothing to score: no images")
	}
	first := make(map[coco.ID]bool, len(items))
	for _, item := range items {
		if first[item.ImageID] {
			return fmt.Errorf("eval: image %s occurs twice", item.ImageID)
		}
		first[item.ImageID] = true
		if len(item.References) == 0 {
			return fmt.Errorf("eval: image %s has no reference captions", item.ImageID)
		}
		if !utf8.ValidString(item.Candidate) {
			return fmt.Errorf("eval: image %s: the caption %.60q is not valid UTF-8", item.ImageID, item.Candidate)
		}
		for j, ref := range item.References {
			if !utf8.ValidString(ref) {
				return fmt.Errorf("eval: image %s: reference %d, %.60q, is not valid UTF-8", item.ImageID, j, ref)
			}
		}
	}
	return nil
}

// tokenize tokenizes all captions.
func tokenize(ctx context.Context, items []Item) ([]Tokenized, error) {
	images := make([]Tokenized, len(items))
	err := each(ctx, len(items), func(i int) {
		item := items[i]
		refs := make([]string, len(item.References))
		for j, ref := range item.References {
			refs[j] = ptb.Tokenize(ref)
		}
		images[i] = Tokenized{item.ImageID, ptb.Tokenize(item.Candidate), refs}
	})
	return images, err
}

// each calls f for every image, in parallel on all cores.
func each(ctx context.Context, n int, f func(i int)) error { return inBlocks(ctx, n, 64, f) }

// inBlocks calls f for 0 to n-1, in parallel on all cores and in blocks, until the
// context is done.
func inBlocks(ctx context.Context, n, block int, f func(i int)) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), (n+block-1)/block) {
		wg.Go(func() {
			for ctx.Err() == nil {
				end := int(next.Add(int64(block)))
				if end-block >= n {
					return
				}
				for i := end - block; i < min(end, n); i++ {
					f(i)
				}
			}
		})
	}
	wg.Wait()
	return ctx.Err()
}
