package eval

import (
	"strings"
	"sync"

	"cyclecap/eval/ptb"
)

// A Set is a tokenized set of images, with data shared by the metrics.
type Set struct {
	Images []Tokenized

	once  sync.Once
	words [][]caption // words[i][0] is image i's candidate, the others its references
	grams int         // number of different n-grams
}

// NewSet returns a set of images that are already tokenized.
func NewSet(images []Tokenized) *Set { return &Set{Images: images} }

// maxN is the length of the longest n-grams that count, for BLEU and for CIDEr.
const maxN = 4

// A caption is a text whose words and n-grams are replaced by numbers; equal ones
// have equal numbers throughout the set.
type caption struct {
	// whole holds the tokens that ROUGE_L uses, split at spaces; a text without
	// tokens has one empty token.
	whole []uint32
	// n-grams with their counts, ordered by length and then by first occurrence.
	// The n-grams of length n are grams[at[n-1]:at[n]].
	grams []gram
	at    [maxN + 1]int32
	// words is the number of words for BLEU and CIDEr.
	words int32
}

// A gram is an n-gram in a caption.
type gram struct {
	id    uint32
	count uint32
}

func (c *caption) of(n int) []gram { return c.grams[c.at[n-1]:c.at[n]] }

// captions returns the numbered captions of all images.
func (s *Set) captions() [][]caption {
	s.once.Do(func() {
		w := &numberer{words: make(map[string]uint32)}
		total := 0
		for i := range s.Images {
			total += 1 + len(s.Images[i].References)
		}
		all := make([]caption, total)
		s.words = make([][]caption, len(s.Images))
		for i := range s.Images {
			n := 1 + len(s.Images[i].References)
			s.words[i], all = all[:n:n], all[n:]
			w.number(s.Images[i].Candidate, &s.words[i][0])
			for j, ref := range s.Images[i].References {
				w.number(ref, &s.words[i][j+1])
			}
		}
		s.grams = int(w.next)
	})
	return s.words
}

// numberer numbers words and n-grams. An n-gram of n words is the pair of the n-gram
// of its first n-1 words and its last word, so that one table of pairs holds all
// lengths.
type numberer struct {
	words map[string]uint32 // word to its number, which is also that of the 1-gram
	pairs pairTable
	next  uint32 // number of the next n-gram
	ids   []uint32
	last  []uint32   // ids of the n-grams that are one word shorter, by position
	seen  []struct { // by n-gram: the last caption that contains it, and where
		caption uint32
		at      uint32
	}
	caption uint32 // number of captions so far
}

func (w *numberer) number(text string, c *caption) {
	w.caption++
	// Python's split() also splits at U+00A0, which a token may contain: apart
	// from that, words and tokens are the same.
	same := strings.IndexFunc(text, func(r rune) bool { return r != ' ' && ptb.IsSpace(r) }) < 0 && text != ""
	w.ids = w.ids[:0]
	if same {
		for word := range strings.SplitSeq(text, " ") {
			w.ids = append(w.ids, w.word(word))
		}
		c.whole = append([]uint32(nil), w.ids...)
	} else {
		for token := range strings.SplitSeq(text, " ") {
			c.whole = append(c.whole, w.word(token))
		}
		for word := range strings.FieldsFuncSeq(text, ptb.IsSpace) {
			w.ids = append(w.ids, w.word(word))
		}
	}
	c.words = int32(len(w.ids))
	c.grams = make([]gram, 0, max(0, 4*len(w.ids)-6))
	w.last = append(w.last[:0], w.ids...)
	for n := 1; n <= maxN; n++ {
		for i := 0; i+n <= len(w.ids); i++ {
			id := w.last[i]
			if n > 1 {
				id = w.pair(id, w.ids[i+n-1])
				w.last[i] = id
			}
			if seen := &w.seen[id]; seen.caption == w.caption {
				c.grams[seen.at].count++
			} else {
				seen.caption, seen.at = w.caption, uint32(len(c.grams))
				c.grams = append(c.grams, gram{id, 1})
			}
		}
		c.at[n] = int32(len(c.grams))
	}
}

func (w *numberer) word(word string) uint32 {
	id, ok := w.words[word]
	if !ok {
		id = w.fresh()
		w.words[word] = id
	}
	return id
}

func (w *numberer) pair(first, last uint32) uint32 {
	id := w.pairs.slot(uint64(first)<<32 | uint64(last))
	if *id == 0 {
		*id = w.fresh() + 1
	}
	return *id - 1
}

func (w *numberer) fresh() uint32 {
	id := w.next
	w.next++
	w.seen = append(w.seen, struct{ caption, at uint32 }{})
	return id
}

// pairTable is a hash table from pairs to numbers, with open addressing: a Go map
// takes three times as long here. The number of a free slot is 0.
type pairTable struct {
	slots []pairSlot
	used  int
	shift uint
}

type pairSlot struct {
	key uint64
	id  uint32
}

// slot returns a pointer to the number of a key; 0 means that the key is new and the
// caller must fill the slot.
func (t *pairTable) slot(key uint64) *uint32 {
	if t.used*3 >= len(t.slots)*2 {
		t.grow()
	}
	for at := t.home(key); ; at = (at + 1) & (len(t.slots) - 1) {
		s := &t.slots[at]
		if s.id == 0 {
			s.key = key
			t.used++
			return &s.id
		}
		if s.key == key {
			return &s.id
		}
	}
}

func (t *pairTable) home(key uint64) int {
	key ^= key >> 32
	return int(key * 0x9E3779B97F4A7C15 >> t.shift) // Fibonacci hashing
}

func (t *pairTable) grow() {
	old := t.slots
	n := max(1<<12, 2*len(old))
	t.slots = make([]pairSlot, n)
	t.shift = 64
	for ; n > 1; n >>= 1 {
		t.shift--
	}
	for _, s := range old {
		if s.id == 0 {
			continue
		}
		at := t.home(s.key)
		for t.slots[at].id != 0 {
			at = (at + 1) & (len(t.slots) - 1)
		}
		t.slots[at] = s
	}
}
