package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"cyclecap/internal/regular"

	"github.com/BurntSushi/toml"
)

// A Problem is one thing that is wrong with a config.
type Problem struct {
	File   string // "" for a value of --set
	Line   int    // from 1; 0 if there is none, as for a missing key
	Column int    // from 1, in bytes; 0 except for TOML syntax errors
	Set    string // argument of --set
	Key    string // full key, such as "train.cyclegan.epochs"; "" for TOML syntax errors
	Text   string // what is wrong, and what would be valid
}

func (p Problem) String() string {
	s := p.File
	switch {
	case p.Set != "":
		return "--set " + p.Set + ": " + p.Text
	case p.Column > 0:
		s = fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
	case p.Line > 0:
		s = fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	if p.Key != "" {
		s += ": " + p.Key
	}
	return s + ": " + p.Text
}

// Error lists everything that is wrong with a config: problems in the file in the order
// of their lines, then missing keys, then problems in arguments of --set.
type Error struct{ Problems []Problem }

// Error returns one line per problem.
func (e *Error) Error() string {
	if len(e.Problems) == 1 {
		return e.Problems[0].String()
	}
	s := fmt.Sprintf("%d problems:", len(e.Problems))
	for _, p := range e.Problems {
		s += "\n" + p.String()
	}
	return s
}

// maxSize is the maximum size of a config in bytes; a larger file is some other kind of
// file. The largest config in this repository has 3 KiB. Without a limit, deep nesting
// would take the toml package quadratic time or more.
const maxSize = 32 << 10

// Load reads a config and overrides its values with sets, the arguments of --set, such
// as "train.cyclegan.epochs=5". Their values are TOML or bare words. Keys that are not
// set get their defaults. If the config is invalid, the error is an *Error.
func Load(path string, sets []string) (*Config, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return parse(path, data, sets)
}

func readFile(path string) ([]byte, error) {
	f, err := regular.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxSize {
		return nil, fmt.Errorf("%s: not a configuration file: it is larger than 32 KiB", path)
	}
	return data, nil
}

// defaults returns a config with the default of every key, including World. Its name,
// output and data are empty.
func defaults() *Config {
	c := &Config{World: &World{}}
	keys, _ := schema()
	for _, k := range keys {
		if k.value == "" {
			continue
		}
		var v any = k.value
		var err error
		switch k.typ.Kind() {
		case reflect.Int:
			v, err = strconv.Atoi(k.value)
		case reflect.Float64:
			v, err = strconv.ParseFloat(k.value, 64)
		case reflect.Bool:
			v, err = strconv.ParseBool(k.value)
		case reflect.Slice:
			v = strings.Split(k.value, ",")
		}
		if err != nil {
			panic(fmt.Sprintf("config: invalid default of %s: %v", k, err))
		}
		k.set(c, v)
	}
	c.Train.CycleGAN.DecayFrom = c.Train.CycleGAN.Epochs / 2
	return c
}

// Encode returns the config as TOML, with every key. Load reads it back unchanged.
func (c *Config) Encode() ([]byte, error) {
	var b bytes.Buffer
	_, tables := schema()
	for _, t := range tables {
		if len(t.keys) == 0 || c.World == nil && t.typ == reflect.TypeFor[World]() {
			continue
		}
		if len(t.path) > 0 {
			fmt.Fprintf(&b, "\n[%s]\n", t)
		}
		for _, k := range t.keys {
			if err := toml.NewEncoder(&b).Encode(map[string]any{k.name(): k.get(c)}); err != nil {
				return nil, fmt.Errorf("config: %s: %w", k, err)
			}
		}
	}
	return b.Bytes(), nil
}

// A loader collects the values of a file and of sets, and their problems.
type loader struct {
	file     string
	lines    map[string]int // line of each key in the file
	set      string         // the argument of --set being read; "" while reading the file
	config   *Config
	world    bool               // the config has [world]
	origin   map[string]Problem // where each key was set
	bad      map[string]bool    // keys with an invalid value
	problems []Problem
	variants []map[string]any // of the file
	changed  []string         // keys that a variant has set
}

func parse(path string, data []byte, sets []string) (*Config, error) {
	l, err := read(path, data, sets)
	if err != nil {
		return nil, err
	}
	return l.finish()
}

// finish returns the config, or its problems.
func (l *loader) finish() (*Config, error) {
	if !l.world {
		l.config.World = nil
	}
	l.resolve()
	l.check()
	if l.problems == nil {
		return l.config, nil
	}
	// First the problems in the file by line, then missing keys, then arguments.
	rank := func(p Problem) int {
		switch {
		case p.Set != "":
			return 2
		case p.Line == 0:
			return 1
		}
		return 0
	}
	slices.SortStableFunc(l.problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Line, b.Line))
	})
	return nil, &Error{l.problems}
}

// read checks each value by itself; resolve and check look at them together.
func read(path string, data []byte, sets []string) (*loader, error) {
	l := &loader{config: defaults(), origin: map[string]Problem{}, bad: map[string]bool{}}
	if err := l.toml(path, data, false); err != nil {
		return nil, err
	}
	for _, arg := range sets {
		l.argument(arg)
	}
	l.set = ""
	return l, nil
}

