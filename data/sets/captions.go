package sets

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"cyclecap/data/coco"
	"cyclecap/data/webdataset"
	"cyclecap/internal/jsonerror"
	"cyclecap/internal/regular"
)

// Captions reads the captions in a file, without photos. The extension, and for JSON the
// contents, say what it is:
//
//	.json          COCO's captions, LAVIS's list, Karpathy's files of COCO and Flickr, or JSON lines
//	.jsonl .ndjson {"caption": "…", "id": …, "image_id": …, "key": "…"} in each line
//	.csv .tsv      a table with a column "caption" or "title", or caption<TAB>URL without header
//	.tar .tar.gz   the .txt members of tars, which may be a pattern (see webdataset.Expand)
//	other          JSON if it begins with { or [ and is not .txt, otherwise text with one caption per line
//
// Ids are those in the file, or else numbers: of lines, from 1, and for JSON and tars of
// captions, from 0. The set is paired if the file says to which image each caption belongs;
// Photos is empty nevertheless. maxBad is the largest fraction of captions that may be bad.
func Captions(path string, maxBad float64) (*Set, error) {
	s := &Set{Paired: true, Bad: Bad{Of: "captions of " + path, Max: maxBad}}
	var err error
	switch ext := strings.ToLower(filepath.Ext(path)); {
	case webdataset.IsTar(path):
		err = s.readTars(path)
	case ext == ".csv" || ext == ".tsv":
		err = s.readTable(path, ext == ".tsv")
	case ext == ".jsonl" || ext == ".ndjson":
		err = s.readJSONLines(path)
	case ext == ".json":
		err = s.readJSON(path)
	case ext != ".txt" && begins(path, "{", "["):
		err = s.readJSON(path)
	default:
		return Lines(path, maxBad)
	}
	if err != nil {
		return nil, err
	}
	if len(s.Captions)+s.Bad.Count == 0 {
		return nil, fmt.Errorf("%s: no captions in this file", path)
	}
	s.Paired = !slices.ContainsFunc(s.Captions, func(c Caption) bool { return c.Image == coco.ID{} })
	return checked(s)
}

// begins reports whether a file begins with one of the prefixes. If it cannot be read, its
// reader says why.
func begins(path string, prefixes ...string) bool {
	f, err := regular.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, 16)
	n, _ := io.ReadFull(f, head)
	text := strings.TrimSpace(strings.TrimPrefix(string(head[:n]), "\uFEFF"))
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(text, p) })
}

// readTars reads the captions in tars.
func (s *Set) readTars(pattern string) error {
	tars, err := webdataset.Expand(pattern)
	if err != nil {
		return err
	}
	for n, tar := range tars {
		for m, err := range webdataset.Members(tar) {
			if err != nil {
				return fmt.Errorf("%w; %d captions before it were read", err, len(s.Captions))
			}
			if strings.ToLower(path.Ext(m.Name)) != ".txt" || strings.HasPrefix(path.Base(m.Name), ".") {
				continue
			}
			if m.Size > maxLine {
				return fmt.Errorf("%s/%s: %d bytes are too many for a caption; the limit is %d", tar, m.Name, m.Size, maxLine)
			}
			text, err := io.ReadAll(io.LimitReader(m, maxLine))
			if err != nil {
				continue // Members says what is wrong
			}
			id := coco.Int(int64(len(s.Captions) + s.Bad.Count))
			s.caption(Caption{id, coco.Text(webdataset.Key(m.Name)), strings.TrimSpace(string(text))}, func() string { return tar + "/" + m.Name })
		}
		if len(s.Captions)+s.Bad.Count == 0 && n == len(tars)-1 {
			return fmt.Errorf("%s: no captions (.txt) in this tar", pattern)
		}
	}
	return nil
}

// readJSON reads a JSON file of any kind.
func (s *Set) readJSON(path string) error {
	switch kind, err := jsonKind(path); {
	case err != nil:
		return err
	case kind == "lines":
		return s.readJSONLines(path)
	case kind == "Karpathy":
		return scanKarpathy(path, func(m karpathyImage) { m.captions(s) })
	}
	data, err := coco.Read(path)
	if err != nil {
		return plain(err)
	}
	for i, a := range data.Annotations {
		id := a.ID
		if id == (coco.ID{}) {
			id = coco.Int(int64(i))
		}
		s.caption(Caption{id, a.ImageID, a.Caption}, func() string { return fmt.Sprintf("annotations[%d] (id %s)", i, id) })
	}
	return nil
}

