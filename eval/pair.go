package eval

import (
	"fmt"

	"cyclecap/data/coco"
)

// Pair joins the captions of a data set with a model's results, in the order of
// the results. A result for an image that the set doesn't have, or that has no
// caption there, is an error; so is an image with captions but without result,
// unless partial is true.
func Pair(set *coco.Dataset, results []coco.Result, partial bool) ([]Item, error) {
	if len(results) == 0 {
		return nil, fmt.Errorf("eval: there are no results")
	}
	captions := set.Captions()
	known := make(map[int64]bool, len(set.Images))
	for _, image := range set.Images {
		known[image.ID] = true
	}
	items := make([]Item, 0, len(results))
	seen := make(map[int64]bool, len(results))
	for _, r := range results {
		refs := captions[r.ImageID]
		switch {
		case !known[r.ImageID]:
			return nil, fmt.Errorf("eval: the results have image %d, which the annotations don't", r.ImageID)
		case len(refs) == 0:
			return nil, fmt.Errorf("eval: image %d has no caption in the annotations to score against", r.ImageID)
		case seen[r.ImageID]:
			return nil, fmt.Errorf("eval: the results have image %d twice", r.ImageID)
		}
		seen[r.ImageID] = true
		items = append(items, Item{ImageID: r.ImageID, Candidate: r.Caption, References: refs})
	}
	if partial {
		return items, nil
	}
	missing, first := 0, int64(0)
	for _, image := range set.Images {
		if len(captions[image.ID]) > 0 && !seen[image.ID] {
			if missing == 0 {
				first = image.ID
			}
			missing++
		}
	}
	if missing > 0 {
		return nil, fmt.Errorf("eval: %d of the annotations' %d images have no result (the first is %d); --partial scores the others",
			missing, len(captions), first)
	}
	return items, nil
}
