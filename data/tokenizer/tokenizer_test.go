package tokenizer

import (
	"compress/gzip"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func readJSON(t testing.TB, file string, v any) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// equalIDs compares lists of ids; an empty list equals nil.
func equalIDs(t *testing.T, what string, want, got []int) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// TestCases tests the strings in the project's reference data. In cases.json, the GPT-2
// ids treat a special token as such.
func TestCases(t *testing.T) {
	var file struct {
		Cases []struct {
			Text        string `json:"text"`
			GPT2        []int  `json:"gpt2"`
			CLIP        []int  `json:"clip"`
			Fits        bool   `json:"clip_fits_77"`
			GPT2Decoded string `json:"gpt2_decoded"`
			CLIPDecoded string `json:"clip_decoded"`
		} `json:"cases"`
	}
	readJSON(t, "testdata/cases.json", &file)
	if len(file.Cases) != 200 {
		t.Fatalf("testdata/cases.json has %d cases, not 200", len(file.Cases))
	}
	for _, c := range file.Cases {
		t.Run(c.Text, func(t *testing.T) {
			equalIDs(t, "GPT-2 ids", c.GPT2, GPT2().EncodeSpecial(c.Text))
			equalIDs(t, "CLIP ids", c.CLIP, CLIP().Encode(c.Text))
			checkFits(t, c.Text, c.Fits)
			if diff := cmp.Diff(c.GPT2Decoded, decode(t, GPT2(), c.GPT2)); diff != "" {
				t.Errorf("GPT-2 text (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.CLIPDecoded, decode(t, CLIP(), c.CLIP)); diff != "" {
				t.Errorf("CLIP text (-want +got):\n%s", diff)
			}
		})
	}
}

// TestMoreCases tests further strings, with OpenAI's encoders as the reference.
func TestMoreCases(t *testing.T) {
	var file struct {
		Items []struct {
			Text        string `json:"text"`
			Cleaned     string `json:"clip_cleaned"`
			CLIP        []int  `json:"clip_ids"`
			Length      int    `json:"clip_len_with_sot_eot"`
			Fits        bool   `json:"clip_fits_77"`
			GPT2        []int  `json:"gpt2_ids"`
			GPT2Decoded string `json:"gpt2_decoded"`
			CLIPDecoded string `json:"clip_decoded"`
		} `json:"items"`
	}
	readJSON(t, "testdata/more_cases.json", &file)
	if len(file.Items) != 176 {
		t.Fatalf("testdata/more_cases.json has %d items, not 176", len(file.Items))
	}
	for _, c := range file.Items {
		t.Run(c.Text, func(t *testing.T) {
			if diff := cmp.Diff(c.Cleaned, CLIP().Clean(c.Text)); diff != "" {
				t.Errorf("cleaned (-want +got):\n%s", diff)
			}
			equalIDs(t, "GPT-2 ids", c.GPT2, GPT2().EncodePlain(c.Text))
			equalIDs(t, "CLIP ids", c.CLIP, CLIP().Encode(c.Text))
			checkFits(t, c.Text, c.Fits)
			context, err := CLIP().Context(c.Text, c.Length, false)
			if err != nil || context[c.Length-1] != CLIP().EndID() {
				t.Errorf("Context of %d: %v, %v", c.Length, context, err)
			}
			if diff := cmp.Diff(c.GPT2Decoded, decode(t, GPT2(), c.GPT2)); diff != "" {
				t.Errorf("GPT-2 text (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.CLIPDecoded, decode(t, CLIP(), c.CLIP)); diff != "" {
				t.Errorf("CLIP text (-want +got):\n%s", diff)
			}
		})
	}
}

func checkFits(t *testing.T, text string, fits bool) {
	t.Helper()
	if _, err := CLIP().Context(text, ContextLength, false); (err == nil) != fits {
		t.Errorf("fits %d: want %v, got error %v", ContextLength, fits, err)
	}
}

func TestSpecial(t *testing.T) {
	tests := []struct {
		name   string
		encode func(string) []int
		text   string
		want   []int
	}{
		{"GPT-2 plain", GPT2().EncodePlain, "a<|endoftext|> b", []int{64, 27, 91, 437, 1659, 5239, 91, 29, 275}},
		{"GPT-2 special", GPT2().Encode, "a<|endoftext|> b", []int{64, 50256, 275}},
		{"GPT-2 special alone", GPT2().EncodeSpecial, "<|endoftext|><|endoftext|>", []int{50256, 50256}},
		{"GPT-2 has no start", GPT2().EncodeSpecial, "<|startoftext|>", []int{27, 91, 9688, 1659, 5239, 91, 29}},
		{"GPT-2 has no capitals", GPT2().EncodeSpecial, "<|ENDOFTEXT|>", GPT2().Encode("<|ENDOFTEXT|>")},
		{"CLIP special", CLIP().Encode, "a <|endoftext|> b", []int{320, 49407, 321}},
		{"CLIP special in capitals", CLIP().EncodeSpecial, "<|StartOfText|>A", []int{49406, 320}},
		{"CLIP special inside punctuation", CLIP().EncodeSpecial, "!<|endoftext|>", CLIP().EncodePlain("!<|endoftext|>")},
		{"CLIP plain", CLIP().EncodePlain, "<|endoftext|>", slices.Concat(CLIP().Encode("<|"), CLIP().Encode("endoftext"), CLIP().Encode("|>"))},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { equalIDs(t, test.text, test.want, test.encode(test.text)) })
	}
}

func TestContext(t *testing.T) {
	long := strings.Repeat("dog ", 80)
	tests := []struct {
		name     string
		text     string
		length   int
		truncate bool
		want     []int
		wantErr  []string
	}{
		{"padded", "a dog", 7, false, []int{49406, 320, 1929, 49407, 0, 0, 0}, nil},
		{"empty", "", 3, false, []int{49406, 49407, 0}, nil},
		{"just fits", "a dog", 4, false, []int{49406, 320, 1929, 49407}, nil},
		{"too long", "a dog", 3, false, nil, []string{"2 tokens", "4 with start and end", "context has only 3", "truncat", `"a dog"`}},
		{"cut", "a dog", 3, true, []int{49406, 320, 49407}, nil},
		{"cut to nothing", "a dog", 2, true, []int{49406, 49407}, nil},
		{"77", long, ContextLength, true, slices.Concat([]int{49406}, slices.Repeat([]int{1929}, 75), []int{49407}), nil},
		{"77, too long", long, ContextLength, false, nil, []string{"80 tokens", "77"}},
		{"no room", "a", 1, true, nil, []string{"at least 2"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := CLIP().Context(test.text, test.length, test.truncate)
			equalIDs(t, test.text, test.want, got)
			checkError(t, err, test.wantErr)
		})
	}
}

// checkError checks that err contains all of what, or is nil if what is nil.
func checkError(t *testing.T, err error, what []string) {
	t.Helper()
	if (err != nil) != (what != nil) {
		t.Errorf("error: want %q, got %v", what, err)
		return
	}
	for _, s := range what {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("error does not say %q: %v", s, err)
		}
	}
}

func TestDecode(t *testing.T) {
	tests := []struct {
		name    string
		tok     Tokenizer
		ids     []int
		want    string
		wantErr []string
	}{
		{"nothing", GPT2(), nil, "", nil},
		{"last id of GPT-2", GPT2(), []int{50256}, "<|endoftext|>", nil},
		{"beyond GPT-2", GPT2(), []int{1, 50257}, "", []string{"token 1 of 2", "50257", "must be between 0 and 50256"}},
		{"negative", GPT2(), []int{-1}, "", []string{"token 0 of 1", "-1"}},
		{"last id of CLIP", CLIP(), []int{49406, 320, 49407, 0}, "<|startoftext|>a <|endoftext|>!", nil},
		{"beyond CLIP", CLIP(), []int{49408}, "", []string{"49408", "must be between 0 and 49407"}},
		// 😀 is F0 9F 98 80: the first three bytes are one broken character.
		{"half a character", GPT2(), []int{47249, 222}, "😀", nil},
		{"half a character, cut", GPT2(), []int{47249}, "\uFFFD", nil},
		{"a word end spelt out goes too", CLIP(), []int{27, 14, 86, 29}, " ", nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := test.tok.Decode(test.ids)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("%v (-want +got):\n%s", test.ids, diff)
			}
			checkError(t, err, test.wantErr)
		})
	}
}

