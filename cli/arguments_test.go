package cli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestArrange(t *testing.T) {
	commands := newApp(nil, nil, nil).Commands
	for _, test := range []struct{ in, want string }{
		{"cyclecap", "cyclecap"},
		{"cyclecap caption", "cyclecap caption"},
		{"cyclecap nope a --b", "cyclecap nope a --b"},
		{"cyclecap caption a.jpg --json --clip c b.jpg", "cyclecap caption --json --clip c -- a.jpg b.jpg"},
		{"cyclecap caption --clip=c a.jpg --beam=3", "cyclecap caption --clip=c --beam=3 -- a.jpg"},
		{"cyclecap caption a.jpg -- --json -x", "cyclecap caption -- a.jpg --json -x"},
		{"cyclecap caption - --json", "cyclecap caption --json -- -"},
		{"cyclecap caption --nope a.jpg", "cyclecap caption --nope -- a.jpg"},
		{"cyclecap caption a.jpg --clip", "cyclecap caption --clip"}, // the parser reports the missing value
		{"cyclecap caption help a.jpg --help --clip", "cyclecap caption --help"},
		{"cyclecap features --images a b -o o --normalize", "cyclecap features --images a --images=b -o o --normalize --"},
		{"cyclecap features --images=a b=c --images d e", "cyclecap features --images=a --images=b=c --images d --images=e --"},
		{"cyclecap features --images a --normalize b", "cyclecap features --images a --normalize -- b"},
		{"cyclecap features --text -5 x -- -y --z", "cyclecap features --text -5 --text=x --text=-y --text=--z --"},
		{"cyclecap run --set a=1 x.toml --set b=2 --resume", "cyclecap run --set a=1 --set b=2 --resume -- x.toml"},
		{"cyclecap train decoder x.toml --set a=1 --resume", "cyclecap train decoder --set a=1 --resume -- x.toml"},
		{"cyclecap train decoder x.toml --help", "cyclecap train decoder --help"},
		{"cyclecap features --i --generate-bash-completion", "cyclecap features --i --generate-bash-completion"},
	} {
		got := strings.Join(arrange(strings.Fields(test.in), commands), " ")
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.in, diff)
		}
	}
}

func TestMeant(t *testing.T) {
	names := []string{"caption", "features", "--decoder", "--decode", "run"}
	for typed, want := range map[string]string{"captoin": "caption", "--decodr": "--decoder", "--z": "", "feature": "features", "xyz": "", "": ""} {
		got := meant(typed, names)
		if want != "" {
			want = " (did you mean " + want + "?)"
		}
		if got != want {
			t.Errorf("%q: %q, want %q", typed, got, want)
		}
	}
}

func TestOneLine(t *testing.T) {
	for in, want := range map[string]string{
		"a cat.": "a cat.", "a\nb\tc": "a b c", "\x1b[31mred": " [31mred",
		"del\x7f c1\u0085 ls\u2028": "del  c1  ls ", "Käse 猫": "Käse 猫",
	} {
		if diff := cmp.Diff(want, oneLine(in)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", in, diff)
		}
	}
}
