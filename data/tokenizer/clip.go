package tokenizer

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"cyclecap/data/tokenizer/internal/fixtext"
)

// The special tokens of CLIP, with ids 49406 and 49407.
const (
	clipStart = "<|startoftext|>"
	clipEnd   = "<|endoftext|>"
)

// ContextLength is the number of ids in an input of CLIP's text encoder.
const ContextLength = 77

// A CLIPTokenizer is the tokenizer of CLIP's text encoder; see [CLIP]. It
// follows OpenAI's simple_tokenizer.py with the published
// bpe_simple_vocab_16e6.txt.gz: 49,408 tokens, of which the last two are
// <|startoftext|> and <|endoftext|>.
type CLIPTokenizer struct{ bpe *bpe }

// CLIPFirst returns a tokenizer with only vocab tokens: the first ones of CLIP's
// vocabulary, which must include the 512 single bytes, and the two special tokens, which
// keep the largest ids. There are fewer merges, so words are split into more pieces. It
// is for small models trained from scratch, most of whose weights would be embeddings of
// words that they never see.
func CLIPFirst(vocab int) (*CLIPTokenizer, error) {
	total := len(clipMerges) / 4
	n := vocab - 512 - 2
	switch {
	case n < 0 || n > total:
		return nil, fmt.Errorf("tokenizer: the vocabulary size must be between 514 and %d, got %d", 514+total, vocab)
	case n == total:
		return CLIP(), nil
	}
	merges := clipMerges[:2*n] + clipMerges[2*total:2*(total+n)]
	return &CLIPTokenizer{newBPE(merges, 512, []string{clipStart, clipEnd})}, nil
}

// VocabSize returns the number of tokens: 49408, or as many as CLIPFirst was given.
func (t *CLIPTokenizer) VocabSize() int { return t.bpe.size() }

// StartID returns the id of <|startoftext|>.
func (t *CLIPTokenizer) StartID() int { return t.bpe.special }

// EndID returns the id of <|endoftext|>. CLIP takes the text feature at the
// first position of the largest id, which is this one.
func (t *CLIPTokenizer) EndID() int { return t.bpe.special + 1 }

// Clean returns text in the form in which it is encoded: fixed by the rules of
// the Python package ftfy 6.3.1, with HTML entities unescaped twice, white space
// collapsed to single spaces and trimmed, and in lower case.
func (t *CLIPTokenizer) Clean(text string) string {
	text = fixtext.Fix(validText(text))
	text = fixtext.UnescapeHTML(fixtext.UnescapeHTML(text))
	return fixtext.Lower(strings.TrimSpace(collapseSpace(fixtext.Strip(text))))
}

// Encode returns the ids of text. It recognises special tokens, as
// EncodeSpecial does.
func (t *CLIPTokenizer) Encode(text string) []int { return t.EncodeSpecial(text) }

// EncodeSpecial returns the ids of text after [CLIPTokenizer.Clean], without
// start and end tokens. A <|startoftext|> or <|endoftext|> at the start of a
// word becomes that token, as in OpenAI's and Hugging Face's code.
func (t *CLIPTokenizer) EncodeSpecial(text string) []int { return t.encode(text, true) }

// EncodePlain is like EncodeSpecial but treats <|startoftext|> and
// <|endoftext|> as ordinary text.
func (t *CLIPTokenizer) EncodePlain(text string) []int { return t.encode(text, false) }

// Same reports whether a vocabulary, as in the vocab.json of Hugging Face's
// tokenizers, is the one of this tokenizer.
func (t *CLIPTokenizer) Same(vocab map[string]int) bool {
	for id, name := range t.names() {
		if got, ok := vocab[name]; !ok || got != id {
			return false
		}
	}
	return len(vocab) == t.VocabSize()
}

// names returns the names of the tokens in the published vocabularies.
func (t *CLIPTokenizer) names() []string {
	names := make([]string, t.VocabSize())
	for id := range names {
		names[id] = t.bpe.token(id)
		if id < t.bpe.special {
			names[id] = spelled(names[id])
		}
		if t.bpe.endsWord(id) {
			names[id] += wordEnd
		}
	}
	return names
}

