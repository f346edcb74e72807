package sets

import (
	"fmt"
	"iter"
	"path"
	"strings"

	"cyclecap/data/photo"
	"cyclecap/data/table"
	"cyclecap/data/webdataset"
)

// Sources returns the photos in files: a tar or a Parquet table (see IsArchive) stands for the photos in
// it, which are named like files in a folder of its name. count is their number, or -1 if there
// is a tar or table, because its photos are counted only as they are read.
//
// A tar or table that is damaged, or has no photos, gives what can be read of it and then a source with
// an error that wraps an *ArchiveError.
func Sources(paths []string) (photos iter.Seq[photo.Source], count int) {
	count = len(paths)
	for _, p := range paths {
		if IsArchive(p) {
			count = -1
		}
	}
	return func(yield func(photo.Source) bool) {
		for _, p := range paths {
			of := photo.Files(p)
			switch {
			case webdataset.IsTar(p):
				of = tarPhotos(p)
			case table.Is(p):
				of = tablePhotos(p)
			}
			for s := range of {
				if !yield(s) {
					return
				}
			}
		}
	}, count
}

// An ArchiveError reports a tar or a table of which no photo, or not every photo, could be read.
type ArchiveError struct {
	Read int // photos before the damage, with those that are damaged themselves
	Err  error
}

func (e *ArchiveError) Error() string {
	return fmt.Sprintf("%v; %d photos of this file were read", e.Err, e.Read)
}

func (e *ArchiveError) Unwrap() error { return e.Err }

// tarPhotos returns the photos in a tar. It passes over files whose names begin with ".", as
// Folder does.
func tarPhotos(tar string) iter.Seq[photo.Source] {
	return func(yield func(photo.Source) bool) {
		n := 0
		for m, err := range webdataset.Members(tar) {
			if err != nil {
				yield(photo.Source{Path: tar, Err: &ArchiveError{n, err}})
				return
			}
			if !photoTypes[strings.ToLower(path.Ext(m.Name))] || strings.HasPrefix(path.Base(m.Name), ".") {
				continue
			}
			s := photo.SourceFrom(tar+"/"+strings.TrimPrefix(m.Name, "./"), m, m.Size)
			if m.Cut() {
				continue // the error of the tar says so
			}
			n++
			if !yield(s) {
				return
			}
		}
		if n == 0 {
			yield(photo.Source{Path: tar, Err: &ArchiveError{0, fmt.Errorf("%s: no photos in this tar (.jpg, .jpeg, .jfif, .png, .webp, .gif, .bmp)", tar)}})
		}
	}
}