// TestDecodeUTF8 compares with bytes.decode("utf-8", "replace") in Python 3.11.
func TestDecodeUTF8(t *testing.T) {
	const bad = "\uFFFD"
	tests := []struct{ in, want string }{
		{"", ""},
		{"é€😀", "é€😀"},
		{"\x80", bad},
		{"\x80\xbf", bad + bad},
		{"\xc0\x80", bad + bad},
		{"\xc2", bad},
		{"\xc2A", bad + "A"},
		{"\xe2\x82A", bad + "A"},
		{"\xe0\x80\x80", bad + bad + bad},
		{"\xed\xa0\x80", bad + bad + bad},
		{"\xed\x9f", bad},
		{"\xf0\x9f\x98", bad},
		{"\xf0\x9f\x98\xf0\x9f", bad + bad},
		{"\xf0\x80\x80\x80", bad + bad + bad + bad},
		{"\xf4\x90\x80\x80", bad + bad + bad + bad},
		{"\xf4\x8f\xbfz", bad + "z"},
		{"\xf5\x80", bad + bad},
		{"\xff\xfe", bad + bad},
	}
	for _, test := range tests {
		if diff := cmp.Diff(test.want, decodeUTF8([]byte(test.in))); diff != "" {
			t.Errorf("%q (-want +got):\n%s", test.in, diff)
		}
	}
}

