// Package table reads photos from Parquet tables, such as those of Hugging Face's data sets and of
// img2dataset: a row has the bytes of a photo, or its path.
package table

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"cyclecap/internal/regular"

	"github.com/parquet-go/parquet-go"
)

// Is reports whether a path is that of a table, by its extension.
func Is(path string) bool { return strings.EqualFold(filepath.Ext(path), ".parquet") }

// The columns that are read: of each list, the first that the table has. A point separates the name of
// a group from that of a column in it.
var (
	dataColumns = []string{"image.bytes", "jpg.bytes", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes", "image"}
	pathColumns = []string{"image_path", "image.path", "path", "file_path", "filepath", "file_name"}
	keyColumns  = []string{"key", "__key__", "image_id", "id"}
)

// A Photo is what a row has of a photo.
type Photo struct {
	// Key names the row: its key, or its number from 0.
	Key string
	// Data are the bytes of the photo, valid until the next row, or nil.
	Data []byte
	// Path is the path of the photo if there are no Data. A relative one is that from the table's folder.
	Path string
}

// maxRow limits the bytes of a photo, so that a damaged length does not fill the memory.
const maxRow = 1 << 30

// Photos returns the rows of a table in their order, as a stream. A row without bytes and path has neither. An
// error, which contains the path of the table, is the last element.
func Photos(path string) iter.Seq2[Photo, error] {
	return func(yield func(Photo, error) bool) {
		stopped, err := rows(path, yield)
		if err != nil && !stopped {
			yield(Photo{}, fmt.Errorf("%s: %w", path, err))
		}
	}
}

// rows calls yield with each row until it returns false.
func rows(path string, yield func(Photo, error) bool) (stopped bool, err error) {
	f, err := regular.Open(path)
	if p := (*os.PathError)(nil); errors.As(err, &p) {
		return false, p.Err
	} else if err != nil {
		return false, err
	}
	defer f.Close()
	yielding := false
	// The library panics on some damaged files.
	defer func() {
		if yielding {
			return // a panic of the caller
		}
		if p := recover(); p != nil {
			err = fmt.Errorf("a Parquet table that is damaged: %v", p)
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	t, err := parquet.OpenFile(f, info.Size(), parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return false, fmt.Errorf("not a Parquet table that can be read: %w", err)
	}
	data, paths, keys := find(t, dataColumns), find(t, pathColumns), find(t, keyColumns)
	if data < 0 && paths < 0 {
		return false, fmt.Errorf("no column of this table has photos (%s) or their paths (%s); it has %q",
			strings.Join(dataColumns, ", "), strings.Join(pathColumns, ", "), names(t))
	}
	n := int64(0)
	for _, g := range t.RowGroups() {
		chunks := g.ColumnChunks()
		open := func(column int) *cursor {
			if column < 0 || column >= len(chunks) {
				return nil
			}
			return &cursor{pages: chunks[column].Pages()}
		}
		d, p, k := open(data), open(paths), open(keys)
		defer d.close()
		defer p.close()
		defer k.close()
		for range g.NumRows() {
			row := Photo{Key: strconv.FormatInt(n, 10)}
			bytes, err := d.next()
			if err != nil {
				return false, fmt.Errorf("row %d: %w", n, err)
			}
			name, err := p.next()
			if err != nil {
				return false, fmt.Errorf("row %d: %w", n, err)
			}
			key, err := k.next()
			if err != nil {
				return false, fmt.Errorf("row %d: %w", n, err)
			}
			if !key.IsNull() {
				row.Key = Text(key)
			}
			if !bytes.IsNull() {
				row.Data = bytes.ByteArray()
			}
			if len(row.Data) == 0 && !name.IsNull() {
				row.Data = nil
				if row.Path = Text(name); row.Path != "" && !filepath.IsAbs(row.Path) {
					row.Path = filepath.Join(filepath.Dir(path), row.Path)
				}
			}
			yielding = true
			more := yield(row, nil)
			yielding = false
			if !more {
				return true, nil
			}
			n++
		}
		d.close()
		p.close()
		k.close()
	}
	return false, nil
}

// find returns the index of the first of columns that the table has, or -1.
func find(t *parquet.File, columns []string) int {
	for _, name := range columns {
		leaf, ok := t.Schema().Lookup(strings.Split(name, ".")...)
		if ok && leaf.MaxRepetitionLevel == 0 && leaf.Node.Leaf() {
			return leaf.ColumnIndex
		}
	}
	return -1
}

// names returns the columns of a table, at most 20.
func names(t *parquet.File) (list []string) {
	for _, path := range t.Schema().Columns() {
		list = append(list, strings.Join(path, "."))
	}
	return list[:min(len(list), 20)]
}

// Text returns a value as text; that of a null is empty.
func Text(v parquet.Value) string {
	switch {
	case v.IsNull():
		return ""
	case v.Kind() == parquet.ByteArray || v.Kind() == parquet.FixedLenByteArray:
		return string(v.ByteArray())
	}
	return v.String()
}

// A cursor goes through the values of a column. A nil cursor has only nulls.
type cursor struct {
	pages  parquet.Pages
	page   parquet.Page
	values parquet.ValueReader
}

// next returns the next value, valid until the next call.
func (c *cursor) next() (parquet.Value, error) {
	if c == nil {
		return parquet.Value{}, nil
	}
	for {
		if c.values != nil {
			var v [1]parquet.Value
			n, err := c.values.ReadValues(v[:])
			if n == 1 {
				if len(v[0].Bytes()) > maxRow {
					return v[0], fmt.Errorf("a value of more than %d bytes", maxRow)
				}
				return v[0], nil
			}
			if err != nil && err != io.EOF {
				return parquet.Value{}, err
			}
			c.release()
		}
		page, err := c.pages.ReadPage()
		if err == io.EOF {
			return parquet.Value{}, errors.New("the column ends before the table does: the file is damaged")
		}
		if err != nil {
			return parquet.Value{}, err
		}
		c.page, c.values = page, page.Values()
	}
}

func (c *cursor) release() {
	if c.page != nil {
		parquet.Release(c.page)
		c.page, c.values = nil, nil
	}
}

func (c *cursor) close() {
	if c != nil && c.pages != nil {
		c.release()
		c.pages.Close()
		c.pages = nil
	}
}
