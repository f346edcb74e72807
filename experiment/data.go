package experiment

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"

	"cyclecap/data/clipcap"
	"cyclecap/data/coco"
	"cyclecap/data/features"
	"cyclecap/data/sets"
	"cyclecap/experiment/config"
)

// data is the photos and captions of an experiment. They are two separate sets: only the
// evaluation and the supervised bridge use the pairs of photos and captions.
type data struct {
	train, val part
	isCOCO     bool // val is COCO val2014, for which the paper has scores
	notes      []string
}

// A part is a training or validation set.
type part struct {
	photos []photoFile
	texts  []string
	// textImage is the photo of each text, or nil if the set is not paired.
	textImage []int64
	// keys are the numbers that stand for ids which are not integers, in the order in
	// which they appear: -1, -2, and so on. They are the ids in the feature store.
	keys map[coco.ID]int64
	ids  map[int64]coco.ID // the reverse
	// stored has the features of the photos, by rows[photo], if they come with the set.
	// The photos themselves are not available then.
	stored *clipcap.File
	rows   []int
}

type photoFile struct {
	id   int64
	path string
}

// key returns the number that stands for an id: an integer for itself.
func (p *part) key(id coco.ID) int64 {
	if n, ok := id.Int64(); ok && p.ids[n] == (coco.ID{}) {
		return n
	}
	if p.keys == nil {
		p.keys, p.ids = map[coco.ID]int64{}, map[int64]coco.ID{}
	}
	k, ok := p.keys[id]
	if !ok {
		k = -1 - int64(len(p.keys))
		p.keys[id], p.ids[k] = k, id
	}
	return k
}

// id returns the id for which a number stands.
func (p part) id(key int64) coco.ID {
	if id, ok := p.ids[key]; ok {
		return id
	}
	return coco.Int(key)
}

func (d *data) paired() bool { return d.train.textImage != nil }

// references returns the captions of each photo.
func (p part) references() map[coco.ID][]string {
	refs := map[coco.ID][]string{}
	for i, t := range p.texts {
		id := p.id(p.textImage[i])
		refs[id] = append(refs[id], t)
	}
	return refs
}

// referenceHash returns a hash of the captions of each photo.
func (p part) referenceHash() string {
	list := make([]string, 0, 2*len(p.texts))
	for i, t := range p.texts {
		list = append(list, p.id(p.textImage[i]).String(), t)
	}
	return features.Hash(list...)
}

// loadData reads the annotations, but no photos.
func (x *Experiment) loadData() (*data, error) {
	c := x.Config.Data
	d := &data{}
	var err error
	switch {
	case c.Karpathy != "":
		err = d.readKarpathy(c)
	default:
		if d.val, err = d.readCOCO(c.ValAnnotations, c.ValImages, c.MaxBad); err != nil {
			return nil, err
		}
		d.isCOCO = x.Config.World == nil && filepath.Base(c.ValAnnotations) == "captions_val2014.json" && len(d.val.photos) == 40504
		if c.ClipCap != "" {
			err = d.readClipCap(c.ClipCap, c.MaxBad)
		} else if c.Photos != "" {
			err = d.readPlain(c.Photos, c.Captions, c.MaxBad)
		} else {
			d.train, err = d.readCOCO(c.TrainAnnotations, c.TrainImages, c.MaxBad)
		}
		if err == nil {
			err = x.withTexts(&d.train)
		}
	}
	if err != nil {
		return nil, err
	}
	d.limit(c.ValLimit, x.Config.Seed)
	for name, p := range map[string]part{"training": d.train, "validation": d.val} {
		if len(p.photos) == 0 || len(p.texts) == 0 {
			return nil, fmt.Errorf("the %s set has %d photos and %d captions; it needs at least one of each", name, len(p.photos), len(p.texts))
		}
	}
	return d, nil
}

