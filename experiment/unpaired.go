package experiment

import (
	"math/rand/v2"
	"slices"

	"cyclecap/data/world"
)

// The photos and captions for unpaired training: which of the training set bridges and
// text decoders may use.

// selection is the settings that select them.
type selection struct {
	Pairing                  string
	Overlap                  float64
	PhotoLimit, CaptionLimit int
	Seed                     int
}

// captionSelection returns the settings that select captions, as inputs of a stage: none
// if all captions are used.
func (x *Experiment) captionSelection() []any {
	d := x.Config.Data
	if d.Pairing == "paper" && d.CaptionLimit == 0 {
		return nil
	}
	return []any{selection{Pairing: d.Pairing, Overlap: d.Overlap, CaptionLimit: d.CaptionLimit, Seed: x.Config.Seed}}
}

// bothSelections returns the settings that select photos and captions, in addition to
// data.pairing, as inputs of a stage: none if it alone selects them.
func (x *Experiment) bothSelections() []any {
	d := x.Config.Data
	if d.Overlap == 0 && d.PhotoLimit == 0 && d.CaptionLimit == 0 {
		return nil
	}
	return []any{selection{d.Pairing, d.Overlap, d.PhotoLimit, d.CaptionLimit, x.Config.Seed}}
}

// split selects the rows of the features that bridges and text decoders may use.
func (x *Experiment) split(f *featureSets) {
	ofImages, ofTexts := x.halves()
	if ofImages != nil {
		f.imageRows, f.textRows = []int32{}, []int32{}
		for i, id := range f.trainImageIDs {
			if ofImages[id] {
				f.imageRows = append(f.imageRows, int32(i))
			}
		}
		for i, id := range x.data.train.textImage {
			if ofTexts[id] {
				f.textRows = append(f.textRows, int32(i))
			}
		}
	}
	d, seed := x.Config.Data, uint64(x.Config.Seed)
	f.imageRows = limited(f.imageRows, f.trainImages.Len(), d.PhotoLimit, rand.NewPCG(seed, 4))
	f.textRows = limited(f.textRows, f.trainTexts.Len(), d.CaptionLimit, rand.NewPCG(seed, 5))
}

// limited returns n of the rows, selected at random, in their order. Rows that are nil are
// all rows, and n = 0 is all of them.
func limited(rows []int32, all, n int, source *rand.PCG) []int32 {
	if rows != nil {
		all = len(rows)
	}
	if n == 0 || n >= all {
		return rows
	}
	chosen := rand.New(source).Perm(all)[:n]
	slices.Sort(chosen)
	out := make([]int32, n)
	for i, k := range chosen {
		out[i] = int32(k)
		if rows != nil {
			out[i] = rows[k]
		}
	}
	return out
}

// halves returns the photos whose features and those whose captions may be used if
// data.pairing is "disjoint", and otherwise nil.
func (x *Experiment) halves() (ofImages, ofTexts map[int64]bool) {
	if x.Config.Data.Pairing != "disjoint" || !x.data.paired() {
		return nil, nil
	}
	rng := rand.New(rand.NewPCG(uint64(x.Config.Seed), 2))
	photos := x.data.train.photos
	order := rng.Perm(len(photos))
	half := len(photos) / 2
	both := int(x.Config.Data.Overlap*float64(half) + 0.5)
	ids := func(of []int) map[int64]bool {
		m := map[int64]bool{}
		for _, i := range of {
			m[photos[i].id] = true
		}
		return m
	}
	return ids(order[:half]), ids(order[half-both : len(photos)-both])
}

// worldSizes returns the sizes of the data of a world that is not rendered yet.
func (x *Experiment) worldSizes() (n sizes) {
	w := x.Config.World
	n.photos, n.captions = w.Train, w.Train*world.CaptionsEach
	n.valPhotos, n.valCaptions = w.Val, w.Val*world.CaptionsEach
	if w.Texts > 0 {
		n.captions = w.Texts * world.CaptionsEach
	}
	n.eligible, n.eligibleCaptions = n.photos, n.captions
	if x.Config.Data.Pairing == "disjoint" {
		n.eligible = n.photos / 2
		n.eligibleCaptions = (n.photos - n.eligible) * world.CaptionsEach
	}
	return n
}

// limit sets the sizes of the sets for unpaired training.
func (n *sizes) limit(photos, captions int) {
	n.used, n.usedCaptions = n.eligible, n.eligibleCaptions
	if photos > 0 {
		n.used = min(n.used, photos)
	}
	if captions > 0 {
		n.usedCaptions = min(n.usedCaptions, captions)
	}
}

// withTexts replaces the training captions by those of scenes without photos if the
// configuration has world.texts.
func (x *Experiment) withTexts(p *part) (err error) {
	w := x.Config.World
	if w == nil || w.Texts == 0 {
		return nil
	}
	c := worldConfig(w)
	c.Seed = uint64(w.TextSeed)
	p.texts, err = c.Texts(w.Texts)
	p.textImage = nil
	return err
}
