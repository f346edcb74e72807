// Package meteor computes METEOR 1.5 (Denkowski and Lavie 2014) for English captions
// in Go, with the results of pycocoevalcap 1.2: the reference is its meteor-1.5.jar
// with -l en -norm, applied to text tokenized by the PTB tokenizer.
//
// The data, WordNet's synonyms and a table of paraphrases, is not part of this
// project: `make meteor-data` downloads it once and compiles it to an index that
// Open maps.
package meteor

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// METEOR's parameters for English.
const (
	alpha = .85 // weight of recall
	beta  = .2  // power of the fragmentation
	gamma = .6  // weight of the fragmentation
	delta = .75 // weight of content words against function words
)

// The four matchers.
const (
	exact = iota
	stem
	synonym
	paraphrase
	numMatchers
)

var matcherWeight = [numMatchers]float64{1, .6, .8, .6}

// DefaultDir returns the folder in which `make meteor-data` stores the index:
// cyclecap/meteor in the user's cache folder ($XDG_CACHE_HOME or ~/.cache).
func DefaultDir() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = filepath.Join("build", "cache")
	}
	return filepath.Join(cache, "cyclecap", "meteor")
}

// A Scorer scores captions. It is safe for concurrent use by multiple goroutines.
type Scorer struct {
	index      *index
	normaliser normaliser
	aligners   sync.Pool
}

// Open maps the index in dir (see DefaultDir). If there is none, the error wraps
// fs.ErrNotExist and says how to get it; a damaged index is also an error.
func Open(dir string) (*Scorer, error) {
	x, err := openIndex(dir)
	if err != nil {
		return nil, err
	}
	return newScorer(x), nil
}

func newScorer(x *index) *Scorer {
	s := &Scorer{index: x, normaliser: normaliser{map[string]bool{}}}
	for word, flags := range x.arrays[wordFlags] {
		if flags&(flagPrefix|flagNumberPrefix) != 0 {
			s.normaliser.prefixes[string(part(x.arrays[wordAt], x.letters, uint32(word)))] = flags&flagPrefix == 0
		}
	}
	s.aligners.New = func() any { return newAligner(x) }
	return s
}

// Close unmaps the index. No call to Score may be running or follow.
func (s *Scorer) Close() error { return s.index.close() }

// Matched is the number of words that one matcher matched.
type Matched struct {
	CandidateContent, ReferenceContent   int
	CandidateFunction, ReferenceFunction int
}

// Stats holds the counts from which the METEOR score of a caption, or of a set of
// captions, is computed.
type Stats struct {
	CandidateLength, ReferenceLength     int
	CandidateFunction, ReferenceFunction int // function words
	Matched                              [numMatchers]Matched
	Chunks                               int // runs of matches in the same order on both sides
	CandidateMatches, ReferenceMatches   int // matched words
}

// whole reports whether everything is matched in a single run.
func (s Stats) whole() bool {
	return s.Chunks == 1 && s.CandidateMatches == s.CandidateLength && s.ReferenceMatches == s.ReferenceLength
}

// Add adds the counts of another caption. As in the reference, a caption that is
// matched entirely in one run adds no chunk.
func (s *Stats) Add(o Stats) {
	s.CandidateLength += o.CandidateLength
	s.ReferenceLength += o.ReferenceLength
	s.CandidateFunction += o.CandidateFunction
	s.ReferenceFunction += o.ReferenceFunction
	for i := range s.Matched {
		s.Matched[i].CandidateContent += o.Matched[i].CandidateContent
		s.Matched[i].ReferenceContent += o.Matched[i].ReferenceContent
		s.Matched[i].CandidateFunction += o.Matched[i].CandidateFunction
		s.Matched[i].ReferenceFunction += o.Matched[i].ReferenceFunction
	}
	if !o.whole() {
		s.Chunks += o.Chunks
	}
	s.CandidateMatches += o.CandidateMatches
	s.ReferenceMatches += o.ReferenceMatches
}

// Score returns the METEOR score, between 0 and 1.
func (s Stats) Score() float64 {
	var candidate, reference float64 // weighted matches
	for i, m := range s.Matched {
		candidate += matcherWeight[i] * (delta*float64(m.CandidateContent) + (1-delta)*float64(m.CandidateFunction))
		reference += matcherWeight[i] * (delta*float64(m.ReferenceContent) + (1-delta)*float64(m.ReferenceFunction))
	}
	length := func(all, function int) float64 {
		return delta*float64(all-function) + (1-delta)*float64(function)
	}
	precision := candidate / length(s.CandidateLength, s.CandidateFunction)
	recall := reference / length(s.ReferenceLength, s.ReferenceFunction)
	mean := 1 / ((1-alpha)/precision + alpha/recall)
	penalty := 0.
	if !s.whole() {
		fragmentation := float64(s.Chunks) / (float64(s.CandidateMatches+s.ReferenceMatches) / 2)
		penalty = gamma * math.Pow(fragmentation, beta)
	}
	score := mean * (1 - penalty)
	if math.IsNaN(score) || score < 0 {
		return 0
	}
	return score
}

// String returns the line that the reference prints for a caption.
func (s Stats) String() string {
	var b strings.Builder
	put := func(values ...int) {
		for _, v := range values {
			if b.Len() > 0 {
				b.WriteByte(' ')
			}
			fmt.Fprintf(&b, "%d.0", v)
		}
	}
	put(s.CandidateLength, s.ReferenceLength, s.CandidateFunction, s.ReferenceFunction)
	for _, m := range s.Matched {
		put(m.CandidateContent, m.ReferenceContent, m.CandidateFunction, m.ReferenceFunction)
	}
	put(s.Chunks, s.CandidateMatches, s.ReferenceMatches)
	return b.String()
}

// Score compares a caption with its references, all tokenized by the PTB tokenizer
// (lower case, words separated by spaces), and returns the counts for the reference
// with the best score, the first of equals. As in pycocoevalcap, ||| is removed from
// the caption, and splits a reference in two. Without references, the caption is
// compared with an empty one.
func (s *Scorer) Score(candidate string, references []string) Stats {
	a := s.aligners.Get().(*aligner)
	defer s.aligners.Put(a)
	a.reset()
	candidate = strings.ReplaceAll(strings.ReplaceAll(candidate, "|||", ""), "  ", " ")
	a.candidate.set(a, s.words(candidate))
	if len(references) == 0 {
		references = []string{""}
	}
	var best Stats
	bestScore := -1.
	for _, reference := range references {
		for text := range strings.SplitSeq(reference, "|||") {
			a.reference.set(a, s.words(text))
			stats := a.align()
			if score := stats.Score(); score > bestScore {
				best, bestScore = stats, score
			}
		}
	}
	return best
}

func (s *Scorer) words(line string) []string {
	words := s.normaliser.words(line)
	for i, word := range words {
		words[i] = lower(word)
	}
	return words
}
