package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"cyclecap/data/coco"
	"cyclecap/data/embeddings"
	"cyclecap/pipeline"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/weights"

	"github.com/urfave/cli/v2"
)

// featureRows are features and what they are of.
type featureRows struct {
	rows     []float32 // [len(ids), width]
	ids      []coco.ID
	imageIDs []coco.ID // for captions, otherwise nil
	names    []string
}

// add adds other features.
func (r *featureRows) add(more featureRows) {
	r.rows, r.ids = append(r.rows, more.rows...), append(r.ids, more.ids...)
	r.imageIDs, r.names = append(r.imageIDs, more.imageIDs...), append(r.names, more.names...)
}

// normalize scales the rows to length 1.
func (r featureRows) normalize(width int) error {
	err := pipeline.Normalize(r.rows, width)
	if row := (*pipeline.RowError)(nil); errors.As(err, &row) {
		return fmt.Errorf("the feature of %s cannot be scaled to length 1: %w", r.names[row.Row], row.Err)
	}
	return err
}

// featureFile is what the command writes, a file or a folder.
type featureFile interface {
	// kept returns those of parts that it has already.
	kept(parts []int) ([]partInfo, error)
	add(featureRows) error
	// end says that a part has all its features.
	end(*cli.Context, partInfo) error
	save(*cli.Context) error
	close()
}

// checkOutput returns an error if the name of the output does not say its form.
func checkOutput(out string) error {
	if ext := filepath.Ext(out); ext == ".safetensors" || ext == ".npy" || embeddings.IsFolder(out) {
		return nil
	}
	return usagef("--output %s: the name must end in .safetensors or .npy, or in / for a folder", out)
}

// newFeatureFile returns the output of a name. kind is "image" or "text"; photos says whether the names of
// the features are those of photos, and normalized whether they are to have length 1.
func newFeatureFile(out, kind string, photos bool, width int, normalized bool, meta map[string]string) (featureFile, error) {
	if filepath.Ext(out) == ".safetensors" && !embeddings.IsFolder(out) {
		return &safetensorsFile{path: out, kind: kind, width: width, normalized: normalized, meta: meta}, nil
	}
	of := embeddings.Texts
	if photos {
		of = embeddings.Images
	}
	w, err := embeddings.Create(out, of, width)
	if err != nil {
		return nil, err
	}
	f := &tableFile{Writer: w, width: width, normalized: normalized || embeddings.IsFolder(out)}
	if embeddings.IsFolder(out) {
		return &folderFile{tableFile: f, path: out, kind: of}, nil
	}
	return f, nil
}

// unparted is what files without parts do about them: nothing.
type unparted struct{}

func (unparted) kept([]int) ([]partInfo, error) { return nil, nil }

func (unparted) end(*cli.Context, partInfo) error { return nil }

// tableFile is a .npy file, or a part of a folder as clip-retrieval writes it.
type tableFile struct {
	unparted
	*embeddings.Writer
	width      int
	normalized bool
}

func (f *tableFile) add(r featureRows) error {
	if f.normalized {
		if err := r.normalize(f.width); err != nil {
			return err
		}
	}
	list := make([]embeddings.Input, len(r.names))
	for i, name := range r.names {
		list[i] = embeddings.Input{Name: name, ID: plainID(r.ids[i])}
		if r.imageIDs != nil {
			list[i].Image = plainID(r.imageIDs[i])
		}
	}
	return f.Add(r.rows, list)
}

// plainID returns an id without the quotation marks of JSON.
func plainID(id coco.ID) string {
	var text string
	if json.Unmarshal([]byte(id.String()), &text) == nil {
		return text
	}
	return id.String()
}

func (f *tableFile) save(c *cli.Context) error {
	return write(func() error { return f.Save(c.Context) })
}

func (f *tableFile) close() {
	if f.Writer != nil {
		f.Close()
	}
}

// safetensorsFile is a safetensors file, in memory until it is saved.
type safetensorsFile struct {
	unparted
	featureRows
	path       string
	kind       string
	width      int
	normalized bool
	meta       map[string]string
}

func (f *safetensorsFile) add(r featureRows) error {
	f.featureRows.add(r)
	return nil
}

func (f *safetensorsFile) close() {}

func (f *safetensorsFile) save(c *cli.Context) error {
	names, err := json.Marshal(f.names)
	if err != nil {
		return err
	}
	if f.normalized {
		if err := f.normalize(f.width); err != nil {
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
		return write(func() error { return weights.SaveSafetensors(c.Context, f.path, sd, f.meta) })
	})
}

// numbers returns ids as integers. If one of them is not an integer, it returns positions
// in the list of different ids, which it writes to the metadata under the key.
func (f *safetensorsFile) numbers(key string, ids []coco.ID) ([]int64, error) {
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
