package ptb_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"cyclecap/eval/ptb"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// pairs are strings and what the reference makes of them
// (testdata/reference/metrics.py).
func pairs(t testing.TB) (list [][2]string) {
	t.Helper()
	data, err := os.ReadFile("testdata/tokens.json")
	if err == nil {
		err = json.Unmarshal(data, &list)
	}
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestReference(t *testing.T) {
	list := pairs(t)
	if len(list) < 2000 {
		t.Fatalf("only %d strings in the fixture", len(list))
	}
	for _, p := range list {
		if got := ptb.Tokenize(p[0]); got != p[1] {
			t.Errorf("%q:\ngot  %q\nwant %q", p[0], got, p[1])
		}
	}
}

// One word of every behaviour in words.txt, and its neighbours, with what the
// reference makes of them.
func TestWords(t *testing.T) {
	for in, want := range map[string]string{
		"Messrs. 5":                       "messrs. 5",
		"messrs. q":                       "messrs. q",
		"Jan.a q":                         "jan. a q",
		"Dr.a q":                          "dr.a q",
		"ark. q":                          "ark q",
		"Ark. q":                          "ark. q",
		"q mfg. q":                        "q mfg. q",
		"q MFG. q":                        "q mfg q",
		"q Mfg. q":                        "q mfg. q",
		"fig. q":                          "fig q",
		"fig. 5":                          "fig. 5",
		"fig.5":                           "fig. 5",
		"q b. The q":                      "q b the q",
		"q b. Mr. q":                      "q b mr. q",
		"q b. Them q":                     "q b. them q",
		"q 2.docx q":                      "q 2.docx q",
		"q 2.docy q":                      "q 2 docy q",
		"q 2.CLASS, q":                    "q 2.class q",
		"q can't li'l li’l cap'n cap’n q": "q ca n't li'l li l cap'n cap’n q",
		"q cont'd. q":                     "q cont'd. q",
		"q Non-u.s q":                     "q non-u.s q",
		"q nin-u.s q":                     "q nin-u s q",
		"q u.s.-u.k q":                    "q u.s.-u.k q",
		"q &ht; &hx; q":                   "q &ht; & hx q",
		"Gimme q wanna":                   "gim me q wan na",
	} {
		if got := ptb.Tokenize(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestLineEnds(t *testing.T) {
	for _, end := range []string{"\n", "\r", "\v", "\f", "\r\n", "\u2028", "\u2029"} {
		if diff := cmp.Diff("a dog runs", ptb.Tokenize("A dog."+end+"runs"+end)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", end, diff)
		}
	}
}

func TestOddInput(t *testing.T) {
	for in, want := range map[string]string{
		"":               "",
		"\x00\x01\x7f":   "",
		"a\x00b":         "a b",
		"a \xff\xfe dog": "a dog", // no UTF-8
		"\U0001F600":     "",
		"...":            "",
		" \u00a0 ":       "",
	} {
		if got := ptb.Tokenize(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// Any string gives lower-case tokens with single spaces between them.
func TestAnyString(t *testing.T) {
	list := pairs(t)
	piece := rapid.OneOf(rapid.String(), rapid.Custom(func(t *rapid.T) string {
		return rapid.SampledFrom(list).Draw(t, "case")[0]
	}))
	rapid.Check(t, func(t *rapid.T) {
		in := strings.Join(rapid.SliceOfN(piece, 0, 5).Draw(t, "pieces"), rapid.SampledFrom([]string{"", " ", "."}).Draw(t, "between"))
		got := ptb.Tokenize(in)
		if !utf8.ValidString(got) {
			t.Fatalf("%q: %q is not UTF-8", in, got)
		}
		if strings.Contains(got, "  ") || strings.HasPrefix(got, " ") || strings.HasSuffix(got, " ") || strings.ContainsAny(got, "\n\r\v\fABCDEFGHIJKLMNOPQRSTUVWXYZ") {
			t.Fatalf("%q: %q", in, got)
		}
	})
}

// The worst strings for every rule that looks ahead take time that grows with
// their length and no faster: twenty times longer may not take a hundred times
// longer.
func TestLinear(t *testing.T) {
	for _, piece := range []string{"a ", "a,", "a.", "a.b", "-", "-a", "1-", "1,", "1.", "(", "<", "<a ", "<!", "<a b=\"", "'", "''", "a@", "@", "a@b..", "@.",
		"www.", "www.a/", "http://", ".com", "a.com/", "é", "a&", "&", "A&", "a/", "\u00ad", "1/", "+1 ", "555-", ". ", "I. ", ".", "?", "[", "=", "*", "_", ">", "&lt;", "&eacute;", "&#1", "<a b=c ", "<a b='", "a\u2019", "www.a.com/", "x.com.", "a'", "n't", "#", "é.", "x_", "^_", "😀"} {
		took := func(n int) time.Duration {
			in := strings.Repeat(piece, n)
			best := time.Hour
			for range 3 {
				start := time.Now()
				ptb.Tokenize(in)
				best = min(best, time.Since(start))
			}
			return best
		}
		short, long := took(2000), took(40000)
		if long > 100*short && long > 50*time.Millisecond {
			t.Errorf("%q: %v for 2,000 of them, %v for 40,000", piece, short, long)
		}
	}
}

func BenchmarkTokenize(b *testing.B) {
	data, err := os.ReadFile("../testdata/fakecap/captions_val2014.json")
	if err != nil {
		b.Fatal(err)
	}
	var set struct{ Annotations []struct{ Caption string } }
	if err := json.Unmarshal(data, &set); err != nil {
		b.Fatal(err)
	}
	size := int64(0)
	for _, a := range set.Annotations {
		size += int64(len(a.Caption))
	}
	b.SetBytes(size)
	for b.Loop() {
		for _, a := range set.Annotations {
			ptb.Tokenize(a.Caption)
		}
	}
}

func ExampleTokenize() {
	fmt.Println(ptb.Tokenize("A man's dog isn't here."))
	// Output: a man 's dog is n't here
}
