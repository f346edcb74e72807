package sets

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"cyclecap/data/coco"
	"cyclecap/data/webdataset"
)

// photoTypes are the extensions of photos, in lower case. Their contents say what they are.
var photoTypes = map[string]bool{".jpg": true, ".jpeg": true, ".jpe": true, ".jfif": true, ".png": true, ".webp": true, ".gif": true, ".bmp": true}

// otherTypes are the extensions of photos that cannot be read.
var otherTypes = map[string]string{".heic": "HEIC", ".heif": "HEIC", ".avif": "AVIF", ".tif": "TIFF", ".tiff": "TIFF", ".jxl": "JPEG XL", ".jp2": "JPEG 2000", ".svg": "SVG"}

// Passed counts what Folder passed over.
type Passed struct {
	Hidden  int    // photos whose names begin with ".", such as macOS's ._a.jpg
	Folders int    // subfolders
	Tars    int    // tars, which are read if they are named
	Other   int    // photos in formats that cannot be read
	Format  string // of one of them: "HEIC"
}

// String says what was passed over, or is "" if nothing was.
func (p Passed) String() string {
	var list []string
	add := func(n int, one, more string) {
		if n > 0 {
			list = append(list, fmt.Sprintf("%d %s", n, map[bool]string{true: one, false: more}[n == 1]))
		}
	}
	add(p.Folders, "subfolder", "subfolders")
	add(p.Tars, "tar", "tars")
	add(p.Hidden, `photo whose name begins with "."`, `photos whose names begin with "."`)
	add(p.Other, "photo in a format that cannot be read, "+p.Format, "photos in formats that cannot be read, such as "+p.Format)
	return strings.Join(list, ", ")
}

// Folder lists the photos in a folder, sorted by name, and with recursive those in its
// subfolders. Ids are positions in that order, from 0. It passes over files and folders
// whose names begin with ".".
func Folder(path string, recursive bool) (photos []Photo, passed Passed, err error) {
	hidden := func(name string) bool { return strings.HasPrefix(name, ".") }
	var visit func(dir string) error
	visit = func(dir string) error {
		list, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range list {
			name, ext := e.Name(), strings.ToLower(filepath.Ext(e.Name()))
			switch {
			case e.IsDir() && hidden(name):
			case e.IsDir() && recursive:
				if err := visit(filepath.Join(dir, name)); err != nil {
					return err
				}
			case e.IsDir():
				passed.Folders++
			case e.Type()&fs.ModeSymlink == 0 && !e.Type().IsRegular():
			case hidden(name) && photoTypes[ext]:
				passed.Hidden++
			case photoTypes[ext]:
				photos = append(photos, Photo{coco.Int(int64(len(photos))), filepath.Join(dir, name)})
			case webdataset.IsTar(name) && !hidden(name):
				passed.Tars++
			case otherTypes[ext] != "" && !hidden(name):
				passed.Other, passed.Format = passed.Other+1, otherTypes[ext]
			}
		}
		return nil
	}
	if err := visit(path); err != nil {
		return nil, passed, err
	}
	if len(photos) == 0 {
		also := ""
		if s := passed.String(); s != "" {
			also = "; passed over " + s
		}
		return nil, passed, fmt.Errorf("%s: no photos in this folder (.jpg, .jpeg, .jfif, .png, .webp, .gif, .bmp)%s", path, also)
	}
	return photos, passed, nil
}
