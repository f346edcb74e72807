package main

import (
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDocument(t *testing.T) {
	file := filepath.Join(t.TempDir(), "calls.gz")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(f)
	_, err = z.Write([]byte(`{"torch": "2.11.0"}
{"op": "aten::add", "dtype": "bfloat16", "results": []}
{"op": "aten::add", "dtype": "float32", "results": [], "grads": [["n"]]}
{"op": "aten::add", "dtype": "float64", "error": "RuntimeError"}
{"op": "aten::empty", "dtype": "int64", "results": []}
`))
	if err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	const all = `aten::add(Tensor self) -> Tensor
aten::empty(int[] size) -> Tensor
aten::neg(Tensor input) -> Tensor
aten::add.out(Tensor self, *, Tensor(a!) out) -> Tensor(a!)
aten::_hidden(Tensor self) -> Tensor
aten::names(str[] names) -> Tensor
aten::mul_(Tensor(a!) self) -> Tensor(a!)
mkl::linear(Tensor x) -> Tensor
`
	got, err := document("2.11.0", all, "aten::add Plus\naten::empty\naten::neg\naten::mul_ -\nmkl::linear\n", file, "# why\naten::empty uninitialized memory\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| public ones of aten without `out=` | 5 |",
		"in `ops.txt` | 1 |",
		"calls them | 2 |",
		"| **with a typed function** | **4** |",
		"bit-identical | 1 |",
		"(#different-or-not-determined)) | 1 |",
		"(#not-compared)) | 2 |",
		"and 1 calls that",
		"| `aten::empty` | uninitialized memory |",
		"| `aten::names` | no Go type for str[] names |",
		"| `aten::mul_` | written by hand in package torch |",
		"\n`aten::neg`, `mkl::linear`\n",
		"| `aten::add` | `Tensor.Plus` | f32 bf16 gradients |",
		"| `aten::empty` | `Empty` | i64: uninitialized memory |",
		"| `aten::neg` | `Neg` |  |",
	} {
		if !strings.Contains(string(got), want) {
			t.Errorf("the document lacks %q:\n%s", want, got)
		}
	}
	if _, err := document("2.11.0", all, "aten::add\n", file, ""); err == nil || !strings.Contains(err.Error(), "does not list aten::empty") {
		t.Errorf("an operator that could be listed: %v", err)
	}
}
