package experiment

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cyclecap/cli/config"
	"cyclecap/data/coco"
	"cyclecap/data/features"
)

// data is the photos and captions of an experiment. Photos and captions are
// two sets: that a caption is of a photo is known to who evaluates, to the
// supervised bridge, and to nobody else.
type data struct {
	train, val part
	isCOCO     bool // val is COCO's val2014, on which the paper reports
	notes      []string
}

// part is a training or validation set.
type part struct {
	photos []photoFile
	texts  []string
	// textImage is the photo of each text; nil where there are no pairs.
	textImage []int64
}

type photoFile struct {
	id   int64
	path string
}

func (d *data) paired() bool { return d.train.textImage != nil }

// references gives the captions of each validation photo.
func (p part) references() map[int64][]string {
	refs := map[int64][]string{}
	for i, t := range p.texts {
		refs[p.textImage[i]] = append(refs[p.textImage[i]], t)
	}
	return refs
}

// loadData reads the annotations, and looks at no photo yet.
func (x *Experiment) loadData() (*data, error) {
	c := x.Config.Data
	d := &data{}
	var err error
	switch {
	case c.Karpathy != "":
		err = d.readKarpathy(c)
	default:
		if d.val, err = d.readCOCO(c.ValAnnotations, c.ValImages); err != nil {
			return nil, err
		}
		d.isCOCO = x.Config.World == nil && filepath.Base(c.ValAnnotations) == "captions_val2014.json" && len(d.val.photos) == 40504
		if c.Photos != "" {
			err = d.readPlain(c.Photos, c.Captions)
		} else {
			d.train, err = d.readCOCO(c.TrainAnnotations, c.TrainImages)
		}
	}
	if err != nil {
		return nil, err
	}
	d.limit(c.ValLimit, x.Config.Seed)
	for name, p := range map[string]part{"training": d.train, "validation": d.val} {
		if len(p.photos) == 0 || len(p.texts) == 0 {
			return nil, fmt.Errorf("the %s set has %d photos and %d captions: both are needed", name, len(p.photos), len(p.texts))
		}
	}
	return d, nil
}

// limit keeps n validation photos and their captions.
func (d *data) limit(n, seed int) {
	if n == 0 || n >= len(d.val.photos) {
		return
	}
	rng := rand.New(rand.NewPCG(uint64(seed), 1))
	keep := map[int64]bool{}
	chosen := rng.Perm(len(d.val.photos))[:n]
	slices.Sort(chosen)
	var p part
	for _, i := range chosen {
		p.photos = append(p.photos, d.val.photos[i])
		keep[d.val.photos[i].id] = true
	}
	for i, t := range d.val.texts {
		if keep[d.val.textImage[i]] {
			p.texts = append(p.texts, t)
			p.textImage = append(p.textImage, d.val.textImage[i])
		}
	}
	d.val = p
}

func (d *data) readCOCO(annotations, images string) (p part, err error) {
	set, err := coco.Read(annotations)
	if err != nil {
		return p, errors.New(strings.TrimPrefix(err.Error(), "coco: "))
	}
	for _, m := range set.Images {
		p.photos = append(p.photos, photoFile{m.ID, filepath.Join(images, filepath.FromSlash(m.FileName))})
	}
	p.textImage = []int64{}
	empty := 0
	for _, a := range set.Annotations {
		if strings.TrimSpace(a.Caption) == "" {
			empty++
			continue
		}
		p.texts = append(p.texts, a.Caption)
		p.textImage = append(p.textImage, a.ImageID)
	}
	if empty > 0 {
		d.notes = append(d.notes, fmt.Sprintf("%s: %d empty captions are left out", annotations, empty))
	}
	return p, nil
}

// readKarpathy reads Karpathy's split of COCO (dataset_coco.json), image by
// image: "train" and "restval" train, "test" validates.
func (d *data) readKarpathy(c config.Data) error {
	f, err := os.Open(c.Karpathy)
	if err != nil {
		return err
	}
	defer f.Close()
	in := json.NewDecoder(bufio.NewReaderSize(f, 1<<20))
	fail := func(err error) error {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("the file ends too early")
		}
		return fmt.Errorf("%s, byte %d: %w", c.Karpathy, in.InputOffset(), err)
	}
	d.train.textImage, d.val.textImage = []int64{}, []int64{}
	found := false
	if t, err := in.Token(); err != nil || t != json.Delim('{') {
		return fail(errors.Join(err, errors.New("a JSON object is needed")))
	}
	for in.More() {
		key, err := in.Token()
		if err != nil {
			return fail(err)
		}
		if key != "images" {
			var skip json.RawMessage
			if err := in.Decode(&skip); err != nil {
				return fail(err)
			}
			continue
		}
		found = true
		if t, err := in.Token(); err != nil || t != json.Delim('[') {
			return fail(errors.Join(err, errors.New(`"images" must be a list`)))
		}
		for in.More() {
			var m struct {
				FilePath  string `json:"filepath"`
				FileName  string `json:"filename"`
				Split     string `json:"split"`
				CocoID    int64  `json:"cocoid"`
				Sentences []struct {
					Raw string `json:"raw"`
				} `json:"sentences"`
			}
			if err := in.Decode(&m); err != nil {
				return fail(err)
			}
			folder := c.TrainImages
			if strings.HasPrefix(m.FilePath, "val") {
				folder = c.ValImages
			}
			var p *part
			switch m.Split {
			case "train", "restval":
				p = &d.train
			case "test":
				p = &d.val
			default:
				continue
			}
			p.photos = append(p.photos, photoFile{m.CocoID, filepath.Join(folder, m.FileName)})
			for _, s := range m.Sentences {
				if strings.TrimSpace(s.Raw) != "" {
					p.texts = append(p.texts, s.Raw)
					p.textImage = append(p.textImage, m.CocoID)
				}
			}
		}
		if _, err := in.Token(); err != nil {
			return fail(err)
		}
	}
	if _, err := in.Token(); err != nil {
		return fail(err)
	}
	if !found {
		return fmt.Errorf(`%s: it has no "images": is it Karpathy's dataset_coco.json?`, c.Karpathy)
	}
	return nil
}

// readPlain reads a folder of photos and a text file with a caption a line,
// which have nothing to do with each other. Ids count from 0.
func (d *data) readPlain(photos, captions string) error {
	list, err := os.ReadDir(photos)
	if err != nil {
		return err
	}
	for _, e := range list {
		switch strings.ToLower(filepath.Ext(e.Name())) {
		case ".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp":
			d.train.photos = append(d.train.photos, photoFile{int64(len(d.train.photos)), filepath.Join(photos, e.Name())})
		}
	}
	f, err := os.Open(captions)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if s := strings.TrimSpace(lines.Text()); s != "" {
			d.train.texts = append(d.train.texts, s)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: %w", captions, err)
	}
	return nil
}

// identity tells whether the photos are those of another time: by name, size
// and time of change.
func identity(photos []photoFile) (string, error) {
	list := make([]string, 0, len(photos))
	for _, p := range photos {
		info, err := os.Stat(p.path)
		if err != nil {
			list = append(list, p.path+" missing")
			continue
		}
		list = append(list, fmt.Sprint(p.id, p.path, info.Size(), info.ModTime().UnixNano()))
	}
	return features.Hash(list...), nil
}
