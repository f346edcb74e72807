// Package truth measures how much of what captions say about the photos of a world
// (package world) is right, and how much they leave out. A world knows what its photos
// show, which no other data set does.
//
// Captions claim things: that there is an object of some kind, its colour and number, the
// place, and so on; world.Photo.Claims finds them. For each subject,
//
//   - precision is the share of the claims that are right; the others are invented,
//   - recall is the share of what could be said that is said and right; the rest is left
//     out or wrong.
//
// CHAIR (Rohrbach et al. 2018) looks at objects alone: CHAIRi is the share of mentioned
// objects of a kind that the photo does not show, CHAIRs the share of captions that mention
// one.
package truth

import (
	"context"
	"encoding/json"
	"fmt"

	"cyclecap/data/coco"
	"cyclecap/data/world"
	"cyclecap/eval"
)

// Read returns what the photos of a captions file show. It returns nil if the file is not
// one of a world, and an error if that is true of some of its photos only.
func Read(path string) (map[coco.ID]world.Photo, error) {
	photos := map[coco.ID]world.Photo{}
	without := 0
	var first coco.ID
	err := coco.Scan(path, map[string]func(int, func(any) error) error{"images": func(i int, decode func(any) error) error {
		var image struct {
			ID    coco.ID
			World json.RawMessage
		}
		if err := decode(&image); err != nil {
			return err
		}
		if image.World == nil {
			if without++; without == 1 {
				first = image.ID
			}
			return nil
		}
		var p world.Photo
		if err := json.Unmarshal(image.World, &p); err != nil {
			return fmt.Errorf("truth: %s: images[%d]: %w", path, i, err)
		}
		if len(p.Objects) == 0 {
			return fmt.Errorf("truth: %s: images[%d]: \"world\" has no \"objects\"", path, i)
		}
		photos[image.ID] = p
		return nil
	}})
	switch {
	case err != nil:
		return nil, err
	case len(photos) == 0:
		return nil, nil
	case without > 0:
		return nil, fmt.Errorf("truth: %s: image %s has no \"world\", but others have", path, first)
	}
	return photos, nil
}

// Scores are the scores of a set of captions. A subject of which the photos have nothing to
// say has no recall.
type Scores struct {
	Objects   Subject `json:"objects"`
	Colours   Subject `json:"colours"`
	Numbers   Subject `json:"numbers"`
	Textures  Subject `json:"textures"`
	Sizes     Subject `json:"sizes"`
	Places    Subject `json:"places"`
	Light     Subject `json:"light"`
	Relations Subject `json:"relations"`
	Sides     Subject `json:"sides"`
	// ChairI and ChairS are CHAIRi and CHAIRs.
	ChairI eval.Share `json:"chair_i"`
	ChairS eval.Share `json:"chair_s"`
	// MainObjectColour is the share of captions that name the photo's first object with
	// its colour, and no other colour.
	MainObjectColour eval.Share `json:"main_object_colour"`
	// HeldOutMainObjectColour is the same among the photos with a combination that occurs in
	// no training photo. It is nil if there are none.
	HeldOutMainObjectColour *eval.Share `json:"held_out_main_object_colour"`
}

// A Subject has the scores of the claims about a subject.
type Subject struct {
	Precision eval.Share  `json:"precision"`
	Recall    *eval.Share `json:"recall"`
}

// Of returns the scores of a result that contains those of Metric, for photos with contents.
func Of(shares map[string]eval.Share, photos Contents) *Scores {
	s := &Scores{ChairI: shares[chairI], ChairS: shares[chairS], MainObjectColour: shares[mainColour]}
	for i, to := range []*Subject{&s.Objects, &s.Colours, &s.Numbers, &s.Textures, &s.Sizes, &s.Places, &s.Light, &s.Relations, &s.Sides} {
		of := world.Subjects[i]
		to.Precision = shares[precision(of)]
		if share := shares[recall(of)]; photos.recallable[i] {
			to.Recall = &share
		}
	}
	if share := shares[heldOutColour]; photos.heldOut {
		s.HeldOutMainObjectColour = &share
	}
	return s
}

// Contents is what there is to say about a set of photos.
type Contents struct {
	recallable [subjects]bool // subjects about which they have something to say
	heldOut    bool           // whether some have a combination that no training photo has
}

// ContentsOf returns the contents of the photos of items.
func ContentsOf(photos map[coco.ID]world.Photo, items []eval.Item) (of Contents) {
	for _, item := range items {
		c := count(photos[item.ImageID], "")
		for i := range of.recallable {
			of.recallable[i] = of.recallable[i] || c.there[i] > 0
		}
		of.heldOut = of.heldOut || c.heldOut > 0
	}
	return of
}

// And returns the contents that two sets of photos both have.
func (c Contents) And(other Contents) Contents {
	for i := range c.recallable {
		c.recallable[i] = c.recallable[i] && other.recallable[i]
	}
	c.heldOut = c.heldOut && other.heldOut
	return c
}

// The names of the scores of Metric.
const (
	chairI        = "chair_i"
	chairS        = "chair_s"
	mainColour    = "main_object_colour"
	heldOutColour = "held_out_main_object_colour"
)

func precision(s world.Subject) string { return s.String() + "_precision" }
func recall(s world.Subject) string    { return s.String() + "_recall" }