func TestTextThatIsNotUTF8(t *testing.T) {
	tests := []struct{ in, want string }{
		{"a\xffb", "a\uFFFDb"},
		{"\xed\xa0\xbd\xed\xb8\x80", "😀"},
		{"\xed\xa0\xbd", "\uFFFD"},
		{"\xed\xb8\x80\xed\xa0\xbd", "\uFFFD\uFFFD"},
		{"\xed\xa0\xbd\xed\xa0\xbd\xed\xb8\x80x", "\uFFFD😀x"},
		{"\xf0\x9f\x98 \xed\xa0", "\uFFFD \uFFFD\uFFFD"},
	}
	for _, test := range tests {
		if diff := cmp.Diff(test.want, validText(test.in)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", test.in, diff)
		}
		for _, tok := range []Tokenizer{CLIP(), GPT2()} {
			equalIDs(t, test.in, tok.Encode(test.want), tok.Encode(test.in))
		}
	}
}

// TestVocabulary checks every token against the encoder: each token except the special
// ones is what its own bytes encode to, with each way of merging.
func TestVocabulary(t *testing.T) {
	for _, v := range []struct {
		name string
		bpe  *bpe
		size int
	}{{"CLIP", CLIP().bpe, 49408}, {"GPT-2", GPT2().bpe, 50257}} {
		t.Run(v.name, func(t *testing.T) {
			if v.bpe.size() != v.size {
				t.Fatalf("%d tokens, want %d", v.bpe.size(), v.size)
			}
			seen := make(map[string]bool)
			for id := range v.bpe.special {
				word := v.bpe.token(id)
				if key := word + map[bool]string{true: wordEnd}[v.bpe.endsWord(id)]; seen[key] {
					t.Errorf("token %d, %q, occurs twice", id, key)
				} else {
					seen[key] = true
				}
				if v.bpe.base == 512 && !v.bpe.endsWord(id) {
					continue // only the start of a word
				}
				// The table of whole words must be a shortcut, not another rule.
				if got := v.bpe.appendWord(nil, word); !slices.Equal(got, []int{id}) {
					t.Errorf("token %d, %q: appendWord gives %v", id, word, got)
				}
				if got := v.bpe.appendLong(nil, word); !slices.Equal(got, []int{id}) {
					t.Errorf("token %d, %q: appendLong gives %v", id, word, got)
				}
				if len(word) <= shortWord {
					if got := v.bpe.appendShort(nil, word); !slices.Equal(got, []int{id}) {
						t.Errorf("token %d, %q: appendShort gives %v", id, word, got)
					}
				}
			}
			// This makes one merge at a time equivalent to all equal merges at once.
			for pair, id := range v.bpe.merged {
				if left, right := uint16(pair>>16), uint16(pair); left >= id || right >= id {
					t.Errorf("token %d is made of later tokens %d, %d", id, left, right)
				}
			}
		})
	}
}

