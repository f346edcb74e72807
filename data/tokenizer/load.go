package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Limits for files of tokenizers. The largest byte-level vocabularies in use have
// 256,000 tokens; those of GPT-2's kind that this package can hold have fewer.
const (
	maxID       = 1 << 20
	maxMerges   = none - 256 - 1
	maxToken    = 4096 // bytes of a token that is merged
	maxAdded    = 20000
	maxAddedLen = 1000 // bytes
)

// gpt2Classes are the values of tokenizer_class whose tokenizers work like GPT-2's.
// The last two take everything from tokenizer.json.
var gpt2Classes = []string{"", "GPT2Tokenizer", "GPT2TokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"}

// otherVocabularies are files of tokenizers of other kinds.
var otherVocabularies = []struct{ name, kind string }{
	{"vocab.txt", "a WordPiece vocabulary (BERT's)"},
	{"spiece.model", "a SentencePiece model"},
	{"sentencepiece.bpe.model", "a SentencePiece model"},
	{"tokenizer.model", "a SentencePiece model"},
}

// Load returns the tokenizer whose files read returns: tokenizer.json or vocab.json
// with merges.txt, and, if they exist, tokenizer_config.json, special_tokens_map.json
// and added_tokens.json, as transformers' save_pretrained writes them. read returns
// nil for a file that does not exist. from is the file with the vocabulary.
//
// The tokenizer must be a byte-level BPE that splits text as GPT-2 does, with a
// vocabulary and added tokens of its own; anything else is an error that names the
// file and what it contains. If there is no vocabulary, it is GPT-2's, and from is
// empty; if there are no files at all, Load returns nil.
//
// Ids and texts are those of Python's tokenizers library, in which Encode does not
// add special tokens, and Decode does not skip them.
func Load(read func(name string) ([]byte, error)) (t *GPT2Tokenizer, from string, err error) {
	l := loader{read: read, added: map[string]addedToken{}}
	t, from, err = l.load()
	if err != nil {
		return nil, "", err
	}
	return t, from, nil
}

type loader struct {
	read  func(name string) ([]byte, error)
	added map[string]addedToken // by content
	any   bool                  // some file exists
}