// Metric returns the metric for captions of photos. Its scores are named after the subjects
// ("colours_precision", "colours_recall"), "chair_i", "chair_s", "main_object_colour" and
// "held_out_main_object_colour". They are shares of sums over the set, and 0 where there is
// nothing to divide by.
func Metric(photos map[coco.ID]world.Photo, items []eval.Item) (eval.Metric, error) {
	m := &metric{counts: make(map[coco.ID]counts, len(items))}
	for _, item := range items {
		p, ok := photos[item.ImageID]
		if !ok {
			return nil, fmt.Errorf("truth: nothing is known about image %s", item.ImageID)
		}
		m.counts[item.ImageID] = count(p, item.Candidate)
	}
	for i, s := range world.Subjects {
		m.score(precision(s), func(c *counts) (int, int) { return c.right[i], c.said[i] })
		m.score(recall(s), func(c *counts) (int, int) { return c.named[i], c.there[i] })
	}
	m.score(chairI, func(c *counts) (int, int) { return c.absent, c.mentions })
	m.score(chairS, func(c *counts) (int, int) { return c.inventing, c.captions })
	m.score(mainColour, func(c *counts) (int, int) { return c.main, c.captions })
	m.score(heldOutColour, func(c *counts) (int, int) { return c.heldOutMain, c.heldOut })
	return m, nil
}

const subjects = 9

// counts are sums over captions.
type counts struct {
	captions int
	// By subject: claims, right ones, things that could be said, and those that are said
	// and right.
	said, right, there, named [subjects]int
	mentions, absent          int // mentioned objects, and those of kinds that are not there
	inventing                 int // captions that mention one of these
	main                      int // captions that name the first object with its colour
	heldOut, heldOutMain      int // captions, and main, of photos with a held-out combination
}

// add adds c n times.
func (t *counts) add(c counts, n int) {
	t.captions += n * c.captions
	for i := range t.said {
		t.said[i] += n * c.said[i]
		t.right[i] += n * c.right[i]
		t.there[i] += n * c.there[i]
		t.named[i] += n * c.named[i]
	}
	t.mentions += n * c.mentions
	t.absent += n * c.absent
	t.inventing += n * c.inventing
	t.main += n * c.main
	t.heldOut += n * c.heldOut
	t.heldOutMain += n * c.heldOutMain
}

// count counts the claims of a caption.
func count(p world.Photo, caption string) counts {
	c := counts{captions: 1}
	named := map[world.Subject]map[int]bool{} // objects about which something right is said
	wrongColour := false
	for _, claim := range p.Claims(caption) {
		s := claim.Subject
		c.said[s]++
		if claim.Right {
			c.right[s]++
			if named[s] == nil {
				named[s] = map[int]bool{}
			}
			named[s][claim.Object] = true
		}
		if s == world.Objects {
			c.mentions++
			if claim.Absent {
				c.absent++
			}
		}
		wrongColour = wrongColour || s == world.Colours && claim.Object == 0 && !claim.Right
	}
	for i, o := range p.Objects {
		for s, has := range map[world.Subject]bool{world.Objects: true, world.Colours: true, world.Numbers: true,
			world.Textures: o.Texture != world.Plain, world.Sizes: o.Size != world.Medium} {
			if has {
				c.there[s]++
				c.named[s] += number(named[s][i])
			}
		}
	}
	for s, has := range map[world.Subject]bool{world.Places: true, world.Lights: p.Light != world.Day,
		world.Relations: p.Relation != world.Alone, world.Sides: p.Side != world.Anywhere && len(p.Objects) == 1} {
		if has {
			c.there[s]++
			c.named[s] += number(len(named[s]) > 0)
		}
	}
	c.inventing = number(c.absent > 0)
	c.main = number(named[world.Objects][0] && named[world.Colours][0] && !wrongColour)
	if len(p.HeldOut) > 0 {
		c.heldOut, c.heldOutMain = 1, c.main
	}
	return c
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

// metric implements eval.Metric.
type metric struct {
	names  []string
	parts  []func(*counts) (part, whole int)
	counts map[coco.ID]counts
}

// score adds a score: a share of sums.
func (m *metric) score(name string, part func(*counts) (part, whole int)) {
	m.names, m.parts = append(m.names, name), append(m.parts, part)
}

func (m *metric) Names() []string { return m.names }

func (m *metric) Score(_ context.Context, set *eval.Set) (*eval.Scores, error) {
	all := make([]counts, len(set.Images))
	images := make([][]float64, len(set.Images))
	var total counts
	for i, image := range set.Images {
		c, ok := m.counts[image.ImageID]
		if !ok {
			return nil, fmt.Errorf("truth: nothing is known about image %s", image.ImageID)
		}
		all[i], images[i] = c, m.shares(&c)
		total.add(c, 1)
	}
	return &eval.Scores{Corpus: m.shares(&total), Images: images, Resample: func(count []int32, _ int) []float64 {
		var total counts
		for i, n := range count {
			if n > 0 {
				total.add(all[i], int(n))
			}
		}
		return m.shares(&total)
	}}, nil
}

func (m *metric) shares(c *counts) []float64 {
	list := make([]float64, len(m.parts))
	for i, f := range m.parts {
		if part, whole := f(c); whole > 0 {
			list[i] = float64(part) / float64(whole)
		}
	}
	return list
}
