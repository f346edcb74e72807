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
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"cyclecap/internal/atomicfile"
	"cyclecap/internal/jsonerror"
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
	ID       ID     `json:"id"`
	FileName string `json:"file_name"`
}

// An Annotation is a caption of the image with ID ImageID. Nothing is looked up by the ID
// of an annotation, which may be missing.
type Annotation struct {
	ID      ID     `json:"id,omitzero"`
	ImageID ID     `json:"image_id"`
	Caption string `json:"caption"`
}

// A Result is the caption that a model wrote for an image.
type Result struct {
	ImageID ID     `json:"image_id"`
	Caption string `json:"caption"`
}

// Read reads a captions file and validates it: the list of images must not be
// empty, every image must have an id that is unique, and every annotation must have a
// caption and refer to an image in the file. Images without captions are allowed. Errors
// name the file and the position in it: line and column of broken JSON, otherwise the
// entry. Read also reads LAVIS's lists of images with all their captions:
//
//	[{"image": "val2014/COCO_val2014_000000000001.jpg", "caption": ["A dog.", "The dog."]}]
//
// There the id of an image is that in COCO's file name, and otherwise the name without
// folder and extension.
func Read(path string) (*Dataset, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	if begins(data) == '[' {
		return readLAVIS(path, data)
	}
	// Pointers distinguish missing values from zero: 0 is a valid id.
	var file struct {
		Images *[]struct {
			ID       *ID    `json:"id"`
			FileName string `json:"file_name"`
		} `json:"images"`
		Annotations *[]struct {
			ID      *ID     `json:"id"`
			ImageID *ID     `json:"image_id"`
			Caption *string `json:"caption"`
		} `json:"annotations"`
	}
	if err := decode(path, data, &file); err != nil {
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
	images := make(map[ID]int, len(*file.Images))
	for i, image := range *file.Images {
		if image.ID == nil {
			return nil, fmt.Errorf("coco: %s: images[%d] has no \"id\"", path, i)
		}
		if err := image.ID.Check(); err != nil {
			return nil, fmt.Errorf("coco: %s: images[%d]: \"id\" %w", path, i, err)
		}
		if first, ok := images[*image.ID]; ok {
			return nil, fmt.Errorf("coco: %s: images[%d] and images[%d] have the same id %s", path, first, i, *image.ID)
		}
		images[*image.ID] = i
		d.Images = append(d.Images, Image{*image.ID, image.FileName})
	}
	for i, a := range *file.Annotations {
		own := Annotation{}
		if a.ID != nil {
			own.ID = *a.ID
		}
		if err := a.ID.Check(); err != nil {
			return nil, fmt.Errorf("coco: %s: annotations[%d]: \"id\" %w", path, i, err)
		}
		if err := a.ImageID.Check(); err != nil {
			return nil, fmt.Errorf("coco: %s: %s: \"image_id\" %w", path, own.where(i), err)
		}
		switch {
		case a.ImageID == nil:
			return nil, fmt.Errorf("coco: %s: %s has no \"image_id\"", path, own.where(i))
		case a.Caption == nil:
			return nil, fmt.Errorf("coco: %s: %s has no \"caption\": is this a captions file?", path, own.where(i))
		}
		if _, ok := images[*a.ImageID]; !ok {
			return nil, fmt.Errorf("coco: %s: %s refers to image %s, which is not in \"images\"", path, own.where(i), *a.ImageID)
		}
		own.ImageID, own.Caption = *a.ImageID, *a.Caption
		d.Annotations = append(d.Annotations, own)
	}
	return d, nil
}

// where names the annotation with index i in messages.
func (a Annotation) where(i int) string {
	if a.ID == (ID{}) {
		return fmt.Sprintf("annotations[%d]", i)
	}
	return fmt.Sprintf("annotations[%d] (id %s)", i, a.ID)
}

// readLAVIS reads a list of images with their captions.
func readLAVIS(path string, data []byte) (*Dataset, error) {
	var list []struct {
		Image   string `json:"image"`
		ImageID *ID    `json:"image_id"`
		Caption texts  `json:"caption"`
	}
	if err := decode(path, data, &list); err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("coco: %s: the list is empty", path)
	}
	d := &Dataset{}
	seen := map[ID]bool{}
	for i, entry := range list {
		if err := entry.ImageID.Check(); err != nil {
			return nil, fmt.Errorf("coco: %s: entry %d: \"image_id\" %w", path, i, err)
		}
		var id ID
		switch base := filepath.Base(filepath.FromSlash(entry.Image)); {
		case entry.ImageID != nil:
			id = *entry.ImageID
		case entry.Image == "":
			return nil, fmt.Errorf("coco: %s: entry %d has neither \"image\" nor \"image_id\": want a captions file, which is an object with \"images\" and \"annotations\", or a list of images with their captions", path, i)
		default:
			var ok bool
			if id, ok = FileID(entry.Image); !ok {
				id = Text(strings.TrimSuffix(base, filepath.Ext(base)))
			}
		}
		if len(entry.Caption) == 0 {
			return nil, fmt.Errorf("coco: %s: entry %d (image %s) has no \"caption\"", path, i, id)
		}
		if !seen[id] {
			seen[id] = true
			d.Images = append(d.Images, Image{id, entry.Image})
		}
		for _, c := range entry.Caption {
			d.Annotations = append(d.Annotations, Annotation{Int(int64(len(d.Annotations))), id, c})
		}
	}
	return d, nil
}