// jsonKind returns "lines" for a file with an object for each caption, "Karpathy", or "".
// It reads no more than it needs, and leaves damage to the reader of that kind.
func jsonKind(path string) (string, error) {
	f, err := regular.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	in := bufio.NewReader(f)
	skipMark(in)
	d := json.NewDecoder(in)
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return "", nil
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return "", nil
		}
		switch t {
		case "caption":
			return "lines", nil
		case "annotations":
			return "", nil
		case "images":
			if t, err := d.Token(); err != nil || t != json.Delim('[') || !d.More() {
				return "", nil
			}
			var first map[string]json.RawMessage
			if err := d.Decode(&first); err == nil && first["sentences"] != nil {
				return "Karpathy", nil
			}
			return "", nil
		}
		var skipped json.RawMessage
		if err := d.Decode(&skipped); err != nil {
			return "", nil
		}
	}
	return "", nil
}

// skipMark passes over a byte order mark at the beginning of a file.
func skipMark(in *bufio.Reader) {
	if mark, _ := in.Peek(3); string(mark) == "\uFEFF" {
		in.Discard(3)
	}
}

// eachLine calls f with the lines of a UTF-8 text file, counted from 1, without line ends and
// without the byte order mark at the beginning of the file.
func eachLine(path string, f func(n int64, line []byte) error) error {
	file, err := regular.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	in := bufio.NewReaderSize(file, maxLine)
	for n := int64(1); ; n++ {
		line, err := in.ReadSlice('\n')
		if err == bufio.ErrBufferFull {
			return fmt.Errorf("%s:%d: line longer than %d bytes: want one caption per line", path, n, maxLine)
		}
		if err != nil && err != io.EOF {
			return fmt.Errorf("%s:%d: %w", path, n, err)
		}
		if err == io.EOF && len(line) == 0 {
			return nil
		}
		if n == 1 {
			line = bytes.TrimPrefix(line, []byte("\uFEFF"))
		}
		if err := f(n, bytes.TrimRight(line, "\r\n")); err != nil {
			return err
		}
	}
}

// readJSONLines reads a file with a JSON object in each line.
func (s *Set) readJSONLines(path string) error {
	return eachLine(path, func(n int64, line []byte) error {
		if len(bytes.TrimSpace(line)) == 0 {
			return nil
		}
		where := func() string { return fmt.Sprintf("line %d", n) }
		if !utf8.Valid(line) { // it would be replaced silently
			s.Bad.Add(where() + " is not valid UTF-8")
			return nil
		}
		var v struct {
			Caption *string  `json:"caption"`
			ID      *coco.ID `json:"id"`
			ImageID *coco.ID `json:"image_id"`
			Key     *coco.ID `json:"key"`
		}
		if err := json.Unmarshal(line, &v); err != nil {
			column := int64(1)
			if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
				column = max(syntax.Offset, 1)
			} else if kind := (*json.UnmarshalTypeError)(nil); errors.As(err, &kind) {
				column = max(kind.Offset, 1)
			}
			return fmt.Errorf("%s:%d:%d: %w", path, n, column, jsonerror.Words(err))
		}
		c := Caption{ID: coco.Int(n)}
		for _, f := range []struct {
			name string
			id   *coco.ID
			to   *coco.ID
		}{{"id", v.ID, &c.ID}, {"key", v.Key, &c.Image}, {"image_id", v.ImageID, &c.Image}} {
			if err := f.id.Check(); err != nil {
				return fmt.Errorf("%s:%d: %q %w", path, n, f.name, err)
			}
			if f.id != nil {
				*f.to = *f.id
			}
		}
		if v.Caption == nil {
			return fmt.Errorf("%s:%d: no \"caption\": want {\"caption\": \"…\"} in each line", path, n)
		}
		c.Text = *v.Caption
		s.caption(c, where)
		return nil
	})
}

