package config

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"cyclecap/internal/nearest"
	"cyclecap/train/bridge"
)

// A key is a field of a struct with its tags, or a setting of a bridge.
type key struct {
	path    []string
	index   []int // index path of the field in Config; of Bridges.Settings for a setting
	typ     reflect.Type
	value   string // default
	limits  *interval
	choices []string
	source  string
	text    string // description; only for settings
}

func (k *key) String() string { return strings.Join(k.path, ".") }

func (k *key) name() string { return k.path[len(k.path)-1] }

// A table is a struct of keys; the first is Config itself.
type table struct {
	path []string
	typ  reflect.Type
	keys []*key
}

func (t *table) String() string { return strings.Join(t.path, ".") }

// schema returns the keys and tables in the order of the structs. It is computed on
// first use, when all bridges have registered themselves.
var schema = sync.OnceValues(func() ([]*key, []*table) { return schemaOf(reflect.TypeFor[Config](), nil, nil) })

// schemaOf reads the tags of a struct. It panics on an invalid tag, which is a bug in
// this package that its tests would find.
func schemaOf(typ reflect.Type, path []string, index []int) (keys []*key, tables []*table) {
	own := &table{path: path, typ: typ}
	tables = append(tables, own)
	for i := range typ.NumField() {
		f := typ.Field(i)
		at := append(slices.Clone(path), f.Tag.Get("toml"))
		place := append(slices.Clone(index), i)
		inner := f.Type
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		switch inner.Kind() {
		case reflect.Struct:
			k, t := schemaOf(inner, at, place)
			keys, tables = append(keys, k...), append(tables, t...)
			continue
		case reflect.Map:
			for _, b := range bridge.All() {
				for _, s := range b.Settings {
					k := settingKey(s, path, place)
					keys, own.keys = append(keys, k), append(own.keys, k)
				}
			}
			continue
		}
		k := &key{path: at, index: place, typ: f.Type, value: f.Tag.Get("default"), source: f.Tag.Get("source")}
		if s := f.Tag.Get("range"); s != "" {
			k.limits = newInterval(s)
		}
		switch s := f.Tag.Get("choices"); s {
		case "":
		case "bridges":
			for _, b := range bridge.All() {
				k.choices = append(k.choices, b.Name)
			}
		default:
			k.choices = strings.Split(s, ",")
		}
		keys, own.keys = append(keys, k), append(own.keys, k)
	}
	return keys, tables
}

func settingKey(s bridge.Setting, path []string, index []int) *key {
	k := &key{path: append(slices.Clone(path), s.Key), index: index, typ: reflect.TypeFor[float64](), limits: newInterval(s.Range),
		value: strconv.FormatFloat(s.Default, 'g', -1, 64), source: s.Source, text: s.Text}
	if s.Whole {
		k.typ = reflect.TypeFor[int]()
	}
	return k
}

func keyAt(path []string) *key {
	keys, _ := schema()
	for _, k := range keys {
		if slices.Equal(k.path, path) {
			return k
		}
	}
	return nil
}

func tableAt(path []string) *table {
	_, tables := schema()
	for _, t := range tables {
		if slices.Equal(t.path, path) {
			return t
		}
	}
	return nil
}

// set sets the key to a value of its type. The config's World must not be nil.
func (k *key) set(c *Config, v any) {
	field := reflect.ValueOf(c).Elem().FieldByIndex(k.index)
	if field.Kind() != reflect.Map {
		field.Set(reflect.ValueOf(v))
		return
	}
	if field.IsNil() {
		field.Set(reflect.MakeMap(field.Type()))
	}
	field.SetMapIndex(reflect.ValueOf(k.name()), reflect.ValueOf(v).Convert(field.Type().Elem()))
}

// get returns the key's value. The config's World must not be nil.
func (k *key) get(c *Config) any {
	field := reflect.ValueOf(c).Elem().FieldByIndex(k.index)
	if field.Kind() == reflect.Map {
		v := reflect.Zero(field.Type().Elem())
		if e := field.MapIndex(reflect.ValueOf(k.name())); e.IsValid() {
			v = e
		}
		return v.Convert(k.typ).Interface()
	}
	return field.Interface()
}

// want describes the allowed values: "an integer between 1 and 1024".
func (k *key) want() string {
	switch k.typ.Kind() {
	case reflect.Int:
		return "an integer" + k.limits.String()
	case reflect.Float64:
		return "a number" + k.limits.String()
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "a list of one or more of " + quoted(k.choices)
	}
	if k.choices != nil {
		return "one of " + quoted(k.choices)
	}
	return "a string"
}

func quoted(words []string) string {
	var s []string
	for _, w := range words {
		s = append(s, strconv.Quote(w))
	}
	return strings.Join(s, ", ")
}

