package world

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncAll waits until everything in the folder's file system is on disk.
func syncAll(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}