// texts is a list of strings, or one string, in JSON.
type texts []string

// UnmarshalJSON implements json.Unmarshaler.
func (t *texts) UnmarshalJSON(data []byte) error {
	if data[0] == '"' {
		*t = texts{""}
		return json.Unmarshal(data, &(*t)[0])
	}
	return json.Unmarshal(data, (*[]string)(t))
}

// Captions returns the captions of every image that has at least one, keyed by
// image id, in file order.
func (d *Dataset) Captions() map[ID][]string {
	captions := make(map[ID][]string, len(d.Images))
	for _, a := range d.Annotations {
		captions[a.ImageID] = append(captions[a.ImageID], a.Caption)
	}
	return captions
}

// resultsForm describes a results file in messages.
const resultsForm = `want a list of {"image_id": …, "caption": "…"}, an object with such a list as "annotations", or a line of JSON for each caption`

// ReadResults reads a results file: a list of results, which may be empty, an object with
// such a list as "annotations", or one object per line. An entry without image_id that has
// a file name of COCO as its "image" or "file", as in the output of `cyclecap caption
// --json`, is for the image of that name. An entry without caption, or a second entry for
// the same image, is an error that names the entry.
func ReadResults(path string) ([]Result, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	list, err := entries(path, data)
	if err != nil {
		return nil, err
	}
	results := make([]Result, 0, len(list))
	first := make(map[ID]int, len(list))
	for i, r := range list {
		if err := r.ImageID.Check(); err != nil {
			return nil, fmt.Errorf("coco: %s: result %d: \"image_id\" %w", path, i, err)
		}
		if r.ImageID == nil {
			name := r.File
			if name == "" {
				name = r.Image
			}
			id, ok := FileID(name)
			if !ok && name != "" {
				return nil, fmt.Errorf("coco: %s: result %d has no \"image_id\", and its file %s does not have a name of COCO, such as COCO_val2014_000000391895.jpg", path, i, name)
			} else if !ok {
				return nil, fmt.Errorf("coco: %s: result %d has no \"image_id\"; %s", path, i, resultsForm)
			}
			r.ImageID = &id
		}
		if r.Caption == nil {
			return nil, fmt.Errorf("coco: %s: result %d (image %s) has no \"caption\"", path, i, *r.ImageID)
		}
		if j, ok := first[*r.ImageID]; ok {
			if a, b := list[j].Pipeline, r.Pipeline; a != b {
				return nil, fmt.Errorf("coco: %s: has captions of two pipelines, %s and %s, for image %s; keep those of one, for example with: jq -c 'select(.pipeline == %q)'", path, a, b, *r.ImageID, b)
			}
			return nil, fmt.Errorf("coco: %s: results %d and %d are for the same image %s", path, j, i, *r.ImageID)
		}
		first[*r.ImageID] = i
		results = append(results, Result{*r.ImageID, *r.Caption})
	}
	return results, nil
}

