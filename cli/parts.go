package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"cyclecap/data/coco"
	"cyclecap/data/embeddings"
	"cyclecap/internal/atomicfile"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/weights"

	"github.com/urfave/cli/v2"
)

// partsFolder returns the folder for the parts of a file.
func partsFolder(out string) string { return out + ".parts" }

// partFile returns the name of a part in its folder.
func partFile(number int) string { return fmt.Sprintf("part-%d.safetensors", number) }

var partFiles = regexp.MustCompile(`^part-([0-9]{1,9})\.safetensors$`)

// The metadata of a part besides its note. A list is in JSON.
const (
	partNoteKey  = "cyclecap"
	partBatches  = "batches" // numbers of rows
	partIDs      = "ids"     // of photos: positions in the part
	partImageIDs = "image_ids"
	partNames    = "names"
)

// partsFile is a file of features that several processes compute, or one that may be interrupted: a
// folder with a file for each part. The features in them are as the encoder returns them. A process
// alone makes the file of them and removes them; for others, mergeFeatures does the first.
type partsFile struct {
	out    string
	width  int
	origin origin
	shard  shard

	now     featureRows // of the part that is being computed
	batches []int       // the numbers of rows with which it was added
	inputs  int         // in the parts that this process has computed
}

func (f *partsFile) kept(parts []int) (list []partInfo, err error) {
	dir := partsFolder(f.out)
	all, err := partsIn(dir)
	if err != nil {
		return nil, err
	}
	for _, k := range slices.Sorted(maps.Keys(all)) {
		p := all[k]
		if err := f.origin.differs(p.Origin, p.path, "this command"); err != nil {
			return nil, fmt.Errorf("%w: use the same inputs and options, or remove %s", err, dir)
		}
		// A part without features is tried again, as in a folder.
		if slices.Contains(parts, k) && p.Rows > 0 {
			list = append(list, p.partInfo)
		}
	}
	return list, f.removeStale(parts)
}