// read checks a value that was decoded from TOML and converts it to the field's type.
// If the value is invalid, it returns the text of an error.
func (k *key) read(v any) (any, string) {
	wrong := func(have any) string { return fmt.Sprintf("must be %s, got %v", k.want(), have) }
	switch k.typ.Kind() {
	case reflect.Int:
		n, ok := v.(int64)
		if !ok {
			return nil, wrong(inWords(v))
		}
		if !k.limits.has(float64(n)) {
			return nil, wrong(n)
		}
		return int(n), ""
	case reflect.Float64:
		x, ok := v.(float64)
		if n, whole := v.(int64); whole {
			x, ok = float64(n), true
		}
		if !ok {
			return nil, wrong(inWords(v))
		}
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return nil, wrong(inWords(v)) // as TOML spells it
		}
		if !k.limits.has(x) {
			return nil, wrong(x)
		}
		return x, ""
	case reflect.Bool:
		if b, ok := v.(bool); ok {
			return b, ""
		}
		return nil, wrong(inWords(v))
	case reflect.String:
		if s, ok := v.(string); ok {
			return s, k.word(s)
		}
		return nil, wrong(inWords(v))
	}
	list, ok := v.([]any)
	if !ok {
		return nil, wrong(inWords(v))
	}
	if len(list) == 0 {
		return nil, wrong("an empty list")
	}
	var words []string
	for _, e := range list {
		s, ok := e.(string)
		if !ok {
			return nil, wrong("a list that contains " + inWords(e))
		}
		if text := k.word(s); text != "" {
			return nil, text
		}
		if slices.Contains(words, s) {
			return nil, fmt.Sprintf("%q is listed twice", s)
		}
		words = append(words, s)
	}
	return words, ""
}

// word returns what is wrong with a string, or "".
func (k *key) word(s string) string {
	if i := strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }); i >= 0 {
		return fmt.Sprintf("%q contains a control character", s)
	}
	if k.choices == nil || slices.Contains(k.choices, s) {
		return ""
	}
	text := fmt.Sprintf("must be one of %s, got %q", quoted(k.choices), s)
	if near := nearest.Word(s, k.choices); near != "" {
		text += fmt.Sprintf("; did you mean %q?", near)
	}
	return text
}

// inWords describes a TOML value in an error.
func inWords(v any) string {
	switch v := v.(type) {
	case string:
		if len(v) > 40 {
			return fmt.Sprintf("a string of %d bytes", len(v))
		}
		return fmt.Sprintf("the string %q", v)
	case int64:
		return fmt.Sprintf("the number %d", v)
	case float64:
		switch {
		case math.IsNaN(v):
			return "nan"
		case math.IsInf(v, 0):
			return map[bool]string{true: "inf", false: "-inf"}[v > 0]
		}
		s := strconv.FormatFloat(v, 'g', -1, 64)
		if !strings.ContainsAny(s, ".e") {
			s += ".0" // to distinguish it from an integer
		}
		return "the number " + s
	case bool:
		return strconv.FormatBool(v)
	case map[string]any:
		return "a table"
	case []any:
		return "a list"
	case []map[string]any:
		return "a list of tables"
	}
	return "a date or time"
}

// An interval is a range of numbers.
type interval struct {
	low, high         float64
	lowOpen, highOpen bool
}

func newInterval(s string) *interval {
	low, high, ok := strings.Cut(s[1:len(s)-1], ",")
	a, err := strconv.ParseFloat(low, 64)
	b, err2 := strconv.ParseFloat(high, 64)
	if !ok || err != nil || err2 != nil || !(a < b) {
		panic("config: invalid range " + s)
	}
	return &interval{low: a, high: b, lowOpen: s[0] == '(', highOpen: s[len(s)-1] == ')'}
}

func (r *interval) has(x float64) bool {
	return (x > r.low || x == r.low && !r.lowOpen) && (x < r.high || x == r.high && !r.highOpen)
}

// String continues "a number": " between 0 and 1".
func (r *interval) String() string {
	number := func(x float64) string {
		if x == math.Trunc(x) && math.Abs(x) < 1e6 {
			return strconv.FormatFloat(x, 'f', -1, 64)
		}
		return strings.NewReplacer("e+0", "e", "e+", "e").Replace(strconv.FormatFloat(x, 'g', -1, 64))
	}
	if !r.lowOpen && !r.highOpen {
		return " between " + number(r.low) + " and " + number(r.high)
	}
	low, high := " greater than or equal to ", " and at most "
	if r.lowOpen {
		low = " greater than "
	}
	if r.highOpen {
		high = " and less than "
	}
	return low + number(r.low) + high + number(r.high)
}
