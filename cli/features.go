package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"cyclecap/data/clipcap"
	"cyclecap/data/coco"
	store "cyclecap/data/features"
	"cyclecap/data/sets"
	"cyclecap/nets/clip"
	"cyclecap/pipeline"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/weights"

	"github.com/urfave/cli/v2"
)

func featuresCommand() *cli.Command {
	return &cli.Command{
		Name:      "features",
		Usage:     "compute the CLIP features of photos, texts or captions",
		UsageText: "(--clip F (--images PATH… | --text STRING… | --captions FILE) | --clipcap FILE.pkl) -o OUT.safetensors",
		Flags: append([]cli.Flag{
			clipFlag(),
			clipConfigFlag(),
			&cli.StringSliceFlag{Name: "images", Usage: "compute the features of photos; `PATH…` are photos, folders, tars (.tar, .tar.gz), or - for the paths that standard input lists", KeepSpace: true},
			recursiveFlag(),
			&cli.StringSliceFlag{Name: "text", Usage: "compute the features of one or more texts, `STRING…`", KeepSpace: true},
			&cli.PathFlag{Name: "captions", Usage: "compute the features of the captions in `FILE`: JSON of COCO, LAVIS or Karpathy, JSON lines, .csv, .tsv, a tar, or text with one caption a line"},
			&cli.PathFlag{Name: "clipcap", Usage: "instead of computing features, read them from `FILE.pkl`, written by ClipCap's parse_coco.py; no code in it is run"},
			&cli.PathFlag{Name: "output", Aliases: []string{"o"}, Usage: "write the features to `OUT.safetensors`"},
			&cli.BoolFlag{Name: "normalize", Usage: "scale each feature to length 1", DisableDefaultText: true},
			&cli.BoolFlag{Name: "truncate", Usage: "cut texts that are longer than CLIP's context; without this flag, they are an error", DisableDefaultText: true},
			&cli.IntFlag{Name: "batch", Value: 32, Usage: "process `N` photos or texts at a time; low-order bits depend on it"},
		}, computeFlags()...),
		Description: `OUT contains "features", f32 [n, width], in the order of the input, and "ids",
int64 [n]: annotation ids or numbers of lines with --captions and --clipcap,
otherwise positions in the input, counted from 0. With --captions and --clipcap,
"image_ids" contains the image id of each feature, if the file says it. If some of the ids are not integers, the metadata
"ids" or "image_ids" is a JSON array of all different ones, and the tensor of the
same name contains positions in it, counted from 0. The metadata also contains
the inputs themselves, as a JSON array, the model and the options used. A photo
that cannot be read is skipped, as is the rest of a damaged tar, and the exit
code is then 1.

The photos in a tar are not unpacked; 1.jpg in a.tar is called a.tar/1.jpg.
'shards/{00000..00999}.tar' stands for a thousand tars. - stands for the paths
that standard input lists, one a line.

EXAMPLES:
   cyclecap features --clip ViT-B-32.pt --images val2014/ -o images.safetensors
   cyclecap features --clip ViT-B-32.pt --images 'cc3m/{00000..00331}.tar' -o images.safetensors
   find val2014/ -name '*.jpg' | cyclecap features --clip ViT-B-32.pt --images - -o images.safetensors
   cyclecap features --clip ViT-B-32.pt --text "a photo of a cat" "a photo of a dog" -o texts.safetensors
   cyclecap features --clip ViT-B-32.pt --captions captions_val2014.json --normalize -o captions.safetensors
   cyclecap features --clip ViT-B-32.pt --captions Train_GCC-training.tsv --truncate -o captions.safetensors
   cyclecap features --clipcap oscar_split_ViT-B_32_train.pkl -o train.safetensors`,
		Action: features,
	}
}