// addedToken is an entry of added_tokens in tokenizer.json.
type addedToken struct {
	ID         int    `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
	Special    bool   `json:"special"`
}

// specialKeys are the keys of tokenizer_config.json and special_tokens_map.json whose
// values are special tokens.
var specialKeys = []string{"bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"}

// settings are tokenizer_config.json.
type settings struct {
	Class       string                     `json:"tokenizer_class"`
	PrefixSpace *bool                      `json:"add_prefix_space"`
	BOS         bool                       `json:"add_bos_token"`
	EOS         bool                       `json:"add_eos_token"`
	Split       bool                       `json:"split_special_tokens"`
	Added       map[string]json.RawMessage `json:"added_tokens_decoder"`
}

// json reads a file of JSON, if it exists.
func (l *loader) json(name string, value any) (bool, error) {
	data, err := l.read(name)
	if err != nil || data == nil {
		return false, err
	}
	l.any = true
	if err := json.Unmarshal(data, value); err != nil {
		return false, fmt.Errorf("%s: %s", name, jsonError(err))
	}
	return true, nil
}

// jsonError says what is wrong with JSON, without Go's types.
func jsonError(err error) string {
	if e := (*json.UnmarshalTypeError)(nil); errors.As(err, &e) && e.Field != "" {
		return fmt.Sprintf("%s has an unexpected value (%s)", e.Field, e.Value)
	} else if e != nil {
		return fmt.Sprintf("not the expected JSON, but %s", e.Value)
	}
	return "not valid JSON (" + err.Error() + ")"
}

func (l *loader) load() (*GPT2Tokenizer, string, error) {
	const config = "tokenizer_config.json"
	var c settings
	var raw map[string]json.RawMessage
	if _, err := l.json(config, &raw); err != nil {
		return nil, "", err
	}
	if _, err := l.json(config, &c); err != nil {
		return nil, "", err
	}
	if !slices.Contains(gpt2Classes, c.Class) {
		return nil, "", fmt.Errorf("%s: tokenizer_class is %q, but only byte-level BPE tokenizers like GPT-2's are supported", config, c.Class)
	}
	if c.BOS || c.EOS {
		return nil, "", fmt.Errorf("%s: add_bos_token and add_eos_token are not supported", config)
	}
	if c.Split {
		return nil, "", fmt.Errorf("%s: split_special_tokens is not supported", config)
	}
	v, from, err := l.vocabulary(c)
	if err != nil {
		return nil, "", err
	}
	// In order of precedence: tokenizer.json (above), added_tokens_decoder, the others.
	for _, id := range slices.Sorted(maps.Keys(c.Added)) {
		var a addedToken
		n, err := strconv.Atoi(id)
		if err != nil || json.Unmarshal(c.Added[id], &a) != nil {
			return nil, "", fmt.Errorf("%s: added_tokens_decoder: %.40q is not an id with a token", config, id)
		}
		a.ID = n
		l.add(a)
	}
	l.specials(raw, v)
	// As in transformers, the older files count only if the newer list is missing.
	if c.Added == nil {
		var more map[string]int
		if _, err := l.json("added_tokens.json", &more); err != nil {
			return nil, "", err
		}
		for _, content := range slices.Sorted(maps.Keys(more)) {
			l.add(addedToken{ID: more[content], Content: content, Normalized: true})
		}
		var special map[string]json.RawMessage
		if _, err := l.json("special_tokens_map.json", &special); err != nil {
			return nil, "", err
		}
		l.specials(special, v)
	}
	if strings.HasPrefix(c.Class, "GPT2") || c.Class == "" {
		l.special(v, addedToken{Content: gpt2End, Special: true}) // the default of GPT2Tokenizer
	}
	if v == nil {
		if from, err = l.foreign(); err != nil || !l.any {
			return nil, "", err
		}
		v = gpt2Vocabulary()
	}
	t, err := v.with(l.added)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", from, err)
	}
	return t, from, nil
}

// foreign returns an error if there is a vocabulary of another kind.
func (l *loader) foreign() (string, error) {
	for _, o := range otherVocabularies {
		data, err := l.read(o.name)
		if err != nil {
			return "", err
		}
		if data != nil {
			return "", fmt.Errorf("%s is %s, but only byte-level BPE tokenizers like GPT-2's are supported", o.name, o.kind)
		}
	}
	return "", nil
}

func (l *loader) add(a addedToken) {
	if _, ok := l.added[a.Content]; !ok && a.Content != "" {
		l.added[a.Content] = a
	}
}

// special adds a special token that the vocabulary contains.
func (l *loader) special(v *vocabulary, a addedToken) {
	if v == nil {
		return // GPT-2's vocabulary, whose special token is known
	}
	if id, ok := v.ids[a.Content]; ok {
		a.ID, a.Special = id, true
		l.add(a)
	}
}

func (l *loader) specials(m map[string]json.RawMessage, v *vocabulary) {
	for _, key := range specialKeys {
		var a addedToken
		if json.Unmarshal(m[key], &a.Content) == nil || json.Unmarshal(m[key], &a) == nil {
			l.special(v, a)
		}
	}
	var list []json.RawMessage
	if json.Unmarshal(m["additional_special_tokens"], &list) == nil {
		for _, raw := range list {
			var a addedToken
			if json.Unmarshal(raw, &a.Content) == nil || json.Unmarshal(raw, &a) == nil {
				l.special(v, a)
			}
		}
	}
}

// vocabulary is the vocabulary of a byte-level BPE in its files' form, in which bytes
// are written as characters.
type vocabulary struct {
	ids         map[string]int
	merges      [][2]string
	prefixSpace bool
	own         bool // GPT-2's
}

func gpt2Vocabulary() *vocabulary { return &vocabulary{own: true} }

// vocabulary reads tokenizer.json, or vocab.json with merges.txt. It returns nil if
// none of them exists.
func (l *loader) vocabulary(c settings) (*vocabulary, string, error) {
	const file = "tokenizer.json"
	var j tokenizerJSON
	if ok, err := l.json(file, &j); err != nil {
		return nil, "", err
	} else if ok {
		v, err := l.tokenizerJSON(&j, c)
		if err != nil {
			return nil, "", fmt.Errorf("%s: %w", file, err)
		}
		return v, file, nil
	}
	v := &vocabulary{prefixSpace: c.PrefixSpace != nil && *c.PrefixSpace}
	found, err := l.json("vocab.json", &v.ids)
	if err != nil {
		return nil, "", err
	}
	text, err := l.read("merges.txt")
	if err != nil {
		return nil, "", err
	}
	switch {
	case !found && text == nil:
		return nil, "", nil
	case !found:
		return nil, "", fmt.Errorf("merges.txt is there, but vocab.json is missing")
	case text == nil:
		return nil, "", fmt.Errorf("vocab.json is there, but merges.txt is missing")
	}
	if v.merges, err = parseMerges(text); err != nil {
		return nil, "", fmt.Errorf("merges.txt: %w", err)
	}
	return v, "vocab.json", nil
}

// parseMerges reads a merges.txt.
func parseMerges(text []byte) (merges [][2]string, err error) {
	n := 0
	for line := range bytes.Lines(text) {
		n++
		s := strings.TrimRight(string(line), "\r\n")
		if strings.HasPrefix(s, "#version") || s == "" {
			continue
		}
		left, right, ok := strings.Cut(s, " ")
		if !ok || strings.Contains(right, " ") {
			return nil, fmt.Errorf("line %d must be two tokens with a space between them, got %.60q", n, s)
		}
		merges = append(merges, [2]string{left, right})
	}
	return merges, nil
}

// tokenizerJSON is a tokenizer.json.
type tokenizerJSON struct {
	Added         []addedToken    `json:"added_tokens"`
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"`
	Decoder       json.RawMessage `json:"decoder"`
	Model         struct {
		Type         string            `json:"type"`
		Dropout      float64           `json:"dropout"`
		Prefix       string            `json:"continuing_subword_prefix"`
		Suffix       string            `json:"end_of_word_suffix"`
		ByteFallback bool              `json:"byte_fallback"`
		IgnoreMerges bool              `json:"ignore_merges"`
		Vocab        json.RawMessage   `json:"vocab"`
		Merges       []json.RawMessage `json:"merges"`
	} `json:"model"`
}

