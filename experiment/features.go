package experiment

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"cyclecap/data/features"
	"cyclecap/data/photo"
	"cyclecap/data/tokenizer"
	"cyclecap/nets/clip"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/train"
	"cyclecap/weights"
)

// featureSets are the features of all photos and captions.
type featureSets struct {
	key                     string
	width                   int
	trainImages, trainTexts train.Features
	valImages, valTexts     train.Features
	// Ids of the rows of images, and the rows by id: photos that could not be
	// read have none.
	trainImageIDs, valImageIDs []int64
	trainImageRow, valImageRow map[int64]int
	skipped                    []features.Skip
	// Rows that the bridges may learn from; nil: all.
	imageRows, textRows []int32
}

// unpaired gives the training set's features as two sets.
func (f *featureSets) unpaired() (images, texts train.Features) {
	return subset(f.trainImages, f.imageRows), subset(f.trainTexts, f.textRows)
}

// batch is how many photos or captions are encoded at once.
const batch = 64

// features computes the features of all photos and captions, or maps those that
// are there.
func (x *Experiment) features(ctx context.Context, world *stage, clipModel *model) (*featureSets, error) {
	var err error
	if x.data, err = x.loadData(); err != nil {
		return nil, err
	}
	for _, n := range x.data.notes {
		x.UI.Say("%s", n)
	}
	f := &featureSets{}
	enc := &encoder{x: x, model: clipModel}
	defer enc.close()
	var keys []string
	for _, s := range []struct {
		name string
		part part
		to   *train.Features
		ids  *[]int64 // of photos; nil for texts
	}{
		{"val-images", x.data.val, &f.valImages, &f.valImageIDs},
		{"val-texts", x.data.val, &f.valTexts, nil},
		{"train-images", x.data.train, &f.trainImages, &f.trainImageIDs},
		{"train-texts", x.data.train, &f.trainTexts, nil},
	} {
		photos := s.ids != nil
		stored := photos && s.part.stored != nil
		var inputs string
		switch {
		case stored:
			inputs, err = hashOf(s.part.stored.Path)
		case photos:
			inputs, err = identity(s.part.photos)
		default:
			inputs = features.Hash(s.part.texts...)
		}
		if err != nil {
			return nil, err
		}
		st := &stage{name: "features", dir: filepath.Join("features", s.name), keeps: true,
			inputs: []any{clipModel.id, inputs, x.Config.Data.MaxBad}}
		st.do = func(ctx context.Context, dir string) error {
			switch {
			case stored:
				return copyStored(ctx, dir, s.part, inputs)
			case photos:
				return enc.images(ctx, dir, s.part.photos, inputs)
			}
			return enc.texts(ctx, dir, s.part.texts, inputs)
		}
		if err := x.run(ctx, st); err != nil {
			return nil, err
		}
		set, err := features.Open(filepath.Join(x.Dir, st.dir))
		if err != nil {
			return nil, err
		}
		f.skipped = append(f.skipped, set.Skipped...)
		*s.to = set
		if photos {
			*s.ids = set.IDs()
		}
		if w := set.Width(); f.width == 0 {
			f.width = w
		} else if w != f.width {
			return nil, fmt.Errorf("%s: its features are of width %d, those of the CLIP %d: they must be of one CLIP", s.part.stored.Path, w, f.width)
		}
		keys = append(keys, st.key())
		if x.Config.Train.Decoder.NormalizePrefix {
			*s.to = normalized{set}
		}
	}
	if x.Config.Train.Decoder.NormalizePrefix {
		keys = append(keys, "length 1") // which decoders, CycleGAN and bridges see
	}
	f.key = strings.Join(keys, " ")
	f.trainImageRow, f.valImageRow = rowsByID(f.trainImageIDs), rowsByID(f.valImageIDs)
	x.split(f)
	return f, nil
}

func rowsByID(ids []int64) map[int64]int {
	rows := make(map[int64]int, len(ids))
	for i, id := range ids {
		rows[id] = i
	}
	return rows
}

