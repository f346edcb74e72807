package cli

import (
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"slices"
	"strings"

	"cyclecap/data/clipcap"
	"cyclecap/data/coco"
	"cyclecap/data/embeddings"
	store "cyclecap/data/features"
	"cyclecap/data/sets"
	"cyclecap/nets/clip"
	"cyclecap/pipeline"
	"cyclecap/weights"

	"github.com/urfave/cli/v2"
)

func featuresCommand() *cli.Command {
	return &cli.Command{
		Name:      "features",
		Usage:     "compute the CLIP features of photos, texts or captions",
		UsageText: "(--clip F (--images PATH… | --text STRING… | --captions FILE) | --clipcap FILE.pkl | --merge [PARTS…]) -o OUT",
		Flags: append([]cli.Flag{
			clipFlag(),
			clipConfigFlag(),
			&cli.StringSliceFlag{Name: "images", Usage: "compute the features of photos; `PATH…` are photos, folders, tars (.tar, .tar.gz), tables (.parquet), or - for the paths that standard input lists", KeepSpace: true},
			recursiveFlag(),
			&cli.StringSliceFlag{Name: "text", Usage: "compute the features of one or more texts, `STRING…`", KeepSpace: true},
			&cli.PathFlag{Name: "captions", Usage: "compute the features of the captions in `FILE`: JSON of COCO, LAVIS or Karpathy, JSON lines, .csv, .tsv, a tar, or text with one caption a line"},
			&cli.PathFlag{Name: "clipcap", Usage: "instead of computing features, read them from `FILE.pkl`, written by ClipCap's parse_coco.py; no code in it is run"},
			&cli.PathFlag{Name: "output", Aliases: []string{"o"}, Usage: "write the features to `OUT`: a .safetensors or .npy file, or a folder (its name ends in /) as clip-retrieval writes it"},
			&cli.BoolFlag{Name: "normalize", Usage: "scale each feature to length 1", DisableDefaultText: true},
			&cli.BoolFlag{Name: "truncate", Usage: "cut texts that are longer than CLIP's context; without this flag, they are an error", DisableDefaultText: true},
			&cli.IntFlag{Name: "batch", Value: 32, Usage: "process `N` photos or texts at a time; low-order bits depend on it"},
			&cli.StringFlag{Name: "shard", Usage: "compute only the I-th of N shares of the input, as one of N processes; `I/N` is 1/N to N/N"},
			&cli.BoolFlag{Name: "merge", Usage: "put the parts in OUT.parts/, or in the folders and files PARTS, together to OUT", DisableDefaultText: true},
		}, computeFlags()...),
		Description: `OUT.safetensors contains "features", f32 [n, width], in the order of the input,
and "ids", int64 [n]: annotation ids or numbers of lines with --captions and
--clipcap, otherwise positions in the input, from 0. With the former, "image_ids"
has the image id of each feature, if the file says it. If some ids are no integers,
the metadata "ids" or "image_ids" is a JSON array of all different ones, and the
tensor has positions in it. The metadata also have the inputs, the model and the
options. OUT.npy and OUT/ are described in docs/formats.md.

The input is cut into parts, numbered from 0: each tar is one, and so are 4,096
photos or captions. The same command, run again, keeps complete parts. torchrun's
processes divide them; with --shard I/N, a process computes the parts I-1, I-1+N, …
of the same input in the same order. OUT/ has a pair of files for each part; those
of other outputs are in OUT.parts/ until OUT is complete, with --shard by --merge.

A photo that cannot be read is skipped, as is the rest of a damaged tar, and the
exit code is then 1. 1.jpg in a.tar is called a.tar/1.jpg.

EXAMPLES:
   cyclecap features --clip ViT-B-32.pt --images val2014/ -o images.safetensors
   cyclecap features --clip ViT-B-32.pt --images 'cc3m/{00000..00331}.tar' -o images.safetensors
   cyclecap features --clip ViT-B-32.pt --images 'cc3m/{00000..00331}.tar' --shard $((SLURM_ARRAY_TASK_ID+1))/$SLURM_ARRAY_TASK_COUNT -o index/
   cyclecap features --clip ViT-B-32.pt --text "a photo of a cat" "a photo of a dog" -o texts.safetensors
   torchrun --nproc-per-node 4 --no-python cyclecap features --clip ViT-B-32.pt --images val2014/ -o images.npy
   cyclecap features --clip ViT-B-32.pt --captions captions_val2014.json --normalize -o captions.safetensors
   cyclecap features --clipcap oscar_split_ViT-B_32_train.pkl -o train.safetensors`,
		Action: features,
	}
}

