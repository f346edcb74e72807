package torch_test

import (
	"os"
	"testing"

	"cyclecap/torch"
)

// The fixtures were made with one thread, which the order of sums depends on.
func TestMain(m *testing.M) {
	torch.SetNumThreads(1)
	os.Exit(m.Run())
}