// split gives the photos of one half and the captions of the other where the
// sets must be disjoint.
func (x *Experiment) split(f *featureSets) {
	if x.Config.Data.Pairing != "disjoint" || !x.data.paired() {
		return
	}
	rng := rand.New(rand.NewPCG(uint64(x.Config.Seed), 2))
	ofImages := map[int64]bool{}
	photos := x.data.train.photos
	for _, i := range rng.Perm(len(photos))[:len(photos)/2] {
		ofImages[photos[i].id] = true
	}
	for i, id := range f.trainImageIDs {
		if ofImages[id] {
			f.imageRows = append(f.imageRows, int32(i))
		}
	}
	for i, id := range x.data.train.textImage {
		if !ofImages[id] {
			f.textRows = append(f.textRows, int32(i))
		}
	}
}

// copyStored keeps features that came with the photos as if they had been
// computed here.
func copyStored(ctx context.Context, dir string, p part, inputs string) error {
	f := p.stored
	w, err := features.Create(dir, features.Spec{Kind: "images", Process: "read from ClipCap's file", Batch: 1, Width: f.Width, Inputs: inputs, Count: len(p.photos)})
	if err != nil {
		return err
	}
	defer w.Keep()
	row := make([]float32, f.Width)
	for i := w.Done(); i < len(p.photos); i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := f.Read(p.rows[i], row); err != nil {
			return err
		}
		if err := w.Add(ctx, []int64{p.photos[i].id}, row, nil); err != nil {
			return err
		}
	}
	return w.Close(ctx)
}

// encoder is a CLIP that is loaded when it is first needed.
type encoder struct {
	x     *Experiment
	model *model
	clip  *clip.Model
}

func (e *encoder) load() error {
	if e.clip != nil {
		return nil
	}
	sd, quick, err := weights.LoadCLIP(e.model.path)
	if err != nil {
		return err
	}
	if e.clip, err = clip.Load(sd, !quick); err != nil {
		return fmt.Errorf("%s: %w", e.model.path, err)
	}
	return torch.Scope(func() error {
		nn.To(e.clip, torch.WithDevice(e.x.device), torch.WithDType(torch.Float32))
		return nil
	})
}

func (e *encoder) close() {
	if e.clip != nil {
		closing(e.clip)
	}
}

// encode runs f without gradients and gives its rows.
func encode(f func() torch.Tensor) (rows []float32, err error) {
	err = torch.Scope(func() error {
		torch.InferenceMode(func() { rows = torch.ToSlice[float32](f()) })
		return nil
	})
	return rows, err
}

func (e *encoder) images(ctx context.Context, dir string, photos []photoFile, inputs string) error {
	if err := e.load(); err != nil {
		return err
	}
	size := e.clip.Config.ImageSize
	w, err := features.Create(dir, features.Spec{Kind: "images", Model: e.model.id, Process: fmt.Sprintf("CLIP %d pixels, f32", size),
		Batch: batch, Width: int(e.clip.Config.EmbedDim), Inputs: inputs, Count: len(photos)})
	if err != nil {
		return err
	}
	defer w.Keep() // what is computed when it is interrupted
	done := w.Done()
	rest := photos[done:]
	paths := make([]string, len(rest))
	for i, p := range rest {
		paths[i] = p.path
	}
	bar := e.x.UI.Bar("photos", done, len(photos))
	defer bar.Finish()
	bad := slices.Clone(w.Skipped())
	for b, err := range photo.Load(ctx, paths, photo.CLIP(int(size)), decoders(), batch) {
		if err != nil {
			return err
		}
		var ids []int64
		var rows []float32
		if n := int64(len(b.Index)); n > 0 {
			rows, err = encode(func() torch.Tensor {
				return e.clip.EncodeImage(torch.FromSlice(b.Pixels, n, 3, size, size).To(torch.WithDevice(e.x.device)))
			})
			if err != nil {
				return err
			}
		}
		for _, i := range b.Index {
			ids = append(ids, rest[i].id)
		}
		var skips []features.Skip
		for _, f := range b.Failed {
			skips = append(skips, features.Skip{ID: rest[f.Index].id, Name: f.Path, Error: strings.TrimPrefix(f.Error(), "photo: ")})
		}
		bad = append(bad, skips...)
		if share := e.x.Config.Data.MaxBad; float64(len(bad)) > share*float64(len(photos)) {
			return fmt.Errorf("%d of %d photos so far can't be read, which is more than data.max_bad = %g allows: %s",
				len(bad), len(photos), share, examples(bad))
		}
		if err := w.Add(ctx, ids, rows, skips); err != nil {
			return err
		}
		done += len(b.Index) + len(b.Failed)
		bar.Set(done, "")
	}
	if len(bad) > 0 {
		e.x.UI.Say("%d of %d photos can't be read and are left out: %s", len(bad), len(photos), examples(bad))
	}
	return w.Close(ctx)
}

