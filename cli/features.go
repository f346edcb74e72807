package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cyclecap/data/coco"
	"cyclecap/data/photo"
	"cyclecap/data/tokenizer"
	"cyclecap/nets/clip"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/train"
	"cyclecap/weights"

	"github.com/urfave/cli/v2"
)

func featuresCommand() *cli.Command {
	return &cli.Command{
		Name:      "features",
		Usage:     "compute the CLIP features of photos, texts or captions",
		UsageText: "(--clip F (--images PATH… | --text STRING… | --captions COCO.json) | --clipcap FILE.pkl) -o OUT.safetensors",
		Flags: append([]cli.Flag{
			&cli.PathFlag{Name: "clip", Usage: "`FILE` of a CLIP: OpenAI's archive, transformers' file or folder"},
			&cli.StringSliceFlag{Name: "images", Usage: "`PATH…` of photos or of folders of photos", KeepSpace: true},
			&cli.StringSliceFlag{Name: "text", Usage: "one `STRING…` or several", KeepSpace: true},
			&cli.PathFlag{Name: "captions", Usage: "`COCO.json`: the captions of a COCO file"},
			&cli.PathFlag{Name: "clipcap", Usage: "`FILE.pkl` of features that ClipCap's parse_coco.py wrote: they are read, not computed, and nothing in it is run"},
			&cli.PathFlag{Name: "output", Aliases: []string{"o"}, Usage: "`OUT.safetensors` to write"},
			&cli.BoolFlag{Name: "normalize", Usage: "scale each feature to length 1", DisableDefaultText: true},
			&cli.BoolFlag{Name: "truncate", Usage: "cut texts that are longer than CLIP's context, which are an error otherwise", DisableDefaultText: true},
			&cli.IntFlag{Name: "batch", Value: 32, Usage: "`N` photos or texts computed at once; low-order bits depend on it"},
		}, computeFlags()...),
		Description: `OUT holds "features", f32 [n, width] in the order of the input, and "ids",
int64 [n]: the annotations' ids of --captions, else the places in the input,
counted from 0 (photos that can't be read are skipped and make the exit code
1). With --captions and --clipcap, "image_ids" has the photo of each. The metadata has the
inputs themselves, as a JSON array, the model and what was done to them.

EXAMPLES:
   cyclecap features --clip ViT-B-32.pt --images val2014/ -o images.safetensors
   cyclecap features --clip ViT-B-32.pt --text "a photo of a cat" "a photo of a dog" -o texts.safetensors
   cyclecap features --clip ViT-B-32.pt --captions captions_val2014.json --normalize -o captions.safetensors
   cyclecap features --clipcap oscar_split_ViT-B_32_train.pkl -o train.safetensors`,
		Action: features,
	}
}

// inputs are what features are asked of; one of paths and texts is set.
type inputs struct {
	kind  string
	paths []string
	texts []string
	ids   []int64
	// Of --captions: the photo that each text is about.
	imageIDs []int64
}

func inputsOf(c *cli.Context) (in inputs, err error) {
	images, text, captions := c.StringSlice("images"), c.StringSlice("text"), c.Path("captions")
	given := 0
	for _, b := range []bool{len(images) > 0, len(text) > 0, captions != ""} {
		if b {
			given++
		}
	}
	if given != 1 {
		return in, usagef("one of --images, --text and --captions is needed, not %d of them", given)
	}
	rest := c.Args().Slice()
	switch {
	case len(images) > 0:
		in.kind = "image"
		if in.paths, err = photosIn(append(images, rest...)); err != nil {
			return in, err
		}
		for i := range in.paths {
			in.ids = append(in.ids, int64(i))
		}
	case len(text) > 0:
		in.kind, in.texts = "text", append(text, rest...)
		for i := range in.texts {
			in.ids = append(in.ids, int64(i))
		}
	default:
		if len(rest) > 0 {
			return in, usagef("--captions takes no arguments, not %q", rest[0])
		}
		data, err := coco.Read(captions)
		if err != nil {
			return in, errors.New(strings.TrimPrefix(err.Error(), "coco: "))
		}
		in.kind = "text"
		for _, a := range data.Annotations {
			in.texts = append(in.texts, a.Caption)
			in.ids = append(in.ids, a.ID)
			in.imageIDs = append(in.imageIDs, a.ImageID)
		}
		if len(in.texts) == 0 {
			return in, fmt.Errorf("%s: it has no captions", captions)
		}
	}
	return in, nil
}

