package eval

import (
	"context"
	"math"
)

// CIDEr computes what COCO's evaluation calls CIDEr: CIDEr-D (Vedantam et al. 2015)
// with n-grams of 1 to 4 words, sigma 6, times 10, like pycocoevalcap. The document
// frequency of an n-gram is the number of images in the set with a reference that
// contains it; the length of a caption is counted in 2-grams. A set of one image
// scores 0. The score of the set is the mean over its images; a resampled set keeps
// the document frequencies of the whole set.
type CIDEr struct{}

// Names returns CIDEr.
func (CIDEr) Names() []string { return []string{"CIDEr"} }

// Score implements Metric.
func (CIDEr) Score(ctx context.Context, set *Set) (*Scores, error) {
	captions := set.captions()
	// last is 1 + the last image that counted the n-gram
	frequency, last := make([]float64, set.grams), make([]int32, set.grams)
	for i := range captions {
		for j := range captions[i][1:] {
			for _, g := range captions[i][1+j].grams {
				if last[g.id] != int32(i+1) {
					last[g.id] = int32(i + 1)
					frequency[g.id]++
				}
			}
		}
	}
	// From here on, frequency holds the idf.
	images := math.Log(float64(len(captions)))
	logs := make([]float64, 1, 64)
	for id, n := range frequency {
		for len(logs) <= int(n) {
			logs = append(logs, math.Log(float64(len(logs))))
		}
		frequency[id] = images - logs[int(n)]
	}
	values := make([]float64, len(captions))
	if err := each(ctx, len(captions), func(i int) {
		values[i] = cider(&captions[i][0], captions[i][1:], frequency)
	}); err != nil {
		return nil, err
	}
	return means(values), nil
}

func cider(candidate *caption, references []caption, idf []float64) float64 {
	const sigma = 6
	at := indexOf(candidate)
	norm := norms(candidate, idf)
	// weights of the candidate's n-grams in the current reference
	weights := make([]float64, len(candidate.grams))
	var score [maxN]float64
	for j := range references {
		ref := &references[j]
		clear(weights)
		for _, g := range ref.grams {
			if k, ok := at.find(g.id); ok {
				weights[k] = float64(g.count) * idf[g.id]
			}
		}
		refNorm := norms(ref, idf)
		delta := float64(length(candidate) - length(ref))
		penalty := math.Exp(-(delta * delta) / (2 * sigma * sigma))
		for n := range maxN {
			var v float64
			for k := candidate.at[n]; k < candidate.at[n+1]; k++ {
				g := candidate.grams[k]
				v += min(float64(g.count)*idf[g.id], weights[k]) * weights[k]
			}
			if norm[n] != 0 && refNorm[n] != 0 {
				v /= norm[n] * refNorm[n]
			}
			score[n] += v * penalty
		}
	}
	return (score[0] + score[1] + score[2] + score[3]) / maxN / float64(len(references)) * 10
}

// length returns the length of a caption in 2-grams.
func length(c *caption) int32 { return max(0, c.words-1) }

// norms returns the norms of a caption's vectors of n-gram weights, by n.
func norms(c *caption, idf []float64) (norm [maxN]float64) {
	for n := range maxN {
		for _, g := range c.of(n + 1) {
			w := float64(g.count) * idf[g.id]
			norm[n] += w * w
		}
		norm[n] = math.Sqrt(norm[n])
	}
	return norm
}

// mean computes the mean like numpy, so that the last digits agree: sums of up to
// 128 values with 8 accumulators, longer ones in halves.
func mean(values []float64) float64 { return pairwise(values) / float64(len(values)) }

func pairwise(v []float64) float64 {
	n := len(v)
	switch {
	case n < 8:
		var sum float64
		for _, x := range v {
			sum += x
		}
		return sum
	case n <= 128:
		var r [8]float64
		copy(r[:], v)
		i := 8
		for ; i+8 <= n; i += 8 {
			for k := range r {
				r[k] += v[i+k]
			}
		}
		sum := ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]))
		for ; i < n; i++ {
			sum += v[i]
		}
		return sum
	}
	half := n / 2
	half -= half % 8
	return pairwise(v[:half]) + pairwise(v[half:])
}
