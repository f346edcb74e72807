// Package sets reads photos and captions for training, in the formats in which
// they are distributed: COCO's files, Karpathy's split of COCO, a folder, a tar, tables and
// lists of captions, and ClipCap's pickles.
//
// A few unusable entries (a caption without text, or one that refers to a photo
// that is not in the file) are counted and left out, up to a given fraction; more
// of them are a *BadError. Input that is not in the format at all (broken JSON, a
// file of another kind) is an error at once. The photos themselves are not read.
package sets

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"cyclecap/data/clipcap"
	"cyclecap/data/coco"
)

// A Photo is the file of a photo.
type Photo struct {
	ID   coco.ID
	Path string
}

// A Caption is a text and, if the set is paired, the photo that it describes.
type Caption struct {
	ID, Image coco.ID
	Text      string
}

// A Set holds photos and captions, in file order.
type Set struct {
	Photos   []Photo
	Captions []Caption
	Paired   bool // each caption names its photo
	Bad      Bad  // captions that were left out
}

// caption adds a caption or counts it as bad.
func (s *Set) caption(c Caption, where func() string) {
	switch {
	case strings.TrimSpace(c.Text) == "":
		s.Bad.Add(where() + " is empty")
	case !utf8.ValidString(c.Text):
		s.Bad.Add(where() + " is not valid UTF-8")
	default:
		s.Captions = append(s.Captions, c)
	}
}

// check is called after the last caption.
func (s *Set) check() error { return s.Bad.Check(len(s.Captions) + s.Bad.Count) }

func checked(s *Set) (*Set, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	return s, nil
}

func plain(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(strings.TrimPrefix(err.Error(), "coco: "))
}

// COCO reads a captions file in COCO's format; its photos are in folder. maxBad
// is the largest fraction of captions that may be bad.
func COCO(path, folder string, maxBad float64) (*Set, error) {
	s := &Set{Paired: true, Bad: Bad{Of: "captions of " + path, Max: maxBad}}
	var all []Caption
	images := map[coco.ID]bool{}
	err := coco.Scan(path, map[string]func(int, func(any) error) error{
		"images": func(i int, decode func(any) error) error {
			var m struct {
				ID       *coco.ID `json:"id"`
				FileName string   `json:"file_name"`
			}
			if err := decode(&m); err != nil {
				return err
			}
			switch {
			case m.ID == nil:
				return fmt.Errorf("%s: images[%d] has no \"id\"", path, i)
			case m.ID.Check() != nil:
				return fmt.Errorf("%s: images[%d]: \"id\" %w", path, i, m.ID.Check())
			case images[*m.ID]:
				return fmt.Errorf("%s: images[%d] has the id %s, which an earlier image already has", path, i, *m.ID)
			case m.FileName == "":
				return fmt.Errorf("%s: images[%d] (id %s) has no \"file_name\"", path, i, *m.ID)
			}
			images[*m.ID] = true
			s.Photos = append(s.Photos, Photo{*m.ID, filepath.Join(folder, filepath.FromSlash(m.FileName))})
			return nil
		},
		"annotations": func(i int, decode func(any) error) error {
			var a struct {
				ID      *coco.ID `json:"id"`
				ImageID *coco.ID `json:"image_id"`
				Caption *string  `json:"caption"`
			}
			if err := decode(&a); err != nil {
				return err
			}
			c := Caption{ID: coco.Int(int64(i))} // nothing is looked up by it
			if a.ID != nil {
				c.ID = *a.ID
			}
			switch {
			case a.ID.Check() != nil:
				return fmt.Errorf("%s: annotations[%d]: \"id\" %w", path, i, a.ID.Check())
			case a.ImageID == nil:
				return fmt.Errorf("%s: annotations[%d] (id %s) has no \"image_id\"", path, i, c.ID)
			case a.ImageID.Check() != nil:
				return fmt.Errorf("%s: annotations[%d] (id %s): \"image_id\" %w", path, i, c.ID, a.ImageID.Check())
			case a.Caption == nil:
				return fmt.Errorf("%s: annotations[%d] (id %s) has no \"caption\": is this a captions file?", path, i, c.ID)
			}
			c.Image, c.Text = *a.ImageID, *a.Caption
			all = append(all, c)
			return nil
		},
	})
	if err != nil {
		return nil, plain(err)
	}
	s.Captions = all[:0] // filtered in place
	for i, c := range all {
		where := func() string { return fmt.Sprintf("annotations[%d] (id %s)", i, c.ID) }
		if !images[c.Image] {
			s.Bad.Add(fmt.Sprintf("%s refers to image %s, which is not in the file", where(), c.Image))
		} else {
			s.caption(c, where)
		}
	}
	return checked(s)
}