// TestClasses compares the classes of all characters with PyPI's regex.
func TestClasses(t *testing.T) {
	var ref struct {
		Letters [][2]rune `json:"letters"`
		Numbers [][2]rune `json:"numbers"`
		Space   [][2]rune `json:"space"`
	}
	f, err := os.Open("internal/fixtext/testdata/reference.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewDecoder(z).Decode(&ref); err != nil {
		t.Fatal(err)
	}
	want := make([]class, unicode.MaxRune+1)
	total := 0
	for c, ranges := range map[class][][2]rune{letter: ref.Letters, number: ref.Numbers, space: ref.Space} {
		for _, p := range ranges {
			for r := p[0]; r <= p[1]; r++ {
				want[r] = c
				total++
			}
		}
	}
	if total < 140000 {
		t.Fatalf("the reference has only %d characters", total)
	}
	differ := 0
	for r := range unicode.MaxRune + 1 {
		if got := classOf(r); got != want[r] {
			if differ++; differ < 20 {
				t.Errorf("%U: class %d, want %d", r, got, want[r])
			}
		}
	}
	t.Logf("%d characters differ", differ)
}

// TestLongWords compares the two ways of merging, and encodes a megabyte that is one word:
// quadratic time would take hours and run into go test's own time limit. (A limit of our own
// would measure how busy the machine is.)
func TestLongWords(t *testing.T) {
	for _, b := range []*bpe{CLIP().bpe, GPT2().bpe} {
		for _, c := range readComposed(t, "testdata/composed.jsonl.gz") {
			if word := c.Text[:min(len(c.Text), shortWord)]; word != "" {
				equalIDs(t, word, b.appendShort(nil, word), b.appendLong(nil, word))
			}
		}
	}

	mega := 1 << 20
	if testing.Short() { // make race: nothing here is concurrent, and it would take most of the time
		mega = 1 << 14
	}
	for _, text := range []string{strings.Repeat("a", mega), strings.Repeat("=", mega), strings.Repeat("ab", mega/2), strings.Repeat("あ", mega/3), strings.Repeat(" ", mega)} {
		ids := GPT2().Encode(text)
		if got := decode(t, GPT2(), ids); got != text {
			t.Errorf("%.3q… comes back changed", text)
		}
		CLIP().Encode(text)
	}
}

func TestConcurrent(t *testing.T) {
	want := [][]int{CLIP().Encode("Two dogs’ “walk” cafÃ©"), GPT2().Encode("Two dogs walk")}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				equalIDs(t, "CLIP", want[0], CLIP().Encode("Two dogs’ “walk” cafÃ©"))
				equalIDs(t, "GPT-2", want[1], GPT2().Encode("Two dogs walk"))
			}
		})
	}
	wg.Wait()
}

// fuzzSeeds are texts that reach the corner cases of the code.
var fuzzSeeds = []string{
	"", "A photo of a dog.", "it's  12\n\n 日本語", "piÃƒÂ±as &amp;amp;lt; &#x2019;", "<|startoftext|>x<|endoftext|>", "\xed\xa0\xbd\xed\xb8\x80\xff",
	"Ã\xa0 la\x1b[31m \r\n \x85", "ΑΣ İ ﬁ ｶﾞ", strings.Repeat("x", 100), "â€œ like this â€�", "a\u0300\u0316\u0345", "</w>",
}

