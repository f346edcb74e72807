package cli_test

import (
	"strings"
	"testing"
)

// The help of every command fits a screen, and run --keys explains the keys.
func TestHelpFitsAScreen(t *testing.T) {
	for _, name := range []string{"run", "train", "world", "caption", "eval", "features", "search", "tokenize", "inspect", "convert", "doctor", "random-weights", "completion"} {
		out := ok(t, name, "--help")
		if n := strings.Count(out, "\n"); n > 50 {
			t.Errorf("%s --help prints %d lines", name, n)
		}
	}
	all := ok(t, "run", "--keys")
	part := ok(t, "run", "--keys", "train.decoder")
	for _, want := range []string{"[train.decoder]", "train.decoder.prefix_length"} {
		if !strings.Contains(all, want) || !strings.Contains(part, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if !strings.Contains(all, "\n[world]\n") || strings.Contains(part, "world") {
		t.Errorf("all keys, and those of train.decoder:\n%s", part)
	}
}

func TestKeysBadInput(t *testing.T) {
	run("", "run", "--keys", "train.cyclgan").fails(t, 2, "train.cyclgan", "did you mean train.cyclegan?")
	run("", "run", "--keys", "a", "b").fails(t, 2, "one PREFIX")
}