// step is a normalizer, pre_tokenizer, post_processor or decoder.
type step struct {
	Type        string            `json:"type"`
	PrefixSpace bool              `json:"add_prefix_space"`
	Regex       *bool             `json:"use_regex"`
	Normalizers []json.RawMessage `json:"normalizers"`
	Single      []map[string]any  `json:"single"`
}

func stepOf(raw json.RawMessage) (s step, err error) {
	if len(raw) > 0 && string(raw) != "null" {
		if err := json.Unmarshal(raw, &s); err != nil || s.Type == "" {
			return s, errors.New("a part of the tokenizer has no type")
		}
	}
	return s, nil
}

func (l *loader) tokenizerJSON(j *tokenizerJSON, c settings) (*vocabulary, error) {
	m := j.Model
	unsupported := func(format string, args ...any) error {
		return fmt.Errorf(format+", but only byte-level BPE tokenizers like GPT-2's are supported", args...)
	}
	// Old files do not name the type of a BPE.
	if m.Type != "BPE" && !(m.Type == "" && m.Merges != nil) {
		return nil, unsupported("model.type is %q", m.Type)
	}
	switch {
	case m.Dropout != 0:
		return nil, unsupported("model.dropout is %g", m.Dropout)
	case m.Prefix != "":
		return nil, unsupported("model.continuing_subword_prefix is %.20q", m.Prefix)
	case m.Suffix != "":
		return nil, unsupported("model.end_of_word_suffix is %.20q", m.Suffix)
	case m.ByteFallback:
		return nil, unsupported("model.byte_fallback is true")
	case m.IgnoreMerges:
		return nil, unsupported("model.ignore_merges is true")
	}
	normalizer, err := stepOf(j.Normalizer)
	if err != nil {
		return nil, err
	}
	if normalizer.Type != "" && !(normalizer.Type == "Sequence" && len(normalizer.Normalizers) == 0) {
		return nil, unsupported("normalizer is %.40q", normalizer.Type)
	}
	pre, err := stepOf(j.PreTokenizer)
	if err != nil {
		return nil, err
	}
	if pre.Type != "ByteLevel" {
		return nil, unsupported("pre_tokenizer is %.40q", pre.Type)
	}
	if pre.Regex != nil && !*pre.Regex {
		return nil, unsupported("pre_tokenizer.use_regex is false")
	}
	decoder, err := stepOf(j.Decoder)
	if err != nil {
		return nil, err
	}
	if decoder.Type != "ByteLevel" {
		return nil, unsupported("decoder is %.40q", decoder.Type)
	}
	post, err := stepOf(j.PostProcessor)
	if err != nil {
		return nil, err
	}
	adds := post.Type != "" && post.Type != "ByteLevel"
	if post.Type == "TemplateProcessing" {
		adds = len(post.Single) != 1 || post.Single[0]["Sequence"] == nil
	}
	if adds {
		return nil, fmt.Errorf("post_processor %.40q adds tokens to every text, which is not supported", post.Type)
	}
	v := &vocabulary{prefixSpace: pre.PrefixSpace}
	// transformers' GPT2Tokenizer heeds add_prefix_space of tokenizer_config.json only.
	if strings.HasPrefix(c.Class, "GPT2") || c.Class == "" {
		switch {
		case c.PrefixSpace != nil:
			v.prefixSpace = *c.PrefixSpace
		case pre.PrefixSpace:
			return nil, errors.New("add_prefix_space is true here, but transformers' GPT2Tokenizer heeds only that of tokenizer_config.json, where it is missing: set it there to true or false")
		}
	}
	if err := json.Unmarshal(m.Vocab, &v.ids); err != nil || v.ids == nil {
		return nil, unsupported("model.vocab is not an object of tokens and ids")
	}
	for k, raw := range m.Merges {
		var pair [2]string
		var text string
		var list []string
		switch {
		case json.Unmarshal(raw, &text) == nil:
			left, right, ok := strings.Cut(text, " ")
			if !ok || strings.Contains(right, " ") {
				return nil, fmt.Errorf("model.merges: item %d must be two tokens, got %.60q", k, text)
			}
			pair = [2]string{left, right}
		case json.Unmarshal(raw, &list) == nil && len(list) == 2:
			pair = [2]string{list[0], list[1]}
		default:
			return nil, fmt.Errorf("model.merges: item %d must be two tokens, got %.60q", k, string(raw))
		}
		v.merges = append(v.merges, pair)
	}
	for _, a := range j.Added {
		l.add(a)
	}
	return v, nil
}

