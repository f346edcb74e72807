package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"cyclecap/torch/internal/schema"
)

// compared says in which dtypes an operator is compared with PyTorch.
type compared struct {
	dtypes    []string
	gradients bool
}

// dtypes has the dtypes of make_operators.py with their short names.
var dtypes = [][2]string{{"float32", "f32"}, {"float64", "f64"}, {"bfloat16", "bf16"}, {"int64", "i64"}, {"complex64", "c64"}}

// readCalls returns what a file of make_operators.py compares. errors is the number
// of calls that raise an error.
func readCalls(file string) (ops map[string]compared, raised int, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", file, err)
	}
	ops = map[string]compared{}
	lines := bufio.NewReader(z)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return ops, raised, nil
		}
		var c struct {
			Op, DType, Error string
			Grads            []any
		}
		if err == nil {
			err = json.Unmarshal(line, &c)
		}
		switch {
		case err != nil:
			return nil, 0, fmt.Errorf("%s: %w", file, err)
		case c.Error != "":
			raised++
		case c.Op != "":
			o := ops[c.Op]
			if !slices.Contains(o.dtypes, c.DType) {
				o.dtypes = append(o.dtypes, c.DType)
			}
			o.gradients = o.gradients || c.Grads != nil
			ops[c.Op] = o
		}
	}
}

func (c compared) String() string {
	var s []string
	for _, d := range dtypes {
		if slices.Contains(c.dtypes, d[0]) {
			s = append(s, d[1])
		}
	}
	if c.gradients {
		s = append(s, "gradients")
	}
	return strings.Join(s, " ")
}

// document writes docs/operators.md. schemas are those of all operators of this
// libtorch, list is ops.txt, calls a file of make_operators.py, and differ the
// operators whose results differ or are not determined, with the reasons.
func document(version, schemas, list, calls, differ string) ([]byte, error) {
	reached, raised, err := readCalls(calls)
	if err != nil {
		return nil, err
	}
	goNames, reasons := map[string]string{}, map[string]string{}
	_ = lines(list, func(_ int, f []string) error {
		goNames[f[0]] = ""
		if len(f) > 1 {
			goNames[f[0]] = f[1]
		}
		return nil
	})
	for line := range strings.Lines(differ) {
		if name, reason, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name != "#" {
			reasons[name] = strings.TrimSpace(reason)
		}
	}
	var all []schema.Operator
	for text := range strings.Lines(schemas) {
		o, err := schema.Parse(strings.TrimSpace(text))
		switch {
		case err == nil:
		case strings.HasPrefix(text, "aten::"):
			return nil, err
		default:
			continue // libraries in libtorch take any number of arguments: "..."
		}
		_, listed := goNames[o.FullName()]
		if listed || strings.HasPrefix(o.Name, "aten::") && o.Public() && !o.Out() {
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b schema.Operator) int { return strings.Compare(a.FullName(), b.FullName()) })
	var rows, differing, notExpressible strings.Builder
	var missing []string
	public, typed, internal, equal, other, without := 0, 0, 0, 0, 0, 0
	for _, o := range all {
		full := o.FullName()
		name, listed := goNames[full]
		if isPublic := strings.HasPrefix(o.Name, "aten::") && o.Public(); isPublic {
			public++
		} else {
			internal++
		}
		switch {
		case !listed:
			without++
			reason := new(generator).write(new(bytes.Buffer), o, "X")
			if reason == nil {
				return nil, fmt.Errorf("ops.txt does not list %s", full)
			}
			fmt.Fprintf(&notExpressible, "| `%s` | %v |\n", full, reason)
			continue
		case name == "-":
			without++
			fmt.Fprintf(&notExpressible, "| `%s` | written by hand in package torch |\n", full)
			continue
		case name == "":
			name = goName(o)
		}
		typed++
		method := name
		if len(o.Args) > 0 && o.Args[0].Name == "self" && o.Args[0].Type == "Tensor" {
			method = "Tensor." + name
		}
		c, ok := reached[full]
		note := c.String()
		switch reason := reasons[full]; {
		case reason != "":
			other++
			note += ": " + reason
			fmt.Fprintf(&differing, "| `%s` | %s |\n", full, reason)
		case ok:
			equal++
		default:
			missing = append(missing, "`"+full+"`")
		}
		fmt.Fprintf(&rows, "| `%s` | `%s` | %s |\n", full, method, note)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `# PyTorch's operators in package torch

`+"`make generate` writes this file, from libtorch %s, `torch/ops.txt` and the calls in `torch/testdata/operators.json.gz`."+`

| operators | |
| --- | ---: |
| public ones of aten without %[2]sout=%[2]s | %[3]d |
| internal ones, and those of libraries in libtorch, in %[2]sops.txt%[2]s | %[4]d |
| without a function of their own ([why](#without-a-typed-function)); %[2]storch.Call%[2]s calls them | %[5]d |
| **with a typed function** | **%[6]d** |
| compared with Python: bit-identical | %[7]d |
| compared with Python: different or not determined ([why](#different-or-not-determined)) | %[8]d |
| not compared: no sample reaches them ([which](#not-compared)) | %[9]d |

The comparison takes the samples of PyTorch's own tests (%[2]sop_db%[2]s) in f32, f64, bf16, i64 and c64: results, gradients, and %[10]d calls that
raise an error in Python, which must be a %[2]s*torch.Error%[2]s of the same kind. %[2]sgo test ./internal/operators%[2]s repeats the recorded calls, and
%[2]smake parity%[2]s others from a fresh seed, both through the typed functions.

## Different or not determined

| operator | why |
| --- | --- |
%[11]s
## Without a typed function

| operator | why |
| --- | --- |
%[12]s
## Not compared

%[13]s

## Every typed function

| operator | Go | compared in |
| --- | --- | --- |
%[14]s`, version, "`", public, internal, without, typed, equal, other, len(missing), raised, differing.String(), notExpressible.String(), strings.Join(missing, ", "), rows.String())
	return b.Bytes(), nil
}
