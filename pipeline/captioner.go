package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"

	"cyclecap/data/photo"
	"cyclecap/nets/clip"
	"cyclecap/nets/clipcap"
	"cyclecap/torch"
	"cyclecap/weights"
)

// Files lists the weights files of a Captioner.
type Files struct {
	CLIP       string
	CLIPConfig string // a file or a name, or empty; see LoadCLIP
	Decoder    string // if it is empty, there are only features
	GPT2       string // needed when the decoder file contains only the mapper
	// Generator translates image features into text features. If it is empty,
	// there are only direct captions.
	Generator string
	// Texts says that Load reads CLIP's text encoder as well as its image encoder, if the
	// file has one.
	Texts bool
	// FS is the file system with the weights, such as an embed.FS; nil stands for
	// the disk. CLIPConfig is always on disk.
	FS fs.FS
}

// open reads the list of tensors in one of the files.
func (f Files) open(path string) (*weights.File, error) {
	if f.FS != nil {
		return weights.OpenFS(f.FS, path)
	}
	return weights.Open(path)
}

// A Captioner captions photos.
type Captioner struct {
	CLIP      *CLIP
	Decoder   *Decoder   // nil if Files has none: then there are only features
	Generator *Generator // or nil
	// Once says that Photos will be called only once. CLIP is then closed after
	// the last photo, to free memory for GPT-2.
	Once bool
}

// Load loads a Captioner. It reads only the image encoder of the CLIP unless f.Texts is set.
// Without f.Decoder it loads the CLIP alone.
func Load(f Files, o Options) (_ *Captioner, err error) {
	c := &Captioner{}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	part := clip.Image
	if f.Texts {
		part = clip.Both
	}
	if c.CLIP, err = f.loadCLIP(part, o); err != nil {
		return nil, err
	}
	if f.Decoder == "" {
		return c, nil
	}
	if c.Decoder, err = f.loadDecoder(o); err != nil {
		return nil, err
	}
	if c.Decoder.MeanRemoved {
		return nil, fmt.Errorf("%s was trained on features without their mean (C3), and the file does not have the mean of the image features; only cyclecap run can caption with it", f.Decoder)
	}
	if want, got := c.Decoder.FeatureWidth(), c.CLIP.Width(); want != got {
		return nil, misfit(f.Decoder, want, f.CLIP, got)
	}
	if f.Generator == "" {
		return c, nil
	}
	if c.Generator, err = f.loadGenerator(o); err != nil {
		return nil, err
	}
	if want, got := int(c.Generator.Model.Width()), c.CLIP.Width(); want != got {
		return nil, misfit(f.Generator, want, f.CLIP, got)
	}
	return c, nil
}

func misfit(path string, want int, clipPath string, got int) error {
	return fmt.Errorf("%s expects features of width %d, but %s has features of width %d: the files do not belong together", path, want, clipPath, got)
}

// Notes returns the notes of all models: what was assumed or changed in loading.
func (c *Captioner) Notes() []string {
	list := slices.Clone(c.CLIP.Notes)
	if c.Decoder != nil {
		list = append(list, c.Decoder.Notes...)
	}
	if c.Generator != nil {
		list = append(list, c.Generator.Notes...)
	}
	return list
}

// Close frees all weights.
func (c *Captioner) Close() {
	if c.CLIP != nil {
		c.CLIP.Close()
	}
	if c.Decoder != nil {
		c.Decoder.Close()
	}
	if c.Generator != nil {
		c.Generator.Close()
	}
}

// Captioned holds the captions of a photo. Each list has all beams of a beam search,
// best first, or the single caption of another method.
type Captioned struct {
	Direct      []Caption // from the image feature
	Textualised []Caption // from the translated feature; nil without a generator
}

// Captions captions photos, given their image features: rows [n, width], as CLIP
// returns them.
func (c *Captioner) Captions(ctx context.Context, rows []float32, o clipcap.Options) ([]Captioned, error) {
	out := make([]Captioned, len(rows)/c.Decoder.FeatureWidth())
	direct, err := c.Direct(ctx, rows, o)
	if err != nil {
		return nil, err
	}
	for i, list := range direct {
		out[i].Direct = list
	}
	if c.Generator == nil {
		return out, nil
	}
	text, err := c.Textualised(ctx, rows, o)
	for i, list := range text {
		out[i].Textualised = list
	}
	return out, err
}

