package parity

import (
	"testing"

	"cyclecap/torch/compare"
)

func TestSmall(t *testing.T) {
	r, err := Run("testdata/small", "")
	if err != nil {
		t.Fatal(err)
	}
	processor, err := compare.Processor()
	if err != nil {
		t.Fatal(err)
	}
	same := r.CPU == processor
	if !same {
		t.Logf("the fixtures were made on %s, this is %s: bits may differ", r.CPU, processor)
	}
	if len(r.Rows) < 51 {
		t.Errorf("only %d comparisons were made", len(r.Rows))
	}
	for _, row := range r.Rows {
		t.Logf("%-75s %-35s max |difference| %s, %d of %d differ", row.What, row.Reference, row.MaxText(), row.Differing, row.Elements)
		if !row.OK(same) {
			t.Errorf("%s, compared with %s: %v", row.What, row.Reference, row.Difference)
		}
	}
}
