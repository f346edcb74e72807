package embeddings

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"cyclecap/data/table"
	"cyclecap/internal/regular"

	"github.com/parquet-go/parquet-go"
)

// An Input is what a row is the feature of.
type Input struct {
	Name string // the path of a photo, or a text
	// ID identifies a caption, and Image the image that it describes; they may be empty.
	ID, Image string
}

// imageRow and textRow are the rows of a table of inputs. The first columns are those of clip-retrieval.
type imageRow struct {
	Path string `parquet:"image_path"`
}

type textRow struct {
	Caption string  `parquet:"caption"`
	ID      *string `parquet:"id,optional"`
	Image   *string `parquet:"image_id,optional"`
}

// groupRows is the number of rows that are kept in memory until they are written.
const groupRows = 1 << 16

// noteKey is the key of the metadata of a table with the text of Writer.Note.
const noteKey = "cyclecap"

// newInputs returns functions that write a Parquet table of inputs.
func newInputs(kind Kind, w io.Writer) (add func([]Input) error, note func(string), end func() error) {
	options := []parquet.WriterOption{parquet.Compression(&parquet.Snappy), parquet.MaxRowsPerRowGroup(groupRows)}
	if kind == Images {
		to := parquet.NewGenericWriter[imageRow](w, options...)
		return func(list []Input) error {
			rows := make([]imageRow, len(list))
			for i, in := range list {
				rows[i] = imageRow{in.Name}
			}
			_, err := to.Write(rows)
			return err
		}, func(text string) { to.SetKeyValueMetadata(noteKey, text) }, to.Close
	}
	to := parquet.NewGenericWriter[textRow](w, options...)
	return func(list []Input) error {
		rows := make([]textRow, len(list))
		for i, in := range list {
			rows[i].Caption = in.Name
			if in.ID != "" {
				rows[i].ID = &in.ID
			}
			if in.Image != "" {
				rows[i].Image = &in.Image
			}
		}
		_, err := to.Write(rows)
		return err
	}, func(text string) { to.SetKeyValueMetadata(noteKey, text) }, to.Close
}

// column is a column of texts or numbers in a Parquet file.
type column struct {
	path  string
	file  *os.File
	table *parquet.File
	index int
	rows  int64
}

// openColumn opens the first of the columns that a file has.
func openColumn(path string, names []string) (c *column, err error) {
	f, err := regular.Open(path)
	if err != nil {
		return nil, err
	}
	c = &column{path: path, file: f, index: -1}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	err = c.safe(func() error {
		if err := c.open(); err != nil {
			return err
		}
		var have []string
		for _, field := range c.table.Schema().Fields() {
			have = append(have, field.Name())
		}
		for _, name := range names {
			if leaf, ok := c.table.Schema().Lookup(name); ok && leaf.MaxRepetitionLevel == 0 {
				c.index = leaf.ColumnIndex
				return nil
			}
		}
		return fmt.Errorf("none of the columns %q in this table, which has %q", names, have[:min(len(have), 20)])
	})
	return c, err
}

// open reads the description of the table.
func (c *column) open() error {
	info, err := c.file.Stat()
	if err != nil {
		return err
	}
	if c.table, err = parquet.OpenFile(c.file, info.Size(), parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true)); err != nil {
		return err
	}
	c.rows = c.table.NumRows()
	return nil
}

// get returns the values of rows, "" for those that have none. It goes through the pages once,
// because most files have no index of their pages.
func (c *column) get(rows []int64) (texts []string, err error) {
	texts = make([]string, len(rows))
	order := make([]int, len(rows)) // positions in rows, by row
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(rows[a], rows[b]) })
	err = c.safe(func() error {
		first := int64(0) // row of the group
		for _, g := range c.table.RowGroups() {
			end := first + g.NumRows()
			n := 0
			for n < len(order) && rows[order[n]] < end {
				n++
			}
			if n > 0 {
				chunks := g.ColumnChunks()
				if c.index >= len(chunks) {
					return errors.New("a part of the table lacks a column")
				}
				err := readRows(chunks[c.index], order[:n], func(i int) int64 { return rows[i] - first }, func(i int, v parquet.Value) { texts[i] = table.Text(v) })
				if err != nil {
					return err
				}
			}
			first, order = end, order[n:]
		}
		if len(order) > 0 {
			return fmt.Errorf("the table has only %d rows", c.rows)
		}
		return nil
	})
	return texts, err
}

// readRows calls found with the value of each of list, whose rows are ascending.
func readRows(chunk parquet.ColumnChunk, list []int, row func(i int) int64, found func(i int, v parquet.Value)) error {
	pages := chunk.Pages()
	defer pages.Close()
	for first := int64(0); len(list) > 0; {
		page, err := pages.ReadPage()
		if err != nil {
			return err
		}
		end := first + page.NumRows()
		for len(list) > 0 && row(list[0]) < end {
			var value [1]parquet.Value
			at := row(list[0]) - first
			if n, err := page.Slice(at, at+1).Values().ReadValues(value[:]); n < 1 {
				return err
			}
			found(list[0], value[0])
			list = list[1:]
		}
		parquet.Release(page)
		first = end
	}
	return nil
}

// safe calls f and adds the path to its error. The library panics on some damaged files.
func (c *column) safe(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
		if err != nil {
			err = fmt.Errorf("%s: not a Parquet table that can be read: %w", c.path, err)
		}
	}()
	return f()
}
