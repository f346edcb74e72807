package tokenizer

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// more is what a GPT2Tokenizer that was loaded from files has in addition to merges:
// ids in any order, added tokens, and a space before each text.
type more struct {
	ids         []int32 // number of a token in bpe -> its id
	tokens      []string
	known       []bool     // whether an id is in the vocabulary
	raw, second addedTexts // found in the text as it is; found in what is between these
	prefixSpace bool
	end         int // id of <|endoftext|>, or -1
}

// set sets the text of an id.
func (m *more) set(id int, text string) {
	for len(m.tokens) <= id {
		m.tokens, m.known = append(m.tokens, ""), append(m.known, false)
	}
	m.tokens[id], m.known[id] = text, true
}

// add adds tokens.
func (m *more) add(added map[string]addedToken) error {
	if len(added) > maxAdded {
		return fmt.Errorf("%d added tokens; at most %d are supported", len(added), maxAdded)
	}
	for content, a := range added {
		switch {
		case a.ID < 0 || a.ID >= maxID:
			return fmt.Errorf("the added token %.40q has id %d: must be between 0 and %d", content, a.ID, maxID-1)
		case len(content) > maxAddedLen:
			return fmt.Errorf("the added token %.40q… has %d bytes; at most %d are supported", content, len(content), maxAddedLen)
		case a.SingleWord:
			return fmt.Errorf("the added token %.40q has single_word set, which is not supported", content)
		}
		// As in Python's tokenizers, whose decoder does not tell added tokens apart.
		text, _ := tokenBytes(content)
		if m.Known(a.ID) && m.tokens[a.ID] != text {
			return fmt.Errorf("the added token %.40q has the id %d of another token, %.40q", content, a.ID, m.tokens[a.ID])
		}
		m.set(a.ID, text)
		if content == gpt2End {
			m.end = a.ID
		}
		if a.Normalized {
			m.second.add(content, a)
		} else {
			m.raw.add(content, a)
		}
	}
	return nil
}

// Known reports whether an id is in the vocabulary.
func (m *more) Known(id int) bool { return id >= 0 && id < len(m.known) && m.known[id] }

// addedTexts finds added tokens in a text.
type addedTexts struct {
	of      map[string]addedToken
	lengths []int // of the tokens, in bytes, descending
	first   [256]bool
}

func (s *addedTexts) add(content string, a addedToken) {
	if s.of == nil {
		s.of = map[string]addedToken{}
	}
	s.of[content] = a
	s.first[content[0]] = true
	if i, ok := slices.BinarySearchFunc(s.lengths, len(content), func(a, b int) int { return b - a }); !ok {
		s.lengths = slices.Insert(s.lengths, i, len(content))
	}
}

// next returns the leftmost token in text, the longest of those that start there, with
// the white space that belongs to it.
func (s *addedTexts) next(text string) (start, end int, a addedToken, ok bool) {
	if s.of == nil {
		return 0, 0, a, false
	}
	for i := range len(text) {
		if !s.first[text[i]] {
			continue
		}
		for _, n := range s.lengths {
			if i+n > len(text) {
				continue
			}
			if a, ok = s.of[text[i:i+n]]; !ok {
				continue
			}
			start, end = i, i+n
			for a.LStrip && start > 0 {
				r, size := utf8.DecodeLastRuneInString(text[:start])
				if classOf(r) != space {
					break
				}
				start -= size
			}
			if a.RStrip {
				end = endOfClass(text, end, space)
			}
			return start, end, a, true
		}
	}
	return 0, 0, a, false
}

// split calls plain for the parts of a text between added tokens, and token for these.
func (s *addedTexts) split(text string, plain func(string), token func(id int)) {
	for {
		start, end, a, ok := s.next(text)
		if !ok {
			plain(text)
			return
		}
		plain(text[:start])
		token(a.ID)
		text = text[end:]
	}
}

// encodeSpecial is EncodeSpecial, for valid UTF-8.
func (t *GPT2Tokenizer) encodeSpecial(text string) []int {
	ids := newIDs(text)
	token := func(id int) { ids = append(ids, id) }
	plain := func(part string) { ids = t.appendPlain(ids, part) }
	t.more.raw.split(text, func(part string) { t.more.second.split(part, plain, token) }, token)
	return ids
}

// appendPlain appends the ids of a text without added tokens.
func (t *GPT2Tokenizer) appendPlain(ids []int, text string) []int {
	if t.more == nil {
		return t.appendText(ids, text)
	}
	if t.more.prefixSpace && text != "" && !strings.HasPrefix(text, " ") {
		text = " " + text
	}
	from := len(ids)
	ids = t.appendText(ids, text)
	for i, id := range ids[from:] {
		ids[from+i] = int(t.more.ids[id])
	}
	return ids
}

// Known reports whether an id is in the vocabulary. All ids below VocabSize are, unless
// the tokenizer was loaded from files that leave some out.
func (t *GPT2Tokenizer) Known(id int) bool {
	if t.more == nil {
		return id >= 0 && id < t.bpe.size()
	}
	return t.more.Known(id)
}

// ID returns the id of the token that text is encoded as when it is a word of its own,
// such as ".". It reports false if there is no such token.
func (t *GPT2Tokenizer) ID(text string) (int, bool) {
	id, ok := t.bpe.whole[text]
	if !ok || t.more == nil {
		return int(id), ok
	}
	return int(t.more.ids[id]), true
}

// Limited returns the tokenizer without the added tokens whose ids are size or more,
// for a model that has no such ids, and the number of tokens left out. If the
// vocabulary itself has such ids, it belongs to another model, and Limited fails.
func (t *GPT2Tokenizer) Limited(size int) (*GPT2Tokenizer, int, error) {
	if t.VocabSize() <= size {
		return t, 0, nil
	}
	if t.more == nil {
		limited, err := gpt2First(size)
		return limited, 0, err
	}
	if last := slices.Max(t.more.ids); int(last) >= size {
		return nil, 0, fmt.Errorf("the vocabulary has ids up to %d, but the model only %d tokens: they do not belong together", last, size)
	}
	m := &more{ids: t.more.ids, prefixSpace: t.more.prefixSpace, end: -1}
	out := 0
	for id, text := range t.more.tokens {
		switch {
		case !t.more.known[id]:
		case id < size:
			m.set(id, text)
		default:
			out++
		}
	}
	for _, list := range []struct{ from, to *addedTexts }{{&t.more.raw, &m.raw}, {&t.more.second, &m.second}} {
		for content, a := range list.from.of {
			if a.ID < size {
				list.to.add(content, a)
			}
		}
	}
	if t.more.end < size {
		m.end = t.more.end
	}
	return &GPT2Tokenizer{bpe: t.bpe, more: m}, out, nil
}

// Fingerprint identifies the vocabulary: tokenizers with equal fingerprints have the
// same tokens with the same ids.
func (t *GPT2Tokenizer) Fingerprint() string {
	h := sha256.New()
	for id := range t.VocabSize() {
		if t.Known(id) {
			text := t.token(id)
			h.Write(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, uint64(id)), uint64(len(text))))
			h.Write([]byte(text))
		}
	}
	if t.more != nil && t.more.prefixSpace {
		h.Write([]byte{1})
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func (t *GPT2Tokenizer) token(id int) string {
	if t.more == nil {
		return t.bpe.token(id)
	}
	return t.more.tokens[id]
}
