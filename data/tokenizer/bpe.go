package tokenizer

import (
	"encoding/binary"
	"slices"
)

// wordEnd is the suffix of tokens that end a word in CLIP's vocabulary.
const wordEnd = "</w>"

// A bpe is a byte-level byte-pair vocabulary. Ids are, in order: the 256 single
// bytes; for a vocabulary that marks word ends, the 256 single bytes that end a
// word; the merged tokens in the order of the merges; the special tokens.
//
// The id of a merged token is therefore also its rank: of two possible merges,
// the one with the smaller id goes first.
type bpe struct {
	base     int               // id of the first merged token: 256 or 512
	special  int               // id of the first special token
	merged   map[uint32]uint16 // left id<<16 | right id -> id of the merged token
	whole    map[string]uint16 // bytes of a word that is one token -> its id
	bytes    string            // the bytes of all tokens, concatenated
	start    []uint32          // token id is bytes[start[id]:start[id+1]]
	ends     []bool            // whether token id ends a word
	byteRank [256]uint16       // byte -> id of the single-byte token
	same     []uint16          // id of a merge -> the token that it makes, if another merge makes it too; nil: each its own
}

// newBPE builds a vocabulary from the merges in the format of vocab/make_vocab.py.
func newBPE(merges string, base int, special []string) *bpe {
	n := len(merges) / 4
	b := &bpe{
		base:    base,
		special: base + n,
		merged:  make(map[uint32]uint16, n),
		whole:   make(map[string]uint16, n+256),
		start:   make([]uint32, 1, base+n+len(special)+1),
		ends:    make([]bool, base+n+len(special)),
	}
	buf := make([]byte, 0, 8*n)
	for id := range base {
		v := byteOrder[id%256]
		b.byteRank[v] = uint16(id % 256)
		b.ends[id] = id >= 256
		buf = append(buf, v)
		b.start = append(b.start, uint32(len(buf)))
	}
	pairs := []byte(merges)
	for k := range n {
		left := binary.LittleEndian.Uint16(pairs[2*k:])
		right := binary.LittleEndian.Uint16(pairs[2*(n+k):])
		b.merged[uint32(left)<<16|uint32(right)] = uint16(base + k)
		buf = append(buf, buf[b.start[left]:b.start[left+1]]...)
		buf = append(buf, buf[b.start[right]:b.start[right+1]]...)
		b.start = append(b.start, uint32(len(buf)))
		b.ends[base+k] = b.ends[right]
	}
	for _, s := range special {
		buf = append(buf, s...)
		b.start = append(b.start, uint32(len(buf)))
	}
	b.bytes = string(buf)
	for id := range b.special {
		// In a vocabulary that marks word ends, only a token that ends a word
		// can be a whole word.
		if b.ends[id] == (base == 512) {
			b.whole[b.token(id)] = uint16(id)
		}
	}
	return b
}

// byteOrder lists the bytes in the order of their tokens. Visible Latin-1
// characters come first, because both vocabularies were published in a text
// format that represents those bytes as themselves.
var byteOrder = func() (order [256]byte) {
	visible := func(b int) bool { return '!' <= b && b <= '~' || 0xA1 <= b && b != 0xAD }
	n := 0
	for _, want := range []bool{true, false} {
		for b := range 256 {
			if visible(b) == want {
				order[n] = byte(b)
				n++
			}
		}
	}
	return order
}()

func (b *bpe) size() int            { return len(b.ends) }
func (b *bpe) token(id int) string  { return b.bytes[b.start[id]:b.start[id+1]] }
func (b *bpe) endsWord(id int) bool { return b.ends[id] }

// appendWord appends the ids of a non-empty word to dst.
func (b *bpe) appendWord(dst []int, word string) []int {
	if id, ok := b.whole[word]; ok {
		return append(dst, int(id))
	}
	if len(word) > shortWord {
		return b.appendLong(dst, word)
	}
	return b.appendShort(dst, word)
}

// firstID returns the token for byte i of word.
func (b *bpe) firstID(word string, i int) uint16 {
	id := b.byteRank[word[i]]
	if b.base == 512 && i == len(word)-1 {
		id += 256
	}
	return id
}

// none means that two tokens do not merge; it is larger than every id.
const none = 0xFFFF

// merge returns the token that two neighbours merge into, or none.
func (b *bpe) merge(left, right uint16) uint16 {
	if id, ok := b.merged[uint32(left)<<16|uint32(right)]; ok {
		return id
	}
	return none
}

// made returns the token that a merge makes.
func (b *bpe) made(id uint16) uint16 {
	if b.same == nil {
		return id
	}
	return b.same[id]
}

// shortWord is the length in bytes up to which scanning all pairs for the best
// one is faster than a heap.
const shortWord = 64

