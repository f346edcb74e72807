package experiment

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"cyclecap/data/features"
	"cyclecap/nets/clip"
	"cyclecap/pipeline"
	"cyclecap/train"
)

// featureSets are the features of all photos and captions.
type featureSets struct {
	// results are hashes of the features, the inputs of other stages.
	results                 struct{ trainImages, trainTexts, valImages, valTexts string }
	width                   int
	trainImages, trainTexts train.Features
	valImages, valTexts     train.Features
	// The id of each row of images, and the row of each id. Unreadable photos have no
	// row.
	trainImageIDs, valImageIDs []int64
	trainImageRow, valImageRow map[int64]int
	skipped                    []features.Skip
	// The rows that bridges may use; nil means all.
	imageRows, textRows []int32
}

// unpaired returns the features of the training set as two unpaired sets.
func (f *featureSets) unpaired() (images, texts train.Features) {
	return subset(f.trainImages, f.imageRows), subset(f.trainTexts, f.textRows)
}

// unpairedInputs are hashes of the two sets.
func (f *featureSets) unpairedInputs() []string {
	return []string{f.results.trainImages, hashOf(f.imageRows), f.results.trainTexts, hashOf(f.textRows)}
}

// hashOf returns a hash of rows or ids; nil is not the same as none.
func hashOf[T int32 | int64](list []T) string {
	if list == nil {
		return "all"
	}
	h := sha256.New()
	for _, v := range list {
		binary.Write(h, binary.LittleEndian, v)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// batch is the number of photos or captions to encode at once.
const batch = 64

// features computes the features of all photos and captions, or opens existing ones.
func (x *Experiment) features(ctx context.Context, world *stage, clipModel *model) (*featureSets, error) {
	var err error
	if x.data == nil {
		if x.data, err = x.loadData(); err != nil {
			return nil, err
		}
	}
	for _, n := range x.data.notes {
		x.UI.Say("%s", n)
	}
	f := &featureSets{}
	enc := &encoder{x: x, model: clipModel}
	defer enc.close()
	var unfinished error // in a dry run
	r := &f.results
	for _, s := range []struct {
		name   string
		part   part
		to     *train.Features
		ids    *[]int64 // ids of photos; nil for texts
		result *string
	}{
		{"val-images", x.data.val, &f.valImages, &f.valImageIDs, &r.valImages},
		{"val-texts", x.data.val, &f.valTexts, nil, &r.valTexts},
		{"train-images", x.data.train, &f.trainImages, &f.trainImageIDs, &r.trainImages},
		{"train-texts", x.data.train, &f.trainTexts, nil, &r.trainTexts},
	} {
		photos := s.ids != nil
		stored := photos && s.part.stored != nil
		var inputs string
		switch {
		case stored:
			inputs, err = x.hash(s.part.stored.Path)
		case photos:
			inputs, err = x.photoHash(ctx, s.name, s.part)
		default:
			inputs = features.Hash(s.part.texts...)
		}
		if errors.Is(err, errUnfinished) {
			unfinished = err
			continue
		}
		if err != nil {
			return nil, err
		}
		st := &stage{name: "features", dir: filepath.Join("features", s.name), keeps: true, shared: !stored, inputs: []string{clipModel.id, inputs}}
		st.do = func(ctx context.Context, dir string) (err error) {
			switch {
			case stored:
				err = copyStored(ctx, dir, s.part, clipModel.id, inputs, x.Config.Data.MaxBad, x.UI.Say)
			case photos:
				err = enc.images(ctx, dir, x.title(st)+" photos", s.part.photos, inputs)
			default:
				err = enc.texts(ctx, dir, x.title(st)+" captions", s.part.texts, inputs)
			}
			if x.Group.Rank() > 0 {
				return err
			}
			if set, failed := features.Open(dir); err == nil && failed == nil {
				st.outcome = fmt.Sprintf("%d features, %d skipped", set.Len(), len(set.Skipped))
				set.Close()
			}
			return err
		}
		if err := x.run(ctx, st); errors.Is(err, errUnfinished) {
			unfinished = err
			continue
		} else if err != nil {
			return nil, err
		}
		set, err := features.Open(x.folder(st))
		if err != nil {
			return nil, err
		}
		if share, n := x.Config.Data.MaxBad, set.Spec.Count; float64(len(set.Skipped)) > share*float64(n) {
			return nil, tooBad(s.name, set.Skipped, n, share)
		}
		f.skipped = append(f.skipped, set.Skipped...)
		*s.to = set
		if photos {
			*s.ids = set.IDs()
		}
		if w := set.Width(); f.width == 0 {
			f.width = w
		} else if w != f.width {
			return nil, x.sameWidth(f.width)
		}
		*s.result = st.result
		if x.Config.Train.Decoder.NormalizePrefix {
			*s.to = normalized{set}
		}
	}
	if unfinished != nil {
		return nil, unfinished
	}
	f.trainImageRow, f.valImageRow = rowsByID(f.trainImageIDs), rowsByID(f.valImageIDs)
	x.split(f)
	return f, x.checkStored(f, clipModel.path)
}

// checkStored returns an error if the features that come with the training set were
// computed by another CLIP. Their file does not name the CLIP, and those of another one may
// have the same width.
func (x *Experiment) checkStored(f *featureSets, clipPath string) error {
	p := x.data.train
	if p.stored == nil {
		return nil
	}
	var images, texts []int32
	seen := map[int64]bool{}
	for i, id := range p.textImage {
		if row, ok := f.trainImageRow[id]; ok && !seen[id] && len(images) < 256 {
			seen[id] = true
			images, texts = append(images, int32(row)), append(texts, int32(i))
		}
	}
	if len(images) < 16 {
		return nil // too few for the test
	}
	score, err := alignment(f.trainImages, f.trainTexts, images, texts)
	if err != nil {
		return err
	}
	if !(score > 3) {
		return fmt.Errorf("%s: its features do not come from the CLIP %s: captions are no closer to their own photos than to others (t = %.1f, %d pairs); set clip.weights to the CLIP that computed them",
			p.stored.Path, clipPath, score, len(images))
	}
	return nil
}

// alignment measures how much closer texts are to their own images than to the others, as
// the t statistic of the differences of their cosines. It is about 20 or more for features
// of the same CLIP, and about 0 for features of two CLIPs.
func alignment(images, texts train.Features, imageRows, textRows []int32) (float64, error) {
	n, w := len(imageRows), images.Width()
	a, b := make([]float32, n*w), make([]float32, n*w)
	if err := images.Read(imageRows, a); err != nil {
		return 0, err
	}
	if err := texts.Read(textRows, b); err != nil {
		return 0, err
	}
	var sum, squares float64
	for i := range n {
		own, all := 0., 0.
		for k := range n {
			c := cosine(b[i*w:(i+1)*w], a[k*w:(k+1)*w])
			all += c
			if k == i {
				own = c
			}
		}
		d := own - (all-own)/float64(n-1)
		sum += d
		squares += d * d
	}
	m := sum / float64(n)
	deviation := math.Sqrt((squares - float64(n)*m*m) / float64(n-1))
	return m / (deviation / math.Sqrt(float64(n))), nil
}

func cosine(a, b []float32) float64 {
	var ab, aa, bb float64
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		ab, aa, bb = ab+x*y, aa+x*x, bb+y*y
	}
	return ab / math.Sqrt(aa*bb)
}

func rowsByID(ids []int64) map[int64]int {
	rows := make(map[int64]int, len(ids))
	for i, id := range ids {
		rows[id] = i
	}
	return rows
}

// copyStored writes the features that come with the training set to dir, in the form of
// computed features. It skips those that are not finite or have length 0.
func copyStored(ctx context.Context, dir string, p part, model, inputs string, maxBad float64, say func(string, ...any)) error {
	f := p.stored
	w, err := features.Create(dir, features.Spec{Kind: "images", Model: model, Process: "ClipCap's features, " + f.DType.String(),
		Batch: 1, Width: f.Width, Inputs: inputs, Count: len(p.photos)})
	if err != nil {
		return err
	}
	defer w.Keep()
	bad := slices.Clone(w.Skipped())
	for b, err := range f.Blocks(ctx, p.rows, w.Done()) {
		if err != nil {
			return err
		}
		var ids []int64
		var skips []features.Skip
		rows := b.Values[:0]
		for i := range len(b.Values) / f.Width {
			at, row := b.First+i, b.Values[i*f.Width:(i+1)*f.Width]
			id := p.photos[at].id
			// parse_conceptual.py leaves rows of zeros for photos that it could not read.
			if err := features.Check(row, true); err != nil {
				name := fmt.Sprintf("row %d of %s", p.rows[at], f.Path)
				skips = append(skips, features.Skip{ID: id, Name: name, Error: fmt.Sprintf("%s, the feature of image id %s: %v", name, p.id(id), err)})
				continue
			}
			ids, rows = append(ids, id), append(rows, row...)
		}
		bad = append(bad, skips...)
		if float64(len(bad)) > maxBad*float64(len(p.photos)) {
			return tooBad("features", bad, len(p.photos), maxBad)
		}
		if err := w.Add(ctx, ids, rows, skips); err != nil {
			return err
		}
	}
	if len(bad) > 0 {
		say("skipped %d of %d features: %s", len(bad), len(p.photos), examples(bad))
	}
	return w.Close(ctx)
}

// tooBad returns the error for more bad inputs than data.max_bad allows.
func tooBad(what string, bad []features.Skip, total int, maxBad float64) error {
	return fmt.Errorf("cannot use %d of %d %s so far, which is more than data.max_bad = %g allows: %s", len(bad), total, what, maxBad, examples(bad))
}

// encoder is a CLIP that is loaded on first use.
type encoder struct {
	x     *Experiment
	model *model
	clip  *pipeline.CLIP
}

func (e *encoder) load() (err error) {
	if e.clip == nil {
		if e.clip, err = pipeline.LoadCLIP(e.model.path, e.model.config, clip.Both, pipeline.Options{Device: e.x.device}); err != nil {
			return err
		}
		for _, n := range e.clip.Notes {
			e.x.UI.Say("note: %s", n)
		}
	}
	return nil
}

func (e *encoder) close() {
	if e.clip != nil {
		e.clip.Close()
	}
}

// encoded are the features of a batch of inputs.
type encoded struct {
	IDs   []int64
	Rows  []float32
	Skips []features.Skip
	Count int // of inputs
}

// writer returns where rank 0 writes features, and nil in other processes.
func (e *encoder) writer(dir string, s features.Spec) (*features.Writer, int, error) {
	if e.x.Group.Rank() > 0 {
		return nil, 0, nil
	}
	w, err := features.Create(dir, s)
	if err != nil {
		return nil, 0, err
	}
	return w, w.Done(), nil
}

func (e *encoder) images(ctx context.Context, dir, what string, photos []photoFile, inputs string) error {
	if err := e.load(); err != nil {
		return err
	}
	w, done, err := e.writer(dir, features.Spec{Kind: "images", Model: e.model.id, Process: fmt.Sprintf("CLIP %d pixels, f32", e.clip.Model.ImageSize()),
		Batch: batch, Width: e.clip.Width(), Inputs: inputs, Count: len(photos)})
	if err != nil {
		return err
	}
	var bad []features.Skip
	if w != nil {
		defer w.Keep() // keeps what was computed before an interruption
		bad = slices.Clone(w.Skipped())
	}
	bar := e.x.UI.Bar(what, done, len(photos))
	defer bar.Finish()
	d, own, err := divided(e.x, done, len(photos), batch, func(b encoded) error {
		bad = append(bad, b.Skips...)
		if share := e.x.Config.Data.MaxBad; float64(len(bad)) > share*float64(len(photos)) {
			return tooBad("photos", bad, len(photos), share)
		}
		if err := w.Add(ctx, b.IDs, b.Rows, b.Skips); err != nil {
			return err
		}
		done += b.Count
		bar.Set(done, "")
		return nil
	})
	if err != nil {
		return err
	}
	paths := make([]string, len(own))
	for k, i := range own {
		paths[k] = photos[i].path
	}
	err = d.run(func() error {
		for b, err := range e.clip.Photos(ctx, paths, batch) {
			if err != nil {
				return err
			}
			of := encoded{Rows: b.Rows, Count: len(b.Index) + len(b.Failed)}
			for _, k := range b.Index {
				of.IDs = append(of.IDs, photos[own[k]].id)
			}
			for _, f := range b.Failed {
				of.Skips = append(of.Skips, features.Skip{ID: photos[own[f.Index]].id, Name: f.Path, Error: strings.TrimPrefix(f.Error(), "photo: ")})
			}
			if err := d.give(of); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || w == nil {
		return err
	}
	if len(bad) > 0 {
		e.x.UI.Say("skipped %d of %d photos: %s", len(bad), len(photos), examples(bad))
	}
	return w.Close(ctx)
}

// examples lists the errors of the first skipped inputs.
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

func (e *encoder) texts(ctx context.Context, dir, what string, texts []string, inputs string) error {
	if err := e.load(); err != nil {
		return err
	}
	w, done, err := e.writer(dir, features.Spec{Kind: "texts", Model: e.model.id, Process: fmt.Sprintf("%d tokens, longer texts cut, f32", e.clip.Model.ContextLength()),
		Batch: batch, Width: e.clip.Width(), Inputs: inputs, Count: len(texts)})
	if err != nil {
		return err
	}
	if w != nil {
		defer w.Keep()
	}
	bar := e.x.UI.Bar(what, done, len(texts))
	defer bar.Finish()
	d, own, err := divided(e.x, done, len(texts), batch, func(b encoded) error {
		if err := w.Add(ctx, b.IDs, b.Rows, nil); err != nil {
			return err
		}
		done += b.Count
		bar.Set(done, "")
		return nil
	})
	if err != nil {
		return err
	}
	list := make([]string, len(own))
	for k, i := range own {
		list[k] = texts[i]
	}
	err = d.run(func() error {
		for b, err := range e.clip.Texts(ctx, list, batch, true) {
			if err != nil {
				return err
			}
			of := encoded{Rows: b.Rows, Count: len(b.Index)}
			for _, k := range b.Index {
				of.IDs = append(of.IDs, int64(own[k]))
			}
			if err := d.give(of); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || w == nil {
		return err
	}
	return w.Close(ctx)
}

// normalized is features scaled to length 1, the input of a decoder with normalize_prefix.
type normalized struct{ train.Features }

func (n normalized) Read(rows []int32, dst []float32) error {
	if err := n.Features.Read(rows, dst); err != nil {
		return err
	}
	err := pipeline.Normalize(dst[:len(rows)*n.Width()], n.Width())
	if row := (*pipeline.RowError)(nil); errors.As(err, &row) {
		return fmt.Errorf("row %d of the features cannot be scaled to length 1 (train.decoder.normalize_prefix): %w", rows[row.Row], row.Err)
	}
	return err
}

// some is a subset of features.
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