// photosIn replaces folders by the photos in them, sorted by name.
func photosIn(paths []string) ([]string, error) {
	var out []string
	for _, p := range paths {
		info, err := os.Stat(p)
		if err != nil || !info.IsDir() {
			out = append(out, p) // a missing file is reported as a photo that can't be read
			continue
		}
		list, err := os.ReadDir(p)
		if err != nil {
			return nil, err
		}
		found := false
		for _, e := range list {
			switch strings.ToLower(filepath.Ext(e.Name())) {
			case ".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp":
				out, found = append(out, filepath.Join(p, e.Name())), true
			}
		}
		if !found {
			return nil, fmt.Errorf("%s: there are no photos in this folder (.jpg, .png, .webp, .gif, .bmp)", p)
		}
	}
	return out, nil
}

func features(c *cli.Context) error {
	if c.Path("clipcap") != "" {
		return clipcapFeatures(c)
	}
	if err := need(c, "clip", "output"); err != nil {
		return err
	}
	if err := checkBatch(c); err != nil {
		return err
	}
	out := c.Path("output")
	if filepath.Ext(out) != ".safetensors" {
		return usagef("--output %s: features are written as .safetensors", out)
	}
	on, err := computeOf(c)
	if err != nil {
		return err
	}
	in, err := inputsOf(c)
	if err != nil {
		return err
	}
	if err := write(func() error { return weights.CheckSave(out) }); err != nil {
		return err
	}
	return torch.Scope(func() error {
		m, err := loadCLIP(c.Path("clip"), on, in.kind == "image")
		if err != nil {
			return err
		}
		f := &featureJob{c: c, model: m, on: on, in: in}
		f.values = make([]float32, 0, int64(len(in.ids))*m.Config.EmbedDim)
		if in.kind == "image" {
			err = f.images()
		} else {
			err = f.text()
		}
		if err != nil {
			return err
		}
		if len(f.ids) == 0 {
			return fmt.Errorf("no photo could be read; nothing is written")
		}
		if err := write(func() error { return f.save(out) }); err != nil {
			return err
		}
		if f.failed > 0 {
			fmt.Fprintf(c.App.ErrWriter, "cyclecap: %d of %d photos could not be read; %s holds the others\n", f.failed, len(in.paths), out)
			return errReported
		}
		return nil
	})
}

// clipcapFeatures reads a pickle of ClipCap's: a row for each caption, which is
// the feature of its photo.
func clipcapFeatures(c *cli.Context) error {
	if err := need(c, "output"); err != nil {
		return err
	}
	for _, name := range []string{"clip", "images", "text", "captions"} {
		if c.IsSet(name) {
			return usagef("--clipcap reads features that are there: --%s does not go with it", name)
		}
	}
	in, out := c.Path("clipcap"), c.Path("output")
	if c.Args().Present() {
		return usagef("--clipcap takes no arguments, not %q", c.Args().First())
	}
	if filepath.Ext(out) != ".safetensors" {
		return usagef("--output %s: features are written as .safetensors", out)
	}
	f, err := weights.OpenClipCapFeatures(in)
	if err != nil {
		return err
	}
	if err := write(func() error { return weights.CheckSave(out) }); err != nil {
		return err
	}
	n := len(f.Captions)
	values := make([]float32, n*f.Width)
	ids, images, texts := make([]int64, n), make([]int64, n), make([]string, n)
	for i, caption := range f.Captions {
		if err := c.Context.Err(); err != nil {
			return err
		}
		if err := f.Read(caption.Row, values[i*f.Width:(i+1)*f.Width]); err != nil {
			return err
		}
		ids[i], images[i], texts[i] = caption.ID, caption.ImageID, caption.Caption
	}
	names, err := json.Marshal(texts)
	if err != nil {
		return err
	}
	return torch.Scope(func() error {
		x := torch.FromSlice(values, int64(n), int64(f.Width))
		if c.Bool("normalize") {
			x = train.Normalize(x)
		}
		sd := nn.NewStateDict()
		sd.Add("features", x)
		sd.Add("ids", torch.FromSlice(ids))
		sd.Add("image_ids", torch.FromSlice(images))
		meta := map[string]string{"kind": "image", "inputs": string(names), "model": "of " + filepath.Base(in) + ", which does not say", "dtype": f.DType.String(),
			"normalized": fmt.Sprint(c.Bool("normalize")), "cyclecap": version()}
		return write(func() error { return weights.SaveSafetensors(c.Context, out, sd, meta) })
	})
}