// inputs are what to compute features of; either photos or texts is set.
type inputs struct {
	kind   string
	photos photos
	texts  []string
	ids    []coco.ID // of texts
	// imageIDs are the images that the texts of --captions describe.
	imageIDs []coco.ID
	skipped  int // captions without text or with invalid characters
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
		return in, usagef("exactly one of --images, --text and --captions is required, got %d", given)
	}
	rest := c.Args().Slice()
	switch {
	case len(images) > 0:
		in.kind = "image"
		in.photos, err = photosIn(c, append(images, rest...))
		return in, err
	case len(text) > 0:
		in.kind, in.texts = "text", append(text, rest...)
		for i := range in.texts {
			in.ids = append(in.ids, coco.Int(int64(i)))
		}
	default:
		if len(rest) > 0 {
			return in, usagef("--captions takes no arguments, got %q", rest[0])
		}
		set, err := sets.Captions(captions, 1)
		if err != nil {
			return in, err
		}
		in.kind = "text"
		for _, caption := range set.Captions {
			in.texts, in.ids = append(in.texts, caption.Text), append(in.ids, caption.ID)
			if set.Paired {
				in.imageIDs = append(in.imageIDs, caption.Image)
			}
		}
		if in.skipped = set.Bad.Count; in.skipped > 0 {
			fmt.Fprintf(c.App.ErrWriter, "cyclecap: skipped %d of %d captions: %s\n", in.skipped, in.skipped+len(in.texts), oneLine(strings.Join(set.Bad.First, "; ")))
		}
		if len(in.texts) == 0 {
			return in, fmt.Errorf("%s contains no captions", captions)
		}
	}
	return in, nil
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
		return usagef("--output %s: the file name must end in .safetensors", out)
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
	part := clip.Text
	if in.kind == "image" {
		part = clip.Image
	}
	m, err := pipeline.LoadCLIP(c.Path("clip"), c.Path("clip-config"), part, on)
	if err != nil {
		return err
	}
	defer m.Close()
	notes(c, m.Notes)
	f := &featureFile{kind: in.kind, width: m.Width(), normalized: c.Bool("normalize"), meta: map[string]string{
		"model": m.Model.Name(), "dtype": on.TypeName(), "fast": fmt.Sprint(on.Packed())}}
	t, err := compute(c, m, in, f)
	if err != nil {
		return err
	}
	if len(f.ids) == 0 {
		return fmt.Errorf("no photo could be read; nothing was written")
	}
	if err := f.save(c, out); err != nil {
		return err
	}
	if t.bad() {
		fmt.Fprintf(c.App.ErrWriter, "cyclecap: %s; %s contains the features of the others\n", t.say("read"), out)
		return errReported
	}
	if in.skipped > 0 {
		return errReported
	}
	return nil
}

// compute adds the features of the inputs to f, and counts the photos.
func compute(c *cli.Context, m *pipeline.CLIP, in inputs, f *featureFile) (t tally, err error) {
	batch := c.Int("batch")
	batches, total, what := m.Texts(c.Context, in.texts, batch, c.Bool("truncate")), len(in.texts), "texts"
	if in.kind == "image" {
		batches, total, what = m.PhotosFrom(c.Context, in.photos.sources, batch), in.photos.count, "photos"
	}
	bar := newProgress(c.App.ErrWriter, what, total)
	defer bar.finish()
	f.rows = make([]float32, 0, max(total, 0)*f.width)
	for b, err := range batches {
		if long := (*pipeline.LongTextError)(nil); errors.As(err, &long) {
			return t, fmt.Errorf("input %d has %d tokens, but this CLIP takes at most %d; shorten it or use --truncate: %.60q", long.Index, long.Tokens, long.Room, long.Text)
		} else if err != nil {
			return t, err
		}
		t.add(bar, len(b.Index), b.Failed)
		f.rows = append(f.rows, b.Rows...)
		for k, i := range b.Index {
			if in.kind == "image" {
				f.ids, f.names = append(f.ids, coco.Int(int64(i))), append(f.names, b.Paths[k])
				continue
			}
			f.ids, f.names = append(f.ids, in.ids[i]), append(f.names, in.texts[i])
			if in.imageIDs != nil {
				f.imageIDs = append(f.imageIDs, in.imageIDs[i])
			}
		}
		bar.add(len(b.Index) + len(b.Failed))
	}
	return t, nil
}

