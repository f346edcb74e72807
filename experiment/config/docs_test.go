package config

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write docs/config.md")

// markdown makes docs/config.md.
func markdown() string {
	var b strings.Builder
	b.WriteString(`# Keys of an experiment

` + "`cyclecap run FILE.toml`" + ` reads these keys, and no others: an unknown key, a wrong type or a value that is out of
range is an error. ` + "`--set train.cyclegan.epochs=5`" + ` puts a value over the file's. The last column says where a default
comes from: the paper and its tables, ClipCap's, CLIP's, CapDec's and DeCap's code, or Zhu et al. 2017 (CycleGAN).
This page is made from the comments and tags in experiment/config/config.go: ` + "`go generate ./experiment/config`" + `.
`)
	cell := strings.NewReplacer("|", `\|`, "<", "&lt;", "[", `\[`, "]", `\]`)
	head := "\n| key | value | default | | source |\n| --- | --- | --- | --- | --- |\n"
	b.WriteString(head)
	for _, e := range entries() {
		if strings.HasPrefix(e.Key, "[") {
			fmt.Fprintf(&b, "\n## %s\n\n%s\n%s", e.Key, e.Text, head)
			continue
		}
		value := ""
		if e.Default != "" {
			value = "`" + e.Default + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", e.Key, cell.Replace(e.Want), value, cell.Replace(e.Text), cell.Replace(e.Source))
	}
	return b.String()
}

// docs/config.md says what the structs say.
func TestDocs(t *testing.T) {
	file := filepath.Join("..", "..", "docs", "config.md")
	want := markdown()
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(have)); diff != "" {
		t.Errorf("docs/config.md is old: go generate ./experiment/config\n%s", diff)
	}
}

// Every key has a comment that begins with its Go name, in words for people.
func TestComments(t *testing.T) {
	texts := comments()
	_, tables := schema()
	for _, table := range tables {
		for _, k := range table.keys {
			if k.text != "" { // a bridge's
				if !strings.HasPrefix(k.text, "is ") && !strings.HasPrefix(k.text, "divides ") || !strings.HasSuffix(k.text, ".") {
					t.Errorf("%s: %q does not continue the key", k, k.text)
				}
				continue
			}
			name := table.typ.Field(k.index[len(k.index)-1]).Name
			if text := texts[table.typ.Name()+"."+name]; !strings.HasPrefix(text, name) || !strings.HasSuffix(text, ".") {
				t.Errorf("%s: the comment is %q, want %s … .", k, text, name)
			}
		}
	}
}

func TestDescribe(t *testing.T) {
	text := Describe("")
	keys, _ := schema()
	for _, k := range keys {
		if !strings.Contains(text, "\n  "+k.String()+"\n") && !strings.HasPrefix(text, "  "+k.String()+"\n") {
			t.Errorf("%s is not described", k)
		}
	}
	for line := range strings.Lines(text) {
		if len(line) > 81 {
			t.Errorf("longer than 80 columns: %q", line)
		}
	}
	want := `
  train.cyclegan.lr
      The rate of Adam, for generators and discriminators.
      a number above 0 and at most 10; default 2e-4 (Zhu et al.)
`
	if !strings.Contains(text, want) {
		t.Errorf("Describe has no %q:\n%s", want, text)
	}
	part := Describe("train.cyclegan")
	if !strings.Contains(part, want) || strings.Contains(part, "train.clip") || !strings.HasPrefix(part, "[train.cyclegan]\n") {
		t.Errorf("of train.cyclegan:\n%s", part)
	}
	if one := Describe("train.cyclegan.lr"); !strings.Contains(one, want) || strings.Contains(one, "beta1") {
		t.Errorf("of train.cyclegan.lr:\n%s", one)
	}
	if Describe("train.cycle") != "" {
		t.Error("a part of a name is a prefix")
	}
}
