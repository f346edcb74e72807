package torch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// TestAddresses checks that only handle.go, whose functions borrow a tensor as long
// as its address is in use, and the call layer read the address of a tensor.
func TestAddresses(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if name == "handle.go" || name == "call.go" || name == "random.go" || strings.HasSuffix(name, "_test.go") {
			continue
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "ptr" {
				t.Errorf("%v reads an address; use lend", fset.Position(s.Pos()))
			}
			return true
		})
	}
}

// TestClosedAreForgotten closes tensors of one long scope in the order in which they
// were created: the scope must not keep their handles.
func TestClosedAreForgotten(t *testing.T) {
	err := Scope(func() error {
		for range 1000 {
			a, b := Ones([]int64{1}), Ones([]int64{1})
			a.Close()
			b.Close()
			Ones([]int64{1}).Keep().Close()
		}
		if n := len(current().owned); n != 0 {
			t.Errorf("the scope has %d handles of closed tensors", n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
