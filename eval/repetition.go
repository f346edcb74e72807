package eval

import (
	"context"
	"strings"
)

// The scores of Repetition.
const (
	RepeatedBigram = "repeated_bigram"
	RepeatedWord   = "repeated_word"
)

// Repetition is the share of captions in which a pair of adjacent words occurs twice ("a
// pair of a pair of cups"), and of those in which a word follows itself ("a red red cup").
type Repetition struct{}

// Names implements Metric.
func (Repetition) Names() []string { return []string{RepeatedBigram, RepeatedWord} }

// Score implements Metric.
func (Repetition) Score(ctx context.Context, set *Set) (*Scores, error) {
	values := make([][]float64, len(set.Images))
	err := each(ctx, len(set.Images), func(i int) {
		bigram, word := repeats(strings.Fields(set.Images[i].Candidate))
		values[i] = []float64{one(bigram), one(word)}
	})
	if err != nil {
		return nil, err
	}
	s := &Scores{Corpus: make([]float64, 2), Images: values}
	for _, v := range values {
		for k := range s.Corpus {
			s.Corpus[k] += v[k]
		}
	}
	for k := range s.Corpus {
		s.Corpus[k] /= float64(len(values))
	}
	return s, nil
}

// repeats reports whether a bigram occurs twice and whether a word follows itself. "a a a"
// has the bigram "a a" twice.
func repeats(words []string) (bigram, word bool) {
	seen := map[[2]string]bool{}
	for i := 1; i < len(words); i++ {
		pair := [2]string{words[i-1], words[i]}
		bigram = bigram || seen[pair]
		word = word || pair[0] == pair[1]
		seen[pair] = true
	}
	return bigram, word
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
