package tokenizer

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
)

// The hash is that of the tokens of OpenAI's SimpleTokenizer, joined by newlines in the
// order of their ids.
func TestSame(t *testing.T) {
	names := CLIP().names()
	if got := fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(names, "\n")))); got != "7cccc44d334555d1ff3c0ac5f0246b428fab2918383e77ee745cf30d41010b78" {
		t.Errorf("the names of the tokens have the hash %s", got)
	}
	vocab := map[string]int{}
	for id, name := range names {
		vocab[name] = id
	}
	if !CLIP().Same(vocab) {
		t.Error("CLIP's own vocabulary is taken for another")
	}
	vocab["cat</w>"], vocab["dog</w>"] = vocab["dog</w>"], vocab["cat</w>"]
	if CLIP().Same(vocab) {
		t.Error("two tokens were exchanged")
	}
	delete(vocab, "cat</w>")
	if CLIP().Same(vocab) || CLIP().Same(nil) {
		t.Error("a vocabulary that lacks tokens is taken for CLIP's")
	}
}
