package coco

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// Scan reads the lists of a JSON object in one pass, an entry at a time: memory
// doesn't grow with the file. For each entry of a list whose key is in lists its
// function is called with the entry's place in the list, from 0, and with decode,
// which it must call once, as json.Unmarshal would be; an error that it gives ends
// the scan. Keys that are not in lists are passed over, and those that the file
// doesn't have are an error. Errors say the file, and line and column of broken
// JSON.
func Scan(path string, lists map[string]func(i int, decode func(v any) error) error) error {
	f, err := os.Open(path)
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
	start int64 // behind a byte order mark
	in    *json.Decoder
}

// broken says where broken JSON is broken. The decoder's own count of bytes is
// not that of the file once it has given tokens, so the file is parsed again.
func (s *scanner) broken(err error) error {
	if again := readJSON(s.path, new(json.RawMessage)); again != nil {
		return again
	}
	return fmt.Errorf("coco: %s: %w", s.path, err)
}

// at writes file:line:column of a byte.
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
		return fmt.Errorf("coco: %s: a JSON object is wanted, which begins with {", s.at(s.in.InputOffset()-1))
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
			return fmt.Errorf("coco: %s: %q comes twice", s.at(s.in.InputOffset()), key)
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
		return s.broken(errors.New("there is more behind the end"))
	}
	for key := range lists {
		if !seen[key] {
			return fmt.Errorf("coco: %s: it has no %q", s.path, key)
		}
	}
	return nil
}

// skip passes over a value, token by token: it may be as large as the file.
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
		return fmt.Errorf("coco: %s: %q is no list", s.at(s.in.InputOffset()-1), key)
	}
	for i := 0; s.in.More(); i++ {
		before := s.in.InputOffset()
		if i > 0 {
			before++ // a comma
		}
		decode := func(v any) error {
			err := s.in.Decode(v)
			var kind *json.UnmarshalTypeError
			switch {
			case errors.As(err, &kind):
				return fmt.Errorf("coco: %s: %s[%d]: %s where a %s is wanted (%q)", s.at(before+kind.Offset-1), key, i, kind.Value, kind.Type, kind.Field)
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
