package tokenizer

import (
	"encoding/binary"
	"fmt"
	"iter"
	"strings"
)

// GPT2For returns GPT-2's tokenizer with only the merges that texts need. It splits
// these texts into the same tokens as GPT-2's, and others into more. The ids are those
// of GPT-2's rule: the 256 single bytes, then the merges in their order. There is no
// special token, and EndID is not a valid id. It is for small models trained from
// scratch, whose cost depends on the size of the vocabulary.
func GPT2For(texts iter.Seq[string]) *GPT2Tokenizer {
	all := GPT2().bpe
	need := make([]bool, all.special)
	seen := map[string]bool{}
	var ids []int
	for text := range texts {
		text = validText(text)
		for i := 0; i < len(text); {
			end := gpt2Word(text, i)
			if word := text[i:end]; !seen[word] {
				seen[word] = true
				ids = all.appendWord(ids[:0], word)
				for _, id := range ids {
					need[id] = true
				}
			}
			i = end
		}
	}
	total := len(gpt2Merges) / 4
	halves := []byte(gpt2Merges)
	pair := func(id int) (left, right uint16) {
		k := id - all.base
		return binary.LittleEndian.Uint16(halves[2*k:]), binary.LittleEndian.Uint16(halves[2*(total+k):])
	}
	// The two tokens that a merge joins have smaller ids than the one that it makes.
	for id := all.special - 1; id >= all.base; id-- {
		if need[id] {
			left, right := pair(id)
			need[left], need[right] = true, true
		}
	}
	number := make([]uint16, all.special) // id in GPT-2's vocabulary -> id in the new one
	for id := range all.base {
		number[id] = uint16(id)
	}
	var pairs [][2]uint16
	for id := all.base; id < all.special; id++ {
		if need[id] {
			number[id] = uint16(all.base + len(pairs))
			left, right := pair(id)
			pairs = append(pairs, [2]uint16{number[left], number[right]})
		}
	}
	return ofPairs(pairs)
}

// ofPairs returns a tokenizer without a special token that merges these pairs of ids.
func ofPairs(pairs [][2]uint16) *GPT2Tokenizer {
	merges := make([]byte, 4*len(pairs)) // in the format of vocab/make_vocab.py
	for k, p := range pairs {
		binary.LittleEndian.PutUint16(merges[2*k:], p[0])
		binary.LittleEndian.PutUint16(merges[2*(len(pairs)+k):], p[1])
	}
	return &GPT2Tokenizer{bpe: newBPE(string(merges), 256, nil)}
}

// Merges returns the merges of a tokenizer with a part of GPT-2's, such as one from
// [GPT2For], in the format of merges.txt. It returns "" for GPT-2's own and those from files.
func (t *GPT2Tokenizer) Merges() string {
	if t.more != nil || t.EndID() < t.VocabSize() {
		return ""
	}
	lines := make([]string, t.bpe.special-t.bpe.base)
	for pair, id := range t.bpe.merged {
		lines[int(id)-t.bpe.base] = spelled(t.bpe.token(int(pair>>16))) + " " + spelled(t.bpe.token(int(pair&0xFFFF))) + "\n"
	}
	return strings.Join(lines, "")
}

// FromMerges returns the tokenizer with the merges in text, in the format of merges.txt.
// The ids are the same as those of GPT2For.
func FromMerges(text string) (*GPT2Tokenizer, error) {
	merges, err := parseMerges([]byte(text))
	if err != nil {
		return nil, err
	}
	if len(merges) > maxMerges {
		return nil, fmt.Errorf("there are %d merges; at most %d are supported", len(merges), maxMerges)
	}
	ids := make(map[string]uint16, 256+len(merges))
	for id, b := range byteOrder {
		ids[string(letterOf[b])] = uint16(id)
	}
	var pairs [][2]uint16
	for k, pair := range merges {
		left, ok := ids[pair[0]]
		right, ok2 := ids[pair[1]]
		made := pair[0] + pair[1]
		if _, twice := ids[made]; !ok || !ok2 || twice || len(made) > maxToken {
			return nil, fmt.Errorf("merge %d, %.40q and %.40q, does not make a new token of at most %d bytes from two known ones", k, pair[0], pair[1], maxToken)
		}
		ids[made] = uint16(256 + k)
		pairs = append(pairs, [2]uint16{left, right})
	}
	return ofPairs(pairs), nil
}
