// Package cpp contains the sources of the shim, the C library through which
// package torch calls libtorch. They are embedded so that they are available
// wherever the module is used, vendored copies included, and can be built there.
package cpp

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
)

// Sources contains CMakeLists.txt, include/ and src/.
//
//go:embed CMakeLists.txt include src
var Sources embed.FS

// Key returns a hash of the sources that identifies their version.
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
		panic(err) // reading embedded files cannot fail
	}
	return hex.EncodeToString(sum.Sum(nil)[:6])
}
