package tokenizer

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var siglipFolder = flag.String("siglip", "testdata/siglip", "folder that testdata/make_siglip.py has written")

func read(t testing.TB, path ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func siglipConfig(t testing.TB, data []byte) SigLIPConfig {
	t.Helper()
	c, err := ParseSigLIPConfig(data)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func siglips(t testing.TB, folder string) (*SigLIPTokenizer, *SigLIP2Tokenizer) {
	t.Helper()
	one, err := NewSigLIP(read(t, folder, "siglip", "spiece.model"), siglipConfig(t, read(t, folder, "siglip", "tokenizer_config.json")))
	if err != nil {
		t.Fatal(err)
	}
	two, err := NewSigLIP2(read(t, folder, "siglip2", "tokenizer.json"), siglipConfig(t, read(t, folder, "siglip2", "tokenizer_config.json")))
	if err != nil {
		t.Fatal(err)
	}
	return one, two
}

// The ids are those of transformers' SiglipTokenizer and Siglip2Tokenizer.
func TestSigLIP(t *testing.T) {
	one, two := siglips(t, *siglipFolder)
	z, err := gzip.NewReader(bytes.NewReader(read(t, *siglipFolder, "cases.jsonl.gz")))
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(z)
	lines.Buffer(nil, 1<<20)
	lines.Scan() // versions
	n, bad := 0, 0
	check := func(what, text string, got, want []int) {
		if !slices.Equal(got, want) {
			if bad++; bad < 20 {
				t.Errorf("%s of %q:\ngot  %v\nwant %v", what, text, got, want)
			}
		}
	}
	for lines.Scan() {
		var c struct {
			Text     string
			One, Two []int
			OneAll   []int `json:"one_all"`
			TwoAll   []int `json:"two_all"`
		}
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		n++
		got, err := one.Context(c.Text, SigLIPContextLength, true)
		if err != nil {
			t.Fatal(err)
		}
		check("SigLIP's context", c.Text, got, c.One)
		all := one.Encode(c.Text)
		if len(all) == 0 || all[len(all)-1] != one.eos {
			all = append(all, one.eos)
		}
		check("SigLIP's ids", c.Text, all, c.OneAll)
		if got, err = two.Context(c.Text, SigLIPContextLength, true); err != nil {
			t.Fatal(err)
		}
		check("SigLIP 2's context", c.Text, got, c.Two)
		check("SigLIP 2's ids", c.Text, slices.Concat(two.start, two.Encode(c.Text), two.end), c.TwoAll)
	}
	if err := lines.Err(); err != nil || n < 400 {
		t.Errorf("%d texts, want at least 400 (%v)", n, err)
	}
	if bad > 0 {
		t.Errorf("%d of %d texts", bad, n)
	}
}

func TestSigLIPContext(t *testing.T) {
	one, two := siglips(t, "testdata/siglip")
	for name, c := range map[string]interface {
		Encode(string) []int
		Context(string, int, bool) ([]int, error)
		Room(int) int
	}{"SigLIP": one, "SigLIP 2": two} {
		long := strings.Repeat("cat ", 80)
		if _, err := c.Context(long, 64, false); err == nil || !strings.Contains(err.Error(), "the context has room for only 63") {
			t.Errorf("%s: error %v, want one with the room", name, err)
		}
		if _, err := c.Context("a", 1, true); err == nil || !strings.Contains(err.Error(), "no room") {
			t.Errorf("%s: error %v, want one that says there is no room", name, err)
		}
		if c.Room(64) != 63 {
			t.Errorf("%s: room for %d, want 63", name, c.Room(64))
		}
	}
	left := siglipConfig(t, []byte(`{"padding_side": "left"}`))
	padded, err := NewSigLIP2(read(t, "testdata/siglip/siglip2/tokenizer.json"), left)
	if err != nil {
		t.Fatal(err)
	}
	got, err := padded.Context("a", 4, false)
	if want := []int{0, 0, two.Encode("a")[0], 1}; err != nil || !slices.Equal(got, want) {
		t.Errorf("padded on the left: %v and error %v, want %v", got, err, want)
	}
}

// The post_processor of tokenizer.json decides whether <eos> is added, as in transformers 5.
func TestSigLIP2WithoutEnd(t *testing.T) {
	var file map[string]any
	if err := json.Unmarshal(read(t, "testdata/siglip/siglip2/tokenizer.json"), &file); err != nil {
		t.Fatal(err)
	}
	file["post_processor"] = nil
	data, err := json.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	two, err := NewSigLIP2(data, siglipConfig(t, []byte(`{"add_eos_token": true}`)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := two.Context("a", 3, false)
	if want := []int{two.Encode("a")[0], 0, 0}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v and error %v, want %v", got, err, want)
	}
	if len(two.Notes()) != 1 {
		t.Errorf("notes %q, want one about add_eos_token", two.Notes())
	}
}

func TestSigLIPRefuses(t *testing.T) {
	file := string(read(t, "testdata/siglip/siglip2/tokenizer.json"))
	for _, c := range []struct{ old, now, want string }{
		{`"type": "BPE"`, `"type": "Unigram"`, `model.type is "Unigram"`},
		{`"end_of_word_suffix": null`, `"end_of_word_suffix": "</w>"`, "not supported"},
		{`"type": "Replace"`, `"type": "NFKC"`, "normalizer"},
		{`"type": "Split"`, `"type": "ByteLevel"`, "pre_tokenizer"},
		{`"unk_token": "<unk>"`, `"unk_token": "<what>"`, `no token "<what>"`},
		{`"merges": [`, `"merges": [["<pad>", "<eos>"], `, "merge 0"},
		{`"single_word": false`, `"single_word": true`, "single_word"},
		{`"<pad>": 0`, `"<pad>": -1`, "the id of token"},
	} {
		changed := strings.Replace(file, c.old, c.now, 1)
		if changed == file {
			t.Errorf("tokenizer.json does not hold %s", c.old)
			continue
		}
		if _, err := NewSigLIP2([]byte(changed), SigLIPConfig{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.now, err, c.want)
		}
	}
	for config, want := range map[string]string{
		`{"padding_side": "up"}`:      `padding_side is "up"`,
		`{"truncation_side": "left"}`: "truncation_side",
		`{"eos_token": 5}`:            "not a token",
		`[]`:                          "cannot unmarshal",
	} {
		if _, err := ParseSigLIPConfig([]byte(config)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", config, err, want)
		}
	}
	if _, err := NewSigLIP(read(t, "testdata/siglip/siglip/spiece.model"), siglipConfig(t, []byte(`{"added_tokens_decoder": {"3": {"content": "<x>"}}}`))); err == nil || !strings.Contains(err.Error(), `"<x>"`) {
		t.Errorf("error %v, want one that names the added token", err)
	}
	for kind, model := range map[string]string{
		"model_type is 2":     "\x12\x02\x18\x02",
		"byte_fallback":       "\x12\x03\x98\x02\x01",
		"no pieces":           "",
		"cut off":             "\x0a\x7f",
		"user-defined symbol": "\x0a\x05\x0a\x01a\x18\x04",
		"is there twice":      "\x0a\x03\x0a\x01a\x0a\x03\x0a\x01a",
	} {
		if _, err := NewSigLIP([]byte(model), SigLIPConfig{}); err == nil || !strings.Contains(err.Error(), kind) {
			t.Errorf("error %v, want one with %q", err, kind)
		}
	}
}

// Damaged files are refused, or give ids of the vocabulary; nothing panics.
func TestSigLIPDamagedFiles(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	text := "A cat </s> ▁x ＦULL ﬁ\u0301 İ <eos> ▁▁ \n\n 한국어 ①½"
	check := func(ids []int, size int) {
		for _, id := range ids {
			if id < 0 || id >= size {
				t.Fatalf("id %d of %d", id, size)
			}
		}
	}
	damage := func(data []byte) []byte {
		data = slices.Clone(data)
		for range 1 + random.IntN(4) {
			at := random.IntN(len(data))
			if random.IntN(2) == 0 {
				at = random.IntN(min(len(data), 9000)) // pieces and the start of the charsmap, or merges
			}
			data[at] = byte(random.Uint32())
		}
		if random.IntN(8) == 0 {
			data = data[:random.IntN(len(data))]
		}
		return data
	}
	model, file := read(t, "testdata/siglip/siglip/spiece.model"), read(t, "testdata/siglip/siglip2/tokenizer.json")
	loaded := 0
	for range 500 {
		if p, err := NewSigLIP(damage(model), SigLIPConfig{}); err == nil {
			loaded++
			check(p.Encode(text), p.VocabSize())
		}
		if p, err := NewSigLIP2(damage(file), SigLIPConfig{}); err == nil {
			loaded++
			check(p.Encode(text), p.VocabSize())
		}
	}
	if loaded < 100 {
		t.Errorf("only %d of 1000 damaged files were tried", loaded)
	}
}
