package serve

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"cyclecap/pipeline"
)

// TestCheckTexts compares the limit of a text's length with that of the encoder.
func TestCheckTexts(t *testing.T) {
	m, err := load(worldModel())
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	most := int(m.clip.Model.ContextLength())
	for words, tooLong := range map[int]bool{0: false, 1: false, most - 2: false, most - 1: true, 3 * most: true} {
		texts := []string{"a", strings.TrimSpace(strings.Repeat("a ", words))}
		tokens, err := checkTexts(m, texts, false)
		for _, e := range m.clip.Texts(t.Context(), texts, 2, false) {
			if (e != nil) != tooLong {
				t.Errorf("%d words: the encoder says %v", words, e)
			}
		}
		if (err != nil) != tooLong || err == nil && tokens != 3+words+2 {
			t.Errorf("%d words: %d tokens, %v", words, tokens, err)
		}
		if tokens, err := checkTexts(m, texts, true); err != nil || tokens != 3+min(words+2, most) {
			t.Errorf("%d words, cut: %d tokens, %v", words, tokens, err)
		}
	}
}

// written feeds the tokens of texts to a lineWriter, one of each text in turn, and returns the
// pieces.
func written(t *testing.T, d *pipeline.Decoder, cut int, texts ...string) (pieces []string) {
	t.Helper()
	w := newLineWriter(&model{captioner: &pipeline.Captioner{Decoder: d}}, worldModel().Options, len(texts))
	w.stop, w.most = -1, 0 // the test says what ends
	var ids [][]int
	for _, text := range texts {
		ids = append(ids, d.GPT2.Tokenizer.Encode(text))
	}
	ids[0] = ids[0][:len(ids[0])-cut]
	for k, more := 0, true; more; k++ {
		more = false
		for i, list := range ids {
			if k >= len(list) {
				continue
			}
			more, w.most = true, len(list)
			out, err := w.add(i, int64(list[k]), 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range out {
				var said strings.Builder
				for _, token := range p.tokens {
					said.WriteString(token.Text)
				}
				if strings.TrimSpace(said.String()) != strings.TrimSpace(p.text) {
					t.Errorf("a piece says %q, its tokens %q", p.text, said.String())
				}
				pieces = append(pieces, p.text)
			}
		}
	}
	return pieces
}

// TestLineWriter checks that pieces are complete characters, in the order of the lines, and
// together the captions.
func TestLineWriter(t *testing.T) {
	m, err := load(worldModel())
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	d := m.captioner.Decoder
	for _, texts := range [][]string{
		{" a red cup."},
		{" a  cup \n"},
		{" ein Käse, 日本 🙂."},
		{" a cup", " a much longer caption than the first", " b"},
		{" a much longer caption than the second", " ü", ""},
	} {
		if slices.Contains(texts, "") {
			texts = texts[:len(texts)-1]
		}
		pieces := written(t, d, 0, texts...)
		want := make([]string, len(texts))
		for i, text := range texts {
			want[i] = strings.TrimSpace(text)
		}
		if got := strings.Join(pieces, ""); got != strings.Join(want, "\n") {
			t.Errorf("%q: got %q", texts, got)
		}
		for _, p := range pieces {
			if !utf8.ValidString(p) || strings.Contains(p, "\uFFFD") {
				t.Errorf("%q has the piece %q", texts, p)
			}
		}
		if len(pieces) < 2 {
			t.Errorf("%q in %d pieces", texts, len(pieces))
		}
	}
	// The bytes of ü are two tokens, of which the last is missing.
	if got := strings.Join(written(t, d, 1, " a ü"), ""); got != "a \uFFFD" {
		t.Errorf("a cut character: %q", got)
	}
}
