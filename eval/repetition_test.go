package eval_test

import (
	"math"
	"testing"

	"cyclecap/data/coco"
	"cyclecap/eval"
)

func TestRepetition(t *testing.T) {
	captions := []struct {
		text         string
		bigram, word float64
	}{
		{"A pair of pair of cups.", 1, 0},
		{"a green tiny green tiny green tiny", 1, 0},
		{"A red red cup.", 0, 1},
		{"a a a", 1, 1},
		{"A dog and a cat, and a bird", 1, 0},
		{"A dog and a cat", 0, 0},
		{"A cat. A cat!", 1, 0},
		{"cup", 0, 0},
		{"", 0, 0},
	}
	var items []eval.Item
	var bigrams, words float64
	for i, c := range captions {
		items = append(items, eval.Item{ImageID: coco.Int(int64(i)), Candidate: c.text, References: []string{"a"}})
		bigrams += c.bigram / float64(len(captions))
		words += c.word / float64(len(captions))
	}
	r, err := eval.Evaluate(t.Context(), items, eval.Options{Metrics: []eval.Metric{eval.Repetition{}}})
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range captions {
		s := r.Images[i].Scores
		if s[eval.RepeatedBigram] != c.bigram || s[eval.RepeatedWord] != c.word {
			t.Errorf("%q: %v", c.text, s)
		}
	}
	if d := math.Abs(r.Corpus[eval.RepeatedBigram]-bigrams) + math.Abs(r.Corpus[eval.RepeatedWord]-words); d > 1e-12 {
		t.Errorf("%v", r.Corpus)
	}
	shares, err := r.Shares(t.Context(), eval.Bootstrap{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	if s := shares[eval.RepeatedWord]; s.Mean != r.Corpus[eval.RepeatedWord] || s.Low > s.Mean || s.High < s.Mean || s.Low == s.High {
		t.Errorf("%+v", s)
	}
}
