// Package cpp carries the sources of the shim, the C library over libtorch that
// package torch calls. They are embedded so that they go wherever the module
// goes, vendored too, and can be built there.
package cpp

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
)

// Sources holds CMakeLists.txt, include/ and src/.
//
//go:embed CMakeLists.txt include src
var Sources embed.FS

// Key tells one state of the sources from another.
func Key() string {
	sum := sha256.New()
	err := fs.WalkDir(Sources, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := Sources.ReadFile(path)
		if err != nil {
			return err
		}
		of := sha256.Sum256(text)
		sum.Write([]byte(path + "\x00"))
		sum.Write(of[:])
		return nil
	})
	if err != nil {
		panic(err) // embedded files can be read
	}
	return hex.EncodeToString(sum.Sum(nil)[:6])
}