// with returns the tokenizer of a vocabulary, with added tokens.
func (v *vocabulary) with(added map[string]addedToken) (*GPT2Tokenizer, error) {
	t := &GPT2Tokenizer{more: &more{prefixSpace: v.prefixSpace, end: -1}}
	if v.own {
		t.bpe = GPT2().bpe
		for id := range t.bpe.size() {
			t.more.set(id, t.bpe.token(id))
			t.more.ids = append(t.more.ids, int32(id))
		}
		if _, ok := added[gpt2End]; !ok {
			added = maps.Clone(added)
			added[gpt2End] = addedToken{ID: GPT2().EndID(), Content: gpt2End, Special: true}
		}
	} else if err := v.build(t); err != nil {
		return nil, err
	}
	return t, t.more.add(added)
}

// letterOf is the character with which the files spell a byte in a token: the visible
// characters of Latin-1 for themselves, and those from U+0100 for the other bytes, in
// order.
var letterOf = func() (letters [256]rune) {
	extra := rune(0x100)
	for i, b := range byteOrder {
		letters[b] = rune(b)
		if i >= visible {
			letters[b] = extra
			extra++
		}
	}
	return letters
}()

// visible is the number of bytes that are written as themselves.
const visible = 188

// byteOf is the inverse of letterOf.
var byteOf = func() map[rune]byte {
	m := map[rune]byte{}
	for b, r := range letterOf {
		m[r] = byte(b)
	}
	return m
}()

