package devicetest

import (
	"testing"

	"cyclecap/internal/selftest"
)

// TestSelfTest runs the checks of `cyclecap doctor --self-test` on the device.
func TestSelfTest(t *testing.T) {
	err := selftest.Run(t.Context(), device, selftest.Checks(), func(r selftest.Result) {
		t.Logf("%-42s %8.1e of %8.1e, %.2f s", r.Name, r.Difference, r.Bound, r.Seconds)
		if !r.OK {
			t.Errorf("%+v", r)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}
