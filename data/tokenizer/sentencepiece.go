package tokenizer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// space1 is the character that stands for a space in the pieces of SentencePiece.
const space1 = "▁"

// A sentencePiece is a unigram model of SentencePiece: pieces of text with scores. A text is
// split into the pieces with the largest sum of scores.
type sentencePiece struct {
	pieces []string
	scores []float32
	match  map[string]int32 // pieces that are looked for in a text
	ids    map[string]int   // all pieces
	// longest and starts speed up the search: the length of the longest piece to look for, in
	// bytes, for each first byte.
	longest  [256]int
	unk      int
	unkScore float32

	charsmap      charsmap
	dummyPrefix   bool
	collapseSpace bool // remove_extra_whitespaces
	escapeSpace   bool
}

// The types of pieces.
const (
	pieceNormal      = 1
	pieceUnknown     = 2
	pieceControl     = 3
	pieceUserDefined = 4
	pieceUnused      = 5
	pieceByte        = 6
)

// maxPiece is the length of the longest piece that is accepted, in bytes. SentencePiece's own
// default allows 16 characters.
const maxPiece = 512

// unknownPenalty is by how much the score of an unknown character is below the lowest one.
const unknownPenalty = 10

// parseSentencePiece reads a model: a message of Protocol Buffers.
func parseSentencePiece(data []byte) (*sentencePiece, error) {
	p := &sentencePiece{match: map[string]int32{}, ids: map[string]int{}, unk: -1,
		dummyPrefix: true, collapseSpace: true, escapeSpace: true}
	lowest := float32(math.MaxFloat32)
	err := fields(data, func(f field) error {
		switch f.number {
		case 1:
			return p.addPiece(f.bytes, &lowest)
		case 2:
			return checkTrainer(f.bytes)
		case 3:
			return p.readNormalizer(f.bytes)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("not a model of SentencePiece that is supported: %w", err)
	}
	if len(p.pieces) == 0 || p.unk < 0 {
		return nil, errors.New("not a model of SentencePiece: it has no pieces, or none that is unknown")
	}
	p.unkScore = lowest - unknownPenalty
	return p, nil
}

func (p *sentencePiece) addPiece(data []byte, lowest *float32) error {
	text, score, kind := "", float32(0), uint64(pieceNormal)
	err := fields(data, func(f field) error {
		switch f.number {
		case 1:
			text = string(f.bytes)
		case 2:
			score = math.Float32frombits(uint32(f.value))
		case 3:
			kind = f.value
		}
		return nil
	})
	id := len(p.pieces)
	_, twice := p.ids[text]
	switch {
	case err != nil:
		return fmt.Errorf("piece %d: %w", id, err)
	case text == "" || len(text) > maxPiece || !utf8.ValidString(text):
		return fmt.Errorf("piece %d has %d bytes, or is not UTF-8: must have between 1 and %d", id, len(text), maxPiece)
	case twice:
		return fmt.Errorf("piece %d, %q, is there twice", id, text)
	case score != score:
		return fmt.Errorf("the score of piece %d is not a number", id)
	}
	p.pieces, p.scores, p.ids[text] = append(p.pieces, text), append(p.scores, score), id
	switch kind {
	case pieceNormal:
		*lowest = min(*lowest, score)
		p.match[text] = int32(id)
		p.longest[text[0]] = max(p.longest[text[0]], len(text))
	case pieceUnknown:
		if p.unk >= 0 {
			return fmt.Errorf("pieces %d and %d are both the unknown one", p.unk, id)
		}
		p.unk = id
	case pieceControl, pieceUnused:
	case pieceUserDefined:
		return fmt.Errorf("piece %d, %q, is a user-defined symbol, which is not supported", id, text)
	case pieceByte:
		return fmt.Errorf("piece %d, %q, is a byte (byte_fallback), which is not supported", id, text)
	default:
		return fmt.Errorf("piece %d has the unknown type %d", id, kind)
	}
	return nil
}

// checkTrainer refuses kinds of models that are encoded otherwise.
func checkTrainer(data []byte) error {
	return fields(data, func(f field) error {
		switch {
		case f.number == 3 && f.value != 1:
			return fmt.Errorf("model_type is %d: only unigram, 1, is supported", f.value)
		case f.number == 24 && f.value != 0:
			return errors.New("treat_whitespace_as_suffix is set, which is not supported")
		case f.number == 35 && f.value != 0:
			return errors.New("byte_fallback is set, which is not supported")
		}
		return nil
	})
}

func (p *sentencePiece) readNormalizer(data []byte) error {
	return fields(data, func(f field) (err error) {
		switch f.number {
		case 2:
			p.charsmap, err = parseCharsmap(f.bytes)
		case 3:
			p.dummyPrefix = f.value != 0
		case 4:
			p.collapseSpace = f.value != 0
		case 5:
			p.escapeSpace = f.value != 0
		}
		return err
	})
}

// encode returns the ids of the pieces of text, with unknown pieces in a row as one.
func (p *sentencePiece) encode(text string) []int {
	s := p.normalize(text)
	type node struct {
		score float32
		from  int32 // where the best piece that ends here starts, or -1
		id    int32
	}
	best := make([]node, len(s)+1)
	for i := range best {
		best[i].from = -1
	}
	best[0].score = 0
	for at := 0; at < len(s); {
		here := best[at].score
		_, char := utf8.DecodeRuneInString(s[at:])
		single := false
		for n := 1; n <= min(p.longest[s[at]], len(s)-at); n++ {
			id, ok := p.match[s[at:at+n]]
			if !ok {
				continue
			}
			score := p.scores[id] + here
			if to := &best[at+n]; to.from < 0 || score > to.score {
				*to = node{score, int32(at), id}
			}
			single = single || n == char
		}
		if !single {
			score := p.unkScore + here
			if to := &best[at+char]; to.from < 0 || score > to.score {
				*to = node{score, int32(at), int32(p.unk)}
			}
		}
		at += char
	}
	var ids []int // backwards
	unknown := 0  // where the unknown pieces in a row end
	for at := len(s); at > 0; {
		n := best[at]
		if int(n.id) == p.unk {
			if len(ids) == 0 || unknown == 0 {
				ids, unknown = append(ids, p.unk), at
			}
			if from := int(n.from); from == 0 || int(best[from].id) != p.unk {
				// A piece that is never looked for in a text still has its id.
				if id, ok := p.ids[s[from:unknown]]; ok {
					ids[len(ids)-1] = id
				}
				unknown = 0
			}
		} else {
			ids = append(ids, int(n.id))
		}
		at = int(n.from)
	}
	for i, j := 0, len(ids)-1; i < j; i, j = i+1, j-1 {
		ids[i], ids[j] = ids[j], ids[i]
	}
	return ids
}

// normalize returns text with the model's replacements of characters, and with spaces as the
// model wants them.
func (p *sentencePiece) normalize(text string) string {
	if p.collapseSpace {
		for text != "" {
			s, n := p.charsmap.next(text)
			if s != " " {
				break
			}
			text = text[n:]
		}
	}
	if text == "" {
		return ""
	}
	gap := " "
	if p.escapeSpace {
		gap = space1
	}
	var b strings.Builder
	if p.dummyPrefix {
		b.WriteString(gap)
	}
	afterSpace := p.collapseSpace
	for text != "" {
		s, n := p.charsmap.next(text)
		text = text[n:]
		if afterSpace {
			s = strings.TrimLeft(s, " ")
		}
		if s != "" {
			b.WriteString(strings.ReplaceAll(s, " ", gap))
			afterSpace = p.collapseSpace && strings.HasSuffix(s, " ")
		}
	}
	out := b.String()
	for p.collapseSpace && strings.HasSuffix(out, gap) {
		out = strings.TrimSuffix(out, gap)
	}
	return out
}

// A charsmap replaces characters and sequences of them. The units are a trie as a double array:
// each has 10 bits of label and flags, and 22 bits that lead to its children.
type charsmap struct {
	units   []uint32
	strings string // the replacements, each with a zero byte at its end
}

func parseCharsmap(data []byte) (c charsmap, err error) {
	if len(data) == 0 {
		return c, nil
	}
	if len(data) < 4 {
		return c, errors.New("precompiled_charsmap is cut off")
	}
	size := int(binary.LittleEndian.Uint32(data))
	if size%4 != 0 || size > len(data)-4 {
		return c, errors.New("precompiled_charsmap is cut off")
	}
	c.units = make([]uint32, size/4)
	for i := range c.units {
		c.units[i] = binary.LittleEndian.Uint32(data[4+4*i:])
	}
	c.strings = string(data[4+size:])
	return c, nil
}

// next returns the replacement of the longest sequence at the start of text that has one, or the
// first character, and how many bytes of text it stands for.
func (c *charsmap) next(text string) (string, int) {
	if value, n := c.longest(text); n > 0 {
		if value < len(c.strings) {
			s, _, _ := strings.Cut(c.strings[value:], "\x00")
			if utf8.ValidString(s) {
				return s, n
			}
		}
	}
	_, n := utf8.DecodeRuneInString(text)
	return text[:n], n
}

// longest returns the value of the longest key at the start of text, and its length.
func (c *charsmap) longest(text string) (value, length int) {
	if len(c.units) == 0 {
		return 0, 0
	}
	offset := func(unit uint32) int { return int(unit >> 10 << (unit & (1 << 9) >> 6)) }
	at := offset(c.units[0])
	for i := range len(text) {
		at ^= int(text[i])
		if at >= len(c.units) {
			break
		}
		unit := c.units[at]
		if unit&(1<<31|0xff) != uint32(text[i]) {
			break
		}
		at ^= offset(unit)
		if at >= len(c.units) {
			break
		}
		if unit>>8&1 == 1 {
			value, length = int(c.units[at]&(1<<31-1)), i+1
		}
	}
	return value, length
}

// field is one field of a message of Protocol Buffers.
type field struct {
	number uint64
	value  uint64 // of a number
	bytes  []byte // of a string or message
}

// fields calls f for each field of a message.
func fields(data []byte, f func(field) error) error {
	cut := errors.New("a message is cut off or damaged")
	number := func() (uint64, bool) {
		v, n := binary.Uvarint(data)
		if n <= 0 {
			return 0, false
		}
		data = data[n:]
		return v, true
	}
	for len(data) > 0 {
		key, ok := number()
		if !ok {
			return cut
		}
		one := field{number: key >> 3}
		switch key & 7 {
		case 0:
			if one.value, ok = number(); !ok {
				return cut
			}
		case 1:
			if len(data) < 8 {
				return cut
			}
			one.value, data = binary.LittleEndian.Uint64(data), data[8:]
		case 5:
			if len(data) < 4 {
				return cut
			}
			one.value, data = uint64(binary.LittleEndian.Uint32(data)), data[4:]
		case 2:
			n, ok := number()
			if !ok || n > uint64(len(data)) {
				return cut
			}
			one.bytes, data = data[:n], data[n:]
		default:
			return cut
		}
		if err := f(one); err != nil {
			return err
		}
	}
	return nil
}