// clipcapFeatures reads a ClipCap pickle and writes a row for each caption: the
// feature of its photo.
func clipcapFeatures(c *cli.Context) error {
	if err := need(c, "output"); err != nil {
		return err
	}
	for _, name := range []string{"clip", "clip-config", "images", "text", "captions"} {
		if c.IsSet(name) {
			return usagef("--%s cannot be used with --clipcap, which reads features instead of computing them", name)
		}
	}
	in, out := c.Path("clipcap"), c.Path("output")
	if c.Args().Present() {
		return usagef("--clipcap takes no arguments, got %q", c.Args().First())
	}
	if filepath.Ext(out) != ".safetensors" {
		return usagef("--output %s: the file name must end in .safetensors", out)
	}
	pkl, err := clipcap.Open(in)
	if err != nil {
		return err
	}
	defer pkl.Close()
	if err := write(func() error { return weights.CheckSave(out) }); err != nil {
		return err
	}
	n := len(pkl.Captions)
	f := &featureFile{kind: "image", width: pkl.Width, normalized: c.Bool("normalize"), rows: make([]float32, 0, n*pkl.Width),
		meta: map[string]string{"model": "unknown (features from " + filepath.Base(in) + ")", "dtype": pkl.DType.String()}}
	rows := make([]int, n)
	for i, caption := range pkl.Captions {
		rows[i] = caption.Row
		f.ids, f.imageIDs, f.names = append(f.ids, caption.ID), append(f.imageIDs, caption.ImageID), append(f.names, caption.Caption)
	}
	for b, err := range pkl.Blocks(c.Context, rows, 0) {
		if err != nil {
			return err
		}
		for k := range len(b.Values) / f.width {
			if err := store.Check(b.Values[k*f.width:(k+1)*f.width], f.normalized); err != nil {
				caption := pkl.Captions[b.First+k]
				return fmt.Errorf("%s: row %d, the feature of image id %s: %w", in, caption.Row, caption.ImageID, err)
			}
		}
		f.rows = append(f.rows, b.Values...)
	}
	return f.save(c, out)
}

// featureFile is the file that the command writes.
type featureFile struct {
	kind       string // "image" or "text"
	width      int
	rows       []float32 // [len(ids), width]
	ids        []coco.ID
	imageIDs   []coco.ID // for captions, otherwise nil
	names      []string
	normalized bool
	meta       map[string]string
}

func (f *featureFile) save(c *cli.Context, path string) error {
	names, err := json.Marshal(f.names)
	if err != nil {
		return err
	}
	if f.normalized {
		if err := pipeline.Normalize(f.rows, f.width); err != nil {
			if row := (*pipeline.RowError)(nil); errors.As(err, &row) {
				return fmt.Errorf("the feature of %s cannot be scaled to length 1: %w", f.names[row.Row], row.Err)
			}
			return err
		}
	}
	ids, err := f.numbers("ids", f.ids)
	if err != nil {
		return err
	}
	imageIDs, err := f.numbers("image_ids", f.imageIDs)
	if err != nil {
		return err
	}
	f.meta["kind"], f.meta["inputs"] = f.kind, string(names)
	f.meta["normalized"], f.meta["cyclecap"] = fmt.Sprint(f.normalized), version()
	return torch.Scope(func() error {
		sd := nn.NewStateDict()
		sd.Add("features", torch.FromSlice(f.rows, int64(len(f.ids)), int64(f.width)))
		sd.Add("ids", torch.FromSlice(ids))
		if imageIDs != nil {
			sd.Add("image_ids", torch.FromSlice(imageIDs))
		}
		return write(func() error { return weights.SaveSafetensors(c.Context, path, sd, f.meta) })
	})
}

// numbers returns ids as integers. If one of them is not an integer, it returns positions
// in the list of different ids, which it writes to the metadata under the key.
func (f *featureFile) numbers(key string, ids []coco.ID) ([]int64, error) {
	if ids == nil {
		return nil, nil
	}
	out := make([]int64, len(ids))
	whole := true
	for i, id := range ids {
		n, ok := id.Int64()
		out[i], whole = n, whole && ok
	}
	if whole {
		return out, nil
	}
	at := map[coco.ID]int64{}
	var list []coco.ID
	for i, id := range ids {
		n, ok := at[id]
		if !ok {
			n = int64(len(list))
			at[id] = n
			list = append(list, id)
		}
		out[i] = n
	}
	text, err := json.Marshal(list)
	f.meta[key] = string(text)
	return out, err
}
