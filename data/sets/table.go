package sets

import (
	"bytes"
	"fmt"
	"iter"

	"cyclecap/data/photo"
	"cyclecap/data/table"
	"cyclecap/data/webdataset"
)

// IsArchive reports whether a path stands for many photos: it is that of a tar or of a Parquet table.
func IsArchive(path string) bool { return webdataset.IsTar(path) || table.Is(path) }

// tablePhotos returns the photos in a Parquet table. Those whose bytes it has are named like files in a
// folder of its name, by their keys.
func tablePhotos(path string) iter.Seq[photo.Source] {
	return func(yield func(photo.Source) bool) {
		n := 0
		for p, err := range table.Photos(path) {
			if err != nil {
				yield(photo.Source{Path: path, Err: &ArchiveError{n, err}})
				return
			}
			name := path + "/" + p.Key
			s := photo.Source{Path: p.Path}
			switch {
			case p.Data != nil:
				s = photo.SourceFrom(name, bytes.NewReader(p.Data), int64(len(p.Data)))
			case p.Path == "":
				s = photo.Source{Path: name, Err: fmt.Errorf("%s: this row has no photo", name)}
			}
			n++
			if !yield(s) {
				return
			}
		}
		if n == 0 {
			yield(photo.Source{Path: path, Err: &ArchiveError{0, fmt.Errorf("%s: no rows in this table", path)}})
		}
	}
}