// The columns of a table, in the order in which they are looked for. open_clip's tables have
// "filepath" and "title", and those of Flickr8k "image".
var (
	captionColumns = []string{"caption", "title"}
	imageColumns   = []string{"image_id", "key", "image", "filepath", "url"}
)

// readTable reads a table whose columns are separated by tabs, or in .csv files by commas
// unless the first line has a tab: open_clip's have.
func (s *Set) readTable(path string, tabs bool) error {
	f, err := regular.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, maxLine)
	skipMark(in)
	head, _ := in.Peek(maxLine)
	first, _, _ := strings.Cut(string(head), "\n")
	tabs = tabs || strings.Contains(first, "\t")
	if url, ok := columnOfURLs(first); ok && url {
		return s.readConceptual(path)
	}
	table := csv.NewReader(in)
	if tabs {
		table.Comma = '\t'
	}
	table.ReuseRecord = true
	header, err := table.Read()
	if err == io.EOF {
		return fmt.Errorf("%s: the file is empty", path)
	} else if err != nil {
		return tableError(path, err)
	}
	find := func(names []string) int {
		for _, n := range names {
			if i := slices.Index(header, n); i >= 0 {
				return i
			}
		}
		return -1
	}
	caption, id, image := find(captionColumns), find([]string{"id"}), find(imageColumns)
	if caption < 0 {
		return fmt.Errorf("%s:1: no column \"caption\" or \"title\" among %q; a file without header must have the form caption<TAB>URL", path, header[:min(len(header), 10)])
	}
	for {
		row, err := table.Read()
		if err == io.EOF {
			return nil
		} else if err != nil {
			return tableError(path, err)
		}
		line, _ := table.FieldPos(0)
		c := Caption{ID: coco.Int(int64(line)), Text: strings.Clone(row[caption])}
		if id >= 0 {
			c.ID = cell(row[id])
		}
		if image >= 0 {
			c.Image = cell(row[image])
		}
		s.caption(c, func() string { return fmt.Sprintf("line %d", line) })
	}
}

// cell returns the id in a cell: an integer if it is written like one.
func cell(text string) coco.ID {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && strconv.FormatInt(n, 10) == text {
		return coco.Int(n)
	}
	return coco.Text(text)
}

// tableError adds the place to an error in a table.
func tableError(path string, err error) error {
	var e *csv.ParseError
	if !errors.As(err, &e) {
		return fmt.Errorf("%s: %w", path, err)
	}
	what := e.Err.Error()
	switch {
	case errors.Is(e.Err, csv.ErrFieldCount):
		what = "this row has another number of columns than the header"
	case errors.Is(e.Err, csv.ErrBareQuote):
		what = `a quotation mark inside a value: write it twice, and the value in quotation marks`
	case errors.Is(e.Err, csv.ErrQuote):
		what = fmt.Sprintf("the quotation mark at the beginning of a value in line %d has no counterpart before the end of the value", e.StartLine)
	}
	return fmt.Errorf("%s:%d:%d: %s", path, e.Line, e.Column, what)
}

// columnOfURLs reports whether a line has two columns that are separated by a tab, and whether
// the second is a URL.
func columnOfURLs(line string) (url, two bool) {
	_, second, two := strings.Cut(line, "\t")
	return strings.HasPrefix(second, "http://") || strings.HasPrefix(second, "https://"), two && !strings.Contains(second, "\t")
}

// readConceptual reads a file of Conceptual Captions: caption<TAB>URL in each line, in which
// quotation marks mean nothing.
func (s *Set) readConceptual(path string) error {
	return eachLine(path, func(n int64, line []byte) error {
		if len(line) == 0 {
			return nil
		}
		text, url, ok := strings.Cut(string(line), "\t")
		if _, two := columnOfURLs(string(line)); !ok || !two {
			return fmt.Errorf("%s:%d: %d columns, want 2: caption<TAB>URL", path, n, bytes.Count(line, []byte("\t"))+1)
		}
		s.caption(Caption{coco.Int(n), coco.Text(url), text}, func() string { return fmt.Sprintf("line %d", n) })
		return nil
	})
}