// spelled returns the bytes of a token as the files spell them.
func spelled(token string) string {
	var b strings.Builder
	for i := range len(token) {
		b.WriteRune(letterOf[token[i]])
	}
	return b.String()
}

// tokenBytes returns the bytes of a token in a file. A token with a character that
// stands for no byte, such as an added one, is its own text; ok is then false.
func tokenBytes(s string) (text string, ok bool) {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		v, ok := byteOf[r]
		if !ok {
			return s, false
		}
		b = append(b, v)
	}
	return string(b), true
}

// build fills in the vocabulary and the merges.
func (v *vocabulary) build(t *GPT2Tokenizer) error {
	if len(v.merges) > maxMerges {
		return fmt.Errorf("the vocabulary has %d merges; at most %d are supported", len(v.merges), maxMerges)
	}
	owner := map[int]string{}
	for token, id := range v.ids {
		if id < 0 || id >= maxID {
			return fmt.Errorf("token %.40q has id %d: must be between 0 and %d", token, id, maxID-1)
		}
		if other, twice := owner[id]; twice {
			return fmt.Errorf("tokens %.40q and %.40q have the same id, %d", min(token, other), max(token, other), id)
		}
		owner[id] = token
		text, _ := tokenBytes(token)
		t.more.set(id, text)
	}
	b := &bpe{base: 256, special: 256 + len(v.merges), merged: make(map[uint32]uint16, len(v.merges)), whole: make(map[string]uint16, 256+len(v.merges))}
	inner := make(map[string]uint16, 256+len(v.merges)) // bytes of a token -> its number here
	ids := make([]int32, 256, 256+len(v.merges))        // number here -> id
	for i, c := range byteOrder {
		name := string(letterOf[c])
		id, ok := v.ids[name]
		if !ok {
			return fmt.Errorf("the vocabulary has no token for byte 0x%02X (%q), so it cannot encode every text, which is not supported", c, name)
		}
		b.byteRank[c] = uint16(i)
		inner[string([]byte{c})] = uint16(i)
		ids[i] = int32(id)
	}
	// Pairs are merged in the order of the list, so the number of a merge is 256 plus
	// its place. Different merges may make the same token: it has the number of the
	// first.
	results := make([]string, len(v.merges))
	for k, pair := range v.merges {
		if pair[0] == "" || pair[1] == "" || len(pair[0])+len(pair[1]) > maxToken {
			return fmt.Errorf("merge %d must be two tokens of at most %d bytes together, got %.40q and %.40q", k, maxToken, pair[0], pair[1])
		}
		token := pair[0] + pair[1]
		for _, part := range []string{pair[0], pair[1], token} {
			if _, ok := v.ids[part]; !ok {
				return fmt.Errorf("merge %d needs token %.40q, which is not in the vocabulary", k, part)
			}
		}
		ids = append(ids, int32(v.ids[token]))
		text, ok := tokenBytes(token)
		if !ok {
			continue // no text contains it
		}
		results[k] = text
		if _, twice := inner[text]; !twice {
			inner[text] = uint16(256 + k)
		}
	}
	b.same = make([]uint16, len(ids))
	for i := range b.same {
		b.same[i] = uint16(i)
	}
	for k, pair := range v.merges {
		if results[k] == "" {
			continue
		}
		b.same[256+k] = inner[results[k]]
		left, _ := tokenBytes(pair[0])
		right, _ := tokenBytes(pair[1])
		l, ok := inner[left]
		r, ok2 := inner[right]
		if ok && ok2 { // otherwise the token is in the vocabulary, but no merge makes it
			b.merged[uint32(l)<<16|uint32(r)] = uint16(256 + k)
		}
	}
	// A word that is a token is that token only where the merges lead to it.
	var one []int
	whole := make(map[string]uint16, len(inner))
	for text, id := range inner {
		if one = b.appendWord(one[:0], text); len(one) == 1 && one[0] == int(id) {
			whole[text] = id
		}
	}
	b.whole = whole
	t.bpe, t.more.ids = b, ids
	return nil
}