// limit reduces the validation set to n random photos and their captions.
func (d *data) limit(n, seed int) {
	if n == 0 || n >= len(d.val.photos) {
		return
	}
	rng := rand.New(rand.NewPCG(uint64(seed), 1))
	keep := map[int64]bool{}
	chosen := rng.Perm(len(d.val.photos))[:n]
	slices.Sort(chosen)
	p := part{keys: d.val.keys, ids: d.val.ids}
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

func (d *data) readCOCO(annotations, images string, maxBad float64) (p part, err error) {
	set, err := sets.COCO(annotations, images, maxBad)
	if err != nil {
		return p, err
	}
	d.add(&p, set)
	return p, nil
}

// add appends a set to a part.
func (d *data) add(p *part, set *sets.Set) {
	for _, m := range set.Photos {
		p.photos = append(p.photos, photoFile{p.key(m.ID), m.Path})
	}
	if set.Paired && p.textImage == nil {
		p.textImage = []int64{}
	}
	for _, c := range set.Captions {
		p.texts = append(p.texts, c.Text)
		if set.Paired {
			p.textImage = append(p.textImage, p.key(c.Image))
		}
	}
	if b := set.Bad; b.Count > 0 {
		d.notes = append(d.notes, fmt.Sprintf("skipped %d %s: %s", b.Count, b.Of, strings.Join(b.First, "; ")))
	}
}

// readKarpathy reads Karpathy's split of COCO: "train" and "restval" are the training set,
// "test" is the validation set.
func (d *data) readKarpathy(c config.Data) error {
	splits, err := sets.Karpathy(c.Karpathy, func(path string) string {
		if strings.HasPrefix(path, "val") {
			return c.ValImages
		}
		return c.TrainImages
	}, c.MaxBad)
	if err != nil {
		return err
	}
	for _, s := range []struct {
		name string
		to   *part
	}{{"train", &d.train}, {"restval", &d.train}, {"test", &d.val}} {
		if set := splits[s.name]; set != nil {
			d.add(s.to, set)
		}
	}
	return nil
}

// readPlain reads a folder of photos and a file of captions, which are unrelated.
func (d *data) readPlain(photos, captions string, maxBad float64) error {
	list, passed, err := sets.Folder(photos, false)
	if err != nil {
		return err
	}
	if s := passed.String(); s != "" {
		d.notes = append(d.notes, fmt.Sprintf("skipped in %s: %s", photos, s))
	}
	set, err := sets.Captions(captions, maxBad)
	if err != nil {
		return err
	}
	set.Photos, set.Paired = list, false
	d.add(&d.train, set)
	return nil
}

// readClipCap reads the captions in a file of ClipCap and locates its features.
func (d *data) readClipCap(path string, maxBad float64) error {
	f, err := clipcap.Open(path)
	if err != nil {
		return err
	}
	set, rows, err := sets.ClipCap(f, maxBad)
	if err != nil {
		return err
	}
	d.train.stored, d.train.rows = f, rows
	d.add(&d.train, set)
	return nil
}

// photoHash returns a hash of the ids and contents of photos, in their order. Only rank 0
// reads them. In a dry run it returns errUnfinished instead if nothing can depend on the hash,
// because their features were never finished.
func (x *Experiment) photoHash(ctx context.Context, name string, p part) (string, error) {
	if x.Group.Rank() != 0 {
		return "", nil
	}
	if x.dry != nil && !x.everFinished(filepath.Join("features", name)) {
		return "", errUnfinished
	}
	paths := make([]string, len(p.photos))
	for i, f := range p.photos {
		paths[i] = f.path
	}
	bar := x.UI.Bar(name+" to check", 0, len(paths))
	hashes, err := x.contents.all(ctx, paths, func(n int) { bar.Set(n, "") })
	bar.Finish()
	if err == nil && x.dry == nil {
		err = x.contents.save()
	}
	if err != nil {
		return "", err
	}
	list := make([]string, len(hashes))
	for i, hash := range hashes {
		list[i] = p.id(p.photos[i].id).String() + " " + hash
	}
	return features.Hash(list...), nil
}
