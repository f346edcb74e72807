// Command gen generates the typed Go functions for the operators in ops.txt from
// libtorch's own schemas. It calls the shim directly, because package torch does
// not build without the generated files.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"go/format"
	"go/token"
	"log"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cyclecap/torch/internal/schema"
	"cyclecap/torch/internal/shim"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("gen: ")
	ops := flag.String("ops", "ops.txt", "read the list of operators from `FILE`")
	options := flag.String("options", "options.txt", "read the types of options from `FILE`")
	out := flag.String("out", ".", "write the functions to `FOLDER`")
	table := flag.String("table", "", "write the table of the functions, for the tests that call them all, to `FILE`")
	doc := flag.String("doc", "", "write the list of operators to `FILE`")
	calls := flag.String("calls", "testdata/operators.json.gz", "for -doc, read the calls that are compared with PyTorch from `FILE`")
	differ := flag.String("differ", "", "for -doc, read the operators that differ from `FILE`")
	flag.Parse()
	err := run(*ops, *options, *out, *table)
	if err == nil && *doc != "" {
		err = writeDocument(*doc, *ops, *calls, *differ)
	}
	if err != nil {
		log.Fatal(err)
	}
}

func writeDocument(doc, ops, calls, differ string) error {
	list, err := os.ReadFile(ops)
	if err != nil {
		return err
	}
	reasons, err := os.ReadFile(differ)
	if err != nil {
		return err
	}
	schemas, err := shim.Schema("", "")
	if err != nil {
		return err
	}
	build, err := shim.BuildInfo()
	if err != nil {
		return err
	}
	text, err := document(build["runtime"], schemas, string(list), calls, string(reasons))
	if err != nil {
		return err
	}
	return os.WriteFile(doc, text, 0o644)
}

func run(ops, options, out, table string) error {
	list, err := os.ReadFile(ops)
	if err != nil {
		return err
	}
	types, err := os.ReadFile(options)
	if err != nil {
		return err
	}
	files, src, err := generate(string(list), string(types), shim.Schema)
	if err != nil {
		return err
	}
	if table != "" {
		if err := os.WriteFile(table, src, 0o644); err != nil {
			return err
		}
	}
	old, err := filepath.Glob(filepath.Join(out, "*_gen.go"))
	if err != nil {
		return err
	}
	for _, f := range old {
		if files[filepath.Base(f)] == nil {
			if err := os.Remove(f); err != nil {
				return err
			}
		}
	}
	for name, src := range files {
		if err := os.WriteFile(filepath.Join(out, name), src, 0o644); err != nil {
			return err
		}
	}
	all, err := shim.Schema("", "")
	if err != nil {
		return err
	}
	for _, name := range unlisted(string(list), all) {
		log.Printf("note: %s does not list %s", ops, name)
	}
	return nil
}

// lines calls f with the number and the fields of each line that is not empty or a
// comment.
func lines(text string, f func(n int, fields []string) error) error {
	n := 0
	for line := range strings.Lines(text) {
		n++
		line, _, _ = strings.Cut(line, "#")
		if fields := strings.Fields(line); len(fields) > 0 {
			if err := f(n, fields); err != nil {
				return err
			}
		}
	}
	return nil
}

// unlisted returns the public operators among the schemas that gen could generate
// and that the list lacks.
func unlisted(list, schemas string) (names []string) {
	listed := map[string]bool{}
	_ = lines(list, func(_ int, f []string) error { listed[f[0]] = true; return nil })
	for text := range strings.Lines(schemas) {
		s, err := schema.Parse(strings.TrimSpace(text))
		if err != nil || !strings.HasPrefix(s.Name, "aten::") || !s.Public() || s.Out() || listed[s.FullName()] {
			continue
		}
		// Without options, whose types can be declared.
		if new(generator).write(new(bytes.Buffer), s, "X") == nil {
			names = append(names, s.FullName())
		}
	}
	slices.Sort(names)
	return names
}

