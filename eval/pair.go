package eval

import (
	"fmt"

	"cyclecap/data/coco"
)

// Pair matches the captions of a data set with the results of a model, in the order
// of the results. It is an error if a result is for an image that is not in the set
// or has no caption there and, unless partial is true, if an image with captions
// has no result.
func Pair(set *coco.Dataset, results []coco.Result, partial bool) ([]Item, error) {
	if len(results) == 0 {
		return nil, fmt.Errorf("eval: no results")
	}
	captions := set.Captions()
	known := make(map[coco.ID]bool, len(set.Images))
	for _, image := range set.Images {
		known[image.ID] = true
	}
	items := make([]Item, 0, len(results))
	seen := make(map[coco.ID]bool, len(results))
	for _, r := range results {
		refs := captions[r.ImageID]
		switch {
		case !known[r.ImageID]:
			return nil, fmt.Errorf("eval: the results contain image %s, which is not in the annotations", r.ImageID)
		case len(refs) == 0:
			return nil, fmt.Errorf("eval: image %s has no captions in the annotations to score against", r.ImageID)
		case seen[r.ImageID]:
			return nil, fmt.Errorf("eval: the results contain image %s twice", r.ImageID)
		}
		seen[r.ImageID] = true
		items = append(items, Item{ImageID: r.ImageID, Candidate: r.Caption, References: refs})
	}
	if partial {
		return items, nil
	}
	missing, first := 0, coco.ID{}
	for _, image := range set.Images {
		if len(captions[image.ID]) > 0 && !seen[image.ID] {
			if missing == 0 {
				first = image.ID
			}
			missing++
		}
	}
	if missing > 0 {
		return nil, fmt.Errorf("eval: %d of the %d images in the annotations have no result (the first is image %s); use --partial to score the others",
			missing, len(captions), first)
	}
	return items, nil
}