// removeStale removes what processes that were killed have left of parts.
func (f *partsFile) removeStale(parts []int) error {
	dir := partsFolder(f.out)
	files, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	of := map[string]bool{}
	for _, k := range parts {
		of[partFile(k)] = true
	}
	for _, e := range files {
		if !of[atomicfile.Target(e.Name())] {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (f *partsFile) add(r featureRows) error {
	f.batches = append(f.batches, len(r.ids))
	f.now.add(r)
	return nil
}

func (f *partsFile) end(c *cli.Context, p partInfo) error {
	ids := f.now.ids
	if f.origin.Kind == "image" {
		// compute counts the photos of this process.
		ids = moved(ids, -f.inputs)
	}
	f.inputs += p.Inputs
	meta := map[string]string{partNoteKey: partNote{f.origin, p}.String()}
	for key, list := range map[string]any{partBatches: f.batches, partIDs: ids, partImageIDs: f.now.imageIDs, partNames: f.now.names} {
		text, err := json.Marshal(list)
		if err != nil {
			return err
		}
		meta[key] = string(text)
	}
	dir := partsFolder(f.out)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	err := torch.Scope(func() error {
		sd := nn.NewStateDict()
		sd.Add("features", torch.FromSlice(f.now.rows, int64(len(ids)), int64(f.width)))
		return write(func() error {
			return weights.SaveSafetensors(c.Context, filepath.Join(dir, partFile(p.Part)), sd, meta)
		})
	})
	f.now, f.batches = featureRows{}, nil
	return err
}

func (f *partsFile) save(c *cli.Context) error {
	all, err := partsIn(partsFolder(f.out))
	if err != nil {
		return err
	}
	if f.shard.alone() {
		if _, _, err := merged(c, f.out, f.origin, all); err != nil {
			return err
		}
		return f.remove()
	}
	fmt.Fprintf(c.App.ErrWriter, "cyclecap: shard %v is done; %s has %d of %d parts\n", f.shard, partsFolder(f.out), len(all), f.origin.Parts)
	return nil
}

// remove removes the parts, and their folder if nothing else is in it.
func (f *partsFile) remove() error {
	dir := partsFolder(f.out)
	for k := range f.origin.Parts {
		if err := os.Remove(filepath.Join(dir, partFile(k))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	os.Remove(dir)
	return nil
}

func (f *partsFile) close() {}

// moved returns positions that are counted from elsewhere.
func moved(ids []coco.ID, by int) []coco.ID {
	list := make([]coco.ID, len(ids))
	for i, id := range ids {
		n, _ := id.Int64()
		list[i] = coco.Int(n + int64(by))
	}
	return list
}

// A filedPart is a part of a partsFile on disk.
type filedPart struct {
	partNote
	path string
}

// partsIn returns the parts in a folder by their numbers. One that does not exist has none.
func partsIn(dir string) (map[int]filedPart, error) {
	files, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	all := map[int]filedPart{}
	for _, e := range files {
		m := partFiles.FindStringSubmatch(e.Name())
		if m == nil {
			continue
		}
		p, err := openPart(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		if n, _ := strconv.Atoi(m[1]); n != p.Part {
			return nil, fmt.Errorf("%s is part %d: it was renamed; give it its name again, or remove it", p.path, p.Part)
		}
		all[p.Part] = p
	}
	return all, nil
}

// openPart reads the note of a part.
func openPart(path string) (p filedPart, err error) {
	p.path = path
	f, err := weights.Open(path)
	if err != nil {
		return p, err
	}
	err = json.Unmarshal([]byte(f.Meta[partNoteKey]), &p.partNote)
	if err != nil || p.Origin.Kind == "" || p.Part < 0 || p.Part >= p.Origin.Parts {
		return p, fmt.Errorf("%s is no part of features: want a file that features --shard has written", path)
	}
	return p, nil
}

// batches calls add with the features of a part, as they were added to it. Photos are counted from first.
func (p filedPart) batches(first int, add func(featureRows) error) error {
	return torch.Scope(func() error {
		f, err := weights.Open(p.path)
		if err != nil {
			return err
		}
		damaged := fmt.Errorf("%s is damaged: its lists and features do not fit together; remove it and run the command that computed it again", p.path)
		sd, err := f.Load()
		if err != nil {
			return err
		}
		defer sd.Close()
		x, found := sd.Get("features")
		if !found || x.DType() != torch.Float32 || x.Dim() != 2 {
			return damaged
		}
		var all featureRows
		var counts []int
		for key, list := range map[string]any{partBatches: &counts, partIDs: &all.ids, partImageIDs: &all.imageIDs, partNames: &all.names} {
			if err := json.Unmarshal([]byte(f.Meta[key]), list); err != nil {
				return damaged
			}
		}
		n, width := int(x.Size(0)), int(x.Size(1))
		total := 0
		for _, k := range counts {
			if k < 0 {
				return damaged
			}
			total += k
		}
		if total != n || p.Rows != n || len(all.ids) != n || len(all.names) != n || all.imageIDs != nil && len(all.imageIDs) != n {
			return damaged
		}
		if p.Origin.Kind == "image" {
			all.ids = moved(all.ids, first)
		}
		if n > 0 {
			all.rows = torch.ToSlice[float32](x)
		}
		for at := 0; len(counts) > 0; counts = counts[1:] {
			to := at + counts[0]
			rows := featureRows{rows: all.rows[at*width : to*width], ids: all.ids[at:to], names: all.names[at:to]}
			if all.imageIDs != nil {
				rows.imageIDs = all.imageIDs[at:to]
			}
			if err := add(rows); err != nil {
				return err
			}
			at = to
		}
		return nil
	})
}

// mergeCommand is features --merge.
func mergeCommand(c *cli.Context) error {
	if err := need(c, "output"); err != nil {
		return err
	}
	for _, f := range c.Command.Flags {
		if name := f.Names()[0]; c.IsSet(name) && name != "merge" && name != "output" {
			return usagef("--%s cannot be used with --merge: the parts say how they were computed", name)
		}
	}
	out := c.Path("output")
	if err := checkOutput(out); err != nil {
		return err
	}
	if embeddings.IsFolder(out) {
		return usagef("--merge -o %s: the parts of a folder are its files and need no merging; the name must end in .safetensors or .npy", out)
	}
	from := c.Args().Slice()
	if len(from) == 0 {
		from = []string{partsFolder(out)}
	}
	return mergeFeatures(c, out, from)
}

// mergeFeatures makes the file out of parts in files and folders. It has the bytes that one process would
// have written.
func mergeFeatures(c *cli.Context, out string, from []string) error {
	all := map[int]filedPart{}
	var one filedPart // any of them
	for _, path := range from {
		parts := map[int]filedPart{}
		info, err := os.Stat(path)
		switch {
		case err != nil:
			return fmt.Errorf("%w: --merge needs the parts that features --shard has written", err)
		case info.IsDir():
			parts, err = partsIn(path)
			if err == nil && len(parts) == 0 {
				err = fmt.Errorf("%s has no parts: want part-0.safetensors and others, which features --shard writes", path)
			}
		default:
			var p filedPart
			p, err = openPart(path)
			parts[p.Part] = p
		}
		if err != nil {
			return err
		}
		for _, k := range slices.Sorted(maps.Keys(parts)) {
			p := parts[k]
			if one.path == "" {
				one = p
			}
			if err := one.Origin.differs(p.Origin, p.path, one.path); err != nil {
				return fmt.Errorf("%w: compute all with the same inputs and options", err)
			}
			all[k] = p
		}
	}
	o := one.Origin
	var missing []string
	for k := range o.Parts {
		if _, found := all[k]; !found {
			missing = append(missing, strconv.Itoa(k))
		}
	}
	if n := len(missing); n > 0 {
		if n > 20 {
			missing = append(missing[:20], fmt.Sprintf("and %d more", n-20))
		}
		return fmt.Errorf("%d of %s %s missing, nothing was written: %s; part K belongs to --shard I/N with I = K mod N + 1; run that again, or give --merge the folder where the part is",
			n, countOf(o.Parts, "part"), map[bool]string{true: "is", false: "are"}[n == 1], strings.Join(missing, ", "))
	}
	if filepath.Ext(out) == ".safetensors" {
		if err := write(func() error { return weights.CheckSave(out) }); err != nil {
			return err
		}
	}
	t, n, err := merged(c, out, o, all)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.App.ErrWriter, "cyclecap: %s has %s of %s; %s can be removed\n", out, countOf(n, "feature"), countOf(o.Parts, "part"), strings.Join(from, ", "))
	if t.bad() {
		fmt.Fprintf(c.App.ErrWriter, "cyclecap: %s; %s contains the features of the others\n", t.say("read"), out)
		return errReported
	}
	return nil
}

// merged writes the file of all parts. It returns the number of features, and counts what could not be
// read.
func merged(c *cli.Context, out string, o origin, all map[int]filedPart) (t tally, n int, err error) {
	f, err := newFeatureFile(out, o.Kind, o.Kind == "image", o.Width, o.Normalized, map[string]string{"model": o.Model, "dtype": o.DType, "fast": o.Fast})
	if err != nil {
		return t, n, err
	}
	defer f.close()
	first := 0
	bar := newProgress(c.App.ErrWriter, "parts", o.Parts)
	defer bar.finish()
	for k := range o.Parts {
		if err := c.Context.Err(); err != nil {
			return t, n, err
		}
		p := all[k]
		if err := p.batches(first, f.add); err != nil {
			return t, n, err
		}
		t.count(p.Rows+p.Failed, p.Failed, p.Tars)
		n, first = n+p.Rows, first+p.Inputs
		bar.add(1)
	}
	if n == 0 {
		return t, n, fmt.Errorf("no photo could be read; nothing was written")
	}
	return t, n, f.save(c)
}
