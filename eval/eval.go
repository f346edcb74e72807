// Package eval scores captions with BLEU-1 to BLEU-4, ROUGE_L and CIDEr, the
// numbers that pycocoevalcap 1.2 gives for COCO, and says how sure they are.
//
// Captions are tokenized by package ptb. Another metric joins through Metric;
// METEOR does, so that what it needs is not needed here.
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

	"cyclecap/eval/ptb"
)

// An Item is an image with the caption to score and the captions to score it
// against, as people wrote them.
type Item struct {
	ImageID    int64
	Candidate  string
	References []string
}

// A Tokenized is an Item after ptb.Tokenize: tokens with single spaces between
// them. A caption without any token is "".
type Tokenized struct {
	ImageID    int64
	Candidate  string
	References []string
}

// A Metric computes one or several scores of every image and of the whole set.
// It must not change the set.
type Metric interface {
	// Names are the names of the scores, in the order of Scores' values.
	Names() []string
	// Score scores a set that has at least one image, and at least one
	// reference for each.
	Score(ctx context.Context, set *Set) (*Scores, error)
}

// Scores are a metric's values, in the order of its names.
type Scores struct {
	Corpus []float64
	Images [][]float64 // Images[i] are those of the set's image i
	// Resample gives the corpus values of a set that has image i count[i] times,
	// total images in all. Without it they are the means of the images' values.
	Resample func(count []int32, total int) []float64
}

// resample gives the corpus values of a resampled set.
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

// Options of Evaluate. The zero value is everything that this package computes.
type Options struct {
	// Metrics to compute, in the order of the result; nil means Metrics().
	Metrics []Metric
}

// Metrics are the metrics of this package: BLEU, ROUGE_L and CIDEr.
func Metrics() []Metric { return []Metric{BLEU{}, ROUGE{}, CIDEr{}} }

// A Result has the scores of a set.
type Result struct {
	// Names are the scores' names, in the order of Options.Metrics.
	Names []string
	// Corpus are the scores of the whole set, by name.
	Corpus map[string]float64
	// Images are those of every image, in the order of the items.
	Images []ImageScores

	scores []*Scores
}

// ImageScores are the scores of one image, and the tokens that they are of.
type ImageScores struct {
	Tokenized
	Scores map[string]float64
}

// Evaluate tokenizes and scores. CIDEr depends on the whole set: its document
// frequency counts the references given here. The work is spread over the
// processor's cores. Errors: no items, an image twice or without references,
// text that is not UTF-8, a metric's own, and the context's.
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
				return nil, fmt.Errorf("eval: two metrics give %s", name)
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

// check refuses items that cannot be scored.
func check(items []Item) error {
	if len(items) == 0 {
		return errors.New("eval: nothing to score: no images")
	}
	first := make(map[int64]bool, len(items))
	for _, item := range items {
		if first[item.ImageID] {
			return fmt.Errorf("eval: image %d is there twice", item.ImageID)
		}
		first[item.ImageID] = true
		if len(item.References) == 0 {
			return fmt.Errorf("eval: image %d has no reference captions", item.ImageID)
		}
		if !utf8.ValidString(item.Candidate) {
			return fmt.Errorf("eval: image %d: the caption %.60q is not UTF-8", item.ImageID, item.Candidate)
		}
		for j, ref := range item.References {
			if !utf8.ValidString(ref) {
				return fmt.Errorf("eval: image %d: reference %d, %.60q, is not UTF-8", item.ImageID, j, ref)
			}
		}
	}
	return nil
}

// tokenize runs the tokenizer over all captions.
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

// each calls f for every image, spread over the cores.
func each(ctx context.Context, n int, f func(i int)) error { return inBlocks(ctx, n, 64, f) }

// inBlocks calls f for 0 to n-1, spread over the cores in blocks, until the
// context ends.
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
