package tokenizer

import (
	_ "embed"
	"fmt"
	"sync"
)

// Tokenizer is what the two tokenizers have in common. Its methods may be
// called from several goroutines at once.
type Tokenizer interface {
	// Encode gives the token ids of text as OpenAI's own code for the model
	// does, without start and end tokens.
	Encode(text string) []int
	// EncodeSpecial is Encode that reads a special token spelt out in the text
	// as that token.
	EncodeSpecial(text string) []int
	// EncodePlain is Encode that reads a special token spelt out in the text
	// as ordinary letters.
	EncodePlain(text string) []int
	// Decode gives the text of token ids. Bytes that are not UTF-8, as when a
	// character is cut in two, become U+FFFD as in Python with
	// errors="replace". An id outside the vocabulary is an error that says
	// which and where.
	Decode(ids []int) (string, error)
	// VocabSize is the number of token ids, which are 0 to VocabSize()-1.
	VocabSize() int
}

var (
	_ Tokenizer = (*CLIPTokenizer)(nil)
	_ Tokenizer = (*GPT2Tokenizer)(nil)
)

// The merges, as vocab/make_vocab.py writes them.
var (
	//go:embed vocab/clip.merges
	clipMerges string
	//go:embed vocab/gpt2.merges
	gpt2Merges string
)

// CLIP returns the tokenizer of CLIP's text encoder (all sizes of it). It is
// made at the first call and shared after that.
func CLIP() *CLIPTokenizer { return clipOnce() }

// GPT2 returns the tokenizer of GPT-2 (all sizes of it), which tiktoken calls
// r50k_base. It is made at the first call and shared after that.
func GPT2() *GPT2Tokenizer { return gpt2Once() }

var (
	clipOnce = sync.OnceValue(func() *CLIPTokenizer {
		return &CLIPTokenizer{newBPE(clipMerges, 512, []string{clipStart, clipEnd})}
	})
	gpt2Once = sync.OnceValue(func() *GPT2Tokenizer {
		return &GPT2Tokenizer{newBPE(gpt2Merges, 256, []string{gpt2End})}
	})
)

// appendTokens appends the bytes of the tokens ids to dst.
func (b *bpe) appendTokens(dst []byte, ids []int) ([]byte, error) {
	for i, id := range ids {
		if id < 0 || id >= b.size() {
			return nil, fmt.Errorf("tokenizer: cannot decode token %d of %d: id %d is outside the vocabulary (ids are 0 to %d)", i, len(ids), id, b.size()-1)
		}
		dst = append(dst, b.token(id)...)
		if b.endsWord(id) {
			dst = append(dst, wordEnd...)
		}
	}
	return dst, nil
}
