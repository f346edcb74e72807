package eval

import (
	"context"
	"math/bits"
)

// ROUGE computes ROUGE_L (Lin 2004) like pycocoevalcap: the longest common
// subsequence with every reference gives a precision and a recall, the maximum of
// each is taken separately, and beta is 1.2. A caption without tokens counts as one
// empty token, so that two such captions score 1. The score of the set is the mean
// over its images.
type ROUGE struct{}

// Names returns ROUGE_L.
func (ROUGE) Names() []string { return []string{"ROUGE_L"} }

// Score implements Metric.
func (ROUGE) Score(ctx context.Context, set *Set) (*Scores, error) {
	captions := set.captions()
	values := make([]float64, len(captions))
	if err := each(ctx, len(captions), func(i int) {
		values[i] = rouge(captions[i][0].whole, captions[i][1:])
	}); err != nil {
		return nil, err
	}
	return means(values), nil
}

// means returns the scores of a metric whose corpus score is the mean.
func means(values []float64) *Scores {
	s := &Scores{Corpus: []float64{mean(values)}, Images: make([][]float64, len(values))}
	for i := range values {
		s.Images[i] = values[i : i+1 : i+1]
	}
	return s
}

func rouge(candidate []uint32, references []caption) float64 {
	const beta = 1.2
	var precision, recall float64
	m := newMatcher(candidate)
	for _, ref := range references {
		common := float64(m.common(ref.whole))
		precision = max(precision, common/float64(len(candidate)))
		recall = max(recall, common/float64(len(ref.whole)))
	}
	if precision == 0 || recall == 0 {
		return 0
	}
	return (1 + beta*beta) * precision * recall / (recall + beta*beta*precision)
}

// matcher computes the length of the longest common subsequence of one text with
// others, 64 of its tokens at a time (the bit-parallel method of Hyyrö 2004): two
// captions of 100,000 words take a fraction of a second.
type matcher struct {
	blocks int
	// masks[places[word]] has a bit for every position of word in the text
	places map[uint32]int
	masks  [][]uint64
	// for texts of up to 64 tokens, instead of a map
	words []uint32
	short []uint64
	row   []uint64
}

func newMatcher(text []uint32) *matcher {
	m := &matcher{blocks: (len(text) + 63) / 64}
	if m.blocks == 1 {
		for i, w := range text {
			k := m.find(w)
			if k < 0 {
				k = len(m.words)
				m.words, m.short = append(m.words, w), append(m.short, 0)
			}
			m.short[k] |= 1 << i
		}
		return m
	}
	// The mask of a word holds only the blocks from its first to its last
	// position; otherwise a text of 100,000 different words would need 150 MB.
	m.places = map[uint32]int{}
	m.row = make([]uint64, m.blocks)
	for i, w := range text {
		k, ok := m.places[w]
		if !ok {
			k = len(m.masks)
			m.places[w] = k
			m.masks = append(m.masks, []uint64{uint64(i / 64)})
		}
		mask := m.masks[k]
		for len(mask)-1 <= i/64-int(mask[0]) {
			mask = append(mask, 0)
		}
		mask[1+i/64-int(mask[0])] |= 1 << (i % 64)
		m.masks[k] = mask
	}
	return m
}

func (m *matcher) find(w uint32) int {
	for k, have := range m.words {
		if have == w {
			return k
		}
	}
	return -1
}

// common returns the length of the longest common subsequence with a text. A 0 bit
// in the row is a position at which the length grows by one.
func (m *matcher) common(text []uint32) int {
	if m.blocks == 1 {
		row := ^uint64(0)
		for _, w := range text {
			if k := m.find(w); k >= 0 {
				u := row & m.short[k]
				row = row + u | row&^u
			}
		}
		return 64 - bits.OnesCount64(row)
	}
	for i := range m.row {
		m.row[i] = ^uint64(0)
	}
	for _, w := range text {
		k, ok := m.places[w]
		if !ok {
			continue
		}
		first, mask := int(m.masks[k][0]), m.masks[k][1:]
		var carry uint64
		for j, bitsOf := range mask {
			row := m.row[first+j]
			u := row & bitsOf
			var sum uint64
			sum, carry = bits.Add64(row, u, carry)
			m.row[first+j] = sum | row&^u
		}
		for j := first + len(mask); carry != 0 && j < m.blocks; j++ {
			row := m.row[j]
			var sum uint64
			sum, carry = bits.Add64(row, 0, carry)
			m.row[j] = sum | row
		}
	}
	n := 0
	for _, row := range m.row {
		n += 64 - bits.OnesCount64(row)
	}
	return n
}