func FuzzGPT2(f *testing.F) {
	for _, s := range fuzzSeeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want := validText(s)
		if utf8.ValidString(s) && want != s {
			t.Fatalf("validText changes %q to %q", s, want)
		}
		for _, ids := range [][]int{GPT2().EncodePlain(s), GPT2().EncodeSpecial(s)} {
			if got := decode(t, GPT2(), ids); got != want {
				t.Fatalf("%q comes back as %q", want, got)
			}
		}
	})
}

func FuzzCLIP(f *testing.F) {
	for _, s := range fuzzSeeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		cleaned := CLIP().Clean(s)
		if !utf8.ValidString(cleaned) || cleaned != strings.TrimSpace(cleaned) {
			t.Fatalf("%q is cleaned to %q", s, cleaned)
		}
		for _, ids := range [][]int{CLIP().Encode(s), CLIP().EncodePlain(s)} {
			// Except for white space, the text comes back, unless it spells out a word end.
			squeeze := func(s string) string {
				return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || r == 0x345 }), "")
			}
			if got := decode(t, CLIP(), ids); !strings.Contains(squeeze(cleaned), wordEnd) && squeeze(got) != squeeze(cleaned) {
				t.Fatalf("%q comes back as %q", cleaned, got)
			}
		}
		context, err := CLIP().Context(s, ContextLength, true)
		if err != nil || len(context) != ContextLength || !slices.Contains(context, CLIP().EndID()) {
			t.Fatalf("context %v, %v", context, err)
		}
	})
}

// FuzzDecode decodes any ids, two bytes each.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{0, 1, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		var ids []int
		for i := 0; i+1 < len(b); i += 2 {
			ids = append(ids, int(b[i])<<8|int(b[i+1]))
		}
		for _, tok := range []Tokenizer{CLIP(), GPT2()} {
			s, err := tok.Decode(ids)
			if outside := slices.ContainsFunc(ids, func(id int) bool { return id >= tok.VocabSize() }); (err != nil) != outside || !utf8.ValidString(s) {
				t.Fatalf("%v: %q, %v", ids, s, err)
			}
		}
	})
}

// gpt2First merges like GPT2, up to its last merge.
func TestFirst(t *testing.T) {
	small, err := gpt2First(1000)
	if err != nil {
		t.Fatal(err)
	}
	all := GPT2()
	for _, text := range []string{"", "A red umbrella on the beach.", "naïve 東京 🙂", "<|endoftext|>", strings.Repeat("the cat ", 50)} {
		ids := small.EncodeSpecial(text)
		for _, id := range ids {
			if id >= 1000 {
				t.Fatalf("%q: id %d", text, id)
			}
		}
		// The ids are also tokens of the whole vocabulary.
		if back, err := all.Decode(ids); err != nil || back != text {
			t.Errorf("%q came back as %q (%v)", text, back, err)
		}
		// If the whole vocabulary needs no later merge, both agree.
		if whole := all.EncodePlain(text); slices.Max(append(whole, 0)) < 1000 && !slices.Equal(whole, ids) {
			t.Errorf("%q: %v and %v", text, ids, whole)
		}
	}
	if same, err := gpt2First(50257); err != nil || same != all {
		t.Error("50257 tokens are not GPT2", err)
	}
	for _, n := range []int{-1, 255, 50258} {
		if _, err := gpt2First(n); err == nil {
			t.Errorf("%d tokens are accepted", n)
		}
	}
}

