// Package coco reads captions in the format of the COCO data set and writes
// results in the format of its evaluation (https://cocodataset.org/#format-data).
//
// A captions file lists images, and annotations that each give one caption of
// one image; an image may have any number of them:
//
//	{"images": [{"id": 1, "file_name": "a.jpg"}],
//	 "annotations": [{"id": 7, "image_id": 1, "caption": "A dog."}]}
//
// A results file is a list of one caption an image:
//
//	[{"image_id": 1, "caption": "A dog."}]
//
// Keys that are not named here, of which real files have many, are passed over.
package coco

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"unicode/utf8"

	"cyclecap/internal/atomicfile"
)

// A Dataset is a captions file, in the order of the file.
type Dataset struct {
	Images      []Image      `json:"images"`
	Annotations []Annotation `json:"annotations"`
}

// An Image names a photo. FileName is relative to a folder that the file does
// not say; it may be empty.
type Image struct {
	ID       int64  `json:"id"`
	FileName string `json:"file_name"`
}

// An Annotation is a caption of the image with ID ImageID.
type Annotation struct {
	ID      int64  `json:"id"`
	ImageID int64  `json:"image_id"`
	Caption string `json:"caption"`
}

// A Result is the caption that a model gives an image.
type Result struct {
	ImageID int64  `json:"image_id"`
	Caption string `json:"caption"`
}

// Read reads a captions file and checks it: there are images, every id is there
// and is unique among its kind, and every annotation is of an image in the file
// and has a caption. Images without captions are fine. An error says the file,
// and where in it: line and column of broken JSON, the entry otherwise.
func Read(path string) (*Dataset, error) {
	// Pointers tell what is missing from what is zero: id 0 is an id.
	var file struct {
		Images *[]struct {
			ID       *int64 `json:"id"`
			FileName string `json:"file_name"`
		} `json:"images"`
		Annotations *[]struct {
			ID      *int64  `json:"id"`
			ImageID *int64  `json:"image_id"`
			Caption *string `json:"caption"`
		} `json:"annotations"`
	}
	if err := readJSON(path, &file); err != nil {
		return nil, err
	}
	switch {
	case file.Images == nil:
		return nil, fmt.Errorf("coco: %s: no \"images\": want a captions file, an object with \"images\" and \"annotations\"", path)
	case file.Annotations == nil:
		return nil, fmt.Errorf("coco: %s: no \"annotations\": want a captions file, an object with \"images\" and \"annotations\"", path)
	case len(*file.Images) == 0:
		return nil, fmt.Errorf("coco: %s: \"images\" is empty", path)
	}

	d := &Dataset{
		Images:      make([]Image, 0, len(*file.Images)),
		Annotations: make([]Annotation, 0, len(*file.Annotations)),
	}
	images := make(map[int64]int, len(*file.Images))
	for i, image := range *file.Images {
		if image.ID == nil {
			return nil, fmt.Errorf("coco: %s: images[%d] has no \"id\"", path, i)
		}
		if first, ok := images[*image.ID]; ok {
			return nil, fmt.Errorf("coco: %s: images[%d] and images[%d] have the same id %d", path, first, i, *image.ID)
		}
		images[*image.ID] = i
		d.Images = append(d.Images, Image{*image.ID, image.FileName})
	}
	annotations := make(map[int64]int, len(*file.Annotations))
	for i, a := range *file.Annotations {
		switch {
		case a.ID == nil:
			return nil, fmt.Errorf("coco: %s: annotations[%d] has no \"id\"", path, i)
		case a.ImageID == nil:
			return nil, fmt.Errorf("coco: %s: annotations[%d] (id %d) has no \"image_id\"", path, i, *a.ID)
		case a.Caption == nil:
			return nil, fmt.Errorf("coco: %s: annotations[%d] (id %d) has no \"caption\": is this a captions file?", path, i, *a.ID)
		}
		if first, ok := annotations[*a.ID]; ok {
			return nil, fmt.Errorf("coco: %s: annotations[%d] and annotations[%d] have the same id %d", path, first, i, *a.ID)
		}
		if _, ok := images[*a.ImageID]; !ok {
			return nil, fmt.Errorf("coco: %s: annotations[%d] (id %d) is of image %d, which is not in \"images\"", path, i, *a.ID, *a.ImageID)
		}
		annotations[*a.ID] = i
		d.Annotations = append(d.Annotations, Annotation{*a.ID, *a.ImageID, *a.Caption})
	}
	return d, nil
}

