package config

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write docs/config.md")

// markdown returns the contents of docs/config.md.
func markdown() string {
	var b strings.Builder
	b.WriteString(`# Keys of an experiment

` + "`cyclecap run FILE.toml`" + ` reads the keys on this page. An unknown key, a value of the wrong type and a value that is out of range are errors.
` + "`--set train.cyclegan.epochs=5`" + ` overrides a value of the file. The source column says where a default comes from: the paper and
its tables, the code of ClipCap, CLIP, CapDec, C3 or DeCap, or the CycleGAN paper (Zhu et al. 2017). ` + "`cyclecap run --keys [PREFIX]`" + `
prints the same descriptions. This page is generated from the comments and tags in experiment/config/config.go: to update
it, run ` + "`go generate ./experiment/config`" + `.
`)
	cell := strings.NewReplacer("|", `\|`, "<", "&lt;", "[", `\[`, "]", `\]`)
	head := "\n| key | value | default | description | source |\n| --- | --- | --- | --- | --- |\n"
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

// TestDocs checks that docs/config.md is up to date.
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
		t.Errorf("docs/config.md is out of date; run go generate ./experiment/config\n%s", diff)
	}
}

// TestComments checks that every table and key has a comment that begins with its Go
// name and "is", or another verb in the third person, so that what is left without the
// name and "is" is a sentence too.
func TestComments(t *testing.T) {
	form := func(name string) *regexp.Regexp {
		return regexp.MustCompile(`^` + name + ` ?(is (a|an|the|[A-Z]\w*'s) \S|[a-z]{2,}s \S).*\.$`)
	}
	texts := comments()
	_, tables := schema()
	for _, table := range tables {
		name := table.typ.Name()
		if text := texts[name]; !form(name).MatchString(text) {
			t.Errorf("[%s]: the comment is %q, want \"%s is the …\" or \"%s <verb>s …\", with a full stop", table, text, name, name)
		}
		for _, k := range table.keys {
			if k.text != "" { // a bridge's setting, whose text continues the key
				if !form("").MatchString(k.text) {
					t.Errorf("%s: the text is %q, want \"is the …\" or \"<verb>s …\", with a full stop", k, k.text)
				}
				continue
			}
			field := table.typ.Field(k.index[len(k.index)-1]).Name
			if text := texts[name+"."+field]; !form(field).MatchString(text) {
				t.Errorf("%s: the comment is %q, want \"%s is the …\" or \"%s <verb>s …\", with a full stop", k, text, field, field)
			}
		}
	}
	for _, e := range entries() {
		if !regexp.MustCompile(`^[A-Z]`).MatchString(e.Text) {
			t.Errorf("%s: %q is not a sentence", e.Key, e.Text)
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
      The learning rate of Adam, for generators and discriminators.
      a number greater than 0 and at most 10; default 2e-4 (Zhu et al.)
`
	if !strings.Contains(text, want) {
		t.Errorf("Describe has no %q:\n%s", want, text)
	}
	part := Describe("train.cyclegan")
	if !strings.Contains(part, want) || strings.Contains(part, "train.clip") || !strings.HasPrefix(part, "[train.cyclegan]\n") {
		t.Errorf("Describe(train.cyclegan):\n%s", part)
	}
	if one := Describe("train.cyclegan.lr"); !strings.Contains(one, want) || strings.Contains(one, "beta1") {
		t.Errorf("Describe(train.cyclegan.lr):\n%s", one)
	}
	if Describe("train.cycle") != "" {
		t.Error("train.cycle, which is only part of a name, has a description")
	}
}
