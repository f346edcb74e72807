package meteor

import (
	"slices"

	"github.com/blevesearch/snowballstem"
	"github.com/blevesearch/snowballstem/english"
	"golang.org/x/text/cases"
	"golang.org/x/text/language"
)

// beam is the number of partial alignments that METEOR keeps.
const beam = 40

// lower is Java's toLowerCase: unlike strings.ToLower, it handles the final sigma.
func lower(line string) string {
	for i := range len(line) {
		if line[i] >= 0x80 {
			return cases.Lower(language.Und).String(line)
		}
		if 'A' <= line[i] && line[i] <= 'Z' {
			return cases.Lower(language.Und).String(line)
		}
	}
	return line
}

// A word holds what the matchers use of a word.
type word struct {
	root     int32
	place    uint32 // position in the index, or none
	sets     []uint32
	function bool
}

// A line is a caption or a reference in an alignment.
type line struct {
	words   []int32    // positions in aligner.known
	phrases []occurred // ordered by start, then length
	// The phrases by their position in the index: a hash table of the first
	// occurrence+1, from which next leads to the later ones, in order.
	slots []int32
	next  []int32
}

// occurred is an occurrence in a line of a phrase from the index.
type occurred struct {
	phrase        uint32
	start, length int32
}

// A match aligns words of the reference, beginning at start, with words of the
// candidate, beginning at candidateStart.
type match struct {
	start, length                   int32
	candidateStart, candidateLength int32
	matcher                         int32
}

// An aligner aligns one pair of lines at a time. It caches what it has looked up
// about words.
type aligner struct {
	index                *index
	ids                  map[string]int32
	known                []word
	stems                map[string]int32
	env                  *snowballstem.Env
	candidate, reference line

	matches  []match // ordered by start
	unsorted []match
	at       []int32 // matches of word i of the reference are matches[at[i]:at[i+1]]
	count1   []int32 // number of matches that cover each word of the candidate,
	count2   []int32 // and of the reference
	fixed    []int32 // the only possible match of a word, or -1
	queues   [2]queue
}

func newAligner(x *index) *aligner {
	return &aligner{index: x, ids: map[string]int32{}, stems: map[string]int32{}, env: snowballstem.NewEnv("")}
}

// reset clears the cache when it holds many words.
func (a *aligner) reset() {
	if len(a.known) > 1<<15 {
		clear(a.ids)
		clear(a.stems)
		a.known = a.known[:0]
	}
}

func (a *aligner) learn(text string) int32 {
	if id, ok := a.ids[text]; ok {
		return id
	}
	x := a.index
	w := word{place: x.word(text)}
	a.env.SetCurrent(text)
	english.Stem(a.env)
	root := a.env.Current()
	s, ok := a.stems[root]
	if !ok {
		s = int32(len(a.stems))
		a.stems[root] = s
	}
	w.root = s
	irregular := false
	if w.place != none {
		flags := x.flags(w.place)
		w.function = flags&flagFunction != 0
		irregular = flags&flagIrregular != 0
		w.sets = part(x.arrays[ownAt], x.arrays[sets], w.place)
	}
	var more []uint32
	if irregular {
		more = part(x.arrays[inflectAt], x.arrays[sets], w.place)
	} else {
		for _, base := range bases(text) {
			if place := x.word(base); place != none {
				if more = part(x.arrays[ownAt], x.arrays[sets], place); len(more) > 0 {
					break
				}
			}
		}
	}
	if len(more) > 0 {
		w.sets = append(slices.Clone(w.sets), more...)
		slices.Sort(w.sets)
	}
	id := int32(len(a.known))
	a.known = append(a.known, w)
	a.ids[text] = id
	return id
}

