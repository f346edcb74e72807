package main

import (
	"strings"
	"testing"
)

func TestTestResults(t *testing.T) {
	const out = `=== RUN   TestA
--- PASS: TestA (0.01s)
=== RUN   TestB
=== RUN   TestB/one
    b_test.go:1: as it should be
=== RUN   TestB/two
    b_test.go:2: wrong
--- FAIL: TestB (0.02s)
    --- PASS: TestB/one (0.01s)
    --- FAIL: TestB/two (0.01s)
=== RUN   TestC
    c_test.go:3: needs a GPU
--- SKIP: TestC (0.00s)
=== RUN   TestD
    d_test.go:4: 2 tensors are left
--- FAIL: TestD (0.00s)
FAIL
`
	want := []row{
		{Name: "test TestA (0.01s)", Verdict: passed},
		{Name: "test TestB (0.02s)", Verdict: failed, Note: "TestB/two: b_test.go:2: wrong"},
		{Name: "test TestC (0.00s)", Verdict: skipped, Note: "c_test.go:3: needs a GPU"},
		{Name: "test TestD (0.00s)", Verdict: failed, Note: "d_test.go:4: 2 tensors are left"},
	}
	var text []string
	n := 0
	for r := range testResults(strings.NewReader(out), &text) {
		if n >= len(want) || r != want[n] {
			t.Errorf("row %d is %+v", n, r)
		}
		n++
	}
	if n != len(want) || text[len(text)-1] != "FAIL" {
		t.Errorf("%d rows, and at the end the text %q", n, text)
	}
}
