package pipeline

import (
	"context"
	"fmt"

	"cyclecap/nets/clipcap"
)

// A Batcher decodes captions that join and leave between two tokens, for a server: see
// [clipcap.Batcher], whose Room, Len, Remove and Close it has. Like the models, it
// computes for one goroutine at a time.
type Batcher struct {
	*clipcap.Batcher
	decoder *Decoder
}

// Finished is a caption that has ended, or the error that ended it, such as a
// *NotFiniteError. The other captions of the Batcher are not concerned by the error.
type Finished struct {
	ID int // that Add returned
	Caption
	Err error
}

// NewBatcher returns a Batcher for at most most captions at a time. The method must be
// greedy, top-p or sample. Close it before the decoder.
func (d *Decoder) NewBatcher(o clipcap.Options, most int) (*Batcher, error) {
	b, err := d.Model.NewBatcher(o, most)
	if err != nil {
		return nil, err
	}
	return &Batcher{b, d}, nil
}

// Add adds captions of features, rows [n, width] as CLIP or Captioner.Textualise returns
// them, with options for each. It returns their ids, which count from 0 in the order in
// which captions are added.
func (b *Batcher) Add(rows []float32, options []clipcap.RowOptions) (ids []int, err error) {
	width := b.decoder.FeatureWidth()
	if len(rows) != len(options)*width {
		return nil, fmt.Errorf("%d numbers are not the features of %d captions: the decoder expects features of width %d", len(rows), len(options), width)
	}
	if len(options) == 0 {
		return nil, nil
	}
	err = infer(func() (err error) {
		ids, err = b.Batcher.Add(b.decoder.scaled(b.decoder.on.tensor(rows, width)), options)
		return err
	})
	return ids, err
}

// Step chooses a token for every caption, and returns those that have ended. When ctx is
// done, it returns ctx's error instead, and the captions can still be continued. After
// another error, the Batcher can only be closed.
func (b *Batcher) Step(ctx context.Context) ([]Finished, error) {
	ended, err := b.Batcher.Step(ctx)
	if err != nil {
		return nil, err
	}
	var out []Finished
	for _, e := range ended {
		f := Finished{ID: e.ID}
		f.Caption, f.Err = b.decoder.caption(e.ID, e.Caption)
		out = append(out, f)
	}
	return out, nil
}