// entry is a result in a file.
type entry struct {
	ImageID  *ID     `json:"image_id"`
	Image    string  `json:"image"`
	File     string  `json:"file"`
	Pipeline string  `json:"pipeline"`
	Caption  *string `json:"caption"`
}

// entries returns the entries of a results file, in any of its forms.
func entries(path string, data []byte) (list []entry, err error) {
	if begins(data) == '[' {
		return list, decode(path, data, &list)
	}
	if begins(data) != '{' {
		var v any
		if err := decode(path, data, &v); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("coco: %s: %s", path, resultsForm)
	}
	// An object, or a line for each caption.
	in := json.NewDecoder(bytes.NewReader(data))
	var raw json.RawMessage
	if in.Decode(&raw) == nil {
		if rest, _ := in.Token(); rest != nil {
			return lines(path, data)
		}
	}
	var keys map[string]json.RawMessage
	if err := decode(path, data, &keys); err != nil {
		return nil, err
	}
	if keys["annotations"] == nil {
		if keys["caption"] != nil {
			return lines(path, data)
		}
		return nil, fmt.Errorf("coco: %s: %s; this is an object with %s", path, resultsForm, named(keys))
	}
	var file struct {
		Annotations []entry `json:"annotations"`
	}
	err = decode(path, data, &file)
	return file.Annotations, err
}

// lines reads entries one after the other.
func lines(path string, data []byte) (list []entry, err error) {
	number := 0
	for line := range bytes.Lines(data) {
		number++
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var e entry
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("coco: %s:%d: %w; %s", path, number, jsonerror.Words(err), resultsForm)
		}
		list = append(list, e)
	}
	return list, nil
}

// named lists the first keys of an object.
func named(keys map[string]json.RawMessage) string {
	if len(keys) == 0 {
		return "no keys"
	}
	var list []string
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if len(list) == 5 {
			list = append(list, "…")
			break
		}
		list = append(list, strconv.Quote(k))
	}
	return strings.Join(list, ", ")
}

// WriteResults writes a results file that ReadResults and COCO's evaluation can
// read. It writes the file atomically: an existing file stays intact until the
// new one is complete. Two results for the same image are an error.
func WriteResults(path string, results []Result) (err error) {
	first := make(map[ID]int, len(results))
	for i, r := range results {
		if j, ok := first[r.ImageID]; ok {
			return fmt.Errorf("coco: cannot write %s: results %d and %d are for the same image %s", path, j, i, r.ImageID)
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

// readFile returns the contents of a JSON file, without a byte order mark.
func readFile(path string) ([]byte, error) {
	data, err := regular.Read(path, maxSize)
	if err != nil {
		return nil, fmt.Errorf("coco: %w", err)
	}
	data = bytes.TrimPrefix(data, []byte("\uFEFF"))
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, fmt.Errorf("coco: %s is empty", path)
	}
	// Unmarshal would silently replace invalid bytes with U+FFFD.
	if at := invalid(data); at >= 0 {
		return nil, fmt.Errorf("coco: %s: invalid UTF-8: byte 0x%02x", position(path, data, int64(at)), data[at])
	}
	return data, nil
}

// begins returns the first byte of a JSON value.
func begins(data []byte) byte { return bytes.TrimSpace(data)[0] }

// readJSON reads a file that holds exactly one JSON value.
func readJSON(path string, v any) error {
	data, err := readFile(path)
	if err != nil {
		return err
	}
	return decode(path, data, v)
}

// decode decodes the contents of a file, which must be exactly one JSON value.
func decode(path string, data []byte, v any) error {
	// Unmarshal rejects anything after the value.
	err := json.Unmarshal(data, v)
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
		return fmt.Errorf("coco: %s: %s", position(path, data, kind.Offset-1), jsonerror.Type(kind))
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
