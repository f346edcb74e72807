package ptb_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"cyclecap/eval/ptb"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// pairs holds strings and the reference's output for them
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

// One word for every behaviour in words.txt, and its neighbours, with the reference's
// output.
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

// Any string yields lower-case tokens separated by single spaces.
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

// For every rule that looks ahead, the work for the worst strings is linear in their length:
// twice the string may not take much more than twice the work. Work is the number of
// statements of the package that run, as counted by go test -cover.
func TestLinear(t *testing.T) {
	if piece := os.Getenv("CYCLECAP_TEST_PIECE"); piece != "" {
		n, err := strconv.Atoi(os.Getenv("CYCLECAP_TEST_REPEAT"))
		if err != nil {
			t.Fatal(err)
		}
		ptb.Tokenize(strings.Repeat(piece, n))
		return
	}
	dir := t.TempDir()
	program, profile := filepath.Join(dir, "ptb.test"), filepath.Join(dir, "profile")
	if out, err := exec.Command("go", "test", "-c", "-covermode=count", "-o", program).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	work := func(piece string, n int) (sum int) {
		c := exec.Command(program, "-test.run=^TestLinear$", "-test.coverprofile="+profile)
		c.Env = append(os.Environ(), "CYCLECAP_TEST_PIECE="+piece, "CYCLECAP_TEST_REPEAT="+strconv.Itoa(n))
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		text, err := os.ReadFile(profile)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			_, counts, ok := strings.Cut(line, " ") // "ptb.go:30.2,31.4 statements times"
			var statements, times int
			if _, err := fmt.Sscan(counts, &statements, &times); ok && err == nil {
				sum += statements * times
			}
		}
		return sum
	}
	start := work("a", 0) // the package's tables
	for _, piece := range []string{"a ", "a,", "a.", "a.b", "-", "-a", "1-", "1,", "1.", "(", "<", "<a ", "<!", "<!a ", "<a b=\"", "'", "''", "a@", "@", "a@.", "a@b..", "@.",
		"www.", "www.a/", "http://", ".com", "#.c", "a.com/", "é", "a&", "&", "A&", "a/", "\u00ad", "1/", "+1 ", "555-", ". ", "I. ", ".", "?", "[", "=", "*", "_", ">", "&lt;", "&eacute;", "&#1", "<a b=c ", "<a b='", "a\u2019", "www.a.com/", "x.com.", "a'", "n't", "#", "é.", "x_", "^_", "😀"} {
		short, long := work(piece, 1000)-start, work(piece, 2000)-start
		if short < 1000 || float64(long) > 2.05*float64(short) {
			t.Errorf("%q: 1,000 of them take %d statements, 2,000 take %d", piece, short, long)
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
