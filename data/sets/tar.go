package sets

import (
	"fmt"
	"iter"
	"path"
	"strings"

	"cyclecap/data/photo"
	"cyclecap/data/webdataset"
)

// Sources returns the photos in files: a tar (see webdataset.IsTar) stands for the photos in it,
// which are named like files in a folder of its name. count is their number, or -1 if there
// is a tar, because its photos are counted only as they are read.
//
// A tar that is damaged, or has no photos, gives what can be read of it and then a source with
// an error that wraps a *TarError.
func Sources(paths []string) (photos iter.Seq[photo.Source], count int) {
	count = len(paths)
	for _, p := range paths {
		if webdataset.IsTar(p) {
			count = -1
		}
	}
	return func(yield func(photo.Source) bool) {
		for _, p := range paths {
			of := photo.Files(p)
			if webdataset.IsTar(p) {
				of = tarPhotos(p)
			}
			for s := range of {
				if !yield(s) {
					return
				}
			}
		}
	}, count
}

// A TarError reports a tar of which no photo, or not every photo, could be read.
type TarError struct {
	Read int // photos before the damage, with those that are damaged themselves
	Err  error
}

func (e *TarError) Error() string {
	return fmt.Sprintf("%v; %d photos of this tar were read", e.Err, e.Read)
}

func (e *TarError) Unwrap() error { return e.Err }

// tarPhotos returns the photos in a tar. It passes over files whose names begin with ".", as
// Folder does.
func tarPhotos(tar string) iter.Seq[photo.Source] {
	return func(yield func(photo.Source) bool) {
		n := 0
		for m, err := range webdataset.Members(tar) {
			if err != nil {
				yield(photo.Source{Path: tar, Err: &TarError{n, err}})
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
			yield(photo.Source{Path: tar, Err: &TarError{0, fmt.Errorf("%s: no photos in this tar (.jpg, .jpeg, .jfif, .png, .webp, .gif, .bmp)", tar)}})
		}
	}
}
