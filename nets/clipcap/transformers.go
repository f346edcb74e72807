package clipcap

import (
	"context"
	"fmt"
	"math"
	"slices"

	"cyclecap/nets/gpt2"
	"cyclecap/torch"
)

// EarlyStopping decides when BeamTransformers stops looking for better captions, once
// as many captions have ended as there are beams: transformers' early_stopping.
type EarlyStopping string

// The values of EarlyStopping.
const (
	// EarlyStoppingFalse stops when the best caption that has not ended would have a
	// lower score than every one that has, if it ended at its current length.
	// Transformers' default, False.
	EarlyStoppingFalse EarlyStopping = "false"
	// EarlyStoppingTrue stops at once. Transformers' True.
	EarlyStoppingTrue EarlyStopping = "true"
	// EarlyStoppingNever is like EarlyStoppingFalse, but with a positive length penalty
	// it assumes the maximum length. Transformers' "never".
	EarlyStoppingNever EarlyStopping = "never"
)

// MaxLengthPenalty is the largest length penalty, and -MaxLengthPenalty the smallest.
const MaxLengthPenalty = 10

// A hypothesis is a caption of transformers' beam search, ended or not.
type hypothesis struct {
	tokens  []int64
	logProb []float64 // of each token
	sum     float32   // of logProb, in the order in which transformers adds
	score   float32   // sum / len^penalty; set when it has ended
	row     int64     // of the cache, for one that has not ended
}

// search is the beam search for one photo.
type search struct {
	photo   int
	running []hypothesis // not ended, most probable first
	ended   []hypothesis // the best that have ended, by score
}

// beamTransformers implements transformers' generate(num_beams=k), as of version 5
// (GenerationMixin._beam_search), for many prefixes at once:
//
//   - Each step takes the 2k most probable continuations of the k running beams. Those
//     among the first k that end with the stop token become captions, with the score
//     sum / length^LengthPenalty; the first k that do not end run on. Thus k beams run
//     at all times, however many captions have ended.
//   - The k captions of the highest scores are kept. EarlyStopping says when no better
//     one is looked for.
//   - At the maximum length, the first k continuations become captions as they are.
//
// A photo leaves the batch when its search is over. In transformers, it stays until the
// search is over for all, but its captions do not change any more.
func (m *Model) beamTransformers(ctx context.Context, logits torch.Tensor, cache *gpt2.Cache, o Options) ([][]Caption, error) {
	photos, k, vocab := int(logits.Size(0)), o.Beam, logits.Size(-1)
	device := logits.Device()
	prefix := cache.Len
	out := make([][]Caption, photos)
	searches := make([]*search, photos)
	for i := range searches {
		// All k beams are the prefix. transformers gives all but the first a
		// probability of 0; here there is just one.
		searches[i] = &search{photo: i, running: []hypothesis{{row: int64(i)}}}
	}
	for length := 1; ; length++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var sums, chosen []float32
		var flat []int64
		beams := len(searches[0].running)
		torch.Tidy(func() torch.Tensor {
			n := int64(len(searches))
			before := make([]float32, 0, len(searches)*beams)
			for _, s := range searches {
				for _, h := range s.running {
					before = append(before, h.sum)
				}
			}
			lp := logits.To(torch.WithDType(torch.Float32)).LogSoftmax(-1).View([]int64{n, int64(beams), vocab})
			all := lp.Add(torch.FromSlice(before, n, int64(beams), 1).To(torch.WithDevice(device))).View([]int64{n, -1})
			top, ids := all.Topk(int64(2 * k))
			sums, flat = torch.ToSlice[float32](top), torch.ToSlice[int64](ids)
			chosen = torch.ToSlice[float32](lp.View([]int64{n, -1}).Gather(1, ids))
			return torch.Tensor{}
		})
		logits.Close()

		going := searches[:0]
		for i, s := range searches {
			next := make([]hypothesis, 2*k)
			for j := range next {
				at := i*2*k + j
				h := s.running[flat[at]/vocab]
				next[j] = hypothesis{
					tokens:  append(slices.Clone(h.tokens), flat[at]%vocab),
					logProb: append(slices.Clone(h.logProb), float64(chosen[at])),
					sum:     sums[at],
					row:     int64(i*beams) + flat[at]/vocab,
				}
			}
			if !s.step(next, length, o) {
				going = append(going, s)
				continue
			}
			if len(s.ended) == 0 {
				return nil, fmt.Errorf("generate: the length penalty of %g makes every score smaller than -1e9", o.LengthPenalty)
			}
			for _, h := range s.ended {
				out[s.photo] = append(out[s.photo], Caption{Tokens: h.tokens, TokenLogProbs: h.logProb, LogProb: float64(h.sum), Score: float64(h.score)})
			}
		}
		if searches = going; len(searches) == 0 {
			return out, nil
		}

		var rows, next []int64
		for _, s := range searches {
			for _, h := range s.running {
				rows = append(rows, h.row)
				next = append(next, h.tokens[length-1])
			}
		}
		if int64(len(rows)) != cache.Batch() || !identity(rows) {
			index := torch.FromSlice(rows).To(torch.WithDevice(device))
			cache.Select(index, prefix)
			index.Close()
		}
		logits = torch.Tidy(func() torch.Tensor { return m.next(torch.FromSlice(next).To(torch.WithDevice(device)), cache) })
	}
}

// never is transformers' score of what is no caption.
const never = -1e9

// step takes the 2k most probable continuations, best first, which have length tokens,
// and reports whether the search is over.
func (s *search) step(next []hypothesis, length int, o Options) (over bool) {
	k := o.Beam
	last := length == o.MaxTokens
	s.running = nil
	for i, h := range next {
		ends := last || h.tokens[length-1] == o.Stop
		if !ends && len(s.running) < k {
			s.running = append(s.running, h)
		}
		if ends && i < k {
			h.score = h.sum / power(length, o.LengthPenalty)
			if !(h.score <= never) { // NaN, too, which the caller reports
				s.ended = append(s.ended, h)
			}
		}
	}
	// Those of equal scores stay in the order in which they ended.
	slices.SortStableFunc(s.ended, func(a, b hypothesis) int {
		switch {
		case a.score > b.score:
			return -1
		case a.score < b.score:
			return 1
		}
		return 0
	})
	s.ended = s.ended[:min(k, len(s.ended))]
	switch {
	case last:
		return true
	case len(s.ended) < k:
		return false
	case o.EarlyStopping == EarlyStoppingTrue:
		return true
	}
	hypothetical := length
	if o.EarlyStopping == EarlyStoppingNever && o.LengthPenalty > 0 {
		hypothetical = o.MaxTokens
	}
	return s.running[0].sum/power(hypothetical, o.LengthPenalty) <= s.ended[k-1].score
}

// power returns length^penalty, by which transformers divides. It computes the power in
// float64, and the quotient in float32.
func power(length int, penalty float64) float32 {
	return float32(math.Pow(float64(length), penalty))
}
