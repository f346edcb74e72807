package cli_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every command in the help has a manual page, with its options and examples.
func TestMan(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man1")
	ok(t, "man", dir)
	page := func(name string) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, name+".1"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.NewReplacer(`\-`, "-", `\(aq`, "'", `\(ga`, "`").Replace(string(text))
	}
	top := page("cyclecap")
	_, list, _ := strings.Cut(ok(t, "--help"), "COMMANDS:\n")
	list, _, _ = strings.Cut(list, "OPTIONS:\n")
	commands := regexp.MustCompile(`(?m)^   ([a-z-]+) +\S`).FindAllStringSubmatch(list, -1)
	if len(commands) < 12 {
		t.Fatalf("the help lists the commands %q", commands)
	}
	for _, m := range commands {
		name := m[1]
		if !strings.Contains(top, ".BR cyclecap-"+name+" (1)") {
			t.Errorf("cyclecap(1) doesn't refer to cyclecap-%s(1)", name)
		}
		text := page("cyclecap-" + name)
		for _, s := range []string{".SH NAME\ncyclecap-" + name + " - ", ".SH SYNOPSIS\n.B cyclecap " + name + "\n", ".SH EXAMPLES\n.nf\n   "} {
			if !strings.Contains(text, s) {
				t.Errorf("cyclecap-%s(1) lacks %q:\n%s", name, s, text)
			}
		}
	}
	caption := page("cyclecap-caption")
	for _, s := range []string{".TP\n.B --beam N\n", "caption ends at its first full stop, as in ClipCap."} {
		if !strings.Contains(caption, s) {
			t.Errorf("cyclecap-caption(1) lacks %q", s)
		}
	}
	page("cyclecap-train-gpt2")
	run("", "man").fails(t, 2, "DIR")
}

func TestVersion(t *testing.T) {
	out := ok(t, "--version")
	if !regexp.MustCompile(`^cyclecap \S+, (commit [0-9a-f]+\S*, )?libtorch \d+\.\d+\.\d+\S*\n$`).MatchString(out) {
		t.Errorf("--version prints %q", out)
	}
	t.Setenv("CYCLECAP_SHIM", "/nowhere/shim.so")
	if out := ok(t, "--version"); !strings.HasSuffix(out, ", no libtorch (see `cyclecap doctor`)\n") {
		t.Errorf("--version without a shim prints %q", out)
	}
}
