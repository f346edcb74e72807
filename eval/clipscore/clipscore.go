// Package clipscore computes CLIPScore and RefCLIPScore (Hessel et al. 2021,
// "CLIPScore: A Reference-free Evaluation Metric for Image Captioning") with a
// CLIP that is loaded already. It needs libtorch, which package eval does not.
//
// CLIPScore of a caption c of a photo v is 2.5 max(cos(c, v), 0), and
// RefCLIPScore the harmonic mean of that and the largest max(cos(c, r), 0) over
// the references r. Every text is read behind "A photo depicts ", and one that
// is too long for CLIP is cut, as in the authors' code.
package clipscore

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"

	"cyclecap/data/photo"
	"cyclecap/data/tokenizer"
	"cyclecap/eval"
	"cyclecap/nets/clip"
	"cyclecap/torch"
)

const (
	weight = 2.5
	prompt = "A photo depicts "
	batch  = 32
)

// Input is what the scores of an image are made of, as people wrote it.
type Input struct {
	Photo      string // file
	Candidate  string
	References []string
}

// Metric is the two scores for eval.Evaluate, of the images that inputs has by
// id. It must be used on the thread that computes with m; progress, which may
// be nil, is told how many images are done.
func Metric(m *clip.Model, inputs map[int64]Input, progress func(done, total int)) eval.Metric {
	if progress == nil {
		progress = func(int, int) {}
	}
	return metric{m, inputs, progress}
}

type metric struct {
	clip     *clip.Model
	inputs   map[int64]Input
	progress func(done, total int)
}

// Names implements eval.Metric.
func (metric) Names() []string { return []string{"CLIPScore", "RefCLIPScore"} }

// Score implements eval.Metric.
func (m metric) Score(ctx context.Context, set *eval.Set) (*eval.Scores, error) {
	if have, want := m.clip.Config.Vocab, int64(tokenizer.CLIP().VocabSize()); have != want {
		return nil, fmt.Errorf("clipscore: this CLIP has %d tokens and CLIP's vocabulary %d: captions need another tokenizer", have, want)
	}
	inputs := make([]Input, len(set.Images))
	paths := make([]string, len(set.Images))
	for i, image := range set.Images {
		in, ok := m.inputs[image.ImageID]
		if !ok {
			return nil, fmt.Errorf("clipscore: image %d has no photo", image.ImageID)
		}
		inputs[i], paths[i] = in, in.Photo
	}
	s := &eval.Scores{Corpus: make([]float64, 2), Images: make([][]float64, len(inputs))}
	size := m.clip.Config.ImageSize
	for b, err := range photo.Load(ctx, paths, photo.CLIP(int(size)), max(1, runtime.NumCPU()/2), batch) {
		if err != nil {
			return nil, err
		}
		if len(b.Failed) > 0 {
			return nil, fmt.Errorf("clipscore: %s", strings.TrimPrefix(b.Failed[0].Error(), "photo: "))
		}
		images, err := rows(func() torch.Tensor {
			return m.clip.EncodeImage(torch.FromSlice(b.Pixels, int64(len(b.Index)), 3, size, size))
		})
		if err != nil {
			return nil, err
		}
		var texts []string
		for _, i := range b.Index {
			texts = append(append(texts, inputs[i].Candidate), inputs[i].References...)
		}
		features, err := m.texts(texts)
		if err != nil {
			return nil, err
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

// texts encodes captions, at length 1.
func (m metric) texts(list []string) (out [][]float32, err error) {
	length := int(m.clip.Config.Context)
	for part := range slices.Chunk(list, 8*batch) {
		flat := make([]int64, 0, len(part)*length)
		for _, text := range part {
			ids, err := tokenizer.CLIP().Context(prompt+text, length, true)
			if err != nil {
				return nil, err
			}
			for _, id := range ids {
				flat = append(flat, int64(id))
			}
		}
		r, err := rows(func() torch.Tensor { return m.clip.EncodeText(torch.FromSlice(flat, int64(len(part)), int64(length))) })
		if err != nil {
			return nil, err
		}
		out = append(out, r...)
	}
	return out, nil
}

// rows gives the features that f computes, at length 1.
func rows(f func() torch.Tensor) (out [][]float32, err error) {
	err = torch.Scope(func() error {
		torch.InferenceMode(func() {
			x := f().To(torch.WithDType(torch.Float32))
			x = x.Div(x.Square().SumDim([]int64{1}, torch.WithKeepdim(true)).Sqrt())
			flat, width := torch.ToSlice[float32](x), int(x.Size(1))
			for row := range slices.Chunk(flat, width) {
				out = append(out, row)
			}
		})
		return nil
	})
	return out, err
}

func dot(a, b []float32) (s float64) {
	for i := range a {
		s += float64(a[i]) * float64(b[i])
	}
	return s
}
