package pipeline

import (
	"context"
	"fmt"
	"iter"
	"math"
	"slices"

	"cyclecap/data/features"
	"cyclecap/data/photo"
	"cyclecap/data/tokenizer"
	"cyclecap/nets/clip"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/weights"
)

// CLIP is a CLIP model, or one of its encoders, that is ready to compute.
type CLIP struct {
	Path       string
	Model      Encoder
	Preprocess photo.Preprocess // of photos
	Notes      []string         // what was assumed or changed in loading
	texts      textTokenizer    // of Model
	// other says which tokenizer the text encoder needs, if it is not texts.
	other string
	on    Options
}

// LoadCLIP loads a CLIP from a file or folder of OpenAI's, open_clip's or transformers'
// making, or a SigLIP of transformers. part selects an encoder; nothing is read of the
// other one, which may be missing. config is the file of its configuration or the name of its architecture
// (see clip.Named); if it is empty, LoadCLIP takes what the weights file itself says,
// or the configuration beside it, and Notes lists what it had to assume.
func LoadCLIP(path, config string, part clip.Part, o Options) (*CLIP, error) {
	return Files{CLIP: path, CLIPConfig: config}.loadCLIP(part, o)
}

func (from Files) loadCLIP(part clip.Part, o Options) (*CLIP, error) {
	if err := ready(); err != nil {
		return nil, err
	}
	path, config := from.CLIP, from.CLIPConfig
	f, err := from.open(path)
	if err != nil {
		return nil, err
	}
	if part == clip.Both && from.Texts && !hasTexts(f) {
		part = clip.Image
	}
	c := &CLIP{Path: path, Notes: f.Notes, on: o}
	if weights.Detect(f) == weights.SigLIP {
		if err := c.loadSigLIP(f, config, part); err != nil {
			return nil, err
		}
		return c, nil
	}
	sd, err := weights.LoadCLIP(f, part.Has)
	if err != nil {
		return nil, err
	}
	of, notes, err := clipConfig(f, sd, config, part)
	c.Notes = append(c.Notes, notes...)
	if err == nil {
		notes, err = o.dequantize(path, sd)
		c.Notes = append(c.Notes, notes...)
	}
	if err != nil {
		sd.Close()
		return nil, err
	}
	m, err := clip.Load(sd, of, part)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if part != clip.Image {
		if c.other, err = otherTokenizer(f, of); err != nil {
			return nil, err
		}
	}
	c.Model, c.texts = m, tokenizer.CLIP()
	if part != clip.Image && f.Meta[weights.CLIPConfig] != "" {
		// One that we trained may have fewer tokens; CheckTokenizer refuses any other number.
		if first, err := tokenizer.CLIPFirst(int(of.Vocab)); err == nil {
			c.texts = first
		}
	}
	if part != clip.Text {
		err = c.preprocess(f, config, photo.CLIP(0), "CLIPImageProcessor")
	}
	if err == nil {
		err = o.prepare(m)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// hasTexts reports whether a CLIP or SigLIP has a text encoder, by the names and shapes of its
// tensors.
func hasTexts(f *weights.File) bool {
	if weights.Detect(f) == weights.SigLIP {
		_, ok := f.Get("text_model.head.weight")
		return ok
	}
	sd, err := weights.LoadCLIP(f, func(string) bool { return false })
	if err != nil {
		return true // whoever loads it gets the same error
	}
	defer sd.Close()
	return partOf(sd) != clip.Image
}

// ready returns an error if libtorch can't be used, before anything else fails.
func ready() error {
	_, err := torch.BuildInfo()
	return err
}

// Width returns the width of the features.
func (c *CLIP) Width() int { return int(c.Model.FeatureWidth()) }

// Close frees the weights. A second Close does nothing.
func (c *CLIP) Close() {
	if c.Model != nil {
		nn.Close(c.Model)
		torch.ReleaseMemory()
		c.Model = nil
	}
}

// Features holds the features of a batch of photos or texts.
type Features struct {
	// Rows are the features, f32 [len(Index), width], as the encoder returns
	// them: not normalised.
	Rows []float32
	// Index is the position in the input of each row, ascending, and Paths the path of its
	// photo; texts have none.
	Index []int
	Paths []string
	// Failed lists the photos of the batch that could not be read, and those whose
	// features are not finite.
	Failed []photo.Failure
	// Last says that no batch of photos follows.
	Last bool
}

// Photos computes the features of photo files as PhotosFrom does.
func (c *CLIP) Photos(ctx context.Context, paths []string, batch int) iter.Seq2[Features, error] {
	return c.encodePhotos(photo.Load(ctx, paths, c.Preprocess, photo.Workers(), batch))
}

// PhotosFrom computes the features of photos, batch by batch and in order, while it
// decodes the photos of the next batches. A photo that can't be read is listed in
// its batch and does not stop the iteration. Low-order bits depend on the batch size.
func (c *CLIP) PhotosFrom(ctx context.Context, photos iter.Seq[photo.Source], batch int) iter.Seq2[Features, error] {
	return c.encodePhotos(photo.LoadFrom(ctx, photos, c.Preprocess, photo.Workers(), batch))
}

// encodePhotos computes the features of batches of photos.
func (c *CLIP) encodePhotos(batches iter.Seq2[*photo.Batch, error]) iter.Seq2[Features, error] {
	return func(yield func(Features, error) bool) {
		size := c.Model.ImageSize()
		for b, err := range batches {
			if err != nil {
				yield(Features{}, err)
				return
			}
			f := Features{Index: b.Index, Paths: b.Paths, Failed: b.Failed, Last: b.Last}
			if n := int64(len(b.Index)); n > 0 {
				f.Rows, err = c.encode(func() torch.Tensor {
					return c.Model.EncodeImage(torch.FromSliceOn(c.on.Device, b.Pixels, n, 3, size, size).To(c.on.to()...))
				})
			}
			if err != nil {
				yield(Features{}, err)
				return
			}
			c.check(&f)
			if !yield(f, nil) {
				return
			}
		}
	}
}

// Pixels decodes the contents of a photo file and prepares it for the image encoder: f32
// [3, size, size]. A photo of more than maxPixels pixels is a photo.ErrTooLarge, before
// memory is allocated for it. Pixels needs no libtorch: any number of goroutines may call it.
func (c *CLIP) Pixels(data []byte, maxPixels int) ([]float32, error) {
	m, err := photo.DecodeWithin(data, maxPixels)
	if err != nil {
		return nil, err
	}
	out := make([]float32, c.Preprocess.Len())
	return out, c.Preprocess.Into(out, m)
}

// EncodePixels returns the features [len(photos), width] of photos that Pixels has prepared,
// computed as one batch and not normalised. A feature that is not finite is an error.
func (c *CLIP) EncodePixels(photos [][]float32) ([]float32, error) {
	n, size := int64(len(photos)), c.Model.ImageSize()
	rows, err := c.encode(func() torch.Tensor {
		return c.Model.EncodeImage(torch.FromSliceOn(c.on.Device, slices.Concat(photos...), n, 3, size, size).To(c.on.to()...))
	})
	if err != nil {
		return nil, err
	}
	w := c.Width()
	for i := range photos {
		if err := features.Check(rows[i*w:(i+1)*w], false); err != nil {
			return nil, fmt.Errorf("the feature of photo %d is not finite (%w): the weights in %s may be damaged", i, err, c.Path)
		}
	}
	return rows, nil
}

// check moves the photos whose features are not finite from f's rows to those that
// failed.
func (c *CLIP) check(f *Features) {
	w := c.Width()
	kept := 0
	for k, i := range f.Index {
		row := f.Rows[k*w : (k+1)*w]
		if err := features.Check(row, false); err != nil {
			f.Failed = append(f.Failed, photo.Failure{Index: i, Path: f.Paths[k],
				Err: fmt.Errorf("%s: its feature is not finite (%w): the weights in %s may be damaged", f.Paths[k], err, c.Path)})
			continue
		}
		copy(f.Rows[kept*w:], row)
		f.Index[kept], f.Paths[kept] = i, f.Paths[k]
		kept++
	}
	f.Rows, f.Index, f.Paths = f.Rows[:kept*w], f.Index[:kept], f.Paths[:kept]
}

// textTokenizer turns texts into the input of a text encoder.
type textTokenizer interface {
	// Encode returns the ids of a text alone.
	Encode(text string) []int
	// Context returns length ids. If the text is too long, Context cuts it if truncate is
	// set, and otherwise returns an error.
	Context(text string, length int, truncate bool) ([]int, error)
	// Room returns how many of length ids the text can have.
	Room(length int) int
	VocabSize() int
}

// CheckTokenizer returns an error if the model was trained with a tokenizer other
// than those that are supported, or has no text encoder, since it can't encode texts then.
func (c *CLIP) CheckTokenizer() error {
	if c.Model.ContextLength() == 0 {
		return fmt.Errorf("%s was loaded without its text encoder", c.Path)
	}
	if c.other != "" {
		return fmt.Errorf("the texts of %s need another tokenizer than CLIP's: %s", c.Path, c.other)
	}
	if have, want := c.Model.VocabSize(), int64(c.texts.VocabSize()); have != want {
		return fmt.Errorf("%s has a vocabulary of %d tokens, but the tokenizer for it has %d: its texts need another tokenizer", c.Path, have, want)
	}
	return nil
}

// tokens returns the token ids of texts, [len(texts), context]. If a text is too long, tokens cuts it if truncate is set, and
// otherwise returns an error.
func (c *CLIP) tokens(texts []string, truncate bool) ([]int64, error) {
	if err := c.CheckTokenizer(); err != nil {
		return nil, err
	}
	length := int(c.Model.ContextLength())
	flat := make([]int64, 0, len(texts)*length)
	for i, s := range texts {
		ids, err := c.texts.Context(s, length, truncate)
		if err != nil {
			return nil, &LongTextError{Index: i, Text: s, Tokens: len(c.texts.Encode(s)), Room: c.texts.Room(length)}
		}
		for _, id := range ids {
			flat = append(flat, int64(id))
		}
	}
	return flat, nil
}

// Tokens returns the token ids of texts, [len(texts), ContextLength]. Texts that are too
// long are cut.
func (c *CLIP) Tokens(texts []string) ([]int64, error) { return c.tokens(texts, true) }

// CountTokens returns the number of tokens of a text, with those that mark its start and end,
// and the number that the text encoder takes.
func (c *CLIP) CountTokens(text string) (n, most int) {
	most = int(c.Model.ContextLength())
	return len(c.texts.Encode(text)) + most - c.texts.Room(most), most
}

// BatchInvariant reports whether the features of photos, and those of texts, have the same
// bits whatever else is in their batch: those of a ViT with packed weights on a processor with
// AVX-512 have, and those of a ResNet and of a SigLIP have not.
func (c *CLIP) BatchInvariant() (photos, texts bool) {
	m, ok := c.Model.(*clip.Model)
	if !ok || !c.on.batchInvariant() {
		return false, false
	}
	return m.ResNet == nil, true
}

// Options returns where and how the model computes.
func (c *CLIP) Options() Options { return c.on }

// LongTextError reports a text that does not fit into the context of a CLIP.
type LongTextError struct {
	Index  int // in the list of texts
	Text   string
	Tokens int // number of tokens of the text
	Room   int // number of tokens that fit, without start and end
}

func (e *LongTextError) Error() string {
	return fmt.Sprintf("text %d has %d tokens, but this CLIP takes at most %d; shorten or truncate it: %.60q", e.Index, e.Tokens, e.Room, e.Text)
}

// Texts computes the features of texts, batch by batch and in order. If a text is too
// long, Texts cuts it if truncate is set, and otherwise fails with a *LongTextError
// before it computes anything.
func (c *CLIP) Texts(ctx context.Context, texts []string, batch int, truncate bool) iter.Seq2[Features, error] {
	return func(yield func(Features, error) bool) {
		length := int(c.Model.ContextLength())
		var all []int64
		if !truncate {
			var err error
			if all, err = c.tokens(texts, false); err != nil {
				yield(Features{}, err)
				return
			}
		}
		for at := 0; at < len(texts); at += batch {
			part := texts[at:min(len(texts), at+batch)]
			var f Features
			err := ctx.Err()
			if err == nil {
				var ids []int64
				if truncate {
					ids, err = c.tokens(part, true)
				} else {
					ids = all[at*length : (at+len(part))*length]
				}
				if err == nil {
					f.Rows, err = c.encode(func() torch.Tensor {
						x := torch.FromSliceOn(c.on.Device, ids, int64(len(part)), int64(length))
						return c.Model.EncodeText(x.Narrow(1, 0, int64(c.used(ids, length))))
					})
				}
			}
			if err != nil {
				yield(Features{}, err)
				return
			}
			w := c.Width()
			for i := range part {
				if err := features.Check(f.Rows[i*w:(i+1)*w], false); err != nil {
					yield(Features{}, fmt.Errorf("the feature of text %d is not finite (%w): the weights in %s may be damaged: %.60q", at+i, err, c.Path, part[i]))
					return
				}
				f.Index = append(f.Index, at+i)
			}
			if !yield(f, nil) {
				return
			}
		}
	}
}

// used returns how many of the length ids of each text the encoder needs.
func (c *CLIP) used(ids []int64, length int) int {
	m, ok := c.Model.(*clip.Model)
	if !ok || !m.ShortTexts() || !c.on.ShortTexts && !c.on.Packed() {
		return length
	}
	longest := 1
	for row := range slices.Chunk(ids, length) {
		// The end token is the last that is not padding, which is 0.
		for n := length; n > longest; n-- {
			if row[n-1] != 0 {
				longest = n
			}
		}
	}
	return longest
}

// encode runs an encoder and returns its output as rows.
func (c *CLIP) encode(f func() torch.Tensor) (rows []float32, err error) {
	err = infer(func() error {
		rows = torch.ToSlice[float32](f().To(torch.WithDType(torch.Float32)))
		return nil
	})
	return rows, err
}

// RowError reports a row that cannot be a feature, and why.
type RowError struct {
	Row int
	Err error
}

func (e *RowError) Error() string {
	return fmt.Sprintf("feature %d cannot be scaled to length 1: %v", e.Row, e.Err)
}

func (e *RowError) Unwrap() error { return e.Err }

// Normalize scales each of rows [n, width] to length 1, in place, as decoders that
// were trained with normalize_prefix expect. A row that is not finite, or whose values
// are all 0, is a *RowError; the rows are unchanged then.
func Normalize(rows []float32, width int) error {
	if len(rows) == 0 {
		return nil
	}
	for at := 0; at < len(rows); at += width {
		if err := features.Check(rows[at:at+width], true); err != nil {
			return &RowError{at / width, err}
		}
	}
	return infer(func() error {
		x := torch.FromSlice(rows, int64(len(rows)/width), int64(width))
		copy(rows, torch.ToSlice[float32](clip.Normalize(x)))
		return nil
	})
}

// Temperature returns the factor by which cosines are multiplied before a softmax over texts,
// exp(logit_scale), or 0 if the file does not say it.
func (c *CLIP) Temperature() (factor float64) {
	if m, ok := c.Model.(*clip.Model); ok && m.LogitScale.Defined() {
		torch.Scope(func() error {
			factor = math.Exp(float64(torch.ToSlice[float32](m.LogitScale.To(torch.WithDType(torch.Float32)))[0]))
			return nil
		})
	}
	return factor
}
