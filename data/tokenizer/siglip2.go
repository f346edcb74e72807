package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// A SigLIP2Tokenizer is the tokenizer of SigLIP 2, with the results of transformers'
// Siglip2Tokenizer: text in lower case, encoded by Gemma's byte-pair vocabulary.
//
// Published files of SigLIP 2 name the class GemmaTokenizer, which keeps the case of a text.
// The models were trained with lower case.
type SigLIP2Tokenizer struct {
	vocab    map[string]int32
	merges   map[[2]int32]merged
	bytes    [256]int32    // ids of the tokens <0x00> to <0xFF>, or -1
	unk      int32         // or -1
	fuse     bool          // unknown characters in a row are one token
	raw      specialTokens // looked for in the text
	normal   specialTokens // looked for in the normalised text
	start    []int         // ids before and after every text
	end      []int
	pad      int
	size     int
	padsLeft bool
	// endIsMissing says that add_eos_token is true, but post_processor does not add it.
	endIsMissing bool
}

type merged struct {
	rank int32
	id   int32
}

// NewSigLIP2 returns the tokenizer of a tokenizer.json. Memory is in proportion to the size of
// the file.
func NewSigLIP2(data []byte, c SigLIPConfig) (*SigLIP2Tokenizer, error) {
	var file struct {
		Added  []addedOne      `json:"added_tokens"`
		Normal json.RawMessage `json:"normalizer"`
		Pre    json.RawMessage `json:"pre_tokenizer"`
		Post   json.RawMessage `json:"post_processor"`
		Model  struct {
			Type     string           `json:"type"`
			Vocab    map[string]int32 `json:"vocab"`
			Merges   []mergePair      `json:"merges"`
			Dropout  *float64         `json:"dropout"`
			Unk      *string          `json:"unk_token"`
			Prefix   *string          `json:"continuing_subword_prefix"`
			Suffix   *string          `json:"end_of_word_suffix"`
			Fuse     bool             `json:"fuse_unk"`
			Fallback bool             `json:"byte_fallback"`
			Ignore   bool             `json:"ignore_merges"`
		} `json:"model"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("not a tokenizer of SigLIP 2: %w", err)
	}
	m := &file.Model
	full := func(s *string) bool { return s != nil && *s != "" }
	switch {
	case m.Type != "BPE":
		return nil, fmt.Errorf("model.type is %q: must be BPE (SigLIP 2); SigLIP's own tokenizer is read from spiece.model", m.Type)
	case full(m.Prefix), full(m.Suffix), m.Ignore, m.Dropout != nil && *m.Dropout != 0:
		return nil, errors.New("model has continuing_subword_prefix, end_of_word_suffix, ignore_merges or dropout, which are not supported")
	case len(m.Vocab) == 0:
		return nil, errors.New("model.vocab is empty")
	}
	t := &SigLIP2Tokenizer{vocab: m.Vocab, merges: make(map[[2]int32]merged, len(m.Merges)), fuse: m.Fuse, unk: -1, padsLeft: c.left}
	if err := t.checkPipeline(file.Normal, file.Pre); err != nil {
		return nil, err
	}
	for text, id := range m.Vocab {
		if id < 0 || id > 1<<24 {
			return nil, fmt.Errorf("the id of token %.80q is %d: must be between 0 and %d", text, id, 1<<24)
		}
		t.size = max(t.size, int(id)+1)
	}
	for i, p := range m.Merges {
		left, ok1 := m.Vocab[p[0]]
		right, ok2 := m.Vocab[p[1]]
		id, ok := m.Vocab[p[0]+p[1]]
		if !ok || !ok1 || !ok2 {
			return nil, fmt.Errorf("merge %d, %.80q and %.80q: one of them, or the result, is not in the vocabulary", i, p[0], p[1])
		}
		t.merges[[2]int32{left, right}] = merged{int32(i), id}
	}
	for b := range t.bytes {
		t.bytes[b] = -1
		if id, ok := m.Vocab[fmt.Sprintf("<0x%02X>", b)]; ok && m.Fallback {
			t.bytes[b] = id
		}
	}
	if m.Unk != nil {
		id, ok := m.Vocab[*m.Unk]
		if !ok {
			return nil, fmt.Errorf("the vocabulary has no token %.80q (unk_token)", *m.Unk)
		}
		t.unk = id
	}
	for _, a := range file.Added {
		s, err := a.token()
		if err != nil {
			return nil, err
		}
		if a.ID < 0 || a.ID > 1<<24 {
			return nil, fmt.Errorf("the id of the added token %.80q is %d: must be between 0 and %d", a.Content, a.ID, 1<<24)
		}
		t.size = max(t.size, a.ID+1)
		if s.normalized {
			s.text = t.normalize(s.text)
			t.normal.add(s)
		} else {
			t.raw.add(s)
		}
	}
	if err := t.readTemplate(file.Post); err != nil {
		return nil, fmt.Errorf("post_processor: %w", err)
	}
	t.endIsMissing = c.addEnd && len(t.end) == 0
	pad := "<pad>"
	if c.pad.text != "" {
		pad = c.pad.text
	}
	if id, ok := m.Vocab[pad]; ok {
		t.pad = int(id)
	} else if i := slices.IndexFunc(file.Added, func(a addedOne) bool { return a.Content == pad }); i >= 0 {
		t.pad = file.Added[i].ID
	} else {
		return nil, fmt.Errorf("the vocabulary has no token %.80q", pad)
	}
	return t, nil
}

// mergePair is two tokens that become one, as "a b" or ["a", "b"].
type mergePair [2]string

func (m *mergePair) UnmarshalJSON(data []byte) error {
	var list []string
	var text string
	if json.Unmarshal(data, &text) == nil {
		list = strings.Split(text, " ")
	} else if err := json.Unmarshal(data, &list); err != nil {
		return err
	}
	if len(list) != 2 {
		return fmt.Errorf("the merge %.80s is not a pair of tokens", data)
	}
	*m = mergePair(list)
	return nil
}

// checkPipeline refuses a normalizer or pre-tokenizer other than those of Gemma's tokenizer.
func (t *SigLIP2Tokenizer) checkPipeline(normal, pre json.RawMessage) error {
	type step struct {
		Type     string            `json:"type"`
		Pattern  map[string]string `json:"pattern"`
		Content  string            `json:"content"`
		Behavior string            `json:"behavior"`
		Invert   bool              `json:"invert"`
		Steps    []step            `json:"normalizers"`
	}
	var n, p step
	if err := json.Unmarshal(normal, &n); err != nil && normal != nil {
		return fmt.Errorf("normalizer: %w", err)
	}
	if err := json.Unmarshal(pre, &p); err != nil && pre != nil {
		return fmt.Errorf("pre_tokenizer: %w", err)
	}
	steps := []step{n}
	if n.Type == "Sequence" {
		steps = n.Steps
	}
	steps = slices.DeleteFunc(steps, func(s step) bool { return s.Type == "Lowercase" })
	if len(steps) != 1 || steps[0].Type != "Replace" || steps[0].Pattern["String"] != " " || steps[0].Content != space1 {
		return fmt.Errorf("the normalizer %.200s is not that of Gemma's tokenizer", normal)
	}
	if p.Type != "" && !(p.Type == "Split" && p.Pattern["String"] == " " && !p.Invert && p.Behavior == "MergedWithPrevious") {
		return fmt.Errorf("the pre_tokenizer %.200s is not that of Gemma's tokenizer", pre)
	}
	return nil
}

// readTemplate reads which tokens come before and after a text.
func (t *SigLIP2Tokenizer) readTemplate(data json.RawMessage) error {
	var post *struct {
		Type   string `json:"type"`
		Single []struct {
			Special *struct {
				ID string `json:"id"`
			} `json:"SpecialToken"`
			Sequence *struct {
				ID string `json:"id"`
			} `json:"Sequence"`
		} `json:"single"`
		Tokens map[string]struct {
			IDs []int `json:"ids"`
		} `json:"special_tokens"`
	}
	if len(data) == 0 {
		return nil
	}
	if err := json.Unmarshal(data, &post); err != nil || post == nil {
		return err
	}
	if post.Type != "TemplateProcessing" {
		return fmt.Errorf("type is %q: must be TemplateProcessing", post.Type)
	}
	side := &t.start
	for _, part := range post.Single {
		if part.Special == nil {
			side = &t.end
			continue
		}
		of, ok := post.Tokens[part.Special.ID]
		if !ok {
			return fmt.Errorf("special_tokens has no %q", part.Special.ID)
		}
		for _, id := range of.IDs {
			if id < 0 || id >= t.size {
				return fmt.Errorf("%q has id %d, which is not in the vocabulary", part.Special.ID, id)
			}
		}
		*side = append(*side, of.IDs...)
	}
	return nil
}

// Notes returns what a user should know about the files.
func (t *SigLIP2Tokenizer) Notes() []string {
	if !t.endIsMissing {
		return nil
	}
	return []string{"tokenizer_config.json says add_eos_token, but post_processor of tokenizer.json adds no token after a text: none is added, as in transformers 5"}
}

// VocabSize returns the number of tokens.
func (t *SigLIP2Tokenizer) VocabSize() int { return t.size }

// Room returns how many of length ids, as Context returns them, the text can have.
func (t *SigLIP2Tokenizer) Room(length int) int { return length - len(t.start) - len(t.end) }

// Context returns the input of SigLIP 2's text encoder like transformers' processor with
// padding="max_length": length ids (64 for every published model), which are those that Encode
// returns for text, with the tokens that the file adds to every text (<eos> at its end), and the
// padding token.
//
// If text is too long, Context returns an error that gives the number of its ids, unless truncate
// is true: then it cuts the text.
func (t *SigLIP2Tokenizer) Context(text string, length int, truncate bool) ([]int, error) {
	ids, err := cut(t.Encode(text), text, length, len(t.start)+len(t.end), truncate)
	if err != nil {
		return nil, err
	}
	return pad(slices.Concat(t.start, ids, t.end), length, t.pad, t.padsLeft), nil
}

// Encode returns the ids of text alone. A special token that is spelled out in the text is that
// token, as in transformers.
func (t *SigLIP2Tokenizer) Encode(text string) []int {
	ids := []int{}
	split(validText(text), &t.raw, func(s string) {
		split(t.normalize(s), &t.normal, func(s string) { ids = t.appendWord(ids, s) }, func(id int) { ids = append(ids, id) })
	}, func(id int) { ids = append(ids, id) })
	return ids
}

// split calls plain for the text between special tokens, and special for these.
func split(text string, specials *specialTokens, plain func(string), special func(int)) {
	for text != "" {
		before, token, after := specials.cut(text)
		if before != "" {
			plain(before)
		}
		if token == nil {
			return
		}
		special(token.id)
		text = after
	}
}

// normalize returns text in lower case, each character by itself, with the character for spaces.
func (t *SigLIP2Tokenizer) normalize(text string) string {
	var b strings.Builder
	b.Grow(len(text))
	for _, r := range text {
		switch r {
		case ' ':
			b.WriteString(space1)
		case 'İ': // the only character that becomes two
			b.WriteString("i\u0307")
		default:
			b.WriteRune(newLower.ToLower(r))
		}
	}
	return b.String()
}

// appendWord appends the ids of a normalised text, by merging pairs of tokens: the one with the
// lowest rank first, and of those the leftmost.
func (t *SigLIP2Tokenizer) appendWord(dst []int, word string) []int {
	ids := mergePairs(t.characters(word), func(left, right int32) (rank uint32, made int32, ok bool) {
		m, ok := t.merges[[2]int32{left, right}]
		return uint32(m.rank), m.id, ok
	})
	for _, id := range ids {
		dst = append(dst, int(id))
	}
	return dst
}

// characters returns the ids of the characters of a word. A character that has none becomes its
// bytes, and if these have none either, the unknown token.
func (t *SigLIP2Tokenizer) characters(word string) []int32 {
	ids := make([]int32, 0, len(word))
	unknown := false // an unknown token waits to be added
	flush := func() {
		if unknown {
			ids = append(ids, t.unk)
			unknown = false
		}
	}
next:
	for i := 0; i < len(word); {
		_, size := utf8.DecodeRuneInString(word[i:])
		char := word[i : i+size]
		i += size
		if id, ok := t.vocab[char]; ok {
			flush()
			ids = append(ids, id)
			continue
		}
		for _, b := range []byte(char) {
			if t.bytes[b] < 0 {
				// The tokenizers library adds the unknown token late, after bytes that follow.
				if t.unk >= 0 {
					if !t.fuse {
						flush()
					}
					unknown = true
				}
				continue next
			}
		}
		for _, b := range []byte(char) {
			ids = append(ids, t.bytes[b])
		}
	}
	flush()
	return ids
}
