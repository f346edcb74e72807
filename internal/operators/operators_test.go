package operators

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"cyclecap/torch"
	"cyclecap/torch/compare"
)

const fixture = "../../torch/testdata/operators.json.gz"

func TestMain(m *testing.M) {
	torch.SetNumThreads(1) // as in the fixture
	os.Exit(m.Run())
}

// cancelling are operators whose results contain differences of nearly equal numbers.
// Measured with other instruction sets of libtorch and MKL, they differ by up to 1.4e-4 of
// the largest, and gradients that would be 0 without rounding by 1.5e-8.
var cancelling = []string{"aten::layer_norm", "aten::linalg_householder_product", "aten::linalg_svd", "aten::orgqr", "aten::rnn_tanh.data"}

// tolerance is what the results of a call may differ by on another kind of processor than
// the fixture's.
func tolerance(t *testing.T, f *File, c *Call) compare.Tolerance {
	t.Helper()
	processor, err := compare.Processor()
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case processor == f.CPU:
		return compare.Bits
	case slices.Contains(cancelling, c.Op):
		return compare.Tolerance{Relative: 1e-3, Max: 1e-6}
	case c.DType == "bfloat16":
		return compare.Tolerance{Relative: 1.0 / 128}.OtherProcessor()
	}
	return compare.Bits.OtherProcessor()
}

// TestOperators repeats the recorded calls. Every operator that has a typed function is
// called through it at least once.
func TestOperators(t *testing.T) {
	f, err := Read(fixture)
	if err != nil {
		t.Fatal(err)
	}
	p, reasons := NewPlayer(f), Reasons()
	typed := map[string]bool{}
	for i := range f.Calls {
		c := &f.Calls[i]
		o := p.Play(c)
		typed[c.Op] = typed[c.Op] || o.Typed
		switch {
		case o.Err != nil:
			t.Errorf("%s (%s, %s): %v", c.Op, c.Entry, c.DType, o.Err)
		case c.Error != "" || reasons[c.Op] != "":
		case !o.Within(tolerance(t, f, c)):
			t.Errorf("%s (%s, %s): the results differ from Python's:\n%v\nthe gradients:\n%v", c.Op, c.Entry, c.DType, o.Results, o.Gradient)
		}
	}
	for op, ok := range typed {
		if p.functions[op].op != "" && !ok {
			t.Errorf("%s is never called through its typed function", op)
		}
	}
	for op := range reasons {
		if _, ok := typed[op]; !ok {
			t.Errorf("differ.txt has %s, which is not in the fixture", op)
		}
	}
	if len(typed) < 1200 {
		t.Errorf("the fixture has %d operators only", len(typed))
	}
}

const calls = `{"torch": "2.11.0", "cpu": "x", "seed": 1}
{"op": "aten::mul.Tensor", "entry": "mul", "dtype": "float32", "args": [["self", ["t", "float32", [2], [1], 0, false, "AACAPwAAAEA="]], ["other", ["t", "float32", [2], [1], 0, false, "AABAQAAAgEA="]]], "results": [["t", "float32", [2], [1], 0, false, "AABAQAAAAEE="]], "grads": [["t", "float32", [2], [1], 0, false, "AAAQwAAAAMA="], ["t", "float32", [2], [1], 0, false, "AABAvwAAgL8="]]}
{"op": "aten::add.Tensor", "entry": "add", "dtype": "int64", "args": [["self", ["t", "int64", [1], [1], 0, false, "AQAAAAAAAAA="]], ["other", ["i", "2"]]], "results": [["t", "int64", [1], [1], 0, false, "AwAAAAAAAAA="]]}
{"op": "aten::mm", "entry": "mm", "dtype": "float32", "args": [["self", ["t", "float32", [1], [1], 0, false, "AACAPw=="]], ["mat2", ["t", "float32", [1], [1], 0, false, "AACAPw=="]]], "error": "RuntimeError"}
`