// Context returns the input of CLIP's text encoder like OpenAI's clip.tokenize:
// length ids (77 for every published model: [ContextLength]), which are the
// start token, the ids that Encode returns for text, the end token, and zeros.
//
// If text has more than length-2 ids, Context returns an error that gives their
// number, unless truncate is true: then it cuts the text, and the last id is the
// end token.
func (t *CLIPTokenizer) Context(text string, length int, truncate bool) ([]int, error) {
	if length < 2 {
		return nil, fmt.Errorf("tokenizer: a context of %d tokens has no room for the start and end tokens: use at least 2 (CLIP uses %d)", length, ContextLength)
	}
	ids := t.Encode(text)
	if len(ids) > length-2 {
		if !truncate {
			return nil, fmt.Errorf("tokenizer: the text has %d tokens, %d with start and end, but the context has only %d: shorten the text or set truncate: %.60q",
				len(ids), len(ids)+2, length, text)
		}
		ids = ids[:length-2]
	}
	context := make([]int, length)
	context[0] = t.StartID()
	n := 1 + copy(context[1:], ids)
	context[n] = t.EndID()
	return context, nil
}

// Room returns how many of length ids, as Context returns them, the text can have.
func (t *CLIPTokenizer) Room(length int) int { return length - 2 }

// Decode returns the text of ids; see [Tokenizer]. A space follows every token
// that ends a word, so the text differs from the encoded text in its spaces, and
// in its case and everything else that Clean changed.
func (t *CLIPTokenizer) Decode(ids []int) (string, error) {
	b, err := t.bpe.appendTokens(make([]byte, 0, 8*len(ids)), ids)
	// Only now, like the reference: a text that spells out </w> loses it.
	return strings.ReplaceAll(decodeUTF8(b), wordEnd, " "), err
}

func (t *CLIPTokenizer) encode(text string, special bool) []int {
	// U+0345, a Greek mark whose capital is the letter iota, matches no part of
	// a case-insensitive pattern, neither as a letter nor as anything else, so it
	// separates words like a space.
	text = strings.ReplaceAll(t.Clean(text), "\u0345", " ")
	ids := newIDs(text)
	for i := 0; i < len(text); {
		if text[i] == ' ' {
			i++
			continue
		}
		end, id := t.word(text, i, special)
		if id > 0 {
			ids = append(ids, id)
		} else {
			ids = t.bpe.appendWord(ids, text[i:end])
		}
		i = end
	}
	return ids
}

// word returns the end of the word of s that starts at i, and its id if it is a
// special token. It implements CLIP's splitting pattern by hand:
//
//	<\|startoftext\|> | <\|endoftext\|> | 's|'t|'re|'ve|'m|'ll|'d | \p{L}+ | \p{N} | [^\s\p{L}\p{N}]+
//
// The pattern ignores case. In lower-case text, that still matters for one
// letter, the long s: it matches the pattern's s, but no special token is
// spelled with it, so such a word is plain text.
func (t *CLIPTokenizer) word(s string, i int, special bool) (end, id int) {
	const longS = "ſ"
	switch rest := s[i:]; {
	case special && strings.HasPrefix(rest, clipStart):
		return i + len(clipStart), t.StartID()
	case special && strings.HasPrefix(rest, clipEnd):
		return i + len(clipEnd), t.EndID()
	case special && strings.HasPrefix(rest, "<|"+longS+clipStart[3:]):
		return i + len(clipStart) + 1, 0
	case rest[0] == '\'' && strings.HasPrefix(rest[1:], longS):
		return i + 1 + len(longS), 0
	case rest[0] == '\'':
		if n := contraction(rest[1:]); n > 0 {
			return i + 1 + n, 0
		}
	}
	r, size := utf8.DecodeRuneInString(s[i:])
	c := classOf(r)
	if c == number {
		return i + size, 0
	}
	return endOfClass(s, i+size, c), 0
}

// collapseSpace replaces every run of white space with a single space.
func collapseSpace(s string) string {
	plain := true // no white space other than single spaces
	for i := 0; i < len(s) && plain; i++ {
		c := s[i]
		plain = c > ' ' && c < utf8.RuneSelf || c == ' ' && !(i+1 < len(s) && s[i+1] == ' ')
	}
	if plain {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	inSpace := false
	for _, r := range s {
		if classOf(r) == space {
			if !inSpace {
				b.WriteByte(' ')
			}
			inSpace = true
			continue
		}
		inSpace = false
		b.WriteRune(r)
	}
	return b.String()
}