// generate returns the Go files by their names: one for the options, and one for
// each letter with which the functions begin. table is the table of all functions.
func generate(list, options string, find func(name, overload string) (string, error)) (files map[string][]byte, table []byte, err error) {
	g := generator{options: map[string]map[string]string{}, functions: map[string]option{}}
	if err := g.readOptions(options); err != nil {
		return nil, nil, err
	}
	bodies := map[string]map[string]string{} // letter -> Go name -> code
	seen := map[string]string{}
	err = lines(list, func(n int, f []string) error {
		fail := func(format string, a ...any) error {
			return fmt.Errorf("ops.txt:%d: %s: %w", n, f[0], fmt.Errorf(format, a...))
		}
		name, overload, _ := strings.Cut(f[0], ".")
		text, err := find(name, overload)
		if err != nil {
			return fail("%w", err)
		}
		o, err := schema.Parse(text)
		if err != nil {
			return fail("%w", err)
		}
		goName := goName(o)
		if len(f) > 1 {
			goName = f[1]
		}
		if goName == "-" {
			return nil // written by hand
		}
		if was := seen[goName]; was != "" {
			return fail("the Go name %s is already used for %s", goName, was)
		}
		seen[goName] = f[0]
		var b bytes.Buffer
		if err := g.write(&b, o, goName); err != nil {
			return fail("%w", err)
		}
		letter := strings.ToLower(goName[:1])
		if bodies[letter] == nil {
			bodies[letter] = map[string]string{}
		}
		bodies[letter][goName] = b.String()
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	const head = "// Code generated by torch/internal/gen from ops.txt and options.txt. DO NOT EDIT.\n\npackage "
	files = map[string][]byte{}
	add := func(file, body string) error {
		src, err := format.Source([]byte(head + "torch\n\n" + body))
		files[file] = src
		return err
	}
	if err := add("options_gen.go", g.writeOptions()); err != nil {
		return nil, nil, err
	}
	for letter, functions := range bodies {
		var body strings.Builder
		for _, name := range slices.Sorted(maps.Keys(functions)) {
			body.WriteString(functions[name])
		}
		if err := add("ops_"+letter+"_gen.go", body.String()); err != nil {
			return nil, nil, err
		}
	}
	table, err = format.Source([]byte(head + "operators\n\nimport \"cyclecap/torch\"\n\n" + g.writeTable()))
	return files, table, err
}

// goTypes maps a schema type to the Go type and the method of call that flattens
// it.
var goTypes = map[string][2]string{
	"Tensor": {"Tensor", "tensor"}, "Tensor?": {"Tensor", "tensorOpt"},
	"Tensor[]": {"[]Tensor", "tensors"}, "Tensor?[]": {"[]Tensor", "tensorsOpt"},
	"int": {"int64", "integer"}, "int[]": {"[]int64", "ints"}, "int[]?": {"[]int64", "intsOpt"},
	"float": {"float64", "double"}, "float[]": {"[]float64", "doubles"}, "float[]?": {"[]float64", "doublesOpt"},
	"bool": {"bool", "boolean"}, "bool[]": {"[]bool", "bools"},
	"Scalar": {"Scalar", "scalar"}, "Scalar?": {"Scalar", "value"},
	"ScalarType": {"DType", "dtype"}, "Device": {"Device", "device"},
	"str": {"string", "text"}, "MemoryFormat": {"MemoryFormat", "memoryFormat"},
	"Generator": {"*Generator", "generator"}, "Generator?": {"*Generator", "generator"},
	"Scalar?[]": {"[]float64", "scalarsOfDoubles"}, "Scalar[]": {"[]float64", "scalarsOfDoubles"},
	// Optional values that have no default in the schema.
	"int?": {"any", "value"}, "bool?": {"any", "value"}, "float?": {"any", "value"}, "str?": {"any", "value"}, "ScalarType?": {"any", "value"},
}

// results maps a schema type to the Go type of a result, and to the code that makes
// it from a result of call.results.
var results = map[string][2]string{
	"Tensor": {"Tensor", "%s.(Tensor)"}, "Tensor[]": {"[]Tensor", "%s.([]Tensor)"},
	"int": {"int64", "%s.(int64)"}, "float": {"float64", "%s.(float64)"}, "bool": {"bool", "%s.(bool)"},
	"int[]": {"[]int64", "%s.([]int64)"}, "Scalar": {"Scalar", "%s"}, "ScalarType": {"DType", "DType(%s.(int64))"},
}

type option struct {
	name, typ string // of the schema: "dim", "int"
}

type generator struct {
	// options has the Go functions of the options whose names have several types:
	// name -> schema type -> function. It is nil to accept any.
	options   map[string]map[string]string
	functions map[string]option // the functions used so far
	table     []string          // lines of the table
}

// readOptions reads options.txt.
func (g *generator) readOptions(text string) error {
	return lines(text, func(n int, f []string) error {
		function := "With" + camel(f[0])
		switch len(f) {
		case 2:
		case 3:
			function = f[2]
		default:
			return fmt.Errorf("options.txt:%d: expected a name, a type and perhaps a function", n)
		}
		if goTypes[f[1]][0] == "" {
			return fmt.Errorf("options.txt:%d: unknown type %s", n, f[1])
		}
		if g.options[f[0]] == nil {
			g.options[f[0]] = map[string]string{}
		}
		g.options[f[0]][f[1]] = function
		return nil
	})
}

// option registers the option for an argument and returns its function. A function keeps its type for good:
// an argument with the same name and another type needs a line in options.txt.
func (g *generator) option(name, typ string) (function string, err error) {
	function = "With" + camel(name)
	if g.options == nil {
		return function, nil
	}
	if declared := g.options[name]; declared != nil {
		if declared[typ] == "" && (typ == "int" || typ == "float") && declared["Scalar"] != "" {
			typ = "Scalar" // takes both; the operator checks the value
		}
		if function = declared[typ]; function == "" {
			return "", fmt.Errorf("options.txt has no line for option %s of type %s", name, typ)
		}
	}
	o := option{name, typ}
	if was, ok := g.functions[function]; ok && was != o {
		return "", fmt.Errorf("%s is already the option %s of type %s; give option %s of type %s another function in options.txt",
			function, was.name, was.typ, o.name, o.typ)
	}
	g.functions[function] = o
	return function, nil
}

func (g *generator) writeOptions() string {
	var b strings.Builder
	for _, f := range slices.Sorted(maps.Keys(g.functions)) {
		o := g.functions[f]
		fmt.Fprintf(&b, "// %s sets the optional argument `%s`", f, o.name)
		if len(g.options[o.name]) > 1 {
			fmt.Fprintf(&b, " of type %s", o.typ)
		}
		fmt.Fprintf(&b, ".\nfunc %s(v %s) Option { return Option{%q, v} }\n\n", f, goTypes[o.typ][0], o.name)
	}
	return b.String()
}

// writeTable writes what replays calls of all functions: those of the operators with the
// names of their arguments, which have = and the option's function if they are options,
// and those of the options.
func (g *generator) writeTable() string {
	var b strings.Builder
	b.WriteString("func functions() []function {\nreturn []function{\n" + strings.Join(slices.Sorted(slices.Values(g.table)), "") + "}\n}\n\n")
	b.WriteString("func options() map[string]any {\nreturn map[string]any{\n")
	for _, f := range slices.Sorted(maps.Keys(g.functions)) {
		fmt.Fprintf(&b, "%q: torch.%s,\n", f, f)
	}
	b.WriteString("}\n}\n")
	return b.String()
}

// write writes the function of an operator.
func (g *generator) write(b *bytes.Buffer, o schema.Operator, goName string) error {
	factory := true
	for _, a := range o.Args {
		if strings.HasPrefix(a.Type, "Tensor") {
			factory = false
		}
	}
	self := len(o.Args) > 0 && o.Args[0].Name == "self" && o.Args[0].Type == "Tensor"
	var params, lines, table []string
	anyOption := false
	for i, a := range o.Args {
		if a.Default {
			anyOption = true
			base := strings.TrimSuffix(a.Type, "?")
			if base == "Layout" {
				lines = append(lines, "c.dflt()") // strided, the only layout in use
				table = append(table, a.Name+"=")
				continue
			}
			if goTypes[base][0] == "" {
				return fmt.Errorf("no Go type for option %s %s", a.Type, a.Name)
			}
			function, err := g.option(a.Name, base)
			if err != nil {
				return err
			}
			table = append(table, a.Name+"="+function)
			if factory && a.Name == "device" {
				lines = append(lines, "c.deviceOpt()")
			} else {
				lines = append(lines, fmt.Sprintf("c.opt(%q)", a.Name))
			}
			continue
		}
		t, ok := goTypes[a.Type]
		if !ok {
			return fmt.Errorf("no Go type for %s %s", a.Type, a.Name)
		}
		table = append(table, a.Name)
		v := ident(a.Name)
		lines = append(lines, fmt.Sprintf("c.%s(%s)", t[1], v))
		if !(self && i == 0) {
			params = append(params, v+" "+t[0])
		}
	}
	opts := "nil"
	if anyOption {
		params = append(params, "opts ...Option")
		opts = "opts"
	}
	result, end, err := result(o)
	if err != nil {
		return err
	}
	recv, prefix := "", "torch."
	if self {
		recv, prefix = "(self Tensor) ", "torch.Tensor."
	}
	g.table = append(g.table, fmt.Sprintf("{%q, %s%s, %q},\n", o.FullName(), prefix, goName, strings.Join(table, " ")))
	fmt.Fprintf(b, "var op%s = &op{name: %q, overload: %q}\n\n", goName, o.Name, o.Overload)
	fmt.Fprintf(b, "// %s calls\n//\n//\t%s\n", goName, o.Text)
	fmt.Fprintf(b, "func %s%s(%s) %s {\n\tc := begin(op%s, %s)\n\t%s\n\t%s\n}\n\n",
		recv, goName, strings.Join(params, ", "), result, goName, opts, strings.Join(lines, "\n\t"), end)
	return nil
}

// result returns the Go type of an operator's results, and the code that makes the
// call and returns them.
func result(o schema.Operator) (typ, end string, err error) {
	tensors, types := true, []string{}
	for _, r := range o.Returns {
		t, ok := results[r.Type]
		if !ok {
			return "", "", fmt.Errorf("no Go type for result %s", r.Type)
		}
		types = append(types, t[0])
		tensors = tensors && r.Type == "Tensor"
	}
	typ = strings.Join(types, ", ")
	if len(types) > 1 {
		typ = "(" + typ + ")"
	}
	n := len(types)
	switch {
	case n == 0:
		return "", "c.drop()", nil
	case n == 1 && o.Returns[0].Written != "":
		for _, a := range o.Args {
			if a.Written == o.Returns[0].Written {
				return typ, "c.drop()\n\treturn " + ident(a.Name), nil
			}
		}
		return "", "", fmt.Errorf("no argument is the result %s", o.Returns[0].Written)
	case n == 1 && tensors:
		return typ, "return c.one()", nil
	case n == 1 && typ == "[]Tensor":
		return typ, "return c.list()", nil
	case typ == "bool":
		return typ, "return c.word() != 0", nil
	case typ == "int64":
		return typ, "return c.word()", nil
	case typ == "DType":
		return typ, "return DType(c.word())", nil
	}
	call, form := "c.results()", func(i int, r string) string { return fmt.Sprintf(results[o.Returns[i].Type][1], r) }
	if tensors {
		call, form = fmt.Sprintf("c.several(%d)", n), func(_ int, r string) string { return r }
	}
	values := make([]string, n)
	for i := range values {
		values[i] = form(i, fmt.Sprintf("r[%d]", i))
	}
	return typ, "r := " + call + "\n\treturn " + strings.Join(values, ", "), nil
}

// goName returns the Go name of an operator for which ops.txt has none.
func goName(o schema.Operator) string {
	_, base, _ := strings.Cut(o.Name, "::")
	return camel(base)
}

// camel converts a name to camel case: layer_norm -> LayerNorm, add_ -> Add_.
func camel(s string) string {
	suffix := ""
	if strings.HasSuffix(s, "_") && !strings.HasPrefix(s, "__") {
		suffix = "_"
	}
	switch s {
	case "dtype":
		return "DType"
	case "mm", "bmm", "mv":
		return strings.ToUpper(s)
	}
	var b strings.Builder
	for _, p := range strings.Split(strings.Trim(s, "_"), "_") {
		if p != "" {
			b.WriteString(strings.ToUpper(p[:1]) + p[1:])
		}
	}
	return b.String() + suffix
}

// ident returns an argument name that does not conflict with Go's keywords or
// with identifiers in the generated functions.
func ident(s string) string {
	switch s {
	case "c", "opts", "r", "begin":
		return s + "_"
	}
	if token.IsKeyword(s) {
		return s + "_"
	}
	return s
}
