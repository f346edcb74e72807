package serve

import (
	"os"
	"testing"
)

// clients returns the folder in which `make serve-test` has installed the real clients. Tests
// that need it have names with Clients.
func clients(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("CYCLECAP_CLIENTS")
	if dir == "" {
		t.Skip("make serve-test installs the clients and runs this")
	}
	return dir
}
