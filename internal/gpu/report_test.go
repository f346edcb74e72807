package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cyclecap/torch/compare"
)

func TestFigure(t *testing.T) {
	for want, v := range map[string]float64{"0.0123 s": 0.01234, "1.23 s": 1.234, "12.3 s": 12.34, "123 s": 123.4, "12345 s": 12345, "0 s": 0} {
		if got := figure(v, "s"); got != want {
			t.Errorf("figure(%g) is %q, want %q", v, got, want)
		}
	}
}

// TestSupervise runs sections that fail, hang and print rows, and reads the report.
func TestSupervise(t *testing.T) {
	saved := chapters
	defer func() { chapters = saved }()
	dir := t.TempDir()
	facts := filepath.Join(dir, "facts.json")
	if err := os.WriteFile(facts, []byte(`{"card": "a card", "torch": "2.11.0", "memory": 1073741824}`), 0o644); err != nil {
		t.Fatal(err)
	}
	// This binary runs TestMain's section in place of the program's.
	t.Setenv("GPU_TEST_SECTION", "1")
	chapters = []chapter{
		{"parity", "Parity", time.Minute, time.Minute, parityRows},
		{"tests", "Tests", time.Minute, time.Minute, testRows},
		{"table", "Table", time.Minute, time.Minute, nil},
	}
	err := supervise(settings{device: "cpu", small: true, out: dir, facts: facts}, []string{"parity", "tests", "table"})
	if err == nil || !strings.Contains(err.Error(), "2 results are wrong") {
		t.Errorf("the error is %v, want 2 wrong results", err)
	}
	var r report
	text, err := os.ReadFile(filepath.Join(dir, "report.json"))
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		t.Fatal(err)
	}
	if !r.Finished || len(r.Sections) != 3 || r.Machine.Card != "a card" {
		t.Fatalf("the report is %s", text)
	}
	if s := r.Sections[0]; len(s.Rows) != 2 || s.Rows[1].Verdict != outside || s.Error != "" {
		t.Errorf("parity is %+v", s)
	}
	if s := r.Sections[1]; len(s.Rows) != 1 || !strings.Contains(s.Error, "it crashed") {
		t.Errorf("the section that crashed is %+v", s)
	}
	md, err := os.ReadFile(filepath.Join(dir, "report.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"# On a card", "1 bit-equal, 1 OUT OF BOUND", "first at [1]: got 3, want 2", "did not finish: exit status 3: it crashed", `a \| b`} {
		if !strings.Contains(string(md), want) {
			t.Errorf("report.md has no %q:\n%s", want, md)
		}
	}
}

// TestMain takes the place of a section's process.
func TestMain(m *testing.M) {
	if os.Getenv("GPU_TEST_SECTION") == "" || len(os.Args) < 3 || os.Args[1] != "-section" {
		os.Exit(m.Run())
	}
	e := &env{out: json.NewEncoder(os.Stdout)}
	switch os.Args[2] {
	case "parity":
		e.comparison("a | b", "Python", "f32", compare.Numbers([]float64{1, 2}, []float64{1, 2}), compare.Bits)
		e.comparison("others", "Python", "f32", compare.Numbers([]float64{1, 3}, []float64{1, 2}), compare.Bits)
	case "tests":
		e.add(row{Name: "a test", Verdict: passed})
		os.Stderr.WriteString("first\nit crashed\n")
		os.Exit(3)
	}
}

// TestTable checks the hours of a part, and that nothing is summed if a part is missing.
func TestTable(t *testing.T) {
	r := &report{Size: "real", Sections: []*section{{Name: "speed", Rows: []row{
		{Key: "image", DType: "f32", Batch: 256, Ours: 1000},
		{Key: "photos", Ours: 123_287.0 / 3600},
		{Key: "mapper", DType: "f32", Batch: 64, Ours: 10},
	}}}}
	rows := tableRows(r)
	if rows[0].Name != "image features" || rows[0].Ours < 0.999 || rows[0].Ours > 1.001 {
		t.Errorf("image features take %+v, want an hour of decoding", rows[0])
	}
	if rows[2].Name != "training the decoder" || rows[2].Ours < 0.359 || rows[2].Ours > 0.36 {
		t.Errorf("the decoder takes %+v, want 20*414113/64 steps of 10 ms, 0.3595 hours", rows[2])
	}
	for _, x := range rows {
		if x.Unit == "GPU-h" {
			t.Errorf("a sum without all parts: %+v", x)
		}
	}
}