// Direct captions photos from their image features: rows [n, width], as CLIP returns them.
func (c *Captioner) Direct(ctx context.Context, rows []float32, o clipcap.Options) (list [][]Caption, err error) {
	err = infer(func() error {
		list, err = c.Decoder.Generate(ctx, c.features(rows), o)
		return err
	})
	return list, err
}

// Textualised captions photos from their image features, translated by the Generator, which
// must not be nil.
func (c *Captioner) Textualised(ctx context.Context, rows []float32, o clipcap.Options) (list [][]Caption, err error) {
	err = infer(func() error {
		list, err = c.Decoder.Generate(ctx, c.Decoder.scaled(c.Generator.Model.Forward(c.features(rows))), o)
		return err
	})
	return list, err
}

// features returns image features as the decoder and the generator need them.
func (c *Captioner) features(rows []float32) torch.Tensor {
	return c.Decoder.scaled(c.Decoder.on.tensor(rows, c.Decoder.FeatureWidth()))
}

// Textualise translates image features, rows [n, width] as CLIP returns them, into text
// features [n, width]. The decoder's scaling is applied to its input. Without a generator it
// returns an error.
func (c *Captioner) Textualise(rows []float32) (text []float32, err error) {
	if c.Generator == nil {
		return nil, errors.New("no generator was loaded that could textualise features; Files.Generator names one")
	}
	err = infer(func() error {
		text = torch.ToSlice[float32](c.Generator.Model.Forward(c.features(rows)).To(torch.WithDType(torch.Float32)))
		return nil
	})
	return text, err
}

// A Batch holds the captions of a batch of photos.
type Batch struct {
	Captions []Captioned
	// Index is the photo that each of Captions describes, ascending, and Paths its path.
	Index  []int
	Paths  []string
	Failed []photo.Failure // photos that could not be read
}

// Photos captions photo files as PhotosFrom does.
func (c *Captioner) Photos(ctx context.Context, paths []string, batch int, o clipcap.Options) iter.Seq2[Batch, error] {
	return c.captionBatches(ctx, c.CLIP.Photos(ctx, paths, batch), batch, o)
}

// PhotosFrom captions photos, batch by batch and in order. When sampling, the seed
// of a photo is o.Seed plus the number of readable photos before it, so that its
// caption does not depend on the batch size. Where this changes no bit
// ([Decoder.BatchInvariant]), a caption that has ended makes room for the next photo's, and
// features of the next batch are computed before the last captions of one have ended.
func (c *Captioner) PhotosFrom(ctx context.Context, photos iter.Seq[photo.Source], batch int, o clipcap.Options) iter.Seq2[Batch, error] {
	return c.captionBatches(ctx, c.CLIP.PhotosFrom(ctx, photos, batch), batch, o)
}

// captionBatches captions photos by batches of their features.
func (c *Captioner) captionBatches(ctx context.Context, batches iter.Seq2[Features, error], batch int, o clipcap.Options) iter.Seq2[Batch, error] {
	if o.Method.Single() && o.OnToken == nil && c.Decoder.BatchInvariant() {
		return c.continuous(ctx, batches, batch, o)
	}
	return func(yield func(Batch, error) bool) {
		for f, err := range batches {
			if err != nil {
				yield(Batch{}, err)
				return
			}
			b := Batch{Index: f.Index, Paths: f.Paths, Failed: f.Failed}
			if c.Once && f.Last {
				c.CLIP.Close()
			}
			if len(f.Index) > 0 {
				if b.Captions, err = c.Captions(ctx, f.Rows, o); err != nil {
					if e := (*NotFiniteError)(nil); errors.As(err, &e) {
						err = fmt.Errorf("%s: %w", f.Paths[e.Index], err)
					}
					yield(Batch{}, err)
					return
				}
				o.Seed += uint64(len(f.Index))
			}
			if !yield(b, nil) {
				return
			}
		}
	}
}
