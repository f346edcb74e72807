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
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strings"

	"cyclecap/data/coco"
	"cyclecap/eval"
	"cyclecap/pipeline"
	"cyclecap/torch/distributed"
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
//
// The processes of g, which is nil for one alone, must all score the same set. Batch k of
// 32 images belongs to rank k mod N, and all get all scores, with the bits of one process.
func Metric(m *pipeline.CLIP, inputs map[coco.ID]Input, g *distributed.Group, progress func(done, total int)) eval.Metric {
	if progress == nil {
		progress = func(int, int) {}
	}
	return metric{m, inputs, g, progress}
}

type metric struct {
	clip     *pipeline.CLIP
	inputs   map[coco.ID]Input
	group    *distributed.Group
	progress func(done, total int)
}

// Names implements eval.Metric.
func (metric) Names() []string { return []string{"CLIPScore", "RefCLIPScore"} }

// A share is what a process gives to the others.
type share struct {
	Inputs string      // a hash of the whole set
	Scores [][]float64 // of the images in the batches of the process
	// Failed is the first image of a batch that cannot be scored, and Why the error;
	// "" if there is none.
	Failed int
	Why    string
}

// Score implements eval.Metric.
func (m metric) Score(ctx context.Context, set *eval.Set) (*eval.Scores, error) {
	if err := m.clip.CheckTokenizer(); err != nil {
		return nil, fmt.Errorf("clipscore: %w", err)
	}
	inputs := make([]Input, len(set.Images))
	for i, image := range set.Images {
		in, ok := m.inputs[image.ImageID]
		if !ok {
			return nil, fmt.Errorf("clipscore: image %s has no photo", image.ImageID)
		}
		inputs[i] = in
	}
	rank, size := m.group.Rank(), m.group.Size()
	own, err := m.share(ctx, inputs, eval.BlocksOf(len(inputs), batch, rank, size))
	if err != nil {
		return nil, err
	}
	all, err := distributed.Gather(m.group, own)
	if err != nil {
		return nil, err
	}
	failed := own
	s := &eval.Scores{Corpus: make([]float64, 2), Images: make([][]float64, len(inputs))}
	for r, of := range all {
		if of.Inputs != all[0].Inputs {
			return nil, fmt.Errorf("clipscore: ranks 0 and %d have different captions or photos: all need the same files", r)
		}
		if of.Why != "" && (failed.Why == "" || of.Failed < failed.Failed) {
			failed = of
		}
		for k, i := range eval.BlocksOf(len(inputs), batch, r, size) {
			if k < len(of.Scores) {
				s.Images[i] = of.Scores[k]
			}
		}
	}
	if failed.Why != "" {
		return nil, fmt.Errorf("clipscore: %s", failed.Why)
	}
	for _, v := range s.Images {
		for k := range v {
			s.Corpus[k] += v[k] / float64(len(s.Images))
		}
	}
	return s, nil
}

// share scores the images own of inputs.
func (m metric) share(ctx context.Context, inputs []Input, own []int) (share, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%q", inputs)
	s := share{Inputs: hex.EncodeToString(h.Sum(nil))}
	paths := make([]string, len(own))
	for k, i := range own {
		paths[k] = inputs[i].Photo
	}
	for b, err := range m.clip.Photos(ctx, paths, batch) {
		if err != nil {
			return s, err
		}
		if len(b.Failed) > 0 {
			s.Failed, s.Why = own[b.Failed[0].Index], strings.TrimPrefix(b.Failed[0].Error(), "photo: ")
			return s, nil
		}
		images, err := m.normalized(b.Rows)
		if err != nil {
			return s, err
		}
		var texts []string
		for _, k := range b.Index {
			in := inputs[own[k]]
			texts = append(texts, prompt+in.Candidate)
			for _, r := range in.References {
				texts = append(texts, prompt+r)
			}
		}
		var features [][]float32
		for t, err := range m.clip.Texts(ctx, texts, 8*batch, true) {
			if err != nil {
				return s, err
			}
			rows, err := m.normalized(t.Rows)
			if err != nil {
				return s, err
			}
			features = append(features, rows...)
		}
		for at, k := range b.Index {
			refs := len(inputs[own[k]].References)
			candidate := features[0]
			score := weight * max(dot(candidate, images[at]), 0)
			best := math.Inf(-1)
			for _, r := range features[1 : 1+refs] {
				best = max(best, dot(candidate, r))
			}
			features = features[1+refs:]
			s.Scores = append(s.Scores, []float64{score, harmonic(score, max(best, 0))})
		}
		m.progress(own[b.Index[len(b.Index)-1]]+1, len(inputs))
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
