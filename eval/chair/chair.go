// Package chair computes CHAIR (Rohrbach et al., Object Hallucination in Image Captioning,
// EMNLP 2018): how many of the objects that captions of COCO mention are not in the photo.
// It gives the same numbers as the published code.
//
// Objects are COCO's 80 categories; words.txt lists their synonyms. A photo has the objects
// that the instances file names and those that its reference captions mention. CHAIRi is
// the share of mentioned objects that the photo does not have, CHAIRs the share of captions
// that mention such an object.
package chair

import (
	"context"
	_ "embed"
	"fmt"
	"strings"
	"sync"

	"cyclecap/data/coco"
	"cyclecap/eval"
)

//go:embed words.txt
var wordsFile string

// wordList is the contents of words.txt.
type wordList struct {
	category map[string]string // of a word
	pairs    map[string]string // two words to what they stand for
	singular map[string]string
}

// words returns the contents of words.txt, which are read when they are first needed.
var words = sync.OnceValue(func() (w wordList) {
	w.category, w.pairs, w.singular = map[string]string{}, map[string]string{}, map[string]string{}
	for line := range strings.Lines(wordsFile) {
		kind, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch kind {
		case "object":
			list := strings.Split(rest, ", ")
			for _, word := range list {
				w.category[word] = list[0]
			}
		case "pair":
			pair, means, ok := strings.Cut(rest, ": ")
			if !ok {
				means = pair
			}
			w.pairs[pair] = means
		case "singular":
			word, forms, _ := strings.Cut(rest, ": ")
			for form := range strings.SplitSeq(forms, ", ") {
				w.singular[form] = word
			}
		}
	}
	return w
})

// Objects returns the categories of the objects that a caption mentions, in the order of
// its words. An object that is mentioned twice is listed twice.
func Objects(caption string) []string {
	tokens := tokenize(caption)
	for i, t := range tokens {
		tokens[i] = words().singular[t] // "" for words that mean nothing here
	}
	var list []string
	toilet, seat := false, false
	for i := 0; i < len(tokens); i++ {
		word := tokens[i]
		if i+1 < len(tokens) {
			if means, ok := words().pairs[word+" "+tokens[i+1]]; ok {
				word = means
				i++
			}
		}
		toilet, seat = toilet || word == "toilet", seat || word == "seat"
		list = append(list, word)
	}
	out := []string{}
	for _, word := range list {
		if toilet && seat && word == "seat" {
			continue // the seat of a toilet is no chair
		}
		if category := words().category[word]; category != "" {
			out = append(out, category)
		}
	}
	return out
}

// ReadInstances returns the categories of the objects in the photos of an instances file of
// COCO (instances_val2014.json).
func ReadInstances(path string) (map[coco.ID][]string, error) {
	objects := map[coco.ID][]string{}
	categories := map[int64]string{}
	type instance struct {
		ImageID    coco.ID `json:"image_id"`
		CategoryID *int64  `json:"category_id"`
	}
	var list []instance
	err := coco.Scan(path, map[string]func(int, func(any) error) error{
		"images": func(_ int, decode func(any) error) error {
			var image struct {
				ID coco.ID `json:"id"`
			}
			if err := decode(&image); err != nil {
				return err
			}
			objects[image.ID] = nil
			return nil
		},
		"categories": func(i int, decode func(any) error) error {
			var c struct {
				ID   int64  `json:"id"`
				Name string `json:"name"`
			}
			if err := decode(&c); err != nil {
				return err
			}
			if words().category[c.Name] != c.Name {
				return fmt.Errorf("chair: %s: categories[%d]: %q is not one of COCO's 80 objects", path, i, c.Name)
			}
			categories[c.ID] = c.Name
			return nil
		},
		"annotations": func(i int, decode func(any) error) error {
			var a instance
			if err := decode(&a); err != nil {
				return err
			}
			if a.CategoryID == nil {
				return fmt.Errorf("chair: %s: annotations[%d] has no \"category_id\": is this an instances file, such as instances_val2014.json?", path, i)
			}
			list = append(list, a)
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	for i, a := range list {
		name := categories[*a.CategoryID]
		if name == "" {
			return nil, fmt.Errorf("chair: %s: annotations[%d] has category %d, which is not in \"categories\"", path, i, *a.CategoryID)
		}
		of, ok := objects[a.ImageID]
		if !ok {
			return nil, fmt.Errorf("chair: %s: annotations[%d] refers to image %s, which is not in \"images\"", path, i, a.ImageID)
		}
		objects[a.ImageID] = append(of, name)
	}
	return objects, nil
}

// Metric returns the metric, with the scores CHAIRi and CHAIRs. It is an error if instances
// lacks an image.
func Metric(items []eval.Item, instances map[coco.ID][]string) (eval.Metric, error) {
	m := metric{}
	for _, item := range items {
		of, ok := instances[item.ImageID]
		if !ok {
			return nil, fmt.Errorf("chair: image %s is not in the instances file: use the file of the same photos as the captions", item.ImageID)
		}
		there := map[string]bool{}
		for _, o := range of {
			there[o] = true
		}
		for _, ref := range item.References {
			for _, o := range Objects(ref) {
				there[o] = true
			}
		}
		c := counts{captions: 1}
		for _, o := range Objects(item.Candidate) {
			c.mentioned++
			if !there[o] {
				c.invented++
			}
		}
		if c.invented > 0 {
			c.inventing = 1
		}
		m[item.ImageID] = c
	}
	return m, nil
}

// counts are sums over captions.
type counts struct{ captions, mentioned, invented, inventing int }

func (c counts) scores() []float64 {
	s := []float64{0, float64(c.inventing) / float64(c.captions)}
	if c.mentioned > 0 {
		s[0] = float64(c.invented) / float64(c.mentioned)
	}
	return s
}

func (c *counts) add(d counts, n int) {
	c.captions += n * d.captions
	c.mentioned += n * d.mentioned
	c.invented += n * d.invented
	c.inventing += n * d.inventing
}

type metric map[coco.ID]counts

func (m metric) Names() []string { return []string{"CHAIRi", "CHAIRs"} }

func (m metric) Score(_ context.Context, set *eval.Set) (*eval.Scores, error) {
	all := make([]counts, len(set.Images))
	s := &eval.Scores{Images: make([][]float64, len(set.Images))}
	var total counts
	for i, image := range set.Images {
		c, ok := m[image.ImageID]
		if !ok {
			return nil, fmt.Errorf("chair: the objects in image %s are not known", image.ImageID)
		}
		all[i], s.Images[i] = c, c.scores()
		total.add(c, 1)
	}
	s.Corpus = total.scores()
	s.Resample = func(count []int32, _ int) []float64 {
		var total counts
		for i, n := range count {
			total.add(all[i], int(n))
		}
		return total.scores()
	}
	return s, nil
}
