// Package devicetest has only tests, which compute on a device what the project
// computes and compare it with the CPU's results. CYCLECAP_TEST_DEVICE chooses the
// device: "privateuseone:0", the pretend accelerator of package testdevice, which is
// the default; "cpu"; or "cuda:0" and so on.
//
// The tests need no files: `go test -c` makes a program that runs on any machine with
// libtorch and the shim.
package devicetest