// endings lists WordNet's rules of regular inflection, in the order in which they
// are tried.
var endings = []struct{ from, to string }{
	{"s", ""}, {"ses", "s"}, {"xes", "x"}, {"zes", "z"}, {"ches", "ch"}, {"shes", "sh"}, {"men", "man"}, {"ies", "y"},
	{"es", "e"}, {"es", ""}, {"ed", "e"}, {"ed", ""}, {"ing", "e"}, {"ing", ""}, {"er", ""}, {"est", ""}, {"er", "e"}, {"est", "e"},
}

// bases returns the words that a regularly inflected word may come from. A word of
// two letters is not inflected, nor is one that ends in -ss.
func bases(text string) []string {
	if len(text) <= 2 || text[len(text)-2:] == "ss" {
		return nil
	}
	var out []string
	for _, rule := range endings {
		if root, ok := cutSuffix(text, rule.from); ok && root+rule.to != "" {
			out = append(out, root+rule.to)
		}
	}
	return out
}

func cutSuffix(s, suffix string) (string, bool) {
	if len(s) >= len(suffix) && s[len(s)-len(suffix):] == suffix {
		return s[:len(s)-len(suffix)], true
	}
	return s, false
}

func (l *line) set(a *aligner, words []string) {
	l.words = l.words[:0]
	for _, text := range words {
		l.words = append(l.words, a.learn(text))
	}
	l.phrases = l.phrases[:0]
	var places [16]uint32
	longest := min(a.index.maxPhrase, len(places))
	for i := range l.words {
		hash := uint32(0)
		for n := 0; n < longest && i+n < len(l.words); n++ {
			place := a.known[l.words[i+n]].place
			if place == none {
				break
			}
			places[n] = place
			hash = hashWord(hash, place)
			if phrase := a.index.phrase(places[:n+1], hash); phrase != none {
				l.phrases = append(l.phrases, occurred{phrase, int32(i), int32(n + 1)})
			}
		}
	}
	size := 4
	for size < 4*len(l.phrases) {
		size *= 2
	}
	l.slots = resize(l.slots, size)
	l.next = resize(l.next, len(l.phrases))
	// Start at the end, so that the chain of a phrase runs from left to right.
	for i := len(l.phrases) - 1; i >= 0; i-- {
		at := l.slot(l.phrases[i].phrase)
		l.next[i] = l.slots[at]
		l.slots[at] = int32(i) + 1
	}
}

func (l *line) slot(phrase uint32) uint32 {
	mask := uint32(len(l.slots) - 1)
	at := (phrase * 0x9e3779b9 >> 7) & mask
	for l.slots[at] != 0 && l.phrases[l.slots[at]-1].phrase != phrase {
		at = (at + 1) & mask
	}
	return at
}

// resize returns a slice of n zeros.
func resize[T any](s []T, n int) []T {
	s = slices.Grow(s[:0], n)[:n]
	clear(s)
	return s
}

func overlap(a, b []uint32) bool {
	for i, j := 0, 0; i < len(a) && j < len(b); {
		switch {
		case a[i] < b[j]:
			i++
		case a[i] > b[j]:
			j++
		default:
			return true
		}
	}
	return false
}