type featureJob struct {
	c      *cli.Context
	model  *clip.Model
	on     compute
	in     inputs
	values []float32
	ids    []int64
	names  []string
	failed int
}

// add computes a batch.
func (f *featureJob) add(encode func() torch.Tensor) error {
	return torch.Scope(func() error {
		torch.InferenceMode(func() {
			x := encode().To(torch.WithDType(torch.Float32))
			if f.c.Bool("normalize") {
				x = train.Normalize(x)
			}
			f.values = append(f.values, torch.ToSlice[float32](x)...)
		})
		return nil
	})
}

func (f *featureJob) images() error {
	size := int(f.model.Config.ImageSize)
	bar := newProgress(f.c.App.ErrWriter, "photos", len(f.in.paths))
	defer bar.finish()
	for b, err := range photo.Load(f.c.Context, f.in.paths, photo.CLIP(size), decoders(), f.c.Int("batch")) {
		if err != nil {
			return err
		}
		f.failed += reportFailed(bar, b)
		if n := int64(len(b.Index)); n > 0 {
			err := f.add(func() torch.Tensor {
				return f.model.EncodeImage(torch.FromSlice(b.Pixels, n, 3, int64(size), int64(size)).To(f.on.options()...))
			})
			if err != nil {
				return err
			}
		}
		for _, i := range b.Index {
			f.ids = append(f.ids, f.in.ids[i])
			f.names = append(f.names, f.in.paths[i])
		}
		bar.add(len(b.Index) + len(b.Failed))
	}
	return nil
}

func (f *featureJob) text() error {
	if have, want := f.model.Config.Vocab, int64(tokenizer.CLIP().VocabSize()); have != want {
		return fmt.Errorf("%s has %d tokens and CLIP's vocabulary %d: its texts need another tokenizer", f.c.Path("clip"), have, want)
	}
	length := int(f.model.Config.Context)
	// All are tokenized first: one that is too long ends the work before it
	// has begun.
	tokens := make([][]int, len(f.in.texts))
	for i, s := range f.in.texts {
		ids, err := tokenizer.CLIP().Context(s, length, f.c.Bool("truncate"))
		if err != nil {
			return fmt.Errorf("input %d has %d tokens, and this CLIP takes %d: shorten it or cut such texts with --truncate: %.60q",
				i, len(tokenizer.CLIP().Encode(s)), length-2, s)
		}
		tokens[i] = ids
	}
	bar := newProgress(f.c.App.ErrWriter, "texts", len(tokens))
	defer bar.finish()
	for part := range slices.Chunk(tokens, f.c.Int("batch")) {
		if err := f.c.Context.Err(); err != nil {
			return err
		}
		flat := make([]int64, 0, len(part)*length)
		for _, ids := range part {
			for _, id := range ids {
				flat = append(flat, int64(id))
			}
		}
		err := f.add(func() torch.Tensor {
			return f.model.EncodeText(torch.FromSlice(flat, int64(len(part)), int64(length)).To(torch.WithDevice(f.on.device)))
		})
		if err != nil {
			return err
		}
		bar.add(len(part))
	}
	f.ids, f.names = f.in.ids, f.in.texts
	return nil
}

func (f *featureJob) save(path string) error {
	names, err := json.Marshal(f.names)
	if err != nil {
		return err
	}
	n := int64(len(f.ids))
	sd := nn.NewStateDict()
	sd.Add("features", torch.FromSlice(f.values, n, f.model.Config.EmbedDim))
	sd.Add("ids", torch.FromSlice(f.ids))
	if f.in.imageIDs != nil {
		sd.Add("image_ids", torch.FromSlice(f.in.imageIDs))
	}
	return weights.SaveSafetensors(f.c.Context, path, sd, map[string]string{
		"kind": f.in.kind, "inputs": string(names), "model": "CLIP " + f.model.Config.String(),
		"dtype": f.on.dtype.String(), "fast": fmt.Sprint(f.on.packed), "normalized": fmt.Sprint(f.c.Bool("normalize")), "cyclecap": version(),
	})
}
