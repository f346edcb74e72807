package parity

import (
	"os"
	"runtime"
	"strings"
	"testing"

	"cyclecap/torch"
)

// cpu describes this processor as make.py does: the low-order bits of matrix
// products depend on it.
func cpu(t *testing.T) string {
	b, err := torch.BuildInfo()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return b.Capability + "/" + runtime.GOARCH
	}
	parts := []string{b.Capability}
	first, _, _ := strings.Cut(string(text), "\n\n")
	for _, key := range []string{"vendor_id", "cpu family", "model", "stepping"} {
		value := ""
		for line := range strings.Lines(first) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == key {
				value = strings.TrimSpace(v)
			}
		}
		parts = append(parts, value)
	}
	return strings.Join(parts, "/")
}

func TestSmall(t *testing.T) {
	r, err := Run("testdata/small", "")
	if err != nil {
		t.Fatal(err)
	}
	same := r.CPU == cpu(t)
	if !same {
		t.Logf("the fixtures were made on %s, this is %s: bits may differ", r.CPU, cpu(t))
	}
	if len(r.Rows) < 51 {
		t.Errorf("only %d comparisons were made", len(r.Rows))
	}
	for _, row := range r.Rows {
		t.Logf("%-75s %-35s max |difference| %.2g, %d of %d differ", row.What, row.Reference, row.MaxDiff, row.Differing, row.Elements)
		if !row.OK(same) {
			t.Errorf("%s: max |difference| to %s is %g, relative %g, %d of %d differ", row.What, row.Reference, row.MaxDiff, row.Relative, row.Differing, row.Elements)
		}
	}
}
