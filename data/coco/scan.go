package coco

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"cyclecap/internal/jsonerror"
	"cyclecap/internal/regular"
)

// Scan reads lists in a JSON object in one pass, one entry at a time, so memory
// use does not grow with the file. For each entry of a list whose key is in
// lists, Scan calls the key's function with the index of the entry, from 0, and
// with decode, which works like json.Unmarshal on the entry and must be called
// exactly once. An error returned by the function ends the scan. Other keys are
// ignored; a key of lists that is missing from the file is an error. Errors name
// the file, and the line and column of broken JSON.
func Scan(path string, lists map[string]func(i int, decode func(v any) error) error) error {
	f, err := regular.Open(path)
	if err != nil {
		return fmt.Errorf("coco: %w", err)
	}
	defer f.Close()
	s := &scanner{path: path, file: f}
	head := make([]byte, 3)
	if n, _ := io.ReadFull(f, head); !bytes.Equal(head[:n], []byte("\uFEFF")) {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("coco: %s: %w", path, err)
		}
	} else {
		s.start = int64(n)
	}
	s.in = json.NewDecoder(f)
	return s.object(lists)
}

type scanner struct {
	path  string
	file  *os.File
	start int64 // offset after the byte order mark, if any
	in    *json.Decoder
}

// broken returns an error with the position of broken JSON. After it has
// returned tokens, the decoder no longer counts bytes from the start of the
// file, so the file is parsed again if it is small enough to be read as a whole.
func (s *scanner) broken(err error) error {
	if info, e := s.file.Stat(); e != nil || info.Size() > maxSize {
		return fmt.Errorf("coco: %s: broken JSON: %w", s.path, err)
	}
	if again := readJSON(s.path, new(json.RawMessage)); again != nil {
		return again
	}
	return fmt.Errorf("coco: %s: %w", s.path, err)
}

// at formats the position of a byte as file:line:column.
func (s *scanner) at(offset int64) string {
	data := make([]byte, offset)
	n, _ := s.file.ReadAt(data, s.start)
	return position(s.path, data[:n], offset)
}

func (s *scanner) object(lists map[string]func(int, func(any) error) error) error {
	t, err := s.in.Token()
	if err != nil {
		return s.broken(err)
	}
	if t != json.Delim('{') {
		return fmt.Errorf("coco: %s: want a JSON object, which begins with {", s.at(s.in.InputOffset()-1))
	}
	seen := map[string]bool{}
	for s.in.More() {
		t, err := s.in.Token()
		if err != nil {
			return s.broken(err)
		}
		key, _ := t.(string)
		each := lists[key]
		if each == nil {
			if err := s.skip(); err != nil {
				return s.broken(err)
			}
			continue
		}
		if seen[key] {
			return fmt.Errorf("coco: %s: duplicate key %q", s.at(s.in.InputOffset()), key)
		}
		seen[key] = true
		if err := s.list(key, each); err != nil {
			return err
		}
	}
	if _, err := s.in.Token(); err != nil {
		return s.broken(err)
	}
	if _, err := s.in.Token(); err != io.EOF {
		return s.broken(errors.New("unexpected data after the JSON value"))
	}
	for key := range lists {
		if !seen[key] {
			return fmt.Errorf("coco: %s: no %q", s.path, key)
		}
	}
	return nil
}

// skip skips a value token by token, because it may be as large as the file.
func (s *scanner) skip() error {
	for depth := 0; ; {
		t, err := s.in.Token()
		if err != nil {
			return err
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}

func (s *scanner) list(key string, each func(int, func(any) error) error) error {
	t, err := s.in.Token()
	if err != nil {
		return s.broken(err)
	}
	if t != json.Delim('[') {
		return fmt.Errorf("coco: %s: %q is not a list", s.at(s.in.InputOffset()-1), key)
	}
	for i := 0; s.in.More(); i++ {
		before := s.in.InputOffset()
		if i > 0 {
			before++ // the comma
		}
		decode := func(v any) error {
			err := s.in.Decode(v)
			var kind *json.UnmarshalTypeError
			switch {
			case errors.As(err, &kind):
				return fmt.Errorf("coco: %s: %s[%d]: %s", s.at(before+kind.Offset-1), key, i, jsonerror.Type(kind))
			case err != nil:
				return s.broken(err)
			}
			return nil
		}
		if err := each(i, decode); err != nil {
			return err
		}
	}
	if _, err := s.in.Token(); err != nil {
		return s.broken(err)
	}
	return nil
}
