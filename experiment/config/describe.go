package config

import (
	_ "embed"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strings"
)

// The comments of the structs are the descriptions of keys that users read.
//
//go:embed config.go
var source string

// comments returns the comment of every struct ("World") and field ("World.Seed")
// as a single line.
func comments() map[string]string {
	file, err := parser.ParseFile(token.NewFileSet(), "config.go", source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		panic("config: " + err.Error()) // impossible: it was compiled
	}
	oneLine := func(c *ast.CommentGroup) string { return strings.Join(strings.Fields(c.Text()), " ") }
	texts := map[string]string{}
	for _, d := range file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.TYPE {
			continue
		}
		t := g.Specs[0].(*ast.TypeSpec)
		texts[t.Name.Name] = oneLine(g.Doc)
		for _, f := range t.Type.(*ast.StructType).Fields.List {
			texts[t.Name.Name+"."+f.Names[0].Name] = oneLine(f.Doc)
		}
	}
	return texts
}

// An entry is a key, or a table if Key begins with "[", as `run --keys` and
// docs/config.md show it.
type entry struct {
	Key, Want, Default, Source, Text string
}

// entries returns all tables and keys, in the order of the structs.
func entries() (list []entry) {
	texts := comments()
	_, tables := schema()
	for _, t := range tables {
		if len(t.path) > 0 && len(t.keys) > 0 {
			name := t.typ.Name()
			text := texts[name]
			if t.typ == reflect.TypeFor[World]() {
				text = texts["Config.World"] // it describes the effect on other keys
			}
			list = append(list, entry{Key: "[" + t.String() + "]", Text: sentence(text, name)})
		}
		for _, k := range t.keys {
			e := entry{Key: k.String(), Want: k.want(), Default: k.value, Source: k.source}
			if k.text != "" {
				e.Text = sentence(k.text, "")
			} else {
				name := t.typ.Field(k.index[len(k.index)-1]).Name
				e.Text = sentence(texts[t.typ.Name()+"."+name], name)
			}
			switch k.typ.Kind() {
			case reflect.String:
				if k.value != "" {
					e.Default = `"` + k.value + `"`
				}
			case reflect.Slice:
				e.Default = "[" + quoted(strings.Split(k.value, ",")) + "]"
			}
			list = append(list, e)
		}
	}
	return list
}

// sentence turns a comment that begins with the Go name into the description of the
// key: "Seed is the seed of …" becomes "The seed of …".
func sentence(text, name string) string {
	text = strings.TrimSpace(strings.TrimPrefix(text, name))
	text = strings.TrimPrefix(text, "is ")
	if text == "" {
		return ""
	}
	return strings.ToUpper(text[:1]) + text[1:]
}

// Describe returns help on the key named prefix, or on all keys below the table named
// prefix ("" for all keys): a description, the allowed values, the default and its
// source. It returns "" if there are no such keys.
func Describe(prefix string) string {
	var b strings.Builder
	heading := ""
	for _, e := range entries() {
		if strings.HasPrefix(e.Key, "[") {
			heading = fmt.Sprintf("\n%s\n%s", e.Key, wrap("  ", e.Text))
			continue
		}
		if prefix != "" && e.Key != prefix && !strings.HasPrefix(e.Key, prefix+".") {
			continue
		}
		b.WriteString(heading)
		heading = ""
		how := e.Want
		if e.Default != "" {
			how += "; default " + e.Default
		}
		if e.Source != "" {
			how += " (" + e.Source + ")"
		}
		fmt.Fprintf(&b, "  %s\n%s%s", e.Key, wrap("      ", e.Text), wrap("      ", how))
	}
	return strings.TrimPrefix(b.String(), "\n")
}

// Suggest returns a suggestion for an unknown key or table, such as "did you mean
// train.cyclegan?", or else the valid keys.
func Suggest(key string) string {
	path := strings.Split(key, ".")
	if s := suggest(path, true); strings.HasPrefix(s, "did you mean") {
		return s
	}
	return suggest(path, false)
}

// wrap breaks text into indented lines of at most 80 columns.
func wrap(indent, text string) string {
	var b strings.Builder
	line := indent
	for _, word := range strings.Fields(text) {
		if len(line) > len(indent) && len(line)+1+len(word) > 80 {
			b.WriteString(line + "\n")
			line = indent
		}
		if len(line) > len(indent) {
			line += " "
		}
		line += word
	}
	b.WriteString(line + "\n")
	return b.String()
}
