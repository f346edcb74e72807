package fixtext

import (
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

// reference is the output of testdata/make_reference.py, which documents it.
type reference struct {
	Versions     map[string]string  `json:"versions"`
	Charsets     map[string]string  `json:"charsets"`
	Entities     [][3]string        `json:"entities"`
	Pairs        map[string]string  `json:"pairs"`
	Bytes        [][3]string        `json:"bytes"`
	Variants     map[string]*string `json:"variants"`
	Bad          []string           `json:"bad"`
	Sound        []string           `json:"sound"`
	Fix          map[string]string  `json:"fix"`
	Lower        map[string]string  `json:"lower"`
	LowerStrings [][2]string        `json:"lower_strings"`
	NFC          [][2]string        `json:"nfc"`
	Strip        [][2]rune          `json:"strip"`
}

func readReference(t *testing.T) reference {
	t.Helper()
	f, err := os.Open("testdata/reference.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var r reference
	if err := json.NewDecoder(z).Decode(&r); err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]int{"charsets": len(r.Charsets), "entities": len(r.Entities), "pairs": len(r.Pairs), "bytes": len(r.Bytes), "variants": len(r.Variants), "bad": len(r.Bad),
		"sound": len(r.Sound), "fix": len(r.Fix), "lower": len(r.Lower), "lower_strings": len(r.LowerStrings), "nfc": len(r.NFC), "strip": len(r.Strip)} {
		if n == 0 {
			t.Fatalf("testdata/reference.json.gz has no %q", name)
		}
	}
	return r
}

// check reports the first few differences of many cases.
type check struct {
	t           *testing.T
	n, differed int
}

func (c *check) equal(input string, want, got any) {
	c.t.Helper()
	c.n++
	if diff := cmp.Diff(want, got); diff != "" {
		if c.differed++; c.differed <= 10 {
			c.t.Errorf("%q (-want +got):\n%s", input, diff)
		}
	}
}

func (c *check) done() {
	c.t.Helper()
	c.t.Logf("%d of %d differ", c.differed, c.n)
}

func TestCharsets(t *testing.T) {
	names := []string{"latin-1", "sloppy-windows-1252", "sloppy-windows-1251", "sloppy-windows-1250", "sloppy-windows-1253",
		"sloppy-windows-1254", "sloppy-windows-1257", "iso-8859-2", "macroman", "cp437"}
	ref := readReference(t)
	for i, name := range names {
		want := []rune(ref.Charsets[name])
		if diff := cmp.Diff(want, charsets[i].decode[:]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		encoded, ok := charsets[i].bytes(want)
		if !ok || len(encoded) != 256 || encoded[0x80] != 0x80 || encoded[0xFF] != 0xFF {
			t.Errorf("%s does not encode what it decodes: %v %x", name, ok, encoded)
		}
	}
}

func TestEntities(t *testing.T) {
	c := check{t: t}
	for _, e := range readReference(t).Entities {
		c.equal(e[0], e[1], string(unescapeEntities([]rune(e[0]))))
		c.equal(e[0], e[2], UnescapeHTML(e[0]))
	}
	c.done()
}

func TestIsBad(t *testing.T) {
	ref := readReference(t)
	c := check{t: t}
	for a, after := range ref.Pairs {
		for b := range ref.Pairs {
			text := "=" + a + b
			c.equal(text, strings.Contains(after, b), isBad([]rune(text)))
		}
	}
	for _, text := range ref.Bad {
		c.equal(text, true, isBad([]rune(text)))
	}
	for _, text := range ref.Sound {
		c.equal(text, false, isBad([]rune(text)))
	}
	c.done()
}

func TestByteRepairs(t *testing.T) {
	c := check{t: t}
	for _, b := range readReference(t).Bytes {
		text, err := hex.DecodeString(b[0])
		if err != nil {
			t.Fatal(err)
		}
		c.equal(b[0]+" with A0 restored", b[1], hex.EncodeToString(restoreNoBreakSpaces(text)))
		c.equal(b[0]+" with losses marked", b[2], hex.EncodeToString(markLosses(text)))
	}
	c.done()
}

func TestDecodeVariant(t *testing.T) {
	c := check{t: t}
	for in, want := range readReference(t).Variants {
		text, err := hex.DecodeString(in)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := decodeVariant(text)
		c.equal(in+" decodes", want != nil, ok)
		if want != nil && ok {
			c.equal(in, *want, string(got))
		}
	}
	c.done()
}

// TestFixCharacters tries every character by itself.
func TestFixCharacters(t *testing.T) {
	ref := readReference(t)
	c := check{t: t}
	for r := range unicode.MaxRune + 1 {
		if 0xD800 <= r && r < 0xE000 {
			continue
		}
		s := string(r)
		want, ok := ref.Fix[s]
		if !ok {
			want = s
		}
		c.equal(s, want, Fix(s))
	}
	c.done()
}

func TestLower(t *testing.T) {
	ref := readReference(t)
	c := check{t: t}
	for r := range unicode.MaxRune + 1 {
		if 0xD800 <= r && r < 0xE000 {
			continue
		}
		s := string(r)
		want, ok := ref.Lower[s]
		if !ok {
			want = s
		}
		c.equal(s, want, Lower(s))
	}
	for _, s := range ref.LowerStrings {
		c.equal(s[0], s[1], Lower(s[0]))
	}
	c.done()
}

func TestNFC(t *testing.T) {
	c := check{t: t}
	for _, s := range readReference(t).NFC {
		c.equal(s[0], s[1], string(nfc([]rune(s[0]))))
	}
	c.done()
}

func TestStrip(t *testing.T) {
	ref := readReference(t)
	c := check{t: t}
	for r := range unicode.MaxRune + 1 {
		stripped := slices.ContainsFunc(ref.Strip, func(p [2]rune) bool { return p[0] <= r && r <= p[1] })
		c.equal(string(r), stripped, isSpace(r))
	}
	c.done()
	if got := Strip(" \x1c\t text \u3000\n"); got != "text" {
		t.Errorf("Strip gave %q", got)
	}
}

func TestFix(t *testing.T) {
	tests := []struct{ what, text, want string }{
		{"nothing", "", ""},
		{"sound", "A cat, déjà vu: 日本語 😀.", "A cat, déjà vu: 日本語 😀."},
		{"Latin-1", "sÃ³", "só"},
		{"Windows-1252 with lost quotes", "â€œhiâ€\u009d", `"hi"`},
		{"twice", "piÃƒÂ±as", "piñas"},
		{"part of a line", "日本 cafÃ©", "日本 café"},
		{"no-break space became a blank", "voilÃ  le travail", "voilà le travail"},
		{"lost byte", "â€œ like this â€�", "\" like this �"},
		{"CESU-8", "í\u00A0½í¸€", "😀"},
		{"Windows-1251", "РџСЂРёРІРµС‚", "Привет"},
		{"entities", "a &lt; b &EACUTE; &notit; &#x2019;", "a < b É &notit; '"},
		{"entities in HTML stay, also in later lines", "&amp;\n<b> &amp;\n&amp;", "&\n<b> &amp;\n&amp;"},
		{"terminal colours", "\x1b[36;44mblue\x1b[0m", "blue"},
		{"line ends", "a\r\nb\rc\u2028d", "a\nb\nc\nd"},
		{"width and ligatures", "ＬＯＵＤ　ﬁﬆ ｶﾞ", "LOUD fist ガ"},
		{"41 marks stay together", "a" + strings.Repeat("\u0300", 41), "à" + strings.Repeat("\u0300", 40)},
	}
	for _, test := range tests {
		t.Run(test.what, func(t *testing.T) {
			if diff := cmp.Diff(test.want, Fix(test.text)); diff != "" {
				t.Errorf("%q (-want +got):\n%s", test.text, diff)
			}
		})
	}
}
