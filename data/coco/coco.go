// Package coco reads COCO's caption files and writes its results files.
package coco

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Image is a photo of a data set.
type Image struct {
	ID       int64  `json:"id"`
	FileName string `json:"file_name"`
}

// Annotation is one caption of a photo.
type Annotation struct {
	ID      int64  `json:"id"`
	ImageID int64  `json:"image_id"`
	Caption string `json:"caption"`
}

// Dataset is a captions_*.json: photos and their captions, in the file's order.
// Other keys are not read.
type Dataset struct {
	Images      []Image      `json:"images"`
	Annotations []Annotation `json:"annotations"`
}

// Result is one line of a results file.
type Result struct {
	ImageID int64  `json:"image_id"`
	Caption string `json:"caption"`
}

// Read reads a captions file. Photos and captions with the id of another, and
// captions of photos that the file does not list, are errors.
func Read(path string) (*Dataset, error) {
	var d Dataset
	if err := decode(path, &d); err != nil {
		return nil, err
	}
	if len(d.Images) == 0 {
		return nil, fmt.Errorf("%s: it lists no images; a COCO captions file has \"images\" and \"annotations\"", path)
	}
	images := make(map[int64]bool, len(d.Images))
	for _, i := range d.Images {
		if images[i.ID] {
			return nil, fmt.Errorf("%s: image %d is listed twice", path, i.ID)
		}
		images[i.ID] = true
	}
	captions := make(map[int64]bool, len(d.Annotations))
	for _, a := range d.Annotations {
		if captions[a.ID] {
			return nil, fmt.Errorf("%s: annotation %d is there twice", path, a.ID)
		}
		captions[a.ID] = true
		if !images[a.ImageID] {
			return nil, fmt.Errorf("%s: annotation %d is of image %d, which the file does not list", path, a.ID, a.ImageID)
		}
	}
	return &d, nil
}

// ReadResults reads a results file: one caption for each photo.
func ReadResults(path string) ([]Result, error) {
	var r []Result
	if err := decode(path, &r); err != nil {
		return nil, err
	}
	seen := make(map[int64]bool, len(r))
	for _, x := range r {
		if seen[x.ImageID] {
			return nil, fmt.Errorf("%s: image %d has two results", path, x.ImageID)
		}
		seen[x.ImageID] = true
	}
	return r, nil
}

// decode reads one JSON value; its errors name the line and the column.
func decode(path string, to any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	err = d.Decode(to)
	if err == nil {
		if _, end := d.Token(); !errors.Is(end, io.EOF) {
			return at(path, text, d.InputOffset(), errors.New("there is more behind the JSON value"))
		}
		return nil
	}
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return at(path, text, syntax.Offset, err)
	case errors.As(err, &kind):
		return at(path, text, kind.Offset, fmt.Errorf("%s is a JSON %s where a %v is needed", kind.Field, kind.Value, kind.Type))
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return at(path, text, int64(len(text)), errors.New("the JSON ends early: the file is truncated"))
	}
	return fmt.Errorf("%s: %w", path, err)
}

func at(path string, text []byte, offset int64, err error) error {
	before := text[:min(int(offset), len(text))]
	line := 1 + bytes.Count(before, []byte("\n"))
	column := len(before) - bytes.LastIndexByte(before, '\n')
	return fmt.Errorf("%s:%d:%d: %w", path, line, column, err)
}

// WriteResults writes a results file. It takes its name only once it is whole.
func WriteResults(path string, results []Result) (err error) {
	if results == nil {
		results = []Result{}
	}
	text, err := json.Marshal(results)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(append(text, '\n')); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Chmod(0o644); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
