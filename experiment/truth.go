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
// often captions repeat themselves: means over worlds and seeds, with intervals.
func (x *Experiment) scoreClaims(ctx context.Context, captions []*seedCaptions, t *scoreTable) (err error) {
	photos := map[*Experiment]map[coco.ID]world.Photo{} // in each world
	for _, c := range captions {
		if _, known := photos[c.in]; !known {
			if photos[c.in], err = c.in.shown(); err != nil {
				return err
			}
		}
	}
	t.Claims = map[string]*report.Claims{}
	for _, b := range x.bridges {
		if t.Claims[b.Name], err = x.claims(ctx, captions, photos, func(c *seedCaptions) []coco.Result { return c.results[b.Name] }); err != nil {
			return fmt.Errorf("%s: %w", b.Name, err)
		}
	}
	t.References, err = x.claims(ctx, captions, photos, func(c *seedCaptions) (own []coco.Result) {
		refs := c.in.data.val.references()
		for _, r := range c.results[x.bridges[0].Name] {
			if len(refs[r.ImageID]) > 0 {
				own = append(own, coco.Result{ImageID: r.ImageID, Caption: refs[r.ImageID][0]})
			}
		}
		return own
	})
	return err
}

// claims scores the captions that of selects in every world and with every seed.
func (x *Experiment) claims(ctx context.Context, captions []*seedCaptions, photos map[*Experiment]map[coco.ID]world.Photo, of func(*seedCaptions) []coco.Result) (*report.Claims, error) {
	var contents *truth.Contents // in every world
	known := true
	runs, err := runsOf(captions, func(c *seedCaptions) (*eval.Result, error) {
		shown := photos[c.in]
		known = known && shown != nil
		items, err := itemsOf(of(c), c.in.data.val.references())
		if err != nil {
			return nil, err
		}
		here := truth.ContentsOf(shown, items)
		if contents != nil {
			here = contents.And(here)
		}
		contents = &here
		return claimsOf(x.steady(ctx), items, shown)
	})
	if err != nil {
		return nil, err
	}
	shares, err := runs.Shares(ctx, x.bootstrap())
	if err != nil {
		return nil, err
	}
	c := &report.Claims{Repetition: shares[eval.RepeatedBigram], RepeatedWord: shares[eval.RepeatedWord]}
	if known {
		c.Truth = truth.Of(shares, *contents)
	}
	return c, nil
}

// claimsOf scores captions by themselves, and by the photos if they are known.
func claimsOf(ctx context.Context, items []eval.Item, photos map[coco.ID]world.Photo) (*eval.Result, error) {
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
