package tokenizer

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cyclecap/data/tokenizer/internal/fixtext"
)

var composedFile = flag.String("composed", "testdata/composed.jsonl.gz", "strings with the references' output, by testdata/compose.py")

// composed is a line of that file; testdata/compose.py documents its fields.
type composed struct {
	Text    string  `json:"t"`
	Fixed   *string `json:"f"`
	Cleaned string  `json:"c"`

	CLIP     []int  `json:"clip"`
	CLIPText string `json:"clip_text"`

	GPT2        []int  `json:"gpt2"`
	GPT2Text    string `json:"gpt2_text"`
	GPT2Special []int  `json:"gpt2_special"`
}

func readComposed(t testing.TB, file string) []composed {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	in := bufio.NewScanner(z)
	in.Buffer(nil, 64<<20)
	if !in.Scan() {
		t.Fatalf("%s is empty", file)
	}
	t.Logf("%s made with %s", file, in.Text())
	var all []composed
	for in.Scan() {
		var c composed
		if err := json.Unmarshal(in.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	if err := in.Err(); err != nil {
		t.Fatal(err)
	}
	if len(all) < 1000 {
		t.Fatalf("%s has %d strings", file, len(all))
	}
	return all
}

// TestComposed compares with the Python references on strings composed to be difficult.
func TestComposed(t *testing.T) {
	all := readComposed(t, *composedFile)
	type result struct {
		Fixed, Cleaned string
		CLIP           []int
		CLIPText       string
		GPT2           []int
		GPT2Text       string
		GPT2Special    []int
	}
	differ := 0
	for _, c := range all {
		want := result{c.Text, c.Cleaned, c.CLIP, c.CLIPText, c.GPT2, c.GPT2Text, c.GPT2}
		if c.Fixed != nil {
			want.Fixed = *c.Fixed
		}
		if c.GPT2Special != nil {
			want.GPT2Special = c.GPT2Special
		}
		got := result{
			Fixed:       fixtext.Fix(c.Text),
			Cleaned:     CLIP().Clean(c.Text),
			CLIP:        CLIP().Encode(c.Text),
			CLIPText:    decode(t, CLIP(), c.CLIP),
			GPT2:        GPT2().EncodePlain(c.Text),
			GPT2Text:    decode(t, GPT2(), c.GPT2),
			GPT2Special: GPT2().EncodeSpecial(c.Text),
		}
		if diff := cmp.Diff(want, got); diff != "" {
			if differ++; differ <= 20 {
				t.Errorf("%q (-want +got):\n%s", c.Text, diff)
			}
		}
	}
	t.Logf("%d of %d strings differ", differ, len(all))
}

func decode(t testing.TB, tok Tokenizer, ids []int) string {
	t.Helper()
	s, err := tok.Decode(ids)
	if err != nil {
		t.Error(err)
	}
	return s
}