// toml reads a file: the configuration itself, or its base.
func (l *loader) toml(path string, data []byte, isBase bool) error {
	text := strings.TrimPrefix(string(data), "\uFEFF")
	broken := func(at int, why string) error {
		before := text[:min(max(at, 0), len(text))]
		line, column := strings.Count(before, "\n")+1, len(before)-strings.LastIndexByte(before, '\n')
		return &Error{[]Problem{{File: path, Line: line, Column: column, Text: why}}}
	}
	if !utf8.ValidString(text) {
		at := 0
		for r, n := utf8.DecodeRuneInString(text); r != utf8.RuneError || n > 1; r, n = utf8.DecodeRuneInString(text[at:]) {
			at += n
		}
		return broken(at, fmt.Sprintf("byte %#x is not valid UTF-8", text[at]))
	}
	var root map[string]any
	if _, err := toml.Decode(text, &root); err != nil {
		var syntax toml.ParseError
		if !errors.As(err, &syntax) {
			return fmt.Errorf("%s: %w", path, err)
		}
		// Its column is off by one at the start of a line, so it is recomputed here.
		return broken(syntax.Position.Start, syntax.Message)
	}
	l.file, l.lines = path, keyLines(text)
	if err := l.special(root, isBase); err != nil {
		return err
	}
	l.table(nil, root)
	return nil
}

// at returns a Problem without text that says where a key was set.
func (l *loader) at(path []string) Problem {
	if l.set != "" {
		return Problem{Set: l.set, Key: toml.Key(path).String()}
	}
	return Problem{File: l.file, Line: l.lines[joinPath(path)], Key: toml.Key(path).String()}
}

func (l *loader) report(p Problem, text string) {
	p.Text = text
	l.problems = append(l.problems, p)
}

// table reads the keys of a table.
func (l *loader) table(path []string, values map[string]any) {
	if slices.Equal(path, []string{"world"}) {
		l.world = true
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		v, at := values[name], append(slices.Clone(path), name)
		inner, _ := v.(map[string]any)
		if k := keyAt(at); k != nil {
			l.value(k, v)
			continue
		}
		known := tableAt(at) != nil
		switch {
		case known && isTable(v):
			l.table(at, inner)
		case known:
			l.report(l.at(at), fmt.Sprintf("must be a table ([%s]), got %s", strings.Join(at, "."), inWords(v)))
		case isTable(v) && single(inner, l.set != ""):
			l.table(at, inner) // report the full path of the key inside
		case isTable(v):
			l.report(l.at(at), "unknown table; "+suggest(at, true))
		default:
			l.report(l.at(at), "unknown key; "+suggest(at, false))
		}
	}
}

// single reports whether a table has exactly one element, which must be a table itself
// unless any is true.
func single(t map[string]any, any bool) bool {
	for _, v := range t {
		if !any && !isTable(v) {
			return false
		}
	}
	return len(t) == 1
}

func isTable(v any) bool {
	_, ok := v.(map[string]any)
	return ok
}

func (l *loader) value(k *key, v any) {
	at := l.at(k.path)
	l.origin[k.String()] = at
	x, wrong := k.read(v)
	if wrong != "" {
		l.bad[k.String()] = true
		l.report(at, wrong)
		return
	}
	k.set(l.config, x)
}

var setKey = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)

// argument reads an argument of --set.
func (l *loader) argument(arg string) {
	name, text, ok := strings.Cut(arg, "=")
	name, text = strings.TrimSpace(name), strings.TrimSpace(text)
	l.set = arg
	switch {
	case !ok || !setKey.MatchString(name):
		l.report(Problem{Set: arg}, "must be KEY=VALUE, such as train.cyclegan.epochs=5")
		return
	case !utf8.ValidString(text) || strings.ContainsAny(text, "\r\n"):
		l.report(Problem{Set: arg, Key: name}, "the value must be a single line of valid UTF-8")
		return
	}
	v, err := setValue(text)
	if err != nil {
		l.report(Problem{Set: arg, Key: name}, "the value is not valid TOML: "+err.Error())
		return
	}
	for path := strings.Split(name, "."); len(path) > 0; path = path[:len(path)-1] {
		v = map[string]any{path[len(path)-1]: v}
	}
	l.table(nil, v.(map[string]any))
}

// setValue reads a value of --set: TOML, or bare words, also in a list, because shells
// remove quotes.
func setValue(text string) (any, error) {
	var v struct{ V any }
	_, err := toml.Decode("V = "+text, &v)
	if err == nil {
		return v.V, nil
	}
	if text == "" || !strings.ContainsAny(text[:1], "[{\"'") {
		return text, nil
	}
	if inner, ok := strings.CutPrefix(text, "["); ok && strings.HasSuffix(inner, "]") && !strings.ContainsAny(inner[:len(inner)-1], "[]{}\"'") {
		var list []any
		for _, word := range strings.Split(inner[:len(inner)-1], ",") {
			list = append(list, strings.TrimSpace(word))
		}
		return list, nil
	}
	var syntax toml.ParseError
	if errors.As(err, &syntax) {
		err = errors.New(syntax.Message)
	}
	return nil, err
}
