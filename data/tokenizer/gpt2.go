package tokenizer

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// gpt2End is GPT-2's only special token, id 50256.
const gpt2End = "<|endoftext|>"

// A GPT2Tokenizer is GPT-2's tokenizer, or another byte-level BPE that splits text
// as it does; see [GPT2] and [Load]. GPT-2's follows OpenAI's encoder.py with the
// published encoder.json and vocab.bpe: 50,257 tokens, of which the last, 50256, is
// <|endoftext|>.
type GPT2Tokenizer struct {
	bpe  *bpe
	more *more // nil for GPT2, GPT2For and gpt2First
}

// gpt2First returns a tokenizer with only the first vocab tokens of GPT-2's
// vocabulary, which must include the 256 single bytes. Ids and merging are the
// same, but there are fewer merges, so words are split into more pieces. There is
// no special token, and EndID is not a valid id.
func gpt2First(vocab int) (*GPT2Tokenizer, error) {
	total := len(gpt2Merges) / 4
	n := vocab - 256
	switch {
	case n < 0 || n > total+1:
		return nil, fmt.Errorf("tokenizer: the vocabulary size must be between 256 and %d, got %d", 256+total+1, vocab)
	case n == total+1:
		return GPT2(), nil
	}
	merges := gpt2Merges[:2*n] + gpt2Merges[2*total:2*(total+n)]
	return &GPT2Tokenizer{bpe: newBPE(merges, 256, nil)}, nil
}

// VocabSize returns the largest id plus 1: 50257 for GPT-2's own tokenizer.
func (t *GPT2Tokenizer) VocabSize() int {
	if t.more != nil {
		return len(t.more.tokens)
	}
	return t.bpe.size()
}

// EndID returns the id of <|endoftext|>. It is -1 for a tokenizer from files that has
// no such token, and not a valid id for GPT2For.
func (t *GPT2Tokenizer) EndID() int {
	if t.more != nil {
		return t.more.end
	}
	return t.bpe.special
}

// Encode returns the ids of text like transformers: it recognises special and added
// tokens, as EncodeSpecial does. Use EncodePlain for text from strangers.
func (t *GPT2Tokenizer) Encode(text string) []int { return t.EncodeSpecial(text) }

// EncodePlain returns the ids of text. It encodes <|endoftext|> as seven
// ordinary tokens, as OpenAI's encoder does.
func (t *GPT2Tokenizer) EncodePlain(text string) []int {
	text = validText(text)
	return t.appendPlain(newIDs(text), text)
}

// EncodeSpecial returns the ids of text. It encodes each <|endoftext|> as token
// 50256 and the text before and after it separately, as Hugging Face does.
func (t *GPT2Tokenizer) EncodeSpecial(text string) []int {
	if t.more != nil {
		return t.encodeSpecial(validText(text))
	}
	if t.EndID() == t.VocabSize() {
		return t.EncodePlain(text) // from GPT2For or gpt2First
	}
	text = validText(text)
	ids := newIDs(text)
	for {
		before, after, found := strings.Cut(text, gpt2End)
		ids = t.appendText(ids, before)
		if !found {
			return ids
		}
		ids = append(ids, t.EndID())
		text = after
	}
}

// Decode returns the text of ids; see [Tokenizer].
func (t *GPT2Tokenizer) Decode(ids []int) (string, error) {
	if t.more == nil {
		b, err := t.bpe.appendTokens(make([]byte, 0, 6*len(ids)), ids)
		return decodeUTF8(b), err
	}
	var b []byte
	for i, id := range ids {
		if !t.Known(id) {
			return "", fmt.Errorf("tokenizer: cannot decode token %d of %d: id %d is not in the vocabulary", i, len(ids), id)
		}
		b = append(b, t.more.tokens[id]...)
	}
	return decodeUTF8(b), nil
}

func (t *GPT2Tokenizer) appendText(ids []int, text string) []int {
	for i := 0; i < len(text); {
		end := gpt2Word(text, i)
		ids = t.bpe.appendWord(ids, text[i:end])
		i = end
	}
	return ids
}

// gpt2Word returns the end of the word of s that starts at i < len(s). It
// implements GPT-2's splitting pattern by hand, one alternative at a time:
//
//	's|'t|'re|'ve|'m|'ll|'d | ?\p{L}+ | ?\p{N}+ | ?[^\s\p{L}\p{N}]+ | \s+(?!\S) | \s+
func gpt2Word(s string, i int) int {
	r, size := utf8.DecodeRuneInString(s[i:])
	if r == '\'' {
		if n := contraction(s[i+1:]); n > 0 {
			return i + 1 + n
		}
	}
	j, c := i+size, classOf(r)
	if r == ' ' && j < len(s) {
		r, size := utf8.DecodeRuneInString(s[j:])
		if next := classOf(r); next != space {
			j, c = j+size, next
		}
	}
	end := endOfClass(s, j, c)
	if c != space || end == len(s) {
		return end
	}
	// The last white-space character before a word is left over: a space
	// joins the word, anything else becomes a word of its own.
	if _, last := utf8.DecodeLastRuneInString(s[i:end]); end-last > i {
		return end - last
	}
	return end
}

// contraction returns the length of the ending of an English contraction (the "s"
// of "it's") that s starts with, or 0.
func contraction(s string) int {
	if s == "" {
		return 0
	}
	switch s[0] {
	case 's', 't', 'm', 'd':
		return 1
	case 'r', 'v':
		if strings.HasPrefix(s[1:], "e") {
			return 2
		}
	case 'l':
		if strings.HasPrefix(s[1:], "l") {
			return 2
		}
	}
	return 0
}

// endOfClass returns the end of the run of characters of class c that continues
// at s[i:].
func endOfClass(s string, i int, c class) int {
	for i < len(s) {
		if b := s[i]; b < utf8.RuneSelf {
			if asciiClass[b] != c {
				return i
			}
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if classOf(r) != c {
			return i
		}
		i += size
	}
	return i
}