// inputs are what to compute features of; either paths or texts is set.
type inputs struct {
	kind  string
	paths []string // of photos and tars
	tars  bool     // whether there is a tar among them
	texts []string
	ids   []coco.ID // of texts
	// imageIDs are the images that the texts of --captions describe.
	imageIDs []coco.ID
	skipped  int    // captions without text or with invalid characters
	why      string // says which

	batch    int
	sections []section // of the parts
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
		in.paths, err = photosIn(c, append(images, rest...))
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
			in.why = fmt.Sprintf("skipped %d of %d captions: %s", in.skipped, in.skipped+len(in.texts), oneLine(strings.Join(set.Bad.First, "; ")))
		}
		if len(in.texts) == 0 {
			return in, fmt.Errorf("%s contains no captions", captions)
		}
	}
	return in, nil
}

func features(c *cli.Context) error {
	if c.Bool("merge") {
		return mergeCommand(c)
	}
	if c.Path("clipcap") != "" {
		return clipcapFeatures(c)
	}
	if err := need(c, "clip", "output"); err != nil {
		return err
	}
	if err := checkBatch(c); err != nil {
		return err
	}
	job := featureJob{out: c.Path("output")}
	if err := checkOutput(job.out); err != nil {
		return err
	}
	var err error
	if job.share, err = shardOf(c); err != nil {
		return err
	}
	if job.on, err = computeOf(c); err != nil {
		return err
	}
	if job.in, err = inputsOf(c); err != nil {
		return err
	}
	job.in.cut(c.Int("batch"), partSize)
	if !job.share.alone() { // whatever a launcher says
		_, err = job.run(c)
		return err
	}
	return groupFeatures(c, job)
}

// featureJob is what the command computes.
type featureJob struct {
	in    inputs
	out   string
	share shard
	on    pipeline.Options
}

// run computes the features of a shard. t counts what could not be read of it.
func (job featureJob) run(c *cli.Context) (t tally, err error) {
	in, out, share, on := job.in, job.out, job.share, job.on
	if in.skipped > 0 && share.i <= 1 {
		fmt.Fprintf(c.App.ErrWriter, "cyclecap: %s\n", in.why)
	}
	parts := share.parts(len(in.sections))
	if len(parts) == 0 {
		fmt.Fprintf(c.App.ErrWriter, "cyclecap: nothing to do for shard %v: the input has only %s\n", share, countOf(len(in.sections), "part"))
		return t, nil
	}
	if share.alone() && filepath.Ext(out) == ".safetensors" {
		if err := write(func() error { return weights.CheckSave(out) }); err != nil {
			return t, err
		}
	}
	part := clip.Text
	if in.kind == "image" {
		part = clip.Image
	}
	m, err := pipeline.LoadCLIP(c.Path("clip"), c.Path("clip-config"), part, on)
	if err != nil {
		return t, err
	}
	defer m.Close()
	notes(c, m.Notes)
	f, err := job.file(c, m)
	if err != nil {
		return t, err
	}
	defer f.close()
	t, n, err := compute(c, m, in, share, parts, f)
	if err != nil {
		return t, err
	}
	if n == 0 && share.alone() {
		if p, ok := f.(*partsFile); ok {
			err = p.remove()
		}
		return t, errors.Join(fmt.Errorf("no photo could be read; nothing was written"), err)
	}
	if err := f.save(c); err != nil {
		return t, err
	}
	if t.bad() {
		fmt.Fprintf(c.App.ErrWriter, "cyclecap: %s; %s contains the features of the others\n", t.say("read"), out)
		return t, errReported
	}
	if in.skipped > 0 {
		return t, errReported
	}
	return t, nil
}

