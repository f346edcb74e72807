package world

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncAll waits until all of a folder's file system is on the disk.
func syncAll(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}
