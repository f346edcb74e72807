package tokenizer

import (
	_ "embed"
	"fmt"
	"sync"
)

// Tokenizer is the interface that both tokenizers implement. Its methods are
// safe for concurrent use by multiple goroutines.
type Tokenizer interface {
	// Encode returns the token ids of text as the model's usual Python code does
	// (OpenAI's CLIP, transformers' GPT-2), without start and end tokens. It is
	// EncodeSpecial.
	Encode(text string) []int
	// EncodeSpecial is like Encode but treats a special token spelled out in
	// the text as that token.
	EncodeSpecial(text string) []int
	// EncodePlain is like Encode but treats a special token spelled out in the
	// text as plain text. Use it for text from strangers.
	EncodePlain(text string) []int
	// Decode returns the text of token ids. Invalid UTF-8, such as half of a
	// character, becomes U+FFFD as in Python with errors="replace". An id
	// outside the vocabulary is an error that gives the id and its position.
	Decode(ids []int) (string, error)
	// VocabSize returns the number of token ids, which are 0 to VocabSize()-1.
	VocabSize() int
}

var (
	_ Tokenizer = (*CLIPTokenizer)(nil)
	_ Tokenizer = (*GPT2Tokenizer)(nil)
)

// The merges, in the format of vocab/make_vocab.py.
var (
	//go:embed vocab/clip.merges
	clipMerges string
	//go:embed vocab/gpt2.merges
	gpt2Merges string
)

// CLIP returns the tokenizer of CLIP's text encoder, which is the same for all
// model sizes. It is created on the first call and then shared.
func CLIP() *CLIPTokenizer { return clipOnce() }

// GPT2 returns the tokenizer of GPT-2, which is the same for all model sizes;
// tiktoken calls it r50k_base. It is created on the first call and then shared.
func GPT2() *GPT2Tokenizer { return gpt2Once() }

var (
	clipOnce = sync.OnceValue(func() *CLIPTokenizer {
		return &CLIPTokenizer{newBPE(clipMerges, 512, []string{clipStart, clipEnd})}
	})
	gpt2Once = sync.OnceValue(func() *GPT2Tokenizer {
		return &GPT2Tokenizer{bpe: newBPE(gpt2Merges, 256, []string{gpt2End})}
	})
)

// appendTokens appends the bytes of the tokens to dst.
func (b *bpe) appendTokens(dst []byte, ids []int) ([]byte, error) {
	for i, id := range ids {
		if id < 0 || id >= b.size() {
			return nil, fmt.Errorf("tokenizer: cannot decode token %d of %d: id %d is outside the vocabulary (must be between 0 and %d)", i, len(ids), id, b.size()-1)
		}
		dst = append(dst, b.token(id)...)
		if b.endsWord(id) {
			dst = append(dst, wordEnd...)
		}
	}
	return dst, nil
}