// file returns the file or folder for the features of a shard.
func (job featureJob) file(c *cli.Context, m *pipeline.CLIP) (featureFile, error) {
	in := job.in
	of := origin{Kind: in.kind, Inputs: in.hash(), Parts: len(in.sections), Batch: in.batch,
		Model: m.Model.Name(), DType: job.on.TypeName(), Fast: fmt.Sprint(job.on.Packed())}
	folder := embeddings.IsFolder(job.out)
	// With a single part there is nothing to keep after an interruption.
	inParts := !folder && (!job.share.alone() || len(in.sections) > 1)
	if folder || inParts {
		var err error
		if of.Weights, err = m.Fingerprint(); err != nil {
			return nil, err
		}
	}
	if inParts {
		of.Width, of.Normalized = m.Width(), c.Bool("normalize")
		return &partsFile{out: job.out, width: m.Width(), origin: of, shard: job.share}, nil
	}
	f, err := newFeatureFile(job.out, in.kind, in.kind == "image", m.Width(), c.Bool("normalize"), map[string]string{
		"model": of.Model, "dtype": of.DType, "fast": of.Fast})
	if folder, ok := f.(*folderFile); ok {
		folder.origin, folder.shard = of, job.share
	}
	return f, err
}

// compute adds the features of parts of the inputs to f, without those that it has already. It counts
// the photos and the features of all these parts.
func compute(c *cli.Context, m *pipeline.CLIP, in inputs, share shard, parts []int, f featureFile) (t tally, n int, err error) {
	kept, err := f.kept(parts)
	if err != nil {
		return t, n, err
	}
	for _, p := range kept {
		t.count(p.Rows+p.Failed, p.Failed, p.Tars)
		n += p.Rows
		parts = slices.DeleteFunc(parts, func(k int) bool { return k == p.Part })
	}
	of := ""
	if !share.alone() {
		of = fmt.Sprintf("shard %v: ", share)
	}
	if len(kept) > 0 {
		fmt.Fprintf(c.App.ErrWriter, "cyclecap: "+of+"kept %s that %s computed before; %d to do\n", countOf(len(kept), "part"), map[bool]string{true: "was", false: "were"}[len(kept) == 1], len(parts))
	}
	if len(parts) == 0 {
		return t, n, nil
	}
	var at starts
	var index []int // of texts, in the input
	batches, total, what := iter.Seq2[pipeline.Features, error](nil), 0, "texts"
	if in.kind == "image" {
		photos, count := in.photos(parts, &at)
		batches, total, what = m.PhotosFrom(c.Context, photos, in.batch), count, "photos"
	} else {
		var texts []string
		for _, k := range parts {
			at.add(len(index))
			for i := in.sections[k].from; i < in.sections[k].to; i++ {
				texts, index = append(texts, in.texts[i]), append(index, i)
			}
		}
		batches, total = m.Texts(c.Context, texts, in.batch, c.Bool("truncate")), len(texts)
	}
	bar := newProgress(c.App.ErrWriter, of+what, total)
	defer bar.finish()

	now := partInfo{Part: parts[0]} // the part that is being computed
	finish := func() error {
		if err := f.end(c, now); err != nil {
			return err
		}
		parts = parts[1:]
		return nil
	}
	done, doneParts := 0, 0
	for b, err := range batches {
		if long := (*pipeline.LongTextError)(nil); errors.As(err, &long) {
			return t, n, fmt.Errorf("input %d has %d tokens, but this CLIP takes at most %d; shorten it or use --truncate: %.60q", index[long.Index], long.Tokens, long.Room, long.Text)
		} else if err != nil {
			return t, n, err
		}
		// A part ends where the next one begins: nobody knows earlier where a tar ends.
		if next, ok := at.get(doneParts + 1); ok && next == done {
			if err := finish(); err != nil {
				return t, n, err
			}
			doneParts++
			now = partInfo{Part: parts[0]}
		}
		before := t
		t.add(bar, len(b.Index), b.Failed)
		now.Inputs += len(b.Index) + len(b.Failed)
		now.Rows, now.Failed, now.Tars = now.Rows+len(b.Index), now.Failed+t.failed-before.failed, now.Tars+t.tars-before.tars
		rows := featureRows{rows: b.Rows}
		for k, i := range b.Index {
			if in.kind == "image" {
				rows.ids, rows.names = append(rows.ids, coco.Int(int64(i))), append(rows.names, b.Paths[k])
				continue
			}
			i = index[i]
			rows.ids, rows.names = append(rows.ids, in.ids[i]), append(rows.names, in.texts[i])
			if in.imageIDs != nil {
				rows.imageIDs = append(rows.imageIDs, in.imageIDs[i])
			}
		}
		if err := f.add(rows); err != nil {
			return t, n, err
		}
		n += len(b.Index)
		done += len(b.Index) + len(b.Failed)
		bar.add(len(b.Index) + len(b.Failed))
	}
	return t, n, finish()
}