// match finds all matches. The matches of a word of the reference are in the order
// of the matchers, and then from left to right; paraphrases of phrases of the
// reference come before phrases of the candidate that it paraphrases. The order
// decides between alignments that are otherwise equal.
func (a *aligner) match() {
	out := a.unsorted[:0]
	candidate, reference := a.candidate.words, a.reference.words
	add := func(j, i int, matcher int32) { out = append(out, match{int32(j), 1, int32(i), 1, matcher}) }
	for j, r := range reference {
		for i, c := range candidate {
			if c == r {
				add(j, i, exact)
			}
		}
	}
	for j, r := range reference {
		root := a.known[r].root
		for i, c := range candidate {
			if c != r && a.known[c].root == root {
				add(j, i, stem)
			}
		}
	}
	for j, r := range reference {
		sets := a.known[r].sets
		if len(sets) == 0 {
			continue
		}
		for i, c := range candidate {
			if c != r && overlap(sets, a.known[c].sets) {
				add(j, i, synonym)
			}
		}
	}
	x := a.index
	for _, from := range a.reference.phrases {
		for _, target := range part(x.arrays[targetAt], x.arrays[targets], from.phrase) {
			for o := a.candidate.slots[a.candidate.slot(target)]; o != 0; o = a.candidate.next[o-1] {
				to := a.candidate.phrases[o-1]
				out = append(out, match{from.start, from.length, to.start, to.length, paraphrase})
			}
		}
	}
	for _, from := range a.candidate.phrases {
		for _, target := range part(x.arrays[targetAt], x.arrays[targets], from.phrase) {
			for o := a.reference.slots[a.reference.slot(target)]; o != 0; o = a.reference.next[o-1] {
				to := a.reference.phrases[o-1]
				out = append(out, match{to.start, to.length, from.start, from.length, paraphrase})
			}
		}
	}
	a.unsorted = out

	a.at = resize(a.at, len(reference)+2)
	a.count1 = resize(a.count1, len(candidate))
	a.count2 = resize(a.count2, len(reference))
	for _, m := range out {
		a.at[m.start+2]++
		for i := range m.candidateLength {
			a.count1[m.candidateStart+i]++
		}
		for i := range m.length {
			a.count2[m.start+i]++
		}
	}
	for i := 2; i < len(a.at); i++ {
		a.at[i] += a.at[i-1]
	}
	a.matches = resize(a.matches, len(out))
	for _, m := range out {
		a.matches[a.at[m.start+1]] = m
		a.at[m.start+1]++
	}
	// A match whose words have no other match is fixed in advance.
	a.fixed = resize(a.fixed, len(reference))
	for j := range a.fixed {
		a.fixed[j] = -1
	}
	for k, m := range a.matches {
		if a.alone(m) {
			a.fixed[m.start] = int32(k)
		}
	}
}

func (a *aligner) alone(m match) bool {
	for i := range m.candidateLength {
		if a.count1[m.candidateStart+i] != 1 {
			return false
		}
	}
	for i := range m.length {
		if a.count2[m.start+i] != 1 {
			return false
		}
	}
	return true
}

// A path is a partial alignment: the decisions for the words of the reference
// before next.
type path struct {
	next    int32 // the first undecided word
	last    int32 // end of the last match in the candidate, -1 after a gap
	total   int32 // weighted words, rounded down for each match
	chunks  int32
	skew    int32 // how far matches are from their position
	used    covered
	choices *choice
}

// A choice is a match on a path, with the matches before it.
type choice struct {
	match  int32
	before *choice
}

// covered is a set of words of the candidate: the first 64, and the others if
// there are any.
type covered struct {
	first uint64
	rest  []uint64
}

func coverOf(words int) covered {
	if words <= 64 {
		return covered{}
	}
	return covered{rest: make([]uint64, (words-1)/64)}
}

func (c covered) has(from, n int32) bool {
	for i := from; i < from+n; i++ {
		w := c.first
		if i >= 64 {
			w = c.rest[i/64-1]
		}
		if w&(1<<(i&63)) != 0 {
			return true
		}
	}
	return false
}

func (c covered) with(from, n int32) covered {
	if c.rest != nil && from+n > 64 {
		c.rest = slices.Clone(c.rest)
	}
	for i := from; i < from+n; i++ {
		if i < 64 {
			c.first |= 1 << i
		} else {
			c.rest[i/64-1] |= 1 << (i & 63)
		}
	}
	return c
}

// take adds a match to a path, except for choices and used: most paths are dropped
// right away.
func (p *path) take(m match) {
	if p.last != -1 && p.last != m.candidateStart {
		p.chunks++
	}
	p.last = m.candidateStart + m.candidateLength
	// The search has its own weights: 1 for exact matches, 1/2 for others.
	if m.matcher == exact {
		p.total += m.length + m.candidateLength
	} else {
		p.total += m.length/2 + m.candidateLength/2
	}
	p.next = m.start + m.length
}

