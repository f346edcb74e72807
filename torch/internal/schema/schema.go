// Package schema parses the schemas of libtorch's operators, such as
// "aten::add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor".
package schema

import (
	"fmt"
	"strings"
)

// An Operator is a parsed schema.
type Operator struct {
	Name     string // "aten::add"
	Overload string // "Tensor", or ""
	Args     []Argument
	Returns  []Return
	Text     string // the schema
}

// An Argument is an argument of an operator. Its type has no alias annotations and
// no fixed list size, and symbolic numbers are plain numbers: "Tensor", "int[]",
// "Scalar?".
type Argument struct {
	Type, Name string
	Default    bool   // it has a default
	Keyword    bool   // it follows the *
	Written    string // the alias set that the operator writes to, or ""
}

// A Return is a result of an operator.
type Return struct {
	Type    string
	Written string // the alias set of the argument that is returned after it was written to, or ""
}

// FullName returns the name with the overload: "aten::add.Tensor".
func (o Operator) FullName() string {
	if o.Overload == "" {
		return o.Name
	}
	return o.Name + "." + o.Overload
}

// Out reports whether results are written to arguments that follow the *, as `out=`
// in Python.
func (o Operator) Out() bool {
	for _, a := range o.Args {
		if a.Keyword && a.Written != "" {
			return true
		}
	}
	return false
}

// Public reports whether neither the name nor the namespace begins with an
// underscore, which marks internal operators.
func (o Operator) Public() bool {
	_, base, _ := strings.Cut(o.Name, "::")
	return !strings.HasPrefix(o.Name, "_") && !strings.HasPrefix(base, "_")
}

// Parse parses a schema.
func Parse(text string) (Operator, error) {
	o := Operator{Text: text}
	// Alias annotations can contain an arrow too: Tensor(a -> *).
	arrow := strings.LastIndex(text, ") -> ")
	full, inner, ok := strings.Cut(text[:max(arrow, 0)], "(")
	if arrow < 0 || !ok {
		return o, fmt.Errorf("%q is not a schema", text)
	}
	o.Name, o.Overload, _ = strings.Cut(full, ".")
	keyword := false
	for _, a := range split(inner) {
		if a == "*" {
			keyword = true
			continue
		}
		decl, _, hasDefault := strings.Cut(a, "=")
		i := strings.LastIndex(decl, " ")
		if i < 0 {
			return o, fmt.Errorf("cannot parse argument %q", a)
		}
		o.Args = append(o.Args, Argument{Type: plain(decl[:i]), Name: decl[i+1:], Default: hasDefault, Keyword: keyword, Written: written(decl)})
	}
	results := strings.TrimSpace(text[arrow+len(") -> "):])
	if strings.HasPrefix(results, "(") && strings.HasSuffix(results, ")") {
		results = results[1 : len(results)-1]
	}
	for _, r := range split(results) {
		typ, _, _ := strings.Cut(plain(r), " ")
		o.Returns = append(o.Returns, Return{Type: typ, Written: written(r)})
	}
	return o, nil
}

// written returns "a" for "Tensor(a!)".
func written(decl string) string {
	_, alias, _ := strings.Cut(decl, "(")
	alias, _, ok := strings.Cut(alias, "!")
	if !ok {
		return ""
	}
	return alias
}

// plain removes alias annotations and fixed list sizes, and replaces symbolic
// numbers by numbers: "Tensor(a!)" -> "Tensor", "SymInt[2]" -> "int[]".
func plain(t string) string {
	for {
		i := strings.Index(t, "(")
		j := strings.Index(t, ")")
		if i < 0 || j < i {
			break
		}
		t = t[:i] + t[j+1:]
	}
	t = strings.NewReplacer("SymInt", "int", "SymFloat", "float", "SymBool", "bool").Replace(t)
	if i := strings.Index(t, "["); i >= 0 {
		j := strings.Index(t, "]")
		t = t[:i+1] + t[j:]
	}
	return t
}

// split splits s at top-level commas.
func split(s string) []string {
	var out []string
	depth, from := 0, 0
	for i, r := range s {
		switch r {
		case '(', '[':
			depth++
		case ')', ']':
			depth--
		case ',':
			if depth == 0 {
				out = append(out, strings.TrimSpace(s[from:i]))
				from = i + 1
			}
		}
	}
	if last := strings.TrimSpace(s[from:]); last != "" {
		out = append(out, last)
	}
	return out
}