// clipcapFeatures reads a ClipCap pickle and writes a row for each caption: the
// feature of its photo.
func clipcapFeatures(c *cli.Context) error {
	if err := need(c, "output"); err != nil {
		return err
	}
	for _, name := range []string{"clip", "clip-config", "images", "text", "captions", "shard", "merge"} {
		if c.IsSet(name) {
			return usagef("--%s cannot be used with --clipcap, which reads features instead of computing them", name)
		}
	}
	in, out := c.Path("clipcap"), c.Path("output")
	if c.Args().Present() {
		return usagef("--clipcap takes no arguments, got %q", c.Args().First())
	}
	if err := checkOutput(out); err != nil {
		return err
	}
	if embeddings.IsFolder(out) {
		return usagef("--output %s: with --clipcap the name must end in .safetensors or .npy; a folder has paths of photos, which %s lacks", out, in)
	}
	pkl, err := clipcap.Open(in)
	if err != nil {
		return err
	}
	defer pkl.Close()
	if filepath.Ext(out) == ".safetensors" {
		if err := write(func() error { return weights.CheckSave(out) }); err != nil {
			return err
		}
	}
	f, err := newFeatureFile(out, "image", false, pkl.Width, c.Bool("normalize"), // the names are captions
		map[string]string{"model": "unknown (features from " + filepath.Base(in) + ")", "dtype": pkl.DType.String()})
	if err != nil {
		return err
	}
	defer f.close()
	rows := make([]int, len(pkl.Captions))
	for i, caption := range pkl.Captions {
		rows[i] = caption.Row
	}
	for b, err := range pkl.Blocks(c.Context, rows, 0) {
		if err != nil {
			return err
		}
		part := featureRows{rows: b.Values}
		for k := range len(b.Values) / pkl.Width {
			caption := pkl.Captions[b.First+k]
			if err := store.Check(b.Values[k*pkl.Width:(k+1)*pkl.Width], c.Bool("normalize")); err != nil {
				return fmt.Errorf("%s: row %d, the feature of image id %s: %w", in, caption.Row, caption.ImageID, err)
			}
			part.ids, part.imageIDs, part.names = append(part.ids, caption.ID), append(part.imageIDs, caption.ImageID), append(part.names, caption.Caption)
		}
		if err := f.add(part); err != nil {
			return err
		}
	}
	return f.save(c)
}