// CLIPFirst merges like CLIP, up to its last merge, and its special tokens are the last ones.
func TestCLIPFirst(t *testing.T) {
	small, err := CLIPFirst(2048)
	if err != nil {
		t.Fatal(err)
	}
	if small.VocabSize() != 2048 || small.StartID() != 2046 || small.EndID() != 2047 {
		t.Errorf("%d tokens, start %d, end %d", small.VocabSize(), small.StartID(), small.EndID())
	}
	all := CLIP()
	for _, text := range []string{"", "A red umbrella on the beach.", "naïve 東京 🙂", strings.Repeat("the cat ", 50)} {
		ids := small.Encode(text)
		for _, id := range ids {
			if id >= small.StartID() {
				t.Fatalf("%q: id %d", text, id)
			}
		}
		// The ids are also tokens of the whole vocabulary.
		have, err := all.Decode(ids)
		want, failed := all.Decode(all.Encode(text))
		if err != nil || failed != nil || have != want {
			t.Errorf("%q came back as %q, want %q (%v, %v)", text, have, want, err, failed)
		}
		if whole := all.EncodePlain(text); slices.Max(append(whole, 0)) < small.StartID() && !slices.Equal(whole, ids) {
			t.Errorf("%q: %v and %v", text, ids, whole)
		}
	}
	context, err := small.Context("a red cat", 8, false)
	if err != nil || context[0] != small.StartID() || slices.Index(context, small.EndID()) < 3 {
		t.Errorf("%v, %v", context, err)
	}
	if same, err := CLIPFirst(49408); err != nil || same != all {
		t.Error("49408 tokens are not CLIP's", err)
	}
	for _, n := range []int{-1, 513, 49409} {
		if _, err := CLIPFirst(n); err == nil {
			t.Errorf("%d tokens are accepted", n)
		}
	}
}

// GPT2For splits the texts that it is made for as GPT-2 does, can encode every other text,
// and its merges are those of a merges.txt.
func TestGPT2For(t *testing.T) {
	texts := []string{"A red umbrella on the beach.\n", "Two umbrellas, a polka dot cat and naïve 東京 🙂", "ice-cream's 1234567"}
	small, all := GPT2For(slices.Values(texts)), GPT2()
	if n := small.VocabSize(); n < 256+10 || n > 400 {
		t.Errorf("%d tokens", n)
	}
	tokens := func(tok *GPT2Tokenizer, text string) (list []string) {
		for _, id := range tok.EncodePlain(text) {
			list = append(list, tok.token(id))
		}
		return list
	}
	for _, text := range texts {
		if have, want := tokens(small, text), tokens(all, text); !slices.Equal(have, want) {
			t.Errorf("%q: %q, want %q", text, have, want)
		}
	}
	for _, text := range []string{"", "A zebra <|endoftext|> in Zürich\x00 ", strings.Repeat("xylophone", 50)} {
		if back, err := small.Decode(small.Encode(text)); err != nil || back != text {
			t.Errorf("%q came back as %q (%v)", text, back, err)
		}
	}
	again, err := FromMerges(small.Merges())
	if err != nil || again.Fingerprint() != small.Fingerprint() || again.Merges() != small.Merges() {
		t.Fatalf("the merges came back otherwise (%v)", err)
	}
	if have, want := again.Encode(texts[1]), small.Encode(texts[1]); !slices.Equal(have, want) {
		t.Errorf("%v, want %v", have, want)
	}
	// The same by the reader of files, whose vocab.json gives the ids.
	v := &vocabulary{ids: map[string]int{}}
	for id := range small.VocabSize() {
		v.ids[spelled(small.token(id))] = id
	}
	if v.merges, err = parseMerges([]byte(small.Merges())); err != nil {
		t.Fatal(err)
	}
	loaded, err := v.with(nil)
	if err != nil || loaded.Fingerprint() != small.Fingerprint() || !slices.Equal(loaded.Encode(texts[1]), small.Encode(texts[1])) {
		t.Errorf("as files: %v", err)
	}
	if GPT2().Merges() != "" || loaded.Merges() != "" {
		t.Error("merges of other tokenizers")
	}
	for _, bad := range []string{"a", "a b c", "Ġ cat", "a b\na b", "a b\nab cd"} {
		if _, err := FromMerges(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}