// appendShort merges by repeatedly scanning for the best pair, which takes time
// quadratic in the length.
func (b *bpe) appendShort(dst []int, word string) []int {
	var ids, next [shortWord]uint16 // next[i]: what ids[i] and ids[i+1] merge into
	n := len(word)
	for i := range n {
		ids[i] = b.firstID(word, i)
	}
	for i := range n - 1 {
		next[i] = b.merge(ids[i], ids[i+1])
	}
	for n > 1 {
		best, at := uint16(none), 0
		for i, id := range next[:n-1] {
			if id < best {
				best, at = id, i
			}
		}
		if best == none {
			break
		}
		made := b.made(best)
		ids[at] = made
		copy(ids[at+1:n-1], ids[at+2:n])
		copy(next[at:n-2], next[at+1:n-1])
		n--
		if at > 0 {
			next[at-1] = b.merge(ids[at-1], made)
		}
		if at < n-1 {
			next[at] = b.merge(made, ids[at+1])
		}
	}
	for _, id := range ids[:n] {
		dst = append(dst, int(id))
	}
	return dst
}

// appendLong merges with a heap of possible merges over a linked list of
// tokens. It takes O(n log n) time, so that even a megabyte of one letter, which
// is a single word, is fast.
//
// The order of merges is that of appendShort: smallest id first, then leftmost.
// (The reference merges all occurrences of a pair at once. That is equivalent,
// because a pair that contains a new token has a larger id than that token.)
func (b *bpe) appendLong(dst []int, word string) []int {
	ids := make([]uint16, len(word))
	for i := range ids {
		ids[i] = b.firstID(word, i)
	}
	ids = mergePairs(ids, func(left, right uint16) (rank uint32, made uint16, ok bool) {
		id := b.merge(left, right)
		if id == none {
			return 0, 0, false
		}
		return uint32(id), b.made(id), true
	})
	for _, id := range ids {
		dst = append(dst, int(id))
	}
	return dst
}

// mergePairs merges neighbouring tokens, in place, until no pair is left that merges: the
// pair of the lowest rank first, and of those the leftmost. merge returns the rank of a
// pair and the token that it becomes.
func mergePairs[T uint16 | int32](ids []T, merge func(left, right T) (rank uint32, made T, ok bool)) []T {
	n := len(ids)
	prev, next := make([]int32, n), make([]int32, n)
	for i := range n {
		prev[i], next[i] = int32(i-1), int32(i+1)
	}
	pairAt := func(i int32) (rank uint32, made T, ok bool) {
		if j := next[i]; int(j) < n {
			return merge(ids[i], ids[j])
		}
		return 0, 0, false
	}
	// An entry consists of the rank and the position of the left token. It is stale if
	// the tokens at that position no longer merge at that rank.
	var heap minHeap
	push := func(i int32) {
		if rank, _, ok := pairAt(i); ok {
			heap.push(uint64(rank)<<32 | uint64(i))
		}
	}
	for i := range n - 1 {
		push(int32(i))
	}
	for len(heap) > 0 {
		top := heap.pop()
		i := int32(uint32(top))
		if next[i] < 0 {
			continue
		}
		rank, made, ok := pairAt(i)
		if !ok || uint64(rank) != top>>32 {
			continue
		}
		gone := next[i]
		ids[i], next[i] = made, next[gone]
		next[gone] = -1
		if int(next[i]) < n {
			prev[next[i]] = i
		}
		push(i)
		if prev[i] >= 0 {
			push(prev[i])
		}
	}
	left := ids[:0]
	for i := int32(0); int(i) < n; i = next[i] {
		left = append(left, ids[i])
	}
	return left
}

// minHeap is a binary heap with the smallest value at the top.
type minHeap []uint64

func (h *minHeap) push(v uint64) {
	*h = append(*h, v)
	s := *h
	for i := len(s) - 1; i > 0; {
		up := (i - 1) / 2
		if s[up] <= s[i] {
			break
		}
		s[up], s[i] = s[i], s[up]
		i = up
	}
}

func (h *minHeap) pop() uint64 {
	s := *h
	top, last := s[0], len(s)-1
	s[0] = s[last]
	s = s[:last]
	for i := 0; ; {
		down := 2*i + 1
		if down >= len(s) {
			break
		}
		if down+1 < len(s) && s[down+1] < s[down] {
			down++
		}
		if s[i] <= s[down] {
			break
		}
		s[i], s[down] = s[down], s[i]
		i = down
	}
	*h = s
	return top
}

// newIDs allocates room for the ids of text: English has about one token per
// four bytes.
func newIDs(text string) []int { return slices.Grow([]int{}, len(text)/4+1) }
