// Package clipscore computes CLIPScore and RefCLIPScore (Hessel et al. 2021,
// "CLIPScore: A Reference-free Evaluation Metric for Image Captioning") with a
// CLIP that the caller has loaded. Unlike package eval, it needs libtorch.
//
// The CLIPScore of a caption c of a photo v is 2.5 max(cos(c, v), 0). RefCLIPScore
// is the harmonic mean of that and the largest max(cos(c, r), 0) over the references
// r. As in the authors' code, every text is prefixed with "A photo depicts ", and
// cut if it is too long for CLIP.
package clipscore

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"cyclecap/data/coco"
	"cyclecap/eval"
	"cyclecap/pipeline"
)

const (
	weight = 2.5
	prompt = "A photo depicts "
	batch  = 32
)

// Input is what the scores of an image are computed from; its texts are not
// tokenised.
type Input struct {
	Photo      string // path of the file
	Candidate  string
	References []string
}

// Metric returns a metric for eval.Evaluate that computes both scores. inputs is
// keyed by image id. The metric must be used on the thread that computes with m. It
// calls progress, if that is not nil, with the number of images done.
func Metric(m *pipeline.CLIP, inputs map[coco.ID]Input, progress func(done, total int)) eval.Metric {
	if progress == nil {
		progress = func(int, int) {}
	}
	return metric{m, inputs, progress}
}

type metric struct {
	clip     *pipeline.CLIP
	inputs   map[coco.ID]Input
	progress func(done, total int)
}

// Names implements eval.Metric.
func (metric) Names() []string { return []string{"CLIPScore", "RefCLIPScore"} }

// Score implements eval.Metric.
func (m metric) Score(ctx context.Context, set *eval.Set) (*eval.Scores, error) {
	if err := m.clip.CheckTokenizer(); err != nil {
		return nil, fmt.Errorf("clipscore: %w", err)
	}
	inputs := make([]Input, len(set.Images))
	paths := make([]string, len(set.Images))
	for i, image := range set.Images {
		in, ok := m.inputs[image.ImageID]
		if !ok {
			return nil, fmt.Errorf("clipscore: image %s has no photo", image.ImageID)
		}
		inputs[i], paths[i] = in, in.Photo
	}
	s := &eval.Scores{Corpus: make([]float64, 2), Images: make([][]float64, len(inputs))}
	for b, err := range m.clip.Photos(ctx, paths, batch) {
		if err != nil {
			return nil, err
		}
		if len(b.Failed) > 0 {
			return nil, fmt.Errorf("clipscore: %s", strings.TrimPrefix(b.Failed[0].Error(), "photo: "))
		}
		images, err := m.normalized(b.Rows)
		if err != nil {
			return nil, err
		}
		var texts []string
		for _, i := range b.Index {
			texts = append(texts, prompt+inputs[i].Candidate)
			for _, r := range inputs[i].References {
				texts = append(texts, prompt+r)
			}
		}
		var features [][]float32
		for t, err := range m.clip.Texts(ctx, texts, 8*batch, true) {
			if err != nil {
				return nil, err
			}
			rows, err := m.normalized(t.Rows)
			if err != nil {
				return nil, err
			}
			features = append(features, rows...)
		}
		for k, i := range b.Index {
			refs := len(inputs[i].References)
			own := features[0]
			score := weight * max(dot(own, images[k]), 0)
			best := math.Inf(-1)
			for _, r := range features[1 : 1+refs] {
				best = max(best, dot(own, r))
			}
			features = features[1+refs:]
			s.Images[i] = []float64{score, harmonic(score, max(best, 0))}
		}
		m.progress(b.Index[len(b.Index)-1]+1, len(inputs))
	}
	for _, v := range s.Images {
		for k := range v {
			s.Corpus[k] += v[k] / float64(len(s.Images))
		}
	}
	return s, nil
}

func harmonic(a, b float64) float64 {
	if a+b == 0 {
		return 0
	}
	return 2 * a * b / (a + b)
}

// normalized returns rows as one slice per feature, scaled to length 1.
func (m metric) normalized(rows []float32) ([][]float32, error) {
	if err := pipeline.Normalize(rows, m.clip.Width()); err != nil {
		return nil, err
	}
	return slices.Collect(slices.Chunk(rows, m.clip.Width())), nil
}

func dot(a, b []float32) (s float64) {
	for i := range a {
		s += float64(a[i]) * float64(b[i])
	}
	return s
}
