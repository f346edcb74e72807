package tokenizer

import (
	"errors"
	"flag"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// folder returns a read function for Load.
func folder(dir string) func(string) ([]byte, error) {
	return func(name string) ([]byte, error) {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return data, err
	}
}

var loaded = flag.String("loaded", "testdata/gpt2", "compare tokenizers with the output of testdata/reference/tokenizers_gpt2.py in this `folder`")

// TestLoad compares byte-level BPE tokenizers in all their forms of files with Python.
func TestLoad(t *testing.T) {
	var file struct {
		Cases map[string]struct {
			Rows [][3]any `json:"rows"`
		} `json:"cases"`
	}
	readJSON(t, filepath.Join(*loaded, "cases.json"), &file)
	if len(file.Cases) != 3 {
		t.Fatalf("%d cases, want 3", len(file.Cases))
	}
	for _, name := range slices.Sorted(maps.Keys(file.Cases)) {
		t.Run(name, func(t *testing.T) {
			tok, from, err := Load(folder(filepath.Join(*loaded, name)))
			if err != nil {
				t.Fatal(err)
			}
			if want := map[string]string{"saved": "tokenizer.json", "files": "vocab.json", "prefix": "tokenizer.json"}[name]; from != want {
				t.Errorf("from %q, want %q", from, want)
			}
			differing := 0
			for _, row := range file.Cases[name].Rows {
				var ids []int
				for _, id := range row[1].([]any) {
					ids = append(ids, int(id.(float64)))
				}
				text, isText := row[0].(string)
				if isText && !slices.Equal(ids, tok.Encode(text)) {
					differing++
					if differing < 10 {
						t.Errorf("%q: %v, want %v", text, tok.Encode(text), ids)
					}
				}
				if got := decode(t, tok, ids); got != row[2] {
					t.Errorf("%v: %q, want %q", ids, got, row[2])
				}
			}
			t.Logf("%d of %d differ", differing, len(file.Cases[name].Rows))
		})
	}
}

// files are the files of a tokenizer, by name.
type files map[string]string

func (f files) read(name string) ([]byte, error) {
	if text, ok := f[name]; ok {
		return []byte(text), nil
	}
	return nil, nil
}

// alphabet returns the tokens of all bytes, and more, as vocab.json.
func alphabet(more ...string) string {
	var b strings.Builder
	b.WriteString("{")
	id := 0
	add := func(token string) {
		if id > 0 {
			b.WriteString(",")
		}
		b.WriteString(strconv.QuoteToGraphic(token) + ":" + strconv.Itoa(id))
		id++
	}
	for _, r := range slices.Sorted(maps.Keys(byteOf)) {
		add(string(r))
	}
	for _, m := range more {
		add(m)
	}
	return b.String() + "}"
}

func bpeJSON(changes ...string) string {
	s := `{"added_tokens":[],"normalizer":null,"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},"post_processor":null,"decoder":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":` +
		alphabet("ab", "abc") + `,"merges":["a b","ab c"]}}`
	for i := 0; i+1 < len(changes); i += 2 {
		s = strings.Replace(s, changes[i], changes[i+1], 1)
	}
	return s
}

func TestLoadSmall(t *testing.T) {
	for name, c := range map[string]struct {
		files
		text string
		ids  []int
	}{
		"tokenizer.json":           {files{"tokenizer.json": bpeJSON()}, "abcab", []int{257, 256}},
		"without a type":           {files{"tokenizer.json": bpeJSON(`"type":"BPE",`, ``)}, "abc", []int{257}},
		"vocab.json":               {files{"vocab.json": alphabet("ab", "abc"), "merges.txt": "#version: 0.2\na b\r\nab c\n\n"}, "abcab", []int{257, 256}},
		"prefix space":             {files{"vocab.json": alphabet("ab"), "merges.txt": "a b", "tokenizer_config.json": `{"add_prefix_space":true}`}, "ab", []int{220, 256}},
		"a merge in another order": {files{"vocab.json": alphabet("abc", "ab"), "merges.txt": "ab c\na b"}, "abcab", []int{256, 257}},
		// The vocabulary has the word, but no merges lead to it.
		"a word that is not merged": {files{"vocab.json": alphabet("bc", "abc"), "merges.txt": "b c"}, "abc", []int{64, 256}},
		"the special token":         {files{"vocab.json": alphabet("<|endoftext|>"), "merges.txt": ""}, "a<|endoftext|>", []int{64, 256}},
		"only an added token":       {files{"added_tokens.json": `{"[PAD]":50257}`}, "a [PAD]<|endoftext|>", []int{64, 220, 50257, 50256}},
	} {
		t.Run(name, func(t *testing.T) {
			tok, _, err := Load(c.read)
			if err != nil {
				t.Fatal(err)
			}
			equalIDs(t, c.text, c.ids, tok.Encode(c.text))
		})
	}
	if tok, from, err := Load((files{}).read); tok != nil || from != "" || err != nil {
		t.Errorf("no files: %v, %q, %v", tok, from, err)
	}
}

// Other kinds of tokenizers, and files that no tokenizer has, are refused.
func TestLoadRefused(t *testing.T) {
	long := strings.Repeat("a", maxToken)
	for name, c := range map[string]struct {
		files
		want []string
	}{
		"BERT's class":          {files{"tokenizer_config.json": `{"tokenizer_class":"BertTokenizer"}`, "vocab.txt": "[PAD]\n"}, []string{"tokenizer_config.json", "BertTokenizer", "GPT-2"}},
		"BERT's vocabulary":     {files{"vocab.txt": "[PAD]\n"}, []string{"vocab.txt", "WordPiece"}},
		"SentencePiece":         {files{"spiece.model": "x"}, []string{"spiece.model", "SentencePiece"}},
		"WordPiece":             {files{"tokenizer.json": bpeJSON(`"BPE"`, `"WordPiece"`)}, []string{"tokenizer.json", "WordPiece"}},
		"CLIP's ends of words":  {files{"tokenizer.json": bpeJSON(`"merges"`, `"end_of_word_suffix":"</w>","merges"`)}, []string{"tokenizer.json", "end_of_word_suffix", "</w>"}},
		"a normalizer":          {files{"tokenizer.json": bpeJSON(`"normalizer":null`, `"normalizer":{"type":"NFC"}`)}, []string{"normalizer", "NFC"}},
		"another pattern":       {files{"tokenizer.json": bpeJSON(`"type":"ByteLevel"`, `"type":"Metaspace"`)}, []string{"pre_tokenizer", "Metaspace"}},
		"no pattern":            {files{"tokenizer.json": bpeJSON(`"add_prefix_space":false`, `"use_regex":false`)}, []string{"use_regex"}},
		"a space in one file":   {files{"tokenizer.json": bpeJSON(`"add_prefix_space":false`, `"add_prefix_space":true`)}, []string{"add_prefix_space", "tokenizer_config.json"}},
		"a token at the start":  {files{"tokenizer.json": bpeJSON(`"post_processor":null`, `"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{}},{"Sequence":{}}]}`)}, []string{"TemplateProcessing"}},
		"no decoder":            {files{"tokenizer.json": bpeJSON(`"decoder":{"type":"ByteLevel"},`, ``)}, []string{"decoder"}},
		"add_bos_token":         {files{"tokenizer_config.json": `{"add_bos_token":true}`}, []string{"add_bos_token"}},
		"no merges":             {files{"vocab.json": alphabet()}, []string{"merges.txt is missing"}},
		"no vocabulary":         {files{"merges.txt": ""}, []string{"vocab.json is missing"}},
		"no JSON":               {files{"vocab.json": `{"a":`, "merges.txt": ""}, []string{"vocab.json", "not valid JSON"}},
		"a list":                {files{"tokenizer.json": `[1]`}, []string{"tokenizer.json", "array"}},
		"an id that is a text":  {files{"vocab.json": `{"a":"b"}`, "merges.txt": ""}, []string{"vocab.json", "string"}},
		"no byte":               {files{"vocab.json": `{"a":0,"b":1}`, "merges.txt": ""}, []string{"vocab.json", "byte 0x"}},
		"the same id":           {files{"vocab.json": strings.Replace(alphabet("x1"), ":256", ":255", 1), "merges.txt": ""}, []string{"same id, 255"}},
		"a large id":            {files{"vocab.json": strings.Replace(alphabet("x1"), ":256", ":99999999999", 1), "merges.txt": ""}, []string{"id 99999999999"}},
		"a merge of one":        {files{"vocab.json": alphabet(), "merges.txt": "ab\n"}, []string{"merges.txt: line 1", "ab"}},
		"a merge of nothing":    {files{"vocab.json": alphabet(), "merges.txt": "a \n"}, []string{"merge 0"}},
		"an unknown part":       {files{"vocab.json": alphabet("ab"), "merges.txt": "a b\nab c\n"}, []string{"merge 1", "abc"}},
		"a long token":          {files{"vocab.json": alphabet(long, long+"b"), "merges.txt": long + " b\n"}, []string{"merge 0", "4096"}},
		"too many merges":       {files{"vocab.json": alphabet("ab"), "merges.txt": strings.Repeat("a b\n", maxMerges+1)}, []string{"merges", strconv.Itoa(maxMerges)}},
		"an added id that is -": {files{"added_tokens.json": `{"x1":-1}`}, []string{"x1", "-1"}},
		"an id of another":      {files{"added_tokens.json": `{"x1":5}`}, []string{"x1", "5", "another token"}},
		"single_word":           {files{"tokenizer.json": bpeJSON(`"added_tokens":[]`, `"added_tokens":[{"id":300,"content":"x1","single_word":true}]`)}, []string{"single_word"}},
		"a merge that is none":  {files{"tokenizer.json": bpeJSON(`"a b"`, `{}`)}, []string{"item 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := Load(c.read)
			checkError(t, err, c.want)
		})
	}
}

// A tokenizer for a model with fewer ids loses its added tokens, but no others.
func TestLimited(t *testing.T) {
	tok, _, err := Load(files{"added_tokens.json": `{"[PAD]":50257,"[MASK]":50260}`}.read)
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[int]bool{-1: false, 0: true, 50256: true, 50257: true, 50258: false, 50260: true, 50261: false} {
		if tok.Known(id) != want {
			t.Errorf("id %d is known: %v, want %v", id, !want, want)
		}
	}
	small, out, err := tok.Limited(50258)
	if err != nil || out != 1 || small.VocabSize() != 50258 {
		t.Fatalf("%d left out, vocabulary %d, %v", out, small.VocabSize(), err)
	}
	equalIDs(t, "a token that is left", []int{50257}, small.Encode("[PAD]"))
	equalIDs(t, "a token that is left out", GPT2().Encode("[MASK]"), small.Encode("[MASK]"))
	if _, _, err := tok.Limited(50000); err == nil || !strings.Contains(err.Error(), "50256") {
		t.Errorf("a smaller model: %v", err)
	}
	if small.Fingerprint() == tok.Fingerprint() || GPT2().Fingerprint() == tok.Fingerprint() {
		t.Error("different tokenizers have equal fingerprints")
	}
	if id, ok := tok.ID("."); id != 13 || !ok {
		t.Errorf("the id of . is %d, %v", id, ok)
	}
}

// GPT-2's own vocabulary, written as vocab.json and merges.txt, is GPT-2's.
func TestLoadGPT2(t *testing.T) {
	gpt2 := GPT2()
	charOf := map[byte]rune{}
	for r, b := range byteOf {
		charOf[b] = r
	}
	written := func(id int) string {
		var s []rune
		for _, b := range []byte(gpt2.bpe.token(id)) {
			s = append(s, charOf[b])
		}
		return string(s)
	}
	var vocab, merges strings.Builder
	vocab.WriteString(`{"<|endoftext|>":50256`)
	for id := range 50256 {
		vocab.WriteString("," + strconv.QuoteToGraphic(written(id)) + ":" + strconv.Itoa(id))
	}
	pairs := make([]string, 50256)
	for pair, id := range gpt2.bpe.merged {
		pairs[id] = written(int(pair>>16)) + " " + written(int(pair&0xFFFF))
	}
	merges.WriteString(strings.Join(pairs[256:], "\n"))
	tok, _, err := Load(files{"vocab.json": vocab.String() + "}", "merges.txt": merges.String()}.read)
	if err != nil {
		t.Fatal(err)
	}
	if tok.Fingerprint() != gpt2.Fingerprint() || tok.EndID() != 50256 {
		t.Error("not GPT-2's")
	}
	if !maps.Equal(tok.bpe.whole, gpt2.bpe.whole) || !maps.Equal(tok.bpe.merged, gpt2.bpe.merged) {
		t.Error("other merges")
	}
	for _, s := range []string{"A photo of a dog.<|endoftext|> È", strings.Repeat("a", 1000)} {
		equalIDs(t, s, gpt2.Encode(s), tok.Encode(s))
	}
}

// FuzzLoad reads any files, and encodes and decodes with what is accepted.
func FuzzLoad(f *testing.F) {
	f.Add(bpeJSON(), `{"added_tokens_decoder":{"300":{"content":"x1","lstrip":true}}}`, "", "", "a x1 abc")
	f.Add("", "", alphabet("ab"), "a b", "abab")
	f.Add("", `{"tokenizer_class":"GPT2Tokenizer","add_prefix_space":true}`, alphabet("ab", "<|endoftext|>"), "#version\na b", "a<|endoftext|>")
	f.Fuzz(func(t *testing.T, tokenizer, config, vocab, merges, text string) {
		in := files{}
		for name, s := range map[string]string{"tokenizer.json": tokenizer, "tokenizer_config.json": config, "vocab.json": vocab, "merges.txt": merges} {
			if s != "" {
				in[name] = s
			}
		}
		tok, _, err := Load(in.read)
		if err != nil || tok == nil {
			return
		}
		for _, ids := range [][]int{tok.Encode(text), tok.EncodePlain(text)} {
			decode(t, tok, ids)
		}
		if limited, _, err := tok.Limited(300); err == nil {
			limited.Encode(text)
		}
	})
}
