package tokenizer

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"cyclecap/data/tokenizer/internal/fixtext"
)

// The special tokens of CLIP: ids 49406 and 49407.
const (
	clipStart = "<|startoftext|>"
	clipEnd   = "<|endoftext|>"
)

// ContextLength is the number of ids that CLIP's text encoder takes.
const ContextLength = 77

// A CLIPTokenizer is the tokenizer of CLIP's text encoder; see [CLIP]. Its
// source is OpenAI's simple_tokenizer.py with the published
// bpe_simple_vocab_16e6.txt.gz: 49,408 tokens, the last two of which are
// <|startoftext|> and <|endoftext|>.
type CLIPTokenizer struct{ bpe *bpe }

// VocabSize is 49408.
func (t *CLIPTokenizer) VocabSize() int { return t.bpe.size() }

// StartID is the id of <|startoftext|>.
func (t *CLIPTokenizer) StartID() int { return t.bpe.special }

// EndID is the id of <|endoftext|>. CLIP takes its text feature at the first
// place of the largest id, which is this one.
func (t *CLIPTokenizer) EndID() int { return t.bpe.special + 1 }

// Clean gives text as it is encoded: mended by the rules of the Python package
// ftfy 6.3.1, HTML entities undone twice, white space collapsed to single
// blanks and trimmed, in lower case.
func (t *CLIPTokenizer) Clean(text string) string {
	text = fixtext.Fix(validText(text))
	text = fixtext.UnescapeHTML(fixtext.UnescapeHTML(text))
	return fixtext.Lower(strings.TrimSpace(collapseSpace(fixtext.Strip(text))))
}

// Encode gives the ids of text; special tokens are read as such: see
// EncodeSpecial.
func (t *CLIPTokenizer) Encode(text string) []int { return t.EncodeSpecial(text) }

// EncodeSpecial gives the ids of text after [CLIPTokenizer.Clean], without
// start and end tokens. A <|startoftext|> or <|endoftext|> that begins a word
// is that token, as in OpenAI's code and Hugging Face's.
func (t *CLIPTokenizer) EncodeSpecial(text string) []int { return t.encode(text, true) }

// EncodePlain is EncodeSpecial that takes <|startoftext|> and <|endoftext|> for
// ordinary text.
func (t *CLIPTokenizer) EncodePlain(text string) []int { return t.encode(text, false) }

// Context gives the input of CLIP's text encoder as OpenAI's clip.tokenize
// does: length ids (77 for every published model: [ContextLength]), which are
// the start token, the ids of text as by Encode, the end token, and zeros.
//
// A text with more than length-2 ids is an error that says how many it has,
// unless truncate is true: then it is cut, and the last id is the end token.
func (t *CLIPTokenizer) Context(text string, length int, truncate bool) ([]int, error) {
	if length < 2 {
		return nil, fmt.Errorf("tokenizer: a context of %d tokens has no room for the start and end tokens: ask for at least 2 (CLIP takes %d)", length, ContextLength)
	}
	ids := t.Encode(text)
	if len(ids) > length-2 {
		if !truncate {
			return nil, fmt.Errorf("tokenizer: the text has %d tokens, %d with start and end, and the context is %d: shorten it or ask for truncation (truncate): %.60q",
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

// Decode gives the text of ids; see [Tokenizer]. A space follows every token
// that ends a word, so the text differs from the one that was encoded in its
// spaces, and in case and all else that was cleaned.
func (t *CLIPTokenizer) Decode(ids []int) (string, error) {
	b, err := t.bpe.appendTokens(make([]byte, 0, 8*len(ids)), ids)
	// Only now, as the reference does: a text that spells out </w> loses it.
	return strings.ReplaceAll(decodeUTF8(b), wordEnd, " "), err
}

func (t *CLIPTokenizer) encode(text string, special bool) []int {
	// U+0345, a Greek mark whose capital is the letter iota, is neither a letter
	// nor anything else to a pattern that ignores case: it parts words as a
	// blank does.
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

// word gives the end of the word of s that starts at i, and its id if it is a
// special token. It is the splitting pattern of CLIP by hand:
//
//	<\|startoftext\|> | <\|endoftext\|> | 's|'t|'re|'ve|'m|'ll|'d | \p{L}+ | \p{N} | [^\s\p{L}\p{N}]+
//
// The pattern ignores case. In text that is in lower case that still matters
// for one letter, the long s: the pattern's s matches it, but no special token
// is spelt with it, so that such a word is plain text.
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

// collapseSpace makes one blank of every run of white space.
func collapseSpace(s string) string {
	plain := true // no white space but single blanks
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
