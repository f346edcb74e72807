package tokenizer

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"cyclecap/data/tokenizer/internal/fixtext"
)

// SigLIPContextLength is the number of ids in an input of SigLIP's text encoder.
const SigLIPContextLength = 64

// A SigLIPConfig holds the settings of tokenizer_config.json that change the ids of SigLIP's
// tokenizers. Its zero value stands for transformers' own settings.
type SigLIPConfig struct {
	keepCase bool // do_lower_case is false
	left     bool // padding_side is left
	addEnd   bool // add_eos_token is true
	// eos, unk and pad are the special tokens, or empty.
	eos, unk, pad specialToken
	added         []specialToken // all added tokens, with their ids
}

// specialToken is a token that is recognised in a text before anything else.
type specialToken struct {
	text       string
	id         int
	strip      bool // white space around it belongs to it
	normalized bool // it is looked for in the normalised text
}

// ParseSigLIPConfig reads a tokenizer_config.json; nil stands for a file that does not exist.
func ParseSigLIPConfig(data []byte) (c SigLIPConfig, err error) {
	if data == nil {
		return c, nil
	}
	var file struct {
		Lower    *bool               `json:"do_lower_case"`
		Side     *string             `json:"padding_side"`
		Truncate *string             `json:"truncation_side"`
		End      bool                `json:"add_eos_token"`
		EOS      *tokenText          `json:"eos_token"`
		Unk      *tokenText          `json:"unk_token"`
		Pad      *tokenText          `json:"pad_token"`
		Added    map[string]addedOne `json:"added_tokens_decoder"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return c, err
	}
	c.keepCase = file.Lower != nil && !*file.Lower
	if file.Side != nil {
		switch *file.Side {
		case "left":
			c.left = true
		case "right":
		default:
			return c, fmt.Errorf("padding_side is %q: must be left or right", *file.Side)
		}
	}
	if file.Truncate != nil && *file.Truncate != "right" {
		return c, fmt.Errorf("truncation_side is %q: only right is supported", *file.Truncate)
	}
	c.addEnd = file.End
	for _, a := range file.Added {
		t, err := a.token()
		if err != nil {
			return c, err
		}
		c.added = append(c.added, t)
	}
	for _, v := range []struct {
		from *tokenText
		to   *specialToken
	}{{file.EOS, &c.eos}, {file.Unk, &c.unk}, {file.Pad, &c.pad}} {
		if v.from != nil {
			v.to.text = string(*v.from)
		}
	}
	return c, nil
}

// tokenText is a token in a configuration file: its text, or an object with its content.
type tokenText string

func (t *tokenText) UnmarshalJSON(data []byte) error {
	if json.Unmarshal(data, (*string)(t)) == nil {
		return nil
	}
	var of struct {
		Content *string `json:"content"`
	}
	if err := json.Unmarshal(data, &of); err != nil || of.Content == nil {
		return fmt.Errorf("%.80s is not a token", data)
	}
	*t = tokenText(*of.Content)
	return nil
}

// addedOne is an added token in a file.
type addedOne struct {
	ID         int    `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
}

func (a addedOne) token() (specialToken, error) {
	if a.SingleWord || a.LStrip != a.RStrip {
		return specialToken{}, fmt.Errorf("the added token %.80q has single_word set, or only one of lstrip and rstrip, which is not supported", a.Content)
	}
	return specialToken{text: a.Content, id: a.ID, strip: a.LStrip, normalized: a.Normalized}, nil
}

// A SigLIPTokenizer is the tokenizer of SigLIP, with the results of transformers'
// SiglipTokenizer: text in lower case and without ASCII punctuation, encoded by a SentencePiece
// model.
type SigLIPTokenizer struct {
	pieces   *sentencePiece
	config   SigLIPConfig
	specials specialTokens
	unkText  string
	unkLen   int // number of pieces of unkText
	eos, pad int
}

// NewSigLIP returns the tokenizer with a SentencePiece model, the contents of spiece.model. The
// model's kind must be unigram. Memory is in proportion to the size of the file.
func NewSigLIP(model []byte, c SigLIPConfig) (*SigLIPTokenizer, error) {
	p, err := parseSentencePiece(model)
	if err != nil {
		return nil, err
	}
	t := &SigLIPTokenizer{pieces: p, config: c, unkText: "<unk>"}
	eos, pad := "</s>", "</s>"
	for _, v := range []struct {
		to   *string
		text string
	}{{&eos, c.eos.text}, {&t.unkText, c.unk.text}, {&pad, c.pad.text}} {
		if v.text != "" {
			*v.to = v.text
		}
	}
	names := []string{eos, t.unkText, pad}
	for _, text := range names {
		id, ok := p.ids[text]
		if !ok {
			return nil, fmt.Errorf("the vocabulary has no token %.80q", text)
		}
		special := specialToken{text: text, id: id, strip: true}
		if i := slices.IndexFunc(c.added, func(a specialToken) bool { return a.text == text }); i >= 0 {
			special.strip = c.added[i].strip
		}
		t.specials.add(special)
	}
	for _, a := range c.added {
		if !slices.Contains(names, a.text) {
			return nil, fmt.Errorf("tokenizer_config.json: the added token %.80q is not supported, only the end, unknown and padding tokens are", a.text)
		}
	}
	t.eos, t.pad = p.ids[eos], p.ids[pad]
	t.unkLen = len(p.encode(t.unkText))
	return t, nil
}

// VocabSize returns the number of tokens.
func (t *SigLIPTokenizer) VocabSize() int { return len(t.pieces.pieces) }

// Room returns how many of length ids, as Context returns them, the text can have.
func (t *SigLIPTokenizer) Room(length int) int { return length - 1 }

// Encode returns the ids of text, without the end token. A special token that is spelled out in
// the text is that token, as in transformers.
func (t *SigLIPTokenizer) Encode(text string) []int {
	ids := []int{}
	rest := space1 + strings.ReplaceAll(validText(text), space1, " ")
	for rest != "" {
		before, token, after := t.specials.cut(rest)
		if token == nil {
			ids = t.appendPlain(ids, rest)
			break
		}
		if before != "" {
			ids = t.appendPlain(ids, before)
		}
		if start, ok := t.pieces.ids[space1]; ok && len(ids) == 1 && ids[0] == start {
			ids = ids[:0] // a space before the first special token
		}
		ids = append(ids, token.id)
		rest = after
	}
	return ids
}

// specialTokens are tokens that are recognised in a text, by their first byte.
type specialTokens [256][]specialToken

func (s *specialTokens) add(t specialToken) {
	if t.text != "" {
		s[t.text[0]] = append(s[t.text[0]], t)
	}
}

// cut splits text at the first special token, the longest at its place. The token is nil if there
// is none.
func (s *specialTokens) cut(text string) (before string, token *specialToken, after string) {
	for at := range len(text) {
		of := s[text[at]]
		for i := range of {
			if strings.HasPrefix(text[at:], of[i].text) && (token == nil || len(of[i].text) > len(token.text)) {
				token = &of[i]
			}
		}
		if token == nil {
			continue
		}
		before, after = text[:at], text[at+len(token.text):]
		if token.strip {
			before, after = strings.TrimRightFunc(before, pythonSpace), strings.TrimLeftFunc(after, pythonSpace)
		}
		return before, token, after
	}
	return text, nil, ""
}

// appendPlain appends the ids of a text without special tokens. transformers encodes the
// spelling of the unknown token in front of the text and drops as many pieces as it has alone.
func (t *SigLIPTokenizer) appendPlain(ids []int, text string) []int {
	all := t.pieces.encode(t.unkText + t.clean(text))
	if len(all) >= t.unkLen {
		all = all[t.unkLen:]
	}
	return append(ids, all...)
}

// clean returns text in the form in which it is encoded (canonicalize_text).
func (t *SigLIPTokenizer) clean(text string) string {
	if !t.config.keepCase {
		text = fixtext.Lower(text)
	}
	var b strings.Builder
	inSpace := false
	for _, r := range text {
		switch {
		case r < 0x80 && strings.ContainsRune("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", r):
			continue
		case pythonSpace(r):
			inSpace = true
			continue
		case inSpace && b.Len() > 0:
			b.WriteByte(' ')
		}
		inSpace = false
		b.WriteRune(r)
	}
	return b.String()
}

// pythonSpace is Python's str.isspace, and \s of its regular expressions.
func pythonSpace(r rune) bool { return classOf(r) == space || 0x1C <= r && r <= 0x1F }

// Context returns the input of SigLIP's text encoder like transformers' processor with
// padding="max_length": length ids (64 for every published model: [SigLIPContextLength]), which
// are those that Encode returns for text, the end token, and the padding token.
//
// If text has more than length-1 ids, Context returns an error that gives their number, unless
// truncate is true: then it cuts the text, and the last id is the end token.
func (t *SigLIPTokenizer) Context(text string, length int, truncate bool) ([]int, error) {
	ids, err := cut(t.Encode(text), text, length, 1, truncate)
	if err != nil {
		return nil, err
	}
	if len(ids) == 0 || ids[len(ids)-1] != t.eos {
		ids = append(ids, t.eos)
	}
	return pad(ids, length, t.pad, t.config.left), nil
}

// cut cuts ids to a context of length with room for the special tokens that are added.
func cut(ids []int, text string, length, added int, truncate bool) ([]int, error) {
	if length < added+1 {
		return nil, fmt.Errorf("tokenizer: a context of %d tokens has no room for a text and %d special tokens (SigLIP uses %d)", length, added, SigLIPContextLength)
	}
	if len(ids) > length-added {
		if !truncate {
			return nil, fmt.Errorf("tokenizer: the text has %d tokens, but the context has room for only %d: shorten the text or set truncate: %.60q", len(ids), length-added, text)
		}
		ids = ids[:length-added]
	}
	return ids, nil
}

// pad fills ids up to length with a padding token.
func pad(ids []int, length, with int, left bool) []int {
	padding := slices.Repeat([]int{with}, length-len(ids))
	if left {
		return append(padding, ids...)
	}
	return append(ids, padding...)
}