func (p *path) gap() {
	if p.last != -1 {
		p.chunks++
		p.last = -1
	}
}

// better reports whether p ranks before q; equal paths keep their order.
func better(p, q *path) bool {
	switch {
	case p.total != q.total:
		return p.total > q.total
	case p.chunks != q.chunks:
		return p.chunks < q.chunks
	}
	return p.skew < q.skew
}

// A queue keeps the best paths in order.
type queue struct {
	paths []path
}

// insert returns the position of p among the best, or -1.
func (q *queue) insert(p path) int {
	n := len(q.paths)
	if n == beam && !better(&p, &q.paths[n-1]) {
		return -1
	}
	at := n
	for at > 0 && better(&p, &q.paths[at-1]) {
		at--
	}
	if n == beam {
		n--
		q.paths = q.paths[:n]
	}
	q.paths = slices.Insert(q.paths, at, p)
	return at
}

// align finds the best alignment of the two lines by searching the reference from
// left to right, and returns its counts.
func (a *aligner) align() Stats {
	a.match()
	used := coverOf(len(a.candidate.words))
	for _, k := range a.fixed {
		if k >= 0 {
			m := a.matches[k]
			used = used.with(m.candidateStart, m.candidateLength)
		}
	}
	now, then := &a.queues[0], &a.queues[1]
	now.paths = append(now.paths[:0], path{last: -1, used: used})
	for j := range int32(len(a.reference.words)) {
		then.paths = then.paths[:0]
		for _, p := range now.paths {
			if p.next > j {
				then.insert(p)
				continue
			}
			if k := a.fixed[j]; k >= 0 {
				m := a.matches[k]
				p.take(m)
				p.skew += abs(m.start - m.candidateStart)
				if at := then.insert(p); at >= 0 {
					then.paths[at].choices = &choice{k, p.choices}
				}
				continue
			}
			for k := a.at[j]; k < a.at[j+1]; k++ {
				m := a.matches[k]
				if p.used.has(m.candidateStart, m.candidateLength) {
					continue
				}
				q := p
				q.take(m)
				if at := then.insert(q); at >= 0 {
					then.paths[at].used = p.used.with(m.candidateStart, m.candidateLength)
					then.paths[at].choices = &choice{k, p.choices}
				}
				// The reference implementation also adds the distance of a match to
				// the paths that continue without it.
				p.skew += abs(m.start - m.candidateStart)
			}
			p.gap()
			p.next = j + 1
			then.insert(p)
		}
		now, then = then, now
	}
	then.paths = then.paths[:0]
	for _, p := range now.paths {
		p.gap()
		then.insert(p)
	}
	return a.stats(then.paths[0])
}

func abs(v int32) int32 {
	if v < 0 {
		return -v
	}
	return v
}

func (a *aligner) stats(p path) Stats {
	candidate, reference := a.candidate.words, a.reference.words
	s := Stats{CandidateLength: len(candidate), ReferenceLength: len(reference), Chunks: int(p.chunks)}
	for _, w := range candidate {
		if a.known[w].function {
			s.CandidateFunction++
		}
	}
	for _, w := range reference {
		if a.known[w].function {
			s.ReferenceFunction++
		}
	}
	for c := p.choices; c != nil; c = c.before {
		m := a.matches[c.match]
		s.CandidateMatches += int(m.candidateLength)
		s.ReferenceMatches += int(m.length)
		counts := &s.Matched[m.matcher]
		for _, w := range candidate[m.candidateStart:][:m.candidateLength] {
			if a.known[w].function {
				counts.CandidateFunction++
			} else {
				counts.CandidateContent++
			}
		}
		for _, w := range reference[m.start:][:m.length] {
			if a.known[w].function {
				counts.ReferenceFunction++
			} else {
				counts.ReferenceContent++
			}
		}
	}
	return s
}
