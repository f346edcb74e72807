// Package coco reads captions in the format of the COCO data set and writes
// results in the format of its evaluation (https://cocodataset.org/#format-data).
//
// A captions file lists images and annotations. Each annotation is one caption
// of one image; an image may have any number of annotations:
//
//	{"images": [{"id": 1, "file_name": "a.jpg"}],
//	 "annotations": [{"id": 7, "image_id": 1, "caption": "A dog."}]}
//
// A results file lists one caption per image:
//
//	[{"image_id": 1, "caption": "A dog."}]
//
// Other keys, of which real files have many, are ignored.
package coco

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"cyclecap/internal/atomicfile"
	"cyclecap/internal/regular"
)

// A Dataset is the contents of a captions file, in file order.
type Dataset struct {
	Images      []Image      `json:"images"`
	Annotations []Annotation `json:"annotations"`
}

// An Image names a photo. FileName is relative to a folder that the captions
// file does not name; it may be empty.
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

// A Result is the caption that a model wrote for an image.
type Result struct {
	ImageID int64  `json:"image_id"`
	Caption string `json:"caption"`
}

// Read reads a captions file and validates it: the list of images must not be
// empty, every entry must have an id that is unique in its list, and every
// annotation must have a caption and refer to an image in the file. Images
// without captions are allowed. Errors name the file and the position in it:
// line and column of broken JSON, otherwise the entry.
func Read(path string) (*Dataset, error) {
	// Pointers distinguish missing values from zero: 0 is a valid id.
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
		return nil, fmt.Errorf("coco: %s: no \"images\": want a captions file, which is an object with \"images\" and \"annotations\"", path)
	case file.Annotations == nil:
		return nil, fmt.Errorf("coco: %s: no \"annotations\": want a captions file, which is an object with \"images\" and \"annotations\"", path)
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
			return nil, fmt.Errorf("coco: %s: annotations[%d] (id %d) refers to image %d, which is not in \"images\"", path, i, *a.ID, *a.ImageID)
		}
		annotations[*a.ID] = i
		d.Annotations = append(d.Annotations, Annotation{*a.ID, *a.ImageID, *a.Caption})
	}
	return d, nil
}

// Captions returns the captions of every image that has at least one, keyed by
// image id, in file order.
func (d *Dataset) Captions() map[int64][]string {
	captions := make(map[int64][]string, len(d.Images))
	for _, a := range d.Annotations {
		captions[a.ImageID] = append(captions[a.ImageID], a.Caption)
	}
	return captions
}

// ReadResults reads a results file. The list may be empty. An entry without
// image_id or caption, or a second entry for the same image, is an error that
// names the entry.
func ReadResults(path string) ([]Result, error) {
	var file []struct {
		ImageID *int64  `json:"image_id"`
		Caption *string `json:"caption"`
	}
	if err := readJSON(path, &file); err != nil {
		return nil, err
	}
	if file == nil {
		return nil, fmt.Errorf("coco: %s: want a list of results, got null", path)
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
			return nil, fmt.Errorf("coco: %s: results %d and %d are for the same image %d", path, j, i, *r.ImageID)
		}
		first[*r.ImageID] = i
		results = append(results, Result{*r.ImageID, *r.Caption})
	}
	return results, nil
}

// WriteResults writes a results file that ReadResults and COCO's evaluation can
// read. It writes the file atomically: an existing file stays intact until the
// new one is complete. Two results for the same image are an error.
func WriteResults(path string, results []Result) (err error) {
	first := make(map[int64]int, len(results))
	for i, r := range results {
		if j, ok := first[r.ImageID]; ok {
			return fmt.Errorf("coco: cannot write %s: results %d and %d are for the same image %d", path, j, i, r.ImageID)
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

// maxSize limits the size of a file that is read as a whole. The captions of COCO
// have 100 MB.
const maxSize = 1 << 30

// readJSON reads a file that holds exactly one JSON value.
func readJSON(path string, v any) error {
	data, err := regular.Read(path, maxSize)
	if err != nil {
		return fmt.Errorf("coco: %w", err)
	}
	data = bytes.TrimPrefix(data, []byte("\uFEFF"))
	if len(bytes.TrimSpace(data)) == 0 {
		return fmt.Errorf("coco: %s is empty", path)
	}
	// Unmarshal would silently replace invalid bytes with U+FFFD.
	if at := invalid(data); at >= 0 {
		return fmt.Errorf("coco: %s: invalid UTF-8: byte 0x%02x", position(path, data, int64(at)), data[at])
	}
	// Unmarshal rejects anything after the value.
	err = json.Unmarshal(data, v)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		// Offset counts the offending byte, except at the end of the file,
		// where there is none.
		at := syntax.Offset - 1
		if errors.Is(err, io.ErrUnexpectedEOF) || syntax.Error() == "unexpected end of JSON input" {
			at = syntax.Offset
		}
		return fmt.Errorf("coco: %s: broken JSON: %w", position(path, data, at), err)
	case errors.As(err, &kind):
		return fmt.Errorf("coco: %s: got %s, want %s (%q)", position(path, data, kind.Offset-1), kind.Value, kind.Type, kind.Field)
	case err != nil:
		return fmt.Errorf("coco: %s: %w", path, err)
	}
	return nil
}

// invalid returns the offset of the first byte that is not valid UTF-8, or -1.
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

// position formats byte offset at of the file's data as file:line:column. Both
// count from 1; the column counts bytes, as in the Go compiler's messages.
func position(path string, data []byte, at int64) string {
	before := data[:min(max(at, 0), int64(len(data)))]
	line := bytes.Count(before, []byte("\n")) + 1
	column := len(before) - bytes.LastIndexByte(before, '\n')
	return fmt.Sprintf("%s:%d:%d", path, line, column)
}
