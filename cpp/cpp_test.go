package cpp

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"
)

// declarations is the sum of the header's text without comments and spaces, and
// without the number itself, for this CT_ABI. Where it changes, the ABI has
// changed: count CT_ABI up and put the new sum here.
const (
	abi          = "18"
	declarations = "3e0140c6db25"
)

var (
	comments = regexp.MustCompile(`(?s)/\*.*?\*/`)
	abiLine  = regexp.MustCompile(`#define CT_ABI (\d+)`)
)

func TestABI(t *testing.T) {
	header, err := Sources.ReadFile("include/cyclecap_torch.h")
	if err != nil {
		t.Fatal(err)
	}
	text := comments.ReplaceAllString(string(header), " ")
	m := abiLine.FindStringSubmatch(text)
	if m == nil {
		t.Fatal("the header defines no CT_ABI")
	}
	text = strings.Join(strings.Fields(abiLine.ReplaceAllString(text, "")), " ")
	sum := sha256.Sum256([]byte(text))
	got := hex.EncodeToString(sum[:6])
	switch {
	case got != declarations && m[1] == abi:
		t.Errorf("the declarations of cyclecap_torch.h have changed: count CT_ABI up from %s, and put the new number and %q into this test", abi, got)
	case got != declarations || m[1] != abi:
		t.Errorf("this test has CT_ABI %s and the sum %q; the header has %s and %q", abi, declarations, m[1], got)
	}
}

// What the build reads is what is embedded.
func TestEverySourceIsEmbedded(t *testing.T) {
	for _, dir := range []string{"include", "src"} {
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if _, err := fs.Stat(Sources, dir+"/"+f.Name()); err != nil {
				t.Error(err)
			}
		}
	}
}
