package config

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// A Variant is a configuration with a name: that of the file with some changed settings.
type Variant struct {
	Name string
	// Changes are the settings that the variant changes, as TOML:
	// "train.cyclegan.pool = 0".
	Changes []string
	Config  *Config
}

// Base is the name of the configuration that the variants change.
const Base = "base"

// LoadVariants is Load for a file that may list variants:
//
//	base = "demo.toml" # beside this file; its settings hold unless this file changes them
//
//	[[variant]]
//	name = "no pool"
//	train.cyclegan.pool = 0
//
// It returns the configuration without the changes and, if there are any, its variants.
// The arguments of --set apply to all of them, except to what a variant changes.
func LoadVariants(path string, sets []string) (*Config, []Variant, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, nil, err
	}
	l, err := read(path, data, sets)
	if err != nil {
		return nil, nil, err
	}
	c, err := l.finish()
	if err != nil || len(l.variants) == 0 {
		return c, nil, err
	}
	var list []Variant
	var problems []Problem
	names := map[string]bool{Base: true}
	lines := variantLines(string(data))
	for i := range l.variants {
		own, err := read(path, data, sets)
		if err != nil {
			return nil, nil, err
		}
		own.lines = lines[min(i, len(lines)-1)]
		name := own.variant(own.variants[i], names)
		names[name] = true
		changed, err := own.finish()
		if bad := (*Error)(nil); errors.As(err, &bad) {
			for _, p := range bad.Problems {
				p.Text += fmt.Sprintf(" (variant %q)", name)
				problems = append(problems, p)
			}
			continue
		} else if err != nil {
			return nil, nil, err
		}
		list = append(list, Variant{Name: name, Changes: own.changes(), Config: changed})
	}
	if problems != nil {
		return nil, nil, &Error{problems}
	}
	return c, list, nil
}

// common are the keys that all variants share, since their scores are compared photo by
// photo and seed by seed.
var common = []string{"output", "seed", "device", "threads", "world.seed", "world.size", "world.val", "world.tune", "world.bare",
	"data.val_annotations", "data.val_images", "data.val_limit", "data.karpathy"}

// variant reads a variant's changes and returns its name.
func (l *loader) variant(values map[string]any, taken map[string]bool) string {
	others := l.origin
	l.variants, l.origin = nil, map[string]Problem{}
	values = maps.Clone(values)
	at := Problem{File: l.file, Line: l.lines[""], Key: "variant.name"}
	name, ok := values["name"].(string)
	switch {
	case !ok || strings.TrimSpace(name) == "":
		l.report(at, "each variant needs a name, a string")
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		l.report(at, fmt.Sprintf("%q contains a control character", name))
	case taken[name]:
		l.report(at, fmt.Sprintf("two variants are named %q", name))
	}
	delete(values, "name")
	if len(values) == 0 {
		l.report(at, "the variant changes nothing")
	}
	l.table(nil, values)
	for _, key := range slices.Sorted(maps.Keys(l.origin)) {
		if slices.Contains(common, key) || strings.HasPrefix(key, "eval.") {
			l.report(l.origin[key], "must be the same in all variants: set it outside of [[variant]]")
		}
		l.changed = append(l.changed, key)
	}
	maps.Copy(others, l.origin)
	l.origin = others
	return name
}

// changes returns the keys that a variant has set, as TOML.
func (l *loader) changes() (list []string) {
	keys, _ := schema()
	for _, k := range keys {
		if !slices.Contains(l.changed, k.String()) {
			continue
		}
		var b bytes.Buffer
		if err := toml.NewEncoder(&b).Encode(map[string]any{"v": k.get(l.config)}); err == nil {
			_, value, _ := strings.Cut(strings.TrimSpace(b.String()), " = ")
			list = append(list, k.String()+" = "+value)
		}
	}
	return list
}

// special reads the keys that only a file has, not a configuration: base and variant.
func (l *loader) special(root map[string]any, inBase bool) error {
	base, hasBase := root["base"]
	variants, hasVariants := root["variant"]
	delete(root, "base")
	delete(root, "variant")
	if inBase && (hasBase || hasVariants) {
		return &Error{[]Problem{{File: l.file, Line: l.lines["base"], Text: "the base of another configuration must have neither base nor [[variant]]"}}}
	}
	if hasBase {
		name, ok := base.(string)
		if !ok || name == "" {
			l.report(l.at([]string{"base"}), fmt.Sprintf("must be the name of a file, got %s", inWords(base)))
			return nil
		}
		file, lines := l.file, l.lines
		path := filepath.Join(filepath.Dir(file), filepath.FromSlash(name))
		if filepath.IsAbs(name) {
			path = name
		}
		data, err := readFile(path)
		if err != nil {
			l.report(l.at([]string{"base"}), err.Error())
			return nil
		}
		if err := l.toml(path, data, true); err != nil {
			return err
		}
		l.file, l.lines = file, lines
	}
	if hasVariants {
		list, ok := variants.([]map[string]any)
		if !ok {
			l.report(l.at([]string{"variant"}), fmt.Sprintf("must be tables ([[variant]]), got %s", inWords(variants)))
			return nil
		}
		l.variants = list
	}
	return nil
}

var variantHeading = regexp.MustCompile(`(?m)^[ \t]*\[\[[ \t]*variant[ \t]*\]\]`)

// variantLines returns the lines of the keys of each variant; that of its heading is "".
func variantLines(text string) []map[string]int {
	var list []map[string]int
	at := variantHeading.FindAllStringIndex(text, -1)
	for i, place := range at {
		end := len(text)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		before := strings.Count(text[:place[0]], "\n")
		lines := map[string]int{"": before + 1}
		for path, line := range keyLines(text[place[0]:end]) {
			if key, ok := strings.CutPrefix(path, joinPath([]string{"variant", ""})); ok {
				lines[key] = before + line
			}
		}
		list = append(list, lines)
	}
	return list
}