// Captions gives the captions of every image that has any, by image id, in the
// order of the file.
func (d *Dataset) Captions() map[int64][]string {
	captions := make(map[int64][]string, len(d.Images))
	for _, a := range d.Annotations {
		captions[a.ImageID] = append(captions[a.ImageID], a.Caption)
	}
	return captions
}

// ReadResults reads a results file. It may be empty; an entry without image_id
// or caption, or a second one of the same image, is an error that says which.
func ReadResults(path string) ([]Result, error) {
	var file []struct {
		ImageID *int64  `json:"image_id"`
		Caption *string `json:"caption"`
	}
	if err := readJSON(path, &file); err != nil {
		return nil, err
	}
	if file == nil {
		return nil, fmt.Errorf("coco: %s: null where a list of results is wanted", path)
	}
	results := make([]Result, 0, len(file))
	first := make(map[int64]int, len(file))
	for i, r := range file {
		switch {
		case r.ImageID == nil:
			return nil, fmt.Errorf("coco: %s: result %d has no \"image_id\"", path, i)
		case r.Caption == nil:
			return nil, fmt.Errorf("coco: %s: result %d (image %d) has no \"caption\"", path, i, *r.ImageID)
		}
		if j, ok := first[*r.ImageID]; ok {
			return nil, fmt.Errorf("coco: %s: results %d and %d are of the same image %d", path, j, i, *r.ImageID)
		}
		first[*r.ImageID] = i
		results = append(results, Result{*r.ImageID, *r.Caption})
	}
	return results, nil
}

// WriteResults writes a results file that ReadResults and COCO's evaluation
// read. The file appears whole or not at all: another one in its place stays as
// it was until then. Two results of one image are an error.
func WriteResults(path string, results []Result) (err error) {
	first := make(map[int64]int, len(results))
	for i, r := range results {
		if j, ok := first[r.ImageID]; ok {
			return fmt.Errorf("coco: cannot write %s: results %d and %d are of the same image %d", path, j, i, r.ImageID)
		}
		first[r.ImageID] = i
	}
	if results == nil {
		results = []Result{} // [] in the file, not null
	}
	var data bytes.Buffer
	enc := json.NewEncoder(&data)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(results); err != nil {
		return fmt.Errorf("coco: cannot write %s: %w", path, err)
	}

	if err := atomicfile.WriteBytes(path, data.Bytes()); err != nil {
		return fmt.Errorf("coco: %w", err)
	}
	return nil
}

// readJSON reads the one JSON value in a file.
func readJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("coco: %w", err)
	}
	data = bytes.TrimPrefix(data, []byte("\uFEFF"))
	if len(bytes.TrimSpace(data)) == 0 {
		return fmt.Errorf("coco: %s is empty", path)
	}
	// Unmarshal would put U+FFFD for them.
	if at := invalid(data); at >= 0 {
		return fmt.Errorf("coco: %s: not UTF-8: byte 0x%02x", position(path, data, int64(at)), data[at])
	}
	// Unmarshal refuses anything after the value.
	err = json.Unmarshal(data, v)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		// Offset counts the byte that is wrong, but at the end of the file there
		// is none.
		at := syntax.Offset - 1
		if errors.Is(err, io.ErrUnexpectedEOF) || syntax.Error() == "unexpected end of JSON input" {
			at = syntax.Offset
		}
		return fmt.Errorf("coco: %s: broken JSON: %w", position(path, data, at), err)
	case errors.As(err, &kind):
		return fmt.Errorf("coco: %s: %s where a %s is wanted (%q)", position(path, data, kind.Offset-1), kind.Value, kind.Type, kind.Field)
	case err != nil:
		return fmt.Errorf("coco: %s: %w", path, err)
	}
	return nil
}

// invalid gives the place of the first byte that is no UTF-8, -1 if there is none.
func invalid(data []byte) int {
	if utf8.Valid(data) {
		return -1
	}
	at := 0
	for {
		r, size := utf8.DecodeRune(data[at:])
		if r == utf8.RuneError && size == 1 {
			return at
		}
		at += size
	}
}

// position writes file:line:column, both from 1, for byte at of the file's data;
// the column counts bytes, as Go's compiler does.
func position(path string, data []byte, at int64) string {
	before := data[:min(max(at, 0), int64(len(data)))]
	line := bytes.Count(before, []byte("\n")) + 1
	column := len(before) - bytes.LastIndexByte(before, '\n')
	return fmt.Sprintf("%s:%d:%d", path, line, column)
}