// packed compresses the lines of a file.
func packed(t *testing.T, text string) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// TestDifferencesAreSeen changes what is recorded of calls that are equal.
func TestDifferencesAreSeen(t *testing.T) {
	play := func(text string) []Outcome {
		f, err := read(packed(t, text))
		if err != nil {
			t.Fatal(err)
		}
		p := NewPlayer(f)
		var out []Outcome
		for i := range f.Calls {
			out = append(out, p.Play(&f.Calls[i]))
		}
		return out
	}
	for i, o := range play(calls) {
		if !o.Equal() {
			t.Errorf("call %d is not equal: %+v", i, o)
		}
		if o.Typed != (i != 1) { // a number in the place of a tensor has no typed function
			t.Errorf("call %d: typed %v", i, o.Typed)
		}
	}
	for _, c := range []struct {
		what, from, to string
		call           int
	}{
		{"a result", `AABAQAAAAEE="]], "grads"`, `AABAQAAAAEA="]], "grads"`, 0},
		{"a gradient", `AABAvwAAgL8=`, `AABAvwAAgD8=`, 0},
		{"no gradient", `["t", "float32", [2], [1], 0, false, "AABAvwAAgL8="]`, `["n"]`, 0},
		{"a result's dtype", `"int64", [1], [1], 0, false, "AwAAAAAAAAA="`, `"float64", [1], [1], 0, false, "AwAAAAAAAAA="`, 1},
		{"the number of results", `[["t", "int64", [1], [1], 0, false, "AwAAAAAAAAA="]]`, `[]`, 1},
		{"the kind of a result", `["t", "int64", [1], [1], 0, false, "AwAAAAAAAAA="]`, `["i", "3"]`, 1},
		{"the kind of an error", "RuntimeError", "IndexError", 2},
		{"an error for a result", `"error": "RuntimeError"`, `"results": []`, 2},
		{"a result for an error", `"results": [["t", "int64", [1], [1], 0, false, "AwAAAAAAAAA="]]`, `"error": "RuntimeError"`, 1},
	} {
		changed := strings.Replace(calls, c.from, c.to, 1)
		if changed == calls {
			t.Fatalf("%s: the calls do not contain %s", c.what, c.from)
		}
		for i, o := range play(changed) {
			if o.Equal() != (i != c.call) {
				t.Errorf("%s of call %d changed: call %d is equal: %v", c.what, c.call, i, o.Equal())
			}
		}
	}
}

// TestDamagedFiles: what cannot be read is an error.
func TestDamagedFiles(t *testing.T) {
	if _, err := Read("testdata/missing"); err == nil {
		t.Error("a missing file is read")
	}
	for _, text := range []string{"", "{", "{}\n{\"op\": 3}\n", "{}\n{}", "[]\n"} {
		if f, err := read(packed(t, text)); err == nil {
			t.Errorf("%q is read as %+v", text, f)
		}
	}
	for _, text := range []string{`[]`, `["x"]`, `["i"]`, `["i", "x"]`, `["i", 3]`, `["f", ""]`, `["c", "1"]`, `["dtype", "float3"]`, `["memory_format", "x"]`,
		`["l", [["x"]]]`, `["t", "float32", [2]]`, `["t", "float32", [2], [1], 0, false, "?"]`, `["t", "float3", [2], [1], 0, false, ""]`} {
		var v value
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		if err := torch.Scope(func() error { _, err := v.decode(); return err }); err == nil {
			t.Errorf("%s is decoded", text)
		}
	}
	// A tensor that is larger than its storage is libtorch's error.
	var v value
	if err := json.Unmarshal([]byte(`["t", "float32", [9], [1], 0, false, "AACAPw=="]`), &v); err != nil {
		t.Fatal(err)
	}
	if err := torch.Scope(func() error { _, err := v.decode(); return err }); err == nil {
		t.Error("a tensor that is larger than its storage is decoded")
	}
}