// Karpathy reads Karpathy's split of COCO, dataset_coco.json, and returns one set
// per split: train, restval, val and test. folder returns the photo folder for a
// "filepath" such as val2014. Captions are identified by their "sentid" (or, if
// there is none, by their position in the file), photos by their "cocoid"
// ("imgid" in his files of Flickr8k and Flickr30k).
func Karpathy(path string, folder func(filepath string) string, maxBad float64) (map[string]*Set, error) {
	splits := map[string]*Set{}
	err := scanKarpathy(path, func(m karpathyImage) {
		s := splits[m.Split]
		if s == nil {
			s = &Set{Paired: true, Bad: Bad{Of: fmt.Sprintf("captions of the split %q of %s", m.Split, path), Max: maxBad}}
			splits[m.Split] = s
		}
		s.Photos = append(s.Photos, Photo{m.id, filepath.Join(folder(m.FilePath), filepath.FromSlash(m.FileName))})
		m.captions(s)
	})
	if err != nil {
		return nil, err
	}
	for _, s := range splits {
		if err := s.check(); err != nil {
			return nil, err
		}
	}
	return splits, nil
}

// karpathyImage is an image in a file of Karpathy's.
type karpathyImage struct {
	FilePath  string   `json:"filepath"`
	FileName  string   `json:"filename"`
	Split     string   `json:"split"`
	CocoID    *coco.ID `json:"cocoid"`
	ImgID     *coco.ID `json:"imgid"`
	Sentences []struct {
		ID  *coco.ID `json:"sentid"`
		Raw *string  `json:"raw"`
	} `json:"sentences"`

	id    coco.ID
	first int64 // position of its first sentence in the file
}

// captions adds the captions of the image to a set.
func (m *karpathyImage) captions(s *Set) {
	for k, c := range m.Sentences {
		own := coco.Int(m.first + int64(k))
		if c.ID != nil {
			own = *c.ID
		}
		s.caption(Caption{own, m.id, *c.Raw}, func() string { return fmt.Sprintf("sentences[%d] of image %s", k, m.id) })
	}
}

// scanKarpathy calls each with the images in a file of Karpathy's.
func scanKarpathy(path string, each func(karpathyImage)) error {
	images := map[coco.ID]bool{}
	sentences := int64(0)
	err := coco.Scan(path, map[string]func(int, func(any) error) error{
		"images": func(i int, decode func(any) error) error {
			m := karpathyImage{first: sentences}
			if err := decode(&m); err != nil {
				return err
			}
			id := m.CocoID
			if id == nil {
				id = m.ImgID
			}
			switch {
			case id == nil:
				return fmt.Errorf("%s: images[%d] has neither \"cocoid\" nor \"imgid\": is this Karpathy's file?", path, i)
			case id.Check() != nil:
				return fmt.Errorf("%s: images[%d]: its id %w", path, i, id.Check())
			case images[*id]:
				return fmt.Errorf("%s: images[%d] has the id %s, which an earlier image already has", path, i, *id)
			case m.FileName == "" || m.Split == "":
				return fmt.Errorf("%s: images[%d] (id %s) has no \"filename\" or no \"split\": is this Karpathy's file?", path, i, *id)
			}
			for k, c := range m.Sentences {
				if c.Raw == nil {
					return fmt.Errorf("%s: images[%d] (id %s): sentences[%d] has no \"raw\": is this Karpathy's file?", path, i, *id, k)
				}
			}
			images[*id] = true
			m.id = *id
			sentences += int64(len(m.Sentences))
			each(m)
			return nil
		},
	})
	if err == nil && len(images) == 0 {
		err = fmt.Errorf("%s: \"images\" is empty", path)
	}
	return plain(err)
}

// maxLine is the largest length of a caption in a text file, in bytes.
const maxLine = 1 << 16

// Lines reads a UTF-8 text file with one caption per line and trims white space
// around each caption. Ids are line numbers, from 1. Blank lines are skipped: in
// a text they separate paragraphs.
func Lines(path string, maxBad float64) (*Set, error) {
	s := &Set{Bad: Bad{Of: "lines of " + path, Max: maxBad}}
	err := eachLine(path, func(n int64, line []byte) error {
		if text := strings.TrimSpace(string(line)); text != "" {
			s.caption(Caption{ID: coco.Int(n), Text: text}, func() string { return fmt.Sprintf("line %d", n) })
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(s.Captions)+s.Bad.Count == 0 {
		return nil, fmt.Errorf("%s: no captions in this file", path)
	}
	return checked(s)
}

// ClipCap returns the captions of a file of ClipCap features, and each of their
// photos once, in order of first appearance. The file has one row of features
// per caption, and the rows of one photo are equal: rows holds the first row of
// each photo.
func ClipCap(f *clipcap.File, maxBad float64) (s *Set, rows []int, err error) {
	s = &Set{Paired: true, Bad: Bad{Of: "captions of " + f.Path, Max: maxBad}}
	row := map[coco.ID]int{} // by photo, for those not seen yet
	for _, c := range slices.Backward(f.Captions) {
		row[c.ImageID] = c.Row
	}
	for i, c := range f.Captions {
		s.caption(Caption{c.ID, c.ImageID, c.Caption}, func() string { return fmt.Sprintf("captions[%d] (id %s)", i, c.ID) })
	}
	for _, c := range s.Captions {
		if r, first := row[c.Image]; first {
			delete(row, c.Image)
			s.Photos, rows = append(s.Photos, Photo{ID: c.Image}), append(rows, r)
		}
	}
	s, err = checked(s)
	return s, rows, err
}