// examples names the first of the inputs that were skipped.
func examples(bad []features.Skip) string {
	var s []string
	for i, b := range bad {
		if i == 5 {
			s = append(s, fmt.Sprintf("and %d more", len(bad)-i))
			break
		}
		s = append(s, b.Error)
	}
	return strings.Join(s, "; ")
}

func (e *encoder) texts(ctx context.Context, dir string, texts []string, inputs string) error {
	if err := e.load(); err != nil {
		return err
	}
	length := int(e.clip.Config.Context)
	w, err := features.Create(dir, features.Spec{Kind: "texts", Model: e.model.id, Process: fmt.Sprintf("%d tokens, longer texts cut, f32", length),
		Batch: batch, Width: int(e.clip.Config.EmbedDim), Inputs: inputs, Count: len(texts)})
	if err != nil {
		return err
	}
	defer w.Keep()
	tok := tokenizer.CLIP()
	bar := e.x.UI.Bar("captions", w.Done(), len(texts))
	defer bar.Finish()
	for at := w.Done(); at < len(texts); at += batch {
		if err := ctx.Err(); err != nil {
			return err
		}
		part := texts[at:min(len(texts), at+batch)]
		flat := make([]int64, 0, len(part)*length)
		ids := make([]int64, len(part))
		for i, s := range part {
			tokens, err := tok.Context(s, length, true)
			if err != nil {
				return err
			}
			for _, id := range tokens {
				flat = append(flat, int64(id))
			}
			ids[i] = int64(at + i)
		}
		rows, err := encode(func() torch.Tensor {
			return e.clip.EncodeText(torch.FromSlice(flat, int64(len(part)), int64(length)).To(torch.WithDevice(e.x.device)))
		})
		if err != nil {
			return err
		}
		if err := w.Add(ctx, ids, rows, nil); err != nil {
			return err
		}
		bar.Set(at+len(part), "")
	}
	return w.Close(ctx)
}

// decoders is how many photos are decoded at once, beside the computation.
func decoders() int { return max(1, runtime.NumCPU()/2) }

// normalized is features at length 1, by libtorch as ClipCap does it.
type normalized struct{ train.Features }

func (n normalized) Read(rows []int32, dst []float32) error {
	if err := n.Features.Read(rows, dst); err != nil {
		return err
	}
	return torch.Scope(func() error {
		dst = dst[:len(rows)*n.Width()]
		x := torch.FromSlice(dst, int64(len(rows)), int64(n.Width()))
		copy(dst, torch.ToSlice[float32](train.Normalize(x)))
		return nil
	})
}

// some is a choice of features.
type some struct {
	train.Features
	rows []int32
}

func subset(f train.Features, rows []int32) train.Features {
	if rows == nil {
		return f
	}
	return some{f, rows}
}

func (s some) Len() int { return len(s.rows) }

func (s some) Read(rows []int32, dst []float32) error {
	of := make([]int32, len(rows))
	for i, r := range rows {
		of[i] = s.rows[r]
	}
	return s.Features.Read(of, dst)
}

// hashOf identifies weights: by the contents of their files.
func hashOf(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	files := []string{path}
	if info.IsDir() {
		files = nil
		list, err := os.ReadDir(path)
		if err != nil {
			return "", err
		}
		for _, e := range list {
			if e.Type().IsRegular() {
				files = append(files, filepath.Join(path, e.Name()))
			}
		}
	}
	h := sha256.New()
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return "", err
		}
		_, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}
