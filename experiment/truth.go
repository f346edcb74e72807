package experiment

import (
	"context"
	"fmt"

	"cyclecap/data/coco"
	"cyclecap/data/world"
	"cyclecap/eval"
	"cyclecap/eval/truth"
	"cyclecap/experiment/report"
)

// shown returns what the validation photos show, or nil if they are not of a world.
func (x *Experiment) shown() (map[coco.ID]world.Photo, error) {
	if x.Config.Data.Karpathy != "" {
		return nil, nil
	}
	return truth.Read(x.Config.Data.ValAnnotations)
}

// scoreClaims adds to t what each bridge's captions say about the photos of a world, and how
// often captions repeat themselves: means over seeds, with intervals over photos.
func (x *Experiment) scoreClaims(ctx context.Context, captions []*seedCaptions, t *scoreTable) error {
	photos, err := x.shown()
	if err != nil {
		return err
	}
	refs := x.data.val.references()
	t.Claims = map[string]*report.Claims{}
	for _, b := range x.bridges {
		var runs []*eval.Result
		for _, c := range captions {
			r, err := claimsOf(ctx, c.results[b.Name], refs, photos)
			if err != nil {
				return fmt.Errorf("%s, seed %d: %w", b.Name, c.seed, err)
			}
			runs = append(runs, r)
		}
		mean, err := eval.Mean(runs)
		if err != nil {
			return err
		}
		if t.Claims[b.Name], err = x.claims(ctx, mean, photos != nil); err != nil {
			return err
		}
	}
	var own []coco.Result
	for _, r := range captions[0].results[x.bridges[0].Name] {
		if len(refs[r.ImageID]) > 0 {
			own = append(own, coco.Result{ImageID: r.ImageID, Caption: refs[r.ImageID][0]})
		}
	}
	r, err := claimsOf(ctx, own, refs, photos)
	if err != nil {
		return err
	}
	t.References, err = x.claims(ctx, r, photos != nil)
	return err
}

// claims returns the scores of a result of claimsOf, with their intervals.
func (x *Experiment) claims(ctx context.Context, r *eval.Result, known bool) (*report.Claims, error) {
	seed := uint64(x.Config.Seed)
	shares, err := r.Shares(ctx, seed)
	if err != nil {
		return nil, err
	}
	c := &report.Claims{Repetition: shares[eval.RepeatedBigram], RepeatedWord: shares[eval.RepeatedWord]}
	if known {
		c.Truth, err = truth.Of(ctx, r, seed)
	}
	return c, err
}

// claimsOf scores captions by themselves, and by the photos if they are known.
func claimsOf(ctx context.Context, results []coco.Result, refs map[coco.ID][]string, photos map[coco.ID]world.Photo) (*eval.Result, error) {
	items, err := itemsOf(results, refs)
	if err != nil {
		return nil, err
	}
	metrics := []eval.Metric{eval.Repetition{}}
	if photos != nil {
		m, err := truth.Metric(photos, items)
		if err != nil {
			return nil, err
		}
		metrics = append(metrics, m)
	}
	for i := range items {
		items[i].References = items[i].References[:1] // no metric reads them
	}
	return eval.Evaluate(ctx, items, eval.Options{Metrics: metrics})
}
